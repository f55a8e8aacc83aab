"""Queries: what each query of a resampler looks at, and whether they look at different things."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minivlm.model import Output, VLMConfig


@dataclass(frozen=True)
class QueryAttention:
    """What the Q queries of one site attended to, of one picture.

    site      the name of the map
    patches   the share of a query's attention that each patch got
    others    the share that got something else, by its name: "class token", "queries" (which some resamplers append to
              what is looked at). With the patches it sums to 1.
    """

    site: str
    patches: Float[Tensor, "Q rows cols"]
    others: dict[str, Float[Tensor, " Q"]]


def query_sites(output: Output, config: VLMConfig) -> list[str]:
    """The maps in which queries of the connector attend to the patches, in the order of the pass."""
    found = [name for name in output.maps if name.startswith("connector.") and _is_of_keys(name, output.maps)]
    return [name for name in found if _split(output.maps[name], config) is not None]


def query_attention(
    output: Output,
    config: VLMConfig,
    site: str | None = None,
    sample: int = 0,
    picture: int = 0,
    head: int | None = None,
) -> QueryAttention:
    """Read one site (None: the last) in one head (None: the mean over all). `config` is the model's own: it knows the
    grid. ValueError where the connector has no queries, or left no maps."""
    sites = query_sites(output, config)
    if not sites or site not in (None, *sites):
        there = ", ".join(sites or [name for name in output.maps if name.startswith("connector.")]) or "none"
        raise ValueError(
            f"no map {'' if site is None else site + ' '}of queries over patches; maps of the connector: {there}. "
            "Call a model that has a resampler with capture=True"
        )
    site = site or sites[-1]
    weights = output.maps[site].detach().cpu().float()
    weights = weights.unflatten(0, (len(output.layout.kind), -1))[sample, picture]  # (H, Q, keys)
    shares = weights.mean(dim=0) if head is None else weights[head]
    front, patches, behind = shares.split(_split(weights[None], config), dim=-1)
    others = {"class token": front.sum(dim=-1), "queries": behind.sum(dim=-1)}
    kept = {name: share for (name, share), part in zip(others.items(), (front, behind), strict=True) if part.numel()}
    return QueryAttention(site, patches.unflatten(-1, config.vision.grid), kept)


def _is_of_keys(name: str, maps: dict[str, Tensor]) -> bool:
    """Is this the attention of queries over keys? Not that of a sequence to itself, nor of points over a picture."""
    sampled = f"{name.rpartition('.')[0]}.points" in maps
    return not sampled and maps[name].ndim == 4 and maps[name].shape[2] != maps[name].shape[3]


def _split(weights: Float[Tensor, "B H Q keys"], config: VLMConfig) -> list[int] | None:
    """How many keys stand in front of the patches, are patches, and stand behind; None where they are no patches."""
    patches, (queries, keys) = config.vision.num_patches, weights.shape[2:]
    front = int(config.class_token and keys - patches in (1, queries + 1))
    behind = keys - patches - front
    return [front, patches, behind] if behind in (0, queries) else None


@dataclass(frozen=True)
class QueryStatistics:
    """How Q maps over N patches differ.

    similarity  cosine of each map with each other
    collapse    mean cosine of two different maps: 1 = all look at the same, or all everywhere; 0 = none shares a patch
    coverage    share of the patches that get more than an even share, 1/N, from some query
    entropy     of each map, in nats: 0 = one patch, log N = all alike
    """

    similarity: Float[Tensor, "Q Q"]
    collapse: float
    coverage: float
    entropy: Float[Tensor, " Q"]

    @property
    def spread(self) -> Float[Tensor, " Q"]:
        """Over how many patches each map would be spread, were it even there: exp(entropy)."""
        return self.entropy.exp()


def query_statistics(weights: Float[Tensor, "Q N"]) -> QueryStatistics:
    """Of maps that are never negative; each is taken as shares of its sum. A single query resembles no other: its
    collapse is 0. ValueError for a map without any weight."""
    total = weights.sum(dim=1, keepdim=True)
    if weights.min() < 0 or total.min() <= 0:
        raise ValueError("a map of a query must hold some weight and none below 0")
    shares, (queries, patches) = weights / total, weights.shape
    directions = F.normalize(shares, dim=1)
    similarity = directions @ directions.T
    apart = ~torch.eye(queries, dtype=torch.bool, device=weights.device)
    collapse = float(similarity[apart].mean()) if queries > 1 else 0.0
    covered = (shares * patches > 1 + 1e-4).any(dim=0)  # an even share is never exactly even
    return QueryStatistics(similarity, collapse, float(covered.float().mean()), torch.special.entr(shares).sum(dim=1))
