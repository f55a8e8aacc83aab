"""Tones: what is heard is what the scene says, and the spectrogram is the textbook's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from references import assert_same

from minivlm.data.scenes import COLORS, SHAPES, SIZES, Object, Scene, Scenes, sample_scenes
from minivlm.data.spectrograms import MELS, RATE, WINDOW, mel_filters, power_spectra
from minivlm.data.tones import BEAT, HOP, PITCHES, tones, waveform

ONE = Object(shape=0, color=0, size=2, x=0.5, y=0.5)


def heard(*objects: Object, beats: int = 4) -> torch.Tensor:
    return waveform(Scenes.from_list([Scene(objects, 0)]), beats)[0]


def beat(wave: torch.Tensor, number: int) -> torch.Tensor:
    return wave[number * BEAT : (number + 1) * BEAT]


def strength(wave: torch.Tensor, frequency: float) -> float:
    """How much of that frequency is in the first 0.4 of a beat, where every tone lasts; 1 for a sine of height 1."""
    part = wave[: int(0.4 * BEAT)].double()
    angle = 2 * math.pi * frequency * torch.arange(len(part)) / RATE
    fade = torch.hann_window(len(part), dtype=torch.float64)
    return float(torch.hypot((fade * part * angle.cos()).sum(), (fade * part * angle.sin()).sum()) / fade.sum() * 2)


@pytest.mark.parametrize("color", range(len(COLORS)))
def test_a_colour_is_a_pitch(color):
    """Of all ten fundamentals, its own is by far the strongest."""
    wave = heard(replace(ONE, color=color))
    found = [strength(wave, float(pitch)) for pitch in PITCHES]
    assert found[color] == pytest.approx(0.25, abs=0.01)
    assert sorted(found)[-2] < 0.1


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_shape_is_a_timbre(shape):
    """Its number in binary says which of harmonics 2, 3 and 4 sound: no two shapes alike."""
    wave, pitch = heard(replace(ONE, shape=shape, color=4)), float(PITCHES[4])
    found = [strength(wave, n * pitch) > 0.1 for n in (1, 2, 3, 4)]
    assert found == [True, *(digit == "1" for digit in reversed(f"{shape:03b}"))]
    assert all(n * float(PITCHES.max()) < RATE / 2 for n in (1, 2, 3, 4))  # or it would sound as another tone


def test_a_larger_thing_lasts_longer():
    lengths = [int(heard(replace(ONE, size=size))[:BEAT].abs().gt(1e-3).nonzero().max()) for size in range(len(SIZES))]
    assert lengths == sorted(lengths) and all(b - a > 400 for a, b in zip(lengths, lengths[1:], strict=False))
    assert lengths[0] == pytest.approx(0.4 * BEAT, abs=20) and lengths[-1] == pytest.approx(0.9 * BEAT, abs=20)


def test_loudness_falls_with_the_distance_to_the_middle():
    """In a line, wherever it lies; a scene tells it by a fraction of its cell, a caption only by the cell."""
    middle = strength(heard(ONE), 300)
    for x, y in ((0.5, 0.8), (0.2, 0.5), (0.62, 0.57), (0.9, 0.1)):
        assert strength(heard(replace(ONE, x=x, y=y)), 300) == pytest.approx(
            middle * (1 - math.dist((x, y), (0.5, 0.5))), rel=1e-3
        )


def test_things_sound_in_reading_order_and_then_there_is_silence():
    things = [replace(ONE, color=color, x=x, y=y) for color, x, y in ((7, 0.9, 0.9), (2, 0.5, 0.1), (5, 0.1, 0.5))]
    wave = heard(*things)
    for number, color in enumerate((2, 5, 7)):
        assert max(range(10), key=lambda c: strength(beat(wave, number), float(PITCHES[c]))) == color
        assert beat(wave, number)[-100:].abs().max() == 0
    assert beat(wave, 3).abs().max() == 0 and len(wave) == 4 * BEAT
    assert wave.abs().max() <= 1


def test_neither_background_nor_company_changes_a_tone():
    scene = Scene((replace(ONE, x=0.1, y=0.1), replace(ONE, color=3)), 0)
    alone, other = Scene(scene.objects[:1], 0), Scene(scene.objects, 2)
    waves = waveform(Scenes.from_list([scene, alone, other]))
    assert torch.equal(waves[0, :BEAT], waves[1, :BEAT]) and torch.equal(waves[0], waves[2])


def test_more_things_than_beats_are_refused():
    crowd = sample_scenes(3, torch.Generator().manual_seed(0), min_objects=5, max_objects=5)
    with pytest.raises(ValueError, match="a scene of 5 objects needs 5 beats, got 4"):
        tones(crowd)
    assert tones(crowd, beats=5).shape == (3, MELS, 80)


def test_a_spectrogram_is_the_log_of_what_each_filter_hears():
    """Silence is -6, and each of the louder rows is near one of the tone's harmonics."""
    scenes = Scenes.from_list([Scene((replace(ONE, shape=2, color=4),), 0)])
    found = tones(scenes)[0]
    assert found.shape == (MELS, 64) and (found[:, 20:] == -6).all()
    row = mel_filters().T @ power_spectra(waveform(scenes), HOP)[0, :, 6]
    assert_same(found[:, 6], row.clamp(min=1e-6).log10(), 1e-5)
    peaks = [m for m in range(1, MELS - 1) if found[m, 6] > 1 and found[m - 1, 6] < found[m, 6] >= found[m + 1, 6]]
    centres = [float(mel_filters()[:, m].argmax()) * RATE / WINDOW for m in peaks]
    wanted = [float(PITCHES[4]) * n for n in (1, 3)]
    assert len(centres) == 2 and all(abs(c - w) < 40 for c, w in zip(centres, wanted, strict=True))
