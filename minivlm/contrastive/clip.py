"""CLIP: pictures and texts in one space, each picture nearest to its own text (Radford et al. 2021, arXiv:2103.00020).

Token count: a picture becomes one vector, a text becomes one vector. Equal to `transformers.CLIPModel`.
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

from minivlm.attention import capturing
from minivlm.contrastive.towers import ContrastiveOutput, TextConfig, TextTower, gathered
from minivlm.vision.vision import check_images
from minivlm.vision.vit import ViTConfig

clip_text = partial(TextConfig, activation="quick_gelu", eps=1e-5, causal=True)


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers and the width of their common space. `eos_id` marks where a text is read off (its first occurrence);
    None: at its largest id, as OpenAI's and open_clip's vocabularies allow."""

    vision: ViTConfig
    text: TextConfig
    embed_dim: int
    eos_id: int | None

    def build(self) -> CLIP:
        return CLIP(self)


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.vision, self.text = config.vision.build(), TextTower(config.text)
        self.image_projection = nn.Linear(config.vision.width, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: Float[Tensor, "I 3 H W"]) -> Float[Tensor, "I E"]:
        check_images(images, self.config.vision.image_size)
        return F.normalize(self.image_projection(self.vision(images)[1]), dim=-1)

    def encode_text(self, input_ids: Int[Tensor, "T L"]) -> Float[Tensor, "T E"]:
        states = self.text(input_ids)
        eos = self.config.eos_id
        end = input_ids.argmax(dim=1) if eos is None else (input_ids == eos).int().argmax(dim=1)  # (T,)
        pooled = states[torch.arange(len(states), device=states.device), end]  # (T, D)
        return F.normalize(self.text_projection(pooled), dim=-1)

    def forward(
        self, images: Float[Tensor, "I 3 H W"], input_ids: Int[Tensor, "T L"], capture: bool = False
    ) -> ContrastiveOutput:
        """Cosine similarities times `exp(logit_scale)`, and the loss where picture i belongs to text i."""
        with capturing(self) if capture else nullcontext({}) as maps:
            image, text = self.encode_image(images), self.encode_text(input_ids)
        scale = self.logit_scale.exp()
        loss = softmax_loss(image, text, scale) if len(image) == len(text) else None
        return ContrastiveOutput(scale * image @ text.T, loss, image, text, maps)


def softmax_loss(
    image: Float[Tensor, "B E"], text: Float[Tensor, "B E"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Cross-entropy over each picture's texts and each text's pictures, averaged; over all processes' pairs."""
    (all_images, start), (all_texts, _) = gathered(image), gathered(text)
    target = torch.arange(len(image), device=image.device) + start
    per_image = F.cross_entropy(scale * image @ all_texts.T, target)
    per_text = F.cross_entropy(scale * text @ all_images.T, target)
    return (per_image + per_text) / 2
