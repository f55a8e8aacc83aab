"""Watching: every answer is true of the frames that are said to be enough, and nothing less tells it: not the words,
not one frame, and of what moves not even all frames without their order."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import pytest
import torch

from minivlm.data.scenes import BACKGROUND_NAMES, COLOR_NAMES, COLORS, SHAPE_NAMES
from minivlm.data.telling import tell_videos
from minivlm.data.videos import HEADINGS, REACH, Videos, render_videos, sample_videos
from minivlm.data.watching import VIDEO_TASKS, VideoQuestion, ask_videos, video_bank
from minivlm.language.tokenizer import mini_tokenizer

ORDER = "first second third fourth fifth".split()
COUNTS = "zero one two three four".split()
IN_ORDER = ("MOVE", "ORDER", "FLASH")

Seen = tuple[str, str, float, float]  # shape, colour, x and y


@cache
def asked(n: int = 10_000, frames: int = 8) -> tuple[Videos, list[list[VideoQuestion]]]:
    generator = torch.Generator().manual_seed(11)
    videos = sample_videos(n, generator, frames)
    return videos, ask_videos(videos, generator, per_video=30)


def seen(videos: Videos, count: int) -> list[list[list[Seen]]]:
    """Of the first videos, what is in each frame, without the order in which it is kept."""
    shown = videos[:count].shown()
    columns = [value.tolist() for value in (shown.shape, shown.color, shown.x, shown.y)]
    return [
        [
            sorted((SHAPE_NAMES[s], COLOR_NAMES[c], x, y) for s, c, x, y in zip(*frame, strict=True) if s >= 0)
            for frame in zip(*video, strict=True)
        ]
        for video in zip(*columns, strict=True)
    ]


def truth(text: str, frames: dict[int, list[Seen]]) -> str:
    """The answer, from nothing but the words and what is in some numbered frames."""
    words, numbers = text.split(), sorted(frames)
    if "move" in words:
        (_, _, x1, y1), (_, _, x2, y2) = (next(o for o in frames[n] if o[0] == words[4]) for n in numbers)
        ring = REACH[1] - REACH[0]
        steps = [(d + ring / 2) % ring - ring / 2 for d in (x2 - x1, y2 - y1)]
        return max(HEADINGS, key=lambda way: sum(s * d for s, d in zip(steps, HEADINGS[way], strict=True)))
    if "before" in words:
        first, second = (min(n for n in numbers if shape in {o[0] for o in frames[n]}) for shape in words[2:7:4])
        return "yes" if first < second else "no"
    if "frame" in words:
        [objects] = frames.values()
        assert int("".join(words[words.index("frame") + 1 : -1])) == numbers[0] + 1
        return sorted(objects, key=lambda o: (int(3 * o[3]), o[2]))[ORDER.index(words[4])][1]
    if "appear" in words:
        always = {o[0] for o in frames[0]}
        return COUNTS[len({o[0] for n in numbers for o in frames[n]} - always)]
    if words[4] in SHAPE_NAMES:
        [objects] = frames.values()
        return next(o[1] for o in objects if o[0] == words[4])
    flashes = flashes_of(frames, len(numbers) // 8)
    return COUNTS[len(flashes)] if "many" in words else flashes[ORDER.index(words[4])]


def flashes_of(frames: dict[int, list[Seen]], each: int) -> list[str]:
    """The colours in which an object flashes, `each` frames a beat: those that it has for a beat only."""
    for shape in {o[0] for o in frames[0]}:
        colors = [next(o[1] for o in frames[n] if o[0] == shape) for n in sorted(frames)][::each]
        own = Counter(colors).most_common(1)[0][0]
        if set(colors) != {own}:
            return [color for color in colors if color != own]
    return []


# --- true ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [8, 16, 64])
def test_every_answer_is_told_by_the_frames_that_are_enough(frames):
    videos, questions = asked(10_000 if frames == 8 else 400, frames)
    for row, video in zip(questions[:400], seen(videos, 400), strict=True):
        for q in row:
            assert truth(q.text, {n: video[n] for n in q.frames}) == q.answer, q
            assert q.answer in q.choices and q.chance == 1 / len(q.choices) and not q.novel
            assert q.text == q.text.lower() and q.text.endswith(" ?") and len(q.answer.split()) == 1
            assert (len(q.frames) == 1) == (q.task in ("COLOR", "DETAIL")), q
            assert tuple(sorted(set(q.frames))) == q.frames and q.frames[-1] < frames


def test_the_object_of_a_detail_is_to_be_seen_whole():
    """Each object of the frame has a pixel of its own colour where its middle is, rings and crosses apart."""
    videos, questions = asked()
    found = 0
    films = render_videos(videos[:100], 96)
    for row, film, video in zip(questions[:100], films, seen(videos, 100), strict=True):
        for q in row:
            if q.task != "DETAIL":
                continue
            for shape, color, x, y in video[q.frames[0]]:
                if shape in ("circle", "square", "diamond", "triangle"):
                    pixel = film[q.frames[0], :, int(y * 96), int(x * 96)]
                    assert (pixel - torch.tensor(COLORS[color])).abs().max() < 0.02, q
                    found += 1
    assert found > 100


# --- not to be guessed -----------------------------------------------------------------------------------------------


@cache
def by_task() -> dict[str, list[tuple[int, VideoQuestion]]]:
    tasks = defaultdict(list)
    for i, row in enumerate(asked()[1]):
        for q in row:
            tasks[q.task].append((i, q))
    return tasks


def fitted(keys: list, questions: list[VideoQuestion]) -> float:
    """The share of right answers on one half, if each key gets the answer that is most common for it on the other."""
    half = len(questions) // 2
    answers = defaultdict(Counter)
    for key, q in zip(keys[:half], questions[:half], strict=True):
        answers[key][q.answer] += 1
    best = {key: counts.most_common(1)[0][0] for key, counts in answers.items()}
    rest = list(zip(keys, questions, strict=True))[half:]
    return sum(best.get(key) == q.answer for key, q in rest) / len(rest)


READINGS = {
    "whole": lambda words: " ".join(words),
    "without shapes": lambda words: " ".join("_" if word in SHAPE_NAMES else word for word in words),
    "without numbers": lambda words: " ".join("_" if word.isdigit() or word in ORDER else word for word in words),
}


@pytest.mark.parametrize("task", VIDEO_TASKS)
def test_the_best_blind_predictor_is_at_chance(task):
    questions = [q for _, q in by_task()[task]]
    chance = questions[0].chance
    assert len(questions) > 10_000 and {q.chance for q in questions} == {chance}
    shares = {name: fitted([read(q.text.split()) for q in questions], questions) for name, read in READINGS.items()}
    print(f"\n{task:8} n {len(questions)} chance {chance:.3f}, {shares}")
    assert max(shares.values()) < chance + 0.02


def test_tasks_come_about_equally_often():
    sizes = [len(questions) for questions in by_task().values()]
    assert set(by_task()) == set(VIDEO_TASKS) and max(sizes) < 2 * min(sizes)


def test_played_backwards_the_same_frames_have_another_answer():
    """So whoever takes the frames without their order, or only one of them, can be right about one of the two."""
    videos, questions = asked()
    others = Counter()
    for row, forwards, backwards in zip(questions[:400], seen(videos, 400), seen(videos.backwards(), 400), strict=True):
        for there, then in zip(forwards, backwards[::-1], strict=True):
            for a, b in zip(there, then, strict=True):
                assert a[:2] == b[:2] and abs(a[2] - b[2]) < 1e-5 and abs(a[3] - b[3]) < 1e-5
        for q in row:
            if q.task in IN_ORDER:
                frames = range(8) if q.task == "FLASH" else sorted(7 - n for n in q.frames)
                others[q.task] += truth(q.text, {n: backwards[n] for n in frames}) != q.answer
            elif q.task == "COUNT":
                assert truth(q.text, dict(enumerate(backwards))) == q.answer
    asked_of = Counter(q.task for row in questions[:400] for q in row)
    assert all(others[task] == asked_of[task] > 400 for task in IN_ORDER)


def test_a_color_is_that_of_all_frames_that_show_it():
    videos, questions = asked()
    for row, video in zip(questions[:400], seen(videos, 400), strict=True):
        for q in row:
            if q.task == "COLOR":
                assert {o[1] for frame in video for o in frame if o[0] == q.text.split()[4]} == {q.answer}, q


def test_no_one_frame_tells_a_count():
    """For every frame there is a video that is the same there, and has another count: one in which something else does
    not happen, or happens too."""
    videos, questions = asked()
    for i in range(60):
        counts = {q.text.split()[2]: q for q in questions[i] if q.task == "COUNT"}
        for frame in range(8):
            for what, q in counts.items():
                twin = without_one(videos[i : i + 1], frame, what)
                same, other = seen(videos[i : i + 1], 1)[0], seen(twin, 1)[0]
                assert same[frame] == other[frame] and truth(q.text, dict(enumerate(other))) != q.answer


def without_one(video: Videos, frame: int, what: str) -> Videos:
    """With one flash, or visitor, less, or one more where the only one is in that frame; as it was in that frame."""
    if what == "flashes":
        flash = video.flash.clone()
        beats = [beat for beat in range(8) if flash[0, beat] >= 0 and beat != frame]
        free = next(beat for beat in range(8) if flash[0, beat] < 0 and beat != frame)
        unused = next(c for c in range(10) if c not in (*flash[0].tolist(), int(video.color[0, 0])))
        flash[0, beats[0] if beats else free] = -1 if beats else unused
        return replace(video, flash=flash)
    shape, beat = video.shape.clone(), video.beat.clone()
    visitors = [c for c in range(4, 8) if shape[0, c] >= 0 and beat[0, c] != frame]
    if visitors:
        shape[0, visitors[0]] = -1
    else:
        shape[0, 7] = next(s for s in range(8) if s not in shape[0].tolist())
        beat[0, 7] = next(b for b in range(1, 7) if b != frame and b not in beat[0].tolist())
    return replace(video, shape=shape, beat=beat)


def test_one_frame_says_nothing_of_a_way():
    """Where the mover is, where the other is, and when."""
    videos, (low, high) = asked()[0], REACH
    shown, generator = videos.shown(), torch.Generator().manual_seed(0)
    ninths = [(3 * (p[..., :2] - low) / (high - low)).long().clamp(0, 2) for p in (shown.x, shown.y)]
    place = (3 * ninths[1] + ninths[0]).tolist()  # (B, T, 2)
    found = by_task()["MOVE"]
    frames = torch.randint(8, (len(found),), generator=generator).tolist()
    own = [SHAPE_NAMES.index(q.text.split()[4]) == int(videos.shape[i, 0]) for i, q in found]
    for key in (lambda i, frame, mine: (frame, place[i][frame][0 if mine else 1]),
                lambda i, frame, mine: tuple(place[i][frame][:: 1 if mine else -1])):  # fmt: skip
        keys = [key(i, frame, mine) for (i, _), frame, mine in zip(found, frames, own, strict=True)]
        assert fitted(keys, [q for _, q in found]) < 0.27


# --- told in words ---------------------------------------------------------------------------------------------------


def test_a_video_is_told_whole():
    """Each part of the text against what can be seen: who moves which way, what else is always there, what comes."""
    videos = sample_videos(150, torch.Generator().manual_seed(13))
    grounds = [BACKGROUND_NAMES[background] for background in videos.background.tolist()]
    for text, video, background in zip(tell_videos(videos), seen(videos, 150), grounds, strict=True):
        frames = dict(enumerate(video))
        *parts, last = text.split(" , ")
        assert last == f"on {background} ."
        names = [part.removeprefix("then ").split() for part in parts]
        always = [words for words in names if "flash" not in words and not parts[names.index(words)].startswith("then")]
        assert {words[3] for words in always} == {o[0] for o in video[0]} & {o[0] for o in video[1]}
        for words in names:
            if words[-1] != "flash":
                colors = Counter(o[1] for frame in video for o in frame if o[0] == words[3])
                assert colors.most_common(1)[0][0] == words[2]
        for words in always[:2]:
            pair = {n: video[n] for n in (3, 4)}
            assert truth(f"which way does the {words[3]} move ?", pair) == words[-1] and words[-2] == "moving"
        assert [words[1] for words in names if words[-1] == "flash"] == flashes_of(frames, 1)
        comes = [words[3] for words in names if words not in always and words[-1] != "flash"]
        for a, b in zip(comes, comes[1:], strict=False):
            assert truth(f"does the {a} appear before the {b} ?", frames) == "yes"
        assert COUNTS[len(comes)] == truth("how many objects appear ?", frames)
        assert [n for n, words in enumerate(names) if words not in always] == list(range(len(always), len(names)))


def test_events_are_told_one_after_the_other():
    video = sample_videos(1, torch.Generator().manual_seed(4))
    video = replace(
        video,
        shape=torch.tensor([[0, 1, 2, -1, 3, 4, -1, -1]]),
        color=torch.tensor([[0, 1, 2, 0, 3, 4, 0, 0]]),
        size=torch.tensor([[0, 1, 2, 0, 0, 1, 0, 0]]),
        heading=torch.tensor([[3, 0, -1, -1, -1, -1, -1, -1]]),
        beat=torch.tensor([[-1, -1, -1, -1, 5, 2, -1, -1]]),
        flash=torch.tensor([[-1, -1, -1, 6, -1, -1, -1, 7]]),
        background=torch.tensor([1]),
    )
    assert tell_videos(video) == [
        "a small red circle moving down , a medium green square moving left , a large blue triangle , "
        "then a medium orange star , then a cyan flash , then a small yellow diamond , then a pink flash , on black ."
    ]


# --- words and banks -------------------------------------------------------------------------------------------------


def test_the_decoder_knows_every_word():
    known, questions = mini_tokenizer().ids, asked(400, 64)[1]
    used = {word for row in questions for q in row for word in f"{q.text} {q.answer}".split()}
    assert used <= set(known)


def test_same_seed_same_questions():
    videos = sample_videos(50, torch.Generator().manual_seed(2))
    once, again, other = (ask_videos(videos, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert all(len(row) == len(set(row)) <= 8 for row in once)
    assert {q.task for row in ask_videos(videos, torch.Generator(), ("MOVE",)) for q in row} == {"MOVE"}


def test_unknown_tasks_are_refused():
    videos = sample_videos(1, torch.Generator())
    for tasks in (("COLOUR",), ()):
        with pytest.raises(ValueError, match="choose some of COLOR, MOVE, ORDER, FLASH, COUNT, DETAIL"):
            ask_videos(videos, torch.Generator(), tasks)


def test_the_bank_is_fixed():
    videos, questions = video_bank(8, per_task=100)
    again, same = video_bank(8, per_task=100)
    assert questions == same and torch.equal(videos.x, again.x)
    assert video_bank(8, per_task=100, seed=1)[1] != questions
    counts = Counter(q.task for row in questions for q in row)
    assert all(60 <= counts[task] <= 140 for task in VIDEO_TASKS), counts


def test_speed_is_printed():
    videos, start = sample_videos(500, torch.Generator(), 16), time.perf_counter()
    n = sum(map(len, ask_videos(videos, torch.Generator())))
    print(f"\nask_videos: {n / (time.perf_counter() - start):,.0f} questions/s")
