"""How the runner starts Jupyter kernels."""

import shutil
import tempfile
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class IPCKernelManager(AsyncKernelManager):
    """Kernels that talk over sockets in a folder of their own: runs side by side cannot meet on a TCP port."""

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
