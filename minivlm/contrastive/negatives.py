"""Hard negatives: beside each picture's caption one with the same words in other places (NegCLIP, Yuksekgonul et al.
2022, arXiv:2210.01936).

Token count: as in CLIP. Other captions of a batch differ in their words, so a batch never asks which word goes with
which; a foil asks nothing else. NegCLIP also draws batches of similar pictures; here only the texts are hard.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minivlm.contrastive.towers import gathered


def hard_negative_loss(
    image: Float[Tensor, "B E"], text: Float[Tensor, "B E"], foil: Float[Tensor, "B E"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """CLIP's loss where each picture also has to prefer its text to all foils; over all processes' pairs.

    A foil belongs to no picture: it is a wrong answer for every picture, and asks for none.
    """
    (all_images, start), (all_texts, _), (all_foils, _) = gathered(image), gathered(text), gathered(foil)
    target = torch.arange(len(image), device=image.device) + start
    per_image = F.cross_entropy(scale * image @ torch.cat([all_texts, all_foils]).T, target)
    per_text = F.cross_entropy(scale * text @ all_images.T, target)
    return (per_image + per_text) / 2
