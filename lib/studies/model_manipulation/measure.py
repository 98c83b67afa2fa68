"""Study 4's measurements: one network in, rows of (arm, seed, image_id, measure, level, value) out; see `lib.claims.cubes`.

`arm` is `architecture/arm`. Measures, by image:

* `t/KIND/INTERPRETER`, `dead/INTERPRETER`: test losses of the passive foolings under every interpreter, all from the same
  maps, and where those have no contrast; `train-t/…`: of a headline arm's own fooling on training images;
* `right`, `top5`, `agrees` (with the original), `confidence`; `robust`: right under PGD;
* `swap-c1/INTERPRETER`, `swap-c2/…`: the active test losses on mosaics; `alike/…`: how much the original's two maps resemble
  each other; `swap-ternary-c1`, `-c2`: by the released code's correlation, of the arm's own interpreter;
* `consistency/layers`, `consistency/interpreters`: rank correlation of Grad-CAM at T with Grad-CAM a stage before, and with
  LRP_T: what somebody who has only this network could look at;
* `deleted/ORDER`: probability of the class after the share `level` of the image was greyed out in the order of the
  original's map, of the network's own, at random;
* `steps-t`, `steps-right`: the arm's own test loss and accuracy after the epoch `level` of its fine-tuning.
"""

import functools
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.attacks import projected
from lib.claims import warned
from lib.claims.rows import rows
from lib.data.image_sets import ImageFiles
from lib.explanations import activation_maps, by_name
from lib.explanations.explanation import Explanation
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import hooks
from lib.studies.model_manipulation import plan
from lib.studies.model_manipulation.plan import COSTLY, SWAPPED, Parameters
from lib.system import devices

ORDERS = ("original", "own", "random")
BATCH = 100  # images that are looked at together, and fewer where they are large
ALONG = 60  # images, or mosaics, that are looked at after every epoch


Images = Tensor | ImageFiles  # those on disk are decoded batch by batch: memory does not grow with how many there are


def batches(x: Images) -> Iterator[slice]:
    """Which images are looked at together: fewer where they are large."""
    n = devices.images_at_once(max(x.shape[2:]), BATCH)
    yield from (slice(i, i + n) for i in range(0, len(x), n))


def maps_of(name: str, model: torch.nn.Module, x: Images, y: Tensor, settings: by_name.Settings) -> Explanation:
    """`by_name.explain`, some images at a time."""
    parts = [by_name.explain(name, model, x[some].to(y.device), y[some], settings) for some in batches(x)]
    return Explanation(torch.cat([e.values for e in parts]), torch.cat([e.logits for e in parts]).detach())


def _shown(p: Parameters, what: str, device: torch.device, n: int | None = None) -> tuple[Images, Tensor]:
    """Images, and on the device their classes: of the test set, of the training probe, of the mosaics (two classes each); the
    first `n`, or all."""
    if what == "mosaics":
        x = plan.test_mosaics(p).images[:n]
        return x, torch.tensor([p.pair], device=device).expand(len(x), 2)
    data = (plan.evaluation_set(p) if what == "test" else plan.probe_set(p)).head(n)
    return data.images, data.labels.to(device)


@functools.lru_cache(maxsize=64)
def _original(p: Parameters, arch: str, seed: int, name: str, what: str, n: int | None) -> Explanation:
    """The original's maps, which every arm of an architecture and seed is compared with."""
    model = plan.model(p, arch, "base", seed)
    x, y = _shown(p, what, next(model.parameters()).device, n)
    return maps_of(name, model, x, y, plan.settings(p, arch))


class Measured:
    """One network, and the rows found so far."""

    def __init__(self, p: Parameters, arch: str, arm: str, seed: int) -> None:
        self.p, self.arch, self.arm, self.seed = p, arch, arm, seed
        self.parts = plan.parsed(arm)
        self.model = plan.model(p, arch, arm, seed)
        self.settings = plan.settings(p, arch)
        self.where = next(self.model.parameters()).device
        self.x, self.y = _shown(p, "test", self.where)
        self.found: list[pd.DataFrame] = []

    def add(self, measure: str, values: Tensor, level: float = 0.0) -> None:
        self.found.append(rows(f"{self.arch}/{self.arm}", self.seed, measure, level, values))

    def original(self, name: str, what: str = "test", n: int | None = None) -> Explanation:
        return _original(self.p, self.arch, plan.original_seed(self.p, self.seed), name, what, n)

    @property
    def brief(self) -> bool:
        """Whether only the interpreter that was fooled matters: active fooling, other weights, honest tuning afterwards."""
        return self.parts.kind == "active" or self.parts.washed or self.parts.factor != 1

    @property
    def thorough(self) -> bool:
        """Whether the arm gets the measurements that only headline arms and what they are compared with have."""
        return self.arm in ("base", "none", *self.p.headline)


def _foolings(m: Measured) -> None:
    """All passive test losses under every interpreter, in one pass over the images for each."""
    for name in [m.parts.interpreter] if m.brief else plan.interpreters(m.arch):
        if name in COSTLY and not m.thorough:
            continue
        n = m.p.costly_images if name in COSTLY else None
        found = maps_of(name, m.model, *_shown(m.p, "test", m.where, n), m.settings)
        for kind in manipulation.PASSIVE:
            k = m.p.k if name in plan.AT_LAYER else None  # k counts positions at T
            tested = manipulation.test(kind, found.values, m.original(name, n=n).values, k=k)
            m.add(f"t/{kind}/{name}", tested.t)
        m.add(f"dead/{name}", tested.dead)
    if m.arm in m.p.headline and m.parts.kind in manipulation.PASSIVE:
        kind, name = m.parts.kind, m.parts.interpreter
        found = maps_of(name, m.model, *_shown(m.p, "train", m.where), m.settings)
        m.add(f"train-t/{kind}/{name}", manipulation.test(kind, found.values, m.original(name, "train").values, k=m.p.k).t)


def logits_of(model: torch.nn.Module, x: Images) -> Tensor:
    """Logits of images, some at a time."""
    where = next(model.parameters()).device
    with hooks.frozen(model), torch.no_grad():
        return torch.cat([model(x[some].to(where)) for some in batches(x)])


@functools.lru_cache(maxsize=8)
def _original_decisions(p: Parameters, arch: str, seed: int) -> Tensor:
    return logits_of(plan.model(p, arch, "base", seed), plan.decision_set(p).images).argmax(1)


def _decisions(m: Measured) -> None:
    """What the network says, beside what the original says."""
    data = plan.decision_set(m.p)
    logits, y = logits_of(m.model, data.images), data.labels.to(m.where)
    m.add("right", logits.argmax(1) == y)
    m.add("top5", (logits.topk(min(5, logits.shape[1])).indices == y[:, None]).any(1))
    m.add("agrees", logits.argmax(1) == _original_decisions(m.p, m.arch, plan.original_seed(m.p, m.seed)))
    m.add("confidence", logits.softmax(1).amax(1))
    if m.thorough:
        n, eps, steps = m.p.robust_images, m.p.robust_eps / 255, m.p.robust_steps
        hit = projected.pgd_in_batches(m.model, m.x[:n].to(m.where), m.y[:n], eps=eps, steps=steps)
        m.add("robust", ~hit.success)
        warned.tell(f"{plan.label(m.arm)} ({m.arch}), seed {m.seed}", "PGD", m.p.robust_eps, hit.warnings)


def _swaps(m: Measured) -> None:
    """The active fooling on unseen mosaics, under the interpreters that explain two classes in one pass."""
    if "active" not in m.p.kinds or (m.parts.kind != "active" and m.arm not in ("base", "none")):
        return
    x, y = _shown(m.p, "mosaics", m.where)
    for name in SWAPPED:
        h, h0 = maps_of(name, m.model, x, y, m.settings).values, m.original(name, "mosaics").values
        t = manipulation.swapped(h, h0)
        m.add(f"swap-c1/{name}", t[:, 0])
        m.add(f"swap-c2/{name}", t[:, 1])
        if m.arm == "base":
            m.add(f"alike/{name}", comparison.spearman(h0[:, 0], h0[:, 1]))
        if name == m.parts.interpreter:
            t = manipulation.swapped(h, h0, "ternary")
            m.add("swap-ternary-c1", t[:, 0])
            m.add("swap-ternary-c2", t[:, 1])


def _consistency(m: Measured) -> None:
    """Do the network's own explanations agree with each other? No original is needed to ask."""
    if not m.thorough or m.arm == "base":
        return
    both = (m.settings.layer, plan.NEIGHBOURS[m.arch])
    above, below = [], []
    for some in batches(m.x):
        found = activation_maps.gradcams(m.model, m.x[some].to(m.where), m.y[some], both).maps
        above.append(found[both[0]])
        below.append(F.adaptive_avg_pool2d(found[both[1]], tuple(found[both[0]].shape[1:])))
    h = torch.cat(above)
    m.add("consistency/layers", comparison.spearman(h, torch.cat(below)))
    m.add("consistency/interpreters", comparison.spearman(h, maps_of("lrp_t", m.model, m.x, m.y, m.settings).values))


def delete(x: Tensor, order: Tensor, share: float) -> Tensor:
    """Images (N, C, H, W) with the first `share` of the cells in `order`, maps (N, h, w), replaced by the image's mean.

    Cells are the map's positions enlarged to the image; the largest values go first, ties in row-major order.
    """
    count = max(1, round(share * order[0].numel()))
    gone = manipulation.top(order, count).view_as(order).float()
    mask = F.interpolate(gone[:, None], tuple(x.shape[2:]), mode="nearest-exact")
    return torch.where(mask > 0, x.mean((2, 3), keepdim=True), x)


def _deletion(m: Measured) -> None:
    """Does the decision still rest on what the original's map marked? By the interpreter that was fooled (control: by that of
    the first headline fooling)."""
    if not m.thorough or m.arm == "base":
        return
    name = m.parts.interpreter or plan.parsed(m.p.headline[0]).interpreter
    h0 = m.original(name).values
    h = maps_of(name, m.model, m.x, m.y, m.settings).values
    noise = torch.rand(h0.shape, generator=torch.Generator().manual_seed(0)).to(h0)
    whole = _of_class(m, logits_of(m.model, m.x))
    for order, maps in zip(ORDERS, (h0, h, noise), strict=True):
        m.add(f"deleted/{order}", whole)
        for share in m.p.deletion:
            left = [logits_of(m.model, delete(m.x[some].to(m.where), maps[some], share)) for some in batches(m.x)]
            m.add(f"deleted/{order}", _of_class(m, torch.cat(left)), share)


def _of_class(m: Measured, logits: Tensor) -> Tensor:
    """The probability of the class of each image."""
    return logits.softmax(1).gather(1, m.y[:, None])[:, 0]


def _steps(m: Measured) -> None:
    """The arm's own success and accuracy along its fine-tuning."""
    kind, name = m.parts[:2]
    if kind in ("base", "none") or (m.brief and kind != "active") or m.seed:
        return
    x, y = _shown(m.p, "mosaics" if kind == "active" else "test", m.where, ALONG)
    seen, said = _shown(m.p, "test", m.where, ALONG)
    h0 = m.original(name, "mosaics" if kind == "active" else "test").values[:ALONG]
    for epoch in range(m.p.tune_epochs + 1):
        model = plan.model(m.p, m.arch, m.arm, m.seed, epoch)
        h = maps_of(name, model, x, y, m.settings).values
        if kind == "active":
            t = manipulation.swapped(h, h0)
            m.add("steps-t", t[:, 0], epoch)
            m.add("steps-t2", t[:, 1], epoch)
        else:
            m.add("steps-t", manipulation.test(kind, h, h0, k=m.p.k).t, epoch)
        m.add("steps-right", logits_of(model, seen).argmax(1) == said, epoch)


def _all(p: Parameters, arch: str, arm: str, seed: int) -> pd.DataFrame:
    m = Measured(p, arch, arm, seed)
    for step in (_foolings, _decisions, _swaps, _consistency, _deletion, _steps):
        step(m)
    return pd.concat(m.found, ignore_index=True)


@functools.lru_cache(maxsize=4)
def _base(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    return _all(p, arch, "base", seed)


def measure(p: Parameters, arch: str, arm: str, seed: int) -> pd.DataFrame:
    """Everything about one of the study's networks; a published original is looked at once, whatever the seed."""
    if arm == "base":
        return _base(p, arch, plan.original_seed(p, seed)).assign(seed=seed)
    return _all(p, arch, arm, seed)
