"""Runs on videos: batches hold what their questions are about, what was run is not run again, and tables say means."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny
import torch
from references import assert_same

import minivlm.watch
from minivlm.__main__ import main
from minivlm.data.telling import tell_videos
from minivlm.data.videos import render_videos, sample_videos
from minivlm.data.watching import VIDEO_TASKS
from minivlm.designs import configure
from minivlm.frames import VideoBank, VideoDialogs
from minivlm.language.tokenizer import Tokenizer
from minivlm.runs import encoder_of
from minivlm.sighting import SightedFrames, Spelled
from minivlm.storage import bundled, warm_start
from minivlm.streams import generator
from minivlm.tables import BLIND, interval
from minivlm.train import Stage, train
from minivlm.watch import (
    SIZES,
    WatchResult,
    bundled_watching,
    for_videos,
    kept_bank,
    learn,
    start,
    video_tokens,
    watch,
    watching_table,
)


def bank_of(design: str = "deco", videos: int = 10) -> tuple[torch.nn.Module, VideoBank]:
    torch.manual_seed(0)
    model = start(for_videos(design, 1, 8))
    return model, VideoBank.make(model, sample_videos(videos, generator(0, 0), 8), batch_size=4)


def made(design: str, seed: int, tokens: int, move: float) -> WatchResult:
    accuracy = dict.fromkeys(VIDEO_TASKS, 0.5) | {"MOVE": move}
    return WatchResult(design, tokens, seed, "cpu", 10, 8, 1000, accuracy, {})


# --- banks and batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["deco", "film_resampler"])
def test_a_bank_keeps_what_the_encoder_makes_of_each_frame(design):
    model, bank = bank_of(design)
    with torch.no_grad():
        wanted = warm_start(configure("deco").build()).features(render_videos(bank.videos))  # (S, T, N, D)
    got = bank.features.float().view(10, 8, 64, 128)
    assert bank.features.shape[1] == (8 if design == "deco" else 1) and bank.features.dtype == torch.float16
    assert_same(got, wanted, tolerance=0.01 * float(wanted.abs().max()))


@pytest.mark.parametrize("apart", [False, True])
def test_batches_hold_the_videos_that_their_questions_are_about(apart):
    _, bank = bank_of()
    source = VideoDialogs(tiny.TOKENIZER, bank, 6, per_video=4, apart=apart, seed=3)
    [batch], chosen = source(5, range(6)).inputs, torch.randint(10, (6,), generator=generator(3, 5))
    if not apart:
        assert torch.equal(batch.features, bank.features[chosen].float())
        assert (batch.num_images == 8).all() and batch.instruction is None
    else:
        assert len(batch) > 6 and batch.instruction is not None and int(batch.segments.max()) == 1
        kept = [next(i for i in range(10) if torch.equal(bank.features[i].float(), f)) for f in batch.features]
        assert list(dict.fromkeys(kept)) == list(dict.fromkeys(chosen.tolist()))
    assert source(5, range(6)).weight == int((batch.labels >= 0).sum())
    assert (batch.input_ids == Tokenizer.image_id).sum() == 8 * len(batch)


def test_a_step_is_the_same_whoever_asks_and_in_parts():
    _, bank = bank_of()
    source = VideoDialogs(tiny.TOKENIZER, bank, 6, seed=1)
    whole, parts = source(9, range(6)), [source(9, range(0, 2)), source(9, range(2, 6))]
    assert whole.weight == sum(part.weight for part in parts)
    rows = torch.cat([part.inputs[0].features for part in parts])
    assert torch.equal(rows, whole.inputs[0].features)
    assert not torch.equal(source(8, range(6)).inputs[0].features, rows)


def test_blind_batches_hold_no_video():
    _, bank = bank_of()
    [batch] = VideoDialogs(tiny.TOKENIZER, bank, 4, blind=True)(0, range(4)).inputs
    assert batch.features is None and (batch.num_images == 0).all()
    assert not any("moving" in told for told in texts(batch))


def texts(batch) -> list[str]:
    return [tiny.TOKENIZER.decode(ids) for ids in batch.input_ids.tolist()]


def test_every_video_is_told_behind_its_questions_or_alone():
    _, bank = bank_of()
    chosen = torch.randint(10, (4,), generator=generator(2, 0))
    wanted = tell_videos(bank.videos[chosen])
    for asked, count in ((6, 2), (0, 1)):
        [batch] = VideoDialogs(tiny.TOKENIZER, bank, 4, per_video=asked, seed=2)(0, range(4)).inputs
        assert all(told.endswith(text) for told, text in zip(texts(batch), wanted, strict=True))
        assert all("?" not in told for told in texts(batch)) == (count == 1)
        assert (batch.segments.amax(dim=1) >= count).all()


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "tokens", "frames", "total"),
    [("llava15", None, 8, 512), ("deco", 4, 16, 64), ("llama_vid_video", None, 16, 32), ("llama_vid", 5, 8, 40),
     ("film_resampler", None, 16, 32), ("film_resampler", 8, 8, 64)],
)  # fmt: skip
def test_budgets_are_a_frame(design, tokens, frames, total):
    assert video_tokens(for_videos(design, tokens, frames), frames) == total


@pytest.mark.parametrize("design", ["llama_vid_video", "film_resampler"])
def test_the_encoder_stays_and_all_else_learns(design):
    model, bank = bank_of(design) if design != "llama_vid_video" else of_its_own(design)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    records = learn(model, bank, SIZES["smoke"], 0, quiet=True)
    assert len(records) == SIZES["smoke"].steps
    clip = bundled("llava15", "cpu").vision.state_dict()
    tower = getattr(model.vision, "tower", model.vision)
    assert all(torch.equal(value, clip[key]) for key, value in tower.state_dict().items())
    learned = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key.split(".")[0] for key in learned} == {"connector", "language"}
    assert all(not torch.equal(model.state_dict()[key], before[key]) for key in learned)


@pytest.mark.parametrize(
    ("design", "blind", "told"),
    [("deco", False, ["spell", "answer"]), ("film_resampler", False, ["teach", "answer"]), ("deco", True, ["answer"])],
)
def test_the_frozen_decoder_teaches_the_connector_first(design, blind, told, monkeypatch):
    """To spell, where its tokens have places; and neither the encoder nor the decoder changes meanwhile."""
    model, bank = bank_of(design)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seen = {}

    def watched(trained, given, precision=None, quiet=False):
        records = train(trained, given, precision=precision, quiet=True)
        now = model.state_dict()
        seen[given[0].name] = {key.split(".")[0] for key in now if not torch.equal(now[key], before[key])}
        return records

    monkeypatch.setattr(minivlm.watch, "train_whole", watched)
    learn(model, bank, SIZES["smoke"], 0, blind)
    assert list(seen) == told
    assert seen["answer"] == ({"language"} if blind else {"connector", "language"})
    assert blind or seen[told[0]] == {"connector"}


def test_spelling_brings_tokens_nearer_to_the_exact_words():
    model, bank = bank_of("deco", videos=6)
    frames, spelled = SightedFrames.make(bank, (1, 1), seed=1), Spelled(model)
    [before, *_, after] = train(spelled, [Stage("spell", frames, 60, lr=3e-3)], quiet=True)
    assert after["loss"] < 0.5 * before["loss"]


@pytest.mark.parametrize("design", ["deco", "film_resampler", "llava15"])
def test_a_bank_is_that_of_the_design_and_is_kept_for_the_next(design):
    config = for_videos(design, None, 8)
    kept = kept_bank(encoder_of(config), 8, 5, 3)
    wanted = VideoBank.make(start(config), sample_videos(5, generator(3, 0), 8))
    assert torch.equal(kept.features, wanted.features)
    assert kept_bank(encoder_of(for_videos(design, None, 8)), 8, 5, 3) is kept


@pytest.mark.parametrize(("design", "part"), [("llava15", ""), ("deco", "mlp"), ("llama_vid_video", "content")])
def test_a_connector_with_llavas_mlp_begins_with_it(design, part):
    """So all patches of a frame read as LLaVA-1.5 reads them, and the mean of equal patches as one of them."""
    model, answering = start(for_videos(design, None, 8)), bundled("llava15", "cpu")
    features = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.connector.get_submodule(part)(features)
        assert_same(found, answering.connector(features))
    for key, value in bundled("decoder_videos", "cpu").state_dict().items():
        assert torch.equal(model.language.state_dict()[key], value)


def test_a_connector_without_it_begins_anew():
    model, again = (start(for_videos("film_resampler", None, 8)).connector.state_dict() for _ in range(2))
    assert not torch.equal(model["latents"], again["latents"])


def of_its_own(design: str):
    model = start(for_videos(design, None, 8))
    return model, VideoBank.make(model, sample_videos(12, generator(0, 0), 8))


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    how = dict(scale="smoke", folder=tmp_path)
    result = watch("film_resampler", None, 0, **how)
    assert (result.tokens, result.frames, result.a_frame, result.steps) == (16, 8, 2, 2)
    assert set(result.accuracy) == set(VIDEO_TASKS)
    blind = watch(BLIND, None, 0, **how)
    assert blind.a_frame == 0 and blind.trained_weights < result.trained_weights
    assert watch("deco", 1, 1, 16, **how).tokens == 16
    monkeypatch.setattr(minivlm.watch, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert watch("film_resampler", None, 0, **how) == result
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        watch("deco", 1, 0, scale="tiny", folder=tmp_path)
    with pytest.raises(ValueError, match="MLPProjection makes 64 tokens of 8x8 patches, not 2"):
        watch("llava15", 2, 0, **how)
    with pytest.raises(ValueError, match="answers no questions"):
        watch("clip", None, 0, **how)
    with pytest.raises(ValueError, match="8 beats of 1 or more whole frames, so not 9 frames"):
        watch("deco", 1, 0, 9, **how)


def test_the_command_prints_the_table(tmp_path, capsys):
    words = "watch deco --tokens-a-frame 1 --frames 16 --seeds 3 --scale smoke --steps 1 --out".split()
    main([*words, str(tmp_path)])
    told = capsys.readouterr().out
    assert "| deco | 1 | 16 | 1 | 1 | " in told and "1 steps at scale smoke, seeds 3; " in told
    assert [path.name for path in tmp_path.iterdir()] == ["deco-16-16-smoke-1-seed3.json"]


def test_the_table_has_most_tokens_first_and_the_blind_one_last():
    runs = [made("a", seed, 16, 0.2 + 0.1 * seed) for seed in range(3)]
    runs += [made(BLIND, 0, 0, 0.95), made("b", 0, 512, 0.9)]
    rows = [line.strip("| ").split(" | ") for line in watching_table(runs).splitlines()[2:]]
    assert [(row[0], row[1], row[4]) for row in rows] == [("b", "64", "1"), ("a", "2", "3"), ("blind", "-", "1")]
    middle, half = interval([0.2, 0.3, 0.4])
    column = 5 + VIDEO_TASKS.index("MOVE")
    assert rows[1][column] == f"{100 * middle:.0f} ± {100 * half:.0f}" and rows[0][column] == "90"


def test_results_that_come_with_the_package_are_whole():
    counts = Counter((run.design, run.tokens, run.frames, run.steps) for run in bundled_watching())
    assert len(set(counts.values())) <= 1
