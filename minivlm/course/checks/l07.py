"""Exercises of lesson 07: one of two maps for each place, one attention over both, and the places that a decoder is
told."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivlm.attention import attend
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec
from minivlm.fusion.experts import divided
from minivlm.fusion.interleave import count_places

Maps = list[Tensor]  # weights: of queries, keys and values (d, D), and of the map out of the attention (D, d)


def routed(x: Tensor, seen: Tensor, expert: Tensor, own: Tensor) -> Tensor:
    """The package's `divided` with two linear maps: x (B, L, D) to (B, L, Dout)."""
    return divided(seen, _Map(expert), _Map(own), x)


class _Map(nn.Module):
    """A linear map with a weight that is there, (Dout, D)."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def check_route(answer: Callable) -> None:
    x, expert, own = draw(3, 5, 4, seed=71), draw(6, 4, seed=72), draw(6, 4, seed=73)
    seen = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool, device=x.device)
    by_expert, by_own, here = F.linear(x, expert), F.linear(x, own), seen[..., None]
    classics = {
        "The routes are exchanged: `expert` serves the places where `seen` is True, `own` all others.":
            torch.where(here, by_own, by_expert),
        "Both are added at every place: a place passes ONE of the two maps.": by_expert + by_own,
        "The mean of both is taken: a place passes ONE of the two maps.": (by_expert + by_own) / 2,
        "The expert is added to the decoder's own map: at a picture's places it stands IN its place.":
            torch.where(here, by_expert + by_own, by_own),
        "The expert is everywhere: words must pass the decoder's own map.": by_expert,
        "The decoder's own map is everywhere: the places of pictures must pass the expert.": by_own,
        "The whole sample is sent one way: the route is chosen place by place.":
            torch.where(seen.any(dim=1)[:, None, None], by_expert, by_own),
        "Words are lost: where `seen` is False stands what `own` makes, not zeros.": by_expert * here,
        "Pictures are lost: where `seen` is True stands what `expert` makes, not zeros.": by_own * ~here,
    }  # fmt: skip
    compare(answer(x, seen, expert, own), routed(x, seen, expert, own), classics)


def joint_attention(x: Tensor, seen: Tensor, expert: Maps, own: Maps) -> Tensor:
    """One head, causal, by the package's `attend`: every map is routed, the attention is one."""
    q, k, v = (routed(x, seen, *pair) for pair in zip(expert[:3], own[:3], strict=True))
    return routed(_attention(q, k, v), seen, expert[3], own[3])


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """In one head: causal, or with a mask (B, L, L)."""
    mask = None if mask is None else mask[:, None]
    return attend(q[:, None], k[:, None], v[:, None], mask, is_causal=mask is None)[0][:, 0]


def check_attention(answer: Callable) -> None:
    x = draw(2, 6, 5, seed=74)
    seen = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 1]], dtype=torch.bool, device=x.device)
    shapes = ((4, 5), (4, 5), (4, 5), (5, 4))
    expert, own = ([draw(*shape, seed=first + n) for n, shape in enumerate(shapes)] for first in (75, 85))
    got = answer(x, seen, expert, own)
    compare(got, joint_attention(x, seen, expert, own), _wrong_attentions(x, seen, expert, own))


def _wrong_attentions(x: Tensor, seen: Tensor, expert: Maps, own: Maps) -> dict[str, Tensor]:
    """What the classic mistakes give, by their messages."""
    q, k, v = (routed(x, seen, *pair) for pair in zip(expert[:3], own[:3], strict=True))
    word_q, word_k, word_v = (F.linear(x, weight) for weight in own[:3])
    causal = torch.ones(6, 6, dtype=torch.bool, device=x.device).tril().expand(2, -1, -1)
    alike = seen[:, :, None] == seen[:, None, :]  # (B, L, L)
    pictured = seen[:, :, None] & seen[:, None, :]
    scores, mixed = q @ k.transpose(1, 2), _attention(q, k, v)

    def out(mixed: Tensor) -> Tensor:
        return routed(mixed, seen, expert[3], own[3])

    def weighed(scores: Tensor, dim: int = -1) -> Tensor:
        return out(scores.masked_fill(~causal, -torch.inf).softmax(dim=dim) @ v)

    def unrouted(maps: Maps) -> Tensor:
        return F.linear(_attention(*(F.linear(x, weight) for weight in maps[:3])), maps[3])

    return {
        "Two attentions: words see only words, patches only patches. Both stand in ONE softmax.":
            out(_attention(q, k, v, causal & alike)),
        "The one who asks chooses the maps of all keys and values: a patch's are made by the expert, whoever looks.":
            torch.where(seen[..., None], unrouted(expert), unrouted(own)),
        "The routes are exchanged: `expert` serves the places where `seen` is True.":
            joint_attention(x, ~seen, expert, own),
        "Keys and values are the decoder's own everywhere: all four maps are routed.":
            out(_attention(q, word_k, word_v)),
        "The values are the decoder's own everywhere: all four maps are routed.":
            out(_attention(q, k, word_v)),
        "The keys are the decoder's own everywhere: all four maps are routed.":
            out(_attention(q, word_k, v)),
        "The queries are the decoder's own everywhere: all four maps are routed.":
            out(_attention(word_q, k, v)),
        "The map out of the attention is the decoder's own everywhere: it is routed as well.": F.linear(mixed, own[3]),
        "The map out of the attention is the expert's everywhere: it is routed as well.": F.linear(mixed, expert[3]),
        "The map out of the attention is missing: what the attention gives passes it, routed.": mixed,
        "It is not causal: a place looks at itself and at what came before it.":
            out(_attention(q, k, v, torch.ones_like(causal))),
        "Patches see those that come after them: whole pictures are for BEiT-3, here ALL is causal.":
            out(_attention(q, k, v, causal | pictured)),
        "The scores are not divided by sqrt(d).": weighed(scores),
        "Divided by d, not by sqrt(d).": weighed(scores / 4),
        "Divided by the square root of D: d is the size of what is compared, the last axis of q.":
            weighed(scores / 5**0.5),
        "The softmax runs over the places that look: each of them shares out its attention, on the last axis.":
            weighed(scores / 2, dim=1),
    }  # fmt: skip


def places(patch: Tensor) -> Tensor:
    """The package's `count_places` with CogVLM's rule: where patches stand, (B, L) bool, to positions (B, L)."""
    further = patch & torch.roll(patch, 1, dims=1)
    further[:, 0] = False
    return count_places(torch.zeros_like(patch, dtype=torch.long), ~further)


def check_places(answer: Callable) -> None:
    rows = ("wtpppptwwtpptw", "tppppppppptwww", "wwwwwwwwwwwwww")  # words, tags, patches
    patch = torch.tensor([[kind == "p" for kind in row] for row in rows], device=draw(1, seed=1).device)
    plain = torch.arange(patch.shape[1], device=patch.device).expand_as(patch)
    want, others = places(patch), (~patch).long().cumsum(dim=1)
    first = torch.where(patch, plain, patch.shape[1]).amin(dim=1, keepdim=True)
    shared = torch.where(patch, first, plain)
    classics = {
        "Every patch takes a place of its own: the patches of one picture share one.": plain,
        "The patches take no place at all: they share ONE, one further than the tag before them.": others - 1,
        "It begins at 1: the first place of a sequence is 0.": want + 1,
        "The patches share one place, but what follows counts on as if each had taken one.": torch.where(
            patch, want, plain
        ),
        "All patches of a row share one place: those of the second picture share one of their own.": shared,
        "The patches are all told place 0: theirs is one further than the tag before them.": torch.where(
            patch, 0, want
        ),
        "Only the patches are counted: words and tags take places, too.": patch.long().cumsum(dim=1),
        "The order is lost in the sum: count along the sequence, dim 1, not over the samples.":
            (~(patch & torch.roll(patch, 1, dims=1))).long().cumsum(dim=0) - 1,
    }  # fmt: skip
    compare(answer(patch), want, classics)


EXERCISES = {
    "07.route": ExerciseSpec("One of two maps", 2, routed, check_route),
    "07.attention": ExerciseSpec("One attention for both", 3, joint_attention, check_attention),
    "07.places": ExerciseSpec("One place for all patches", 2, places, check_places),
}
