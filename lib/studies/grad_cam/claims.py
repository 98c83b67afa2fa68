"""Study 0: the claims of the Grad-CAM tour, and the statistics that they rest on."""

import numpy as np
import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import Book
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, over
from lib.studies.grad_cam.plan import FAMILY, Parameters

SOURCE = "Selvaraju et al. 2017"
TALK = "presentation of the Grad-CAM project"
OURS = "ours; not in the paper"
MASS = "share of the map's mass on the object"
EXACT = 1e-4  # relative, in float32


def judge(table: pd.DataFrame, p: Parameters, *, test: bool) -> list[Claim]:
    """Every claim, for every network."""
    cubes = Cubes.of(table)
    found: list[Claim] = []
    strongest = p.eps[-1]
    masked = any(measure == "energy/last" for _, measure, _ in cubes.values)

    for arch in p.architectures:
        name = FAMILY.get(arch, arch)

        def get(measure: str, level: float = 0.0, arch: str = arch) -> np.ndarray:
            return cubes.values[arch, measure, level]

        def add(
            id: str,
            kind: Kind,
            statement: str,
            compute: Statistic,
            rule: Rule,
            over_images: str,
            statistic: str,
            source: str,
            note: str = "",
            level: float = 0.0,
            arch: str = arch,
            name: str = name,
        ) -> None:
            used = cubes.values[arch, over_images, level]
            images, empty = used.shape[1], int((~np.isfinite(used)).sum())
            if empty:
                note = f"{note} {empty} of {used.size} maps are empty and left out.".strip()
            book = Book("00", images, p.seeds, p.variant, test, found, draws=200)
            book.add(
                f"{id}/{arch}",
                kind,
                f"{statement} ({name}).",
                compute,
                rule,
                statistic=statistic,
                source=source,
                note=note,
                unknown="Without interval: every map of this kind is empty.",
            )

        for which, statement in (
            ("cam", "Without ReLU, Grad-CAM at the last layer is CAM over the number of positions Z"),
            ("sum", "The map without ReLU is Grad-CAM minus the counterfactual map"),
            ("product", "Where Grad-CAM is above zero, the counterfactual map is zero"),
        ):
            if (arch, f"identity/{which}", 0.0) not in cubes.values:
                continue  # CAM is not defined for this network
            add(
                f"identity-{which}",
                "claim",
                statement,
                over(get(f"identity/{which}")),
                Rule("within", EXACT),
                f"identity/{which}",
                "largest difference of the two sides over the largest value, mean of the images",
                SOURCE,
            )
        add(
            "softmax-differs",
            "control",
            "The map of the probability is another one than that of the logit",
            over(get("identity/softmax")),
            Rule("above", EXACT),
            "identity/softmax",
            "largest difference of the two maps, each over its own largest value",
            OURS,
        )
        if masked:
            for how, told in (
                ("energy", "share of the map's mass on the object"),
                ("pointing", "share of peaks on the object"),
            ):
                add(
                    f"late-beats-middle-{how}",
                    "claim",
                    "The last layer's map lies on the object more than a middle layer's",
                    over(get(f"{how}/last") - get(f"{how}/middle")),
                    Rule("above", 0.0),
                    f"{how}/last",
                    f"{told}, true class, last minus middle layer",
                    TALK,
                )
            add(
                "on-object",
                "control",
                "The last layer's map lies on the object more than an even map would",
                over(get("energy/last") - get("area")),
                Rule("above", 0.0),
                "energy/last",
                f"{MASS} minus the object's share of the image",
                OURS,
            )
        for word, own, other in (("first", p.first, p.second), ("second", p.second, p.first)):
            add(
                f"two-objects-{word}",
                "claim",
                f"On an image of two objects, the map of {own} lies on the {own}",
                over(get(f"two/positive/{word}")),
                Rule("above", 0.5),
                f"two/positive/{word}",
                f"share of the map's mass on the half of the image that shows {own}",
                SOURCE,
            )
            add(
                f"counterfactual-{word}",
                "claim",
                f"The counterfactual map of {own} lies on the {other} instead",
                over(get(f"two/counterfactual/{word}")),
                Rule("below", 0.5),
                f"two/counterfactual/{word}",
                f"share of the counterfactual map's mass on the half that shows {own}",
                SOURCE,
            )
        moved = f"targeted attack minus random signs, eps {strongest:g}"
        add(
            "attack-moves-map",
            "claim",
            "A targeted attack changes the map of the true class more than noise does",
            over(get("nissim/attack", strongest) - get("nissim/noise", strongest)),
            Rule("above", 0.0),
            "nissim/attack",
            f"NISSIM with the clean map, {moved}",
            TALK,
            level=strongest,
        )
        if masked:
            add(
                "attack-leaves-object",
                "claim",
                "Under attack less of the true class's map lies on the object",
                over(get("energy/attack", strongest) - get("energy/last")),
                Rule("below", 0.0),
                "energy/attack",
                f"{MASS}, targeted attack at eps {strongest:g} minus clean",
                TALK,
                level=strongest,
            )
            add(
                "attack-leaves-object-over-noise",
                "control",
                "… and less than under noise of the same size",
                over(get("energy/attack", strongest) - get("energy/noise", strongest)),
                Rule("below", 0.0),
                "energy/attack",
                f"{MASS}, {moved}",
                OURS,
                level=strongest,
            )
        if (arch, "by/texture", 0.0) in cubes.values:
            add(
                "leans-on-texture",
                "open question",
                "Where shape and texture disagree, the network goes by the texture",
                over(get("by/texture") - get("by/shape")),
                Rule("above", 0.0),
                "by/texture",
                "share of decisions for the texture's class minus share for the shape's class",
                OURS,
            )
    return found
