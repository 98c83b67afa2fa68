"""The check of shapes itself: it finds what departs from a signature, and lets kernels speak first."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lib.attacks import losses, projected
from lib.fooling import discrepancy
from tests import shapes


def test_kernels_are_held_to_their_signatures_in_every_test():
    for module, name in ((projected, "pgd"), (discrepancy, "two_class"), (losses, "kl")):
        assert getattr(module, name).__wrapped__.__name__ == name
    assert projected.input_gradient.__wrapped__  # where lib took the name from another file, too


def test_wrong_shapes_of_arguments_and_results_are_found():
    def pooled(x: Float[Tensor, "n c h w"], mask: Float[Tensor, "h w"] | None = None) -> Float[Tensor, "n c"]:
        return x.mean((2, 3)) if mask is None else (x * mask).mean(3)

    held, x = shapes.checked(pooled), torch.rand(2, 3, 4, 5)
    assert held(x).shape == (2, 3)
    with pytest.raises(AssertionError, match=r"pooled: return is torch.float32 of shape \(2, 3, 4\)"):
        held(x, torch.rand(4, 5))
    with pytest.raises(AssertionError, match=r"pooled: mask is torch.float32 of shape \(1, 5\)"):
        held(x, torch.rand(1, 5))


def test_fields_of_results_share_the_dimensions_of_the_call():
    def bound(x: Float[Tensor, " n"]) -> discrepancy.Bound:
        return discrepancy.Bound(x, x[:1], x > 0)

    assert shapes.checked(bound)(torch.rand(1)).bound.shape == (1,)
    with pytest.raises(AssertionError, match="bound: return is Bound"):
        shapes.checked(bound)(torch.rand(2))


def test_a_kernel_refuses_in_its_own_words():
    with pytest.raises(ValueError, match="D2 takes two classes an image"):
        discrepancy.two_class(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
