"""Classic mistakes in the exercises of lesson 09, each with the message that it must get."""

from __future__ import annotations

_CANVAS = """
def best_canvas(size, canvases):
    height, width = {size}
    def merit(canvas):
        scale = {fit}(canvas[0] / height, canvas[1] / width)
        kept = int(height * scale) * int(width * scale)
        kept = {kept}
        return {merit}
    return max(canvases, key=merit)
"""

_KEPT = """
def kept_patches(size, rows, cols):
    height, width = {size}
    scale = min(rows / height, cols / width)
    high, wide = int(height * scale + 1e-6), int(width * scale + 1e-6)
    return {kept}
"""

_PLACES = """
def places(count, parts):
    row = torch.arange(count, dtype=torch.float64)
    return {}
"""


def _canvas(
    size: str = "size", fit: str = "min", kept: str = "min(kept, height * width)",
    merit: str = "(kept, kept - canvas[0] * canvas[1])",
) -> str:  # fmt: skip
    return _CANVAS.format(size=size, fit=fit, kept=kept, merit=merit)


def _kept(kept: str, size: str = "size") -> str:
    return _KEPT.format(size=size, kept=kept)


_BOTH_SIDES = "rows - (rows - high) // 2 * 2, cols - (cols - wide) // 2 * 2"

MISTAKES = {
    "09.canvas": [
        (_canvas(fit="max"), "hangs over the canvas"),
        (_canvas(kept="kept"), "not enlarged for credit"),
        (_canvas(merit="(kept, canvas[0] * canvas[1] - kept)"), "emptiest canvas wins ties"),
        (_canvas(merit="kept - canvas[0] * canvas[1]"), "Only the empty room is compared"),
        (_canvas(merit="kept"), "Only the surviving pixels are compared"),
        (_canvas(size="size[::-1]"), "Height and width are exchanged"),
    ],
    "09.kept": [
        (_kept("rows, cols"), "Nothing is taken away"),
        (_kept("rows - (rows - high) // 2, cols - (cols - wide) // 2"), "one side only"),
        (_kept("high, wide"), "as many go from either side"),
        (_kept(_BOTH_SIDES, size="size[::-1]"), "other side is shortened"),
    ],
    "09.places": [
        (_PLACES.format("row.long().clamp(max=parts - 1)"), "Rows are counted"),
        (_PLACES.format("(row / max(1, count - 1) * parts).long().clamp(max=parts - 1)"), "stretched to the last"),
        (_PLACES.format("(row / count * parts).round().long().clamp(max=parts - 1)"), "Rounded to the nearest"),
        (_PLACES.format("(row / count * parts).ceil().long().clamp(max=parts - 1)"), "Rounded up"),
        (_PLACES.format("((row + 0.5) / count * parts).long()"), "middle of the row"),
        (_PLACES.format("(row / parts * count).long()"), "exchanged"),
        (_PLACES.format("(row / count * parts).long() + 1"), "begins at 1"),
    ],
}
