"""Other libraries' models in the sizes of our mini ones, with random weights, which `from_transformers` gives ours too;
and the same work for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minivlm import mini
from minivlm.batch import IGNORE, Batch
from minivlm.language.tokenizer import Tokenizer

ANSWER = 4  # words of a text that are learned, its last ones
FIRST_WORD = 8  # ids below are marks


def llava(seed: int = 0) -> nn.Module:
    """transformers' LLaVA in the sizes of the mini LLaVA-1.5. Its encoder has no block beyond the one that is read:
    theirs would compute it nevertheless, ours would not."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    words, depth = mini.language(), mini.vision().depth - 1
    text = dict(
        model_type="llama",
        vocab_size=words.vocab_size,
        hidden_size=words.width,
        intermediate_size=words.mlp_width,
        num_hidden_layers=words.depth,
        num_attention_heads=words.heads,
        num_key_value_heads=words.kv_heads,
        rms_norm_eps=words.eps,
        rope_parameters=dict(rope_type="default", rope_theta=words.rope_theta),
        tie_word_embeddings=words.tied,
        bos_token_id=Tokenizer.bos_id,
        pad_token_id=Tokenizer.pad_id,
        eos_token_id=words.vocab_size - 1,  # no text holds it, nor does a random model say it
    )
    config = LlavaConfig(
        vision_config=dict(model_type="clip_vision_model", **_vision_sizes(), num_hidden_layers=depth),
        text_config=text,
        image_token_index=Tokenizer.image_id,
        vision_feature_layer=-1,
        tie_word_embeddings=words.tied,
    )
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config)


def clip(seed: int = 0) -> nn.Module:
    """transformers' CLIP in the sizes of the mini CLIP."""
    from transformers import CLIPConfig, CLIPModel

    ours = mini.clip()
    text = dict(
        vocab_size=ours.text.vocab_size,
        max_position_embeddings=ours.text.context,
        hidden_size=ours.text.width,
        intermediate_size=ours.text.mlp_width,
        num_hidden_layers=ours.text.depth,
        num_attention_heads=ours.text.heads,
        bos_token_id=Tokenizer.bos_id,
        eos_token_id=Tokenizer.eos_id,
        pad_token_id=Tokenizer.pad_id,
    )
    vision = dict(**_vision_sizes(), num_hidden_layers=ours.vision.depth)
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=ours.embed_dim))


def open_clip(seed: int = 0) -> nn.Module:
    """open_clip's CLIP in the same sizes."""
    from open_clip.model import CLIP

    ours = mini.clip()
    vision = dict(
        image_size=ours.vision.image_size,
        patch_size=ours.vision.patch_size,
        width=ours.vision.width,
        layers=ours.vision.depth,
        head_width=ours.vision.width // ours.vision.heads,
        mlp_ratio=ours.vision.mlp_width / ours.vision.width,
    )
    text = dict(
        context_length=ours.text.context,
        vocab_size=ours.text.vocab_size,
        width=ours.text.width,
        heads=ours.text.heads,
        layers=ours.text.depth,
        mlp_ratio=ours.text.mlp_width / ours.text.width,
    )
    torch.manual_seed(seed)
    return CLIP(ours.embed_dim, vision, text, quick_gelu=True)


def _vision_sizes() -> dict[str, object]:
    ours = mini.vision()
    return dict(
        hidden_size=ours.width,
        intermediate_size=ours.mlp_width,
        num_attention_heads=ours.heads,
        image_size=ours.image_size[0],
        patch_size=ours.patch_size,
    )


@dataclass(frozen=True)
class Task:
    """The same work, as ours is given it and as a LLaVA of transformers is: there a picture's id stands once for each
    of its patches."""

    batch: Batch
    theirs: dict[str, Tensor]


def task(samples: int, words: int, device: torch.device | str = "cpu", labelled: bool = True) -> Task:
    """A random picture and so many random words a sample, of which the last are learned, if any are."""
    chance, vision = torch.Generator().manual_seed(0), mini.vision()
    images = torch.rand(samples, 1, 3, *vision.image_size, generator=chance).to(device)
    text = torch.randint(FIRST_WORD, mini.VOCABULARY - 1, (samples, words), generator=chance)
    begin = torch.tensor([[Tokenizer.bos_id, Tokenizer.image_id]]).expand(samples, -1)
    ids = torch.cat([begin, text], dim=1).to(device)
    opened = [ids[:, :1], ids[:, 1:2].expand(-1, vision.num_patches), ids[:, 2:]]
    theirs = {"input_ids": torch.cat(opened, dim=1), "pixel_values": images[:, 0]}
    labels = None
    if labelled:
        labels = ids.clone()
        labels[:, :-ANSWER] = IGNORE
        theirs["labels"] = theirs["input_ids"].clone()
        theirs["labels"][:, :-ANSWER] = IGNORE
    return Task(Batch(images, ids, labels), theirs)
