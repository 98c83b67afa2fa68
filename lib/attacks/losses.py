"""What attacks maximise, per sample: cross-entropy, margin, ratio of differences of logits, divergence of two answers.

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


def targeted_dlr(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"], target: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """(f_t - f_y) / (f_(1) - (f_(3) + f_(4)) / 2), per sample, f_(k) the k-th highest logit: the targeted difference of logits
    ratio (Croce and Hein 2020, arXiv:2003.01690, eq. 6), which neither a shift nor a scale of the logits changes.

    Three classes have no fourth logit: f_(3) stands for it, as in the untargeted ratio (eq. 5). Of two, where the ratio would
    be constant, or one logit, the difference f_t - f_y itself is given, the margin.
    """
    logits = contract.two_logits(logits)
    gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    if logits.shape[1] == 2:
        return gap
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    # logits that are all but equal have no ratio: what is added keeps it finite
    return gap / (top[:, 0] - (top[:, 2] + top[:, -1]) / 2 + 1e-12)


def kl(clean: Float[Tensor, "n classes"], attacked: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """KL(softmax clean || softmax attacked) of logits, per sample."""
    clean, attacked = contract.two_logits(clean), contract.two_logits(attacked)
    return F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
