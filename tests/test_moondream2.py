"""moondream2 against its parts put together: transformers' SigLIP, two linear maps of torch, transformers' Phi."""

from __future__ import annotations

import pytest
import references
import torch
import transformers
from references import IMAGE_ID, assert_same, pictures, randomise, words
from torch import Tensor, nn

from minivlm import Batch, build, from_transformers
from minivlm.connectors.projection import MLPProjection
from minivlm.model import VLM, VLMConfig
from minivlm.pretrained.keys import load_exactly
from minivlm.vision.vit import siglip_vit

HIDDEN = 41


class Theirs(nn.Module):
    """One picture behind the first word; the tower is read after its final norm, and its head is not read."""

    def __init__(self, seed: int, scale: float):
        super().__init__()
        self.phi = references.phi(seed, scale)
        config = transformers.SiglipVisionConfig(**references.vision_sizes(seed))
        self.siglip = randomise(transformers.SiglipVisionModel(config), seed, scale)
        width, out_width = config.hidden_size, self.phi.config.hidden_size
        layers = nn.Linear(width, HIDDEN), nn.GELU(approximate="tanh"), nn.Linear(HIDDEN, out_width)
        self.projection = randomise(nn.Sequential(*layers), seed)
        self.projection[2].weight.data *= scale  # as quiet as the words
        self.projection[2].bias.data *= scale

    def forward(self, images: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        embedded = self.phi.get_input_embeddings()(ids)
        visual = self.projection(self.siglip(images).last_hidden_state)
        x = torch.cat([embedded[:, :1], visual, embedded[:, 1:]], dim=1)
        seen = torch.cat([valid[:, :1], torch.ones(visual.shape[:2], dtype=torch.bool), valid[:, 1:]], dim=1)
        return self.phi(inputs_embeds=x, attention_mask=seen.long()).logits


def ours_of(theirs: Theirs) -> VLM:
    tower, language = from_transformers(theirs.siglip), from_transformers(theirs.phi)
    sizes = {name: getattr(tower.config, name) for name in ("patch_size", "width", "depth", "heads", "mlp_width")}
    vision = siglip_vit(tower.config.image_size, **sizes, pool="mean")
    connector = MLPProjection("gelu_tanh", hidden=HIDDEN)
    ours = VLMConfig(vision, connector, language.config, image_id=IMAGE_ID, eos_id=2, layer=None).build()
    load_exactly(ours.vision, {k: v for k, v in tower.state_dict().items() if not k.startswith("pool.")})
    load_exactly(ours.connector, theirs.projection.state_dict())
    load_exactly(ours.language, language.state_dict())
    return ours


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_moondream2(seed, scale):
    theirs = Theirs(seed, scale)
    ours, side = ours_of(theirs), theirs.siglip.config.image_size
    images, ids = pictures(2, 3, side, side, seed=seed), words(2, 9, seed=seed)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, 6:] = False
    wanted = theirs(images, ids, valid)
    mark = torch.full((2, 1), IMAGE_ID)
    with_mark = torch.cat([ids[:, :1], mark, ids[:, 1:]], dim=1)
    got = ours(Batch(images[:, None], with_mark, text_mask=torch.cat([valid[:, :1], mark > 0, valid[:, 1:]], dim=1)))
    assert got.layout.lengths.tolist() == [9 + ours.config.vision.num_patches, 6 + ours.config.vision.num_patches]
    assert_same(got.logits[got.layout.valid], wanted[got.layout.valid])


def test_published_sizes():
    model = build("moondream2", "published", device="meta")
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert millions["vision"] == pytest.approx(413.0, abs=0.05)
    assert millions["connector"] == pytest.approx(26.2, rel=0.005)
    assert sum(millions.values()) == pytest.approx(1860, rel=0.005)
    with torch.device("meta"):
        phi = transformers.PhiForCausalLM(transformers.PhiConfig())  # its defaults are those of Phi-1 and Phi-1.5
    assert millions["language"] == sum(p.numel() for p in phi.parameters()) / 1e6
    assert model.connector.num_tokens(model.config.vision.grid) == 27 * 27
