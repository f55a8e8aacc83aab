"""The dull shared parts: activations by name, two MLPs, and the pre-norm block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): OpenAI CLIP's cheap GELU, different enough from the exact one to break its weights."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "relu": F.relu,
}


def check_activation(name: str) -> None:
    """ValueError with the known names if `name` is none of them; configs call it when they are made."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")


def check_divides(heads: int, width: int) -> None:
    """ValueError unless `width` splits evenly into `heads` heads; configs call it when they are made."""
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} does not split into {heads} heads: make width a multiple of heads")


def check_groups(kv_heads: int, heads: int) -> None:
    """ValueError unless every key head serves as many query heads; configs call it when they are made."""
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"{heads} heads cannot share {kv_heads} key heads evenly: make heads a multiple of kv_heads")


def check_positive(**sizes: int) -> None:
    """ValueError naming the first of `sizes` that is below 1; configs call it when they are made."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


class MLP(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, width: int, hidden: int, activation: str, out_width: int | None = None, bias: bool = True):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, out_width or width, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B Dout"]:
        return self.down(self.activation(self.up(x)))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, width: int, hidden: int, out_width: int | None = None):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, out_width or width, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B Dout"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """The pre-norm transformer block: x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp

    def forward(self, x: Float[Tensor, "B L D"], **attention_options) -> Float[Tensor, "B L D"]:
        x = x + self.attention(self.attention_norm(x), **attention_options)
        return x + self.mlp(self.mlp_norm(x))
