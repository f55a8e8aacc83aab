"""Tones: what a video sounds like. Everything that happens has its own pitch: a flash one of ten, by its colour; a
visitor one of eight, by its shape; a mover hums one of four, by its way, as long as the video lasts.

From the sound, a log-mel spectrogram as hearing models read it: the energy of short pieces of the wave, in bands that
are as wide as the ear's, in logarithms (the scale is Slaney's, the filters have all the same area).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.scenes import COLORS
from minivlm.data.shapes import SHAPES
from minivlm.data.videos import BEATS, HEADINGS, MOVERS, VISITORS, Videos

RATE = 8000  # samples a second
BEAT = 2000  # samples a beat: a video lasts two seconds, whatever the number of its frames
WINDOW = 512  # samples of a piece, in which neighbouring pitches can be told apart
HOP = 250  # samples from piece to piece: eight a beat
MELS = 64
STEPS = BEATS * BEAT // HOP
_FLOOR = 1e-5  # the least energy of a band that is told from silence


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
    return log_mel(waves(videos))


def log_mel(wave: Float[Tensor, "B samples"]) -> Float[Tensor, "B mels steps"]:
    """Decibels over silence, divided by 10, of each band in each piece; 0 is silence."""
    energy = spectrogram(wave)
    bands = mel_filters(WINDOW // 2 + 1, MELS, RATE).to(wave.device)
    return torch.log10((bands.T @ energy).clamp(min=_FLOOR) / _FLOOR)


def spectrogram(wave: Float[Tensor, "B samples"]) -> Float[Tensor, "B frequencies steps"]:
    """Energy of each of the 257 frequencies from 0 to 4000 Hz, in a piece round the middle of each step (Hann's window,
    silence before and after)."""
    padded = torch.nn.functional.pad(wave, ((WINDOW - HOP) // 2, (WINDOW - HOP) // 2))
    window = torch.hann_window(WINDOW, device=wave.device)
    return torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True).abs().square()


@cache
def mel_filters(frequencies: int, bands: int, rate: int) -> Float[Tensor, "frequencies bands"]:
    """Triangles, each from the middle of the band before to that of the band behind it; middles are evenly spaced in
    mels from 0 to `rate` / 2."""
    edges = _hertz(torch.linspace(0, float(_mels(rate / 2)), bands + 2, dtype=torch.float64))
    heard = torch.linspace(0, rate / 2, frequencies, dtype=torch.float64)[:, None]
    rising = (heard - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - heard) / (edges[2:] - edges[1:-1])
    area = 2 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp(min=0) * area).float()


_KNEE, _LOG_STEP = 1000.0, math.log(6.4) / 27  # up to 1000 Hz mels are 200 / 3 Hz each, then a constant ratio


def _mels(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < _KNEE else _KNEE * 3 / 200 + math.log(hertz / _KNEE) / _LOG_STEP


def _hertz(mels: Tensor) -> Tensor:
    knee = _KNEE * 3 / 200
    return torch.where(mels < knee, mels * 200 / 3, _KNEE * torch.exp((mels - knee) * _LOG_STEP))
