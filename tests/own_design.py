"""A design of one's own, as a user adds it: a picture becomes a token for each row of patches, their mean."""

from dataclasses import dataclass

from torch import nn

from minivlm.connectors.connector import Connector
from minivlm.layout import VisualLayout
from minivlm.mini import vlm


@dataclass(frozen=True)
class RowMeans:
    def build(self, width, out_width, grid):
        return RowMean(width, out_width, grid)


class RowMean(Connector, nn.Module):
    def __init__(self, width, out_width, grid):
        super().__init__()
        self.grid, self.linear = grid, nn.Linear(width, out_width)

    def layout(self, grid):
        return VisualLayout.cells((grid[0], 1))

    def forward(self, features):
        return self.linear(features.unflatten(1, self.grid).mean(dim=2))  # (B, rows, out_width)


def rows():
    return vlm(RowMeans())
