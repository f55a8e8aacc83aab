"""Figures of videos: squares are tokens, pale frames are those without room, and the maps are the mean over queries."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from explorers import watched
from matplotlib.colors import to_rgb
from test_figures_queries import assert_within

import minivlm
from minivlm.figures import PALETTE, context_bars, context_maps, film_strip, frames_in_context
from minivlm.figures.video import context_gaze, frames_that_fit
from minivlm.vision.film import FilmConfig
from minivlm.watch import for_videos

FRAMES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def squares(axes: plt.Axes) -> tuple[int, tuple[int, int]]:
    """How many are not white, in how many rows and columns."""
    [mesh] = axes.collections
    return int((mesh.get_array() < 1).any(axis=-1).sum()), mesh.get_array().shape[:2]


@pytest.mark.parametrize(
    ("tokens", "context", "words", "frames"),
    [(1, 10, 3, 7), (2, 10, 3, 3), (4, 10, 3, 1), (8, 10, 3, 0), (3, 9, 0, 3), (5, 4, 4, 0)],
)
def test_frames_fit_as_if_set_down_one_by_one(tokens, context, words, frames):
    places, fitted = context - words, 0
    while places >= tokens:
        places, fitted = places - tokens, fitted + 1
    assert frames_that_fit(tokens, context, words) == fitted == frames


@pytest.mark.parametrize(("tokens", "words"), [(0, 3), (2, 11), (2, -1)])
def test_what_cannot_fit_is_refused(tokens, words):
    with pytest.raises(ValueError, match="1 or more.*the context's 10"):
        frames_that_fit(tokens, 10, words)


def test_a_square_a_token_under_each_frame_and_a_films_along_the_row():
    names = {"all": ("llava15", None), "two": ("llama_vid_video", None), "film": ("film_resampler", 3)}
    configs = {name: for_videos(*which, 8) for name, which in names.items()}
    figure, alt = film_strip(FRAMES, configs)
    lines = [figure.axes[8 * row : 8 * row + 8] for row in range(4)]
    for ax, frame in zip(lines[0], FRAMES, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), frame.permute(1, 2, 0))
    assert [[squares(ax) for ax in line] for line in lines[1:]] == [
        [(64, (8, 8))] * 8,
        [(2, (1, 2))] * 8,
        [(3, (2, 2))] * 8,
    ]
    [two], [three] = (line[5].collections for line in lines[2:])
    assert two.get_array()[0].tolist() == [list(to_rgb(PALETTE[name])) for name in ("purple", "green")]
    assert three.get_array()[1, 1].tolist() == [1, 1, 1] != three.get_array()[1, 0].tolist()  # row by row
    assert alt.endswith("all: 512 tokens, 64 a frame; two: 16 tokens, 2 a frame; film: 24 tokens, of the video whole.")
    assert_within(figure)
    with pytest.raises(ValueError, match="a film of 16 frames, here are 8"):
        film_strip(FRAMES, {"film": for_videos("film_resampler", 2, 16)})


def test_a_film_whose_tokens_do_not_divide_still_shows_all():
    config = for_videos("film_resampler", 2, 8)
    config = replace(config, connector=replace(config.connector, tokens=10))
    figure, alt = film_strip(FRAMES, {"film": config})
    assert sum(squares(ax)[0] for ax in figure.axes[8:]) == 10 and "film: 10 tokens, of the video" in alt
    assert isinstance(config.vision, FilmConfig)


def test_bars_are_the_frames_of_published_budgets():
    tokens = {name: minivlm.budget(name).visual_tokens for name in ("llava15", "llama_vid")}
    figure, alt = context_bars(tokens, {"Vicuna": 4096, "small": 512}, words=100)
    big, small = figure.axes[0].containers
    assert [bar.get_width() for bar in big] == [3996 // 576, 3996 // 2]
    assert [bar.get_width() for bar in small] == [0, 206]
    assert "into Vicuna (4,096 positions, 100 of them words): llava15 6; llama_vid 1,998." in alt
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][0] == "llava15, 576 a frame"
    assert_within(figure)


@pytest.mark.parametrize(("tokens", "fit"), [(1, 8), (3, 6), (20, 1), (21, 0)])
def test_frames_without_room_are_pale(tokens, fit):
    figure, alt = frames_in_context(FRAMES, tokens, 24, words=4)
    *pictures, bar = figure.axes
    assert [ax.images[0].get_alpha() == 1 for ax in pictures] == [n < fit for n in range(8)]
    assert bar.get_xlim() == (0, 24)
    assert [(part.get_x(), part.get_width()) for part in bar.patches] == [(0, 4), (4, fit * tokens)]
    assert f"take {8 * tokens + 4} positions; the context has 24. {'All' if fit == 8 else fit} of the frames fit" in alt
    assert alt.endswith(f"in {fit * tokens + 4} positions; {8 - fit} are never seen.")


def test_many_frames_stand_in_rows():
    figure, _ = frames_in_context(FRAMES.repeat(3, 1, 1, 1)[:18], 1, 10, words=0)
    assert len(figure.axes) == 33 and sum(bool(ax.images) for ax in figure.axes) == 18
    assert figure.axes[9].images[0].get_alpha() == 1 > figure.axes[10].images[0].get_alpha()


def test_the_gaze_is_the_mean_over_queries_of_each_frame_of_that_sample():
    outputs, _, config = watched()
    output = next(iter(outputs.values()))
    weights = output.maps["connector.context"]  # (samples * frames, 1, queries, patches)
    gaze = context_gaze(output, config, sample=1)
    assert gaze.shape == (3, 4, 4)
    for frame in range(3):
        wanted = torch.stack([weights[3 + frame, 0, query] for query in range(weights.shape[2])]).mean(dim=0)
        torch.testing.assert_close(gaze[frame], wanted.view(4, 4))


def test_a_row_a_question_on_one_scale_and_what_moves_is_said():
    outputs, images, config = watched()
    figure, alt = context_maps(outputs, images[1], config, sample=1)
    lines = [figure.axes[3 * row : 3 * row + 3] for row in range(3)]
    gazes = [context_gaze(output, config, 1) for output in outputs.values()]
    for line, gaze in zip(lines[1:], gazes, strict=True):
        for ax, frame, share in zip(line, images[1], gaze, strict=True):
            below, above = ax.images
            np.testing.assert_allclose(above.get_array(), share, rtol=1e-6)
            np.testing.assert_allclose(below.get_array()[..., 0], frame.mean(dim=0), rtol=1e-5)
    norms = {ax.images[1].norm for line in lines[1:] for ax in line}
    assert len(norms) == 1 and norms.pop().vmax == pytest.approx(float(torch.stack(gazes).max()))
    moved = sum((a - b).abs().sum().item() / 2 for a, b in zip(*gazes, strict=True)) / 3
    assert moved > 0.01 and alt.endswith(f"Between the two, {moved:.0%} of a frame's attention moves, in the mean.")
    row, col = divmod(int(gazes[0][0].argmax()), 4)
    assert alt.startswith(
        f'"{next(iter(outputs))}": the hottest patch (row, column) of each frame ({row + 1}, {col + 1})'
    )
    assert_within(figure)


def test_maps_of_other_frames_are_refused():
    outputs, images, config = watched()
    with pytest.raises(ValueError, match=r"2 frames, and maps of \[3, 3\]"):
        context_maps(outputs, images[0, :2], config)
    with pytest.raises(ValueError, match=r"3 frames, and maps of \[\]"):
        context_maps({}, images[0], config)
