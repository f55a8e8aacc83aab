"""Low-rank adapters: the decoder stays as it is, and beside each of its maps W learns a narrow one, B A (LoRA, Hu et
al. 2021, arXiv:2106.09685; the layers are peft's)."""

from __future__ import annotations

from torch import nn

from minivlm.language.decoder import Decoder
from minivlm.layers import check_positive


def add_lora(decoder: Decoder, rank: int) -> nn.ModuleList:
    """Give every linear map of the decoder's blocks an adapter of that rank, in place; returns their weights.

    An adapter starts at 0, so the decoder says what it said. Its map then is W x + 2 B A x.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes as long to load as all the rest of the package

    check_positive(rank=rank)
    names = [name for name, module in decoder.blocks.named_modules() if isinstance(module, nn.Linear)]
    if any(name.endswith("base_layer") for name in names):
        raise ValueError("this decoder has adapters already")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[f"blocks.{name}" for name in names])
    inject_adapter_in_model(config, decoder)
    wrapped = [decoder.get_submodule(f"blocks.{name}") for name in names]
    return nn.ModuleList(nn.ModuleList([module.lora_A, module.lora_B]) for module in wrapped)
