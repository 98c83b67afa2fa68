"""Three small families of one size, which differ in how their convolutions are joined: plain, residual, inception."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from lib.networks.classifier import Classifier

STAGES = ("stage1", "stage2", "stage3")


class ConvBNReLU(nn.Sequential):
    def __init__(self, c_in: int, c_out: int, k: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def max_pool2d(x: Float[Tensor, "n c h w"], kernel_size: int, stride: int, padding: int = 0) -> Float[Tensor, "n c a b"]:
    """`torch.nn.functional.max_pool2d` to the last bit, its derivatives of any order included, in a quarter of its CPU time.

    Torch searches channels-last images several at a time, others one by one. The places of the maxima are searched in that
    layout; what is differentiated is the choice of values at these places. Modes that watch functions see one `max_pool2d`.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(max_pool2d, (x,), x, kernel_size, stride, padding)
    if x.device.type != "cpu" or not x.is_contiguous():
        return F.max_pool2d(x, kernel_size, stride, padding)
    with torch.no_grad():
        last = x.contiguous(memory_format=torch.channels_last)
        _, places = F.max_pool2d(last, kernel_size, stride, padding, return_indices=True)
        places = places.contiguous()
    return x.flatten(2).gather(2, places.flatten(2)).view_as(places)


class MaxPool2d(nn.MaxPool2d):
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c a b"]:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)


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

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015): 1x1; 3x3; two 3x3 for 5x5; pooling with a projection."""

    def __init__(self, c_in: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.one = ConvBNReLU(c_in, one, 1)
        self.three = nn.Sequential(ConvBNReLU(c_in, three[0], 1), ConvBNReLU(*three))
        self.five = nn.Sequential(ConvBNReLU(c_in, five[0], 1), ConvBNReLU(*five), ConvBNReLU(five[1], five[1]))
        self.pool = nn.Sequential(MaxPool2d(3, 1, 1), ConvBNReLU(c_in, pool, 1))
        self.channels = one + three[1] + five[1] + pool

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
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
        nn.Sequential(MaxPool2d(2), ConvBNReLU(16, 32), ConvBNReLU(32, 32)),
        nn.Sequential(MaxPool2d(2), ConvBNReLU(32, 64), ConvBNReLU(64, 64), ConvBNReLU(64, 64)),
        64,
        classes,
    )


def connected(channels: int, classes: int) -> Classifier:
    """The convolutions of `plain` under a head like VGG's: pooled to 2 x 2, then two linear layers; CAM has no place."""
    net = plain(channels, classes).net
    net.pool = nn.AdaptiveAvgPool2d(2)
    net.head = nn.Sequential(nn.Linear(4 * 64, 64), nn.ReLU(), nn.Linear(64, classes))
    return Classifier(net, stages=STAGES, classes=classes)


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
        ConvBNReLU(channels, 16), nn.Sequential(MaxPool2d(2), a), nn.Sequential(MaxPool2d(2), b, c), c.channels, classes
    )
