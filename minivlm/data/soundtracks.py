"""Soundtracks: what a video sounds like. Everything that happens has its own pitch: a flash one of ten, by its colour;
a visitor one of eight, by its shape; a mover hums one of four, by its way, as long as the video lasts."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.scenes import COLORS
from minivlm.data.shapes import SHAPES
from minivlm.data.spectrograms import RATE, log_mel
from minivlm.data.videos import BEATS, HEADINGS, MOVERS, VISITORS, Videos

BEAT = 2000  # samples a beat: a video lasts two seconds, whatever the number of its frames
HOP = 250  # samples a step of the spectrogram: eight a beat
STEPS = BEATS * BEAT // HOP


def _pitches(count: int, first: float, last: float) -> Tensor:
    """Frequencies in hertz, each as many times the one before."""
    return first * (last / first) ** (torch.arange(count) / (count - 1))


HUMS, VISITS, FLASHES = (
    _pitches(len(HEADINGS), 150, 300),
    _pitches(len(SHAPES), 450, 1200),
    _pitches(len(COLORS), 1400, 3400),
)


def waves(videos: Videos) -> Float[Tensor, "B samples"]:
    """The sound of each video, in [-1, 1], 8 beats of 2000 samples."""
    device = videos.shape.device
    hums = HUMS.to(device)[videos.heading[:, MOVERS.start : MOVERS.stop]]  # (B, 2)
    tracks = [(hum[:, None].expand(-1, BEATS), 0.1) for hum in hums.unbind(dim=1)]
    tracks.append((torch.where(videos.flash < 0, 0, FLASHES.to(device)[videos.flash]), 0.4))
    visitors = slice(VISITORS.start, VISITORS.stop)
    at = videos.beat[:, visitors, None] == torch.arange(BEATS, device=device)  # (B, 4, beats)
    visits = torch.where(at, VISITS.to(device)[videos.shape[:, visitors, None]], 0).sum(dim=1)
    tracks.append((visits, 0.4))
    return sum(_track(pitch, loudness) for pitch, loudness in tracks)


def _track(pitch: Float[Tensor, "B beats"], loudness: float) -> Float[Tensor, "B samples"]:
    """A tone of that pitch in each beat (0 = silence), which begins and ends softly."""
    time = torch.arange(BEAT, device=pitch.device)
    swell = torch.sin(math.pi * (time + 0.5) / BEAT).clamp(max=0.3) / 0.3
    return (loudness * swell * torch.sin(2 * math.pi * pitch[..., None] * time / RATE)).flatten(1)


def tones(videos: Videos) -> Float[Tensor, "B mels steps"]:
    """The log-mel spectrogram of each video's sound: 64 bands, 8 steps a beat."""
    return log_mel(waves(videos), HOP)
