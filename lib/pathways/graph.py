"""Study 6: the graph of any network, any two classes, any images and any attack, ready to be drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from lib.data import checks
from lib.pathways import features as features_
from lib.pathways import influences, neurons
from lib.pathways.cards import card
from lib.pathways.neurons import Groups

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]  # (model, images, target classes, strength) -> attacked images


@dataclass(frozen=True)
class Layer:
    """One row of a graph: its groups, and medians of every channel of the layer."""

    name: str
    groups: Groups
    clean: np.ndarray  # (C,), source images
    target: np.ndarray  # (C,), target images; NaN where there are none
    attacked: Mapping[str, np.ndarray]  # by attack, (strengths, C)
    vulnerability: Mapping[str, np.ndarray]  # by attack, (C,)


@dataclass(frozen=True)
class Graph:
    """One network on one pair of classes.

    `edges[attack][l]` is (1 + strengths, shown below, shown above) between the layers l and l + 1, the first row clean;
    `cards[layer name][channel]` is a picture of a neuron.
    """

    title: str
    source: str
    target: str
    strengths: tuple[float, ...]
    layers: tuple[Layer, ...]
    edges: Mapping[str, Sequence[np.ndarray]]
    success: Mapping[str, Sequence[int]]  # by attack, images that come to reach the target class at each strength
    images: int  # of the source class, that everything is counted over
    cards: Mapping[str, Mapping[int, Image.Image]]
    targets: int = 0  # images of the target class
    taken: int = 0  # images of the source class that the network takes for the target before any attack
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else it was made with, by name
    code: str = ""  # Python that makes it again


def top_count(channels: int, share: float, least: int, most: int) -> int:
    """How many of a layer's channels are its top neurons: a share of them, within limits."""
    # deviation: a share of a layer's channels, within limits; Bluff shows 10 of hundreds.
    return min(channels, most, max(least, round(share * channels)))


def build(
    model: nn.Module,
    source: Float[Tensor, "n c h w"],
    target: Float[Tensor, "m c h w"] | None,
    target_class: int,
    *,
    names: tuple[str, str],
    layers: Sequence[str],
    attacks: Mapping[str, Attack],
    strengths: Sequence[float],
    title: str = "",
    share: float = 0.1,
    least: int = 3,
    most: int = 10,
    exploited: int = 5,
    released: bool = False,
    features: int = 64,
    patches: int = 4,
    gallery: Float[Tensor, "p c h w"] | None = None,
    settings: Mapping[str, Any] | None = None,
    code: str = "",
    progress: Callable[[str], None] | None = None,
) -> Graph:
    """Groups, influence and pictures of neurons for images of a source class that attacks push towards a target class.

    `source` and `target` are images in [0, 1] of either class, `names` what the classes are called; where there is no image of
    the target class (None), no neuron is known to be the target's. `attacks` are functions (model, images, classes, strength)
    -> attacked images, each used at every strength, on the same images. `share`, `least` and `most` say how many channels of a
    layer are its top neurons. Feature pictures take `features` steps of activation maximisation (0: none made); `gallery` is
    the images that patches come from, by default those of both classes. `settings` and `code` are kept beside the graph: what
    it was made with that is not known here, and Python that makes it. `progress` is told what has been done, in words.

    Cost, for L layers: two clean and `len(attacks) * len(strengths)` attacked sets of images, each with the attack's own
    passes, two forward passes, and influence between the neurons shown.

    Raises ValueError for no images of a class, a class out of range, no layer, a layer that puts out no maps, strengths that
    do not ascend from above 0.
    """
    for images, name in ((source, names[0]), (target, names[1])):
        if images is not None and not len(images):
            raise ValueError(f"no image of class {name!r}; pathways need some of the source and of the target class")
    if not attacks or not strengths or list(strengths) != sorted(set(strengths)) or strengths[0] <= 0:
        raise ValueError(
            f"strengths {tuple(strengths)} of {len(attacks)} attacks: ascending from above 0, of one attack at least"
        )
    parts_left = len(attacks) * 2 * len(strengths) + len(layers)
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(f"{what} ({100 * done // parts_left} %)")

    clean = neurons.scores(model, source, layers)
    other = None if target is None else neurons.scores(model, target, layers).of
    checks.check_labels(torch.tensor([target_class]), clean.logits.shape[1], 1)
    y = torch.full((len(source),), target_class, device=source.device)
    taken = clean.logits.argmax(1) == target_class  # before any attack, which cannot succeed there
    medians = {n: (neurons.median(clean.of[n]), None if other is None else neurons.median(other[n])) for n in layers}
    moved: dict[str, list[Tensor]] = {}
    found: dict[str, dict[str, Tensor]] = {}
    success: dict[str, list[int]] = {}
    for attack, make in attacks.items():
        moved[attack], success[attack], rows = [], [], []
        for strength in strengths:
            images = make(model, source, y, strength)
            if not isinstance(images, Tensor) or images.shape != source.shape:
                given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ValueError(f"attack {attack!r} gives {given} for images {tuple(source.shape)}; as many alike are needed")
            # deviation: the same images at every strength; Bluff keeps, at each, those whose attack succeeds, so that its sets
            # differ.
            scored = neurons.scores(model, images, layers)
            moved[attack].append(images)
            success[attack].append(int(((scored.logits.argmax(1) == target_class) & ~taken).sum()))
            rows.append({n: neurons.median(scored.of[n]) for n in layers})
            tell(f"attacked by {attack} at strength {strength:g}")
        found[attack] = {n: torch.stack([r[n] for r in rows]) for n in layers}
    groups = {n: _groups(medians[n], {a: found[a][n] for a in attacks}, share, least, most, exploited) for n in layers}
    shown = {n: groups[n].shown for n in layers}
    edges = {}
    unmoved = influences.influence(model, source, layers, shown, released=released)
    for attack in attacks:
        by_strength = [unmoved]
        for strength, images in zip(strengths, moved[attack], strict=True):
            by_strength.append(influences.influence(model, images, layers, shown, released=released))
            tell(f"influence under {attack} at strength {strength:g}")
        edges[attack] = [np.stack([m.cpu().numpy() for m in matrices]) for matrices in zip(*by_strength, strict=True)]
    if gallery is None:
        gallery = source if target is None else torch.cat([source, target])
    cards = {}
    for n in layers if features or patches else ():
        cards[n] = _cards(model, n, shown[n], gallery, features, patches)
        tell(f"pictures of neurons of {n}")
    return Graph(
        title=title,
        source=names[0],
        target=names[1],
        strengths=tuple(strengths),
        layers=tuple(
            Layer(
                n,
                groups[n],
                medians[n][0].cpu().numpy(),
                _or_nan(medians[n][1], medians[n][0]).cpu().numpy(),
                {a: found[a][n].cpu().numpy() for a in attacks},
                {a: neurons.vulnerability(found[a][n], medians[n][0], strengths).cpu().numpy() for a in attacks},
            )
            for n in layers
        ),
        edges=edges,
        success=success,
        images=len(source),
        cards=cards,
        targets=0 if target is None else len(target),
        taken=int(taken.sum()),
        settings={
            "share of channels that are top neurons": share,
            "top neurons of a layer, at least": least,
            "top neurons of a layer, at most": most,
            "exploited neurons of a strength, at most": exploited,
            "influence convolves": "in steps of 3, as released" if released else "as the network does",
            "steps that make a picture of a neuron": features,
            "images that excite a neuron most, shown of each": patches,
        }
        | dict(settings or {}),
        code=code,
    )


def _or_nan(values: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan) if values is None else values


def _groups(
    clean: tuple[Tensor, Tensor | None], attacked: Mapping[str, Tensor], share: float, least: int, most: int, exploited: int
) -> Groups:
    """Groups of a layer; what any attack exploits is shown for all of them, so that attacks can be compared."""
    k = top_count(len(clean[0]), share, least, most)
    each = [neurons.groups(*clean, values, k, exploited=exploited) for values in attacked.values()]
    return each[0]._replace(exploited=tuple(e for g in each for e in g.exploited))


def _cards(
    model: nn.Module, layer: str, channels: Sequence[int], gallery: Tensor, steps: int, count: int
) -> dict[int, Image.Image]:
    """By channel, one picture: what was made to excite it, where `steps` are asked for, and patches of the gallery; none for a
    channel that has neither."""
    size, shape = gallery.shape[-1], (gallery.shape[1], gallery.shape[2], gallery.shape[3])
    made = features_.features(model, layer, channels, shape=shape, steps=steps) if steps else None
    best = features_.patches(model, gallery, layer, channels, count=count)
    found = {}
    for i, c in enumerate(channels):
        feature = None if made is None or made[i].isnan().any() else made[i].cpu()
        parts = [features_.cut(gallery[part.image], part.box, size).cpu() for part in best[i]]
        if feature is not None or parts:
            found[c] = card(feature, parts)
    return found
