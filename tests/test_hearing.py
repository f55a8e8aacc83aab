"""Hearing: what is trained with what, what stays as it was, and that a sound's own caption is found by its place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from references import assert_same, randomise

import minivlm.hear
from minivlm import build
from minivlm.contrastive.graphs import GRAPHS
from minivlm.data.captions import caption
from minivlm.data.scenes import render, sample_scenes
from minivlm.data.tones import tones
from minivlm.hear import BANK, PAIRS, HearResult, bundled_hear, examine, hear, hear_table
from minivlm.hearing import SIZES, Triples, embedded, ranks, stages, start
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.mini_sounds import mmv
from minivlm.storage import bundled
from minivlm.streams import generator
from minivlm.train import train

T = mini_tokenizer()
STREAM = Triples(T, 6, context=40, candidates=3, seed=2)


def words(text: str) -> list[str]:
    return sorted(text.split())


# --- the stream -----------------------------------------------------------------------------------------------------


def test_a_triple_is_of_one_scene_and_other_candidates_are_not():
    """Picture, sound and first caption tell one scene; the other captions tell scenes that nobody shows."""
    images, audio, ids = STREAM(4, range(6)).inputs
    scenes = sample_scenes(18, generator(2, 4), "train", 2, 4)
    assert (len(images), len(audio), len(ids)) == (6, 6, 18)
    for row in range(18):
        assert words(T.decode(ids[row].tolist())) == words(T.decode(T.encode(caption(scenes[row]))))
    shown = scenes[torch.arange(0, 18, 3)]
    assert torch.equal(images, render(shown)) and torch.equal(audio, tones(shown))
    assert len({caption(scenes[i]) for i in range(18)}) == 18


def test_the_parts_of_a_step_are_the_whole_and_steps_differ():
    whole, first, rest = (STREAM(1, rows) for rows in (range(6), range(2), range(2, 6)))
    for parts in zip(whole.inputs, first.inputs, rest.inputs, strict=True):
        assert torch.equal(parts[0], torch.cat(parts[1:]))
    assert (whole.weight, first.weight, rest.weight) == (6, 2, 4)
    for other in (STREAM(2, range(6)), replace(STREAM, seed=3)(1, range(6))):
        assert not any(torch.equal(a, b) for a, b in zip(whole.inputs, other.inputs, strict=True))


def test_whole_captions_fit():
    ids = Triples(T, 64, mmv("fac").text.context)(0, range(64)).inputs[2]
    assert (ids == T.eos_id).sum(dim=1).tolist() == [1] * 128


# --- training -------------------------------------------------------------------------------------------------------


def test_pictures_and_words_stay_as_they_were_and_all_else_learns():
    model = start(build("mmv_fac", device="cpu"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, stages(model, SIZES["smoke"]), quiet=True)
    frozen = {f"vision.{key}": value for key, value in bundled("clip", "cpu").vision.state_dict().items()}
    frozen["text.embedding.weight"] = bundled("decoder", "cpu").embedding.weight
    for key, value in model.state_dict().items():
        if key in frozen:
            assert torch.equal(value, frozen[key]), key
        else:
            assert not torch.equal(value, before[key]) or key.endswith("attention.k.bias"), key


# --- who finds whom -------------------------------------------------------------------------------------------------


def test_places_are_counted_and_equally_near_ones_come_first():
    chance = torch.Generator().manual_seed(0)
    query, answers = (torch.randn(40, 3, generator=chance) for _ in range(2))
    for i, place in enumerate(ranks(query, answers).tolist()):
        order = sorted(range(40), key=lambda j: -float(query[i] @ answers[j]))
        assert order.index(i) + 1 == place
    assert ranks(torch.ones(5, 2), torch.ones(5, 2)).tolist() == [5] * 5
    assert ranks(torch.eye(5), torch.eye(5)).tolist() == [1] * 5


def test_embedded_scenes_are_those_that_the_model_sees_hears_and_reads():
    model, scenes = randomise(build("mmv_fac", device="cpu")), sample_scenes(5, generator(0, 0), "train", 2, 4)
    found = embedded(model, scenes, batch_size=2)
    assert list(found) == ["image_fine", "image_coarse", "audio_fine", "audio_coarse", "text"]
    output = model(render(scenes), tones(scenes), T.pad([caption(scenes[i]) for i in range(5)], 40))
    for a, b, logits in (("image_fine", "audio_fine", output.image_audio), ("image_coarse", "text", output.image_text),
                         ("audio_coarse", "text", output.audio_text)):  # fmt: skip
        assert_same(found[a] @ found[b].T / 0.07, logits.detach())


@pytest.mark.parametrize("graph", GRAPHS)
def test_untrained_all_is_chance_and_disjoint_spaces_have_no_way(graph):
    first, rank = examine(randomise(mmv(graph).build()), 60)
    assert first.keys() == rank.keys() == PAIRS.keys()
    for pair in PAIRS:
        if graph == "disjoint" and "audio" in pair and "text" in pair:
            assert first[pair] is rank[pair] is None
        else:
            assert first[pair] < 0.12 and 20 < rank[pair] < 41


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(minivlm.hear, "BANK", 20)
    made = hear("fac", 5, "smoke", tmp_path)
    assert (made.design, made.seed, made.steps) == ("fac", 5, SIZES["smoke"].steps)
    monkeypatch.setattr(minivlm.hear, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert hear("fac", 5, "smoke", tmp_path) == made
    with pytest.raises(ValueError, match="unknown graph 'fak'; choose one of shared, disjoint, fac"):
        hear("fak", 0, "smoke", tmp_path)
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        hear("fac", 0, "tiny", tmp_path)


def test_the_table_has_a_row_a_graph_and_says_where_no_way_leads():
    def run(graph, seed, share):
        found = dict.fromkeys(PAIRS, share) | ({"audio to text": None} if graph == "disjoint" else {})
        return HearResult(graph, 1, seed, "cpu", 9, found, found, {})

    rows = hear_table([run("fac", 0, 0.4), run("fac", 1, 0.6), run("disjoint", 0, 0.25)]).splitlines()
    assert rows[2] == "| fac |" + " 50 ± 127 (place 0.5) |" * 4
    assert rows[3] == "| disjoint | 25 (place 0.2) | 25 (place 0.2) | no way | 25 (place 0.2) |"


def test_results_that_come_with_the_package_hold_what_is_said_of_them():
    """Never trained on it, a sound finds its caption far more often than by chance, where a way leads there."""
    runs = bundled_hear()
    assert {(run.design, run.seed) for run in runs} == {(graph, seed) for graph in GRAPHS for seed in range(3)}
    for run in runs:
        assert min(run.first["image to audio"], run.first["image to text"]) > 100 / BANK
        if run.design == "disjoint":
            assert run.first["audio to text"] is None
        else:
            assert run.first["audio to text"] > 50 / BANK
