"""Exact floating-point operation counts.

torch's own FlopCounterMode cannot watch autograd.grad with respect to a leaf that is a module's input, so this counts
with its registry of formulas, and nothing else.
"""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flops(f: Callable[[], object]) -> int:
    """Of one call: convolutions and matrix products, forward and backward; elementwise work is not counted."""
    with _Counter() as counter:
        f()
    return counter.total
