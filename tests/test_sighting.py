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

from minivlm.batch import IGNORE, Batch
from minivlm.data.scenes import BACKGROUND_NAMES, CELLS, COLOR_NAMES, SHAPE_NAMES, SIZE_NAMES
from minivlm.data.sightings import SIGHT_WORDS, place_ways, place_words, sighted, sighted_things
from minivlm.data.videos import HEADINGS, Videos, sample_videos
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
def test_a_place_says_which_way_its_mover_goes(view):
    videos = sample_videos(12, generator(8, 0))
    told = viewed(videos, view)[1]
    ways = place_ways(videos, told)
    found = Counter()
    for n, video in enumerate(place_words(told)):
        movers = {SHAPE_NAMES[int(videos.shape[n, c])]: int(videos.heading[n, c]) for c in (0, 1)}
        for t, frame in enumerate(video):
            for place, words in enumerate(frame):
                going = [way for shape, way in movers.items() if shape in words.split()]
                wanted = going[0] if len(going) == 1 and t else -1
                assert int(ways[n, t, place]) == wanted
                found[wanted] += 1
    assert view == (1, 1) or min(found[way] for way in range(4)) > 5


@pytest.mark.parametrize("blocks", [2, 4])
def test_following_is_answering_and_saying_the_way_at_each_place(blocks):
    torch.manual_seed(0)
    model, cut = Sighted().eval(), Sighted().eval()
    cut.load_state_dict(model.state_dict())
    cut.language.blocks = cut.language.blocks[:blocks]
    batch, ways = Sightings(tiny.TOKENIZER, 4, views=((2, 2),), per_video=4, seed=2)(0, range(4)).inputs
    output, logits, missed = model(batch), cut(batch).logits, []
    for row in range(4):
        for place, word in enumerate(ways[row].tolist()):
            if word >= 0:
                missed.append(-logits[row, 1 + place].log_softmax(dim=0)[word])  # the first place is the mark's
    assert {tiny.TOKENIZER.words[word] for word in ways.unique().tolist() if word >= 0} == set(HEADINGS)
    assert output.layout.kind[:, 1 : 1 + ways.shape[1]].eq(Kind.PATCH).all()
    assert_same(Following(model, blocks)(batch, ways).loss, output.loss + torch.stack(missed).mean())


def test_where_no_place_tells_a_way_the_answers_alone_are_learned():
    model = Sighted().eval()
    batch, ways = Sightings(tiny.TOKENIZER, 4, views=((1, 1),), per_video=4, seed=2)(0, range(4)).inputs
    assert (ways == IGNORE).all()
    assert Following(model, 3)(batch, ways).loss.item() == model(batch).loss.item()


def texts(batch) -> list[str]:
    return [tiny.TOKENIZER.decode(ids) for ids in batch.input_ids.tolist()]


def test_batches_show_videos_one_way_and_ask_about_what_is_there():
    how = dict(views=((1, 1), 1, (2, 2)), tasks=("MOVE", "FLASH"), per_video=5, by_place=0.5)
    source = Sightings(tiny.TOKENIZER, 6, **how, seed=4)
    counts = []
    for step in range(20):
        (batch, ways), chance = source(step, range(6)).inputs, generator(4, step)
        view = source.views[int(torch.randint(3, (), generator=chance))]
        videos = sample_videos(6, chance)
        videos = videos.only(1) if view == 1 else videos
        told = sighted_things(videos, 1) if view == 1 else sighted(videos, view)
        by_place = torch.rand(6, generator=chance) < 0.5
        if view == (2, 2):  # of which some are told without where in the frame
            told[by_place] *= torch.tensor([word not in CELLS for word in SIGHT_WORDS])
        assert torch.equal(batch.features, as_pictures(told))
        words = [[tiny.TOKENIZER.ids[way] for way in HEADINGS][way] if way >= 0 else IGNORE
                 for way in place_ways(videos, told).flatten().tolist()]  # fmt: skip
        assert ways.flatten().tolist() == words
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


def test_frames_keep_the_words_of_their_own_places():
    torch.manual_seed(0)
    model = start(for_videos("deco", 4, 8))
    bank = VideoBank.make(model, sample_videos(5, generator(0, 0)))
    source = SightedFrames.make(bank, (2, 2), batch_size=7, seed=3)
    features, told = source(2, range(7)).inputs
    chosen = torch.randint(40, (7,), generator=generator(3, 2)).tolist()
    words = sighted(bank.videos, (2, 2))
    for row, number in enumerate(chosen):
        assert torch.equal(features[row], bank.features[number // 8, number % 8].float())
        assert torch.equal(told[row], words[number // 8, number % 8])
    halves = [source(2, range(0, 3)).inputs, source(2, range(3, 7)).inputs]
    assert torch.equal(torch.cat([half[1] for half in halves]), told)


# --- what the bundled decoder has learned ---------------------------------------------------------------------------


@cache
def answers(grid: tuple[int, int]) -> dict[str, float]:
    model = Sighted()
    start_from(model.language, ("decoder_videos",))
    videos, questions = video_bank(8, 60, seed=1)
    found = evaluate(model.eval(), tiny.TOKENIZER, questions, as_pictures(sighted(videos, grid)), batch_size=16)
    return {task: found[task].accuracy for task in VIDEO_TASKS}


def test_the_bundled_decoder_follows_what_moves_where_places_are_apart():
    assert answers((4, 4))["COLOR"] > 0.9 and answers((4, 4))["MOVE"] > 0.6
    assert answers((1, 1))["MOVE"] < answers((4, 4))["MOVE"] - 0.2
