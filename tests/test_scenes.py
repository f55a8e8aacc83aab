"""Scenes: what is drawn is what is said, whatever the size; what is held out stays out."""

from __future__ import annotations

import time

import pytest
import torch

from minivlm.data.scenes import (
    BACKGROUNDS,
    CELLS,
    COLORS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Object,
    Scene,
    Scenes,
    boxes,
    masks,
    render,
    sample_scenes,
)

CANVASES = [(64, 64), (49, 49), (65, 97), (128, 50), (96, 224)]


def draw(n: int, seed: int = 0, **options) -> Scenes:
    return sample_scenes(n, torch.Generator().manual_seed(seed), **options)


def slow_cover(o: Object, height: int, width: int) -> torch.Tensor:
    """How much of each pixel of the whole canvas one object covers, (H, W)."""
    radius = list(SIZES.values())[o.size] * min(height, width) / 3
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    distance = list(SHAPES.values())[o.shape]((x - o.x * width) / radius, (y - o.y * height) / radius)
    return (0.5 - distance * radius).clamp(0, 1)


def slow_render(scene: Scene, height: int, width: int) -> torch.Tensor:
    picture = torch.tensor(list(BACKGROUNDS.values())[scene.background])[:, None, None].repeat(1, height, width)
    for o in scene.objects:
        color = torch.tensor(list(COLORS.values())[o.color])[:, None, None]
        picture = torch.lerp(picture, color.expand_as(picture), slow_cover(o, height, width))
    return picture


@pytest.mark.parametrize("canvas", CANVASES)
def test_fast_rendering_equals_the_whole_canvas_object_by_object(canvas):
    scenes = draw(30, seed=sum(canvas), min_objects=5)
    slow = torch.stack([slow_render(scenes[i], *canvas) for i in range(len(scenes))])
    torch.testing.assert_close(render(scenes, canvas), slow, atol=1e-5, rtol=0)


@pytest.mark.parametrize("canvas", CANVASES)
def test_masks_hold_the_pixels_covered_by_half_and_never_overlap(canvas):
    scenes = draw(30, seed=sum(canvas), min_objects=5)
    found = masks(scenes, canvas)
    assert found.sum(dim=1).max() == 1
    for i in range(len(scenes)):
        objects = scenes[i].objects
        slow = torch.stack([slow_cover(o, *canvas) for o in objects])
        sure = (slow - 0.5).abs() > 1e-4  # rounding may tip a pixel covered by exactly half
        assert torch.equal(found[i, : len(objects)][sure], (slow >= 0.5)[sure])
        assert not found[i, len(objects) :].any()


@pytest.mark.parametrize("canvas", CANVASES)
def test_boxes_are_tight_round_their_masks(canvas):
    scenes = draw(40)
    for mask, box in zip(masks(scenes, canvas).flatten(0, 1), boxes(scenes, canvas).flatten(0, 1), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box.tolist() == [float(edge) for edge in tight]


def test_objects_keep_their_proportions_on_any_canvas():
    scene = Scenes.from_list([Scene((Object(0, 0, 2, 0.5, 0.5),), 0)])
    for canvas in CANVASES:
        x1, y1, x2, y2 = boxes(scene, canvas)[0, 0].tolist()
        assert abs((x2 - x1) - (y2 - y1)) <= 1
        assert abs((x2 - x1) - 2 * 0.95 * SIZES["large"] * min(canvas) / 3) <= 1.5


def test_every_object_lies_whole_inside_its_cell():
    scenes = draw(3000, min_objects=9)
    cell = torch.arange(9)
    radius = torch.tensor(list(SIZES.values()))[scenes.size]
    for place, start in ((scenes.x * 3, cell % 3), (scenes.y * 3, cell // 3)):
        assert (place - radius >= start).all() and (place + radius <= start + 1).all()


def test_objects_stand_in_reading_order_one_a_cell():
    scenes = draw(500)
    for i in range(len(scenes)):
        cells = [o.cell for o in scenes[i].objects]
        assert cells == sorted(set(cells)) and len(cells) >= 1
        assert {0 <= c < len(CELLS) for c in cells} == {True}


def test_absent_objects_come_last_and_are_minus_one():
    scenes = draw(500)
    there = scenes.shape >= 0
    assert torch.equal(there, scenes.color >= 0) and torch.equal(there, scenes.size >= 0)
    assert (there[:, :-1] >= there[:, 1:]).all()
    assert set(there.sum(dim=1).tolist()) == set(range(1, 10))


def test_training_never_shows_a_held_out_pair_and_the_test_shows_all_alike():
    assert len(HELD_OUT) == 2 * len(SHAPES)
    by_shape = [sum(s == shape for _, s in HELD_OUT) for shape in range(len(SHAPES))]
    by_color = [sum(c == color for c, _ in HELD_OUT) for color in range(len(COLORS))]
    assert set(by_shape) == {2} and set(by_color) == {1, 2}
    times = {split: pair_counts(draw(200_000, split=split)) for split in ("train", "test")}
    held = torch.zeros(len(COLORS), len(SHAPES), dtype=torch.bool)
    held[tuple(torch.tensor(sorted(HELD_OUT)).T)] = True
    assert times["train"][held].sum() == 0 and times["train"][~held].min() > 0
    share = times["test"] / times["test"].sum() * held.numel()
    assert (share - 1).abs().max() < 0.04


def pair_counts(scenes: Scenes) -> torch.Tensor:
    there = scenes.shape >= 0
    pairs = scenes.color[there] * len(SHAPES) + scenes.shape[there]
    return torch.bincount(pairs, minlength=len(COLORS) * len(SHAPES)).view(len(COLORS), len(SHAPES)).float()


@pytest.mark.parametrize("field", ["shape", "color"])
def test_something_is_there_to_count(field):
    values = getattr(draw(4000), field)
    most = torch.stack([(values == v).sum(dim=1) for v in range(int(values.max()) + 1)]).amax(dim=0)
    assert (most >= 4).float().mean() > 0.1


def test_same_seed_same_scenes_other_seed_others():
    first, again, other = draw(50, seed=3), draw(50, seed=3), draw(50, seed=4)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert not torch.equal(first.x, other.x)


def test_batches_slice_index_and_come_from_lists():
    scenes = draw(20)
    back = Scenes.from_list([scenes[i] for i in range(20)])
    for name in vars(scenes):
        torch.testing.assert_close(getattr(back, name), getattr(scenes, name))
    assert len(scenes[5:9]) == 4 and scenes[5:9][0] == scenes[5]
    assert scenes[torch.tensor([7, 2])][1] == scenes[2] and scenes[-1] == scenes[19]


def test_lists_are_put_in_reading_order():
    late, early = Object(0, 0, 0, 0.8, 0.8), Object(1, 1, 1, 0.2, 0.2)
    assert [o.cell for o in Scenes.from_list([Scene((late, early), 0)])[0].objects] == [0, 8]
    assert early.describe() == "medium green square"


def test_bad_calls_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="dev"):
        sample_scenes(1, generator, split="dev")
    for n, low, high in ((0, 1, 9), (1, 0, 9), (1, 5, 4), (1, 1, 10)):
        with pytest.raises(ValueError, match="min_objects"):
            sample_scenes(n, generator, min_objects=low, max_objects=high)
    with pytest.raises(ValueError, match="no scenes"):
        Scenes.from_list([])
    crowd = Scene((Object(0, 0, 0, 0.5, 0.5), Object(1, 1, 0, 0.51, 0.5)), 0)
    with pytest.raises(ValueError, match="one cell"):
        Scenes.from_list([crowd])


def test_colors_are_far_apart_and_far_from_every_background():
    paints = torch.tensor([*COLORS.values(), *BACKGROUNDS.values()])
    apart = torch.cdist(paints, paints) + 9 * torch.eye(len(paints))
    assert not COLORS.keys() & BACKGROUNDS.keys()
    assert apart[: len(COLORS)].min() > 0.3


def test_speed_is_printed():
    scenes = draw(1024)
    render(scenes[:64])
    start = time.perf_counter()
    render(scenes)
    speed = len(scenes) / (time.perf_counter() - start)
    print(f"\nrender: {speed:,.0f} pictures/s at 64 px, {torch.get_num_threads()} threads")
