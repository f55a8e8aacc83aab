"""Sound for still scenes: the objects sound one after the other, and a log-mel spectrogram of it.

A beat an object, in reading order: its colour is the pitch, its shape the timbre, its size how much of the beat it
lasts, and the nearer it stands to the middle of the picture the louder it is. So a picture and its sound share what no
caption tells (the order, the exact distance), captions share with both what stands in the scene, and the cells and the
background that captions and pictures tell cannot be heard.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.data.scenes import COLORS, SIZES, Scenes
from minivlm.data.spectrograms import RATE, log_mel

BEAT = 2048  # samples of a beat: about a quarter of a second
HOP = 128  # samples a step of the spectrogram
LASTS = torch.linspace(0.4, 0.9, len(SIZES))  # share of its beat, by size
PITCHES = 300 * 2 ** (torch.arange(len(COLORS)) / 6)  # Hz, by colour: whole tones
FADE = 80  # samples over which a tone sets in, and dies away: without, it would click


def waveform(scenes: Scenes, beats: int = 4) -> Float[Tensor, "B T"]:
    """`beats` beats of `BEAT` samples between -1 and 1, silent after the last object; ValueError for a scene of more
    objects than beats."""
    most = int((scenes.shape >= 0).sum(dim=1).max())
    if most > beats:
        raise ValueError(f"a scene of {most} objects needs {most} beats, got {beats}")
    shape, color, size, x, y = (getattr(scenes, name)[:, :beats] for name in ("shape", "color", "size", "x", "y"))
    pitch, lasts = (table.to(shape.device)[index.clamp(min=0)] for table, index in ((PITCHES, color), (LASTS, size)))
    near = 1 - torch.hypot(x - 0.5, y - 0.5)  # 1 in the middle, 0.3 in a corner
    loud = (near * (shape >= 0))[..., None] * _envelope(lasts)
    return (loud * _notes(pitch, shape)).flatten(1)  # (B, beats * BEAT)


def _notes(pitch: Float[Tensor, "B beats"], shape: Int[Tensor, "B beats"]) -> Float[Tensor, "B beats BEAT"]:
    """A beat of each pitch and, of its harmonics 2, 3 and 4, those that the bits of the shape's number say."""
    angle = 2 * math.pi * pitch[..., None] * torch.arange(BEAT, device=pitch.device) / RATE
    notes = angle.sin()
    for bit in range(3):
        notes = notes + (shape >> bit & 1)[..., None] * torch.sin((bit + 2) * angle)
    return notes / 4


def _envelope(share: Float[Tensor, "B beats"]) -> Float[Tensor, "B beats BEAT"]:
    """1 for that share of the beat, 0 after, with a slope on both sides."""
    sample = torch.arange(BEAT, device=share.device)
    return torch.minimum(sample, share[..., None] * BEAT - sample).div(FADE).clamp(0, 1)


def tones(scenes: Scenes, beats: int = 4) -> Float[Tensor, "B mels steps"]:
    """The log-mel spectrogram of a scene's sound: 64 rows, low to high, and 16 steps a beat. Raises as `waveform`
    does."""
    return log_mel(waveform(scenes, beats), HOP)
