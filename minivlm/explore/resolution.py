"""An explorer of canvases: what tiling makes of a picture of any shape."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.resolution import encoder_views
from minivlm.model import VLMConfig
from minivlm.vision.tiles import on_canvas, resize


def canvas_explorer(pictures: Mapping[str, Float[Tensor, "3 H W"]], config: VLMConfig) -> Explorer:
    """Each of some named pictures on each canvas of a tiled design, beside the whole picture as one tile; says which
    canvas the design would take, how many pixels of the picture each keeps, and how many tokens come of it. ValueError
    for no picture."""
    if not pictures:
        raise ValueError("nothing to lay on a canvas: give a picture or more")
    vision = config.vision
    canvases = [(f"{height}x{width}", (height, width)) for height, width in vision.canvases]
    controls = {
        "name": slider("Picture", [(name, name) for name in pictures]),
        "canvas": buttons("Canvas", [("as chosen", "as chosen"), *canvases]),
    }

    def draw(name: str, canvas: tuple[int, int] | str) -> tuple[Figure, str]:
        image, patch = pictures[name], vision.tower.patch_size
        size = tuple(image.shape[1:])
        best = vision.best_canvas(size)
        taken = best if isinstance(canvas, str) else canvas
        views = {
            "the whole": (resize(image, vision.tower.image_size), patch),
            "on the canvas": (on_canvas(image, taken), patch),
        }
        figure, told = encoder_views(views)
        scale = min(taken[0] / size[0], taken[1] / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        told += f" Of {size[0] * size[1]:,} pixels this canvas keeps {kept:,}."
        chosen = f"The design takes {best[0]} by {best[1]}, {config.tokens_of(size):,} tokens."
        return figure, f"{name}, {size[0]} by {size[1]} pixels. {told} {chosen}"

    return Explorer("Canvas explorer", controls, draw)
