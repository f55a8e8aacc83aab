"""Soundtracks: what happens can be heard, when it happens."""

from __future__ import annotations

from dataclasses import replace

import torch

from minivlm.data.soundtracks import BEAT, FLASHES, HOP, HUMS, STEPS, VISITS, tones, waves
from minivlm.data.spectrograms import MELS, RATE, WINDOW, power_spectra
from minivlm.data.videos import Videos, sample_videos


def draw(n: int, frames: int = 8) -> Videos:
    return sample_videos(n, torch.Generator().manual_seed(5), frames)


def test_everything_that_happens_is_heard_when_it_happens():
    videos, near = draw(40), RATE / WINDOW
    energies = power_spectra(waves(videos), HOP)
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
        energy = power_spectra(waves(videos), HOP)[i, :, 4].sqrt()
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
    forwards, backwards = (tones(v)[:, 20:].clamp(min=-2) for v in (videos, videos.backwards()))  # what is audible
    assert (backwards - forwards.flip(2)).abs().mean() < 0.01 < 0.3 < (backwards - forwards).abs().mean()
