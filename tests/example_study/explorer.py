"""One image and its map."""

from lib.studies.example.plan import Parameters, evaluation_set, network

from lib.explanations.activation_maps import gradcam, normalise, upsample
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, View


def explorer(p: Parameters) -> Explorer:
    """Choose an image, see its map."""
    data, model = evaluation_set(p), network(p, p.architectures[0], 0).model

    def render(image: int) -> View:
        x = data.images[image : image + 1]
        found = gradcam(model, x, data.labels[image : image + 1], model.stages[-1])
        fig, axes = pictures.canvas(1, 1, (3, 3))
        pictures.overlay(axes[0, 0], x[0], upsample(normalise(found.values), x.shape[-1])[0], "Grad-CAM")
        return View(fig, data.classes[int(data.labels[image])])

    return Explorer(p, {"image": widgets.integer("image", 0, len(data) - 1)}, render)
