"""What must hold of a network and of its foolings before study 4 claims anything of them.

Gates, chosen before any verdict was drawn with them:

* `right`: the original is right on more than .6 of clean images; a map of a network that does not know the class says little;
* `kept`: honest fine-tuning takes less than .05 of the original's accuracy, or what manipulated networks lose is no cost of the
  fooling (on a set with one photograph a class, tuning forgets the classes that it does not see);
* `success`: what follows from a fooling is asked where it succeeds on more than half of the images beyond the control's;
* `plateau`: its success rate moves by less than .05 from the last but one quarter of its fine-tuning to the last (where two
  epochs at least were looked at). Under a learning rate that ends at zero this says that tuning has ended as it meant to, not
  that more steps would change nothing;
* `swappable`: an exact swap of the original's two maps would count on more than half of the mosaics: what active fooling is
  trained for would be seen;
* `attacked`, `withstood`: PGD changes a tenth at least of the control's right decisions, and leaves a tenth: between a network
  that nothing moves and one that nothing holds no loss of robustness would show.
"""

import math

from lib.claims.claim import Rule
from lib.claims.court import Court
from lib.studies.model_manipulation import statistics
from lib.studies.model_manipulation.plan import INTERPRETERS, fooling, foolings
from lib.studies.model_manipulation.statistics import CLASSES, SUCCESS

LARGE = Rule("above", SUCCESS)
RIGHT, SMALL, MOVED = Rule("above", 0.6), Rule("below", 0.05), Rule("above", 0.1)
WHICH = {"c1": "first", "c2": "second"}  # classes of a mosaic


def state(court: Court, arch: str) -> None:
    """Make the gates of a network known to the court."""
    c, p = court.cubes, court.p
    clean, tuned = (float(c.values[f"{arch}/{arm}", "right", 0.0].mean()) for arm in ("base", "none"))
    court.gate(f"right/{arch}", f"the original {arch} network is right on clean images", clean, RIGHT)
    court.gate(f"kept/{arch}", "the control keeps its accuracy: the original's less the control's", clean - tuned, SMALL)
    for arm in foolings(p):
        says, moved = fooling(arm), statistics.still_moving(c, f"{arch}/{arm}")
        court.gate(f"success/{arch}/{arm}", f"{says} succeeds beyond the control", statistics.beyond(c, arch, arm), LARGE)
        if math.isfinite(moved):
            says = f"{says} has reached its plateau, by the change of its success rate over the last epochs"
            court.gate(f"plateau/{arch}/{arm}", says, moved, SMALL)
    for name in p.fooled if "active" in p.kinds else ():
        says = f"an exact swap of the original's maps of {INTERPRETERS[name]} would count on most mosaics"
        court.gate(f"swappable/{arch}/{name}", says, statistics.swappable(c, f"{arch}/base", name), LARGE)
        for need, which in ((f"active-{name}:{c}", WHICH[c]) for c in CLASSES):
            says = f"active fooling through {INTERPRETERS[name]} swaps the {which} class's map beyond the control"
            court.gate(f"success/{arch}/{need}", says, statistics.beyond(c, arch, need), LARGE)
    lost = statistics.broken(c, f"{arch}/none")
    court.gate(f"attacked/{arch}", "PGD changes right decisions of the control", lost, MOVED)
    court.gate(f"withstood/{arch}", "PGD leaves right decisions of the control", 1 - lost, MOVED)


def rests(court: Court, arch: str, arm: str) -> tuple[str, ...]:
    """The gate of a fooling's plateau, where its epochs were looked at."""
    return tuple(name for name in (f"plateau/{arch}/{arm}",) if name in court.known_gates)


def stands(court: Court, arch: str, *needs: str) -> tuple[str, ...]:
    """The gates of what follows from foolings (`ARM`, or `ARM:c1`): they succeeded, and reached their plateaus."""
    resting = [g for need in needs for g in rests(court, arch, need.partition(":")[0])]
    return (*(f"success/{arch}/{need}" for need in needs), *resting)
