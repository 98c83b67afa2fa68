"""Networks as the papers describe them: Small and WResnet (Boopathy et al. 2020), ResNets of Mangla et al. 2020."""

import itertools
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.networks.classifier import Classifier
from lib.networks.small import STAGES, ConvBNReLU, Residual


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

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
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

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
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
    # deviation: a quarter of the channels, for CPUs; Mangla et al. train the two below.
    "resnet10-thin": _cifar_resnet((1, 1, 1, 1), 16),
    "resnet10-cifar": _cifar_resnet((1, 1, 1, 1), 64),
    "resnet34-cifar": _cifar_resnet((3, 4, 6, 3), 64),
}
