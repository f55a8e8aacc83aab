"""Embedding graphs: into which spaces pictures, sounds and texts are projected, and so who can be compared with whom
(MMV, Alayrac et al. 2020, arXiv:2006.16228, section 3.1).

Pictures are trained with sounds in one space and with texts in another, or the same; sounds and texts never meet in
training. Each graph gives a picture's two vectors, a sound's two and a text's one, none of them normed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.contrastive.towers import gathered


class BatchNorm(nn.Module):
    """Haiku's batch norm, which is not torch's: the running variance is of the biased kind, as that in training is, and
    both running averages begin as the first batch's (zero-debias), not at 0 and 1. Over all processes' samples."""

    def __init__(self, width: int, eps: float = 1e-5, decay: float = 0.9):
        super().__init__()
        self.eps, self.decay = eps, decay
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # in 16 bits, statistics would be too coarse
        if self.training:
            seen = gathered(x)[0]
            mean, variance = seen.mean(dim=0), seen.var(dim=0, unbiased=False)
            self._remember(mean.detach(), variance.detach())
        else:
            mean, variance = self.mean, self.variance
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def _remember(self, mean: Float[Tensor, " D"], variance: Float[Tensor, " D"]) -> None:
        """Batch n counts 0.1, the one before 0.1 * 0.9, and so on, all divided by their sum, 1 - 0.9^n."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay ** int(self.steps))
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


class MLPHead(nn.Sequential):
    """A picture's way into a space. The last Linear has no bias: the norm behind it would take it away again."""

    def __init__(self, width: int, hidden: int, out_width: int):
        inner = (nn.Linear(width, hidden), BatchNorm(hidden), nn.ReLU())
        super().__init__(*inner, nn.Linear(hidden, out_width, bias=False), BatchNorm(out_width))


class Graph(nn.Module):
    """What all three share: a picture's MLP and a sound's matrix into the fine space, a text's into the coarse one.
    `ways` says what leads where, as pairs of a modality or a space and a space."""

    ways: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self, image: int, audio: int, text: int, fine: int, coarse: int):
        super().__init__()
        self.image_head = MLPHead(image, fine, fine)
        self.audio_head = nn.Linear(audio, fine)
        self.text_head = nn.Linear(text, coarse)

    def text(self, features: Float[Tensor, "T D"]) -> Float[Tensor, "T C"]:
        return self.text_head(features)


class Shared(Graph):
    """One space for all, as wide as the fine one: all can be compared, and the finest has to lie beside the coarsest.
    (In the released code a picture passes the norms of this one head twice a step; here once.)"""

    ways = (("image", "shared"), ("audio", "shared"), ("text", "shared"))

    def __init__(self, image: int, audio: int, text: int, fine: int, coarse: int):
        if fine != coarse:
            raise ValueError(f"a shared space has one width, got fine {fine} and coarse {coarse}: make them equal")
        super().__init__(image, audio, text, fine, coarse)

    def image(self, features: Float[Tensor, "I D"]) -> tuple[Float[Tensor, "I F"], Float[Tensor, "I C"]]:
        return (self.image_head(features),) * 2

    def audio(self, features: Float[Tensor, "A D"]) -> tuple[Float[Tensor, "A F"], Float[Tensor, "A C"]]:
        return (self.audio_head(features),) * 2


class Disjoint(Graph):
    """A space for pictures and sounds, another for pictures and texts: nothing leads from a sound to a text."""

    ways = (("image", "fine"), ("audio", "fine"), ("image", "coarse"), ("text", "coarse"))

    def __init__(self, image: int, audio: int, text: int, fine: int, coarse: int):
        super().__init__(image, audio, text, fine, coarse)
        self.coarse_head = MLPHead(image, fine, coarse)

    def image(self, features: Float[Tensor, "I D"]) -> tuple[Float[Tensor, "I F"], Float[Tensor, "I C"]]:
        return self.image_head(features), self.coarse_head(features)

    def audio(self, features: Float[Tensor, "A D"]) -> tuple[Float[Tensor, "A F"], None]:
        return self.audio_head(features), None


class FineAndCoarse(Graph):
    """The fine space leads on to the coarse one: what pictures learn to leave out on that way, sounds leave out too.

    In training no sound goes there: with no loss to use it, it would only spoil the norm's running averages.
    """

    ways = (("image", "fine"), ("audio", "fine"), ("fine", "coarse"), ("text", "coarse"))

    def __init__(self, image: int, audio: int, text: int, fine: int, coarse: int):
        super().__init__(image, audio, text, fine, coarse)
        self.coarse_head = nn.Sequential(nn.ReLU(), nn.Linear(fine, coarse), BatchNorm(coarse))

    def image(self, features: Float[Tensor, "I D"]) -> tuple[Float[Tensor, "I F"], Float[Tensor, "I C"]]:
        fine = self.image_head(features)
        return fine, self.coarse_head(fine)

    def audio(self, features: Float[Tensor, "A D"]) -> tuple[Float[Tensor, "A F"], Float[Tensor, "A C"] | None]:
        fine = self.audio_head(features)
        return fine, None if self.training else self.coarse_head(fine)


GRAPHS: dict[str, type[Graph]] = {"shared": Shared, "disjoint": Disjoint, "fac": FineAndCoarse}
