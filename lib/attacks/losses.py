"""What attacks maximise, per sample: cross-entropy, margin, divergence of two answers.

One logit an image, (N, 1), counts as those of two classes (`lib.networks.contract`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lib.networks import contract

Loss = Callable[[Float[Tensor, "n classes"], Int[Tensor, " n"]], Float[Tensor, " n"]]  # (logits, y) -> loss


def cross_entropy(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """-log softmax(logits)_y, per sample."""
    return F.cross_entropy(contract.two_logits(logits), y, reduction="none")


def margin(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """max_{j != y} f_j - f_y, per sample: positive where the prediction is wrong; does not vanish on confident models."""
    logits = contract.two_logits(logits)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - logits.gather(1, y[:, None])[:, 0]


def kl(clean: Float[Tensor, "n classes"], attacked: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """KL(softmax clean || softmax attacked) of logits, per sample."""
    clean, attacked = contract.two_logits(clean), contract.two_logits(attacked)
    return F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
