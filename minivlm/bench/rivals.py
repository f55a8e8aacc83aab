"""Other libraries' models in the sizes of our mini ones, with random weights, which `from_transformers` gives ours too;
and the same work for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minivlm import mini
from minivlm.batch import IGNORE, Batch
from minivlm.contrastive.towers import TextConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.tokenizer import Tokenizer
from minivlm.vision.vit import ViTConfig

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
        **_blocks(words, words.depth),
        num_key_value_heads=words.kv_heads,
        rms_norm_eps=words.eps,
        rope_parameters=dict(rope_type="default", rope_theta=words.rope_theta),
        tie_word_embeddings=words.tied,
        bos_token_id=Tokenizer.bos_id,
        pad_token_id=Tokenizer.pad_id,
        eos_token_id=words.vocab_size - 1,  # no text holds it, nor does a random model say it
    )
    config = LlavaConfig(
        vision_config=dict(model_type="clip_vision_model", **_vision(depth)),
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
        **_blocks(ours.text, ours.text.depth),
        bos_token_id=Tokenizer.bos_id,
        eos_token_id=Tokenizer.eos_id,
        pad_token_id=Tokenizer.pad_id,
    )
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=text, vision_config=_vision(ours.vision.depth), projection_dim=ours.embed_dim)
    return CLIPModel(config)


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


def _vision(depth: int) -> dict[str, int]:
    """The mini encoder's sizes by transformers' names, with so many blocks."""
    ours = mini.vision()
    return dict(**_blocks(ours, depth), image_size=ours.image_size[0], patch_size=ours.patch_size)


def _blocks(ours: ViTConfig | TextConfig | LlamaConfig, depth: int) -> dict[str, int]:
    """The sizes of so many of its blocks."""
    return dict(
        hidden_size=ours.width,
        intermediate_size=ours.mlp_width,
        num_hidden_layers=depth,
        num_attention_heads=ours.heads,
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
    ids = texts(samples, words, 1, chance).to(device)
    opened = [ids[:, :1], ids[:, 1:2].expand(-1, vision.num_patches), ids[:, 2:]]
    theirs = {"input_ids": torch.cat(opened, dim=1), "pixel_values": images[:, 0]}
    if labelled:
        theirs["labels"] = labels_of(theirs["input_ids"])
    return Task(Batch(images, ids, labels_of(ids) if labelled else None), theirs)


def texts(samples: int, words: int, pictures: int, chance: torch.Generator) -> Int[Tensor, "B T"]:
    """So many pictures' marks, and random words."""
    text = torch.randint(FIRST_WORD, mini.VOCABULARY - 1, (samples, words), generator=chance)
    begin = torch.tensor([[Tokenizer.bos_id] + [Tokenizer.image_id] * pictures]).expand(samples, -1)
    return torch.cat([begin, text], dim=1)


def labels_of(ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The last words are to be learned."""
    labels = ids.clone()
    labels[:, :-ANSWER] = IGNORE
    return labels
