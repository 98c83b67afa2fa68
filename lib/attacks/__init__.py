"""Attacks on decisions.

The index of this folder, a line a name: what it is, its source, its equation. Where no equation is named, the source has it
in the text of the section, or prints none; what has no source is of this study.

* `ATTACKS`, `Attack`: every attack by name, called in one way.
* `fgsm`: the fast gradient sign method. Goodfellow et al. 2015, arXiv:1412.6572, sec. 4.
* `fgsm_direction`, `step_along`: its sign, and a step along it. Likewise.
* `random_sign`: random signs, the control of the same size.
* `pgd`: projected gradient descent. Madry et al. 2018, arXiv:1706.06083, sec. 2.1.
* `pgd_in_batches`: the same, some images at a time.
* `ascend`: the same on any objective of the images.
* `project`, `ascent`, `random_point`, `default_step`: its parts, under L-infinity and L2. Likewise.
* `auto_pgd`, `checkpoints`: PGD that chooses its steps. Croce and Hein 2020, arXiv:2003.01690, algorithm 1, sec. 3.2.
* `square_attack`: random search by squares, without gradients. Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3.
* `robust_accuracy`, `RobustAccuracy`: accuracy under PGD over a grid of radii, balls being nested, and under an ensemble.
* `Ensemble`: its budgets: auto-PGD on two objectives, and Square. Croce and Hein 2020, arXiv:2003.01690.
* `Doubt`: a reason to distrust a robust accuracy. Likewise, the checks of the released code.
* `constant_step`: 2.5 eps / steps. Madry et al. 2018, arXiv:1706.06083.
* `shrinking_step`: from eps down to eps / steps.
* `cross_entropy`: of logits, a value a sample.
* `margin`: the largest other logit less that of y. Carlini and Wagner 2017, arXiv:1608.04644.
* `targeted_dlr`: the difference of logits ratio. Croce and Hein 2020, arXiv:2003.01690, eq. 6.
* `kl`: the divergence that TRADES adds. Zhang et al. 2019, arXiv:1901.08573.
* `gabor`, `gabor_kernels`, `gabor_noise`: Gabor noise. Kang et al. 2019, arXiv:1908.08016.
* `snow`, `snow_kernels`, `snowflakes`, `whitened`, `within_budget`: snow. Kang et al. 2019, arXiv:1908.08016.
* `jpeg_attack`: steps in JPEG's coefficients. Kang et al. 2019, arXiv:1908.08016.
* `l1_vertex`: the linear step of Frank and Wolfe 1956, doi:10.1002/nav.3800030109, in an L1 ball and a box.
* `wrong_classes`: random targets, as Kang et al. have them.
* `CALIBRATED`, `ATA_CIFAR10`: their radii, and the accuracies of their score UAR.
* `encode`, `decode`, `compressed`, `Coefficients`: JPEG without rounding, and with it. ITU-T T.81, annexes A and K; JFIF.
* `AttackResult`, `Trace`: what an attack gives.
* `input_gradient`, `fooled`, `per_row`, `weaknesses`: what every attack is made of.
"""

from lib.attacks.auto_projected import auto_pgd, checkpoints
from lib.attacks.by_name import ATTACKS, Attack
from lib.attacks.ensemble import Ensemble
from lib.attacks.jpeg import Coefficients, compressed, decode, encode
from lib.attacks.losses import cross_entropy, kl, margin, targeted_dlr
from lib.attacks.masking import Doubt
from lib.attacks.projected import ascend, pgd, pgd_in_batches
from lib.attacks.robustness import RobustAccuracy, constant_step, robust_accuracy, shrinking_step
from lib.attacks.single_step import fgsm, fgsm_direction, random_sign, step_along
from lib.attacks.square import square_attack
from lib.attacks.steps import (
    AttackResult,
    Trace,
    ascent,
    default_step,
    fooled,
    input_gradient,
    per_row,
    project,
    random_point,
    weaknesses,
)
from lib.attacks.unforeseen import (
    ATA_CIFAR10,
    CALIBRATED,
    gabor,
    gabor_kernels,
    gabor_noise,
    jpeg_attack,
    l1_vertex,
    snow,
    snow_kernels,
    snowflakes,
    whitened,
    within_budget,
    wrong_classes,
)

__all__ = [
    "ATA_CIFAR10",
    "ATTACKS",
    "CALIBRATED",
    "Attack",
    "AttackResult",
    "Coefficients",
    "Doubt",
    "Ensemble",
    "RobustAccuracy",
    "Trace",
    "ascend",
    "ascent",
    "auto_pgd",
    "checkpoints",
    "compressed",
    "constant_step",
    "cross_entropy",
    "decode",
    "default_step",
    "encode",
    "fgsm",
    "fgsm_direction",
    "fooled",
    "gabor",
    "gabor_kernels",
    "gabor_noise",
    "input_gradient",
    "jpeg_attack",
    "kl",
    "l1_vertex",
    "margin",
    "per_row",
    "pgd",
    "pgd_in_batches",
    "project",
    "random_point",
    "random_sign",
    "robust_accuracy",
    "shrinking_step",
    "snow",
    "snow_kernels",
    "snowflakes",
    "square_attack",
    "step_along",
    "targeted_dlr",
    "weaknesses",
    "whitened",
    "within_budget",
    "wrong_classes",
]
