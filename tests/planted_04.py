"""Classic mistakes in the exercises of lesson 04, each with the message that it must get."""

from __future__ import annotations

_LOOK = """
def look(queries, patches, wq, wk, wv):
    q, k, v = queries @ wq.T, patches @ wk.T, patches @ wv.T
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return {}
"""

_LAYER = """
def perceiver_layer(latents, features, features_norm, latents_norm, attention, mlp_norm, mlp):
    asking, normed = latents_norm(latents), features_norm(features)
    held = {start} + attention({queries}, torch.cat([{keys}], dim=1))
    return {end}mlp(mlp_norm(held))
"""

_MASK = """
def who_sees_whom(queries, words):
    seen = torch.cat([torch.ones_like(words[:, :1]).expand(-1, queries), words], dim=1)
    both = seen[:, None].repeat(1, seen.shape[1], 1)
    {}
    return both
"""


def _layer(start: str = "latents", queries: str = "asking", keys: str = "normed, asking", end: str = "held + ") -> str:
    return _LAYER.format(start=start, queries=queries, keys=keys, end=end)


MISTAKES = {
    "04.look": [
        (_LOOK.format("scores.softmax(1) @ v"), "softmax runs over the queries"),
        (_LOOK.format("(q @ k.transpose(1, 2)).softmax(-1) @ v"), r"not divided by sqrt\(d\)"),
        (_LOOK.format("(q @ v.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ k"), "Values and keys are exchanged"),
        (_LOOK.format("scores.softmax(-1) @ k"), "keys are handed on"),
        (_LOOK.format("scores.transpose(1, 2).softmax(-1) @ q"), "Roles exchanged"),
    ],
    "04.layer": [
        (_layer(keys="normed"), "latents are not appended"),
        (_layer(keys="normed, latents"), "Un-normed latents are appended"),
        (_layer(queries="latents"), "queries are un-normed latents"),
        (_layer(keys="features, asking"), "features are not normed"),
        (_layer(start="0"), "no residual around the attention"),
        (_layer(end=""), "no residual around the MLP"),
    ],
    "04.mask": [
        (_MASK.format("both[:, :queries, queries:] = False"), "Queries are cut off from the words"),
        (_MASK.format("both[:] = True"), "Padding is seen"),
        (_MASK.format("both = both.tril()"), "It is causal: nobody"),
        (_MASK.format("both[:, queries:, :queries] = False"), "Words are cut off from the queries"),
        (_MASK.format("both = both[:, None]"), "Leave the axis of heads out"),
    ],
}
