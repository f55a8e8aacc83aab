"""SigLIP: every picture-text pair is a yes-no question of its own (Zhai et al. 2023, arXiv:2303.15343).

Token count: a picture becomes one vector, a text becomes one vector. Equal to `transformers.SiglipModel`.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivlm.attention import capturing
from minivlm.contrastive.towers import ContrastiveOutput, TextConfig, TextTower, gathered
from minivlm.vision.vision import check_images
from minivlm.vision.vit import ViTConfig

PIECE = 256  # texts whose pairs with all pictures are held at a time

siglip_text = partial(TextConfig, activation="gelu_tanh", eps=1e-6, causal=False)


@dataclass(frozen=True)
class SigLIPConfig:
    """Two towers; the vision tower's width is the width of the common space."""

    vision: ViTConfig
    text: TextConfig

    def build(self) -> SigLIP:
        return SigLIP(self)


class SigLIP(nn.Module):
    def __init__(self, config: SigLIPConfig):
        super().__init__()
        self.config = config
        self.vision, self.text = config.vision.build(), TextTower(config.text)
        self.text_projection = nn.Linear(config.text.width, config.vision.width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def encode_image(self, images: Float[Tensor, "I 3 H W"]) -> Float[Tensor, "I E"]:
        check_images(images, self.config.vision.image_size)
        return F.normalize(self.vision(images)[1], dim=-1)

    def encode_text(self, input_ids: Int[Tensor, "T L"]) -> Float[Tensor, "T E"]:
        """Read off at the LAST place, padding or not: pad every text to the same length, as in training."""
        return F.normalize(self.text_projection(self.text(input_ids)[:, -1]), dim=-1)

    def forward(
        self, images: Float[Tensor, "I 3 H W"], input_ids: Int[Tensor, "T L"], capture: bool = False
    ) -> ContrastiveOutput:
        """Cosine similarities times `exp(logit_scale)` plus `logit_bias`, and the loss where picture i belongs to
        text i."""
        with capturing(self) if capture else nullcontext({}) as maps:
            image, text = self.encode_image(images), self.encode_text(input_ids)
        scale, bias = self.logit_scale.exp(), self.logit_bias
        loss = sigmoid_loss(image, text, scale, bias) if len(image) == len(text) else None
        return ContrastiveOutput(scale * image @ text.T + bias, loss, image, text, maps)


def sigmoid_loss(
    image: Float[Tensor, "B E"], text: Float[Tensor, "B E"], scale: Float[Tensor, ""], bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """-log sigmoid(+-logit) summed over each picture's texts, averaged over pictures; over all processes' texts.

    No pair needs another, so texts come in pieces, each computed once more for its gradient: what is held at a time
    grows with the batch, not with its square."""
    all_texts, start = gathered(text)
    match = torch.arange(len(image), device=image.device) + start
    loss = image.new_zeros(())
    for first in range(0, len(all_texts), PIECE):
        piece = all_texts[first : first + PIECE]
        loss = loss + checkpoint(_surprise, image, piece, scale, bias, match - first, use_reentrant=False)
    return loss / len(image)


def _surprise(
    image: Float[Tensor, "B E"], texts: Float[Tensor, "t E"], scale: Tensor, bias: Tensor, match: Int[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Summed over all pairs of a picture and one of these texts, of which `match` says the number that is its own."""
    logits = scale * image @ texts.T + bias  # (B, t)
    own = match[:, None] == torch.arange(len(texts), device=image.device)
    return -F.logsigmoid(torch.where(own, logits, -logits)).sum()
