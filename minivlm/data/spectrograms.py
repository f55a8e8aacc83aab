"""Spectrograms: a sound as hearing models read it, the energy of short pieces of the wave, in bands as wide as the
ear's, in logarithms."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RATE = 8000  # samples a second
WINDOW = 512  # samples of a piece
MELS = 64  # bands
SILENCE = -6.0  # logarithm of the least energy that is told from none


def log_mel(wave: Float[Tensor, "B T"], hop: int) -> Float[Tensor, "B mels steps"]:
    """64 bands, low to high, of a piece round the middle of each `hop` samples; `SILENCE` where there is nothing."""
    spectra = power_spectra(wave, hop)
    return (mel_filters().to(spectra.device).T @ spectra).clamp(min=10**SILENCE).log10()


def power_spectra(wave: Float[Tensor, "B T"], hop: int) -> Float[Tensor, "B bins steps"]:
    """The squared short-time Fourier transform: one spectrum a `hop`, of a Hann window round it; zeros beyond both
    ends. Bin k is k * RATE / WINDOW Hz."""
    padded = F.pad(wave, ((WINDOW - hop) // 2,) * 2)
    cut = padded.unfold(-1, WINDOW, hop) * torch.hann_window(WINDOW, device=wave.device)  # (B, steps, WINDOW)
    return torch.fft.rfft(cut).abs().square().transpose(1, 2)


@cache
def mel_filters() -> Float[Tensor, "bins mels"]:
    """Triangles over the bins, each from its left neighbour's peak to its right one's; peaks are evenly spaced on the
    mel scale (HTK's), 2595 log10(1 + f / 700), from 0 Hz to half the rate."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    peaks = 700 * (10 ** (torch.linspace(0, top, MELS + 2, dtype=torch.float64) / 2595) - 1)  # Hz
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    up, down = (bins - peaks[:-2]) / (peaks[1:-1] - peaks[:-2]), (peaks[2:] - bins) / (peaks[2:] - peaks[1:-1])
    return torch.minimum(up, down).clamp(min=0).float()
