"""Study 5, saliency-based adversarial training (Mangla et al., ECML-PKDD 2020): parameters, arms, networks.

An arm is a way of training, by name:

* `original`; `uniform` and `sign`, noise instead of maps; `sat-SOURCE`, with maps from SOURCE;
* `pgd`, `trades-BETA`, and the same with `+uniform`, `+sign` or `+sat` on half of the batches (`mix_maps` says whose maps);
* SOURCE is `masks`, `boxes`, or TEACHER-ATTRIBUTION with TEACHER `std` or `adv` (`std-gradient`, `adv-smoothgrad`, …);
* after `@`, what differs: `inverted` or `another` (the map negated; that of another image), `a0.8` (alpha^10), `e16` (eps_0, of
  255), a way to binarise (`median`, `mean`, `minmax`), `predicted` (the teacher's class instead of the true one), `unflipped`
  (maps stay where they are when the image is flipped or shifted), `unprojected` (PGD-SAT's x' up to 2 eps away), `fresh`
  (maps of the augmented batch, instead of augmented maps), `released` (how the released code makes these maps).

Teachers, and the originals whose attacks are transferred, are networks of their own: their seeds begin at TEACHERS_FROM.
"""

import functools
import itertools
import re
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from lib.attacks.square import LARGEST
from lib.data import datasets
from lib.networks import classifier, models
from lib.studies import parameters
from lib.studies.saliency_adversarial_training import maps as maps_
from lib.studies.saliency_adversarial_training import objective
from lib.system import names
from lib.training import cache, objectives
from lib.training.config import Augmentation, Schedule, TrainConfig

TITLE = "Saliency-based adversarial training"
Positive = Annotated[float, Field(gt=0)]
OBJECTIVE = objectives.name_of(objective.train)
MAPS = objectives.name_of(maps_.maps)
WEAK = ("masks", "boxes")
TEACHERS_FROM = 100  # seeds of networks that teach and are compared with none; those of students lie below
NAMES = maps_.ATTRIBUTIONS.labels(*maps_.ATTRIBUTIONS)
TEACHERS = {"std": "standard", "adv": "adversarially trained"}
CHANGES = {
    "inverted": "inverted",
    "another": "of another image",
    "median": "thresholded at the median",
    "mean": "thresholded at the mean",
    "minmax": "scaled to [0, 1]",
    "predicted": "of the predicted class",
    "unflipped": "maps not moved with the image",
    "fresh": "maps of each batch anew",
    "unprojected": "not projected again",
    "released": "as released",
}
SIMPLE = (
    "original",
    "uniform",
    "sign",
    "sat-masks",
    "sat-boxes",
    "sat-masks@inverted",
    "sat-masks@another",
    *(f"sat-{t}-{a}" for t in TEACHERS for a in maps_.ATTRIBUTIONS),
    "pgd",
    "pgd+uniform",
    "pgd+sign",
    "pgd+sat",
    "trades-1",
    "trades-6",
    "trades-1+uniform",
    "trades-1+sign",
    "trades-1+sat",
)


class Arm(NamedTuple):
    """The parts of an arm's name; `changes` are what stands after `@`, `eps0` is of 255."""

    base: str  # plain, pgd or trades
    mix: str  # none, uniform, sign or sat
    source: str = ""  # of the maps
    beta: float = 1.0
    alpha10: float | None = None
    eps0: float | None = None
    changes: tuple[str, ...] = ()

    @property
    def teacher(self) -> str:
        """std, adv, or none."""
        return self.source.partition("-")[0] if self.source and self.source not in WEAK else ""

    @property
    def attribution(self) -> str:
        return self.source.partition("-")[2] if self.teacher else ""


ARM = re.compile(
    r"(?P<plain>original|uniform|sign|sat-(?P<source>.+))|(?P<base>pgd|trades-(?P<beta>[\d.]+))(\+(?P<mix>uniform|sign|sat))?"
)


def known_source(source: str) -> bool:
    teacher, _, attribution = source.partition("-")
    return source in WEAK or (teacher in TEACHERS and attribution in maps_.ATTRIBUTIONS)


def parsed(arm: str, mix_maps: str = "") -> Arm:
    """The parts of an arm's name; arms `…+sat` have the maps `mix_maps`. Raises ValueError for a name that is none."""
    name, _, tail = arm.partition("@")
    found = ARM.fullmatch(name)
    parts: dict[str, Any] = {"changes": tuple(c for c in tail.split(",") if c in CHANGES)}
    for change in (c for c in tail.split(",") if c and c not in CHANGES):
        try:
            parts[{"a": "alpha10", "e": "eps0"}[change[0]]] = float(change[1:])
        except (KeyError, ValueError):
            found = None
    if not found or (found["source"] and not known_source(found["source"])):
        alike = names.close(name, SIMPLE)
        meant = f"did you mean {' or '.join(alike)}? There" if alike else "there"
        raise ValueError(
            f"unknown arm {arm!r}; {meant} are {', '.join(SIMPLE)}, and after @ {', '.join(CHANGES)}, aALPHA10 and eEPS0"
        )
    source = found["source"] or (mix_maps if found["mix"] == "sat" else "")
    if not _makes_sense(found, parts, taught=bool(source) and source not in WEAK):
        raise ValueError(f"arm {arm!r}: what stands after @ does not apply to {name}")
    if found["plain"]:
        mix = {"original": "none"}.get(found["plain"], found["plain"].partition("-")[0])
        return Arm("plain", mix, found["source"] or "", **parts)
    base = found["base"].partition("-")[0]
    mix = found["mix"] or "none"
    return Arm(base, mix, mix_maps if mix == "sat" else "", float(found["beta"] or 1), **parts)


def _makes_sense(found: re.Match[str], parts: dict[str, Any], taught: bool) -> bool:
    """Whether an arm's changes change anything, and can be made together."""
    changes, maps = set(parts["changes"]), bool(found["source"]) or found["mix"] == "sat"
    alpha, eps0 = parts.get("alpha10", 0.5), parts.get("eps0", 1.0)
    return (
        (maps or not (changes or len(parts) > 1))
        and (taught or not changes & {"median", "mean", "minmax", "predicted", "fresh", "released"})
        and not ("fresh" in changes and changes & {"inverted", "another", "unflipped"})
        and ("unprojected" not in changes or found["base"] == "pgd")
        and len(changes & {"median", "mean", "minmax", "released"}) < 2
        and 0 < alpha <= 1
        and 0 < eps0 < float("inf")
    )


def source_label(source: str) -> str:
    """The origin of maps as people read it."""
    if source in WEAK:
        return source
    teacher, _, attribution = source.partition("-")
    return f"{NAMES[attribution]}, {TEACHERS[teacher]} teacher"


def label(arm: str) -> str:
    """An arm as people read it."""
    found = parsed(arm)
    if found.base == "plain":
        name = {"none": "original", "uniform": "uniform noise", "sign": "sign noise"}.get(found.mix, "")
        name = name or f"SAT ({source_label(found.source)})"
    else:
        name = "PGD" if found.base == "pgd" else f"TRADES β={found.beta:g}"
        name += {"none": "", "uniform": " + uniform noise", "sign": " + sign noise", "sat": " + SAT"}[found.mix]
    told = [CHANGES[c] for c in found.changes]
    if found.alpha10 is not None:
        told.append("α → 0" if found.alpha10 < 1e-6 else f"α¹⁰ = {found.alpha10:g}")
    if found.eps0 is not None:
        told.append(f"ε₀ = {found.eps0:g}/255")
    return f"{name}, {', '.join(told)}" if told else name


class Parameters(parameters.OnImages, parameters.Ensembled, parameters.Marked):
    """What the study varies; the defaults are the laptop profile."""

    arch: Annotated[str, Field(description="a network that lib.networks.models.create knows")] = "plain"
    teacher_arch: Annotated[str, Field(description="of the teachers; empty: the same")] = ""
    arms: Annotated[
        tuple[str, ...], Field(min_length=4, description="ways of training; see lib.studies.saliency_adversarial_training.plan")
    ] = tuple(a for a in SIMPLE if a != "trades-1+sign")
    headline: Annotated[tuple[str, ...], Field(min_length=1, description="arms with several seeds")] = (
        "original",
        "uniform",
        "sign",
        "sat-masks",
        "sat-std-gradient",
        "sat-std-smoothgrad",
        "sat-adv-smoothgrad",
        "pgd",
        "pgd+uniform",
        "pgd+sat",
    )
    seeds: Annotated[int, Field(ge=1, le=TEACHERS_FROM, description="of the headline arms")] = 3
    runs: parameters.Runs = (  # what the primaries compare, and `pgd`, on which a gate rests
        ("original", 10),
        ("uniform", 10),
        ("sat-std-smoothgrad", 10),
        ("sat-adv-smoothgrad", 5),
        ("pgd", 5),
        ("pgd+uniform", 5),
        ("pgd+sat", 5),
    )
    mix_maps: Annotated[str, Field(description="maps of the arms PGD + SAT and TRADES + SAT")] = "masks"
    switches: Annotated[tuple[str, ...], Field(description="single departures from the published way, each an arm")] = (
        "sat-std-smoothgrad@median",
        "sat-std-smoothgrad@released",
        "sat-std-gradient@predicted",
        "sat-std-gradient@fresh",
        "sat-masks@unflipped",
        "pgd+sat@unprojected",
    )
    sweep: Annotated[tuple[str, ...], Field(description="arms whose alpha and eps0 are varied")] = ("sat-adv-gradient",)
    alphas: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(description="alpha^10 beside alpha10")] = (
        1e-9,
        0.8,
    )
    eps0s: Annotated[tuple[Positive, ...], Field(description="eps0 beside eps, of 255")] = (4.0, 16.0)
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 400
    epochs: Annotated[int, Field(ge=1)] = 9
    batch_size: Annotated[int, Field(ge=2)] = 25
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 3e-3
    schedule: Schedule = "onecycle"
    augment: Annotated[tuple[Augmentation, ...], Field(description="of images and their maps")] = ("flip",)
    shift: Annotated[int, Field(ge=0, description="largest shift in pixels")] = 4
    eps: Annotated[float, Field(gt=0, le=64, description="eps0 and the radius in training, of 255, L-infinity")] = 8.0
    alpha10: Annotated[float, Field(gt=0, le=1, description="alpha^10 of the curriculum")] = 0.6
    steps: Annotated[int, Field(ge=1, description="of PGD and TRADES in training, and of PGD in the evaluation")] = 5
    step: Annotated[float, Field(gt=0, description="their length, of 255")] = 2.0
    smooth_n: Annotated[int, Field(ge=1, description="noisy copies in SmoothGrad")] = 6
    ig_steps: Annotated[int, Field(ge=1, description="points of integrated gradients")] = 6
    images: Annotated[int, Field(ge=8, description="test images")] = 400
    eps_grid: Annotated[tuple[Positive, ...], Field(min_length=3, description="radii of the evaluation, of 255")] = (
        1.0,
        2.0,
        3.0,
    )
    strong_images: Annotated[int, Field(ge=8, description="test images of the strong attack")] = 32
    strong_eps: Annotated[tuple[Positive, ...], Field(min_length=1, description="its radii, of 255")] = (1.0, 3.0)
    strong_steps: Annotated[int, Field(ge=1)] = 50
    restarts: Annotated[int, Field(ge=1, description="random starts of the strong attack, for each of two losses")] = 1
    ensemble_images: Annotated[int, Field(ge=0, description="test images that the ensemble attacks too; 0: none")] = 12
    ensemble_queries: Annotated[int, Field(ge=1, le=LARGEST, description="of Square")] = 200
    rounds: Annotated[int, Field(ge=2, description="of the timing")] = 3

    @field_validator("arch", "teacher_arch")
    @classmethod
    def _known_arch(cls, arch: str) -> str:
        if arch and arch not in models.names():
            raise ValueError(f"unknown network {arch!r}; choose one of {', '.join(models.names())}")
        return arch

    @field_validator("runs")
    @classmethod
    def _of_arms(cls, runs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        for arm, count in runs:
            parsed(arm)
            if count > TEACHERS_FROM:
                raise ValueError(f"{count} runs of {arm}: {TEACHERS_FROM} at most, since there the seeds of teachers begin")
        return runs

    @field_validator("arms", "switches", "sweep", "headline")
    @classmethod
    def _known_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            parsed(arm)
        if len(set(arms)) < len(arms):
            raise ValueError(f"named twice: {', '.join(a for a in set(arms) if arms.count(a) > 1)}")
        return arms

    @field_validator("mix_maps")
    @classmethod
    def _known_maps(cls, source: str) -> str:
        if not known_source(source):
            raise ValueError(f"unknown maps {source!r}; choose masks, boxes or TEACHER-ATTRIBUTION (std-gradient, …)")
        return source

    @field_validator("eps_grid", "strong_eps", "alphas", "eps0s")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if list(grid) != sorted(set(grid)):
            raise ValueError("in ascending order, each once")
        return grid

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        needed = {"original", "uniform", "sign"} | {a.partition("@")[0] for a in (*self.arms, *self.switches)} | set(self.sweep)
        needed |= {"pgd"} if any(parsed(a, self.mix_maps).teacher == "adv" for a in self.every) else set()
        missing = sorted(needed - set(self.arms))
        if missing:
            raise ValueError(f"arms {', '.join(missing)} are what others are compared with or taught by; name them in arms")
        stray = [a for a in self.headline if a not in self.arms]
        if stray or "original" not in self.headline:
            raise ValueError(
                f"headline {stray[0]!r} is none of the arms" if stray else "headline needs original, the first rival"
            )
        taught = [parsed(a).teacher for a in self.sweep]
        if len(set(taught)) < len(taught):
            raise ValueError(f"sweep {self.sweep}: one arm a teacher, since the curves are drawn by teacher")
        if not set(self.strong_eps) <= set(self.eps_grid):
            raise ValueError(f"strong_eps {self.strong_eps} must be among eps_grid {self.eps_grid}")
        if self.strong_images > self.images:
            raise ValueError(f"strong_images = {self.strong_images} is more than images = {self.images}")
        self._check_masks()
        return self

    def _check_masks(self) -> None:
        """ValueError, with what to set, where arms step along masks and the data set has none."""
        along = [a for a in self.every if parsed(a, self.mix_maps).source == "masks"]
        if not along or datasets.has_masks(self.dataset):
            return
        boxed = {"mix_maps": self.mix_maps.replace("masks", "boxes")}
        for name in ("arms", "headline", "switches", "sweep"):
            instead = dict.fromkeys(a.replace("sat-masks", "sat-boxes") for a in getattr(self, name))
            if tuple(instead) != getattr(self, name):
                boxed[name] = f"[{', '.join(instead)}]"
        settings = " ".join(f'--set "{name}={value}"' for name, value in boxed.items())
        name = self.dataset.removeprefix("folder:")
        segmented = f"; so can what colours tell: --set dataset=segmented:{name}" if name != self.dataset else ""
        raise ValueError(
            f"{self.dataset} has no masks of its objects, along which {', '.join(along)} step; boxes can stand for them (the "
            f"middle two thirds, where a set has none of its own): {settings}{segmented}"
        )

    @property
    def every(self) -> tuple[str, ...]:
        """All arms: the named ones, the switches and the sweeps."""
        swept = [f"{a}@a{v:g}" for a in self.sweep for v in self.alphas if v != self.alpha10]
        swept += [f"{a}@e{v:g}" for a in self.sweep for v in self.eps0s if v != self.eps]
        return tuple(dict.fromkeys((*self.arms, *self.switches, *swept)))


def seeds_of(p: Parameters, arm: str) -> int:
    return parameters.runs_of(p, arm)


def teacher_seed(seed: int) -> int:
    """Of the networks that stand behind the students of `seed`: no student is compared with one of them."""
    return TEACHERS_FROM + seed


def transfer_seed(p: Parameters, seed: int) -> int:
    """Of the original whose attacks are transferred to the networks of `seed`: not the one that teaches them."""
    return teacher_seed((seed + 1) % max(2, *(seeds_of(p, arm) for arm in p.every)))


def _maps_of(p: Parameters, arm: Arm) -> dict[str, Any]:
    """Arguments of `maps.maps` for an arm."""
    how = next((c for c in arm.changes if c in ("median", "mean", "minmax")), None)
    found: dict[str, Any] = {"kind": arm.attribution or arm.source} | ({"how": how} if how else {})
    found |= {c: True for c in ("released", "inverted", "another") if c in arm.changes}
    if "predicted" in arm.changes:
        found["of_class"] = "predicted"
    found |= {"n": p.smooth_n} if arm.attribution == "smoothgrad" else {}
    return found | ({"ig_steps": p.ig_steps} if arm.attribution == "ig" else {})


def config_of(p: Parameters, arm: str, seed: int, arch: str = "") -> TrainConfig:
    """The training of an arm; only what decides its weights, so that arms are shared between settings of the others."""
    found = parsed(arm, p.mix_maps)
    changes: dict[str, Any] = {}
    eps = (p.eps if found.eps0 is None else found.eps0) / 255
    options: dict[str, Any] = {"base": found.base, "mix": "sat" if found.mix == "sign" else found.mix, "eps": eps}
    if found.base != "plain":
        options |= {"steps": p.steps, "step": p.step / 255}
    if found.base == "trades":
        options["beta"] = found.beta
    if found.mix in ("sat", "sign"):
        options["alpha10"] = 1.0 if found.mix == "sign" else p.alpha10 if found.alpha10 is None else found.alpha10
    if "unprojected" in found.changes:
        options["reproject"] = False
    if found.mix == "sat":
        maps = _maps_of(p, found)
        if found.teacher:
            taught = "original" if found.teacher == "std" else "pgd"
            changes["teacher"] = config_of(p, taught, teacher_seed(seed), p.teacher_arch or p.arch)
        if "fresh" in found.changes:
            options["fresh"] = maps
        else:
            changes |= {"maps": MAPS, "maps_options": maps, "maps_follow": "unflipped" not in found.changes}
    if arm != "original":
        changes |= {"objective": OBJECTIVE, "options": options, "label": arm}
    return TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.train_images,
        arch=arch or p.arch,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        optimizer="adam",
        lr=p.learning_rate,
        schedule=p.schedule,
        weight_decay=0.0,
        augment=p.augment,
        shift=p.shift,
        **changes,
    )


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(arm, seed) of every network of the study."""
    return [(arm, seed) for arm in p.every for seed in range(seeds_of(p, arm))]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network, or those that decide a job, the teachers first."""
    students = [config_of(p, *one) for one in ([job] if job else jobs(p))]
    teachers = [c.teacher for c in students if c.teacher is not None]
    seeds = [job[1]] if job else range(max(seeds_of(p, arm) for arm in p.every))
    teachers += [config_of(p, "original", transfer_seed(p, s)) for s in seeds]  # whose attacks are transferred
    return list({c.digest: c for c in itertools.chain(teachers, students)}.values())


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p))


def network(p: Parameters, arm: str, seed: int) -> cache.Trained:
    """The trained network of an arm."""
    return cache.trained(config_of(p, arm, seed), device_name=p.device)


def model(p: Parameters, arm: str, seed: int) -> classifier.Classifier:
    """Its network as it is at the end."""
    return network(p, arm, seed).model


def marked(p: Parameters) -> list[parameters.Arm]:
    """The headline arms."""
    return [parameters.Arm(label(arm), p.arch, [(arm, seed) for seed in range(seeds_of(p, arm))]) for arm in p.headline]


@functools.lru_cache(maxsize=8)
def teacher(p: Parameters, which: str, seed: int) -> classifier.Classifier:
    """The standard or the adversarially trained teacher of the students with `seed`."""
    config = config_of(p, "original" if which == "std" else "pgd", teacher_seed(seed), p.teacher_arch or p.arch)
    return cache.trained(config, device_name=p.device).model


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


def test_maps(p: Parameters, arm: str, seed: int, data: datasets.ImageSet) -> Any:
    """The maps that an arm would step against, of any images with labels, (N, C, H, W); None for arms without maps."""
    found = parsed(arm, p.mix_maps)
    if found.mix != "sat":
        return None
    return maps_.maps(data, teacher(p, found.teacher, seed) if found.teacher else None, **_maps_of(p, found))
