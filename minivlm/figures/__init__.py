"""Figures: static matplotlib pictures of data, layouts and outputs, each with its description in words."""

from minivlm.figures.attention import heat_maps, picture_share
from minivlm.figures.common import PALETTE, show
from minivlm.figures.tokens import token_strip
from minivlm.figures.training import accuracy_bars, curves, picture_grid, similarity

__all__ = [
    "PALETTE",
    "accuracy_bars",
    "curves",
    "heat_maps",
    "picture_grid",
    "picture_share",
    "show",
    "similarity",
    "token_strip",
]
