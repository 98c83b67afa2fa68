"""Groups of ImageNet's classes: what their members are called, images by group, and the logits of groups."""

import re

import pytest
import torch

from lib.data import datasets, imagenet, imagenet_groups
from lib.data.image_sets import ImageSet

# a word of what WordNet says of a class (timm's long descriptions), or its name, that tells that it belongs to the group
WORDS = {
    "dogs": r"dog|hound|terrier|spaniel|retriever|setter|poodle|sheepdog|breed|puppy|Leonberg|chow|hairless|"
    r"mastiff|pug|schnauzer|collie|pinscher|EntleBucher|griffon|corgi",
    "other carnivores": r"wolf|coyote|wild dog|dog|hyena|fox|cat\b|cats\b|cougar|lynx|leopard|jaguar|lion|tiger|cheetah|bear|"
    r"viverrine|mongoose",
    "birds": r"bird|fowl|cock|hen\b|ostrich|finch|bunting|thrush|bulbul|jay|magpie|titmouse|chickadee|ouzel|hawk|"
    r"kite|eagle|vulture|owl|grouse|ptarmigan|quail|partridge|parrot|macaw|cockatoo|lory|lories|coucal|bee eater|"
    r"hornbill|jacamar|toucan|duck|merganser|goose|swan|stork|spoonbill|flamingo|heron|egret|bittern|crane|limpkin|"
    r"gallinule|coot|bustard|turnstone|sandpiper|shank|dowitcher|catcher|pelican|penguin|albatross",
    "snakes": r"snake|viper|mamba|cobra|boa|python|rattle|constrictor|colubrid|diamondback|sidewinder",
    "insects": r"beetle|bug|fly|flies|bee\b|ant\b|grasshopper|cricket|insect|cockroach|mantis|cicada|leafhopper|"
    r"lacewing|butterfl|weevil|louse",
    "primates": r"monkey|ape\b|apes\b|orang|gorilla|chimpanzee|gibbon|siamang|baboon|macaque|langur|colobus|marmoset|"
    r"lemur|capuchin|titi|indri",
    "vehicles": r"vehicle|car\b|cars\b|truck|wagon|bus\b|van\b|cab\b|train|locomotive|cart\b|jeep|limousine|moped|"
    r"scooter|bike|bicycle|tricycle|unicycle|tractor|streetcar|tank|snow|automobile|jinrikisha|convertible|"
    r"forklift|kart|racer|Model T|pickup|trolley",
}


@pytest.fixture(scope="module")
def described():
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_descriptions(detailed=True)


@pytest.mark.parametrize("group", imagenet_groups.RUNS)
def test_every_member_is_what_its_group_says(group, described):
    classes = imagenet_groups.members()[imagenet_groups.NAMES.index(group)]
    names = imagenet.class_names()
    strange = [f"{i}: {described[i]}" for i in classes if not re.search(WORDS[group], f"{names[i]}; {described[i]}")]
    assert not strange, "\n".join(strange)


def test_the_ends_of_the_runs_by_name():
    names = imagenet.class_names()
    ends = {g: [(names[a], names[b]) for a, b in runs] for g, runs in imagenet_groups.RUNS.items() if g != "vehicles"}
    assert ends == {
        "dogs": [("Chihuahua", "Mexican hairless")],
        "other carnivores": [("timber wolf", "meerkat")],
        "birds": [("cock", "great grey owl"), ("black grouse", "black swan"), ("white stork", "albatross")],
        "snakes": [("thunder snake", "sidewinder")],
        "insects": [("tiger beetle", "lycaenid")],
        "primates": [("orangutan", "indri")],
    }
    before = [names[i] for i in (150, 300, 25, 101, 126, 147, 51, 69, 364, 385, 327)]
    assert before == [
        "sea lion", "tiger beetle", "European fire salamander", "tusker", "isopod", "grey whale", "triceratops", "trilobite",
        "three-toed sloth", "Indian elephant", "starfish",
    ]  # fmt: skip
    assert [names[i] for i in imagenet_groups.VEHICLES[:3]] == ["ambulance", "amphibian", "beach wagon"]


def test_each_class_is_in_one_group():
    every = [i for group in imagenet_groups.members() for i in group]
    assert sorted(every) == list(range(1000)) and len(imagenet_groups.NAMES) == len(imagenet_groups.members()) == 8
    assert [len(g) for g in imagenet_groups.members()[:4]] == [118, 31, 59, 17]


def test_images_by_group():
    data = datasets.load("photographs", "test", size=32)
    found = imagenet_groups.grouped(data)
    own = [imagenet.class_names()[y] for y in data.labels.tolist()]
    told = {"bull mastiff": "dogs", "dalmatian": "dogs", "tiger cat": "other carnivores", "jeep": "vehicles"}
    told |= {"leafhopper": "insects", "dung beetle": "insects"} | dict.fromkeys(("bald eagle", "spoonbill", "goose"), "birds")
    kept = [n for n in own if n in told]
    assert len(found) == len(kept) and found.classes == imagenet_groups.NAMES
    by_name = dict(zip(kept, (found.classes[int(y)] for y in found.labels), strict=True))
    assert by_name == told
    torch.testing.assert_close(found.images, data.images[[i for i, n in enumerate(own) if n in by_name]])
    other = ImageSet("mine", "test", torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="'mine' is not labelled with ImageNet's classes"):
        imagenet_groups.grouped(other)


def test_a_groups_probability_is_the_sum_of_its_classes():
    logits = 4 * torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = imagenet_groups.by_group(logits).softmax(1)
    every = logits.softmax(1)
    for g, classes in enumerate(imagenet_groups.members()):
        for n in range(3):
            assert float(found[n, g]) == pytest.approx(sum(float(every[n, c]) for c in classes), rel=1e-10)
    with pytest.raises(ValueError, match="logits of 10 classes"):
        imagenet_groups.by_group(torch.zeros(2, 10))
