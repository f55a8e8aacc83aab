"""Queries: the maps are read from where they stand, and the statistics are their definitions written out slowly."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from references import assert_same, pictures, randomise, words

from minivlm import DESIGNS, Batch
from minivlm.layout import Layout
from minivlm.model import Output, VLMConfig
from minivlm.queries import query_attention, query_sites, query_statistics
from minivlm.vision.vit import clip_vit

LOOKING = {  # what stands beside the patches among the keys of each design that has queries
    "blip2": ["class token"],
    "instructblip": ["class token"],
    **dict.fromkeys(("flamingo_resampler", "flamingo", "open_flamingo", "idefics", "idefics2"), ["queries"]),
    "qwen_vl": [],
    "kosmos2": ["class token", "queries"],
    "llama_vid": [],
}
SPEAKING = {name: design.mini() for name, design in DESIGNS.items() if isinstance(design.mini(), VLMConfig)}


def output_of(**maps: torch.Tensor) -> Output:
    """Of two samples, with these maps of a connector."""
    layout = Layout(*(torch.zeros(2, 5, dtype=torch.long) for _ in fields(Layout)))
    return Output(torch.zeros(2, 5, 9), None, layout, {f"connector.{k}.weights": v for k, v in maps.items()})


def config_of(class_token: bool) -> VLMConfig:
    """Of pictures of 2 x 3 patches."""
    vision = clip_vit(image_size=(16, 24), patch_size=8, width=16, depth=2, heads=2, mlp_width=24)
    return replace(SPEAKING["qwen_vl"], vision=vision, class_token=class_token)


def shares(*shape: int) -> torch.Tensor:
    return torch.rand(*shape).softmax(dim=-1)


# --- reading --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", SPEAKING)
def test_every_resampler_is_found_and_nothing_else(name):
    class_token = "class token" in LOOKING.get(name, [])  # as in the published system; mini ones read patches alone
    model = randomise(replace(SPEAKING[name], class_token=class_token).build())
    ids = words(2, 6)
    ids[:, [1, 3]] = model.image_token_id
    batch = Batch(pictures(2, 2, 3, *model.config.vision.image_size), ids, instruction=words(2, 4))
    output = model(batch, capture=True)
    if name not in LOOKING:
        assert query_sites(output, model.config) == []
        with pytest.raises(ValueError, match="a resampler with capture=True"):
            query_attention(output, model.config)
        return
    for site in query_sites(output, model.config):
        seen = query_attention(output, model.config, site, sample=1, picture=0)
        assert seen.site == site and seen.patches.shape[1:] == model.config.vision.grid
        total = seen.patches.sum(dim=(1, 2)) + sum(seen.others.values())
        assert_same(total, torch.ones(len(total)))
    last = query_attention(output, model.config)
    assert list(last.others) == LOOKING[name]
    assert last.site == query_sites(output, model.config)[-1]


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize("queries", [1, 4])
def test_patches_are_told_from_what_stands_beside_them(class_token, appended, queries):
    weights = shares(6, 3, queries, class_token + 6 + queries * appended)  # two samples of three pictures
    seen = query_attention(output_of(a=weights), config_of(class_token), sample=1, picture=2, head=1)
    start = int(class_token)
    assert_same(seen.patches, weights[5, 1][:, start : start + 6].reshape(queries, 2, 3))
    wanted = {"class token": weights[5, 1][:, :start].sum(dim=1)} if class_token else {}
    if appended:
        wanted["queries"] = weights[5, 1][:, start + 6 :].sum(dim=1)
    assert seen.others.keys() == wanted.keys()
    for kind, share in wanted.items():
        assert_same(seen.others[kind], share)


def test_the_last_site_and_the_mean_over_heads_unless_asked():
    first, last = shares(2, 3, 4, 6), shares(2, 3, 4, 6)
    output = output_of(a=first, b=last, own=shares(2, 3, 4, 4))
    config = config_of(False)
    assert query_sites(output, config) == ["connector.a.weights", "connector.b.weights"]
    assert_same(query_attention(output, config).patches, last[0].mean(dim=0).view(4, 2, 3))
    named = query_attention(output, config, "connector.a.weights", sample=1)
    assert_same(named.patches, first[1].mean(dim=0).view(4, 2, 3))
    with pytest.raises(ValueError, match="no map connector.own.weights of queries over patches; maps of the connector"):
        query_attention(output, config, "connector.own.weights")
    with pytest.raises(ValueError, match="maps of the connector: none"):
        query_attention(output_of(), config)


def test_points_are_no_keys():
    """A D-Abstractor whose queries have as many points as there are patches."""
    output = output_of(a=shares(2, 4, 2, 6))
    output.maps["connector.a.points"] = torch.rand(2, 4, 2, 6, 2)
    assert query_sites(output, config_of(False)) == []


# --- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries, patches", [(2, 3), (5, 12), (16, 64)])
def test_statistics_are_their_definitions(queries, patches):
    weights = torch.rand(queries, patches, generator=torch.Generator().manual_seed(queries)) ** 6
    weights[0, 1:] = 0  # one that looks at a single patch
    found = query_statistics(weights)
    rows = [[float(x) / float(row.sum()) for x in row] for row in weights]
    cosines = [[cosine(a, b) for b in rows] for a in rows]
    assert_same(found.similarity, torch.tensor(cosines))
    apart = [cosines[i][j] for i in range(queries) for j in range(queries) if i != j]
    assert found.collapse == pytest.approx(sum(apart) / len(apart), abs=1e-5)
    covered = [any(row[patch] > 1 / patches for row in rows) for patch in range(patches)]
    assert 0 < found.coverage == pytest.approx(sum(covered) / patches)
    entropy = [-sum(p * math.log(p) for p in row if p > 0) for row in rows]
    assert_same(found.entropy, torch.tensor(entropy))
    assert_same(found.spread[:1], torch.ones(1))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_the_two_ends_of_every_statistic():
    apart, alike, even = torch.eye(4), torch.eye(4)[[2, 2, 2, 2]], torch.ones(4, 49)
    assert query_statistics(apart).collapse == 0 and query_statistics(apart).coverage == 1
    assert query_statistics(alike).collapse == pytest.approx(1) and query_statistics(alike).coverage == 0.25
    assert query_statistics(even).coverage == 0 and query_statistics(even).collapse == pytest.approx(1)
    assert_same(query_statistics(even).spread, torch.full((4,), 49.0), tolerance=1e-4)
    assert query_statistics(torch.rand(1, 5)).collapse == 0
    for wrong in (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, -0.1]])):
        with pytest.raises(ValueError, match="some weight and none below 0"):
            query_statistics(wrong)
