"""Style transfer by adaptive instance normalisation (Huang and Belongie, ICCV 2017): encoder, decoder, distance of styles."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.data import checks
from lib.data.images import luma
from lib.networks import hooks, zoo
from lib.system import devices

EPSILON = 1e-5  # under the root of the variance, as in the released code


def statistics(features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]:
    """Mean and deviation of each channel over positions, (N, C) each; the deviation is sqrt(var + 1e-5)."""
    variance, mean = torch.var_mean(features, (2, 3), correction=0)
    return mean, (variance + EPSILON).sqrt()


def adain(content: Float[Tensor, "n c h w"], style: Float[Tensor, "#n c a b"]) -> Float[Tensor, "n c h w"]:
    """Features (N, C, h, w) of the content with mean and deviation of the style's (N or 1, C, any size), per channel.

    The result's channel means are the style's, its deviations too up to the 1e-5 in the content's (a constant channel has
    no deviation to scale, and takes the mean alone). Differentiable.
    """
    if content.dim() != 4 or style.dim() != 4 or content.shape[1] != style.shape[1]:
        raise ValueError(f"AdaIN mixes features (N, C, h, w) of equal C; got {tuple(content.shape)} and {tuple(style.shape)}")
    (m, d), (to_m, to_d) = statistics(content), statistics(style)
    m, d, to_m, to_d = (v[:, :, None, None] for v in (m, d, to_m, to_d))
    return to_d * (content - m) / d + to_m


class Encoder(nn.Module):
    """Levels that run one after the other; each puts out features of half the resolution of the one before."""

    mean: Tensor
    std: Tensor

    def __init__(self, levels: Sequence[nn.Module], widths: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.levels, self.widths = nn.ModuleList(levels), tuple(widths)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        x, found = (x - self.mean) / self.std, []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


def _convolution(c_in: int, c_out: int, k: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, k, stride, 1, padding_mode="reflect")


def decoder(widths: Sequence[int], extra: Sequence[int]) -> nn.Sequential:
    """The encoder backwards: from the deepest of `widths` to RGB, doubling by nearest neighbours between two levels.

    `extra[i]` convolutions keep the width after each doubling to level i; (1, 1, 3) mirrors VGG-19 to relu4_1.
    """
    layers: list[nn.Module] = []
    for i in reversed(range(len(widths) - 1)):
        layers += [_convolution(widths[i + 1], widths[i]), nn.ReLU(), nn.Upsample(scale_factor=2)]
        for _ in range(extra[i]):
            layers += [_convolution(widths[i], widths[i]), nn.ReLU()]
    return nn.Sequential(*layers, _convolution(widths[0], 3))


class StyleNet(nn.Module):
    """Encoder and decoder; images are (N, 3, H, W) in [0, 1], H and W multiples of `multiple`. The decoder alone has levels of
    the `finest` widths, where the encoder's first level has not the resolution of the images."""

    def __init__(self, encoder: Encoder, extra: Sequence[int], finest: Sequence[int] = ()) -> None:
        super().__init__()
        widths = (*finest, *encoder.widths)
        self.encoder, self.decoder = encoder, decoder(widths, extra)
        self.multiple = 2 ** (len(widths) - 1)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The image, encoded and decoded."""
        return self.decoder(self.encoder(x)[-1])


# deviation: two levels that are trained here; Huang and Belongie encode by VGG-19 to relu4_1, which is `vgg19` below.
def small(classes: int, channels: int, weights: str) -> StyleNet:
    """Two levels of 16 and 32 channels, at full and half resolution; starts at random."""

    def block(c_in: int, c_out: int, k: int, stride: int) -> list[nn.Module]:
        return [_convolution(c_in, c_out, k, stride), nn.BatchNorm2d(c_out), nn.ReLU()]

    levels = [nn.Sequential(*block(3, 16, 3, 1)), nn.Sequential(*block(16, 32, 4, 2), *block(32, 32, 3, 1))]
    return StyleNet(Encoder(levels, (16, 32), (0.5,) * 3, (0.25,) * 3), (1,))


MULTIPLE = {"small": 2, "lite0": 4, "vgg19": 8}  # of which image sizes must be
VGG_CUTS = (2, 7, 12, 21)  # after relu1_1, relu2_1, relu3_1, relu4_1 in torchvision's features


def vgg19(classes: int, channels: int, weights: Literal["none", "imagenet"]) -> StyleNet:
    """torchvision's VGG-19 to relu4_1, padded by reflection, and the decoder that mirrors it."""
    trunk = zoo.build("vgg19", classes=1000, channels=3, weights=weights).net.features
    levels = [trunk[a:b] for a, b in zip((0, *VGG_CUTS), VGG_CUTS, strict=False)]
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "reflect"
    return StyleNet(Encoder(levels, (64, 128, 256, 512), zoo.IMAGENET_MEAN, zoo.IMAGENET_STD), (1, 1, 3))


# deviation: EfficientNet-Lite0, whose weights are a package, stands for VGG-19.
def lite0(classes: int, channels: int, weights: Literal["none", "imagenet"]) -> StyleNet:
    """EfficientNet-Lite0 to a quarter of the resolution, and a decoder of our own.

    Its levels end where a stage's first block widens before it halves the resolution: 96 and 144 channels after ReLU6 at 1/2
    and 1/4, nine numbers a pixel where VGG-19 has eight (the 24 and 40 channels between blocks are too few to paint by). One
    level more (240 channels at 1/8) repaints more and keeps less of the shape.
    """
    net = zoo.build("efficientnet-lite0", classes=1000, channels=3, weights=weights).net
    first, *stages = net.blocks[:3]
    wide = [[stage[0].conv_pw, stage[0].bn1] for stage in stages]
    behind = [[one[0].conv_dw, one[0].bn2, one[0].conv_pwl, one[0].bn3, *one[1:]] for one in stages]
    begun = [[net.conv_stem, net.bn1, first], *behind[:-1]]
    levels = [nn.Sequential(*a, *b) for a, b in zip(begun, wide, strict=True)]
    entry = zoo.NETWORKS["efficientnet-lite0"]
    return StyleNet(Encoder(levels, (96, 144), entry.mean, entry.std), (1, 1), finest=(32,))


@torch.no_grad()
def stylize(
    model: StyleNet, x: Float[Tensor, "n c h w"], style: Float[Tensor, "#n d a b"], *, alpha: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """Paint each image of x in the style of the same row of `style` (or of its only row), clipped to [0, 1].

    `alpha` in [0, 1] goes from the image as the decoder restores it (0) to the full style (1). Grey images are painted in
    colour and returned grey. Raises ValueError for images outside [0, 1], an alpha outside it, sizes that the network
    cannot halve, a number of styles that does not fit.
    """
    x = checks.check_images(x)
    style = checks.check_images(style, "the styles")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in [0, 1]: 0 keeps the content's own style, 1 gives the other's")
    if len(style) not in (1, len(x)):
        raise ValueError(f"{len(x)} images and {len(style)} styles; give one style, or one an image")
    for what, given in (("images", x), ("styles", style)):
        if any(n % model.multiple for n in given.shape[-2:]):
            raise ValueError(
                f"{what} have {given.shape[-2]} x {given.shape[-1]} pixels; both must be multiples of {model.multiple}"
            )
    found = []
    with hooks.frozen(model):
        for own, lent in _parts(x, style):
            content = model.encoder(own.expand(-1, 3, -1, -1))[-1]
            target = adain(content, model.encoder(lent.expand(-1, 3, -1, -1))[-1])
            found.append(model.decoder(alpha * target + (1 - alpha) * content).clamp(0, 1))
    painted = torch.cat(found)
    return luma(painted) if x.shape[1] == 1 else painted


def _parts(x: Tensor, style: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and the styles of the same rows (or the only style), some at a time where they are large."""
    many = devices.images_at_once(max(x.shape[2:]), len(x), graph=False)
    return zip(x.split(many), itertools.repeat(style) if len(style) == 1 else style.split(many), strict=False)


@torch.no_grad()
def style_distance(model: StyleNet, x: Float[Tensor, "n c h w"], style: Float[Tensor, "#n d a b"]) -> Float[Tensor, " n"]:
    """How far the statistics of x are from the style's, (N,), for x grey from those of the grey style.

    The root mean square over all channels of all levels of differences in mean and in deviation, in units of the style's
    mean deviation at that level. These are statistics that the decoder was trained to match: compare with the distance to
    another style.
    """
    if x.shape[1] == 1 and style.shape[1] == 3:
        style = luma(style)
    with hooks.frozen(model):
        return torch.cat([_distance(model, *part) for part in _parts(x, style)])


def _distance(model: StyleNet, x: Tensor, style: Tensor) -> Tensor:
    mine, theirs = model.encoder(x.expand(-1, 3, -1, -1)), model.encoder(style.expand(-1, 3, -1, -1))
    parts = []
    for a, b in zip(mine, theirs, strict=True):
        (m, d), (to_m, to_d) = statistics(a), statistics(b)
        scale = to_d.mean(1, keepdim=True)
        parts += [(m - to_m) / scale, (d - to_d) / scale]
    return torch.cat(parts, 1).square().mean(1).sqrt()
