"""Small networks of several families under one contract, and `create`, which builds any network by name.

The contract: a `Classifier` takes images in [0, 1], normalises inside, returns logits, and knows its convolutional
stages by dotted name. The families `plain`, `residual` and `inception` have about the same number of parameters (within
10 %, for 10 classes) and the same three stages at full, half and quarter resolution, so that what differs between them is
how the convolutions are joined. Every one ends in global average pooling and one linear layer, so CAM is defined.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ("stage1", "stage2", "stage3")


class Classifier(nn.Module):
    """`net((x - mean) / std)`; `stages` are the dotted names, within `net`, of the convolutional stages in order."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        stages: tuple[str, ...],
        classes: int,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
    ) -> None:
        super().__init__()
        self.net, self.stages, self.classes = net, stages, classes
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)


class ConvBNReLU(nn.Sequential):
    def __init__(self, c_in: int, c_out: int, k: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016), projected where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(c_in, c_out, stride=stride)
        self.conv2 = nn.Sequential(nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = (
            nn.Identity()
            if c_in == c_out and stride == 1
            else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015): 1x1; 3x3; two 3x3 for 5x5; pooling with a projection."""

    def __init__(self, c_in: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.one = ConvBNReLU(c_in, one, 1)
        self.three = nn.Sequential(ConvBNReLU(c_in, three[0], 1), ConvBNReLU(*three))
        self.five = nn.Sequential(ConvBNReLU(c_in, five[0], 1), ConvBNReLU(*five), ConvBNReLU(five[1], five[1]))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBNReLU(c_in, pool, 1))
        self.channels = one + three[1] + five[1] + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def _three_stages(stage1: nn.Module, stage2: nn.Module, stage3: nn.Module, width: int, classes: int) -> Classifier:
    net = nn.Sequential()
    for name, module in (
        ("stage1", stage1),
        ("stage2", stage2),
        ("stage3", stage3),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(width, classes)),
    ):
        net.add_module(name, module)
    return Classifier(net, stages=STAGES, classes=classes)


def plain(channels: int, classes: int) -> Classifier:
    """Six convolutions in a row, in the manner of VGG: halving by max-pooling, no shortcut."""
    return _three_stages(
        ConvBNReLU(channels, 16),
        nn.Sequential(nn.MaxPool2d(2), ConvBNReLU(16, 32), ConvBNReLU(32, 32)),
        nn.Sequential(nn.MaxPool2d(2), ConvBNReLU(32, 64), ConvBNReLU(64, 64), ConvBNReLU(64, 64)),
        64,
        classes,
    )


def residual(channels: int, classes: int) -> Classifier:
    """Nine convolutions with shortcuts: a stem and four residual blocks."""
    return _three_stages(
        ConvBNReLU(channels, 12),
        nn.Sequential(Residual(12, 24, 2), Residual(24, 24, 1)),
        nn.Sequential(Residual(24, 50, 2), Residual(50, 50, 1)),
        50,
        classes,
    )


def inception(channels: int, classes: int) -> Classifier:
    """Wide: a stem and three modules of four parallel branches."""
    a = Inception(16, 12, (12, 32), (12, 16), 12)
    b = Inception(a.channels, 24, (24, 48), (16, 24), 24)
    c = Inception(b.channels, 40, (40, 72), (20, 36), 32)
    return _three_stages(
        ConvBNReLU(channels, 16),
        nn.Sequential(nn.MaxPool2d(2), a),
        nn.Sequential(nn.MaxPool2d(2), b, c),
        c.channels,
        classes,
    )


class SmallNet(nn.Module):
    """`Small` of Boopathy et al. 2020: 16@4x4/2, 32@4x4/2, 100@7x7, ReLU on the *input* of each convolution but the first.

    The last convolution is therefore not rectified. Global average pooling, then a linear layer without bias. Padding is
    TensorFlow's SAME (for even sizes: 1, 1 and 3). Weights start from N(0, 1/(k*k*c_in)), biases from 0.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 4, 2, 1)
        self.conv2 = nn.Conv2d(16, 32, 4, 2, 1)
        self.conv3 = nn.Conv2d(32, 100, 7, 1, 3)
        self.head = nn.Linear(100, classes, bias=False)
        for layer in (self.conv1, self.conv2, self.conv3, self.head):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=fan_in**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.conv1(x)))
        x = self.conv3(F.relu(x))
        return self.head(x.mean((2, 3)))


def small(channels: int, classes: int) -> Classifier:
    """`Small` of Boopathy et al. 2020, which takes [0, 1] as it is."""
    return Classifier(SmallNet(channels, classes), stages=("conv1", "conv2", "conv3"), classes=classes, mean=(0.0,), std=(1.0,))


class SameConv(nn.Conv2d):
    """A 3x3 convolution with TensorFlow's SAME padding: at stride 2 on even sizes nothing before and one pixel after."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 3, stride, padding=1 if stride == 1 else 0)
        nn.init.normal_(self.weight, std=(9 * c_in) ** -0.5)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride == (1, 1) else F.pad(x, (0, 1, 0, 1)))


class PreActivation(nn.Module):
    """out = conv(relu(conv(relu(a)))) + shortcut(a), which averages 2 x 2 pixels and pads channels where shapes change."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SameConv(c_in, c_out, stride), SameConv(c_out, c_out)
        self.stride, self.padding = stride, (c_out - c_in) // 2

    def forward(self, a: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(F.relu(a))))
        if self.stride > 1:
            a = F.avg_pool2d(a, self.stride)
        return out + F.pad(a, (0, 0, 0, 0, self.padding, self.padding))


class WResNet(nn.Module):
    """`WResnet` of Boopathy et al. 2020: a 32-layer residual network of width 16, 32, 64 without normalisation.

    The last sum is not rectified; average pooling and a linear layer without bias follow. Weights as in `SmallNet`.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = SameConv(channels, 16)
        widths = (16, 16, 32, 64)
        for i, (c_in, c_out) in enumerate(itertools.pairwise(widths), 1):
            blocks = [PreActivation(c_in, c_out, 1 if i == 1 else 2), *(PreActivation(c_out, c_out, 1) for _ in range(4))]
            self.add_module(f"stage{i}", nn.Sequential(*blocks))
        self.head = nn.Linear(64, classes, bias=False)
        nn.init.normal_(self.head.weight, std=64**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(x.mean((2, 3)))


def wresnet(channels: int, classes: int) -> Classifier:
    """`WResnet` of Boopathy et al. 2020, for images of even size, which takes [0, 1] as it is."""
    return Classifier(WResNet(channels, classes), stages=STAGES, classes=classes, mean=(0.0,), std=(1.0,))


def _cifar_resnet(blocks: tuple[int, int, int, int], width: int) -> Callable[[int, int], Classifier]:
    """ResNet as it is built for 32-pixel images: a 3x3 stem without pooling, four stages that double the channels."""

    def build(channels: int, classes: int) -> Classifier:
        net = nn.Sequential()
        net.add_module("stem", ConvBNReLU(channels, width))
        c_in = width
        for i, count in enumerate(blocks):
            c_out = width * 2**i
            stage = [Residual(c_in if j == 0 else c_out, c_out, 2 if i and j == 0 else 1) for j in range(count)]
            net.add_module(f"stage{i + 1}", nn.Sequential(*stage))
            c_in = c_out
        for name, module in (("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("head", nn.Linear(c_in, classes))):
            net.add_module(name, module)
        return Classifier(net, stages=("stage1", "stage2", "stage3", "stage4"), classes=classes, mean=(0.0,), std=(1.0,))

    return build


# ResNets of Mangla et al. 2020, which take [0, 1] as it is; `thin` has a quarter of the channels.
CIFAR_RESNETS: dict[str, Callable[[int, int], Classifier]] = {
    "resnet10-thin": _cifar_resnet((1, 1, 1, 1), 16),
    "resnet10-cifar": _cifar_resnet((1, 1, 1, 1), 64),
    "resnet34-cifar": _cifar_resnet((3, 4, 6, 3), 64),
}

SMALL_NETWORKS: dict[str, Callable[[int, int], Classifier]] = {
    "plain": plain,
    "residual": residual,
    "inception": inception,
    "small": small,
    "wresnet": wresnet,
}


def names() -> tuple[str, ...]:
    """Every name that `create` knows."""
    from lib import zoo

    return (*SMALL_NETWORKS, *CIFAR_RESNETS, *zoo.NETWORKS)


def create(
    arch: str, *, classes: int, channels: int = 3, seed: int = 0, weights: Literal["none", "imagenet"] = "none"
) -> Classifier:
    """Build a network by name, with random weights drawn from `seed`; the global random state is left alone.

    `weights="imagenet"` loads torchvision's (or timm's) published weights, for the networks of the zoo; where `classes` is
    not 1000 the head is new. Raises ValueError for an unknown name, RuntimeError where weights cannot be had.
    """
    from lib import zoo

    if arch not in names():
        raise ValueError(f"unknown network {arch!r}; choose one of {', '.join(names())}")
    if classes < 2 or channels < 1:
        raise ValueError(f"a network needs 2 classes and 1 channel at least, got {classes} and {channels}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch in zoo.NETWORKS:
            return zoo.build(arch, classes=classes, channels=channels, weights=weights)
        if weights != "none":
            raise ValueError(f"{arch!r} has no published weights; use weights='none' and train it")
        return (SMALL_NETWORKS | CIFAR_RESNETS)[arch](channels, classes)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
