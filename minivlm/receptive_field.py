"""Receptive field: which patches can a visual token hear, and how well? Measured by the gradient (Luo et al. 2016,
arXiv:1701.04128), so of any connector, whether it attends, convolves or pools."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Grid


def receptive_field(
    connector: nn.Module, features: Float[Tensor, "B N D"], token: int, grid: Grid, question: tuple[Tensor, ...] = ()
) -> Float[Tensor, "rows cols"]:
    """The share that each patch of `grid` has in what moves one visual token; sums to 1, mean over the B pictures.
    A token that nothing moves has zeros.

    A patch counts by the sum of |d y / d x| over all numbers y of the token and x of the patch, around these very
    `features`. A class token in front of them is left out. `question` is what a conditioned connector reads beside
    them: ids and their mask. ValueError for features that do not fit the grid, and for a token that there is not.
    """
    patches = grid[0] * grid[1]
    if not patches <= features.shape[1] <= patches + 1:
        raise ValueError(f"{features.shape[1]} features are not the {grid[0]}x{grid[1]} patches and a class token")
    features = features.detach().requires_grad_()
    with torch.enable_grad():
        tokens = connector(features, *question)  # (B, K, Dout)
        if not 0 <= token < tokens.shape[1]:
            raise ValueError(f"no token {token}: this connector makes {tokens.shape[1]}, from 0")
        numbers = tokens[:, token].sum(dim=0)  # (Dout,); no picture hears another, so gradients stay apart
        moved = [torch.autograd.grad(number, features, retain_graph=True)[0].abs() for number in numbers]
    heat = torch.stack(moved).sum(dim=(0, 3))[:, -patches:]  # (B, rows*cols)
    total = heat.sum(dim=1, keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    return (heat / total).mean(dim=0).view(grid)
