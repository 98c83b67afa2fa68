r"""Networks with random weights in some of their layers: model parameter randomisation (Adebayo et al. 2018, arXiv:1810.03292).

`cascading`: the layer of the logits first, then the one below it too, down to the pixels; `independent`: one layer at a time,
the others as they were trained. An explanation that stays what it was did not depend on what the network has learnt there.

**Layers.** Every module that holds parameters, in the order in which modules run; a normalisation belongs to the layer that
ran before it, whose output it scales. Parameters of a module that is never called as one (the projection within an attention)
belong to the innermost module around it that is; parameters that the logits do not depend on belong to no layer.

**Weights.** Each tensor's values are put in random order. That keeps its mean, its norm and every other moment, and works for
whatever holds parameters. A module's own `reset_parameters` would not: many have none, PyTorch's draws a third of the variance
that a ReLU layer needs to pass on its input's scale, and that of a normalisation draws nothing.

**BatchNorm.** Scale and shift are put in random order like weights. Its running mean and variance are statistics of the layer
below rather than parameters: with those of the trained layer, a random one would be shifted far off, and many channels dead or
linear. So those of randomised layers are taken anew, from images, as training would have left them. Those of layers that are
not randomised stay, also above one that is: they are what has been trained there.

What a randomised network still has in common with the trained one is more than chance: under a random top the activations
below keep their scales, so that channels which were large still are, and explanations can differ only so much (Binder et al.
2023, arXiv:2211.12486, who also show that maps of noise pass this test best). Similarity after randomisation is a check, and no
score by which methods could be ranked.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lib.data import checks
from lib.networks import contract, hooks
from lib.networks.layers import find_layer

Scheme = Literal["cascading", "independent"]
NORMALISATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, _InstanceNorm, nn.RMSNorm)


class Layer(NamedTuple):
    """What is randomised at once: its name within `model.net` or `model`, its parameters and its BatchNorms by full names."""

    name: str
    parameters: tuple[str, ...]
    batch_norms: tuple[str, ...]


class Randomised(NamedTuple):
    """A step: the layer that has been randomised in it, all that are random now, and the network, which is a copy."""

    layer: str
    random: tuple[str, ...]
    network: nn.Module


def layers_of(model: nn.Module, x: Float[Tensor, "n c h w"], names: Sequence[str] | None = None) -> tuple[Layer, ...]:
    """The layers that can be randomised, from the pixels to the logits; see the module's docstring.

    Parameters of the model's own stand under the name of its type. `names`: only these modules, each with all that is in it (a
    network's stages and its head, say: fewer steps), in the order in which they run. One forward and backward pass of the
    first image, on a copy of the model.

    Raises ValueError for a model without parameters, a name that is unknown or whose parameters the logits do not depend on,
    names within each other, and a model that cannot be copied or looked into.
    """
    hooks.check_open(model)
    x = checks.check_images(x)
    with hooks.outside_inference():
        twin = _copied(model)
        ran = _order(twin, x[:1])
        found = _units(twin, ran)
    if names is not None:
        return _chosen(model, twin, found, names, ran)
    return tuple(found)


def _copied(model: nn.Module) -> nn.Module:
    contract.check_outside_inference(model.parameters())
    if compiled := [n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]:
        raise ValueError(
            f"layer {compiled[0]!r} is a torch.jit model, which cannot be looked into or given other weights here; give the "
            "model that it was made from"
        )
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({error}); randomisation changes copies alone: give a model that "
            "copy.deepcopy takes (weights under torch.nn.utils.parametrizations, no tensors with a graph as attributes)"
        ) from error


def _order(twin: nn.Module, x: Tensor) -> dict[str, int]:
    """When each module of one's own model last began to run; parameters have a gradient where the logits depend on them."""
    ran: dict[str, int] = {}
    clock = itertools.count()

    def notes(name: str) -> Callable[..., None]:
        return lambda *_: ran.__setitem__(name, next(clock))

    for name, module in twin.named_modules():
        module.register_forward_pre_hook(notes(name))  # it goes with the twin
    for p in twin.parameters():
        p.requires_grad_(p.is_floating_point() or p.is_complex())
    twin.eval()
    try:
        with torch.enable_grad(), hooks.as_written():
            contract.logits_of(twin, x.detach()).sum().backward()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise ValueError(
            f"no parameter of {type(twin).__name__} has a part in its logits, so nothing can be randomised; give a network "
            "whose layers hold weights"
        ) from error
    return ran


def _units(twin: nn.Module, ran: dict[str, int]) -> list[Layer]:
    modules = dict(twin.named_modules())
    held: dict[str, list[str]] = {}
    for full, p in twin.named_parameters():
        if p.grad is not None:
            place = full.rpartition(".")[0]
            while place not in ran:  # the model itself ran
                place = place.rpartition(".")[0]
            held.setdefault(place, []).append(full)
    found: list[Layer] = []
    # deviation: layer by layer; the cascade of Adebayo et al. takes the blocks of an Inception network, as `names` can.
    for place in sorted((n for n in ran if n in held or isinstance(modules[n], _BatchNorm)), key=ran.__getitem__):
        norm = (place,) if isinstance(modules[place], _BatchNorm) else ()
        if isinstance(modules[place], NORMALISATIONS) and found:
            last = found[-1]
            found[-1] = Layer(last.name, (*last.parameters, *held.get(place, ())), (*last.batch_norms, *norm))
        elif place in held:
            found.append(Layer(_told(place, twin), tuple(held[place]), norm))
    return found


def _told(place: str, model: nn.Module) -> str:
    return place.removeprefix("net.") or type(model).__name__


def _chosen(
    model: nn.Module, twin: nn.Module, found: list[Layer], names: Sequence[str], ran: dict[str, int]
) -> tuple[Layer, ...]:
    """The named modules as layers, in the order in which they run."""
    if isinstance(names, str) or not names:
        raise ValueError(f"layers are {names!r}; give a list of names of modules, or None for every layer")
    full = {id(m): n for n, m in model.named_modules()}
    live = [p for layer in found for p in layer.parameters]
    norms = [n for n, m in twin.named_modules() if isinstance(m, _BatchNorm)]
    made: list[tuple[int, Layer]] = []
    for name in names:
        place = full[id(find_layer(model, name))]
        inside = f"{place}."
        own = tuple(p for p in live if p.startswith(inside) or not place)
        if not own:
            raise ValueError(f"layer {name!r} has no parameters that the logits depend on; leave it out")
        if twice := [layer.name for _, layer in made if set(layer.parameters) & set(own)]:
            raise ValueError(f"layers {twice[0]!r} and {name!r} share parameters; name one of the two")
        began = min(t for n, t in ran.items() if n == place or n.startswith(inside) or not place)
        made.append((began, Layer(name, own, tuple(n for n in norms if n == place or n.startswith(inside) or not place))))
    return tuple(layer for _, layer in sorted(made, key=lambda m: m[0]))


def randomised(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    scheme: Scheme,
    *,
    generator: torch.Generator | None = None,
    layers: Sequence[str] | None = None,
) -> Iterator[Randomised]:
    """Step by step a copy of the model with random weights, from the logits downwards; see the module's docstring.

    `x` are images, of which BatchNorm takes its statistics (32 are enough) and the first tells in which order layers run; a
    model without BatchNorm does not look at their values. `layers` as in `layers_of`. A layer's random weights are the same
    in either scheme, and follow from the generator alone (none: one seeded with 0). The model is never changed, and copies
    share nothing with it. Memory: a copy at a time, in a cascade the random weights beside it, and while a tensor is drawn
    eight bytes a value of it. A step costs a copy, and one forward pass of `x` where it has BatchNorm.

    Raises ValueError (at the first step) as `layers_of` does, for an unknown scheme, for a layer of which all tensors are
    constant (no order of their values is another one), and for images that give BatchNorm one value a channel.
    """
    if scheme not in ("cascading", "independent"):
        raise ValueError(f"unknown scheme {scheme!r}; choose cascading or independent")
    generator = generator or torch.Generator().manual_seed(0)
    found = layers_of(model, x, layers)[::-1]
    # a seed a layer, drawn at once: so its weights do not depend on what else is randomised
    seeds = torch.randint(2**62, (len(found),), generator=generator, device=generator.device).tolist()
    kept: dict[str, Tensor] = {}
    random: tuple[Layer, ...] = ()
    for layer, seed in zip(found, seeds, strict=True):
        drawn = _drawn(model, layer, torch.Generator().manual_seed(seed))
        kept, random = (kept | drawn, (*random, layer)) if scheme == "cascading" else (drawn, (layer,))
        with hooks.outside_inference():
            network = _copied(model)
            own = dict(network.named_parameters())
            with torch.no_grad():
                for name, values in kept.items():
                    own[name].copy_(values)
            _take_statistics(network, x, [n for r in random for n in r.batch_norms])
        yield Randomised(layer.name, tuple(r.name for r in random), network)
        del network, own


def _drawn(model: nn.Module, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
    """A layer's tensors with their values in random order."""
    own = dict(model.named_parameters())
    drawn = {name: permuted(own[name].detach(), generator) for name in layer.parameters}
    if all(torch.equal(values, own[name]) for name, values in drawn.items()):
        raise ValueError(
            f"all tensors of layer {layer.name!r} are constant, so no order of their values is another one; has the network "
            "been trained? Leave the layer out (layers=...)"
        )
    return drawn


def permuted(values: Float[Tensor, "*s"], generator: torch.Generator) -> Float[Tensor, "*s"]:
    """The values of a tensor in random order, uniform over the orders that differ from theirs (where all are equal: as is)."""
    flat = values.reshape(-1)
    while True:
        found = flat[torch.randperm(len(flat), generator=generator).to(flat.device)]
        if not torch.equal(found, flat) or torch.equal(flat, flat[:1].expand_as(flat)):
            return found.view(values.shape)


def _take_statistics(network: nn.Module, x: Tensor, names: Sequence[str]) -> None:
    """Give BatchNorms of one's own network the mean and variance of what reaches them, in one pass: each before it runs."""
    modules = dict(network.named_modules())
    norms = {n: m for n in names if isinstance(m := modules[n], _BatchNorm) and m.running_mean is not None}
    if not norms:
        return

    def takes(name: str, norm: _BatchNorm) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            given = args[0].transpose(0, 1).flatten(1)
            if given.shape[1] < 2:
                raise ValueError(
                    f"BatchNorm {_told(name, network)!r} sees one value a channel, which has no variance; give more images"
                )
            # unbiased, as training keeps it
            norm.running_mean.copy_(given.mean(1))
            norm.running_var.copy_(given.var(1))

        return hook

    handles = [m.register_forward_pre_hook(takes(n, m)) for n, m in norms.items()]
    try:
        with hooks.frozen(network), torch.no_grad(), hooks.as_written():
            network(x.detach())
    finally:
        for handle in handles:
            handle.remove()
