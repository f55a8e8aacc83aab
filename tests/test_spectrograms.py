"""Spectrograms against slow sums and transformers' filters."""

from __future__ import annotations

import math

import pytest
import torch
from references import assert_same
from transformers.audio_utils import mel_filter_bank

from minivlm.data.spectrograms import MELS, RATE, SILENCE, WINDOW, log_mel, mel_filters, power_spectra


@pytest.mark.parametrize("hop", [128, 250])
def test_spectra_are_the_slow_transform_of_each_window(hop):
    wave = torch.randn(2, 5 * hop, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = power_spectra(wave.float(), hop)
    assert found.shape == (2, WINDOW // 2 + 1, 5)
    angle = 2 * math.pi * torch.arange(WINDOW // 2 + 1.0).double()[:, None] * torch.arange(WINDOW) / WINDOW
    for step in range(5):
        middle = step * hop + hop // 2
        window = torch.zeros(2, WINDOW, dtype=torch.float64)
        for n in range(WINDOW):
            place = middle - WINDOW // 2 + n
            if 0 <= place < wave.shape[1]:
                window[:, n] = wave[:, place] * (0.5 - 0.5 * math.cos(2 * math.pi * n / WINDOW))
        power = (window @ angle.cos().T) ** 2 + (window @ angle.sin().T) ** 2
        torch.testing.assert_close(found[:, :, step].double(), power, rtol=1e-4, atol=1e-3)


def test_filters_are_those_of_transformers():
    theirs = mel_filter_bank(WINDOW // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    assert_same(mel_filters(), torch.tensor(theirs).float(), 1e-6)
    assert (mel_filters().amax(dim=0) > 0.5).all()  # every filter hears something


def test_silence_is_the_floor_and_ten_times_the_energy_one_more():
    assert (log_mel(torch.zeros(2, 16_000), 250) == SILENCE).all()
    wave = torch.sin(2 * math.pi * 440 * torch.arange(16_000) / RATE)[None] / 4
    quiet, loud = log_mel(wave, 250), log_mel(wave * 10**0.5, 250)
    assert torch.allclose(loud[quiet > SILENCE], quiet[quiet > SILENCE] + 1, atol=1e-3)
    assert (log_mel(wave, 250) == mel_filters().T.matmul(power_spectra(wave, 250)).clamp(min=1e-6).log10()).all()
