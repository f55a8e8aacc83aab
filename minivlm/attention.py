"""Attention, once: masks, grouped heads, rotary positions, the KV cache, and the capture of what was attended.

Nobody else in the package calls softmax over attention scores. There are two paths with equal numbers: the fused kernel
of torch, and the explicit one, taken when somebody wants to see the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# Not cuDNN's: from torch 2.11 on its backward gives NaN where the keys are an odd multiple of 64 and a query may attend
# to nothing, as padding may not (seen on an H100 at 192 keys; pytorch/pytorch#196678)
MASKED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(
    q: Float[Tensor, "B H Lq d"],
    k: Float[Tensor, "B Hkv Lk d"],
    v: Float[Tensor, "B Hkv Lk dv"],
    mask: Bool[Tensor, "#B #H Lq Lk"] | None = None,
    is_causal: bool = False,
    explicit: bool = False,
    bias: Float[Tensor, "#B #H Lq Lk"] | None = None,
) -> tuple[Float[Tensor, "B H Lq dv"], Float[Tensor, "B H Lq Lk"] | None]:
    """Scaled dot-product attention, `softmax(q k^T / sqrt(d) + bias) v`; `H` must be a multiple of `Hkv` (grouped
    heads).

    `mask` is boolean, True = may attend; a query that may attend to nothing gets zeros. Returns the output and, with
    `explicit`, the weights (rows sum to 1, masked entries are exactly 0). Raises ValueError on `mask` or `bias` with
    `is_causal`.
    """
    if is_causal and not (mask is None and bias is None):
        raise ValueError("pass either a mask or is_causal, not both, nor a bias: build the causal rule into the mask")
    if not explicit:
        grouped, added = q.shape[1] != k.shape[1], _added(mask, bias)
        with sdpa_kernel(MASKED_KERNELS) if added is not None and q.is_cuda else nullcontext():
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=added, is_causal=is_causal, enable_gqa=grouped)
        return y, None
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)  # (B, H, Lk, d)
    scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])  # (B, H, Lq, Lk)
    if bias is not None:
        scores = scores + bias
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    if mask is not None:
        weights = weights * mask  # a row with nothing to attend to: zeros, not a uniform guess
    weights = weights.to(v.dtype)
    return weights @ v, weights


def _added(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Mask and bias as the one thing that the fused kernel takes."""
    return bias if mask is None else mask if bias is None else bias.masked_fill(~mask, -math.inf)


def rotary(
    positions: Int[Tensor, "B L"], dim: int, theta: float
) -> tuple[Float[Tensor, "B 1 L dim"], Float[Tensor, "B 1 L dim"]]:
    """Cosines and sines of rotary positions (RoFormer) as `rotate` takes them, for each of `dim` channels: one angle a
    pair, and the sine of its first channel negative."""
    exponents = torch.arange(0, dim, 2, device=positions.device).float() / dim
    angles = positions[:, None, :, None].float() / theta**exponents  # (B, 1, L, dim/2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Float[Tensor, "B H L d"], cos: Tensor, sin: Tensor) -> Float[Tensor, "B H L d"]:
    """Turn each channel pair (i, i + r/2) of the first r channels of `x` by its angle: the half-split ("NeoX") layout.

    There is an angle for each pair: Llama's are for all channels, Phi's leave the last ones as they are.
    """
    turned, cos, sin = cos.shape[-1], cos.to(x.dtype), sin.to(x.dtype)
    pairs = x[..., :turned]
    pairs = pairs * cos + pairs.roll(turned // 2, dims=-1) * sin  # rolled by half, each channel meets its partner
    return pairs if turned == x.shape[-1] else torch.cat([pairs, x[..., turned:]], dim=-1)


class LayerCache:
    """Keys and values of one attention layer, in buffers of `max_length` slots filled from the left."""

    def __init__(self, max_length: int):
        self.max_length, self.length = max_length, 0
        self.k = self.v = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add new keys and values, each (B, Hkv, Lnew, d); returns all so far. ValueError when the buffer is full."""
        end = self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(f"the KV cache holds {self.max_length} positions, {end} are needed: make a longer cache")
        if self.k is None:
            self.k = k.new_empty(*k.shape[:2], self.max_length, k.shape[3])
            self.v = v.new_empty(*v.shape[:2], self.max_length, v.shape[3])
        self.k[:, :, self.length : end], self.v[:, :, self.length : end] = k, v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]

    def retain(self, places: Int[Tensor, " n"]) -> None:
        """Forget all positions but those at `places`, which move together, in that order."""
        self.length = len(places)
        self.k[:, :, : self.length], self.v[:, :, : self.length] = self.k[:, :, places], self.v[:, :, places]


class Tapped(nn.Module):
    """A module that can be watched: `record` keeps a tensor for `capturing`, and costs nothing when nobody watches."""

    def __init__(self):
        super().__init__()
        self.tap: tuple[str, dict[str, Tensor]] | None = None

    def record(self, what: str, value: Tensor) -> None:
        if self.tap is not None:
            name, maps = self.tap
            maps[f"{name}.{what}"] = value


@contextmanager
def capturing(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, during one forward pass of `model`, whatever its tapped modules record, keyed `<module path>.<what>`.

    Tensors stay attached to the autograd graph, so the gradient of any logit with respect to any map can be taken.
    """
    maps: dict[str, Tensor] = {}
    tapped = [(name, module) for name, module in model.named_modules() if isinstance(module, Tapped)]
    for name, module in tapped:
        module.tap = (name, maps)
    try:
        yield maps
    finally:
        for _, module in tapped:
            module.tap = None


class Attention(Tapped):
    """Multi-head attention with its four projections: self-attention, or cross-attention when a `context` is given.

    `head_norm` makes, of a head's size, the norms that each head's queries and keys pass before they meet.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        context_width: int | None = None,
        bias: bool = True,
        out_bias: bool | None = None,
        head_norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_dim = head_dim or width // heads
        context_width = context_width or width
        self.q = nn.Linear(width, self.heads * self.head_dim, bias=bias)
        self.k = nn.Linear(context_width, self.kv_heads * self.head_dim, bias=bias)
        self.v = nn.Linear(context_width, self.kv_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(self.heads * self.head_dim, width, bias=bias if out_bias is None else out_bias)
        head_norm = head_norm or (lambda dim: nn.Identity())
        self.q_norm, self.k_norm = head_norm(self.head_dim), head_norm(self.head_dim)

    def forward(
        self,
        x: Float[Tensor, "B Lq D"],
        context: Float[Tensor, "B Lk Dc"] | None = None,
        mask: Bool[Tensor, "#B #H Lq Lk"] | None = None,
        is_causal: bool = False,
        angles: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        values: Float[Tensor, "B Lk Dc"] | None = None,
    ) -> Float[Tensor, "B Lq D"]:
        """Attend from `x` to `context` (default: `x`). `angles` are rotary cosines and sines, applied to q and k;
        `values` (default: the context) is what is handed on from where a key was attended to."""
        context = x if context is None else context
        v = self.v(context if values is None else values)
        return self.out(self.mix(self.q(x), self.k(context), v, mask, is_causal, angles, cache))

    def mix(
        self,
        q: Float[Tensor, "B Lq q"],
        k: Float[Tensor, "B Lnew k"],
        v: Float[Tensor, "B Lnew k"],
        mask: Bool[Tensor, "#B #H Lq Lk"] | None = None,
        is_causal: bool = False,
        angles: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        bias: Float[Tensor, "#B #H Lq Lk"] | None = None,
    ) -> Float[Tensor, "B Lq q"]:
        """What lies between the maps into heads and the map out of them, for whoever has projected queries, keys and
        values in a way of their own, or has a `bias` to add to the scores."""
        q = self.q_norm(self._split(q, self.heads))
        k, v = self.k_norm(self._split(k, self.kv_heads)), self._split(v, self.kv_heads)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        if cache is not None:
            k, v = cache.append(k, v)
        y, weights = attend(q, k, v, mask, is_causal, explicit=self.tap is not None, bias=bias)
        if weights is not None:
            self.record("weights", weights)
        return y.transpose(1, 2).flatten(2)  # (B, Lq, H*d)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)  # (B, heads, L, d)
