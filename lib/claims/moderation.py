r"""Variances over few training runs, moderated by those of the other arms.

Three runs say little of a variance; thirty arms of three runs say a lot of what such variances are like. Empirical Bayes
(Smyth 2004, doi 10.2202/1544-6115.1027, sec. 6.2; the prior's fit is eq. 6 there) takes each variance's prior as scaled
inverse chi-squared with :math:`d_0` degrees of freedom about :math:`s_0^2`:

.. math:: \tilde s^2 = \frac{d_0 s_0^2 + d s^2}{d_0 + d}, \qquad t \text{ with } d_0 + d \text{ degrees of freedom.}
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, polygamma


class Prior(NamedTuple):
    """d_0 (infinite: all variances are one) and s_0^2."""

    df: float
    variance: float


class Moderated(NamedTuple):
    """The variance of one training run, and its degrees of freedom."""

    variance: float
    df: float


def prior(variances: Sequence[float], df: Sequence[int]) -> Prior | None:
    """The prior of several variances with `df` >= 1 degrees of freedom each; None where fewer than two are above zero."""
    kept = [(v, d) for v, d in zip(variances, df, strict=True) if v > 0 and d > 0]
    if len(kept) < 2:
        return None
    s2, d = (np.array(c, float) for c in zip(*kept, strict=True))
    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    spread = float(e.var(ddof=1) - polygamma(1, d / 2).mean())
    if spread <= 0:  # no more than chance makes: one variance for all, and then their mean is the best there is
        return Prior(math.inf, float((d * s2).sum() / d.sum()))
    half = _trigamma_inverse(spread)
    return Prior(2 * half, float(math.exp(e.mean() + digamma(half) - math.log(half))))


def _trigamma_inverse(y: float) -> float:
    """The x whose trigamma is y, by Newton's steps on 1 / trigamma, which is nearly a line (Smyth 2004, appendix)."""
    x = 0.5 + 1 / y
    for _ in range(50):
        value = float(polygamma(1, x))
        step = value * (1 - value / y) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def moderate(variances: Sequence[float], df: Sequence[int], *, most: float = math.inf) -> list[Moderated | None]:
    """Each variance with what the others say of it; None where nothing is known: one run, and no prior.

    The degrees of freedom are never more than all together have, nor than `most`: differences that share an arm are fewer
    than they look.
    """
    found, total = prior(variances, df), min(sum(df), most)
    if found is None:
        return [Moderated(v, d) if d > 0 else None for v, d in zip(variances, df, strict=True)]
    d0, s0 = found
    out: list[Moderated | None] = []
    for v, d in zip(variances, df, strict=True):
        own = v if d > 0 else 0.0
        pooled = s0 if math.isinf(d0) else (d0 * s0 + d * own) / (d0 + d)
        out.append(Moderated(float(pooled), float(min(d0 + d, total))))
    return out
