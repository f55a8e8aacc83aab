"""Videos: what is drawn is what the data says, by a slow hand; and the law they are drawn by hides what it should."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import pytest
import torch

from minivlm.data.scenes import BACKGROUNDS, COLORS, SIZES
from minivlm.data.shapes import SHAPES
from minivlm.data.videos import BEATS, HEADINGS, REACH, SPEED, Videos, render_videos, sample_videos


def draw(n: int, frames: int = 8, seed: int = 0) -> Videos:
    return sample_videos(n, torch.Generator().manual_seed(seed), frames)


# --- drawing --------------------------------------------------------------------------------------------------------


def objects_at(videos: Videos, i: int, frame: int) -> list[tuple[int, int, int, float, float]]:
    """(shape, colour, size, x, y) of everything in one frame, from back to front."""
    beat, found = frame * 8 // videos.frames, []
    for column in (2, 3, 1, 0, 4, 5, 6, 7):
        shape, visit = int(videos.shape[i, column]), int(videos.beat[i, column])
        if shape < 0 or visit not in (-1, beat):
            continue
        color = int(videos.color[i, column])
        if column == 0 and videos.flash[i, beat] >= 0:
            color = int(videos.flash[i, beat])
        place = [float(videos.x[i, column]), float(videos.y[i, column])]
        way = int(videos.heading[i, column])
        for axis in (0, 1) if way >= 0 else ():
            place[axis] += list(HEADINGS.values())[way][axis] * SPEED * ((frame + 0.5) * 8 / videos.frames - 4)
            while place[axis] >= REACH[1]:
                place[axis] -= REACH[1] - REACH[0]
            while place[axis] < REACH[0]:
                place[axis] += REACH[1] - REACH[0]
        found.append((shape, color, int(videos.size[i, column]), *place))
    return found


@pytest.mark.parametrize(("frames", "height", "width"), [(8, 30, 30), (16, 24, 40), (64, 25, 25)])
def test_every_frame_is_what_a_slow_hand_draws(frames, height, width):
    videos = draw(6, frames, seed=3)
    film = render_videos(videos, (height, width))
    rows = torch.arange(height)[:, None] + 0.5
    cols = torch.arange(width)[None] + 0.5
    for i in range(6):
        for frame in range(0, frames, frames // 8):
            picture = torch.tensor(list(BACKGROUNDS.values()))[videos.background[i], :, None, None]
            for shape, color, size, x, y in objects_at(videos, i, frame):
                radius = list(SIZES.values())[size] * min(height, width) / 3
                distance = list(SHAPES.values())[shape]
                field = distance(*torch.broadcast_tensors((cols - x * width) / radius, (rows - y * height) / radius))
                cover = (0.5 - field * radius).clamp(0, 1)
                paint = torch.tensor(list(COLORS.values())[color])[:, None, None]
                picture = picture + (paint - picture) * cover
            assert torch.allclose(film[i, frame], picture.expand(3, height, width), atol=1e-4), (i, frame)


def test_nothing_is_ever_cut_off():
    videos = draw(2000, 16)
    shown, radius = videos.shown(), torch.tensor(list(SIZES.values())) / 3
    there = shown.shape >= 0
    for place in (shown.x[there], shown.y[there]):
        reach = radius[shown.size[there]]
        assert (place - reach >= 0).all() and (place + reach <= 1).all()


@pytest.mark.parametrize("frames", [8, 32])
def test_backwards_is_the_film_from_its_end(frames):
    videos = draw(20, frames)
    back = render_videos(videos.backwards(), 32)
    assert torch.allclose(back, render_videos(videos, 32).flip(1), atol=1e-4)
    again = videos.backwards().backwards()
    assert all(torch.equal(a, b) for a, b in zip(again._tensors(), videos._tensors(), strict=True))


def test_more_frames_show_the_same():
    """With three frames a beat, the middle ones are those there are with one."""
    videos = draw(20)
    assert torch.allclose(render_videos(replace(videos, frames=24), 32)[:, 1::3], render_videos(videos, 32), atol=1e-4)


def test_parts_of_a_batch_are_drawn_alike():
    videos = draw(7)
    whole = render_videos(videos, 32)
    assert torch.equal(whole[2:5], render_videos(videos[2:5], 32))
    assert torch.equal(whole[[6, 0]], render_videos(videos[torch.tensor([6, 0])], 32))


# --- the law --------------------------------------------------------------------------------------------------------


def test_at_most_one_thing_happens_in_a_beat():
    videos = draw(5000)
    visits = torch.stack([(videos.beat == beat).sum(dim=1) for beat in range(BEATS)], dim=1)  # (n, beats)
    assert (visits + (videos.flash >= 0) <= 1).all()
    assert not visits[:, 0].any() and not visits[:, -1].any()
    for count in (visits.sum(dim=1), (videos.flash >= 0).sum(dim=1)):
        shares = torch.bincount(count, minlength=5) / 5000
        assert shares[0] == 0 and (shares[1:] - 0.25).abs().max() < 0.02
    assert ((videos.shape[:, 2:4] >= 0).sum(dim=1).bincount(minlength=3) / 5000 - 1 / 3).abs().max() < 0.02
    per_beat = (videos.flash >= 0).float().mean(dim=0)
    assert (per_beat - per_beat.flip(0)).abs().max() < 0.03  # backwards is as likely


def test_objects_are_told_apart():
    videos = draw(2000)
    for shapes, ways in zip(videos.shape.tolist(), videos.heading.tolist(), strict=True):
        there = [shape for shape in shapes if shape >= 0]
        assert len(set(there)) == len(there) and min(shapes[:2]) >= 0
        assert ways[0] != ways[1] and min(ways[:2]) >= 0 and set(ways[2:]) == {-1}
    for own, flashes in zip(videos.color[:, 0].tolist(), videos.flash.tolist(), strict=True):
        seen = [color for color in flashes if color >= 0]
        assert own not in seen and len(set(seen)) == len(seen)


def test_where_a_mover_is_says_nothing_of_its_way():
    """In every frame, of those that are in any ninth of the picture, a quarter go each way; all ninths are alike."""
    videos = draw(100_000)
    shown, (low, high) = videos.shown(), REACH
    for column in (0, 1):
        cell = [((3 * (p[..., column] - low) / (high - low)).long().clamp(0, 2)) for p in (shown.x, shown.y)]
        for frame in range(8):
            ninth = cell[0][:, frame] + 3 * cell[1][:, frame]
            table = torch.bincount(4 * ninth + videos.heading[:, column], minlength=36).view(9, 4) / 100_000
            assert (table - 1 / 36).abs().max() < 0.0025  # 4.8 standard deviations


def test_same_seed_same_videos():
    a, b, c = draw(50), draw(50), draw(50, seed=1)
    assert all(torch.equal(x, y) for x, y in zip(a._tensors(), b._tensors(), strict=True))
    assert not torch.equal(a.shape, c.shape)
    assert len(a) == 50 and len(fields(a)) == 1 + len(a._tensors())


def test_impossible_videos_are_refused():
    for frames in (0, 7, 12):
        with pytest.raises(ValueError, match=f"8 beats of 1 or more whole frames, so not {frames} frames"):
            draw(2, frames)
    with pytest.raises(ValueError, match="need n >= 1 videos, got 0"):
        draw(0)


def test_speed_is_printed():
    videos = draw(100, 16)
    start = time.perf_counter()
    render_videos(videos)
    print(f"\nrender_videos: {1600 / (time.perf_counter() - start):,.0f} frames/s")
