"""Wrong answers to the exercises of lesson 05, and what their check must say of them."""

_POOL = """
def pool(features, grid, cells):
    down, across = cells
    tall, wide = grid[0] // down, grid[1] // across
    blocks = features.unflatten(1, (down, tall, across, wide))
    return {}
"""
_SHUFFLE = """
def shuffle(features, grid, factor):
    rows, cols = grid[0] // factor, grid[1] // factor
    squares = features.unflatten(1, (rows, factor, cols, factor))
    return {}
"""
_SAMPLE = """
def sample(picture, points):
    rows, cols = picture.shape[1:]
    x, y = {place}
    left, top = x.floor(), y.floor()
    found = 0
    for col, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = {weight}
        inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
        patch = picture[:, row.long().clamp(0, rows - 1), col.long().clamp(0, cols - 1)]
        found = found + patch * (weight * {inside})
    return found.T
"""
_TORCH_SAMPLE = """
import torch.nn.functional as F
def sample(picture, points):
    return F.grid_sample(picture[None], {}[None, None], align_corners={})[0, :, 0].T
"""


def _sample(
    place: str = "(points[:, 0] * cols - 0.5, points[:, 1] * rows - 0.5)",
    weight: str = "(1 - (x - col).abs()) * (1 - (y - row).abs())",
    inside: str = "inside",
) -> str:
    return _SAMPLE.format(place=place, weight=weight, inside=inside)


MISTAKES = {
    "05.pool": [
        (_POOL.format("blocks.mean(dim=(2, 4)).transpose(1, 2).flatten(1, 2)"), "Rows and columns are exchanged"),
        (_POOL.format("blocks.mean(dim=(1, 3)).flatten(1, 2)"), "mean goes over the wrong axes"),
        (_POOL.format("blocks.amax(dim=(2, 4)).flatten(1, 2)"), "largest of each cell"),
        (_POOL.format("features.unflatten(1, (down * across, -1)).mean(dim=2)"), "follow one another for a cell"),
        (_POOL.format("blocks.sum(dim=(2, 4)).flatten(1, 2)"), "adds the patches of a cell up"),
    ],
    "05.shuffle": [
        (_SHUFFLE.format("squares.flatten(3).reshape(len(features), rows * cols, -1)"), "No squares"),
        (_SHUFFLE.format("squares.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)"), "squares are transposed"),
        (_SHUFFLE.format("squares.permute(0, 3, 1, 2, 4, 5).flatten(3).flatten(1, 2)"), "of squares are exchanged"),
        (_SHUFFLE.format("squares.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)"), "channels of the patches"),
        (
            _SHUFFLE.replace("(rows, factor, cols, factor)", "(factor, rows, factor, cols)").format(
                "squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)"
            ),
            "Off-by-one grid",
        ),
    ],
    "05.sample": [
        (_sample(place="(points[:, 1] * cols - 0.5, points[:, 0] * rows - 0.5)"), "x and y are exchanged"),
        (_sample(place="(points[:, 0] * (cols - 1), points[:, 1] * (rows - 1))"), "corners are aligned"),
        (_sample(place="(points[:, 0] * cols, points[:, 1] * rows)"), "Half a patch off"),
        (_sample(place="(points[:, 0], points[:, 1])"), "Wrong scale: points go from 0 to 1"),
        (_sample(inside="1"), "repeats the patches of the edge"),
        (_TORCH_SAMPLE.format("(2 * points - 1)", "True"), "corners are aligned"),
        (_TORCH_SAMPLE.format("points", "False"), "Wrong scale: `F.grid_sample`"),
    ],
}
