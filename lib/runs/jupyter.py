"""How the runner starts Jupyter kernels."""

import os
import shutil
import tempfile
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from lib.system import forks


class IPCKernelManager(AsyncKernelManager):
    """Kernels that talk over sockets in a folder of their own: runs side by side cannot meet on a TCP port. In a study they
    are forks of its loaded process (`lib.system.forks`)."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        given = super().format_kernel_cmd(extra_arguments)
        if given[1:3] != ["-m", "ipykernel_launcher"] or not os.environ.get(forks.ADDRESS):
            return given  # a kernel of somebody's own making
        return [given[0], "-m", "lib", "kernel", *given[3:]]

    @default("transport")
    def _transport(self) -> str:
        return "ipc"

    @default("ip")
    def _sockets(self) -> str:
        # absolute and short: the kernel may run in another folder, and a socket's path has about 100 characters
        return tempfile.mkdtemp(prefix="study-") + "/k"

    async def _async_cleanup_resources(self, *args: Any, **options: Any) -> None:
        await super()._async_cleanup_resources(*args, **options)
        shutil.rmtree(self.ip.removesuffix("/k"), ignore_errors=True)

    cleanup_resources = _async_cleanup_resources
