"""Classic mistakes in the exercises of lesson 08, each with the message that it must get."""

from __future__ import annotations

_PATCHES = """
def patches(picture, p):
    _, height, width = picture.shape
    rows, cols = height // p, width // p
    squares = {pixels}.reshape(3, rows, p, cols, p)
    return {cut}
"""

_RASTER = """
def lined(tokens, newline, rows, cols):
    grid = tokens.reshape({grid}, -1)
    ends = newline.expand({ends}, 1, -1)
    return {joined}
"""

_WHERE = """
def where(newline):
    places = []
    row, col = {start}
    for place, ends in enumerate(newline.tolist()):
        {newline}
        row, col = {then}
    return torch.tensor(places, device=newline.device)
"""


def _cut(cut: str, pixels: str = "(2 * picture - 1)") -> str:
    return _PATCHES.format(pixels=pixels, cut=cut)


def _raster(joined: str, grid: str = "rows, cols", ends: str = "rows") -> str:
    return _RASTER.format(joined=joined, grid=grid, ends=ends)


def _where(
    start: str = "0, 0",
    newline: str = "places.append([-1, -1] if ends else [row, col])",
    then: str = "(row + 1, 0) if ends else (row, col + 1)",
) -> str:
    return _WHERE.format(start=start, newline=newline, then=then)


_BY_SIDE = """
def where(newline):
    cols = newline.tolist().index(True)
    place = torch.arange(len(newline), device=newline.device)
    return torch.stack([place // cols, place % cols], dim=1).masked_fill(newline[:, None], -1)
"""

MISTAKES = {
    "08.patches": [
        (_cut("squares.permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)"), "colours come first"),
        (_cut("squares.permute(3, 1, 2, 4, 0).reshape(rows * cols, -1)"), "go down the columns"),
        (_cut("squares.permute(1, 3, 4, 2, 0).reshape(rows * cols, -1)"), "within a patch are exchanged"),
        (_cut("(2 * picture - 1).reshape(rows * cols, -1)"), "A reshape alone"),
        (_cut("squares.permute(1, 3, 2, 4, 0).reshape(rows * cols, -1)", "picture"), r"still in \[0, 1\]"),
        (_cut("squares.permute(1, 3, 2, 4, 0).reshape(rows * cols, -1)", "(picture - 0.5)"), r"\[-0.5, 0.5\]"),
    ],
    "08.raster": [
        (_raster("torch.cat([ends, grid], dim=1).flatten(0, 1)"), "comes before each row"),
        (_raster("torch.cat([grid, ends], dim=1).flatten(0, 1)[:-1]"), "last row has no newline"),
        (_raster("torch.cat([tokens, newline[None]])"), "one newline, at the end of all"),
        (_raster("torch.cat([grid, ends], dim=1).flatten(0, 1)", "cols, rows", "cols"), "exchanged"),
        (_raster("torch.stack([tokens, newline.expand_as(tokens)], dim=1).flatten(0, 1)"), "every patch"),
        (_raster("torch.cat([grid[:, :-1], grid[:, -1:] + newline], dim=1).flatten(0, 1)"), "token of its own"),
        (_raster("torch.cat([tokens, newline.expand(cols, -1)])"), "row below the picture"),
    ],
    "08.where": [
        (_where(newline="places.append([-1, -1] if ends else [col, row])"), "Row and column are exchanged"),
        (_where(then="(row + 1, col + 1) if ends else (row, col + 1)"), "columns go on from row to row"),
        (_where(then="(row + 1, col) if ends else (row, col + 1)"), "still do"),
        (_BY_SIDE, "not counted as a place"),
        (_where(start="0, 1", then="(row + 1, 1) if ends else (row, col + 1)"), "columns begin at 1"),
        (_where(start="1, 0"), "rows begin at 1"),
        (_where(newline="places.append([row, col])"), "-1, twice"),
    ],
}
