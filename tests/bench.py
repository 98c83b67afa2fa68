"""`make bench`: how fast the kernels are, as ratios measured within one run, against the floor of passes or against a peer.

Each pair is timed in turn, A B A B …, after a warm-up; a ratio is the median of the pairs' ratios, `low` and `high` their
quartiles. The table is printed and written to figures/bench/ratios.csv. What a ratio must reach is written beside it.
`python -m tests.bench PART …` measures some parts anew and leaves the rows of the others.
"""

import contextlib
import io
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.stats
import torch
from skimage.metrics import structural_similarity

from lib.attacks import projected, robustness, single_step
from lib.attacks import steps as steps_
from lib.data import datasets
from lib.explanations import activation_maps, by_name, gradients
from lib.explanations import relevance as relevance_
from lib.explanations.by_name import Settings
from lib.fooling import discrepancy, manipulation, map_attack
from lib.measures import comparison
from lib.measures.similarity import ssim
from lib.networks import folding, hooks, models, rectifiers
from lib.studies.attention_shift import measure
from lib.studies.interpretability_aware_training import measure as measure_
from lib.studies.interpretability_aware_training import objective, plan
from lib.system import files, paths
from lib.system.progress import say
from lib.training import cache, objectives
from lib.training import config as config_

ROWS: list[dict[str, object]] = []


def pairs(a: Callable[[], object], b: Callable[[], object], repeats: int = 9) -> list[float]:
    """Ratios of the times of a and b, run in turn."""
    a(), b()
    found = []
    for _ in range(repeats):
        t = [time.perf_counter()]
        for f in (a, b):
            f()
            t.append(time.perf_counter())
        found.append((t[1] - t[0]) / (t[2] - t[1]))
    return found


def record(work: str, against: str, ratios: list[float], target: float | None, *, at_least: bool = False) -> None:
    """`at_least`: the ratio says how many times faster, and more is better; otherwise it is a cost, and less is better.

    Without a target (a peer, for comparison) there is nothing to meet.
    """
    ratio = statistics.median(ratios)
    low, high = np.quantile(ratios, [0.25, 0.75])
    wanted, meets = "none", "n/a"
    if target is not None:
        wanted = f"{'>=' if at_least else '<='} {target:g}"
        meets = "yes" if (ratio >= target if at_least else ratio <= target) else "no"
    ROWS.append(
        {
            "work": work,
            "against": against,
            "ratio": round(ratio, 3),
            "low": round(low, 3),
            "high": round(high, 3),
            "target": wanted,
            "meets": meets,
        }
    )
    say(f"{work}, against {against}: {ratio:.3f} [{low:.3f}, {high:.3f}], target {ROWS[-1]['target']}: {ROWS[-1]['meets']}")


def grad_cam() -> None:
    """On ResNet-18, 32 images of 64 pixels."""
    model = models.create("resnet18", classes=10).eval()
    net = model.net
    for p in model.parameters():
        p.requires_grad_(False)
    x = torch.rand(32, 3, 64, 64)

    def stem(x: torch.Tensor) -> torch.Tensor:
        return net.layer1(net.maxpool(net.relu(net.bn1(net.conv1((x - model.mean) / model.std)))))

    def floor_last() -> None:
        with torch.no_grad():
            a = net.layer4(net.layer3(net.layer2(stem(x))))
        a.requires_grad_()
        torch.autograd.grad(net.fc(net.avgpool(a).flatten(1))[:, 0].sum(), a)

    record(
        "Grad-CAM, last stage",
        "forward without graph + backward of the head",
        pairs(lambda: activation_maps.gradcam(model, x, 0, "layer4"), floor_last, 15),
        1.1,
    )
    classes = torch.arange(3).expand(32, 3)

    def floor_all() -> None:
        with torch.no_grad():
            a = stem(x)
        a.requires_grad_()
        logits = net.fc(net.avgpool(net.layer4(net.layer3(net.layer2(a)))).flatten(1))
        for k in range(3):
            torch.autograd.grad(logits[:, k].sum(), a, retain_graph=k < 2)

    record(
        "Grad-CAM, all stages, three classes",
        "one forward + one backward a class to the first stage",
        pairs(lambda: activation_maps.gradcams(model, x, classes, list(model.stages)), floor_all),
        1.15,
    )

    def forward_backward(times: int) -> None:
        z = x.clone()
        for _ in range(times):
            z.requires_grad_()
            torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
            z = z.detach()

    y = torch.zeros(32, dtype=torch.long)

    def attack(judge: bool) -> None:
        projected.pgd(model, x, y, eps=8 / 255, step=2 / 255, steps=10, judge=judge)

    def floor_judged() -> None:
        forward_backward(10)
        with torch.no_grad():
            model(x)

    ratios = pairs(lambda: attack(False), lambda: forward_backward(10), 11)
    record("PGD-10, its steps", "ten forward and input-backward passes", ratios, 1.05)
    ratios = pairs(lambda: attack(True), floor_judged, 11)
    record("PGD-10, and whether it succeeded", "ten forward and input-backward passes and one forward", ratios, 1.05)


def similarity() -> None:
    for window, options in (("uniform", {}), ("gaussian", {"gaussian_weights": True, "sigma": 1.5})):
        for size in (32, 64):
            a, b = torch.rand(256, size, size), torch.rand(256, size, size)

            def loop(a: torch.Tensor = a, b: torch.Tensor = b, options: dict = options) -> list[float]:
                return [
                    structural_similarity(u, v, data_range=1.0, **options) for u, v in zip(a.numpy(), b.numpy(), strict=True)
                ]

            error = np.abs(ssim(a, b, window=window).numpy() - loop()).max()
            assert error < 1e-5, error
            ratios = pairs(lambda a=a, b=b, w=window: ssim(a, b, window=w), loop)
            record(f"SSIM of 256 pairs, {size} px, {window}", "scikit-image's loop", ratios, 0.8)


def robust_grid() -> None:
    """Seven eps, PGD-40, a standard and an adversarially trained network, 1,000 images."""
    import torchattacks

    grid = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1)
    data = datasets.load("shapes", "test", limit=1000)
    standard = config_.TrainConfig(dataset="shapes", arch="plain", limit=2000)
    robust = standard.model_copy(update={"objective": "adversarial", "options": {"eps": 8 / 255, "steps": 5}})
    spent, agree = {"ours": 0.0, "theirs": 0.0}, []
    for config in (standard, robust):
        model = cache.trained(config).model
        begin = time.perf_counter()
        ours = robustness.robust_accuracy(model, data.images, data.labels, eps=grid, steps=40).accuracy[1:]
        spent["ours"] += time.perf_counter() - begin
        for e, accuracy in zip(grid, ours, strict=True):
            begin = time.perf_counter()
            right = 0
            attack = torchattacks.PGD(model, eps=e, alpha=steps_.default_step(e, 40), steps=40)
            for i in range(0, 1000, 128):
                x, y = data.images[i : i + 128], data.labels[i : i + 128]
                right += int((model(attack(x, y)).argmax(1) == y).sum())
            spent["theirs"] += time.perf_counter() - begin
            agree.append(accuracy.item() <= right / 1000 + 1e-6)
            say(f"  {config} eps {e:g}: accuracy {accuracy:.3f}, torchattacks {right / 1000:.3f}")
    record("robust accuracy, eps at which ours is above theirs", "none", [float(len(agree) - sum(agree))], 0)
    record(
        "robust accuracy, 7 eps, PGD-40, two networks, 1,000 images",
        "torchattacks' PGD, eps by eps (times faster)",
        [spent["theirs"] / spent["ours"]],
        4,
        at_least=True,
    )


def attention() -> None:
    """All stages, 7 eps, 500 images, the predicted and the true class: NISSIM of every pair."""
    import torchattacks
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    grid = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1)
    model = cache.trained(config_.TrainConfig(dataset="shapes", arch="plain", limit=2000)).model
    data = datasets.load("shapes", "test", limit=500)
    batches = [(data.images[i : i + 100], data.labels[i : i + 100]) for i in range(0, 500, 100)]
    layers = list(model.stages)

    def ours() -> dict[tuple, np.ndarray]:
        found: dict[tuple, list] = {}
        for x, y in batches:
            direction, _ = single_step.fgsm_direction(model, x, y)

            def explain(images: torch.Tensor, y: torch.Tensor = y) -> dict[str, torch.Tensor]:
                return activation_maps.gradcams(
                    model, images, lambda logits: torch.stack([logits.argmax(1), y], 1), layers
                ).maps

            clean = explain(x)
            for e in grid:
                adv = explain(single_step.step_along(x, direction, e))
                for layer in layers:
                    for t in range(2):
                        pair = (measure.shown(m[layer][:, t], 32) for m in (clean, adv))
                        found.setdefault((layer, e, t), []).append(comparison.nissim(*pair).numpy())
        return {k: np.concatenate(v) for k, v in found.items()}

    def theirs() -> dict[tuple, np.ndarray]:
        found: dict[tuple, list] = {}
        for x, y in batches:
            images = {0.0: x} | {e: torchattacks.FGSM(model, eps=e)(x, y) for e in grid}
            for layer in layers:
                for t in range(2):
                    maps = {}
                    for e, image in images.items():
                        c = model(image).argmax(1) if t == 0 else y
                        with GradCAM(model=model, target_layers=[hooks.find_layer(model, layer)]) as method:
                            maps[e] = method(input_tensor=image, targets=[ClassifierOutputTarget(int(k)) for k in c])
                    for e in grid:
                        pair = zip(maps[0.0], maps[e], strict=True)
                        values = [(1 - structural_similarity(u, v, data_range=1.0)) / 2 for u, v in pair]
                        found.setdefault((layer, e, t), []).append(np.array(values))
        return {k: np.concatenate(v) for k, v in found.items()}

    begin = time.perf_counter()
    a = ours()
    middle = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        b = theirs()
    end = time.perf_counter()
    # pytorch-grad-cam scales each map once more after enlarging it, so single pairs differ; the means hardly do
    worst = max(abs(a[k].mean() - b[k].mean()) for k in a)
    say(f"  largest difference of MOD between the two: {worst:.2g}")
    assert worst < 0.02, worst
    record(
        "attention shift, all stages, 7 eps, 500 images, both classes",
        "pytorch-grad-cam layer by layer and scikit-image pair by pair (times faster)",
        [(end - middle) / (middle - begin)],
        5,
        at_least=True,
    )


def pixel_explanations() -> None:
    """SmoothGrad and integrated gradients of 64 images on ResNet-18, 64 pixels, 20 passes; captum's defaults beside them."""
    import captum.attr

    model = models.create("resnet18", classes=10).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    x, y, n = torch.rand(64, 3, 64, 64), torch.arange(64) % 10, 20

    def floor() -> None:
        for _ in range(n):
            z = x.clone().requires_grad_()
            torch.autograd.grad(model(z).gather(1, y[:, None]).sum(), z)

    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    path = captum.attr.IntegratedGradients(model)
    z = x.clone().requires_grad_()
    work = {
        "SmoothGrad, n = 20": lambda: gradients.smoothgrad(model, x, y, n=n),
        "integrated gradients, 20 steps": lambda: gradients.integrated_gradients(model, x, y, steps=n),
    }
    for name, ours in work.items():
        record(name, "20 forward and input-backward passes", pairs(ours, floor, 5), 1.05)
    theirs = {
        "captum's SmoothGrad, n = 20": lambda: tunnel.attribute(z, nt_type="smoothgrad", nt_samples=n, target=y, abs=False),
        "captum's integrated gradients, 20 steps": lambda: path.attribute(z, n_steps=n, target=y),
    }
    for name, peer in theirs.items():
        record(f"{name} (its defaults, for comparison)", "20 forward and input-backward passes", pairs(peer, floor, 3), None)


PASSES = """
import resource, sys, torch
from lib.explanations import gradients
from lib.networks import models
model = models.create("resnet18", classes=10).eval()
for p in model.parameters():
    p.requires_grad_(False)
x, y = torch.rand(64, 3, 64, 64), torch.arange(64) % 10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1].startswith("captum"):
    import captum.attr
    z = x.clone().requires_grad_()
{
    "one": lambda: gradients.gradient(model, x, y),
    "smoothgrad": lambda: gradients.smoothgrad(model, x, y, n=20),
    "integrated": lambda: gradients.integrated_gradients(model, x, y, steps=20),
    "captum": lambda: captum.attr.IntegratedGradients(model).attribute(z, n_steps=20, target=y),
}[sys.argv[1]]()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def pixel_memory() -> None:
    """Peak memory above that of the loaded network and images, each in a fresh process, against one gradient."""
    peaks = {}
    for what in ("one", "smoothgrad", "integrated", "captum"):
        command = [sys.executable, "-c", PASSES, what]
        done = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=paths.PROJECT) for _ in range(3)]
        peaks[what] = statistics.median(int(d.stdout) for d in done)
    for what, name in (("smoothgrad", "SmoothGrad, n = 20"), ("integrated", "integrated gradients, 20 steps")):
        record(f"peak memory of {name}", "one forward and input-backward pass", [peaks[what] / peaks["one"]], 1.3)
    record(
        "peak memory of captum's integrated gradients (its defaults, for comparison)",
        "one forward and input-backward pass",
        [peaks["captum"] / peaks["one"]],
        None,
    )


def interpretability() -> None:
    """A training step of each arm, and a discrepancy's gradient, on Small with 50 images of 28 pixels."""
    steps, x, y = 10, torch.rand(50, 1, 28, 28), torch.arange(50) % 10
    model = models.create("small", classes=10, channels=1)
    parameters = list(model.parameters())
    cross_entropy = torch.nn.functional.cross_entropy

    def update(copies: int) -> None:
        z = torch.cat([x] * copies)
        torch.autograd.grad(cross_entropy(model(z), y.repeat(copies)), parameters)

    def inner(times: int) -> None:
        with hooks.frozen(model):
            z = x
            for _ in range(times):
                z = z.detach().requires_grad_()
                (g,) = torch.autograd.grad(cross_entropy(model(z), y, reduction="sum"), z)
                z = (z + 0.01 * g.sign()).clamp(0, 1)

    def clean() -> None:
        with torch.no_grad():
            model(x)

    def twice(wanted: list[torch.Tensor] | None) -> None:
        """Forward, back to five copies of the images, and back through both: what the norm of integrated gradients asks for."""
        z = torch.cat([x] * 5).requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(model(z), y.repeat(5), reduction="sum"), z, create_graph=True)
        torch.autograd.grad(g.abs().sum(), wanted or z)

    def frozen_twice(times: int) -> None:
        with hooks.frozen(model):
            for _ in range(times):
                twice(None)

    def both_copies(times: int) -> None:
        inner(times)
        update(2)

    floors: dict[str, Callable[[], object]] = {
        "normal": lambda: update(1),
        "adv": lambda: (inner(steps), update(1)),
        "trades": lambda: (clean(), both_copies(steps)),
        "ig-norm": lambda: (frozen_twice(2), update(1), twice(parameters)),
        "ig-norm-sum": lambda: (frozen_twice(2), inner(2), update(1), twice(parameters)),
        "int-one-class": lambda: (clean(), both_copies(steps)),
        "int": lambda: (clean(), both_copies(steps)),
        "int-adv": lambda: (clean(), both_copies(steps)),
        "int2": lambda: both_copies(steps),
        "int2-adv": lambda: both_copies(steps),
    }
    for arm, floor in floors.items():
        moment = objectives.Moment(1, 1, 4, 0.9, torch.Generator().manual_seed(0))

        def step(arm: str = arm, moment: objectives.Moment = moment) -> None:
            n = 2 if arm.startswith("ig") else steps
            loss = objective.train(model, x, y, moment, arm=arm, eps=0.3, steps=n, step=0.05, begin=0.0, full=0.5)
            torch.autograd.grad(loss.mean(), parameters)

        record(f"training step of {objective.ARMS[arm].name}", "the passes that it must make", pairs(step, floor), 1.1)

    with hooks.frozen(model):
        with torch.no_grad():
            maps, _ = activation_maps.all_cams(model, x)

        def moved() -> None:
            z = x.clone().requires_grad_()
            now, logits = activation_maps.all_cams(model, z, check=False)
            torch.autograd.grad(discrepancy.all_class(maps, now, y, logits).sum(), z)

        record(
            "gradient of the discrepancy of all classes' CAMs",
            "one forward and input-backward pass",
            pairs(moved, lambda: inner(1), 21),
            1.1,
        )

    for n, d in ((200, 49), (200, 64), (200, 16)):
        a = torch.randn(n, d)
        b = (a + torch.randn(n, d)).round(decimals=1)

        def loop(a: torch.Tensor = a, b: torch.Tensor = b) -> list[float]:
            return [scipy.stats.kendalltau(u, v).statistic for u, v in zip(a.numpy(), b.numpy(), strict=True)]

        error = np.abs(comparison.kendall(a, b).numpy() - loop()).max()
        assert error < 1e-6, error
        ratios = pairs(loop, lambda a=a, b=b: comparison.kendall(a, b))
        record(f"Kendall's tau of {n} pairs of {d} values", "SciPy's loop (times faster)", ratios, 5, at_least=True)


def long_pgd() -> None:
    """PGD-200 without a start on every arm of study 3's laptop profile, 200 images, five radii."""
    p = plan.Parameters()
    data = plan.evaluation_set(p)
    x, y, ours, theirs = data.images[:], data.labels, 0.0, 0.0
    for arm in p.arms:
        model = plan.model(p, arm, 0)
        begin = time.perf_counter()
        measure_.plain(model, x, y, p)
        middle = time.perf_counter()
        for eps in p.eps_grid:
            projected.pgd(model, x, y, eps=eps, steps=p.pgd_steps, step=p.pgd_step, random_start=False)
        ours, theirs = ours + middle - begin, theirs + time.perf_counter() - middle
    record(
        "PGD-200, five radii, ten arms, fallen rows dropped",
        "the same with every row to the end (times faster)",
        [theirs / ours],
        None,
        at_least=True,
    )


def relevance() -> None:
    """LRP on ResNet-18, 64 images of 64 pixels; and every passive test loss of a network from one set of maps."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    model = models.create("resnet18", classes=10).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    x, y = torch.rand(64, 3, 64, 64), torch.zeros(64, dtype=torch.long)
    floor = "one forward and input-backward pass"
    hot = torch.nn.functional.one_hot(y, 10).float()

    def peer() -> None:
        with Gradient(model, EpsilonPlus(canonizers=[ResNetCanonizer()])) as attributor:
            attributor(x, hot)

    def passes() -> None:
        gradients.gradient(model, x, y)

    record("LRP, epsilon-plus", floor, pairs(lambda: relevance_.lrp(model, x, y), passes, 15), 1.6)
    record("LRP, epsilon", floor, pairs(lambda: relevance_.lrp(model, x, y, composite="epsilon"), passes), None)
    record("zennit's LRP, EpsilonPlus (for comparison)", floor, pairs(peer, passes), None)

    net, layer = models.create("plain", classes=10).eval(), by_name.Settings("into:stage3.3")
    images, labels = torch.rand(200, 3, 32, 32), torch.randint(0, 10, (200,))
    names = ("gradcam", "lrp_t", "simple_t", "lrp")
    before = {n: by_name.explain(n, net, images, labels, layer).values for n in names}

    def maps() -> None:
        for n in names:
            by_name.explain(n, net, images, labels, layer)

    def rates() -> None:
        for n in names:
            h = by_name.explain(n, net, images, labels, layer).values
            for kind in manipulation.PASSIVE:
                manipulation.succeeded(kind, manipulation.test(kind, h, before[n]).t)

    record("all passive success rates under four interpreters", "the four interpreters' maps alone", pairs(rates, maps), 1.15)


def published() -> None:
    """EfficientNet-Lite0 as it was published, folded, on photographs of 224 pixels, one and eight at a time."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import GradCAM as TorchCAM
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus

    data = datasets.load("photographs", "test")
    model = folding.folded(models.create("efficientnet-lite0", classes=1000, weights="imagenet"), data.images[:2])
    net, layer = model.net, model.stages[-1]
    for n in (1, 8):
        x, y = data.images[:n], data.labels[:n]
        size, targets = f"EfficientNet-Lite0, 224 px, {n} at a time", [ClassifierOutputTarget(int(c)) for c in y]
        hot = torch.nn.functional.one_hot(y, 1000).float()

        def head(x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            with torch.no_grad():
                a = net.forward_features((x - model.mean) / model.std)
            a.requires_grad_()
            torch.autograd.grad(net.forward_head(a).gather(1, y[:, None]).sum(), a)

        def peer(x: torch.Tensor = x, targets: list = targets) -> None:
            with GradCAM(model, [hooks.find_layer(model, layer)]) as cam:
                cam(x.clone().requires_grad_(), targets)  # it asks for a gradient where parameters are frozen

        def other_peer(x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            with TorchCAM(model, hooks.find_layer(model, layer)) as cam:
                cam(y.tolist(), model(x.clone().requires_grad_()), normalized=False)

        def ours(x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            activation_maps.gradcam(model, x, y, layer)

        floor = "forward without graph + backward of the head"
        record(f"Grad-CAM, {size}", floor, pairs(ours, head, 41), 1.05)
        record(f"pytorch-grad-cam, {size} (for comparison)", floor, pairs(peer, head, 11), None)
        record(f"torch-cam, {size} (for comparison)", floor, pairs(other_peer, head, 11), None)

        def passes(times: int, x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            z = x.clone()
            for _ in range(times):
                z.requires_grad_()
                torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
                z = z.detach()

        def attack(x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            projected.pgd(model, x, y, eps=4 / 255, step=1 / 255, steps=10, judge=False)

        ten = pairs(attack, lambda passes=passes: passes(10), 15)
        record(f"PGD-10, {size}", "ten forward and input-backward passes", ten, 1.03)

        def relevances(x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            relevance_.lrp(model, x, y)

        def their_relevances(x: torch.Tensor = x, hot: torch.Tensor = hot) -> None:
            with Gradient(model, EpsilonPlus()) as attributor:
                attributor(x, hot)

        one = "one forward and input-backward pass"
        record(f"LRP, epsilon-plus, {size}", one, pairs(relevances, lambda passes=passes: passes(1), 21), 1.6)
        against = pairs(their_relevances, lambda passes=passes: passes(1), 11)
        record(f"zennit's LRP, EpsilonPlus, {size} (for comparison)", one, against, None)


MEMORY = """
import dataclasses, resource, sys, torch
from lib.attacks import robustness
from lib.data import datasets
from lib.networks import models
from lib.studies.attention_shift import measure, plan
from lib.training import cache
n = int(sys.argv[1])
model = models.create("plain", classes=10).eval()
cache.trained = lambda config, device_name: cache.Trained(model, config, None, [])
p = plan.Parameters(eps=(0.01, 0.1))
data = datasets.load("shapes", "test", limit=60)
data = data.select(torch.arange(n) % 60)
measure.evaluation_set = lambda p: data
measure.measure(p, "plain", 0)
robustness.robust_accuracy(model, data.images, data.labels, eps=(0.01,), steps=5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory() -> None:
    """Peak memory of measuring and attacking six times as many images, each in a fresh process."""
    peaks = {}
    for n in (240, 1440):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True, cwd=paths.PROJECT
        )
        peaks[n] = int(done.stdout)
    record("peak memory, 1,440 images measured and attacked", "the same with 240 images", [peaks[1440] / peaks[240]], 1.1)


MOVING = """
import resource, sys, torch
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling import map_attack
from lib.networks import models, rectifiers
model = models.create("resnet18", classes=10).eval()
for p in model.parameters():
    p.requires_grad_(False)
x, settings = torch.rand(96, 3, 64, 64), Settings(model.stages[-1])
y = torch.zeros(96, dtype=torch.long)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "one":
    z = x.clone().requires_grad_()
    with rectifiers.smoothed(model, 10.0):
        maps = by_name.explain(sys.argv[2], model, z, y, settings, create_graph=True).values
    torch.autograd.grad(maps.square().sum(), z)
else:
    map_attack.move_maps(model, x, sys.argv[2], eps=1e-4, settings=settings, steps=3, stages=1, batch_size=96)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def moving_maps() -> None:
    """An attack on maps against the passes that it must make (16 images of 64 pixels), and its peak memory against one of them
    (96): ResNet-18, a radius at which all keep their decision."""
    model = models.create("resnet18", classes=10).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    x, settings, steps, stages = torch.rand(16, 3, 64, 64), Settings(model.stages[-1]), 6, 3
    y = model(x).argmax(1)
    for method in ("gradcam", "gradient", "lrp"):

        def floor(method: str = method) -> None:
            for _ in range(steps):
                z = x.clone().requires_grad_()
                with rectifiers.smoothed(model, 10.0):
                    maps = by_name.explain(method, model, z, y, settings, create_graph=True).values
                model(z)
                torch.autograd.grad(maps.square().sum(), z)
            for _ in range(stages + 1):
                by_name.explain(method, model, x, y, settings)
            with rectifiers.smoothed(model, 10.0):  # how like the network's the twin's maps are
                by_name.explain(method, model, x, y, settings, create_graph=True)

        def attack(method: str = method) -> None:
            map_attack.move_maps(model, x, method, eps=1e-4, settings=settings, steps=steps, stages=stages)

        label = by_name.find(method).label
        record(f"attack on {label} maps", "the passes that it must make", pairs(attack, floor, 7), 1.1)
        peaks = {}
        for what in ("one", "attack"):
            command = [sys.executable, "-c", MOVING, what, method]
            done = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=paths.PROJECT) for _ in range(3)]
            peaks[what] = statistics.median(int(d.stdout) for d in done)
        against = "one map that is differentiated, and its backward pass"
        record(f"peak memory of an attack on {label} maps", against, [peaks["attack"] / peaks["one"]], 1.5)


PARTS = {
    part.__name__: part
    for part in (
        grad_cam,
        published,
        similarity,
        pixel_explanations,
        interpretability,
        relevance,
        moving_maps,
        pixel_memory,
        memory,
        attention,
        robust_grid,
        long_pgd,
    )
}


def main() -> int:
    """All parts, or those that are named: their rows replace the ones of the same work, others stay."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    unknown = set(sys.argv[1:]) - set(PARTS)
    if unknown:
        say(f"error: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        return 2
    target = paths.figures("bench") / "ratios.csv"
    table = pd.read_csv(target, keep_default_na=False) if target.exists() else pd.DataFrame(columns=["work"])
    for name in sys.argv[1:] or PARTS:
        say(f"-- {name}")
        PARTS[name]()
        new = pd.DataFrame(ROWS)  # stored after each part: what is measured is not lost with a later one
        table = pd.concat([table[~table.work.isin(new.work)], new], ignore_index=True)
        files.write_bytes(target, table.to_csv(index=False).encode())
    print(table.to_string(index=False))
    print(f"{target}; peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
