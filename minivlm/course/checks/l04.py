"""Exercises of lesson 04: queries that look at patches, one layer of a Perceiver, and who sees whom in InstructBLIP."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivlm.attention import Attention, attend
from minivlm.connectors.perceiver import Layer
from minivlm.course.checks import Norm, compare, draw
from minivlm.course.exercise import ExerciseSpec, Mistake


def look(queries: Tensor, patches: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    """Cross attention in one head by the package's `attend`: queries (B, K, W) over patches (B, N, D) to (B, K, d)."""
    q, k, v = F.linear(queries, wq), F.linear(patches, wk), F.linear(patches, wv)
    return attend(q[:, None], k[:, None], v[:, None])[0][:, 0]


def check_look(answer: Callable) -> None:
    queries, patches = draw(2, 3, 5, seed=1), draw(2, 7, 6, seed=2)
    wq, wk, wv = draw(4, 5, seed=3), draw(4, 6, seed=4), draw(4, 6, seed=5)
    q, k, v = F.linear(queries, wq), F.linear(patches, wk), F.linear(patches, wv)
    scores = q @ k.transpose(1, 2)  # (B, K, N)
    shares = (scores / 2).softmax(-1)
    classics = {
        "The softmax runs over the queries: each QUERY shares out its attention among the patches, the last axis.":
            (scores / 2).softmax(1) @ v,
        "The softmax runs over the pictures of the batch: each query shares out its attention among the patches.":
            (scores / 2).softmax(0) @ v,
        "The scores are not divided by sqrt(d).": scores.softmax(-1) @ v,
        "Divided by d, not by sqrt(d).": (scores / 4).softmax(-1) @ v,
        "Divided by the square root of the queries' width: d is the size of what is compared, the last axis of q.":
            (scores / 5**0.5).softmax(-1) @ v,
        "Values and keys are exchanged: `wk` makes what is compared with the query, `wv` what is handed on.":
            look(queries, patches, wq, wv, wk),
        "The keys are handed on: what a query gets is made by `wv`.": shares @ k,
        "There is no softmax: the shares of a query must be positive and sum to 1.": scores / 2 @ v,
        "The patches themselves are handed on: a query gets what `wv` makes of them.": shares @ patches,
        "Roles exchanged: the patches look at the queries. K queries ask, so K vectors come out, not N.":
            (scores / 2).transpose(1, 2).softmax(-1) @ q,
    }  # fmt: skip
    compare(answer(queries, patches, wq, wk, wv), look(queries, patches, wq, wk, wv), classics)


def perceiver_layer(
    latents: Tensor,
    features: Tensor,
    features_norm: nn.Module,
    latents_norm: nn.Module,
    attention: Callable,
    mlp_norm: nn.Module,
    mlp: nn.Module,
) -> Tensor:
    """The package's `Layer` with these parts: latents (B, K, W) and features (B, N, W) to new latents (B, K, W)."""
    layer = Layer(Attention(width=1, heads=1), nn.Identity(), nn.Identity)
    given = (features_norm, latents_norm, attention, mlp_norm, mlp)
    for name, part in zip(("context_norm", "latents_norm", "attention", "mlp_norm", "mlp"), given, strict=True):
        setattr(layer, name, part)
    return layer(latents, features)


class _Attention(nn.Module):
    """One head, with `context` as the package's Attention takes it."""

    def __init__(self):
        super().__init__()
        self.maps = [draw(6, 6, seed=seed) / 2 for seed in (31, 32, 33)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return look(x, x if context is None else context, *self.maps)


class _MLP(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, draw(9, 6, seed=34)).relu(), draw(6, 9, seed=35))


def check_layer(answer: Callable) -> None:
    latents, features = 2 * draw(2, 3, 6, seed=21), 3 * draw(2, 5, 6, seed=22) + 1
    of_features, of_latents, of_mlp = Norm(23), Norm(25), Norm(27)
    parts = (of_features, of_latents, _Attention(), of_mlp, _MLP())
    compare(
        answer(latents, features, *parts),
        perceiver_layer(latents, features, *parts),
        _wrong_layers(latents, features, *parts),
    )


def _wrong_layers(
    latents: Tensor, features: Tensor, of_features: nn.Module, of_latents: nn.Module, attention: nn.Module,
    of_mlp: nn.Module, mlp: nn.Module,
) -> dict[str, Tensor]:  # fmt: skip
    """What the classic mistakes give, by their messages."""
    asking, normed = of_latents(latents), of_features(features)

    def closed(seen: Tensor) -> Tensor:
        held = latents + seen
        return held + mlp(of_mlp(held))

    def among(*keys: Tensor, queries: Tensor = asking) -> Tensor:
        return attention(queries, torch.cat(keys, dim=1))

    right = among(normed, asking)
    held = latents + right
    return {
        "The latents are not appended: a latent sees the features, and all latents as well.": closed(among(normed)),
        "Un-normed latents are appended: what is looked at is `latents_norm(latents)`, as the queries are.":
            closed(among(normed, latents)),
        "The queries are un-normed latents: `latents_norm` comes before the attention.":
            closed(among(normed, asking, queries=latents)),
        "Queries and appended latents are both un-normed: `latents_norm` comes before the attention.":
            closed(among(normed, latents, queries=latents)),
        "The features are not normed: they pass `features_norm` before they are looked at.":
            closed(among(features, asking)),
        "One norm for both: features pass `features_norm`, latents pass `latents_norm`.":
            closed(among(of_latents(features), asking)),
        "The two norms are exchanged: features pass `features_norm`, latents pass `latents_norm`.":
            closed(among(of_latents(features), of_features(latents), queries=of_features(latents))),
        "The latents see only one another: the features must be among what is looked at.": closed(among(asking)),
        "There is no residual around the attention: what it gives is ADDED to the latents.":
            right + mlp(of_mlp(right)),
        "The attention's result is added to the normed latents: a residual keeps the latents as they came.":
            asking + right + mlp(of_mlp(asking + right)),
        "There is no residual around the MLP: what it gives is ADDED to the latents.": mlp(of_mlp(held)),
        "The MLP is missing.": held,
        "The MLP reads latents without `mlp_norm`.": held + mlp(held),
        "The MLP reads the latents from before the attention: first look, then think.":
            held + mlp(of_mlp(latents)),
    }  # fmt: skip


def who_sees_whom(queries: int, words: Tensor) -> Tensor:
    """The mask that `ReadingEncoder` builds, without its axis of heads: (B, Q+P, Q+P)."""
    seen = torch.cat([words.new_ones(len(words), queries), words], dim=1)  # (B, Q+P)
    return seen[:, None].expand(-1, seen.shape[1], -1)


def check_mask(answer: Callable) -> None:
    words = torch.tensor([[True, True, True, False], [True, False, False, False]], device=draw(1, seed=1).device)
    for queries in (3, 1):
        _compare_masks(answer(queries, words), queries, words)


def _compare_masks(got: object, queries: int, words: Tensor) -> None:
    want = who_sees_whom(queries, words)
    if isinstance(got, Tensor) and got.shape == (len(words), 1, *want.shape[1:]):
        raise Mistake(f"Leave the axis of heads out: the mask is {tuple(want.shape)}, got {tuple(got.shape)}.")
    real = torch.cat([words.new_ones(len(words), queries), words], dim=1)  # (B, Q+P), False = padding
    wrong = {message: _of_readers(mask, real) for message, mask in _wrong_masks(want, queries, words).items()}
    compare(_of_readers(got, real), _of_readers(want, real), wrong)


def _of_readers(mask: object, real: Tensor) -> object:
    """The same without what padding would see: nobody reads it, so it may be anything."""
    fits = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == (*real.shape, real.shape[1])
    return mask & real[:, :, None] if fits else mask


def _wrong_masks(want: Tensor, queries: int, words: Tensor) -> dict[str, Tensor]:
    """What the classic mistakes give, by their messages."""
    everyone, place = torch.ones_like(want), torch.arange(want.shape[1], device=want.device)
    of_query = place < queries
    to_words = of_query[:, None] & ~of_query
    to_queries = ~of_query[:, None] & of_query
    turned = torch.cat([words, words.new_ones(len(words), queries)], dim=1)[:, None].expand_as(want)
    return {
        "Padding is seen: where `words` is False there is no word, and nobody may look there.": everyone,
        "Queries are cut off from the words, so the question changes nothing that they look for.": want & ~to_words,
        "Words are cut off from the queries: all attend to all here, both ways.": want & ~to_queries,
        "Queries and words are cut off from each other: all attend to all here.": want & ~to_words & ~to_queries,
        "It is causal: nobody here writes word by word, so each may see those before AND after it.":
            want & everyone.tril(),
        "It is causal, and padding is seen: each may see those before and after it, but no padding.": everyone.tril(),
        "Queries do not see one another: all attend to all here.":
            want & ~(of_query[:, None] & of_query & ~torch.eye(len(place), dtype=torch.bool, device=want.device)),
        "The words stand in front: the queries come first, then the words.": turned,
        "It is turned over: True = may attend, False = padding.": ~want,
    }  # fmt: skip


EXERCISES = {
    "04.look": ExerciseSpec("Queries that look at patches", 2, look, check_look),
    "04.layer": ExerciseSpec("One layer of a Perceiver", 3, perceiver_layer, check_layer),
    "04.mask": ExerciseSpec("Who sees whom in InstructBLIP", 2, who_sees_whom, check_mask),
}
