import numpy as np
import pytest
import scipy.stats
import torch
from skimage.metrics import structural_similarity
from torch import nn

from lib.explanations import METHODS, by_name
from lib.explanations.by_name import Settings
from lib.measures import appearance
from lib.sanity import invariance, randomisation
from tests import conftest

AT = Settings(layer="act2", composite="heo", n=3, steps=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def after(model, x, y, methods, settings=AT, scheme="cascading", **options):
    return invariance.after_randomisation(model, x, y, methods, settings, scheme=scheme, generator=generator(3), **options)


def big(maps):
    return torch.nn.functional.interpolate(maps[None, None], (8, 8), mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("scheme", ["cascading", "independent"])
def test_it_is_the_slow_twin(model, x, y, scheme):
    """A map at a time, compared by SciPy and scikit-image."""
    methods = ["gradcam", "gradient", "lrp"]
    found = after(model, x, y, methods, scheme=scheme)
    steps = list(randomisation.randomised(model, x, scheme, generator=generator(3)))
    assert found.methods == (*methods, "edges") and found.steps == ("head", "conv2", "conv1")
    assert found.rank_correlation.shape == found.nissim.shape == (4, 3, len(x))
    for m, method in enumerate(methods):
        for s, step in enumerate(steps):
            for i in range(len(x)):
                a, b = (by_name.explain(method, n, x[i : i + 1], int(y[i]), AT).values[0] for n in (model, step.network))
                if a.max() == a.min() or b.max() == b.min():
                    assert found.rank_correlation[m, s, i].isnan() and found.nissim[m, s, i].isnan()
                    continue
                rank = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
                similar = structural_similarity(big(a), big(b), data_range=1.0)
                assert found.rank_correlation[m, s, i].item() == pytest.approx(rank, abs=1e-9)
                assert found.ssim[m, s, i].item() == pytest.approx(similar, abs=1e-9)
                assert found.nissim[m, s, i].item() == pytest.approx((1 - similar) / 2, abs=1e-9)
    assert found.nissim[:3].isfinite().float().mean() > 0.6
    for s, step in enumerate(steps):
        with torch.no_grad():
            new, old = step.network(x).numpy(), model(x).numpy()
        assert found.same_decision[s].tolist() == (new.argmax(1) == old.argmax(1)).tolist()
        varies = [np.sqrt((z - z.mean(1, keepdims=True)).var(0, ddof=1).mean()) for z in (new, old)]
        assert found.spread[s].item() == pytest.approx(varies[0] / varies[1])


def test_every_explanation_moves_and_the_edge_detector_does_not(small_plain):
    x = torch.rand(5, 3, 16, 16, generator=generator())
    methods = [m.name for m in METHODS.rows if m.name != "simple_t"]  # constant under average pooling
    found = after(
        small_plain, x, torch.arange(5), methods, Settings(n=2, steps=2), layers=["stage1", "stage2", "stage3", "head"]
    )
    assert found.steps == ("head", "stage3", "stage2", "stage1")
    assert (found.rank_correlation[-1] - 1).abs().max() < 1e-6 and found.nissim[-1].abs().max() < 1e-6
    for method, ranks, moved, lost in zip(
        methods, found.rank_correlation[:-1, -1], found.nissim[:-1, -1], found.undefined[:-1, -1], strict=True
    ):
        # of these the positive part is shown, and where all now speaks against the class it is empty
        assert lost == 0 or method in ("lrp", "lrp_t", "gradcam", "cam"), method
        assert lost == 1 or (ranks.nanmean() < 0.9 and moved.nanmean() > 0.01), method
        assert lost == ranks.isnan().float().mean()


def test_of_a_linear_network_by_hand():
    """Its gradient is its weights at every image, so the map after is their magnitudes in the order that was drawn."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 2, bias=False)).double()
    x = torch.rand(3, 1, 7, 7, dtype=torch.float64, generator=generator())
    found = after(net, x, 1, ["gradient"])
    seed = int(torch.randint(2**62, (1,), generator=generator(3)))
    weights = net[1].weight.detach().flatten()
    drawn = weights[torch.randperm(98, generator=generator(seed))]
    rank = scipy.stats.spearmanr(weights[49:].abs(), drawn[49:].abs()).statistic
    assert found.steps == ("1",)
    assert found.rank_correlation[0, 0].tolist() == pytest.approx([rank] * 3)


def test_a_map_that_no_weight_of_the_layer_reaches_stays():
    """What is above the explained layer has no part in a gradient at the pixels of a sum without weights: here a bias alone."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.shift = nn.Conv2d(1, 2, 3), nn.Module()
            self.shift = Shift()

        def forward(self, x):
            return self.shift(self.below(x).sigmoid().mean((2, 3)))

    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.tensor([0.0, 5.0], dtype=torch.float64))

        def forward(self, z):
            return z + self.by

    x = torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=generator())
    found = after(Shifted().double(), x, 0, ["gradient"], scheme="independent")
    assert found.steps == ("shift", "below")
    assert torch.allclose(found.rank_correlation[:, 0], torch.ones(2, 4, dtype=torch.float64))
    assert found.nissim[:, 0].max() < 1e-9 and found.rank_correlation[0, 1].max() < 0.99
    assert not found.same_decision[0].any()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_is_a_loop(small_plain, batch):
    x = torch.rand(4, 3, 12, 12, dtype=torch.float64, generator=generator())
    methods = [m.name for m in METHODS.rows if m.name not in ("simple_t", "smoothgrad")]
    options = {"settings": Settings(steps=2), "layers": ["stage2"]}
    whole = after(small_plain.double(), x, torch.arange(4), methods, **options)
    parts = after(small_plain, x, torch.arange(4), methods, batch=batch, **options)
    assert torch.allclose(whole.rank_correlation, parts.rank_correlation, atol=1e-3, equal_nan=True)
    assert torch.allclose(whole.nissim, parts.nissim, atol=1e-6, equal_nan=True)
    assert torch.equal(whole.same_decision, parts.same_decision) and torch.allclose(whole.spread, parts.spread)


def test_batch_norm_looks_at_the_first_images_alone(small_plain, monkeypatch):
    monkeypatch.setattr(invariance, "LOOK", 2)
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=generator())
    options = {"settings": Settings(), "layers": ["stage2"]}
    more = after(small_plain.double(), x, 0, ["gradient"], **options)
    few = after(small_plain, x[:2], 0, ["gradient"], **options)
    assert torch.allclose(more.nissim[..., :2], few.nissim, atol=1e-9)


def test_noise_is_the_same_for_every_network_and_the_generator_stays(model, x, y):
    noise = generator(9)
    noise.manual_seed(11)
    state = noise.get_state()
    found = after(model, x, y, ["smoothgrad"], AT._replace(generator=noise))
    assert torch.equal(noise.get_state(), state)
    (*_, last) = randomisation.randomised(model, x, "cascading", generator=generator(3))
    maps = [by_name.explain("smoothgrad", n, x, y, AT._replace(generator=generator(11))).values for n in (model, last.network)]
    ranks = [scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(*maps, strict=True)]
    assert found.rank_correlation[0, -1].tolist() == pytest.approx(ranks)


def test_maps_without_contrast_are_undefined_and_so_are_images_without(model, x, y):
    x[2] = 0.5
    found = after(model, x, y, ["gradient"])
    assert appearance.edges(x)[2].max() == 0
    assert found.rank_correlation[-1, :, 2].isnan().all() and found.nissim[-1, :, 2].isnan().all()
    assert found.nissim[-1, :, [0, 1, 3]].max() < 1e-9
    alone = after(model, x[:1], y[:1], ["gradient"])
    assert alone.spread.isnan().all() and alone.rank_correlation.isfinite().all()


def test_the_model_stays_as_it_is_also_when_an_explanation_breaks(model, x, y, monkeypatch):
    model.train()
    before = conftest.state_of(model)
    after(model, x, y, ["gradcam", "gradient", "lrp", "guided"])
    assert conftest.same_state(before, conftest.state_of(model))
    calls = iter(range(100))
    real = by_name.explain

    def breaks(*args, **kwargs):
        if next(calls) == 3:
            raise RuntimeError("forced")
        return real(*args, **kwargs)

    monkeypatch.setattr(by_name, "explain", breaks)
    with pytest.raises(RuntimeError, match="forced"):
        after(model, x, y, ["gradcam", "gradient"])
    assert conftest.same_state(before, conftest.state_of(model))


def test_what_cannot_be_compared_is_refused(model, x, y):
    for methods in ([], "gradient", ["gradient", "gradient"], ["edges"]):
        with pytest.raises(ValueError, match="give a list of different ones of gradcam"):
            after(model, x, y, methods)
    with pytest.raises(ValueError, match="gradients"):
        after(model, x, y, ["gradients"])
    with pytest.raises(ValueError, match="images of 1 x 1 have no edges"):
        after(model, x[:, :, :1, :1], y, ["gradient"])
    with pytest.raises(ValueError, match="6 images but 2 labels"):
        after(model, x, y[:2], ["gradient"])
    with pytest.raises(ValueError, match="batch is 0"):
        after(model, x, y, ["gradient"], batch=0)
    with pytest.raises(ValueError, match="does not fit maps of 4 x 4"):
        after(model, x[:, :, :4, :4], y, ["gradient"])
