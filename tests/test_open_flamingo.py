"""The whole OpenFlamingo, on a tiny Llama, against the package `open-flamingo`."""

from __future__ import annotations

from functools import partial

import pytest
import transformers
from flamingos import GATED_LAYER, RESAMPLER, assert_speaks_like, several_pictures, split_keys_and_values
from references import IMAGE_ID, assert_same, llama_sizes, randomise, vision_sizes
from torch import Tensor, nn

from minivlm import VLM, Batch
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.fusion.cross_attention import FlamingoCrossAttention
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA, llama_config
from minivlm.pretrained.keys import State, load_exactly, rename
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.vision.vit import clip_vit

pytestmark = [pytest.mark.usefixtures("no_graph"), pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")]

EVERY, DEPTH = (2, 1, 3), (5, 2, 3)


class Tower(nn.Module):
    """A CLIP as open_clip hands it to OpenFlamingo: one vector for the picture, and those of its patches, before the
    final norm."""

    def __init__(self, seed: int):
        super().__init__()
        self.clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision_sizes(seed)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.clip(images)
        return output.pooler_output, output.last_hidden_state[:, 1:]


def open_flamingo(seed: int, scale: float = 1.0) -> nn.Module:
    reason = "open-flamingo asks for torch 2.0.1: pip install --no-deps open-flamingo"
    package = pytest.importorskip("open_flamingo.src.flamingo", reason=reason)
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    sizes = {**llama_sizes(seed), "num_hidden_layers": DEPTH[seed], "tie_word_embeddings": False}
    language = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    extend_instance(language, FlamingoLMMixin)
    language.set_decoder_layers_attr_name("model.layers")
    tower = nn.Module()
    tower.visual = Tower(seed)
    model = package.Flamingo(
        tower,
        language,
        eoc_token_id=2,
        media_token_id=IMAGE_ID,
        vis_dim=vision_sizes(seed)["hidden_size"],
        cross_attn_every_n_layers=EVERY[seed],
    )
    model = randomise(model, seed, scale)
    model.perceiver.latents *= scale
    return model


def converted(theirs: nn.Module, seed: int) -> VLM:
    """Theirs in our classes. Each weight between or in the blocks has several names there; of a decoder's, and of a
    layer's, one is kept."""
    tower, language = theirs.vision_encoder.clip.config, theirs.lang_encoder
    config = VLMConfig(
        vision_config(tower, clip_vit),
        FlamingoResampler(64, depth=6, heads=8, head_dim=64),
        llama_config(language.config),
        image_id=IMAGE_ID,
        eos_id=2,
        layer=-1,
        fusion=FlamingoCrossAttention(every=EVERY[seed], heads=8, head_dim=64, visual_width=tower.hidden_size),
    )
    ours = config.build().eval()
    load_exactly(ours, _renamed(theirs.state_dict(), EVERY[seed]))
    return ours


def _renamed(state: State, every: int) -> State:
    names = ("model.layers", "old_decoder_blocks", "gated_cross_attn_layers")
    again, blocks, layers = (f"lang_encoder.{name}." for name in names)
    decoder = {
        key.replace(blocks, "model.layers.").removeprefix("lang_encoder."): value
        for key, value in state.items()
        if key.startswith("lang_encoder.") and not key.startswith((again, layers))
    }
    apart = split_keys_and_values(state)
    places = sorted({int(key.removeprefix(layers).split(".")[0]) for key in state if key.startswith(layers)})
    gated = {}
    for place in places:
        gated |= rename(apart, GATED_LAYER, f"{layers}{place}.", f"fusion.layers.{(place + 1) // every - 1}.")
    return {
        **rename(state, VISION, "vision_encoder.clip.", "vision."),
        **rename(apart, RESAMPLER, "perceiver.", "connector."),
        **rename(decoder, LLAMA, into="language."),
        **gated,
    }


def theirs_of(model: nn.Module, given: Batch) -> Tensor:
    return model(given.images[:, :, None], given.input_ids, attention_mask=given.text_mask.long()).logits


def test_open_flamingo(seed, scale):
    theirs = open_flamingo(seed, scale)
    ours = converted(theirs, seed)
    given = several_pictures(ours)
    output = ours(given)
    assert_same(output.logits[given.text_mask], theirs_of(theirs, given)[given.text_mask])
    assert len(ours.fusion.layers) == DEPTH[seed] // EVERY[seed]


def test_generation(seed):
    theirs = open_flamingo(seed)
    assert_speaks_like(converted(theirs, seed), partial(theirs_of, theirs))
