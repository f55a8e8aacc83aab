"""Attention: two paths with one result, held to a loop that a reader can check by eye."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from references import assert_same, randomise
from torch import Tensor, nn

from minivlm.attention import Attention, LayerCache, attend, capturing, rotary, rotate

# batch, heads, key heads, queries, keys, head size
SHAPES = [(2, 3, 3, 5, 7, 6), (1, 4, 2, 6, 6, 10), (2, 6, 1, 3, 9, 14)]


@torch.no_grad()
def slow_attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Tensor | None = None) -> Tensor:
    """One query at a time over the keys it may attend to; zeros where there are none."""
    bias = torch.zeros(allowed.shape) if bias is None else bias
    batch, heads, queries, dim = q.shape
    result = torch.zeros(batch, heads, queries, v.shape[-1])
    for b in range(batch):
        for h in range(heads):
            shared = h * k.shape[1] // heads  # heads side by side share keys
            for i in range(queries):
                keys = [j for j in range(k.shape[2]) if allowed[b, h, i, j]]
                sums = [float(q[b, h, i] @ k[b, shared, j]) / math.sqrt(dim) + float(bias[b, h, i, j]) for j in keys]
                scores = [math.exp(s) for s in sums]
                for score, j in zip(scores, keys, strict=True):
                    result[b, h, i] += score / sum(scores) * v[b, shared, j]
    return result


def random_qkv(shape: tuple, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, kv_heads, queries, keys, dim = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, dim + 2)]
    return tuple(torch.randn(size, generator=generator).requires_grad_() for size in sizes)


def masks(shape: tuple) -> dict[str, Tensor]:
    """Masks of every broadcastable form."""
    batch, heads, _, queries, keys, _ = shape
    generator = torch.Generator().manual_seed(1)
    random = torch.rand(batch, heads, queries, keys, generator=generator) < 0.5
    random[..., 0] = True
    empty_row = random.clone()
    empty_row[0, :, 1] = False
    return {
        "a head": random,
        "a batch": random[:, :1],
        "shared": random[:1, :1],
        "with an empty row": empty_row,
    }


def both_paths(q: Tensor, k: Tensor, v: Tensor, **options) -> list[tuple[Tensor, ...]]:
    """Output and gradients of the fused and of the explicit path."""
    results, inputs = [], (q, k, v, *([options["bias"]] if "bias" in options else []))
    for explicit in (False, True):
        y, _ = attend(q, k, v, explicit=explicit, **options)
        target = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        results.append((y, *torch.autograd.grad((y * target).sum(), inputs)))
    return results


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", ["a head", "a batch", "shared", "with an empty row"])
def test_masked(shape, form):
    q, k, v = random_qkv(shape)
    mask = masks(shape)[form]
    fused, explicit = both_paths(q, k, v, mask=mask)
    assert_same(fused[0], slow_attend(q, k, v, mask.expand(*q.shape[:3], k.shape[2])))
    for one, other in zip(fused, explicit, strict=True):
        assert one.isfinite().all()
        assert_same(one, other)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", [None, "a head", "shared", "with an empty row"])
@pytest.mark.parametrize("shared", [False, True], ids=["a bias for each", "a bias for all"])
def test_biased(shape, form, shared):
    q, k, v = random_qkv(shape)
    whole = (*q.shape[:3], k.shape[2])
    mask = None if form is None else masks(shape)[form]
    sizes = (1, 1, *whole[2:]) if shared else whole
    bias = 2 * torch.randn(sizes, generator=torch.Generator().manual_seed(3))
    fused, explicit = both_paths(q, k, v, mask=mask, bias=bias.requires_grad_())
    allowed = torch.ones(whole, dtype=torch.bool) if mask is None else mask.expand(whole)
    assert_same(fused[0], slow_attend(q, k, v, allowed, bias.expand(whole)))
    for one, other in zip(fused, explicit, strict=True):
        assert one.isfinite().all()
        assert_same(one, other)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("is_causal", [False, True], ids=["open", "causal"])
def test_unmasked(shape, is_causal):
    q, k, v = random_qkv(shape)
    allowed = torch.ones(*q.shape[:3], k.shape[2], dtype=torch.bool)
    fused, explicit = both_paths(q, k, v, is_causal=is_causal)
    assert_same(fused[0], slow_attend(q, k, v, allowed.tril() if is_causal else allowed))
    for one, other in zip(fused, explicit, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
def test_nothing_to_attend_to_gives_zeros(explicit):
    q, k, v = random_qkv(SHAPES[0])
    mask = masks(SHAPES[0])["with an empty row"]
    y, _ = attend(q, k, v, mask, explicit=explicit)
    y.square().sum().backward()
    assert (y[0, :, 1] == 0).all()
    assert (q.grad[0, :, 1] == 0).all()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_mask_and_causal_together_are_refused():
    q, k, v = random_qkv(SHAPES[1])
    with pytest.raises(ValueError, match="either a mask or is_causal"):
        attend(q, k, v, torch.ones(1, 1, 6, 6, dtype=torch.bool), is_causal=True)
    with pytest.raises(ValueError, match="nor a bias: build the causal rule into the mask"):
        attend(q, k, v, is_causal=True, bias=torch.zeros(1, 1, 6, 6))


def test_weights_are_shares():
    q, k, v = random_qkv(SHAPES[0])
    mask = masks(SHAPES[0])["with an empty row"]
    _, weights = attend(q, k, v, mask, explicit=True)
    assert (weights[~mask] == 0).all()
    assert_same(weights.sum(dim=-1), mask.any(dim=-1).float(), 1e-6)


# --- rotary positions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [1e4, 25000.0])
@pytest.mark.parametrize("dim", [6, 10, 16])
def test_rotary_turns_complex_numbers(dim, theta):
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(0, 200, (2, 5), generator=generator)
    x = torch.randn(2, 3, 5, dim, generator=generator)
    turned = rotate(x, *rotary(positions, dim, theta))
    pairs = torch.complex(x[..., : dim // 2], x[..., dim // 2 :])  # channel i pairs with channel i + dim/2
    for i in range(dim // 2):
        angles = [[position * theta ** (-2 * i / dim) for position in row] for row in positions.tolist()]
        turns = torch.tensor([[cmath.exp(1j * angle) for angle in row] for row in angles])[:, None]  # (B, 1, L)
        wanted = pairs[..., i] * turns
        assert_same(turned[..., i], wanted.real, 1e-4)  # angles up to 200 in fp32
        assert_same(turned[..., i + dim // 2], wanted.imag, 1e-4)


def test_rotary_scores_depend_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 10, generator=torch.Generator().manual_seed(0))

    def score(at: int, other: int) -> Tensor:
        turned = [rotate(x, *rotary(torch.tensor([[place]]), 10, 1e4)) for x, place in ((q, at), (k, other))]
        return (turned[0] * turned[1]).sum()

    assert_same(score(3, 5), score(13, 15))
    assert (score(3, 5) - score(3, 6)).abs() > 1e-2


# --- the module -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_width", [None, 14], ids=["self", "cross"])
def test_module_equals_torch(context_width):
    theirs = nn.MultiheadAttention(18, 3, batch_first=True, kdim=context_width, vdim=context_width)
    randomise(theirs)
    ours = Attention(18, 3, context_width=context_width)
    if context_width is None:
        weights = theirs.in_proj_weight.chunk(3)
    else:
        weights = theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight
    state = {f"{name}.weight": weight for name, weight in zip("qkv", weights, strict=True)}
    state |= {f"{name}.bias": bias for name, bias in zip("qkv", theirs.in_proj_bias.chunk(3), strict=True)}
    ours.load_state_dict(state | {f"out.{kind}": p for kind, p in theirs.out_proj.named_parameters()})
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 18, generator=generator)
    context = x if context_width is None else torch.randn(2, 7, context_width, generator=generator)
    wanted, _ = theirs(x, context, context)
    assert_same(ours(x, None if context_width is None else context), wanted)


def test_cache_gives_the_same_numbers_step_by_step():
    attention = randomise(Attention(24, 4, kv_heads=2, bias=False))
    x = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(0))
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    angles = rotary(torch.arange(6).expand(2, -1), attention.head_dim, 1e4)
    with torch.no_grad():
        whole = attention(x, mask=causal, angles=angles)
        cache = LayerCache(max_length=8)
        for start, end in ((0, 3), (3, 4), (4, 6)):
            part = tuple(angle[:, :, start:end] for angle in angles)
            step = attention(x[:, start:end], mask=causal[:, :, start:end, :end], angles=part, cache=cache)
            assert_same(step, whole[:, start:end])


def test_cache_keeps_what_it_was_given_and_refuses_more():
    k, v = torch.randn(2, 1, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    cache = LayerCache(max_length=5)
    cache.append(k[:, :, :3], v[:, :, :3])
    kept_k, kept_v = cache.append(k[:, :, 3:], v[:, :, 3:])
    assert cache.length == 4
    assert torch.equal(kept_k, k) and torch.equal(kept_v, v)
    with pytest.raises(ValueError, match="holds 5 positions, 7 are needed"):
        cache.append(k[:, :, :3], v[:, :, :3])
    assert cache.length == 4


# --- capture --------------------------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Attention(18, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, is_causal=True)
        return x


def test_capture_changes_nothing_and_names_its_maps():
    model = randomise(TwoLayers())
    x = torch.randn(2, 5, 18, generator=torch.Generator().manual_seed(0))
    plain = model(x)
    with capturing(model) as maps:
        captured = model(x)
    assert_same(captured, plain, 1e-6)
    assert list(maps) == ["layers.0.weights", "layers.1.weights"]
    for weights in maps.values():
        assert weights.shape == (2, 3, 5, 5)
        assert_same(weights.sum(dim=-1), torch.ones(2, 3, 5), 1e-6)
        assert (weights.triu(1) == 0).all()


def test_captured_maps_stay_in_the_graph():
    model = randomise(TwoLayers())
    with capturing(model) as maps:
        y = model(torch.randn(1, 5, 18, generator=torch.Generator().manual_seed(0)))
    gradient, *_ = torch.autograd.grad(y[0, -1, 0], maps["layers.0.weights"])
    assert (gradient[:, :, -1] != 0).all()  # the last query's own row matters to its output


def test_capture_ends_with_its_block_even_after_an_error():
    model = TwoLayers()
    with pytest.raises(RuntimeError, match="stop"), capturing(model) as maps:
        raise RuntimeError("stop")
    model(torch.zeros(1, 2, 18))
    assert maps == {}
    assert all(layer.tap is None for layer in model.layers)


@pytest.mark.parametrize("masked", [True, False])
def test_on_a_gpu_cudnn_is_not_given_a_mask(monkeypatch, masked):
    """Its backward gives NaN for 64, 192, ... keys and a query that may attend to nothing."""
    allowed = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def spy(*inputs, **options):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return fused(*inputs, **options)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", spy)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    q, k, v = random_qkv(SHAPES[0])
    attend(q, k, v, mask=torch.ones(1, 1, 5, 7, dtype=torch.bool) if masked else None)
    assert allowed == [not masked]
    assert torch.backends.cuda.cudnn_sdp_enabled()
