"""Networks of own code: found as scripts find their modules, read anew each time, refused in a sentence with a remedy."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.networks import own_code

NET = "from torch import nn\ndef build():\n    return nn.Conv2d(3, 4, 1)\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of the test's own as the current one; modules that were imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def write(folder, text, name="mine.py"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("text", ["mine.py:build", "mine:build", "./mine.py:build"])
def test_a_function_of_a_file_or_of_a_module(here, text):
    write(here, NET)
    assert own_code.build(text).out_channels == 4


@pytest.mark.parametrize("text", ["{}/net.py:build", "net:build"])
def test_modules_of_one_name_in_two_folders_are_two(here, monkeypatch, text):
    """`model` and `utils` are everybody's; and one that is edited is read again."""
    for folder, width in (("a", 5), ("b", 6)):
        write(here / folder, f"width = {width}\n", "model.py")
        write(
            here / folder, "from torch import nn\nfrom model import width\nbuild = lambda: nn.Conv2d(3, width, 1)\n", "net.py"
        )

    def channels(folder):
        if text.startswith("net"):
            monkeypatch.chdir(here / folder)
        return own_code.build(text.format(here / folder)).out_channels

    torch_before = sys.modules["torch"]
    assert [channels(f) for f in "aba"] == [5, 6, 5]
    for width in (7, 8):  # of the same size, within a second
        (here / "a" / "model.py").write_text(f"width = {width}\n")
        assert channels("a") == width
    assert sys.modules["torch"] is torch_before and not list(here.rglob("__pycache__"))


def test_folders_without_init_are_forgotten_too_and_pythons_own_modules_never(here, monkeypatch):
    write(here / "a", "from models.net1 import width\n" + NET.replace("4", "width"), "net.py")
    write(here / "a" / "models", "width = 5\n", "net1.py")
    write(here / "b", "from models import width\n" + NET.replace("4", "width"), "net.py")
    write(here / "b", "width = 6\n", "models.py")
    assert [own_code.build(f"{f}/net.py:build").out_channels for f in "ab"] == [5, 6]
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with own_code._importing_from(Path(os.__file__).parents[2]):  # somebody's home, with an interpreter in it
        import colorsys
    assert "colorsys" not in own_code._IMPORTED and sys.modules["colorsys"] is colorsys


def test_an_earlier_network_keeps_what_it_imports_late(here):
    """Where another folder has no module of that name."""
    late = "class Net(nn.Module):\n    def forward(self, x):\n        import helpers\n        return helpers.twice(x)\n"
    write(here / "a", "from torch import nn\nimport helpers\n" + late + "build = Net\n", "net.py")
    write(here / "a", "def twice(x):\n    return 2 * x\n", "helpers.py")
    write(here / "b", NET, "net.py")
    net = own_code.build("a/net.py:build")
    own_code.build("b/net.py:build")
    assert net(torch.ones(1)).item() == 2


def test_a_folder_called_lib_is_this_projects(here):
    write(here / "lib", "width = 5\n", "models.py")
    write(here, "from lib.models import width\n")
    with pytest.raises(ValueError, match=r"imports 'lib\.models', and `lib` is this project's own folder here; rename yours"):
        own_code.build("mine.py:build")


def test_a_file_is_read_anew_and_its_folder_is_searched(here):
    write(here / "sub", "width = 5\n", "beside.py")
    write(here / "sub", "from torch import nn\ndef build():\n    import beside\n    return nn.Conv2d(3, beside.width, 1)\n")
    assert own_code.build("sub/mine.py:build").out_channels == 5
    write(here / "sub", NET.replace("4", "16"))
    assert own_code.build(str(here / "sub" / "mine.py") + ":build").out_channels == 16


def test_an_edit_within_a_second_is_seen_and_nothing_is_left_beside_the_file(here, monkeypatch):
    """Python keeps compilations, and tells an edit by the second of the last change and the size."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for outputs in (4, 5):
        write(here / "nets", NET.replace("4", str(outputs)))
        os.utime(here / "nets" / "mine.py", (10**9, 10**9))
        assert own_code.build(f"{here}/nets/mine.py:build").out_channels == outputs
    assert [p.name for p in (here / "nets").iterdir()] == ["mine.py"]


def test_a_class_or_a_network_that_stands_there_will_do(here):
    write(here, NET + "class Own(nn.Linear):\n    def __init__(self, n=3):\n        super().__init__(n, 2)\nready = Own()\n")
    assert own_code.build("mine.py:Own").in_features == 3
    assert own_code.build("mine.py:ready").out_features == 2


def test_dataclasses_of_a_file_find_their_module(here):
    write(
        here,
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass C:\n    n: int = 2\ndef build():\n    return nn.Linear(C().n, 1)\n",
    )
    assert isinstance(own_code.build("mine.py:build"), nn.Linear)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine.py", "names no code: write module:function"),
        (":build", "names no code"),
        ("mime.py:build", r"there is no file mime\.py; did you mean mine\.py\?"),
        ("none/mine.py:build", r"there is no file none/mine\.py; give its path from /.*"),
        ("nowhere:build", r"there is no module 'nowhere', neither in .* nor among what is installed; of a file elsewhere"),
        ("mine.py:built", r"mine\.py has no function 'built'; did you mean build\?"),
        ("mine.py:nothing", r"mine\.py:nothing returns None, no torch\.nn\.Module; return the network itself"),
        ("mine.py:weights", r"returns an OrderedDict, no .*those are weights alone: build the network"),
        ("mine.py:sized", r"mine\.py:sized takes arguments \(n\); write a function without"),
        ("mine.py:broken", r"mine\.py:broken fails \(KeyError: 'x', line 8\); mend that"),
        ("mine.py:five", r"mine\.py:five is an int; name a function"),
        ("lacks.py:build", r"lacks\.py cannot be imported, since it imports 'nosuch', which is not here; install it"),
        ("lacks:build", r"lacks cannot be imported, since it imports 'nosuch'"),
        ("wrong.py:build", r"wrong\.py cannot be imported \(SyntaxError: .*\); mend that, and try it alone: python wrong\.py"),
        ("leaves.py:build", r"leaves\.py cannot be imported \(SystemExit: 3, line 1\)"),
    ],
)
def test_what_is_no_network_is_refused(here, text, said):
    write(
        here,
        NET + "def nothing():\n    pass\ndef weights():\n    return build().state_dict()\n"
        "def broken(): return {}['x']\ndef sized(n): return nn.Linear(n, 2)\nfive = 5\n",
    )
    write(here, "import nosuch\n", "lacks.py")
    write(here, "def build(:\n", "wrong.py")
    write(here, "raise SystemExit(3)\n", "leaves.py")
    with pytest.raises(ValueError, match=said) as refused:
        own_code.build(text)
    assert "\n" not in str(refused.value)


def test_a_module_of_a_package_is_found(here):
    write(here / "pack", "", "__init__.py")
    write(here / "pack", NET, "nets.py")
    assert own_code.build("pack.nets:build").out_channels == 4
    with pytest.raises(ValueError, match=r"there is no module 'pack\.none'"):
        own_code.build("pack.none:build")
    assert isinstance(own_code.build("torch.nn:Identity"), torch.nn.Identity)
