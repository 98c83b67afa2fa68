"""Exact floating-point operation counts.

torch's own FlopCounterMode cannot watch autograd.grad with respect to a leaf that is a module's input, so this counts
with its registry of formulas, and nothing else.
"""

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flops(f: Callable[[], object]) -> int:
    with _Counter() as counter:
        f()
    return counter.total
