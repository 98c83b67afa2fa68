"""One image and its map."""

from lib.studies.example.plan import Parameters, evaluation_set, network

from lib.explanations.activation_maps import gradcam, normalise, upsample
from lib.figures import pictures, widgets


def explorer(p: Parameters) -> widgets.Explorer:
    """Choose an image, see its map."""
    data, model = evaluation_set(p), network(p, p.architectures[0], 0).model

    def render(image: int) -> tuple:
        x = data.images[image : image + 1]
        found = gradcam(model, x, data.labels[image : image + 1], model.stages[-1])
        fig, axes = pictures.grid(1, 1, cell=3)
        pictures.overlay(axes[0, 0], x[0], upsample(normalise(found.values), x.shape[-1])[0], "Grad-CAM")
        return fig, data.classes[int(data.labels[image])]

    return widgets.Explorer({"image": widgets.integer("image", 0, len(data) - 1)}, render)
