"""Scenes: pictures whose whole truth is known. A scene is data - shapes with colour, size and place - and is rendered
in batches from signed distances, on any device, at any size and aspect, with exact masks and boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.data.shapes import SHAPES

COLORS = {
    "red": (0.90, 0.10, 0.10), "green": (0.10, 0.65, 0.15), "blue": (0.10, 0.25, 0.95), "yellow": (0.98, 0.88, 0.10),
    "orange": (1.00, 0.50, 0.00), "purple": (0.55, 0.10, 0.75), "cyan": (0.10, 0.85, 0.90), "pink": (1.00, 0.50, 0.75),
    "brown": (0.50, 0.28, 0.10), "lime": (0.60, 1.00, 0.20),
}  # fmt: skip
BACKGROUNDS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "gray": (0.55, 0.55, 0.55),
    "beige": (0.93, 0.88, 0.78),
}
SIZES = {"small": 0.22, "medium": 0.31, "large": 0.40}  # radius, in sides of a cell
CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
MARGIN = 0.06  # kept free at every side of a cell, in sides of a cell: nothing touches, at any size from 48 pixels
SHAPE_NAMES, COLOR_NAMES, SIZE_NAMES, BACKGROUND_NAMES = map(tuple, (SHAPES, COLORS, SIZES, BACKGROUNDS))

# Combinations of (colour, shape) that no training scene holds: two colours for each shape, spread over all colours
HELD_OUT = frozenset((color % 10, shape) for shape in range(8) for color in (shape, shape + 5))
TRAINED_PAIRS = tuple((c, s) for c in range(10) for s in range(8) if (c, s) not in HELD_OUT)
_PAIRS = {
    "train": torch.tensor(TRAINED_PAIRS),
    "test": torch.tensor([(c, s) for c in range(10) for s in range(8)]),
}


@dataclass(frozen=True)
class Object:
    """One thing: indices into shapes, colours and sizes, and its centre as fractions of width (x) and height (y)."""

    shape: int
    color: int
    size: int
    x: float
    y: float

    @property
    def cell(self) -> int:
        """Which of the nine `CELLS` it stands in, in reading order."""
        return 3 * min(2, int(self.y * 3)) + min(2, int(self.x * 3))

    @property
    def novel(self) -> bool:
        """Is its combination of colour and shape held out from training?"""
        return (self.color, self.shape) in HELD_OUT

    @property
    def name(self) -> str:
        return f"{COLOR_NAMES[self.color]} {SHAPE_NAMES[self.shape]}"

    def describe(self) -> str:
        return f"{SIZE_NAMES[self.size]} {self.name}"


@dataclass(frozen=True)
class Scene:
    """Objects in reading order, at most one a cell, before a background."""

    objects: tuple[Object, ...]
    background: int


@runtime_checkable
class Placed(Protocol):
    """What `windows` draws: shapes and sizes, -1 = none, and centres, all (B, columns)."""

    shape: Tensor
    size: Tensor
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes as tensors. Column k of each (B, 9) tensor is the k-th object in reading order, -1 = none."""

    shape: Int[Tensor, "B 9"]
    color: Int[Tensor, "B 9"]
    size: Int[Tensor, "B 9"]
    x: Float[Tensor, "B 9"]
    y: Float[Tensor, "B 9"]
    background: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, index: int | slice | Tensor) -> Scene | Scenes:
        """One `Scene`, or, for a slice or an index tensor, a smaller batch."""
        if not isinstance(index, int):
            return Scenes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))
        columns = (getattr(self, name)[index].tolist() for name in ("shape", "color", "size", "x", "y"))
        objects = tuple(Object(*values) for values in zip(*columns, strict=True) if values[0] >= 0)
        return Scene(objects, int(self.background[index]))

    @classmethod
    def from_list(cls, scenes: Sequence[Scene]) -> Scenes:
        """The batch of the given scenes; ValueError for an empty list or objects that share a cell."""
        if not scenes:
            raise ValueError("no scenes: give at least one")
        rows = [sorted(scene.objects, key=lambda o: o.cell) for scene in scenes]
        for number, row in enumerate(rows):
            if len({o.cell for o in row}) < len(row):
                raise ValueError(f"scene {number} has two objects in one cell: a cell holds one")

        def column(name: str, fill: int | float) -> Tensor:
            return torch.tensor([[getattr(o, name) for o in row] + [fill] * (9 - len(row)) for row in rows])

        fields = (column("shape", -1), column("color", -1), column("size", -1), column("x", 0.0), column("y", 0.0))
        return cls(*fields, torch.tensor([scene.background for scene in scenes]))

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def sample_scenes(
    n: int, generator: torch.Generator, split: str = "train", min_objects: int = 1, max_objects: int = 9
) -> Scenes:
    """`n` random scenes. "train" never holds a `HELD_OUT` combination, "test" draws all combinations alike.

    In two scenes of five some objects share a shape, in two of five a colour, so that there is something to count.
    """
    if split not in _PAIRS:
        raise ValueError(f"unknown split {split!r}; choose train or test")
    if n < 1 or not 1 <= min_objects <= max_objects <= 9:
        raise ValueError(f"need n >= 1 and 1 <= min_objects <= max_objects <= 9, got {n}, {min_objects}, {max_objects}")
    count = torch.randint(min_objects, max_objects + 1, (n, 1), generator=generator)
    order = torch.rand(n, 9, generator=generator).argsort(dim=1)
    present = order < count  # (n, 9): `count` random cells
    color, shape = _sample_pairs(n, _PAIRS[split], generator)
    size = torch.randint(len(SIZES), (n, 9), generator=generator)
    reach = 0.5 - MARGIN - torch.tensor(list(SIZES.values()))[size]  # how far a centre may leave its cell's centre
    jitter = (2 * torch.rand(2, n, 9, generator=generator) - 1) * reach
    cell = torch.arange(9)
    x, y = (cell % 3 + 0.5 + jitter[0]) / 3, (cell // 3 + 0.5 + jitter[1]) / 3
    packed = (~present).int().argsort(dim=1, stable=True)  # objects first, in reading order

    def column(values: Tensor, fill: int | float) -> Tensor:
        return torch.where(present, values, fill).gather(1, packed)

    background = torch.randint(len(BACKGROUNDS), (n,), generator=generator)
    return Scenes(column(shape, -1), column(color, -1), column(size, -1), column(x, 0.0), column(y, 0.0), background)


def _sample_pairs(n: int, pairs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Colours and shapes (n, 9): each a random pair, but in clustered scenes most take the scene's shape or colour."""
    allowed = torch.zeros(len(COLORS), len(SHAPES))
    allowed[pairs[:, 0], pairs[:, 1]] = 1
    color, shape = pairs[torch.randint(len(pairs), (n, 9), generator=generator)].unbind(-1)  # (n, 9) each
    mode = torch.rand(n, 1, generator=generator)
    follows = torch.rand(n, 9, generator=generator) < 0.6
    theme_color, theme_shape = pairs[torch.randint(len(pairs), (n, 1), generator=generator)].unbind(-1)
    same_shape, same_color = follows & (mode < 0.4), follows & (mode > 0.6)
    fitting_color = torch.multinomial(allowed[:, theme_shape[:, 0]].T, 9, True, generator=generator)
    fitting_shape = torch.multinomial(allowed[theme_color[:, 0]], 9, True, generator=generator)
    color = torch.where(same_shape, fitting_color, torch.where(same_color, theme_color, color))
    shape = torch.where(same_color, fitting_shape, torch.where(same_shape, theme_shape, shape))
    return color, shape


def render(
    scenes: Scenes, size: int | tuple[int, int] = 64, device: str | torch.device | None = None
) -> Float[Tensor, "B 3 H W"]:
    """Pictures in [0, 1], anti-aliased; `size` is (H, W) or one side, in pixels. Each object is drawn only where it
    is."""
    scenes = scenes.to(device) if device is not None else scenes
    height, width = (size, size) if isinstance(size, int) else size
    device = scenes.background.device
    palette = torch.tensor(list(COLORS.values()), device=device)
    backgrounds = torch.tensor(list(BACKGROUNDS.values()), device=device)[scenes.background]  # (B, 3)
    canvas = backgrounds[:, None].expand(-1, height * width, -1).reshape(-1, 3).contiguous()  # (B*H*W, 3)
    for sample, column, place, cover in windows(scenes, height, width):
        paint = (palette[scenes.color[sample, column]] - backgrounds[sample])[:, None] * cover[..., None]  # (n, w*w, 3)
        flat = sample[:, None] * height * width + place
        canvas.index_add_(0, flat.flatten(), paint.flatten(0, 1))
    return canvas.view(-1, height, width, 3).permute(0, 3, 1, 2).contiguous().clamp_(0, 1)  # (B, 3, H, W)


def masks(scenes: Scenes, size: int | tuple[int, int] = 64) -> Bool[Tensor, "B 9 H W"]:
    """For each object the pixels that it covers at least half of."""
    height, width = (size, size) if isinstance(size, int) else size
    covered = torch.zeros(len(scenes) * 9, height * width, device=scenes.background.device)
    for sample, column, place, cover in windows(scenes, height, width):
        covered[(sample * 9 + column)[:, None], place] = cover
    return (covered >= 0.5).view(-1, 9, height, width)


def boxes(scenes: Scenes, size: int | tuple[int, int] = 64) -> Float[Tensor, "B 9 4"]:
    """Tight (x1, y1, x2, y2) in pixels round each object's mask, right and bottom edge included; zeros = no object."""
    found = masks(scenes, size)
    columns, rows = found.any(dim=2), found.any(dim=3)  # (B, 9, W), (B, 9, H)

    def span(hit: Tensor) -> tuple[Tensor, Tensor]:
        first = hit.int().argmax(dim=-1)
        last = hit.shape[-1] - hit.flip(-1).int().argmax(dim=-1)
        return first, last

    (x1, x2), (y1, y2) = span(columns), span(rows)
    box = torch.stack([x1, y1, x2, y2], dim=-1).float()
    return box * found.any(dim=(2, 3))[..., None]


def windows(placed: Placed, height: int, width: int):
    """For each shape and size, all objects of it: (sample, column, pixel places (n, w*w), cover in [0, 1] (n, w*w))."""
    cell = min(height, width) / 3
    device = placed.shape.device
    for size, share in enumerate(SIZES.values()):
        radius = share * cell
        side = min(int(2 * radius) + 4, height, width)  # a star's tip fades out 1.43 pixels beyond its radius
        offset = torch.arange(side, device=device)
        for shape, distance in enumerate(SHAPES.values()):
            sample, column = ((placed.shape == shape) & (placed.size == size)).nonzero(as_tuple=True)
            if len(sample) == 0:
                continue
            centre_x, centre_y = placed.x[sample, column] * width, placed.y[sample, column] * height
            left = (centre_x - radius - 1).floor().long().clamp(0, width - side)
            top = (centre_y - radius - 1).floor().long().clamp(0, height - side)
            xs, ys = left[:, None] + offset, top[:, None] + offset  # (n, w)
            u = ((xs + 0.5 - centre_x[:, None]) / radius)[:, None, :].expand(-1, side, -1)  # (n, w, w)
            v = ((ys + 0.5 - centre_y[:, None]) / radius)[:, :, None].expand(-1, -1, side)  # (n, w, w)
            cover = (0.5 - distance(u, v) * radius).clamp(0, 1).flatten(1)  # (n, w*w)
            place = ys[:, :, None] * width + xs[:, None, :]  # (n, w, w)
            yield sample, column, place.flatten(1), cover
