"""Tiles: a picture of any size, cut into squares that an encoder of one size can read (LLaVA-NeXT, 2024; the blog post
"LLaVA-NeXT: Improved reasoning, OCR, and world knowledge").

The whole picture, squashed to a square, comes first. Beside it the picture is laid on the canvas that wastes least of
it, among some of a few tiles, and that is cut. The tiles' patches are put together into one grid again, from which the
rows or columns of empty canvas are taken (`merge`), or each tile stays a view of its own. Token count, in -> out: N
patches a tile; a canvas of T tiles gives N for the whole and at most T * N for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minivlm.layers import check_positive
from minivlm.layout import Grid, Views
from minivlm.vision.vision import Vision, check_images, resized, sizes_of
from minivlm.vision.vit import ViTConfig

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class TilesConfig:
    """`tower` reads each tile; `canvases` are the (height, width) in pixels to choose from, whole tiles each;
    `image_size` is that of a picture of which nothing else is said."""

    tower: ViTConfig
    canvases: tuple[Size, ...]
    image_size: Size
    merge: bool = True

    any_size: ClassVar[bool] = True

    def __post_init__(self):
        check_positive(height=self.image_size[0], width=self.image_size[1], canvases=len(self.canvases))
        height, width = self.tower.image_size
        for canvas in self.canvases:
            if canvas[0] % height or canvas[1] % width or min(canvas) < 1:
                raise ValueError(f"canvas {canvas[0]}x{canvas[1]} is not made of whole tiles of {height}x{width}")

    @property
    def layers(self) -> int | None:
        return self.tower.layers

    @property
    def width(self) -> int:
        return self.tower.width

    @property
    def class_token(self) -> bool:
        return False  # each tile's is left out

    @property
    def grid(self) -> Grid:
        return self.tower.grid

    def tiles(self, size: Size) -> Grid:
        """Rows and columns of tiles that a picture of that size is cut into."""
        height, width = self.best_canvas(size)
        return height // self.tower.image_size[0], width // self.tower.image_size[1]

    def best_canvas(self, size: Size) -> Size:
        """The canvas on which most of the picture's own pixels survive; of equals the one with the least empty room; of
        those the first."""
        height, width = size
        check_positive(height=height, width=width)

        def merit(canvas: Size) -> tuple[int, int]:
            scale = min(canvas[1] / width, canvas[0] / height)
            kept = min(int(height * scale) * int(width * scale), height * width)
            return kept, kept - canvas[0] * canvas[1]

        return max(self.canvases, key=merit)

    def kept(self, size: Size) -> tuple[slice, slice]:
        """Which rows and columns of the canvas's patches show the picture."""
        height, width = size
        rows, cols = (n * side for n, side in zip(self.tiles(size), self.tower.grid, strict=True))
        if width / height > cols / rows:
            empty = (rows - int(round(height * (cols / width), 7))) // 2
            return slice(empty, rows - empty), slice(0, cols)
        empty = (cols - int(round(width * (rows / height), 7))) // 2
        return slice(0, rows), slice(empty, cols - empty)

    def views(self, size: Size) -> Views:
        """The whole, then the canvas without its empty parts, or then each tile."""
        if not self.merge:
            return (self.tower.grid,) * (1 + math.prod(self.tiles(size)))
        rows, cols = self.kept(size)
        return self.tower.grid, (rows.stop - rows.start, cols.stop - cols.start)

    def build(self) -> Tiles:
        return Tiles(self)


class Tiles(Vision):
    def __init__(self, config: TilesConfig):
        super().__init__()
        self.config = config
        self.tower = config.tower.build()

    def unread(self, layer: int | None) -> list[nn.Module]:
        return self.tower.unread(layer)

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None, layer: int | None = None
    ) -> Float[Tensor, "P N D"]:
        """Patches of every view, view after view, row after row; pictures with fewer are filled up on the right."""
        check_images(images)
        shapes = sizes_of(images, sizes)
        cut = [self.cut(image[:, :height, :width]) for image, (height, width) in zip(images, shapes, strict=True)]
        return self.of_tiles(cut, shapes, layer)

    def of_tiles(
        self, cut: Sequence[Float[Tensor, "_ 3 H W"]], sizes: Sequence[Size], layer: int | None = None
    ) -> Float[Tensor, "P N D"]:
        """The same of pictures that are cut already, each as by `cut`; `sizes`: what they measured before."""
        states = self.tower.features(torch.cat(list(cut)), layer=layer)[:, -self.config.tower.num_patches :]
        each = states.split([len(tiles) for tiles in cut])
        return pad_sequence([self._joined(tiles, size) for tiles, size in zip(each, sizes, strict=True)], True)

    def cut(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "tiles 3 H W"]:
        """The whole picture squashed to a tile, then the tiles of its canvas, row after row."""
        height, width = self.config.tower.image_size
        canvas = on_canvas(image, self.config.best_canvas(tuple(image.shape[1:])))
        tiles = canvas.unflatten(1, (-1, height)).unflatten(3, (-1, width))  # (3, rows, H, cols, W)
        tiles = tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (rows*cols, 3, H, W)
        return torch.cat([resize(image, (height, width))[None], tiles])

    def _joined(self, states: Float[Tensor, "tiles n D"], size: Size) -> Float[Tensor, "N D"]:
        if not self.config.merge:
            return states.flatten(0, 1)
        rows, cols = self.config.kept(size)
        tiles = states[1:].unflatten(0, self.config.tiles(size)).unflatten(2, self.config.tower.grid)
        canvas = tiles.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)  # (rows*g, cols*g, D)
        return torch.cat([states[0], canvas[rows, cols].flatten(0, 1)])


def resize(image: Float[Tensor, "3 h w"], size: Size) -> Float[Tensor, "3 H W"]:
    """Bicubic, with what is finer than the new pixels smoothed away first; stays in [0, 1]."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return resized(image[None], size, "bicubic")[0].clamp(0, 1)


def on_canvas(image: Float[Tensor, "3 h w"], canvas: Size) -> Float[Tensor, "3 H W"]:
    """As large as it fits, its aspect kept, in the middle of a black canvas."""
    (height, width), (rows, cols) = image.shape[1:], canvas
    if cols / width < rows / height:
        new = min(math.ceil(height * (cols / width)), rows), cols
    else:
        new = rows, min(math.ceil(width * (rows / height)), cols)
    top, left = (rows - new[0]) // 2, (cols - new[1]) // 2
    return F.pad(resize(image, new), (left, cols - new[1] - left, top, rows - new[0] - top))
