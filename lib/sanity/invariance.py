r"""How much of an explanation stays when what the network has learnt goes (Adebayo et al. 2018, arXiv:1810.03292).

Maps of one class an image, of every method, from the trained network and from each of its randomised copies
(`lib.sanity.randomisation`), compared pair by pair: Spearman's rank correlation of the maps as they are made, and NISSIM and
SSIM of both enlarged to the image, as everywhere in this study. Maps are those that are shown (`explain`): of the gradient and
its kin magnitudes (Adebayo et al. rank both these and signed values).

Beside them stands a control that explains nothing: the image's edges (Sobel), which see no network, so that their similarity
is exactly 1. A method that stays near it does what an edge detector does. Two numbers tell of the network itself: how many
decisions are what they were, and how much its logits still vary from image to image, as a share of the trained network's.
(Training is what spreads them, so much is always lost; at 0 the network no longer sees the image, and no map of it says much.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.data import checks
from lib.data.checks import Labels
from lib.explanations import activation_maps, by_name
from lib.explanations.by_name import Settings
from lib.measures import appearance, comparison
from lib.networks import contract, hooks
from lib.sanity import randomisation
from lib.sanity.randomisation import Scheme

EDGES = "edges"  # the control, as a name among methods
LOOK = 32  # images that BatchNorm takes its statistics from: as many whatever the batches are


@dataclass(frozen=True)
class Invariance:
    """Similarity to the trained network's maps, by method (the last is the control), step and image.

    NaN where either map is without contrast: of activation maps and relevance the positive part is shown, and where in a random
    network all speaks against the class there is none. `undefined` says how often; a mean over the others is one over fewer
    images. `steps` names the layer that was randomised, of a cascade the lowest of those that are.
    """

    methods: tuple[str, ...]
    steps: tuple[str, ...]
    rank_correlation: Float[Tensor, "methods steps n"]  # Spearman's, in [-1, 1]
    nissim: Float[Tensor, "methods steps n"]  # in [0, 1], 0 where nothing has changed
    same_decision: Bool[Tensor, "steps n"]
    spread: Float[Tensor, " steps"]  # of the logits over images, as a share of the trained network's; NaN of one image

    @property
    def ssim(self) -> Float[Tensor, "methods steps n"]:
        """In [-1, 1], 1 where nothing has changed."""
        return 1 - 2 * self.nissim

    @property
    def undefined(self) -> Float[Tensor, "methods steps"]:
        """The share of images of which there is no similarity."""
        return self.nissim.isnan().to(self.nissim.dtype).mean(-1)


def _maps(method: str, model: nn.Module, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    if method == EDGES:
        return activation_maps.normalise(appearance.edges(x))
    if settings.generator is not None:  # the same noise for every network
        settings = settings._replace(generator=_copy(settings.generator))
    return by_name.explain(method, model, x, y, settings).values.detach()


def _copy(generator: torch.Generator) -> torch.Generator:
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def _logits(model: nn.Module, x: Tensor, batch: int) -> Tensor:
    with hooks.frozen(model), torch.no_grad():
        found = torch.cat([contract.logits_of(model, part) for part in x.split(batch)])
    contract.check_logits(model, found)
    return found


def _variation(logits: Tensor) -> Tensor:
    """The standard deviation over images, of what tells classes apart, in a mean over the classes' squares."""
    return (logits - logits.mean(1, keepdim=True)).var(0).mean().sqrt() if len(logits) > 1 else logits.new_tensor(torch.nan)


def after_randomisation(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    methods: Sequence[str],
    settings: Settings,
    *,
    scheme: Scheme,
    generator: torch.Generator | None = None,
    layers: Sequence[str] | None = None,
    batch: int = 32,
) -> Invariance:
    """How similar the map of class `y` (one an image) stays, by method, randomised layer and image, beside the edge detector.

    `methods` are names of `METHODS`, `settings` theirs; `scheme`, `layers` and `generator` as in `randomised`; `x` (N, C, H, W)
    in [0, 1], two pixels a side at least. It costs 1 + steps times the passes of the methods and one forward pass, in batches
    of `batch`; the maps of the trained network are kept, N values a pixel and method. BatchNorm takes its statistics from the
    first `LOOK` images. The size of batches changes nothing but the noise of SmoothGrad, which is drawn for a batch, the same
    for every network.

    Raises ValueError for an empty or repeated list of methods, images of one row or column, and as methods and
    `randomised` do.
    """
    names = tuple(methods)
    if isinstance(methods, str) or not names or len({*names, EDGES}) != len(names) + 1:
        known = ", ".join(m.name for m in by_name.METHODS.rows)
        raise ValueError(
            f"methods are {methods!r}; give a list of different ones of {known} ({EDGES!r} stands beside them anyway)"
        )
    for name in names:
        by_name.find(name)
    x = checks.check_images(x)
    if min(x.shape[2:]) < 2:
        raise ValueError(f"images of {x.shape[2]} x {x.shape[3]} have no edges; 2 x 2 pixels are needed, and for SSIM 7 x 7")
    classes = checks.as_labels(y, x)
    if batch < 1:
        raise ValueError(f"batch is {batch}; at least one image is needed")
    names = (*names, EDGES)
    parts = list(zip(x.split(batch), classes.split(batch), strict=True))
    trained = _logits(model, x, batch)
    before = [[_maps(m, model, a, b, settings) for m in names] for a, b in parts]
    steps, ranks, changes, same, spread = [], [], [], [], []
    for step in randomisation.randomised(model, x[:LOOK], scheme, generator=generator, layers=layers):
        logits = _logits(step.network, x, batch)
        found = [
            [_pair(old, _maps(m, step.network, a, b, settings), a) for m, old in zip(names, olds, strict=True)]
            for (a, b), olds in zip(parts, before, strict=True)
        ]
        # (parts, methods, 2, n of a part) to (2, methods, n)
        rank, change = torch.cat([torch.stack([torch.stack(p) for p in row], 1) for row in found], -1)
        steps.append(step.layer)
        ranks.append(rank)
        changes.append(change)
        same.append(logits.argmax(1) == trained.argmax(1))
        spread.append(_variation(logits) / _variation(trained))
    return Invariance(
        names,
        tuple(steps),
        torch.stack(ranks, 1).cpu(),
        torch.stack(changes, 1).cpu(),
        torch.stack(same).cpu(),
        torch.stack(spread).cpu(),
    )


def _pair(a: Tensor, b: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rank correlation and NISSIM of pairs of maps; NaN where one of a pair is without contrast."""
    flat = comparison.degenerate(a) | comparison.degenerate(b)
    size = (x.shape[2], x.shape[3])
    big = [activation_maps.upsample(m, size) for m in (a, b)]
    return comparison.spearman(a, b), comparison.nissim(*big).masked_fill(flat, torch.nan)
