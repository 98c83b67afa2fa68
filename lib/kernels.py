"""How the runner starts Jupyter kernels."""

from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class IPCKernelManager(AsyncKernelManager):
    """Kernels that talk over sockets in the file system: parallel runs cannot collide on a TCP port."""

    @default("transport")
    def _transport(self) -> str:
        return "ipc"
