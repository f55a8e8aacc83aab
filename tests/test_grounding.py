"""Grounding: new words leave the old ones alone, the stream tells the truth, answers are scored, runs are kept."""

from __future__ import annotations

import pytest
import torch

import minivlm.ground
from minivlm import VLM, build
from minivlm.batch import Batch
from minivlm.data.referring import locate, name, referents
from minivlm.data.scenes import sample_scenes
from minivlm.ground import CELLS, GroundResult, bundled_grounding, ground, grounding_table
from minivlm.grounding import Grounding, locate_all, name_all, place_rows, with_places
from minivlm.language.grounding import box_to_cells, cells_to_box, grounded
from minivlm.language.tokenizer import grounded_tokenizer
from minivlm.storage import bundled
from minivlm.streams import Bank

TOKENIZER = grounded_tokenizer(8)


@pytest.fixture(scope="module")
def bank() -> Bank:
    scenes = sample_scenes(30, torch.Generator().manual_seed(1), max_objects=4)
    return Bank(scenes, torch.randn(30, 1, 64, 128))


# --- words for places -----------------------------------------------------------------------------------------------


def test_old_words_are_said_as_before_and_new_ones_are_all_different(bank):
    model = bundled("llava15", "cpu")
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    wider = with_places(model, 8)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    batch = Batch.pack(TOKENIZER, [[("what color is the circle ?", "red")]], features=bank.features[:1])
    with torch.no_grad():
        before, after = model(batch).logits, wider(batch).logits
    assert after.shape[-1] == len(TOKENIZER) and torch.allclose(before, after[..., :512], atol=1e-5)
    new = wider.language.embedding.weight[512:]
    assert wider.language.head.weight is wider.language.embedding.weight
    assert torch.pdist(new).min() > 0.1


@pytest.mark.parametrize("side", [8, 32])
def test_words_for_near_places_begin_alike_and_none_sticks_out(side):
    known = torch.randn(50, 128, generator=torch.Generator().manual_seed(1))
    rows = place_rows(side, known)
    assert rows.shape == (side * side, 128)
    assert torch.allclose(rows.norm(dim=1).mean(), known.norm(dim=1).mean(), rtol=1e-4)
    grid = rows.unflatten(0, (side, side))
    for along in (grid, grid.transpose(0, 1)):  # to the next column, and to the next row
        steps = [(along[:, by:] - along[:, :-by]).norm(dim=2).mean() for by in (1, 2, side // 2)]
        assert 0 < steps[0] < steps[1] < steps[2]
    assert not torch.allclose(grid, grid.transpose(0, 1))


def test_a_connector_that_reads_words_is_refused():
    with pytest.raises(ValueError, match="InstructQFormerConfig reads the question"):
        with_places(build("instructblip", device="cpu"), 8)


# --- the stream -----------------------------------------------------------------------------------------------------


def test_every_text_is_true_of_its_scene(bank):
    stream, kinds = Grounding(TOKENIZER, bank, batch_size=8, told=4), set()
    for step in range(4):
        batch = stream(step, range(8)).inputs[0]
        for row in range(8):
            (scene,) = (bank.features == batch.features[row]).all(dim=(1, 2, 3)).nonzero().flatten().tolist()
            objects = referents(bank.scenes[scene : scene + 1])[0]
            boxes = {cells: r for r in objects for cells in [box_to_cells(r.box, 8)]}
            names = {**{r.phrase: r for r in objects}, **{r.name: r for r in objects}}
            there = batch.text_mask[row]
            for segment in range(1, int(batch.segments[row].max()) + 1):
                chosen = there & (batch.segments[row] == segment)
                text, said = (TOKENIZER.decode(batch.input_ids[row, part].tolist())
                              for part in (chosen, chosen & (batch.labels[row] >= 0)))  # fmt: skip
                if "<object>" not in text:
                    kinds.add("ordinary")
                elif text.startswith("where"):
                    phrase = text.split(" ?")[0].removeprefix("where is ")
                    assert text == "".join(locate(names[phrase], 8)) and said == locate(names[phrase], 8)[1]
                    kinds.add("locate")
                elif text.endswith("."):
                    assert said == text and [phrase for phrase, _ in grounded(text, 8)] == [r.name for r in objects]
                    kinds.add("tell")
                else:
                    question, answer = next(name(r, 8) for r in boxes.values() if said == r.name)
                    assert text == f"{question} {answer}"
                    kinds.add("name")
    assert kinds == {"ordinary", "locate", "tell", "name"}


def test_a_part_of_a_step_is_that_part_and_steps_repeat(bank):
    stream = Grounding(TOKENIZER, bank, batch_size=6)
    whole, part = stream(3, range(6)).inputs[0], stream(3, range(2, 4)).inputs[0]
    texts = [[TOKENIZER.decode(row.tolist()) for row in b.input_ids] for b in (whole, part)]
    assert texts[0][2:4] == texts[1] and torch.equal(whole.features[2:4], part.features)
    assert not torch.equal(whole.features, stream(4, range(6)).inputs[0].features)


# --- scores ---------------------------------------------------------------------------------------------------------


def speaker(answer) -> VLM:
    """A model that says `answer` of the question, and notes what it was shown."""
    model = build("llava15", device="cpu")
    model.shown = []

    def generate(batch: Batch, max_new_tokens: int):
        model.shown.append(batch.features)
        pairs = zip(batch.input_ids, batch.text_mask, strict=True)
        said = [TOKENIZER.encode(answer(TOKENIZER.decode(row[mask].tolist()))) for row, mask in pairs]
        return torch.tensor([row + [TOKENIZER.eos_id] * (8 - len(row)) for row in said])

    model.generate = generate
    return model


def test_answers_are_scored_in_their_order_and_what_is_no_box_is_worth_nothing(bank):
    first = {r.phrase: r for some in referents(bank.scenes) for r in some}  # a phrase may mean others elsewhere
    found = [[r for r in some if first[r.phrase] == r] for some in referents(bank.scenes)]
    right = {locate(r, 8)[0]: locate(r, 8)[1] for some in found for r in some}
    located = locate_all(speaker(lambda text: "red"), TOKENIZER, found, bank.features)
    assert [item.iou for item in located] == [0] * sum(map(len, found))
    located = locate_all(speaker(right.get), TOKENIZER, found, bank.features)
    assert all(0 < item.iou <= 1 for item in located)
    edges = [cells_to_box(*box_to_cells(item.referent.box, 8), 8) for item in located]
    assert [item.said for item in located] == edges
    asked = speaker(lambda text: "red")
    located = locate_all(asked, TOKENIZER, found, bank.features, batch_size=5)
    assert [(item.scene, item.referent) for item in located] == [(n, r) for n, some in enumerate(found) for r in some]
    assert torch.equal(torch.cat(asked.shown)[:, 0, 0, 0], bank.features[[item.scene for item in located], 0, 0, 0])
    blind = speaker(lambda text: "red")
    locate_all(blind, TOKENIZER, found, bank.features, blind=True)
    assert blind.shown[0] is None


def test_a_name_is_right_if_all_of_it_is(bank):
    found = referents(bank.scenes)[:6]
    wanted = {name(r, 8)[0]: r.name for some in found for r in some}
    assert all(name_all(speaker(wanted.get), TOKENIZER, found, bank.features))
    cut = speaker(lambda text: wanted[text].rpartition(" ")[0])
    assert not any(name_all(cut, TOKENIZER, found, bank.features))


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    made = ground("kosmos2", 4, 0, "smoke", folder=tmp_path)
    assert (made.design, made.tokens, made.steps) == ("kosmos2", 4, 3) and 0 <= made.iou <= made.found + 0.5
    monkeypatch.setattr(minivlm.ground, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert ground("kosmos2", 4, 0, "smoke", folder=tmp_path) == made
    assert "| kosmos2 | 4 | 40 | 3 | 1 | 0.00 |" in grounding_table([made])
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        ground("kosmos2", 4, 0, "tiny", folder=tmp_path)
    with pytest.raises(ValueError, match="reads the question, and knows no words for places"):
        ground("instructblip", 4, 1, "smoke", folder=tmp_path)


@pytest.mark.parametrize("design", ["llava15", "kosmos2"])
def test_a_run_starts_from_the_answering_model_and_another_connector_where_the_design_has_another(design):
    config, answering = minivlm.ground.budgeted(design, None), bundled("llava15", "cpu")
    model = minivlm.ground.start(config)
    assert len(model.language.embedding.weight) == 512 + 5 + CELLS * CELLS
    assert torch.equal(model.language.embedding.weight[:512], answering.language.embedding.weight)
    ours, theirs = model.state_dict(), answering.state_dict()
    shared = {key for key in ours if key.startswith(("vision", "language.blocks"))}
    assert shared and all(torch.equal(ours[key], theirs[key]) for key in shared)
    connector = [key for key in ours if key.startswith("connector")]
    assert all(key in theirs and torch.equal(ours[key], theirs[key]) for key in connector) == (design == "llava15")


def test_a_table_has_a_row_for_each_setting_and_means_over_seeds():
    def run(design: str, steps: int, seed: int, iou: float) -> GroundResult:
        return GroundResult(design, 16, seed, "cpu", steps, 3000, iou, 0.5, 0.25, 0.0, 1.0, {})

    some = [run("deco", 800, 0, 0.2), run("llava15", 800, 0, 0.4), run("deco", 800, 1, 0.4), run("deco", 900, 0, 0.1)]
    lines = grounding_table(some).splitlines()[2:]
    assert [line.split(" | ")[:6] for line in lines] == [
        ["| llava15", "16", "3000", "800", "1", "0.40"],
        ["| deco", "16", "3000", "800", "2", "0.30 ± 1.27"],
        ["| deco", "16", "3000", "900", "1", "0.10"],
    ]


def test_results_that_come_with_the_package_hold_what_the_lesson_says():
    """Nobody finds anything without the picture, and patches in their order are worth three times the resampler."""
    runs = bundled_grounding()
    assert all(run.blind < 0.1 for run in runs)
    best = {(run.design, run.seed, run.scenes, run.steps): run.iou for run in runs}
    pairs = [(iou, best[("llava15", *setting)]) for (design, *setting), iou in best.items() if design == "kosmos2"]
    assert pairs and all(3 * resampled < in_order for resampled, in_order in pairs)
