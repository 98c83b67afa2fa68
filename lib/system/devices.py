"""Which device computes, and how many threads of a CPU."""

import contextlib
from collections.abc import Iterator

import torch


def device(name: str = "auto") -> torch.device:
    """The device by name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_on_cpu(name: str = "auto") -> contextlib.AbstractContextManager[None]:
    """One torch thread where the named device is the CPU, so that jobs share its cores and numbers do not depend on them."""
    return threads(1 if device(name).type == "cpu" else torch.get_num_threads())
