"""Exercises of lesson 05: pooling, pixel shuffle, and reading a picture between its patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivlm.connectors.connector import Grid
from minivlm.connectors.pooling import AveragePool, AveragePooling, Shuffle
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec


def pool(features: Tensor, grid: Grid, cells: Grid) -> Tensor:
    """The package's `AveragePool` without its MLP: patches (B, N, D) to the means of cells (B, K, D)."""
    layer = AveragePool(AveragePooling(cells[0] * cells[1]), features.shape[2], 1, grid)
    layer.cells, layer.mlp = cells, nn.Identity()
    return layer(features)


def check_pool(answer: Callable) -> None:
    for grid, cells in (((4, 4), (2, 2)), ((4, 6), (2, 3)), ((6, 2), (3, 1))):  # square first: no mistake changes shape
        features = draw(2, grid[0] * grid[1], 3, seed=1)
        compare(answer(features, grid, cells), pool(features, grid, cells), _wrong_pools(features, grid, cells))


def _wrong_pools(features: Tensor, grid: Grid, cells: Grid) -> dict[str, Tensor]:
    want = pool(features, grid, cells)
    down, across = cells
    tall, wide = grid[0] // down, grid[1] // across
    blocks = features.unflatten(1, (down, tall, across, wide))  # (B, down, tall, across, wide, D)
    turned = features.unflatten(1, grid[::-1]).transpose(1, 2)  # as if patches ran down the columns
    return {
        "Rows and columns are exchanged: tokens go row by row, as patches do, and these go column by column.":
            want.unflatten(1, cells).transpose(1, 2).flatten(1, 2),
        "The patches were read column by column: patch 1 stands to the right of patch 0, not below it.":
            pool(turned.flatten(1, 2), grid, cells),
        "It takes patches that follow one another for a cell: they lie in one row. A cell has patches of several rows.":
            features.unflatten(1, (down * across, tall * wide)).mean(dim=2),
        "The mean goes over the wrong axes: over the cells, at each place within them. Keep the cells, and take the "
        "mean within each.": blocks.mean(dim=(1, 3)).flatten(1, 2),
        "It takes the largest of each cell: average pooling takes the mean.": blocks.amax(dim=(2, 4)).flatten(1, 2),
        "It adds the patches of a cell up: divide by how many they are.": want * (tall * wide),
        "It takes the first patch of each cell and loses the others: take the mean of all.":
            blocks[:, :, 0, :, 0].flatten(1, 2),
        "It takes one mean over the whole picture: each cell has a mean of its own.":
            features.mean(dim=1, keepdim=True).expand_as(want),
    }  # fmt: skip


def shuffle(features: Tensor, grid: Grid, factor: int) -> Tensor:
    """The package's `Shuffle` without its linear map: patches (B, N, D) to squares side by side (B, K, f*f*D)."""
    layer = Shuffle(factor, features.shape[2], 1, grid)
    layer.out = nn.Identity()
    return layer(features)


def check_shuffle(answer: Callable) -> None:
    for grid, factor in (((4, 4), 2), ((4, 6), 2), ((3, 6), 3)):
        features = draw(2, grid[0] * grid[1], 3, seed=2)
        classics = _wrong_shuffles(features, grid, factor)
        compare(answer(features, grid, factor), shuffle(features, grid, factor), classics)


def _wrong_shuffles(features: Tensor, grid: Grid, factor: int) -> dict[str, Tensor]:
    want = shuffle(features, grid, factor)
    rows, cols = grid[0] // factor, grid[1] // factor
    blocks = features.unflatten(1, (rows, factor, cols, factor))  # (B, rows, f, cols, f, D)
    return {
        "No squares: it lays patches side by side that follow one another, and these lie in one row. A square has "
        "patches of several rows.": features.reshape(want.shape),
        "The squares are transposed: within each, patches go row by row, and these go column by column.":
            blocks.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2),
        "Rows and columns of squares are exchanged: tokens go row by row, and these go column by column.":
            want.unflatten(1, (rows, cols)).transpose(1, 2).flatten(1, 2),
        "The channels of the patches are mixed: a patch's own channels stay side by side, patch after patch.":
            want.unflatten(2, (factor**2, -1)).transpose(2, 3).flatten(2),
        "Off-by-one grid: each token takes the places that are `rows` and `cols` apart. A square has neighbours.":
            features.unflatten(1, (factor, rows, factor, cols)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
        "It takes the mean of each square: here nothing is averaged, the patches stand side by side.":
            blocks.mean(dim=(2, 4)).flatten(1, 2),
    }  # fmt: skip


def sample(picture: Tensor, points: Tensor) -> Tensor:
    """What the package's deformable attention finds at `points` (P, 2) of a picture (D, rows, cols): (P, D)."""
    return _grid_sample(picture, points)


def _grid_sample(picture: Tensor, points: Tensor, **options) -> Tensor:
    where = 2 * points[None, None] - 1  # (1, 1, P, 2), corners at -1 and 1
    return F.grid_sample(picture[None], where, **({"align_corners": False} | options))[0, :, 0].T


def check_sample(answer: Callable) -> None:
    chance = torch.Generator().manual_seed(4)
    within = 0.2 + 0.6 * torch.rand(6, 2, generator=chance)
    beyond = torch.tensor([[0.01, 0.3], [1.0, 1.0], [0.5, 1.1], [-0.4, 0.2]])
    for size, points in (((4, 4), within), ((3, 5), within), ((3, 5), torch.cat([within, beyond]))):
        picture = draw(2, *size, seed=3)
        points = points.to(picture.device)
        compare(answer(picture, points), sample(picture, points), _wrong_samples(picture, points))


def _wrong_samples(picture: Tensor, points: Tensor) -> dict[str, Tensor]:
    size = torch.tensor([picture.shape[2], picture.shape[1]], device=points.device)
    return {
        "x and y are exchanged: x counts columns from the left, y rows from the top, and a picture is (D, rows, cols).":
            sample(picture, points.flip(1)),
        "The corners are aligned (align_corners=True): 0 and 1 are the edges of the picture, half a patch beyond the "
        "centres of its outer patches.": _grid_sample(picture, points, align_corners=True),
        "Half a patch off: the centre of the first patch is at half a patch from the edge, so subtract 0.5.":
            sample(picture, points + 0.5 / size),
        "Wrong scale: points go from 0 to 1, so multiply them by the number of columns and of rows.":
            sample(picture, (points + 0.5) / size),
        "Wrong scale: `F.grid_sample` has the corners at -1 and 1, and these points have them at 0 and 1.":
            sample(picture, (points + 1) / 2),
        "It takes the nearest patch: between patches, mix the four around the point.":
            _grid_sample(picture, points, mode="nearest"),
        "Outside the picture it repeats the patches of the edge: there is nothing there, so zeros.":
            _grid_sample(picture, points, padding_mode="border"),
        "The result is transposed: a row a point, (P, D).": sample(picture, points).T,
    }  # fmt: skip


EXERCISES = {
    "05.pool": ExerciseSpec("Average pooling by hand", 2, pool, check_pool),
    "05.shuffle": ExerciseSpec("Pixel shuffle", 2, shuffle, check_shuffle),
    "05.sample": ExerciseSpec("Between the patches", 3, sample, check_sample),
}
