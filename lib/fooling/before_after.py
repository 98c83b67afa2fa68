r"""One image before and after an attack: decisions, maps of one class, and how far they move beside random signs.

A map is compared as it is shown, scaled to [0, 1] and enlarged to the image: NISSIM (`lib.measures.comparison`). Its rank
correlation is Spearman's, over the map's own positions. The control is noise of the size of the attack: independent fair signs
:math:`s`, :math:`x + \epsilon s` cut to [0, 1], where :math:`\epsilon` is the radius of an attack under L-infinity; of any
other, :math:`\lVert x' - x \rVert_2 / \sqrt d` for d values a picture, so that the length is the attack's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.attacks import single_step
from lib.attacks.by_name import Attack
from lib.attacks.steps import per_row
from lib.explanations import activation_maps, by_name
from lib.explanations.by_name import Method, Settings
from lib.measures import comparison
from lib.networks import contract, hooks
from lib.system.devices import wide


class Asked(NamedTuple):
    """A map to make: its method, and the layer that it is made at (of methods at pixels: empty)."""

    method: Method
    layer: str


class Force(NamedTuple):
    """What is done to an image: an attack with its radius and steps, towards a class or (None) away from the decision."""

    attack: Attack
    eps: float
    steps: int
    aim: int | None


class Moved(NamedTuple):
    """How far a map moved: NISSIM in [0, 1], Spearman's rank correlation in [-1, 1] (NaN where a map is constant)."""

    nissim: float
    rank_correlation: float


@dataclass(frozen=True)
class Shift:
    """A map (h, w) in [0, 1] as it is shown, before and after an attack; without one there is no second."""

    asked: Asked
    before: Float[Tensor, "h w"]
    after: Float[Tensor, "h w"] | None
    moved: Moved | None
    moved_by_noise: Moved | None


@dataclass(frozen=True)
class BeforeAfter:
    """An image (C, H, W), the class `of` that its maps are of, and the logits (classes,) of each of its versions: `before`,
    and under an attack `after` and `noise`."""

    x: Float[Tensor, "c h w"]
    attacked: Float[Tensor, "c h w"] | None
    of: int
    logits: dict[str, Float[Tensor, " classes"]]
    shifts: list[Shift]
    warnings: tuple[str, ...] = ()  # of the attack: reasons to distrust that nothing moved

    def decision(self, version: str) -> int:
        return int(self.logits[version].argmax())

    def probability(self, version: str, number: int) -> float:
        """Of a class, by the softmax of the logits."""
        return float(self.logits[version].softmax(0)[number])

    @property
    def largest_change(self) -> float:
        """Of a value of a pixel, in [0, 1]; 0 without an attack."""
        return 0.0 if self.attacked is None else float((self.attacked - self.x).abs().max())


def signs_of_the_size(
    x: Float[Tensor, "n c h w"], attacked: Float[Tensor, "n c h w"], force: Force, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Images with random signs of the size of an attack; see the module's docstring."""
    signs = single_step.random_sign(x, generator)
    if force.attack.norm == "linf":
        return single_step.step_along(x, signs, force.eps)
    moved = (wide(attacked) - wide(x)).flatten(1)
    length = moved.norm(dim=1).clamp_max(moved.shape[1] ** 0.5) / moved.shape[1] ** 0.5
    return (wide(x) + per_row(length, x) * signs).clamp(0, 1).to(x)


def before_and_after(
    model: nn.Module,
    x: Float[Tensor, "1 c h w"],
    asked: Sequence[Asked],
    *,
    of: int | None = None,
    force: Force | None = None,
    head: str = "head",
    seed: int = 0,
) -> BeforeAfter:
    """Decisions and maps of one image in [0, 1], before and after an attack; of the class `of`, or of the one that the network
    decides for before it. The attack starts at `seed`, whatever other images there are.

    Raises ValueError for more than one image, and as the methods and the attack do.
    """
    if len(x) != 1:
        raise ValueError(f"{len(x)} images; one is looked at here, x[i : i + 1]")
    with hooks.frozen(model), torch.no_grad():
        logits = contract.logits_of(model, x)
    contract.check_logits(model, logits)
    decided = logits.argmax(1)
    number = int(decided) if of is None else of
    versions, doubts = {"before": x}, ()
    if force is not None:
        targets = None if force.aim is None else torch.full_like(decided, force.aim)
        made = force.attack(
            model, x, decided, eps=force.eps, steps=force.steps, targets=targets, generator=torch.Generator().manual_seed(seed)
        )
        versions["after"], doubts = made.x_adv.detach(), getattr(made, "warnings", ())
        signs = torch.Generator().manual_seed(seed + 1)
        versions["noise"] = signs_of_the_size(x, versions["after"], force, signs)
    maps: dict[str, list[Tensor]] = {}
    found: dict[str, Tensor] = {}
    for version, image in versions.items():
        explained = [by_name.explain(a.method.name, model, image, number, Settings(a.layer, head=head)) for a in asked]
        maps[version] = [e.values.detach() for e in explained]
        found[version] = _logits(model, image, explained).detach().cpu()[0]
    size = (x.shape[-2], x.shape[-1])
    shifts = [_shift(a, size, {v: m[i] for v, m in maps.items()}) for i, a in enumerate(asked)]
    attacked = versions["after"][0].cpu() if force else None
    return BeforeAfter(x[0].cpu(), attacked, number, found, shifts, doubts)


def _logits(model: nn.Module, x: Tensor, explained: Sequence[by_name.Explanation]) -> Tensor:
    """Those that came with a map, or else of a pass of their own."""
    if explained:
        return explained[0].logits
    with hooks.frozen(model), torch.no_grad():
        return contract.logits_of(model, x)


def _shift(asked: Asked, size: tuple[int, int], maps: dict[str, Tensor]) -> Shift:
    big = {version: activation_maps.upsample(m, size) for version, m in maps.items()}

    def moved(version: str) -> Moved:
        nissim = comparison.nissim(big["before"], big[version])
        return Moved(float(nissim), float(comparison.spearman(maps["before"], maps[version])))

    if "after" not in maps:
        return Shift(asked, big["before"][0].cpu(), None, None, None)
    return Shift(asked, big["before"][0].cpu(), big["after"][0].cpu(), moved("after"), moved("noise"))
