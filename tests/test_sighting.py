"""Videos in exact words: what is told of each place is what is there, and it is told to decoder and connector alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import tiny
import torch
from references import assert_same
from torch import nn

from minivlm.batch import Batch
from minivlm.data.cues import CUES, asked_cues, place_cues
from minivlm.data.scenes import BACKGROUND_NAMES, CELLS, COLOR_NAMES, SHAPE_NAMES, SIZE_NAMES
from minivlm.data.sightings import SIGHT_WORDS, place_words, sighted, sighted_things, without_cells
from minivlm.data.videos import Videos, sample_videos
from minivlm.data.watching import VIDEO_TASKS, ask_videos, video_bank
from minivlm.evaluate import evaluate
from minivlm.frames import VideoBank
from minivlm.layout import Kind
from minivlm.model import VLM
from minivlm.sighting import Following, Sighted, SightedFrames, Sightings, Spelled, as_pictures, token_places, viewed
from minivlm.storage import start_from
from minivlm.streams import generator
from minivlm.watch import for_videos, start


def slowly(videos: Videos, grid: tuple[int, int]) -> list[list[list[Counter]]]:
    """The words of each place, thing by thing."""
    shown, told = videos.shown(), []
    for n in range(len(videos)):
        told.append([])
        for t in range(videos.frames):
            places = [[Counter() for _ in range(grid[1])] for _ in range(grid[0])]
            for c in range(8):
                if shown.shape[n, t, c] >= 0:
                    x, y = float(shown.x[n, t, c]), float(shown.y[n, t, c])
                    things = places[int(y * grid[0])][int(x * grid[1])]
                    things[SIZE_NAMES[shown.size[n, t, c]]] += 1
                    things[COLOR_NAMES[shown.color[n, t, c]]] += 1
                    things[SHAPE_NAMES[shown.shape[n, t, c]]] += 1
                    things[CELLS[3 * int(y * 3) + int(x * 3)]] += 1
            background = Counter([BACKGROUND_NAMES[int(videos.background[n])]])
            told[-1].append([place or background for row in places for place in row])
    return told


@pytest.mark.parametrize(("grid", "frames"), [((1, 1), 8), ((2, 3), 16), ((4, 4), 8)])
def test_each_place_is_told_by_what_is_there_or_else_by_the_background(grid, frames):
    videos = sample_videos(6, generator(0, 0), frames)
    told = sighted(videos, grid)
    assert told.shape == (6, frames, grid[0] * grid[1], len(SIGHT_WORDS))
    wanted = slowly(videos, grid)
    texts = [[[Counter(place.split()) for place in frame] for frame in video] for video in place_words(told)]
    assert texts == wanted


def test_a_place_of_two_things_is_the_sum_of_both():
    videos = sample_videos(40, generator(1, 0))
    one, four = sighted(videos, (1, 1)), sighted(videos, (4, 4))
    seen = slice(0, SIGHT_WORDS.index(BACKGROUND_NAMES[0]))
    assert torch.equal(one[..., seen].sum(dim=2), four[..., seen].sum(dim=2))


def test_the_decoder_is_given_sums_of_its_words():
    torch.manual_seed(0)
    model, plain = Sighted(), VLM(Sighted().config)
    plain.load_state_dict(model.state_dict())
    told = as_pictures(sighted(sample_videos(2, generator(2, 0)), (1, 2)))
    embedding = {word: model.language.embedding.weight[tiny.TOKENIZER.encode(word)[0]] for word in SIGHT_WORDS}
    sums = torch.stack(
        [
            sum(float(place[0, k]) * embedding[word] for k, word in enumerate(SIGHT_WORDS))
            for place in told.flatten(0, 1)
        ]
    ).view(2, 16, 1, -1)
    dialogs = [[("which way does the star move ?", "left")]] * 2
    batch = Batch.pack(tiny.TOKENIZER, dialogs, features=told)
    with torch.no_grad():
        assert_same(model(batch).logits, plain(replace(batch, features=sums)).logits)
        assert_same(model.loss(batch), plain.loss(replace(batch, features=sums)))


@pytest.mark.parametrize("movers", [1, 2])
def test_nothing_but_the_movers_is_left(movers):
    videos = sample_videos(5, generator(6, 0))
    shown, left = videos.shown(), videos.only(movers).shown()
    for column in range(8):
        wanted = shown.shape[..., column] if column < movers else torch.full((5, 8), -1)
        assert torch.equal(left.shape[..., column], wanted)
        assert torch.equal(left.color[..., column], shown.color[..., column])
    questions = [q for some in ask_videos(videos.only(movers), generator(6, 1), per_video=40) for q in some]
    names = {(SHAPE_NAMES[int(shape)]) for shape in videos.shape[:, :movers].flatten()}
    assert {q.text.split()[4] for q in questions if q.task == "MOVE"} == names
    assert not any("objects" in q.text for q in questions if q.task == "COUNT")


@pytest.mark.parametrize("things", [1, 2, 5])
def test_a_token_a_thing_in_the_order_of_a_grid(things):
    videos = viewed(sample_videos(6, generator(7, 0)), things)[0]
    told, places = sighted_things(videos, things), sighted(videos, (8, 8))
    assert torch.equal(viewed(videos, things)[1], told)
    background = {word: SIGHT_WORDS.index(word) for word in BACKGROUND_NAMES}
    for n in range(6):
        empty = background[BACKGROUND_NAMES[int(videos.background[n])]]
        for t in range(8):
            some = [place for place in places[n, t] if not place[empty]]
            blank = torch.zeros(len(SIGHT_WORDS)).index_fill(0, torch.tensor([empty]), 1)
            wanted = (some + [blank] * things)[:things]
            assert torch.equal(told[n, t], torch.stack(wanted))


@pytest.mark.parametrize("view", [(1, 1), (2, 2), 5])
def test_the_cues_of_a_place_are_what_there_is_to_follow(view):
    videos = sample_videos(12, generator(8, 0), 16)
    told = viewed(videos, view)[1]
    cues, found = place_cues(videos, told), [Counter() for _ in CUES]
    for n, video in enumerate(place_words(told)):
        for t, frame in enumerate(video):
            for place, words in enumerate(frame):
                wanted = slow_cues(videos[n : n + 1], t, words.split())
                assert cues[n, t, place].tolist() == wanted
                for counts, cue in zip(found, wanted, strict=True):
                    counts[cue] += 1
    rows = (1, 2, 4) if view == (1, 1) else range(6)  # in one sum, both movers are in every place
    assert all(min(found[row][cue] for cue in range(len(CUES[row]))) > 0 for row in rows)


def slow_cues(video: Videos, t: int, words: list[str]) -> list[int]:
    """Of a place in frame `t` of one video, from the words that tell it: an index into each row of `CUES`."""
    beat, flashes = t // 2, [b for b in range(8) if video.flash[0, b] >= 0]
    visits = {int(video.beat[0, c]): c for c in range(4, 8) if video.shape[0, c] >= 0}
    here = [c for c in range(8) if video.shape[0, c] >= 0 and SHAPE_NAMES[int(video.shape[0, c])] in words]
    movers = [c for c in here if c < 2]
    way = int(video.heading[0, movers[0]]) if len(movers) == 1 and t > 0 else -1
    kind, which = ("object", -1) if here else (None, -1)
    if 0 in here and beat in flashes:
        kind, which = "flash", flashes.index(beat)
    if visits.get(beat) in here:
        kind, which = "appear", sorted(visits).index(beat)
    so_far = sum(b <= beat for b in (flashes if movers == [0] else visits)) if len(movers) == 1 else -1
    cells = [CELLS.index(word) for word in words if word in CELLS]
    cell = cells[0] if len(here) == 1 else -1
    return [way, CUES[1].index(kind) if kind else -1, which, so_far, beat, cell]


def test_a_question_has_the_beat_of_what_it_names():
    videos = sample_videos(30, generator(9, 0))
    asked = ask_videos(videos, generator(9, 1), ("ORDER", "FLASH", "DETAIL", "COUNT"), 12)
    words = [" ".join(q.text for q in some).split() for some in asked]
    cues, found = asked_cues(videos, words), Counter()
    for n, row in enumerate(words):
        flashes = [b for b in range(8) if videos.flash[n, b] >= 0]
        for place, word in enumerate(row):
            wanted = -1
            if word == "flash" and row[place - 1] in CUES[2]:
                wanted = flashes[CUES[2].index(row[place - 1])]
            for c in range(4, 8):
                if videos.shape[n, c] >= 0 and word == SHAPE_NAMES[int(videos.shape[n, c])]:
                    wanted = int(videos.beat[n, c])
            assert int(cues[n, place]) == wanted
            found[word == "flash", wanted >= 0] += 1
        assert (cues[n, len(row) :] == -1).all()
    assert found[True, True] > 20 and found[False, True] > 20 and found[True, False] == 0


@pytest.mark.parametrize(("first", "placed"), [(2, None), (3, 2), (3, 1)])
def test_following_is_answering_and_saying_every_cue(first, placed):
    """After so many blocks at each place, after others where it is, after three at each word: against models that end
    there."""
    torch.manual_seed(0)
    model = Sighted().eval()
    batch, places, asked = Sightings(tiny.TOKENIZER, 4, views=((2, 2),), seed=2)(0, range(4)).inputs
    output, missed = model(batch), []
    assert output.layout.kind[:, 1 : 1 + places.shape[1]].eq(Kind.PATCH).all()  # the first place is the mark's
    told = [(first, places[..., row], CUES[row]) for row in range(5)] + [(3, asked, CUES[4])]
    if placed:
        told.append((placed, places[..., 5], CELLS))
    for blocks, wanted, words in told:
        cut = Sighted().eval()
        cut.load_state_dict(model.state_dict())
        cut.language.blocks = cut.language.blocks[:blocks]
        logits = cut(batch).logits[:, wanted is not asked :][:, : wanted.shape[1]]
        among = logits[..., [tiny.TOKENIZER.ids[word] for word in words]].log_softmax(dim=-1)
        some = [(-among[row, place, cue], 0.05 if words[cue] == "object" else 1)
                for row, line in enumerate(wanted.tolist()) for place, cue in enumerate(line) if cue >= 0]  # fmt: skip
        missed.append(sum(loss * weight for loss, weight in some) / sum(weight for _, weight in some))
    assert_same(Following(model, first, placed)(batch, places, asked).loss, output.loss + sum(missed))


def test_where_there_is_nothing_to_say_the_answers_alone_are_learned():
    model = Sighted().eval()
    batch, places, asked = Sightings(tiny.TOKENIZER, 4, views=((1, 1),), per_video=4, seed=2)(0, range(4)).inputs
    assert (places[..., 0] == -1).all()
    nothing = torch.full_like(places, -1), torch.full_like(asked, -1)
    assert Following(model, 3)(batch, *nothing).loss.item() == model(batch).loss.item()


def texts(batch) -> list[str]:
    return [tiny.TOKENIZER.decode(ids) for ids in batch.input_ids.tolist()]


def test_batches_show_videos_one_way_and_ask_about_what_is_there():
    how = dict(views=((1, 1), 1, (2, 2)), tasks=("MOVE", "FLASH"), per_video=5, by_place=0.5)
    source = Sightings(tiny.TOKENIZER, 6, **how, seed=4)
    counts = []
    for step in range(20):
        (batch, places, named), chance = source(step, range(6)).inputs, generator(4, step)
        view = source.views[int(torch.randint(3, (), generator=chance))]
        videos = sample_videos(6, chance)
        videos = videos.only(1) if view == 1 else videos
        told = sighted_things(videos, 1) if view == 1 else sighted(videos, view)
        by_place = torch.rand(6, generator=chance) < 0.5
        if view == (2, 2):  # of which some are told without where in the frame
            told[by_place] *= torch.tensor([word not in CELLS for word in SIGHT_WORDS])
        assert torch.equal(batch.features, as_pictures(told))
        assert torch.equal(places, place_cues(videos, told).flatten(1, 2))
        words = [[tiny.TOKENIZER.words[i] for i in ids] for ids in batch.input_ids.tolist()]
        assert torch.equal(named, asked_cues(videos, words))
        asked = ask_videos(videos, chance, source.tasks, 5)
        said = [" ".join(f"{q.text} {q.answer}" for q in some) for some in asked]
        assert texts(batch) == [" ".join(tiny.TOKENIZER.split(text)) for text in said]
        counts.append((view, batch.features.shape[1]))
    assert set(counts) == {((1, 1), 8), (1, 8), ((2, 2), 32)}


def test_a_step_is_the_same_in_parts():
    source = Sightings(tiny.TOKENIZER, 6, seed=1)
    whole, parts = source(9, range(6)), [source(9, range(0, 2)), source(9, range(2, 6))]
    assert whole.weight == sum(part.weight for part in parts)
    assert torch.equal(torch.cat([part.inputs[0].features for part in parts]), whole.inputs[0].features)
    assert torch.equal(torch.cat([part.inputs[1] for part in parts]), whole.inputs[1])
    for part, rows in zip(parts, (range(0, 2), range(2, 6)), strict=True):
        width = part.inputs[2].shape[1]  # each is as wide as needed
        assert torch.equal(part.inputs[2], whole.inputs[2][rows.start : rows.stop, :width])


@pytest.mark.parametrize(
    ("design", "tokens", "places"),
    [("deco", 16, (4, 4)), ("deco", 2, (1, 2)), ("deco", 1, (1, 1)), ("llava15", None, (8, 8)),
     ("llama_vid_video", None, None), ("film_resampler", None, None)],
)  # fmt: skip
def test_tokens_have_places_or_none(design, tokens, places):
    assert token_places(for_videos(design, tokens, 8).build()) == places


class Given(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, features):
        return self.tokens


def test_spelling_exact_words_costs_nothing_and_knowing_nothing_one():
    model, told = Sighted(), sighted(sample_videos(3, generator(5, 0)), (2, 2)).flatten(0, 1)
    spelled = Spelled(model)
    sums = told @ torch.stack([model.language.embedding.weight[tiny.TOKENIZER.ids[word]] for word in SIGHT_WORDS])
    losses = {}
    for name, tokens in {"exact": sums, "same": sums.mean(dim=(0, 1)).expand_as(sums)}.items():
        spelled.connector = Given(tokens)
        losses[name] = spelled(torch.zeros(len(told), 64, 128), told).loss.item()
    assert losses["exact"] == 0 and losses["same"] == pytest.approx(1, abs=0.02)  # the spread's n - 1


@pytest.mark.parametrize(("tokens", "grid"), [(4, (2, 2)), (1, (1, 1))])
def test_frames_keep_the_words_of_their_own_places_but_not_where_that_is(tokens, grid):
    torch.manual_seed(0)
    model = start(for_videos("deco", tokens, 8))
    bank = VideoBank.make(model, sample_videos(5, generator(0, 0)))
    source = SightedFrames.make(bank, grid, batch_size=7, seed=3)
    features, told = source(2, range(7)).inputs
    chosen = torch.randint(40, (7,), generator=generator(3, 2)).tolist()
    words = sighted(bank.videos, grid)
    if grid == (2, 2):  # one place alone has no number to tell it
        words = words * torch.tensor([word not in CELLS for word in SIGHT_WORDS])
    for row, number in enumerate(chosen):
        assert torch.equal(features[row], bank.features[number // 8, number % 8].float())
        assert torch.equal(told[row], words[number // 8, number % 8])
    halves = [source(2, range(0, 3)).inputs, source(2, range(3, 7)).inputs]
    assert torch.equal(torch.cat([half[1] for half in halves]), told)


# --- what the bundled decoder has learned ---------------------------------------------------------------------------


@cache
def answers(grid: tuple[int, int], cells: bool) -> dict[str, float]:
    model = Sighted()
    start_from(model.language, ("decoder_videos",))
    videos, questions = video_bank(8, 60, seed=1)
    told = sighted(videos, grid) if cells else without_cells(sighted(videos, grid))
    found = evaluate(model.eval(), tiny.TOKENIZER, questions, as_pictures(told), batch_size=16)
    return {task: found[task].accuracy for task in VIDEO_TASKS}


def test_the_bundled_decoder_follows_what_moves_where_places_are_apart_and_what_comes_first_anywhere():
    """Where a thing is, by words or by its place's number alone."""
    apart, numbered, together = answers((4, 4), True), answers((4, 4), False), answers((1, 1), True)
    for found in (apart, numbered):
        assert found["COLOR"] > 0.9 and found["MOVE"] > 0.85 and found["COUNT"] > 0.75 and found["ORDER"] > 0.9
    assert together["MOVE"] < 0.5 and together["ORDER"] > 0.85
