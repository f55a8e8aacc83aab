"""A spectrogram read as a grey picture: the vision transformer, hearing (AST, Gong et al. 2021, arXiv:2104.01778).

Token count: (mels / patch) * (steps / patch) patches in, the same out, plus one class token where the tower has one.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from minivlm.vision.vit import ViT, ViTConfig


@dataclass(frozen=True)
class SpectrogramViTConfig(ViTConfig):
    """`image_size` is (mels, steps); `mean` and `std` are of log-mel values, three times the same."""

    def build(self) -> SpectrogramViT:
        return SpectrogramViT(self)


class SpectrogramViT(ViT):
    """A ViT whose three colours are all the same. AST has one channel, whose weights are the sum of such three."""

    def forward(self, audio: Float[Tensor, "A mels steps"]) -> tuple[Float[Tensor, "A N D"], Float[Tensor, "A D"]]:
        """All tokens after the final norm, and one vector for the sound."""
        check_audio(audio, self.config.image_size)
        return super().forward(audio[:, None].expand(-1, 3, -1, -1))


def check_audio(audio: Tensor, size: tuple[int, int]) -> None:
    """Refuse what is no batch of float spectrograms of `size` (mels, steps): TypeError or ValueError saying what
    came."""
    if not isinstance(audio, Tensor) or not audio.is_floating_point():
        got = audio.dtype if isinstance(audio, Tensor) else type(audio).__name__
        raise TypeError(f"audio must be a float tensor (A, mels, steps) of log-mel values, got {got}")
    if audio.ndim != 3 or tuple(audio.shape[1:]) != tuple(size) or len(audio) == 0:
        mels, steps = size
        raise ValueError(f"this tower hears (A, {mels}, {steps}) spectrograms, A >= 1, got {tuple(audio.shape)}")
    if audio.device.type != "meta" and not audio.isfinite().all():
        raise ValueError("audio holds NaN or infinite values: add a little before taking the log of silence")
