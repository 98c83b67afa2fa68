"""Study 0: the claims of the Grad-CAM tour, and the statistics that they rest on."""

import numpy as np
import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS_ALONE, Court
from lib.claims.cubes import Cubes
from lib.claims.intervals import over
from lib.studies.grad_cam.photo import SHARE
from lib.studies.grad_cam.plan import Parameters, named

SOURCE = "Selvaraju et al. 2017"
TALK = "presentation of the Grad-CAM project"
MASS = "share of the map's mass on the object"
UP, DOWN = Rule("above", 0.0), Rule("below", 0.0)
EXACT = 1e-4  # relative, in float32
# id, kind, statement, measure, what is subtracted from it ("": nothing), rule, statistic in words, source
Row = tuple[str, Kind, str, str, str, Rule, str, str]


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of what a reader of Selvaraju et al. would name, on a published network and photographs."""
    told = ("photo-two", "photo-late-beats-middle", "photo-removal-positive-score", "photo-removal-counterfactual-score")
    return tuple(f"{id}/{p.published}" for id in (*told, "photo-attack-moves-map"))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """Every claim, for every network that has its measure: without masks, say, nothing lies on an object."""
    unknown = "Without interval: every map of this kind is empty."
    court = Court("00", p, Cubes.of(table), test, p.seeds, draws=200, unknown=unknown)
    asked = [(p.published, on_photographs(p), p.radii[-1], 1)]
    for arch, claims, eps, seeds in asked + [(arch, claimed(p), p.eps[-1], p.seeds) for arch in p.architectures]:
        own = court.within(arch, f" ({named(arch)}).", seeds=seeds)
        seen = at_strongest(court.cubes, arch, eps)
        for id, kind, statement, measure, less, rule, statistic, source in claims:
            if measure not in seen:
                continue
            values = seen[measure] - (seen[less] if less else 0.0)
            empty = int((~np.isfinite(values)).sum())
            note = f"{empty} of {values.size} values are missing, since their maps are empty." if empty else ""
            n = ""
            if measure.startswith("photo/"):
                what = "pictures of two photographs" if measure.startswith(("photo/two", "photo/removal")) else "photographs"
                n = f"{values.size} {what}, one network as it was published"
            told = {"statistic": statistic, "source": source, "note": note, "n": n}
            own.add(id, kind, statement, over(values), rule, over=measure, **told)
    return court.rows


def at_strongest(cubes: Cubes, arch: str, eps: float) -> dict[str, np.ndarray]:
    """A network's measures (seed, image): without attack, and under attack at the largest radius."""
    return {measure: values for (arm, measure, level), values in cubes.values.items() if arm == arch and level in (0.0, eps)}


def identities(prefix: str = "") -> list[Row]:
    """What holds of any network whose head is average pooling and a linear layer; and that the score is what is explained."""
    told = "largest difference of the two sides over the largest value, mean of the images"
    rows: list[Row] = [
        (f"identity-{which}", "claim", statement, f"{prefix}identity/{which}", "", Rule("within", EXACT), told, SOURCE)
        for which, statement in (
            ("cam", "Without ReLU, Grad-CAM at the last layer is CAM over the number of positions Z"),
            ("sum", "The map without ReLU is Grad-CAM minus the counterfactual map"),
            ("product", "Where Grad-CAM is above zero, the counterfactual map is zero"),
        )
    ]
    statement = "The map of the probability is another one than that of the logit"
    told = "largest difference of the two maps, each over its own largest value"
    above = Rule("above", EXACT)
    return [*rows, ("softmax-differs", "control", statement, f"{prefix}identity/softmax", "", above, told, OURS_ALONE)]


def on_photographs(p: Parameters) -> list[Row]:
    """What is claimed of the published network, in order."""
    rows = identities("photo/")
    half = "share of the map's mass on the half of the picture that shows the class's photograph, mean of both classes"
    for id, sign, rule, statement in (
        ("photo-two", "positive", Rule("above", 0.5), "In a picture of two photographs, a class's map lies on its own"),
        ("photo-counterfactual", "counterfactual", Rule("below", 0.5), "… and its counterfactual map on the other"),
    ):
        rows.append((id, "claim", statement, f"photo/two/{sign}", "", rule, half, SOURCE))
    statement = "In a picture of two photographs, the last layer's map lies more on its own than a middle layer's"
    told = f"{half}, last minus middle layer"
    rows.append(
        ("photo-late-beats-middle", "claim", statement, "photo/two/positive", "photo/two/positive/middle", UP, told, TALK)
    )
    for sign, rule, does, marks in (("counterfactual", UP, "raises", "against"), ("positive", DOWN, "lowers", "for")):
        for kind, what in (("score", "score"), ("log", "log-probability")):
            grown = f"growth of the class's {what} once at most {SHARE:.0%} of the picture are taken away, mean of both classes"
            key, id = f"photo/removal/{sign}/{kind}", f"photo-removal-{sign}-{kind}"
            statement = f"Taking away what the map {marks} a class marks {does} the class's {what}"
            rows.append((id, "claim", statement, key, "", rule, f"{grown}, where the map is largest", SOURCE))
            statement = f"… and {does} it more than taking away as much elsewhere on the same photographs"
            told = f"{grown}: where the map is largest, minus elsewhere"
            rows.append((f"{id}-over-elsewhere", "control", statement, key, f"{key}/elsewhere", rule, told, OURS_ALONE))
    statement = "A targeted attack changes the map of the true class more than noise does"
    told = f"NISSIM with the clean map, attack towards {p.aim} minus random signs, eps {p.radii[-1]:g}"
    rows.append(("photo-attack-moves-map", "claim", statement, "photo/nissim/attack", "photo/nissim/noise", UP, told, TALK))
    return rows


def claimed(p: Parameters) -> list[Row]:
    """What is claimed of each network that the study trains, in order."""
    moved = f"targeted attack minus random signs, eps {p.eps[-1]:g}"
    rows = identities()
    for how, told in (("energy", MASS), ("pointing", "share of peaks on the object")):
        statement = "The last layer's map lies on the object more than a middle layer's"
        told = f"{told}, true class, last minus middle layer"
        rows.append((f"late-beats-middle-{how}", "claim", statement, f"{how}/last", f"{how}/middle", UP, told, TALK))
    rows.append(
        (
            "on-object",
            "control",
            "The last layer's map lies on the object more than an even map would",
            "energy/last",
            "area",
            UP,
            f"{MASS} minus the object's share of the image",
            OURS_ALONE,
        )
    )
    for word, own, other in (("first", p.first, p.second), ("second", p.second, p.first)):
        statement = f"On an image of two objects, the map of {own} lies on the {own}"
        told = f"share of the map's mass on the half of the image that shows {own}"
        key = f"two/positive/{word}"
        rows.append((f"two-objects-{word}", "claim", statement, key, "", Rule("above", 0.5), told, SOURCE))
        statement = f"The counterfactual map of {own} lies on the {other} instead"
        told = f"share of the counterfactual map's mass on the half that shows {own}"
        key = f"two/counterfactual/{word}"
        rows.append((f"counterfactual-{word}", "claim", statement, key, "", Rule("below", 0.5), told, SOURCE))
    rows += [
        (
            "attack-moves-map",
            "claim",
            "A targeted attack changes the map of the true class more than noise does",
            "nissim/attack",
            "nissim/noise",
            UP,
            f"NISSIM with the clean map, {moved}",
            TALK,
        ),
        (
            "attack-leaves-object",
            "claim",
            "Under attack less of the true class's map lies on the object",
            "energy/attack",
            "energy/last",
            DOWN,
            f"{MASS}, targeted attack at eps {p.eps[-1]:g} minus clean",
            TALK,
        ),
        (
            "attack-leaves-object-over-noise",
            "control",
            "… and less than under noise of the same size",
            "energy/attack",
            "energy/noise",
            DOWN,
            f"{MASS}, {moved}",
            OURS_ALONE,
        ),
        (
            "leans-on-texture",
            "open question",
            "Where shape and texture disagree, the network goes by the texture",
            "by/texture",
            "by/shape",
            UP,
            "share of decisions for the texture's class minus share for the shape's class",
            OURS_ALONE,
        ),
    ]
    return rows
