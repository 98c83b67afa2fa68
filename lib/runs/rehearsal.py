"""Rehearsals: every `paper` run from beginning to end in minutes, on miniatures of its data sets, with its own networks.

What stays: the notebook and the usual way to run it, the architectures, the image size, the layout of the data sets and the
loaders that read them. What is reduced: images, training and attack steps, seeds, and the longest lists of arms and radii; see
`reduced`. Published weights that are not on this machine are drawn at random, and put where torchvision looks for them.

All of it happens below one folder, with STUDY_HOME, STUDY_DATA, TORCH_HOME and IPYTHONDIR set to parts of it.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from lib.data import imagenet, miniatures
from lib.networks import zoo
from lib.runs import profiles
from lib.studies.parameters import Parameters
from lib.system import files, paths

PROFILE = "paper"
IMAGES = 8
# Runs that have been seen to pass in about three minutes of two cores, which is what CI has for one.
SHORT = (
    "01-attention-shift",
    "03-interpretability-aware-training",
    "03-interpretability-aware-training.cifar10",
    "05-saliency-adversarial-training",
    "05-saliency-adversarial-training.flowers17",
    "05-saliency-adversarial-training.tiny-imagenet",
)
DATA = ("dataset", "photographs", "style_source")  # parameters that name data
# Numbers that are cut to what is said here, and counts of images that are cut to the rehearsal's.
CAPS = dict.fromkeys(("seeds", "epochs", "adversarial_epochs", "style_epochs", "tune_epochs", "wash_epochs", "restarts"), 1)
CAPS |= dict.fromkeys(("attack_steps", "ig_attack_steps", "ensemble_targets", "climb_n", "climb_steps"), 1)
CAPS |= dict.fromkeys(("steps", "pgd_steps", "restart_steps", "aai_steps", "robust_steps", "strong_steps", "hide_steps"), 2)
CAPS |= dict.fromkeys(("unforeseen_steps", "photo_steps", "ensemble_steps", "rounds", "stages", "features", "patches"), 2)
CAPS |= dict.fromkeys(("smooth_n", "ig_steps", "ig_points", "marked_images", "marked_steps"), 2)
CAPS |= dict.fromkeys(("ensemble_images", "ensemble_queries", "batch_size", "tune_batch"), 4)
CAPS |= dict.fromkeys(("train_images", "tune_images"), 8) | {"mosaics": 8, "train_probe": 8, "min_correct": 1}
COUNTS = ("images", "pictures", "robust_images", "saliency_images", "strong_images", "aai_images", "ig_images", "costly_images")
COUNTS += ("unforeseen_images", "calibration_images", "decision_images", "mosaic_images", "sanity_images")
COUNTS += ("photo_images",)
SMALLEST_BATCH = {"small": 16, "lite0": 8, "vgg19": 8}  # of the style transfer, by its encoder: no parameter


def _ends(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values if len(values) < 3 else (values[0], values[-1])


def _at_cnn(p: Any) -> dict[str, Any]:
    fgsm = [a for a in p.arms if a.startswith("fgsm")][:1]
    mixed = [a for a in p.arms if "@" in a][:1]
    arms = ("standard", "underfit", *p.headline, *fgsm, *mixed)
    return {
        "arms": tuple(a for a in p.arms if a in arms),
        "saturation": _ends(p.saturation),
        "robust_eps": p.robust_eps[:2],
        "train_images": SMALLEST_BATCH[p.style_encoder],
    }


def _interpretability(p: Any) -> dict[str, Any]:
    return {"eps_grid": (p.eps, p.beyond), "aai_eps": (p.eps, p.aai_eps[-1])}


def _manipulation(p: Any) -> dict[str, Any]:
    """Active fooling is left out: its pair of classes shows among the first 1,600 training images of ImageNet, not earlier."""
    return {"kinds": tuple(k for k in p.kinds if k in ("location", "topk")), "deletion": p.deletion[:1]}


def _saliency(p: Any) -> dict[str, Any]:
    switches, sweep = p.switches[:3], p.sweep[:1]
    needed = {*p.headline, "original", "uniform", "sign", "pgd", *(a.partition("@")[0] for a in switches), *sweep}
    trades = [a for a in p.arms if a.startswith("trades") and a not in needed][-1:]
    return {
        "arms": tuple(a for a in p.arms if a in needed or a in trades),
        "switches": switches,
        "sweep": sweep,
        "alphas": p.alphas[:1],
        "eps0s": p.eps0s[:1],
        "strong_eps": p.strong_eps[:1],
    }


def _explanations(p: Any) -> dict[str, Any]:
    return {"eps": (p.headline,)}


# by study: lists that are cut, in which parts depend on each other
LISTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "grad_cam": lambda p: {"eps": _ends(p.eps), "radii": _ends(p.radii)},
    "attention_shift": lambda p: {"eps": _ends(p.eps)},
    "at_cnn": _at_cnn,
    "interpretability_aware_training": _interpretability,
    "model_manipulation": _manipulation,
    "saliency_adversarial_training": _saliency,
    "attack_pathways": lambda p: {"strengths": _ends(p.strengths)},
    "attacked_explanations": _explanations,
}


def reduced(run: str, images: int = IMAGES, *, true_batches: bool = False) -> dict[str, Any]:
    """What a rehearsal sets instead of the profile's values: only what it makes smaller.

    `true_batches` trains with the profile's batch size, two batches of it: for the memory of a training step. Raises ValueError
    as `profiles.parameters` does.
    """
    p: Any = profiles.parameters(run, PROFILE)
    caps = CAPS | dict.fromkeys(COUNTS, images)
    found = {n: caps[n] for n in type(p).model_fields if n in caps and _larger(getattr(p, n), caps[n])}
    found |= {n: v for n, v in LISTS.get(profiles.package(run), lambda _: {})(p).items() if v != getattr(p, n)}
    if true_batches:
        for batch, of in (("batch_size", "train_images"), ("tune_batch", "tune_images")):
            if batch in found:
                found[of] = max(found.get(of, 0), 2 * getattr(p, batch))
                del found[batch]
    return found


def _larger(value: Any, cap: int) -> bool:
    """Whether a number is above its cap; None stands for all there are."""
    return value is None or (not isinstance(value, tuple) and value > cap)


def told(run: str, changes: dict[str, Any]) -> str:
    """What was reduced to what, in a line."""
    p = profiles.parameters(run, PROFILE).model_dump()
    return ", ".join(f"{n} {_short(p[n])} → {_short(v)}" for n, v in changes.items())


def _short(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]" if len(value) < 3 else f"[{len(value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def data_of(p: Parameters) -> list[str]:
    """The data sets that a run names."""
    return list(dict.fromkeys(getattr(p, n) for n in DATA if getattr(p, n, "embedded") != "embedded"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from value.split(">")
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _texts(part)


def classes_of(p: Parameters) -> list[str]:
    """The ImageNet classes that a run names, as WordNet numbers: by such a number, by name, or as the pair of study 4."""
    every, numbers, found = list(_texts(list(p.model_dump().values()))), imagenet.wnids(), set()
    found |= {text for text in every if imagenet.WNID.fullmatch(text)}
    named = dict(zip(imagenet.class_names(), numbers, strict=True))
    found |= {named[text] for text in every if text in named}
    if "imagenet" in getattr(p, "dataset", "") and hasattr(p, "pair"):
        found |= {numbers[i] for i in p.pair}
    return sorted(found)


def published_of(p: Parameters) -> list[str]:
    """The networks whose published weights a run downloads, but for those that are packages."""
    wanted = getattr(p, "weights", "none") == "imagenet"
    names = [*getattr(p, "architectures", ()), getattr(p, "arch", "")] if wanted else []
    names += [getattr(p, "style_encoder", "")]
    return [n for n in dict.fromkeys(names) if n in zoo.NETWORKS and not n.startswith("efficientnet-lite")]


@dataclasses.dataclass
class Stage:
    """A folder in which runs are rehearsed, with their miniatures and weights."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "datasets"

    def prepare(self, run: str, images: int) -> list[str]:
        """Lay out what a run needs; returns the networks whose weights are random.

        Raises ValueError that names the run for a data set without a miniature.
        """
        p = profiles.parameters(run, PROFILE)
        for name in data_of(p):
            try:
                miniatures.lay_out(name, self.data, images, classes_of(p) if "imagenet" in name else ())
            except ValueError as error:
                raise ValueError(f"{run}: {error}") from error
        startup = self.folder / "ipython" / "profile_default" / "startup" / "00-miniatures.py"
        lines = [
            "import pathlib",
            "from lib.data import miniatures",
            f"_trusted = miniatures.trusted(pathlib.Path({str(self.data)!r}))",
        ]
        files.write_bytes(startup, "\n".join([*lines, "_trusted.__enter__()", ""]).encode())
        weights = self.folder / "torch" / "hub" / "checkpoints"
        return [n for n in published_of(p) if self._weights(n, weights)]

    def _weights(self, name: str, folder: Path) -> bool:
        """Put the weights of a network where it looks for them: this machine's, or random ones (returns True)."""
        own = zoo.kept(name)
        there, mark = folder / own.name, folder / f"{own.name}.random"
        if not there.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if own.exists():
                there.symlink_to(own.resolve())
            else:  # in a process of its own: this one stays small, since what it starts is measured
                code = "import sys; from lib.networks import zoo; zoo.save_random(sys.argv[1], sys.argv[2])"
                subprocess.run([sys.executable, "-c", code, name, str(there)], check=True, env=self.environment())
                mark.touch()
        return mark.exists()

    def environment(self) -> dict[str, str]:
        """Of everything that is started here: it writes below the folder alone."""
        lib = os.pathsep.join([str(paths.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"STUDY_HOME": "home", "STUDY_DATA": "datasets", "TORCH_HOME": "torch", "IPYTHONDIR": "ipython"}
        return os.environ | {k: str(self.folder / v) for k, v in own.items()} | {"PYTHONPATH": lib}


@dataclasses.dataclass
class Rehearsed:
    """A run that was rehearsed: seconds on the clock and of the processors, peak memory in bytes, and what went wrong."""

    run: str
    images: int
    seconds: float
    cpu_seconds: float
    memory: int
    error: str = ""


def rehearse(stage: Stage, run: str, images: int = IMAGES, *, true_batches: bool = False) -> Rehearsed:
    """Execute a run's notebook on a stage that is prepared for it, as `python -m lib run` does, and watch its memory."""
    command = [sys.executable, "-m", "lib", "run", run, "--profile", PROFILE, "--no-report"]
    for name, value in reduced(run, images, true_batches=true_batches).items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    log = stage.folder / f"{run}.log"
    begun, before = time.perf_counter(), os.times()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=stage.environment(), cwd=paths.PROJECT)
        try:
            memory = _peak(process)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    error = "" if process.returncode == 0 else _last(log)
    return Rehearsed(run, images, time.perf_counter() - begun, spent, memory, error)


def _last(log: Path, lines: int = 40) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(text.rstrip().splitlines()[-lines:]) or "it ended without a word"


def _peak(process: subprocess.Popen, every: float = 0.1) -> int:
    """The resident memory of the largest process that `process` has ever started, itself among them, in bytes."""
    root, largest = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            there = [root, *root.children(recursive=True)]
        except psutil.Error:
            there = []
        largest = max([largest, *map(_resident, there)])
        time.sleep(every)
    return largest


def _resident(process: psutil.Process) -> int:
    """Its highest resident memory so far where the system tells (Linux), else what it has now."""
    try:
        status = Path(f"/proc/{process.pid}/status")
        if status.exists():
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8", errors="replace"))
            return 1024 * int(found[1]) if found else 0
        return process.memory_info().rss
    except (OSError, psutil.Error):  # it has ended meanwhile
        return 0


def in_turn(number: int) -> str:
    """One of SHORT, all in turn as the number counts up."""
    return SHORT[number % len(SHORT)]
