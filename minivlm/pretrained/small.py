"""Published systems at small width: the same networks, of transformers' own classes, with weights that are drawn."""

from __future__ import annotations

import torch
from torch import nn

from minivlm.language.llama import LlamaConfig

WORD = 0.02  # the size of a number of a word, about that of Llama's: small, so that a wrong epsilon shows


@torch.no_grad()
def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight drawn anew, in place, so that each matters: a library's own start has norms of ones, biases of zeros
    and scores near zero, behind which most mistakes hide."""
    chance = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            noise = torch.randn(weight.shape, generator=chance)
            if "Norm" in type(module).__name__:
                noise = 0.2 * noise + (name == "weight")
            elif isinstance(module, nn.Embedding):
                noise = WORD * noise
            elif weight.ndim > 1:
                noise = noise / weight[0].numel() ** 0.5
            weight.copy_(noise)
    return model.eval()


def small_llava(seed: int = 0) -> nn.Module:
    """LLaVA-1.5 with pictures of 28 pixels in patches of 7, three blocks of encoder and of decoder, and 96 words."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = dict(model_type="clip_vision_model", hidden_size=48, intermediate_size=96, num_hidden_layers=3,
                  num_attention_heads=4, image_size=28, patch_size=7)  # fmt: skip
    text = dict(model_type="llama", vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=2, eos_token_id=2)  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=95)
    return drawn(LlavaForConditionalGeneration(config), seed)


def small_llama(vocab_size: int, seed: int = 0) -> nn.Module:
    """Our Llama with so many words, three blocks and tied tables: a stand-in for SmolLM2 where only the road counts."""
    sizes = dict(width=48, depth=3, heads=3, kv_heads=1, mlp_width=96, tied=True)
    return drawn(LlamaConfig(vocab_size, **sizes).build(), seed)


def small_persimmon(seed: int = 0) -> nn.Module:
    """The decoder of Fuyu, Persimmon, with one block of three heads, and 64 words."""
    from transformers import PersimmonConfig, PersimmonForCausalLM

    config = PersimmonConfig(vocab_size=64, hidden_size=48, intermediate_size=96, num_hidden_layers=1,
                             num_attention_heads=3, max_position_embeddings=64)  # fmt: skip
    return drawn(PersimmonForCausalLM(config), seed)
