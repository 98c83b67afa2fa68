"""Which device computes, and how many threads of a CPU."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch


def device(name: str = "auto") -> torch.device:
    """The device by name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable(name: str) -> torch.device:
    """`device`, after it has held a number. Raises ValueError where this machine has none such."""
    try:
        found = device(name)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {name}: this machine has none such; leave it out, or choose cpu") from None
    return found


def exact(where: torch.device) -> torch.dtype:
    """The widest floating point of a device: float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if where.type == "mps" else torch.float64


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


def give_back() -> None:
    """What was freed goes back to the system where the C library keeps it (glibc): after something that took a lot."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


MEMORY = 6 * 2**30  # bytes that one process of a study stays within on a CPU
PIXELS_WITH_GRAPH, PIXELS_WITHOUT = 8 * 224**2, 32 * 224**2  # of a batch: two GiB at most, by VGG-19 or ResNet-101


def images_at_once(size: int, most: int, *, graph: bool = True) -> int:
    """How many square images of `size` pixels a side pass a network together: `most`, or fewer where they are large, so that
    memory does not grow with their size. Passes that keep no `graph` for a backward pass take four times as many."""
    return max(1, min(most, (PIXELS_WITH_GRAPH if graph else PIXELS_WITHOUT) // size**2))


def wide(t: torch.Tensor) -> torch.Tensor:
    """Values of half precision in float32, in which attacks and measures compute; others as they are.

    In bfloat16 the usual step of PGD is less than half of the gap between two numbers near 1: nothing would move. In float16
    the sum over a map overflows, and a squared gradient is zero.
    """
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
