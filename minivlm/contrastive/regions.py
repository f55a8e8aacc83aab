"""Region-text contrast: each object's patch is nearest to its own phrase (RegionCLIP, Zhong et al. 2021,
arXiv:2112.09106).

Token count: a picture becomes one vector, as in CLIP, and each of its named places one more. It is how the mini encoder
is pretrained: a caption of a whole picture teaches shapes too slowly, since colours alone tell a batch's pictures
apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.contrastive.clip import CLIP, softmax_loss


@dataclass(frozen=True)
class RegionOutput:
    loss: Float[Tensor, ""]


class RegionCLIP(nn.Module):
    """A CLIP that also learns what stands where: its own loss, plus that of R places against P phrases."""

    def __init__(self, clip: CLIP):
        super().__init__()
        self.clip = clip

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        captions: Int[Tensor, "B T"],
        sample: Int[Tensor, " R"],
        patch: Int[Tensor, " R"],
        phrases: Int[Tensor, "P Tp"],
        target: Int[Tensor, " R"],
    ) -> RegionOutput:
        """`patch` of picture `sample` shows what phrase `target` says; both losses use the same projections and
        scale."""
        tokens, pooled = self.clip.vision(images)
        project = self.clip.image_projection
        scale = self.clip.logit_scale.exp()
        whole = F.normalize(project(pooled), dim=-1)
        places = F.normalize(project(tokens[sample, patch + int(self.clip.config.vision.class_token)]), dim=-1)
        contrast = softmax_loss(whole, self.clip.encode_text(captions), scale)
        naming = F.cross_entropy(scale * places @ self.clip.encode_text(phrases).T, target)
        return RegionOutput(contrast + naming)
