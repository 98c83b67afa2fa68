"""The published networks as arrays and as pickles: what is read, what is refused, where it is looked for."""

import builtins
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from lib.networks import models, released
from lib.networks.released import CIFAR_SMALL, CIFAR_WRESNET, MNIST_SMALL

OLD, NEW = b"numpy.core.multiarray", b"numpy._core.multiarray"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    (tmp_path / "released_nets").mkdir()
    return tmp_path


@pytest.fixture
def network():
    net = models.create("small", classes=10, channels=1, seed=7).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():  # biases start from zero, and would hide each other
            if name.endswith("bias"):
                p.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(len(p)))
    return net


@pytest.fixture
def x():
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def arrays(net):
    """The arrays of one .npz."""
    found = {name: p.detach().numpy() for name, p in net.net.named_parameters() if not name.startswith("head")}
    return found | {"linear.weight": net.net.head.weight.detach().numpy()}


def layers(net):
    """The authors' list: [W (height, width, in, out), b] a convolution, and [W (1, 1, in, classes)]."""
    state = arrays(net)
    convolutions = [
        [np.ascontiguousarray(state[f"conv{i}.weight"].transpose(2, 3, 1, 0)), state[f"conv{i}.bias"]] for i in (1, 2, 3)
    ]
    return [*convolutions, [np.ascontiguousarray(state["linear.weight"].T[None, None])]]


def written(root, content, name="net.pkl"):
    path = root / name
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 2))
    return path


def npz(root, content, name="net.npz"):
    path = root / name
    np.savez(path, **content)
    return path


# what is read -----------------------------------------------------------------------------------------------------------


def test_plain_arrays_are_the_network_that_wrote_them(root, network, x):
    found = released.load_network(npz(root, arrays(network)), MNIST_SMALL)
    assert torch.equal(found(x), network(x)) and found(x).std() > 0.01
    assert not any(m.training for m in found.modules()) and found.classes == 10
    assert all(p.dtype == torch.float32 and p.requires_grad for p in found.parameters())


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_the_authors_pickles_are_the_network_that_wrote_them(root, network, x, protocol):
    found = released.load_network(written(root, pickle.dumps(layers(network), protocol)), MNIST_SMALL)
    assert torch.equal(found(x), network(x)) and not found.training


@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_older_numpys_called_their_module_otherwise(root, network, x, protocol):
    content = pickle.dumps(layers(network), protocol)
    for spelling in (OLD, NEW):  # up to protocol 3 names end in a new line, so one can stand for the other
        spelled = content.replace(NEW, spelling)
        assert spelling in spelled and (OLD in spelled) != (NEW in spelled)
        assert torch.equal(released.load_network(written(root, spelled), MNIST_SMALL)(x), network(x))


def test_older_numpys_in_protocol_4(root, network, x):
    """Names carry their length, and frames theirs: a pickler without frames, and lengths set right."""

    class Unframed(pickle._Pickler):
        def dump(self, obj):
            self.write(pickle.PROTO + b"\x04")
            self.save(obj)
            self.write(pickle.STOP)

    stream = io.BytesIO()
    Unframed(stream, 4).dump(layers(network))
    content = stream.getvalue()
    old = content.replace(b"\x8c" + bytes([len(NEW)]) + NEW, b"\x8c" + bytes([len(OLD)]) + OLD)
    assert old != content and NEW not in old
    assert torch.equal(released.load_network(written(root, old), MNIST_SMALL)(x), network(x))


@pytest.mark.parametrize("change", [lambda a: a.astype(np.float64), lambda a: a.astype(">f4"), np.asfortranarray])
def test_other_layouts_of_the_same_numbers(root, network, x, change):
    spelled = [[change(a) for a in layer] for layer in layers(network)]
    assert torch.equal(released.load_network(written(root, spelled), MNIST_SMALL)(x), network(x))
    spelled = {name: change(a) for name, a in arrays(network).items()}
    assert torch.equal(released.load_network(npz(root, spelled), MNIST_SMALL)(x), network(x))


def test_tuples_and_repeated_arrays_are_read_too(root, network):
    one = np.arange(3.0)
    assert all(np.array_equal(a, one) for layer in released.unpickle(pickle.dumps([(one, one), [one]], 2)) for a in layer)


# what is refused --------------------------------------------------------------------------------------------------------


class Asks:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def calls(sentinel):
    note = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "system": Asks(os.system, f"touch '{sentinel}'"),
        "eval": Asks(builtins.eval, note),
        "exec": Asks(builtins.exec, note),
        "open": Asks(builtins.open, str(sentinel), "w"),
        "getattr": Asks(builtins.getattr, np.zeros(1), "tofile"),
        "save": Asks(np.savetxt, str(sentinel), np.zeros(1)),
        "load": Asks(np.load, str(sentinel)),
        "memmap": Asks(np.memmap, str(sentinel), "float32", "w+", 0, (4,)),
        "fromfile": Asks(np.fromfile, str(sentinel)),
    }


@pytest.mark.parametrize("name", calls(""))
def test_nothing_but_arrays_is_called(root, network, name):
    sentinel = root / "ran"
    evil = calls(sentinel)[name]
    holder = np.empty(1, object)
    holder[0] = evil
    rest = layers(network)[1:]
    for content in (evil, [evil, *rest], [[evil, np.zeros(16)], *rest], [[holder, np.zeros(16)], *rest]):
        for protocol in (0, 2, 4):
            path = written(root, pickle.dumps(content, protocol))
            with pytest.raises(ValueError, match=rf"^{path} is not a published.*it asks for .*only numpy arrays are admitted"):
                released.load_network(path, MNIST_SMALL)
            assert not sentinel.exists()


def test_the_calls_above_would_leave_a_trace(tmp_path):
    """What the test before this one relies on."""
    for name in ("system", "eval", "exec", "save", "memmap"):
        sentinel = tmp_path / name
        pickle.loads(pickle.dumps(calls(sentinel)[name]))
        assert sentinel.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "asks for numpy.ndarray.tofile"),  # a path of attributes
        (b"\x80\x04\x8c\x05numpy\x8c\x0bcore.memmap\x93.", "asks for numpy.core.memmap"),
        (b"cnumpy.core.multiarray\nfrombuffer\n.", "asks for numpy.core.multiarray.frombuffer"),
        (b"ccopyreg\n_reconstructor\n.", "asks for copyreg._reconstructor"),
        (b"c__main__\n__builtins__\n.", "asks for __main__.__builtins__"),
        (b"c_codecs\nopen\n.", "asks for _codecs.open"),
        (b"c_codecs\nlookup\n.", "asks for _codecs.lookup"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "asks for the codec 'rot13'"),
        (b"P0\n.", "persistent"),
        (b"\x82\x01.", "unregistered extension code"),
        (b"", "Ran out of input"),
        (b".", "not one of the published networks"),
        (b"not a pickle", "not one of the published networks"),
        (b"\x80\x09.", "unsupported pickle protocol"),
    ],
)
def test_pickles_by_hand_are_refused(root, content, message):
    path = written(root, content)
    with pytest.raises(ValueError, match=rf"^{path} .*{message}"):
        released.load_network(path, MNIST_SMALL)


@pytest.mark.parametrize(
    ("found", "held"),
    [
        ({"a": 1}, "dict"),
        (1.5, "float"),
        (None, "NoneType"),
        (["conv1"], "str"),
        ([[1.0, 2.0]], "float"),
        ([[np.array([1, 2])]], "int64"),
        ([[np.array([1.0, None], object)]], "object"),
        ([[np.array(["a"])]], "<U1"),
        ([{"W": np.zeros(3)}], "dict"),
        ([np.zeros(3)], "arrays outside of layers"),
    ],
)
def test_other_contents_are_refused(root, found, held):
    path = written(root, found)
    with pytest.raises(ValueError, match=rf"^{path} .*it holds {held}, expected lists of floating-point arrays"):
        released.load_network(path, MNIST_SMALL)
    with pytest.raises(ValueError, match=f"it holds {held}"):
        released.unpickle(path.read_bytes())


@pytest.mark.parametrize("part", [1, 50, 1000, -2])
def test_half_a_file_is_refused(root, network, part):
    path = written(root, pickle.dumps(layers(network), 2)[:part])
    with pytest.raises(ValueError, match=rf"^{path} is not a published network of the architecture Small"):
        released.load_network(path, MNIST_SMALL)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda l: l[:3], "it has 3 layers; Small has 3 convolutions and a linear layer"),
        (lambda l: [*l, l[-1]], "it has 5 layers"),
        (lambda l: [], "it has 0 layers"),
        (lambda l: [l[0], l[2], l[1], l[3]], "size mismatch for conv2.weight"),
        (lambda l: [[l[0][0].transpose(3, 2, 0, 1), l[0][1]], *l[1:]], "size mismatch for conv1.weight"),
        (lambda l: [[l[0][0][..., 0], l[0][1]], *l[1:]], "axes don't match array"),
        (lambda l: [[l[0][0]], *l[1:]], "not enough values to unpack"),
        (lambda l: [[l[0][0], l[0][1][:-1]], *l[1:]], "size mismatch for conv1.bias"),
        (lambda l: [*l[:3], []], "its last layer is no 1 x 1 map"),
        (lambda l: [*l[:3], [np.zeros(10)]], "its last layer is no 1 x 1 map"),
        (lambda l: [*l[:3], [np.tile(l[3][0], (2, 2, 1, 1))]], "its last layer is no 1 x 1 map"),
        (lambda l: [*l[:3], [l[3][0], np.zeros(10)]], "its last layer is no 1 x 1 map"),
        (lambda l: [*l[:3], [l[3][0] * np.nan]], "its weights are not all finite"),
        (lambda l: [*l[:3], [l[3][0][..., :9]]], "size mismatch for head.weight"),
        (lambda l: [*l[:3], [l[3][0].transpose(0, 1, 3, 2)]], "size mismatch for head.weight"),
    ],
)
def test_pickles_of_other_shapes_are_refused(root, network, spoil, message):
    path = written(root, spoil(layers(network)))
    with pytest.raises(ValueError, match=rf"(?s)^{path} is not a published network.*{message}"):
        released.load_network(path, MNIST_SMALL)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "linear.weight"}, "Missing key.*head.weight"),
        (lambda a: {k: v for k, v in a.items() if k != "conv2.bias"}, "Missing key.*conv2.bias"),
        (lambda a: a | {"linear.bias": np.zeros(10)}, "Unexpected key.*linear.bias"),
        (lambda a: a | {"conv1.weight": np.zeros((16, 3, 4, 4))}, "size mismatch for conv1.weight"),
        (lambda a: a | {"linear.weight": a["linear.weight"].T}, "size mismatch for head.weight"),
        (lambda a: a | {"conv1.bias": np.array(["a"] * 16)}, "could not convert"),
        (lambda a: a | {"conv1.bias": np.array([None] * 16)}, "Object arrays cannot be loaded"),
    ],
)
def test_arrays_of_other_names_and_shapes_are_refused(root, network, spoil, message):
    path = npz(root, spoil(arrays(network)))
    with pytest.raises(ValueError, match=rf"(?s)^{path} is not a published network.*{message}"):
        released.load_network(path, MNIST_SMALL)


@pytest.mark.parametrize("name", ["net.npz", "net.pkl"])
def test_a_missing_file_is_named(root, name):
    with pytest.raises(ValueError, match=rf"{root / name} is not a published network.*No such file"):
        released.load_network(root / name, MNIST_SMALL)


def test_a_pickle_called_npz_does_not_run(root):
    sentinel = root / "ran"
    path = written(root, calls(sentinel)["system"], "net.npz")
    with pytest.raises(ValueError, match=rf"^{path} is not a published network"):
        released.load_network(path, MNIST_SMALL)
    assert not sentinel.exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # np.load leaves half a file open
@pytest.mark.parametrize("kind", ["half", "empty", "flipped", "npy", "number", "numbers"])
def test_other_damage_is_refused_by_name(root, network, kind):
    whole = npz(root, arrays(network), "whole.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[5000] ^= 255
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    name, content = {
        "half": ("half.npz", whole[:1000]),
        "empty": ("empty.npz", b""),
        "flipped": ("flipped.npz", bytes(flipped)),
        "npy": ("npy.npz", single.getvalue()),
        "number": ("number.pkl", np.array(1.0)),
        "numbers": ("numbers.pkl", [1.0, 2.0]),
    }[kind]
    path = written(root, content, name)
    with pytest.raises(ValueError, match=rf"^{path} is not a published network"):
        released.load_network(path, MNIST_SMALL)


def test_a_pickle_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(released._bytes, "__doc__", "before")  # put back after the test
    released.unpickle(b"c_codecs\nencode\n(N(dV__doc__\nVafter\nstb0].")
    assert released._bytes.__doc__ == "before"


# where it is looked for -------------------------------------------------------------------------------------------------


def test_nothing_there_says_where_and_what(root):
    assert released.available(MNIST_SMALL) == {}
    (root / "released_nets").rmdir()
    assert released.available(MNIST_SMALL) == {}
    message = released.missing(MNIST_SMALL)
    assert str(root / "released_nets") in message and "mnist_small_<name>.npz" in message
    assert "github.com/AkhilanB/Proper-Interpretability" in message


def test_the_folder_is_below_the_root(root, monkeypatch, home):
    assert released.folder() == root / "released_nets"
    monkeypatch.delenv("STUDY_DATA")
    assert released.folder() == home / "data" / "datasets" / "released_nets"


def test_names_are_the_authors(root):
    nets = root / "released_nets"
    theirs = ("normal", "adv", "trades", "ig", "igsum", "intone", "int", "intadv", "int2", "int2adv")
    ours = ("normal", "adv", "trades", "ig-norm", "ig-norm-sum", "int-one-class", "int", "int-adv", "int2", "int2-adv")
    for name in theirs:
        (nets / f"mnist_small_{name}.npz").touch()
    assert released.available(MNIST_SMALL) == {a: nets / f"mnist_small_{n}.npz" for a, n in zip(ours, theirs, strict=True)}


def test_arrays_come_before_pickles_and_pickles_from_either_folder(root):
    nets = root / "released_nets"
    (nets / "networks").mkdir()
    (nets / "networks" / "mnist_smallgap_adv_100.pkl").touch()
    (nets / "networks" / "mnist_smallgap_intone_100.pkl").touch()
    (nets / "mnist_smallgap_intone_100.pkl").touch()
    for other in (
        "mnist_smallgap_int_1.pkl",
        "cifar_smallgap_int_200.pkl",
        "mnist_pool_int_100.pkl",
        "mnist_smallgap_intig_100.pkl",
    ):
        (nets / "networks" / other).touch()
    found = released.available(MNIST_SMALL)
    assert found == {
        "adv": nets / "networks" / "mnist_smallgap_adv_100.pkl",
        "int-one-class": nets / "mnist_smallgap_intone_100.pkl",
    }
    (nets / "mnist_small_adv.npz").touch()
    assert released.available(MNIST_SMALL)["adv"] == nets / "mnist_small_adv.npz"


def test_what_is_available_loads(root, network, x):
    nets = root / "released_nets"
    (nets / "networks").mkdir()
    npz(nets, arrays(network), "mnist_small_int2adv.npz")
    written(nets / "networks", layers(network), "mnist_smallgap_igsum_100.pkl")
    found = released.available(MNIST_SMALL)
    assert set(found) == {"int2-adv", "ig-norm-sum"}
    for path in found.values():
        assert torch.equal(released.load_network(path, MNIST_SMALL)(x), network(x))


# CIFAR-10 ---------------------------------------------------------------------------------------------------------------


def of_cifar(family, seed=3):
    """A network of a family with biases, its arrays as a .npz has them, and as the authors' list of layers."""
    net = models.create(family.arch, classes=10, channels=3, seed=seed).eval()
    order = [f"stage{i}.{j}.conv{k}" for i in (1, 2, 3) for j in range(5) for k in (1, 2)]
    order = ["stem", *order] if family is CIFAR_WRESNET else ["conv1", "conv2", "conv3"]
    own = dict(net.net.named_parameters())
    with torch.no_grad():
        for i, name in enumerate(order):
            own[f"{name}.bias"].uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(i))
    spelled = {
        f"conv{i}.{kind}": own[f"{name}.{kind}"].detach().numpy()
        for i, name in enumerate(order, 1)
        for kind in ("weight", "bias")
    }
    spelled["linear.weight"] = own["head.weight"].detach().numpy()
    theirs = [[spelled[f"conv{i}.weight"].transpose(2, 3, 1, 0), spelled[f"conv{i}.bias"]] for i in range(1, len(order) + 1)]
    return net, spelled, [*theirs, [spelled["linear.weight"].T[None, None]]]


@pytest.mark.parametrize("family", [CIFAR_WRESNET, CIFAR_SMALL], ids=lambda f: f.arch)
def test_cifar_s_networks_in_both_layouts(root, family):
    """The stem, then both convolutions of each block in order: any other order gives other logits, or other shapes."""
    net, spelled, theirs = of_cifar(family)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = net(x)
    (root / "released_nets" / "networks").mkdir()
    plain = npz(root, spelled, f"released_nets/{family.prefix}_int2.npz")
    written(root, theirs, f"released_nets/networks/{family.theirs}_intadv_200.pkl")
    written(root, theirs, f"released_nets/networks/{family.theirs}_adv_100.pkl")  # of another number of epochs
    assert released.available(family) == {
        "int-adv": root / "released_nets" / "networks" / f"{family.theirs}_intadv_200.pkl",
        "int2": plain,
    }
    for arm in ("int2", "int-adv"):
        found = released.load(family, arm)
        assert torch.equal(found(x), expected) and not found.training and expected.std() > 0.01
    with pytest.raises(FileNotFoundError, match=f"no network 'adv' of {family.name} on cifar10 .*there are int-adv, int2"):
        released.load(family, "adv")


def test_a_network_of_another_family_is_refused(root):
    (_, wide, pickled), (_, small, few) = of_cifar(CIFAR_WRESNET), of_cifar(CIFAR_SMALL)
    for family, content in ((CIFAR_SMALL, wide), (CIFAR_WRESNET, small), (MNIST_SMALL, small)):
        path = npz(root, content)
        with pytest.raises(ValueError, match=rf"(?s)^{path} is not a published network of the architecture {family.name}: "):
            released.load_network(path, family)
    for family, content, told in (
        (CIFAR_SMALL, pickled, "32 layers; Small has 3"),
        (CIFAR_WRESNET, few, "4 layers; WResnet has 31"),
    ):
        path = written(root, content)
        with pytest.raises(ValueError, match=rf"^{path} is not a published network .*it has {told} convolutions"):
            released.load_network(path, family)


def test_families_of_a_data_set(root):
    assert released.families("mnist") == (MNIST_SMALL,) and released.families("digits") == ()
    assert released.families("folder:cifar10") == released.families("cifar10") == (CIFAR_WRESNET, CIFAR_SMALL)
    assert released.family("folder:cifar10", "small") is CIFAR_SMALL
    with pytest.raises(ValueError, match="published no network 'wresnet' for 'mnist'; there are small"):
        released.family("mnist", "wresnet")
    with pytest.raises(FileNotFoundError, match=r"no network 'int' of WResnet on cifar10 .*cifar_wresnet_<name>.npz"):
        released.load(CIFAR_WRESNET, "int")


# the images -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(root):
    """10,000 test images as torchvision lays them out, the first two pixels of each its number."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.zeros((10_000, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(10_000) // 256, np.arange(10_000) % 256
    images[:, -1, -1] = 255
    labels = (np.arange(10_000) * 7 % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):  # torchvision asks for both
        n = 10_000 if prefix == "t10k" else 1
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images[:n].tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels[:n].tobytes())


def test_evaluation_images_are_the_first_200_of_seed_99(mnist):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    x, y = released.evaluation_images()
    assert x.shape == (200, 1, 28, 28) and x.dtype == torch.float32 and y.shape == (200,) and y.dtype == torch.int64
    assert x.min() == 0 and (x[:, 0, -1, -1] == 1).all()
    numbers = (255 * x[:, 0, 0, :2].double()).round() @ torch.tensor([256.0, 1.0], dtype=torch.float64)
    expected = np.random.RandomState(99).permutation(10_000)[:200]
    assert numbers.tolist() == expected.tolist() and len(set(expected)) == 200
    assert y.tolist() == (expected * 7 % 10).tolist()
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_seed_s_first_images_by_hand(mnist):
    """numpy.random.seed(99), once: numpy promises that this stream stays as it is."""
    x, _ = released.evaluation_images()
    numbers = (255 * x[[0, 1, 2, 3, -1], 0, 0, :2].double()).round() @ torch.tensor([256.0, 1.0], dtype=torch.float64)
    assert numbers.tolist() == [7653.0, 7865.0, 3226.0, 5912.0, 5321.0]
