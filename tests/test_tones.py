"""Tones against slow sums and transformers' filters; and what happens can be heard, when it happens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from minivlm.data.tones import (
    BEAT,
    FLASHES,
    HOP,
    HUMS,
    MELS,
    RATE,
    STEPS,
    VISITS,
    WINDOW,
    log_mel,
    mel_filters,
    spectrogram,
    tones,
    waves,
)
from minivlm.data.videos import Videos, sample_videos


def draw(n: int, frames: int = 8) -> Videos:
    return sample_videos(n, torch.Generator().manual_seed(5), frames)


@pytest.mark.parametrize(("frequencies", "bands", "rate"), [(257, 64, 8000), (201, 80, 16000), (129, 20, 4000)])
def test_filters_equal_those_of_transformers(frequencies, bands, rate):
    theirs = mel_filter_bank(frequencies, bands, 0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    assert np.abs(mel_filters(frequencies, bands, rate).numpy() - theirs).max() < 1e-6


def test_energies_equal_slow_sums():
    """Every tenth frequency of every ninth piece, sample by sample, with silence round the wave."""
    wave = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) / 10
    energy, before = spectrogram(wave), (WINDOW - HOP) // 2
    assert energy.shape == (2, WINDOW // 2 + 1, STEPS)
    n = torch.arange(WINDOW, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / WINDOW)
    for step in range(0, STEPS, 9):
        piece = torch.zeros(2, WINDOW, dtype=torch.float64)
        for place in range(WINDOW):
            sample = step * HOP + place - before
            if 0 <= sample < 16_000:
                piece[:, place] = wave[:, sample]
        for k in range(0, WINDOW // 2 + 1, 10):
            turn = 2 * math.pi * k * n / WINDOW
            real, imaginary = ((piece * hann * f(turn)).sum(dim=1) for f in (torch.cos, torch.sin))
            assert (energy[:, k, step] - (real**2 + imaginary**2)).abs().max() < 1e-4


def test_everything_that_happens_is_heard_when_it_happens():
    videos, near = draw(40), RATE / WINDOW
    energies = spectrogram(waves(videos))
    for i in range(40):
        for beat in range(8):
            flash = int(videos.flash[i, beat])
            visitors = [int(videos.shape[i, c]) for c in range(4, 8) if videos.beat[i, c] == beat]
            pitches = [float(FLASHES[flash])] if flash >= 0 else [float(VISITS[shape]) for shape in visitors]
            energy = energies[i, :, (beat * BEAT + BEAT // 2) // HOP]
            first = round(400 / near)  # hums are below
            events = energy[first:]
            if pitches:
                assert abs((first + int(events.argmax())) * near - pitches[0]) <= near, (i, beat)
            else:
                assert events.max() < 1e-3 * energy.max(), (i, beat)


def test_movers_hum_by_their_way():
    videos = draw(20)
    for i, (first, second) in enumerate(videos.heading[:, :2].tolist()):
        energy = spectrogram(waves(videos))[i, :, 4].sqrt()
        heard = {way for way in range(4) if energy[round(float(HUMS[way]) * WINDOW / RATE)] > 0.5 * energy[:22].max()}
        assert {first, second} <= heard


def test_the_number_of_frames_changes_nothing_that_is_heard():
    videos = draw(5)
    track = tones(videos)
    assert track.shape == (5, MELS, STEPS) and torch.equal(track, tones(replace(videos, frames=32)))
    assert waves(videos).abs().max() <= 1


def test_backwards_is_heard_backwards():
    """All but the hums, which say the other way: bands above 400 Hz are those of the film, from its end."""
    videos = draw(10)
    forwards, backwards = (tones(v)[:, 20:] for v in (videos, videos.backwards()))
    assert (backwards - forwards.flip(2)).abs().mean() < 0.05


def test_silence_is_nothing_and_ten_times_the_energy_one_more():
    assert not log_mel(torch.zeros(2, 16_000)).any()
    wave = waves(draw(3)) / 4
    quiet, loud = log_mel(wave), log_mel(wave * 10**0.5)
    assert torch.allclose(loud[quiet > 0], quiet[quiet > 0] + 1, atol=1e-3)
