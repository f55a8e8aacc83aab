"""Classic mistakes in the exercises of lesson 07, each with the message that it must get."""

from __future__ import annotations

_ROUTE = """
def routed(x, seen, expert, own):
    here, by_expert, by_own = seen[..., None], x @ expert.T, x @ own.T
    return {}
"""

_ATTENTION = """
def joint_attention(x, seen, expert, own):
    here = seen[..., None]
    def routed(n, x):
        return torch.where(here, x @ expert[n].T, x @ own[n].T)
    q, k, v = routed(0, x), {k}, {v}
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device){causal}
    {change}
    scores = q @ k.transpose(1, 2) / {scale}
    mixed = scores.masked_fill(~mask, -torch.inf).softmax({axis}) @ v
    return {out}
"""

_BY_ASKER = """
def joint_attention(x, seen, expert, own):
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    def whole(maps):
        q, k, v = (x @ weight.T for weight in maps[:3])
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v @ maps[3].T
    return torch.where(seen[..., None], whole(expert), whole(own))
"""

_PLACES = """
def places(patch):
    plain = torch.arange(patch.shape[1], device=patch.device).repeat(len(patch), 1)
    before = torch.cat([torch.zeros_like(patch[:, :1]), patch[:, :-1]], dim=1)
    return {}
"""


def _attention(
    k: str = "routed(1, x)", v: str = "routed(2, x)", causal: str = ".tril()", change: str = "pass",
    scale: str = "q.shape[-1] ** 0.5", axis: str = "-1", out: str = "routed(3, mixed)",
) -> str:  # fmt: skip
    return _ATTENTION.format(k=k, v=v, causal=causal, change=change, scale=scale, axis=axis, out=out)


MISTAKES = {
    "07.route": [
        (_ROUTE.format("torch.where(here, by_own, by_expert)"), "routes are exchanged"),
        (_ROUTE.format("by_expert + by_own"), "Both are added"),
        (_ROUTE.format("by_expert"), "expert is everywhere"),
        (_ROUTE.format("(by_expert + by_own) / 2"), "mean of both"),
        (_ROUTE.format("torch.where(seen.any(1)[:, None, None], by_expert, by_own)"), "whole sample is sent one way"),
        (_ROUTE.format("by_own + here * by_expert"), "IN its place"),
        (_ROUTE.format("here * by_expert"), "Words are lost"),
    ],
    "07.attention": [
        (_attention(change="mask = mask & (seen[:, :, None] == seen[:, None, :])"), "Two attentions"),
        (_BY_ASKER, "one who asks chooses"),
        (_attention(out="mixed @ own[3].T"), "map out of the attention is the decoder's own"),
        (_attention(v="x @ own[2].T"), "values are the decoder's own"),
        (_attention(k="x @ own[1].T", v="x @ own[2].T"), "Keys and values are the decoder's own"),
        (_attention(causal=""), "It is not causal"),
        (_attention(scale="1"), r"not divided by sqrt\(d\)"),
        (_attention(axis="1"), "softmax runs over the places that look"),
    ],
    "07.places": [
        (_PLACES.format("plain"), "Every patch takes a place"),
        (_PLACES.format("(~patch).long().cumsum(dim=1) - 1"), "take no place at all"),
        (_PLACES.format("(~(patch & before)).long().cumsum(dim=1)"), "begins at 1"),
        (
            _PLACES.format("torch.where(patch, (~(patch & before)).long().cumsum(dim=1) - 1, plain)"),
            "counts on as if each had taken one",
        ),
        (_PLACES.format("torch.where(patch, 0, (~(patch & before)).long().cumsum(dim=1) - 1)"), "told place 0"),
    ],
}
