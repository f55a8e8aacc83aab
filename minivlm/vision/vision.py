"""What every vision part is: it makes features of a picture, in one grid or in several, the picture's views.

An encoder of one size has one view, a grid that is always the same; one that takes pictures as they come has a grid for
each; one that cuts pictures has a view for the whole and others for the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minivlm.layout import Grid, Views


@runtime_checkable
class VisionConfig(Protocol):
    """`build` gives a module whose `features(images, sizes)` are (P, N, width), view after view, row after row, filled
    up on the right where pictures differ in size; `images` are (P, 3, H, W) in [0, 1], and `sizes`, (P, 2) or None, say
    how much of each is picture.

    image_size   (height, width) of a picture of which nothing else is said, and `grid` what that becomes, if one view
    width        of a feature
    class_token  does a vector for the whole picture come first?

    One that reads pictures as they come, of any size, says so: `any_size = True`; for others they are resized. One
    that knows its `layers` has a `layer` that is not among them refused; None: only what it gives in the end is read.
    """

    image_size: tuple[int, int]
    width: int
    class_token: bool

    @property
    def grid(self) -> Grid: ...

    def views(self, size: tuple[int, int]) -> Views: ...

    def build(self) -> Any: ...


def check_layer(vision: VisionConfig, layer: int | None) -> None:
    """ValueError for a `layer` after which the state of that encoder, if it knows its layers, cannot be read."""
    if layer is None or not hasattr(vision, "layers"):
        return
    kind, depth = type(vision).__name__, vision.layers
    if depth is None:
        raise ValueError(f"layer {layer}: of a {kind} only what it gives in the end can be read, layer None")
    if not -depth - 1 <= layer <= depth:
        raise ValueError(f"layer {layer} does not exist: {kind} has {depth} (0..{depth} or -1..-{depth + 1})")


class Vision(nn.Module):
    """A vision part. `features` of an encoder with several layers also takes the `layer` to read."""

    def unread(self, layer: int | None) -> list[nn.Module]:
        """The modules that nobody touches who reads only the state after `layer` (None: what it gives in the end)."""
        return []


def cut_views(
    features: Float[Tensor, "P N D"], pictures: Sequence[Views]
) -> tuple[Float[Tensor, "V n D"], Bool[Tensor, "V n"] | None]:
    """Every view of all pictures as a row of its own, and which features are there (None: all)."""
    if len(set(pictures)) == 1 and len(pictures[0]) == 1:
        return features, None
    counts = [rows * cols for views in pictures for rows, cols in views]
    cut = [
        part
        for own, views in zip(features, pictures, strict=True)
        for part in own[: sum(rows * cols for rows, cols in views)].split([rows * cols for rows, cols in views])
    ]
    if len(set(counts)) == 1:
        return torch.stack(cut), None
    rows = pad_sequence(cut, batch_first=True)
    return rows, torch.arange(rows.shape[1], device=rows.device) < torch.tensor(counts, device=rows.device)[:, None]


def resized(images: Float[Tensor, "P 3 h w"], size: tuple[int, int], mode: str) -> Float[Tensor, "P 3 H W"]:
    """Pictures at another `size` (height, width), "bilinear" or "bicubic", antialiased: where pixels become fewer, each
    new one is a mean of those round its place. Bicubic pictures may go a little beyond [0, 1] beside an edge."""
    # torch reads pixels of the usual order wrongly where a single column is left, on a CPU
    colours_last = images.contiguous(memory_format=torch.channels_last)
    return F.interpolate(colours_last, size=size, mode=mode, antialias=True)


def check_images(images: Tensor, size: tuple[int, int] | None = None) -> None:
    """Refuse what is no batch of float RGB pictures of `size` (H, W), None = of any: TypeError or ValueError saying
    what came."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float tensor (B, 3, H, W) in [0, 1], got {got}")
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (B, 3, H, W) with B >= 1, got {tuple(images.shape)}")
    if size is not None and tuple(images.shape[2:]) != tuple(size):
        height, width = images.shape[2:]
        raise ValueError(f"this tower reads {size[0]}x{size[1]} pictures, got {height}x{width}: resize them first")
    if images.device.type != "meta" and not images.isfinite().all():
        raise ValueError("images hold NaN or infinite values: look at how they were loaded or normalised")


def sizes_of(images: Tensor, sizes: Tensor | None) -> list[tuple[int, int]]:
    """Height and width in pixels of each picture of a batch (P, 3, H, W): `sizes`, (P, 2) integers, says how much of it
    is no padding, which stands on its right and at its bottom; None: all. TypeError or ValueError for impossible ones.
    """
    count, whole = len(images), tuple(images.shape[2:])
    if sizes is None:
        return [whole] * count
    if not isinstance(sizes, Tensor) or sizes.is_floating_point() or sizes.dtype == torch.bool:
        got = sizes.dtype if isinstance(sizes, Tensor) else type(sizes).__name__
        raise TypeError(f"sizes must be an integer tensor (P, 2), the height and width of each picture, got {got}")
    if tuple(sizes.shape) != (count, 2):
        raise ValueError(f"sizes must be ({count}, 2), a height and a width for each picture, got {tuple(sizes.shape)}")
    pairs = [(height, width) for height, width in sizes.tolist()]
    for number, (height, width) in enumerate(pairs):
        if not (1 <= height <= whole[0] and 1 <= width <= whole[1]):
            raise ValueError(
                f"sizes: picture {number} cannot be {height}x{width} pixels in a batch of {whole[0]}x{whole[1]}: give "
                "the height and width of what is no padding"
            )
    return pairs
