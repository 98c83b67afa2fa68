"""What a training step costs, in passes of an image through the network, forward or backward: exact, on any machine.

A step of plain training is one of each. An attack of k steps adds k of each, TRADES' attack one forward pass more for the
clean image, and its loss is of two images; a fair coin takes the attack in half of the batches of a mix. A map costs its
attribution once a run, so a share of it a step, or all of it where maps are made of each batch anew.
"""

from lib.studies.saliency_adversarial_training.plan import Parameters, parsed

STEP = 2.0  # forward and backward


def of_maps(p: Parameters, attribution: str) -> float:
    """Passes of a teacher, of the student's size, for the map of an image. SmoothGrad and integrated gradients look at the
    image itself once more, for its logits."""
    if attribution == "guided-gradcam++":
        return 2 * STEP
    copies = {"smoothgrad": p.smooth_n, "ig": p.ig_steps}.get(attribution)
    return STEP if copies is None else STEP * copies + 1


def of_step(p: Parameters, arm: str) -> float:
    """Passes of an image in a training step of an arm, in the mean of its batches and epochs."""
    found = parsed(arm, p.mix_maps)
    attack = {"plain": 0.0, "pgd": STEP * p.steps, "trades": 1 + STEP * p.steps}[found.base]
    loss = STEP * (2 if found.base == "trades" else 1)
    mixed = 0.5 if found.base != "plain" and found.mix != "none" else float(found.mix != "none")  # share of batches of the mix
    maps = of_maps(p, found.attribution) if found.teacher and found.mix == "sat" else 0.0
    whole = mixed * maps if "fresh" in found.changes else maps / p.epochs
    return loss + (1 - mixed) * attack + whole
