"""MMV: the arrays of the released JAX model, by the names that Haiku gave them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minivlm.contrastive.mmv import MMV, GivenConfig, MMVConfig, WordsConfig
from minivlm.pretrained.keys import Rules, State, load_exactly, rename

Arrays = Mapping[str, Mapping[str, Any]]  # module -> name -> array

_NORM = r"__(?:cross_replica_)?batch_norm"


def _linear(theirs: str, ours: str) -> Rules:
    return [(rf"{theirs}/w", f"{ours}.weight"), (rf"{theirs}/b", f"{ours}.bias")]


def _norm(theirs: str, ours: str) -> Rules:
    """A norm's running averages stand beside a sum that follows from them and from the number of steps."""
    return [
        (rf"{theirs}/scale", f"{ours}.weight"),
        (rf"{theirs}/offset", f"{ours}.bias"),
        (rf"{theirs}/~/mean_ema/average", f"{ours}.mean"),
        (rf"{theirs}/~/var_ema/average", f"{ours}.variance"),
        (rf"{theirs}/~/mean_ema/counter", f"{ours}.steps"),
        (rf"{theirs}/~/(mean_ema/hidden|var_ema/(hidden|counter))", ""),
    ]


_RULES: Rules = [
    *_linear("vid2audio_embd/final_projection_inner", "graph.image_head.0"),
    *_norm(f"vid2audio_embd/{_NORM}", "graph.image_head.1"),
    *_linear("vid2audio_embd/final_projection", "graph.image_head.3"),
    *_norm(f"vid2audio_embd/{_NORM}_1", "graph.image_head.4"),
    *_linear("audio_embd/final_projection", "graph.audio_head"),
    *_linear("txt_embd/final_projection", "graph.text_head"),
    *_linear("vis_embd/final_projection", "graph.coarse_head.1"),
    *_norm(f"vis_embd/{_NORM}", "graph.coarse_head.2"),
    (r"text_module/(?:~/)?embed/embeddings", "text.embedding.weight"),
    *_linear("text_module/(?:~/)?text_conv1", "text.projection"),
    ("(audio2txt_embd|txt2audio_embd)/.*", ""),  # heads that the released model has and does not use
    ("(visual_module|audio_module)/.*", ""),  # the backbones, whose features a model of ours is given
]


def mmv(params: Arrays, state: Arrays, context: int = 16) -> MMV:
    """The fine-and-coarse model of arrays as Haiku names them: `params` and `state` of a released checkpoint, or of one
    made by its code. Those are pickles, which whoever trusts them has to open himself.

    All projections, norms with their running averages, and word vectors; a model that is given the features of the
    backbones, and texts of at most `context` words. ValueError for names or shapes that do not fit.
    """
    flat = {
        f"{module.partition('/')[2]}/{name}": torch.as_tensor(array)  # less the name of the whole
        for arrays in (params, state)
        for module, names in arrays.items()
        for name, array in names.items()
    }
    found = rename(flat, _RULES)
    found.pop("", None)
    found = {key: _turned(key, value) for key, value in found.items()}
    config = _config(found, context)
    with torch.device("cpu"):
        model = config.build()
    load_exactly(model, found)
    return model.eval()


def _turned(key: str, value: Tensor) -> Tensor:
    """A matrix of theirs is (in, out), a convolution over one word (1, in, out), and what a norm has (1, D)."""
    if key.endswith("embedding.weight") or value.ndim == 0:
        return value
    value = value.squeeze(0) if value.shape[0] == 1 else value
    return value.T.contiguous() if value.ndim == 2 else value


def _config(found: State, context: int) -> MMVConfig:
    heads = {name: found.get(f"graph.{name}.weight") for name in ("image_head.0", "audio_head", "text_head")}
    missing = [name for name, value in heads.items() if value is None]
    if missing or "text.embedding.weight" not in found:
        raise ValueError(f"no fine-and-coarse MMV: {', '.join(missing) or 'word vectors'} missing")
    (fine, image), (_, audio), (coarse, text) = (value.shape for value in heads.values())
    vocab_size, word_width = found["text.embedding.weight"].shape
    words = WordsConfig(vocab_size, context, word_width, text, pad_id=None)
    return MMVConfig(GivenConfig(image), GivenConfig(audio), words, fine, coarse)
