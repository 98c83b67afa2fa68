"""AdaIN against its definition, the style networks, their training, styles from photographs and folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import checks, datasets, image_sets, styles
from lib.data import images as images_
from lib.networks import hooks, zoo
from lib.networks import style as style_
from lib.studies.at_cnn import painter as painter_
from lib.training import cache, objectives
from tests.conftest import same_state, state_of

LOSSES = [10.637, 3.185, 7.462, 6.140]


@pytest.fixture
def painter():
    torch.manual_seed(0)
    return style_.small(2, 3, "none").double().eval()


def test_adain_gives_the_style_its_mean_and_deviation():
    """By the definition, on random features; channels of the content have deviations far from 1e-5."""
    content, style = torch.randn(3, 5, 7, 9, dtype=torch.float64) * 4 + 2, torch.randn(3, 5, 4, 4, dtype=torch.float64) - 1
    found = style_.adain(content, style)
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3), correction=0), style.std((2, 3), correction=0), rtol=1e-4, atol=0)
    for n in range(3):
        for c in range(5):
            f, s = content[n, c], style[n, c]
            expected = (s.var(correction=0) + 1e-5).sqrt() * (f - f.mean()) / (f.var(correction=0) + 1e-5).sqrt() + s.mean()
            torch.testing.assert_close(found[n, c], expected)


def test_adain_of_itself_is_itself_and_a_constant_channel_takes_the_mean():
    content = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(style_.adain(content, content), content)
    flat, style = torch.full((1, 3, 5, 5), 2.0, dtype=torch.float64), content[:1]
    torch.testing.assert_close(style_.adain(flat, style), style.mean((2, 3), keepdim=True).expand(1, 3, 5, 5))
    torch.testing.assert_close(style_.adain(content, style), style_.adain(content, style.expand(2, -1, -1, -1)))
    with pytest.raises(ValueError, match="of equal C"):
        style_.adain(content, torch.randn(2, 4, 5, 5))


def test_adain_is_differentiable():
    content, style = (torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(style_.adain, (content, style))


def test_stylize_is_the_decoder_on_the_mix(painter):
    x, style = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 12, 12, dtype=torch.float64)
    content, target = painter.encoder(x)[-1], style_.adain(painter.encoder(x)[-1], painter.encoder(style)[-1])
    for alpha in (0.0, 0.3, 1.0):
        expected = painter.decoder(alpha * target + (1 - alpha) * content).clamp(0, 1)
        torch.testing.assert_close(style_.stylize(painter, x, style, alpha=alpha), expected)
    torch.testing.assert_close(style_.stylize(painter, x, style[:1])[1], style_.stylize(painter, x[1:], style[:1])[0])


def test_stylize_takes_grey_and_constant_images_and_leaves_the_network(painter):
    x, style = torch.rand(2, 1, 8, 8, dtype=torch.float64), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    painter.train()
    before = state_of(painter)
    grey = style_.stylize(painter, x, style)
    assert grey.shape == (2, 1, 8, 8)
    flat = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64)
    assert torch.isfinite(style_.stylize(painter, flat, flat)).all()
    assert same_state(before, state_of(painter))


@pytest.mark.parametrize(
    ("x", "style", "alpha", "message"),
    [
        (torch.rand(2, 3, 8, 8) * 3, torch.rand(2, 3, 8, 8), 1.0, "images range over"),
        (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8) - 1, 1.0, "the styles range over"),
        (torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8), 1.0, "2 images and 3 styles"),
        (torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8), 1.5, "alpha is 1.5"),
        (torch.rand(2, 3, 7, 8), torch.rand(1, 3, 8, 8), 1.0, "images have 7 x 8 pixels; both must be multiples of 2"),
        (torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 9), 1.0, "styles have 8 x 9 pixels"),
    ],
)
def test_bad_input_is_refused(painter, x, style, alpha, message):
    with pytest.raises(ValueError, match=message):
        style_.stylize(painter, x.double(), style.double(), alpha=alpha)


def test_vgg19_is_torchvisions_to_relu4_1():
    """The encoder's levels are the features of torchvision's network, padded by reflection; the decoder mirrors them."""
    torch.manual_seed(0)
    net = style_.vgg19(2, 3, "none").eval()
    assert net.encoder.widths == (64, 128, 256, 512) and net.multiple == 8
    x = torch.rand(1, 3, 32, 32)
    levels = net.encoder(x)
    assert [tuple(f.shape[1:]) for f in levels] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert all((f >= 0).all() for f in levels)  # each level ends in its ReLU
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.encoder.modules()) == 9
    pairs = [(m.in_channels, m.out_channels) for m in net.decoder if isinstance(m, torch.nn.Conv2d)]
    assert pairs == [(512, 256), (256, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64), (64, 3)]
    assert net(x).shape == x.shape and all(m.padding_mode == "reflect" for m in net.modules() if hasattr(m, "padding_mode"))
    style_.stylize(net, x, x)


def test_lite0_is_the_published_network_up_to_where_a_stage_widens():
    """Level by level the activations that hooks see in the network itself; the decoder goes back to full resolution."""
    net = style_.lite0(2, 3, "imagenet").eval()
    published = zoo.build("efficientnet-lite0", classes=1000, channels=3, weights="imagenet").eval()
    assert net.multiple == style_.MULTIPLE["lite0"] == 4
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), hooks.capture(published.net, ["blocks.1.0.bn1", "blocks.2.0.bn1"], cut=False) as seen:
        published(x)
        levels = net.encoder(x)
    assert [tuple(f.shape[1:]) for f in levels] == [(96, 16, 16), (144, 8, 8)] and net.encoder.widths == (96, 144)
    for mine, theirs in zip(levels, seen.values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    pairs = [(m.in_channels, m.out_channels) for m in net.decoder if isinstance(m, torch.nn.Conv2d)]
    assert pairs == [(144, 96), (96, 96), (96, 32), (32, 32), (32, 3)]
    assert net(x).shape == x.shape and style_.stylize(net, x, x).shape == x.shape
    with pytest.raises(ValueError, match="multiples of 4"):
        style_.stylize(net, x[..., :30], x)


def step(model, progress, **options):
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    moment = objectives.Moment(epoch=0, batch=0, batches=1, progress=progress, generator=torch.Generator().manual_seed(2))
    return painter_.loss(model, x, torch.zeros(4).long(), moment, **options)


def test_the_loss_restores_first_and_paints_then():
    torch.manual_seed(0)
    net = style_.small(2, 3, "none").train()
    found = step(net, 0.2)
    assert found.shape == (4,)
    found.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=True)
    running = net.encoder.levels[0][1].running_mean.clone()
    step(net, 0.7).sum().backward()
    assert all(p.grad is None for p in net.encoder.parameters())  # the encoder stays
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.decoder.parameters())
    assert torch.equal(running, net.encoder.levels[0][1].running_mean)


def test_a_published_encoder_stays_as_it_is_from_the_first_step():
    config = painter_.config("shapes", 32, 3, 64, encoder="lite0", source="embedded", epochs=4)
    assert (config.arch, config.weights, config.options["restore"]) == ("networks.style:lite0", "imagenet", 0.0)
    net = style_.lite0(2, 3, "imagenet").train()
    before = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    step(
        net, 0.0, **{k: v for k, v in config.options.items() if k not in ("source", "fingerprint", "version")}
    ).sum().backward()
    assert all(p.grad is None for p in net.encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.encoder.state_dict().items())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.decoder.parameters())


def test_the_painting_loss_by_hand():
    torch.manual_seed(0)
    net = style_.small(2, 3, "none").eval()
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pool = styles.load("embedded", "train", 16)
    s = pool[torch.randint(0, len(pool), (4,), generator=torch.Generator().manual_seed(2))]
    target = style_.adain(net.encoder(x)[-1], net.encoder(s)[-1])
    out = net.decoder(target)
    expected = []
    for i in range(4):
        value = ((net.encoder(out[i : i + 1])[-1] - target[i]) ** 2).mean()
        for a, b in zip(net.encoder(out[i : i + 1]), net.encoder(s[i : i + 1]), strict=True):
            value = value + 3 * ((a.mean((2, 3)) - b.mean((2, 3))) ** 2).mean()
            deviation = [(f.var((2, 3), correction=0) + 1e-5).sqrt() for f in (a, b)]
            value = value + 3 * ((deviation[0] - deviation[1]) ** 2).mean()
        value = value + 5 * ((net(x[i : i + 1]) - x[i]) ** 2).mean()
        expected.append(value)
    torch.testing.assert_close(step(net, 0.9, style_weight=3.0, identity_weight=5.0), torch.stack(expected))


def test_style_distance_is_about_statistics_and_not_about_places(painter):
    x, style = torch.rand(3, 3, 16, 16, dtype=torch.float64), torch.rand(3, 3, 16, 16, dtype=torch.float64) ** 3
    assert style_.style_distance(painter, style, style).max() == 0
    assert (style_.style_distance(painter, x, style) > 0.1).all()
    assert (style_.style_distance(painter, style.flip(3).flip(2), style) < style_.style_distance(painter, x, style)).all()
    grey = images_.luma(style)  # grey images are compared with the grey style
    assert style_.style_distance(painter, grey, style).max() < 1e-9
    by_hand = []
    for a, b in zip(painter.encoder(x[:1]), painter.encoder(style[:1]), strict=True):
        deviation = [(f.var((2, 3), correction=0) + 1e-5).sqrt() for f in (a, b)]
        scale = deviation[1].mean()
        by_hand += [(a.mean((2, 3)) - b.mean((2, 3))) / scale, (deviation[0] - deviation[1]) / scale]
    torch.testing.assert_close(style_.style_distance(painter, x, style)[0], torch.cat(by_hand, 1).square().mean().sqrt())


def test_version_guard(home):
    """The losses of a short run. If this fails, a change altered trained weights: raise VERSION and set these again."""
    config = painter_.config("shapes", 32, 3, 64, encoder="small", source="embedded", epochs=4)
    assert config.options["version"] == painter_.VERSION
    assert [h["loss"] for h in cache.trained(config).history] == pytest.approx(LOSSES, rel=2e-2)


def test_a_short_training_learns_to_paint(home):
    """Restores images better than their mean colour does, and brings them nearer to their style; the same bits twice."""
    config = painter_.config("shapes", 32, 3, 320, encoder="small", source="embedded", epochs=7)
    net = cache.trained(config).model
    x = datasets.load("shapes", "test", limit=40).images
    style = styles.load("embedded", "test", 32)[:40]
    with torch.no_grad():
        restored = ((net(x) - x) ** 2).mean()
    assert restored < 0.5 * ((x - x.mean((2, 3), keepdim=True)) ** 2).mean()
    before, after = (style_.style_distance(net, images, style).mean() for images in (x, style_.stylize(net, x, style)))
    assert after < 0.6 * before
    again = cache.trained(config).model
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    assert config.options["fingerprint"] == f"embedded {styles.VERSION}"


def test_embedded_styles_are_textured_crops_and_parts_are_disjoint():
    train, test = (styles.load("embedded", split, 16) for split in ("train", "test"))
    assert train.shape == (styles.COUNT["train"], 3, 16, 16) and len(test) == styles.COUNT["test"]
    assert train.amin() >= 0 and train.amax() <= 1 and train.dtype == torch.float32
    assert torch.equal(styles._embedded.__wrapped__("test", 16), test)  # fixed
    assert test.flatten(1).std(1).median() > 0.1
    # no test crop is a training crop: its nearest neighbour there is far away
    nearest = torch.cdist(test[:60].flatten(1), train.flatten(1)).amin(1) / test[0].numel() ** 0.5
    assert nearest.median() > 0.03
    checks.check_images(test)


def paintings(root, n, nested=True):
    for i in range(n):
        path = root / ("a" if nested and i % 2 else ".") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40 + i, 50, 3), 10 * i, np.uint8)).save(path)


def test_a_folder_of_paintings(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    paintings(tmp_path / "art", 10)
    train, test = (styles.load("folder:art", split, 8) for split in ("train", "test"))
    levels = [sorted((part[:, 0, 0, 0] * 25.5).round().int().tolist()) for part in (train, test)]  # file i is grey i / 25.5
    assert sorted(levels[0] + levels[1]) == list(range(10)) and len(levels[1]) == 2
    assert test[torch.tensor([1, 0, 1])].shape == (3, 3, 8, 8)
    monkeypatch.setattr(image_sets, "EAGER_BYTES", 100)  # too large to keep: decoded when asked for, the same pixels
    lazy = styles._folder.__wrapped__(styles._files("folder:art"), "test", 8)
    assert isinstance(lazy, image_sets.ImageFiles) and torch.equal(lazy[:], test)
    before = styles.fingerprint("folder:art")
    paintings(tmp_path / "more", 10)
    assert styles.fingerprint("folder:more") != before


def test_files_that_are_no_styles_are_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    paintings(tmp_path / "art", 6)
    (tmp_path / "art" / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (200, 8)).save(tmp_path / "art" / "strip.png")
    assert len(styles.load("folder:art", "train", 8)) + len(styles.load("folder:art", "test", 8)) == 6
    assert "2 of 8 files are no images or under 32 pixels" in capsys.readouterr().err


def test_missing_and_empty_style_folders_say_what_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing", ""):
        with pytest.raises(FileNotFoundError, match=f"found 0 images below .*{name}.* at least 5 are needed"):
            styles.load(f"folder:{name}", "train", 8)
    with pytest.raises(ValueError, match="unknown styles 'van-gogh'; choose embedded or folder:NAME"):
        styles.check("van-gogh")
    with pytest.raises(FileNotFoundError, match="found 0 images"):  # before any training
        painter_.config("shapes", 32, 3, 64, encoder="small", source="folder:empty", epochs=1)
