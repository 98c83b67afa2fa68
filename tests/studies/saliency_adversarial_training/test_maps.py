"""Maps as directions, by hand and against twins, captum and closed forms: thresholds, weak maps, teachers', controls."""

import math

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.data import datasets
from lib.explanations import by_name, gradients, guided
from lib.explanations.by_name import Method, Settings
from lib.explanations.explanation import Explanation
from lib.networks import contract, models
from lib.studies.saliency_adversarial_training import maps as maps_
from lib.studies.saliency_adversarial_training.objective import perturbation
from lib.system.names import Table
from tests.conftest import same_state, state_of, toy

D = torch.float64
KINDS = ("gradient", "guided", "smoothgrad", "ig")
HAND = torch.tensor([[-2.0, 0, 1, 5], [6, 1, 0, 2]], dtype=D).view(2, 2, 1, 2)  # a threshold for both channels together


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def attribution(model, x, y, kind, *, of="score", n=10, spread=0.15, ig_steps=100, layer="", generator=None):
    settings = Settings(layer, n=n, spread=spread, steps=ig_steps, of=of, generator=generator)
    return by_name.raw(kind, model, x, y, settings).values


def plain(classes=4):
    return models.create("plain", classes=classes).double().eval()


def images_of(n=6, size=8, **given):
    x = torch.rand(n, 3, size, size, dtype=D, generator=generator(1))
    return datasets.ImageSet("toy", "train", x, torch.arange(n) % 4, tuple("abcd"), **given)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("sign", [[-1, 0, 1, 1], [1, 1, 0, 1]]),
        ("median", [[-1, -1, 1, 1], [1, -1, -1, 1]]),
        ("mean", [[-1, -1, -1, 1], [1, -1, -1, -1]]),
        ("minmax", [[0, 2 / 7, 3 / 7, 1], [1, 1 / 6, 0, 1 / 3]]),
        ("none", [[-2, 0, 1, 5], [6, 1, 0, 2]]),
    ],
)
def test_binarisation_by_hand(how, expected):
    found = maps_.binarise(HAND, how)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=D).view_as(HAND))
    maps = torch.randn(5, 3, 6, 4, generator=generator(), dtype=D)
    each = torch.cat([maps_.binarise(row[None], how) for row in maps])
    assert torch.equal(maps_.binarise(maps, how), each)


@pytest.mark.parametrize("how", ["sign", "median", "mean", "minmax", "none"])
def test_maps_that_say_nothing_are_refused_by_name(how):
    maps = torch.randn(9, 1, 3, 3, generator=generator())
    maps[[1, 3, 4, 5, 6, 7, 8]] = 0
    with pytest.raises(ValueError, match=r"^7 of 9 maps are zero everywhere .* \(images 1, 3, 4, 5, 6, …\)"):
        maps_.binarise(maps, how)
    maps[1:] = 0.7
    if how in ("sign", "none"):
        assert (maps_.binarise(maps, how)[1:] == (1 if how == "sign" else 0.7)).all()
    else:
        told = "have one value everywhere" if how == "minmax" else f"are not parted by their {how}"
        with pytest.raises(ValueError, match=rf"^8 of 9 maps {told}"):
            maps_.binarise(maps, how)
    for wrong in (math.nan, math.inf, -math.inf):
        maps[8, 0, 1, 1] = wrong
        with pytest.raises(ValueError, match="not finite"):
            maps_.binarise(maps, how)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\); a map an image"):
        maps_.binarise(HAND[:, :, 0].expand(2, 2, 2), how)
    with pytest.raises(ValueError, match="unknown binarisation 'otsu'"):
        maps_.binarise(HAND, "otsu")


def drawn(*rows):
    """+1 for #, -1 for anything else, for three channels."""
    return torch.tensor([[1.0 if c == "#" else -1.0 for c in row] for row in rows]).expand(3, -1, -1)


def test_masks_and_boxes_by_hand():
    x = torch.zeros(2, 3, 3, 4)
    masks = torch.tensor([[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]).bool()
    boxes = torch.tensor([[0, 1, 2, 4], [2, 0, 3, 1]])  # top, left, bottom, right; the last two are outside
    data = datasets.ImageSet("toy", "train", x, torch.zeros(2).long(), ("a",), masks, boxes)
    expected = torch.stack([drawn("#   ", "##  ", "   #"), drawn("    ", "  # ", "    ")])
    assert torch.equal(maps_.weak(data, "masks"), expected)
    expected = torch.stack([drawn(" ###", " ###", "    "), drawn("    ", "    ", "#   ")])
    assert torch.equal(maps_.weak(data, "boxes"), expected)
    assert torch.equal(maps_.maps(data, None, kind="boxes", inverted=True), -expected)


def test_without_boxes_the_middle_is_taken():
    wide = datasets.ImageSet("toy", "train", torch.zeros(2, 3, 6, 12), torch.zeros(2).long(), ("a",))
    row = "  " + 8 * "#" + "  "
    assert torch.equal(maps_.weak(wide, "boxes"), drawn(12 * " ", *4 * [row], 12 * " ").expand(2, 3, 6, 12))


def test_weak_maps_need_objects_of_the_images_size():
    masks = torch.ones(6, 8, 8, dtype=torch.bool)
    masks[[2, 5]] = False
    boxes = torch.tensor([[0, 0, 8, 8]] * 5 + [[4, 4, 4, 8]])
    for kind, given, message in (
        ("masks", {}, "toy has no masks"),
        ("masks", {"masks": masks}, r"2 of 6 maps \(masks\) mark nothing \(images 2, 5\)"),
        ("boxes", {"boxes": boxes}, r"1 of 6 maps \(boxes\) mark nothing \(images 5\)"),
        ("masks", {"masks": torch.ones(6, 8, 9, dtype=torch.bool)}, r"\(6, 8, 9\) for 6 images of 8 x 8"),
        ("scribbles", {}, "unknown weak map 'scribbles'"),
    ):
        with pytest.raises(ValueError, match=message):
            maps_.weak(images_of(**given), kind)


def slope(model, z, label, of):
    z = z.detach()[None].requires_grad_()
    logits = model(z)[0]
    return torch.autograd.grad(logits[label] if of == "score" else -logits.log_softmax(0)[label], z)[0][0]


@pytest.mark.parametrize("of", ["score", "loss"])
def test_attributions_are_their_definitions_row_by_row(model, x, y, of):
    def found(kind, **options):
        return attribution(model, x, y, kind, of=of, **options)

    rows = list(zip(x, y, strict=True))
    torch.testing.assert_close(found("gradient"), torch.stack([slope(model, row, c, of) for row, c in rows]))
    path = [sum(slope(model, (k + 0.5) / 4 * row, c, of) for k in range(4)) / 4 for row, c in rows]
    torch.testing.assert_close(found("ig", ig_steps=4), x * torch.stack(path))
    sigma = 0.3 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    g = generator(3)
    noisy = [x + sigma * torch.randn(x.shape, generator=g).to(x) for _ in range(3)]
    expected = sum(torch.stack([slope(model, row, c, of) for row, c in zip(z, y, strict=True)]) for z in noisy) / 3
    torch.testing.assert_close(found("smoothgrad", n=3, spread=0.3, generator=generator(3)), expected)


def test_guided_backpropagation_is_captum_s():
    data, net = images_of(2, 16), plain()
    found, loss = (attribution(net, data.images, data.labels, "guided", of=of) for of in ("score", "loss"))
    assert torch.equal(loss, guided.guided_backpropagation(net, data.images, data.labels, of="loss").values)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        expected = captum.attr.GuidedBackprop(net).attribute(data.images.clone().requires_grad_(), target=data.labels)
    torch.testing.assert_close(found, expected)


def test_guided_grad_cam_is_the_map_where_guided_is_positive_and_minus_one_where_negative():
    """On a network whose last stage is not rectified, so that raw maps have both signs."""
    data, net = images_of(3, 16), models.create("small", classes=4).double()
    x, y = data.images, data.labels
    found = attribution(net, x, y, "guided-gradcam++")
    kept = {}
    handle = net.net.conv3.register_forward_hook(lambda _m, _a, out: kept.update(a=out.clone()) or kept["a"])
    for n, c in enumerate(y):
        score = net(x[n : n + 1])[0, c]
        (g,) = torch.autograd.grad(score, kept["a"])
        a = kept["a"].detach()
        alpha = g**2 / (2 * g**2 + g**3 * a.sum((2, 3), keepdim=True) + 1e-6)
        cam = ((alpha * g.relu()).sum((2, 3), keepdim=True) * a).sum(1)[0]
        cam = F.interpolate(((cam - cam.min()) / (cam.max() - cam.min()))[None, None], (16, 16), mode="bilinear")[0]
        sign = attribution(net, x[n : n + 1], y[n : n + 1], "guided")[0].sign()
        expected = torch.where(sign > 0, cam, torch.where(sign < 0, -1.0, (cam - 1) / 2))
        torch.testing.assert_close(found[n], expected)
        assert (sign > 0).any() and (sign < 0).any() and a.min() < 0
    handle.remove()
    assert torch.equal(maps_.directions(net, x, y, kind="guided-gradcam++"), found)  # as it is
    signs, told = (
        gradients.gradient(net, x, y).values.sign(),
        maps_.directions(net, x, y, kind="guided-gradcam++", released=True),
    )
    assert torch.equal(told == -1, signs < 0) and not torch.equal(told, found)  # released: gated by the plain gradient


def test_directions_are_signs_of_the_true_class_s_map(model, x, y):
    short = maps_.directions(model, x, y, kind="ig", how="none", ig_steps=3)
    assert torch.equal(short, attribution(model, x, y, "ig", ig_steps=3))
    for kind in KINDS:
        raw = attribution(model, x, y, kind, n=10, spread=0.15, ig_steps=100, generator=generator())
        assert torch.equal(raw, by_name.raw(kind, model, x, y, maps_.settings()).values)
        found = maps_.directions(model, x, y, kind=kind, generator=generator())
        assert torch.equal(found, raw.sign()) and set(found.unique().tolist()) <= {-1, 0, 1}
        median = maps_.directions(model, x, y, kind=kind, how="median", generator=generator())
        assert torch.equal(median, maps_.binarise(raw, "median")) and not torch.equal(median, found)


def test_released_maps_are_made_as_the_code_did(model, x, y):
    def released(kind, **options):
        return maps_.directions(model, x, y, kind=kind, released=True, generator=generator(), **options)

    gradient = attribution(model, x, y, "gradient").sign()
    assert torch.equal(released("guided"), gradient) and torch.equal(released("gradient"), gradient)
    assert not torch.equal(maps_.directions(model, x, y, kind="guided"), gradient)
    raw = {
        "smoothgrad": attribution(model, x, y, "smoothgrad", generator=generator()),
        "ig": attribution(model, x, y, "ig", of="loss"),
    }
    for kind, values in raw.items():
        found = released(kind)
        assert torch.equal(found, maps_.binarise(values, "minmax"))
        assert (found.amin((1, 2, 3)) == 0).all() and (found.amax((1, 2, 3)) == 1).all()
    assert torch.equal(released("ig", how="sign"), raw["ig"].sign())


def test_the_predicted_class_differs_where_the_prediction_is_wrong(model, x, y):
    y, right = model(x).argmax(1), torch.arange(6) < 3
    y[3:] = (y[3:] + 1) % 4
    for kind in ("gradient", "ig"):
        true, predicted = (maps_.directions(model, x, y, kind=kind, of_class=c) for c in ("true", "predicted"))
        assert ((true == predicted).flatten(1).all(1) == right).all()
        torch.testing.assert_close(predicted, attribution(model, x, contract.predicted, kind).sign())


@pytest.mark.parametrize("kind", [*KINDS, "guided-gradcam++"])
def test_a_batch_is_its_rows(kind):
    """But for SmoothGrad's noise, which is drawn for the batch."""
    data, net = images_of(4, 16), plain()
    whole = attribution(net, data.images, data.labels, kind, n=2, ig_steps=3)
    rows = zip(data.images.split(1), data.labels.split(1), strict=True)
    each = [attribution(net, x, y, kind, n=2, ig_steps=3) for x, y in rows]
    assert torch.allclose(whole, torch.cat(each)) == (kind != "smoothgrad")


def test_what_is_no_map_is_refused(model, x, y):
    for options, message in (
        ({"kind": "masks"}, "unknown attribution 'masks'"),
        ({"kind": "lime"}, "unknown attribution 'lime'"),
        ({"kind": "gradient", "of_class": "least likely"}, "unknown class 'least likely'"),
        ({"kind": "gradient", "how": "otsu"}, "unknown binarisation"),
    ):
        with pytest.raises(ValueError, match=message):
            maps_.directions(model, x, y, **options)
    with pytest.raises(ValueError, match="gradient maps come from a teacher, and none was given"):
        maps_.maps(images_of(), None, kind="gradient")


@pytest.mark.parametrize("kind", ["gradient", "guided", "ig"])
def test_maps_of_a_data_set_do_not_depend_on_its_batches(model, kind, monkeypatch):
    data = images_of(7)
    options = {"kind": kind, "how": "mean", "of_class": "predicted", "ig_steps": 3}
    expected = maps_.directions(model, data.images, data.labels, **options)
    for batch in (128, 3, 1):
        monkeypatch.setattr(maps_, "BATCH", batch)
        assert torch.equal(maps_.maps(data, model, **options), expected)
    assert torch.equal(maps_.maps(data, model, inverted=True, **options), -expected)


def test_maps_draw_their_noise_once_and_alike(model, monkeypatch):
    """Released SmoothGrad of two batches: one stream of noise, the same for every call; n decides."""
    data, g = images_of(6), generator()
    monkeypatch.setattr(maps_, "BATCH", 4)
    options = {"kind": "smoothgrad", "released": True, "n": 2}
    parts = [maps_.directions(model, data.images[i], data.labels[i], generator=g, **options) for i in (range(4), [4, 5])]
    found = maps_.maps(data, model, **options)
    assert torch.equal(found, torch.cat(parts)) and torch.equal(found, maps_.maps(data, model, **options))
    assert not torch.equal(found, maps_.maps(data, model, **options | {"n": 3}))


def test_another_image_s_map_is_never_the_own_one(model):
    for n in (2, 3, 10, 101):
        order = maps_.derangement(n)
        assert order.sort().values.tolist() == list(range(n)) and (order != torch.arange(n)).all()
        assert torch.equal(order, maps_.derangement(n))
    assert (maps_.derangement(101) - torch.arange(101)).unique().numel() > 20  # no mere shift
    for n in (0, 1):
        with pytest.raises(ValueError, match="two images at least"):
            maps_.derangement(n)
    data = images_of()
    own, other = (maps_.maps(data, model, kind="gradient", another=a) for a in (False, True))
    assert torch.equal(other, own[maps_.derangement(6)]) and not (own == other).flatten(1).all(1).any()
    assert torch.equal(maps_.maps(data, model, kind="gradient", another=True, inverted=True), -other)


@pytest.mark.parametrize("kind", [*KINDS, "guided-gradcam++"])
def test_the_teacher_and_the_world_s_randomness_are_left_alone(kind):
    net, data = plain().train(), images_of(3, 16)
    net.net.stage2.eval()
    net.net.head.weight.requires_grad_(False)
    before, pixels = state_of(net), data.images.clone()
    found = maps_.maps(data, net, kind=kind, n=2, ig_steps=2)
    assert same_state(before, state_of(net)) and torch.equal(pixels, data.images) and not found.requires_grad
    assert torch.equal(found, maps_.maps(data, net.eval(), kind=kind, n=2, ig_steps=2))  # asked in evaluation mode


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T


@pytest.mark.parametrize("seed", range(3))
def test_of_two_opposed_classes_minus_the_gradient_is_the_shortest_way_out(seed):
    """And minus its sign under L-infinity: no other of many directions reaches the boundary sooner."""
    w = torch.randn(12, generator=generator(seed), dtype=D)
    model, x = Linear(torch.stack([-w, w])), torch.rand(1, 3, 2, 2, generator=generator(seed), dtype=D)
    label = model(x).argmax(1)
    s = attribution(model, x, label, "gradient")
    gap = model(x).abs()[0, 0].item()
    others = torch.randn(4000, 12, generator=generator(9), dtype=D)
    directions = {2: -s / s.norm(), math.inf: perturbation(s.sign(), 0.0, generator())}
    for norm, best in directions.items():
        reach = gap / (w.norm().item() if norm == 2 else w.abs().sum().item())
        assert model(x + reach * best)[0].tolist() == pytest.approx([0, 0], abs=1e-12)
        assert model(x + 0.999 * reach * best).argmax(1) == label
        away = others / torch.linalg.vector_norm(others, norm, dim=1, keepdim=True) * 0.999 * reach
        assert (model(x + away.view(-1, 3, 2, 2)).argmax(1) == label).all()


def test_where_classes_compete_minus_the_gradient_is_not():
    """The way to class j goes along s_j - s_i; here s_j is much the longer, so that -s is far from it."""
    weight = torch.tensor([[1.0, 0, 0, 0], [0, 4, 0, 0], [-9, 0, 0, 0]], dtype=D)
    model, x = Linear(weight), torch.tensor([0.9, 0.55, 0.5, 0.5], dtype=D).view(1, 1, 2, 2)
    label = model(x).argmax(1)
    s = attribution(model, x, label, "gradient")
    along = -s / s.norm()
    best = (weight[1] - weight[0]).view(1, 1, 2, 2) / (weight[1] - weight[0]).norm()
    reach = 1.0001 * (model(x)[0, 0] - model(x)[0, 1]) / (weight[1] - weight[0]).norm()
    assert label == 0 and model(x + reach * best).argmax(1) == 1 and model(x + 4 * reach * along).argmax(1) == 0


@pytest.mark.parametrize("seed", range(3))
def test_integrated_gradients_of_the_loss_point_the_other_way(seed):
    """In a linear model of two classes exactly: the loss falls along the logit. So minus s of the loss is no attack."""
    w = torch.randn(12, generator=generator(seed), dtype=D)
    model, x = Linear(torch.stack([-w, w])), torch.rand(5, 3, 2, 2, generator=generator(seed), dtype=D)
    y = torch.tensor([0, 1, 0, 1, 1])
    score, loss = (attribution(model, x, y, "ig", of=of, ig_steps=5) for of in ("score", "loss"))
    torch.testing.assert_close(score, x * (w.view(3, 2, 2) * (2 * y - 1).view(-1, 1, 1, 1)))
    assert torch.equal(loss.sign(), -score.sign()) and (score != 0).all()


def test_a_map_that_its_median_does_not_part_is_refused():
    """Half of the values are the largest: none lies above the median."""
    with pytest.raises(ValueError, match="1 of 1 maps are not parted by their median"):
        maps_.binarise(torch.tensor([1.0, 1, 1, 0]).view(1, 1, 2, 2), "median")


def test_images_are_named_by_their_place_in_the_data_set(monkeypatch):
    """Not by their place in a batch."""
    monkeypatch.setattr(maps_, "BATCH", 4)
    row = Method("gradient", "gradient", lambda model, x, targets: Explanation(x, x), "pixels")
    monkeypatch.setattr(maps_, "ATTRIBUTIONS", Table("attribution", [row]))
    data = images_of(6)
    data.images[5] = 0
    with pytest.raises(ValueError, match=r"1 of 6 maps are zero everywhere .* \(images 5\)"):
        maps_.maps(data, toy(), kind="gradient")


def test_guided_gradcam_is_of_the_logit_alone(model, x, y):
    with pytest.raises(ValueError, match="of the logit alone"):
        attribution(model, x, y, "guided-gradcam++", of="loss", layer="act2")
