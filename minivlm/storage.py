"""Models to files and back: safetensors with the design's configuration inside. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from minivlm.checkpoints import remembered
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.connectors.glu_projection import GLUProjection
from minivlm.connectors.hybrid_aligner import HybridProjection
from minivlm.connectors.perceiver import FlamingoResampler, Idefics2Resampler, IdeficsResampler
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NoProjection, NormedMLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.connectors.separators import Separators
from minivlm.contrastive.clip import CLIPConfig
from minivlm.contrastive.mmv import GivenConfig, MMVConfig, WordsConfig
from minivlm.contrastive.siglip import SigLIPConfig
from minivlm.contrastive.towers import TextConfig
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.fusion import Interleaved
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.depths import DepthsConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import LearnedMagnetoConfig, MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.persimmon import PersimmonConfig
from minivlm.language.phi import PhiConfig
from minivlm.model import VLM, VLMConfig
from minivlm.pretrained.folders import open_published
from minivlm.pretrained.hub import is_published
from minivlm.pretrained.keys import load_exactly
from minivlm.pretrained.writing import write_like
from minivlm.runtime import pick_device
from minivlm.vision.film import FilmConfig
from minivlm.vision.hybrid import HybridConfig
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.sam import SAMConfig
from minivlm.vision.spectrogram import SpectrogramViTConfig
from minivlm.vision.tiles import TilesConfig
from minivlm.vision.variable import VariableViTConfig
from minivlm.vision.vit import ViTConfig

_CONFIGS = {
    kind.__name__: kind
    for kind in (CLIPConfig, SigLIPConfig, TextConfig, ViTConfig, LlamaConfig, VLMConfig)
    + (MagnetoConfig, OPTConfig, PhiConfig, PersimmonConfig, DepthsConfig)
    + (LinearProjection, MLPProjection, NormedMLPProjection, AveragePooling, PixelShuffle)
    + (NoProjection, GLUProjection, VisualExpertConfig, MultiwayConfig, LearnedMagnetoConfig)
    + (BertConfig, VocabularyConfig, QFormerConfig, InstructQFormerConfig, ContextContentConfig)
    + (FlamingoResampler, IdeficsResampler, Idefics2Resampler, QwenVLResampler, Kosmos2Resampler)
    + (CAbstraction, DAbstraction, HybridProjection, Separators)
    + (Interleaved, FlamingoCrossAttention, IdeficsCrossAttention)
    + (MMVConfig, WordsConfig, GivenConfig, SpectrogramViTConfig)
    + (TilesConfig, QuartersConfig, PatchesConfig, VariableViTConfig, SAMConfig, HybridConfig, FilmConfig)
}
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def save(model: nn.Module, path: str | Path, dtype: torch.dtype | None = None, like: str | Path | None = None) -> None:
    """Write `model` and its configuration to one safetensors file, whole or not at all. `dtype` None: each weight's.

    With `like`, the folder of a published system or its name on the hub, `path` becomes a folder that transformers
    opens: the model must be of that configuration, and what `like` has beside weights (tokenizer, processor) comes
    along. ValueError for a decoder with adapters, of which the configuration knows nothing, and as of `write_like`.
    """
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("a model with adapters cannot be saved: its configuration builds a decoder without them")
    kept = model.state_dict() if like else remembered(model)
    weights = {
        key: value.detach().to(dtype if dtype and value.is_floating_point() else value.dtype).contiguous()
        for key, value in kept.items()
    }
    if like:
        return write_like(weights, model.config, Path(path), like)
    with whole(Path(path)) as unfinished:
        save_file(weights, unfinished, metadata={"minivlm": json.dumps(_to_dict(model.config))})


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` when all of it is there: a kill leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.writing")
    yield unfinished
    os.replace(unfinished, path)


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
) -> nn.Module:
    """A model ready to be asked, on `device` (default: the best there is) in `dtype`: of a file that `save` wrote, of a
    folder of a published system, of a name on the Hugging Face hub ("llava-hf/llava-1.5-7b-hf"; `revision`: a branch,
    tag or commit of it), or of open_clip ("open_clip:ViT-B-32/laion2b_s34b_b79k").

    Only safetensors are opened, and weights that are in `dtype` already are not copied. Raises OSError for what is not
    there (FileNotFoundError, of the hub ConnectionError or PermissionError too), ValueError for pickles, damaged files,
    files of another program, systems and variants that ours does not compute, or weights that do not fit; each says
    what to do.
    """
    device = pick_device(device)
    if is_published(path):
        return open_published(path, device, dtype, revision)
    config, state = read(path)
    with torch.device(device):
        model = config.build()
    state |= {key: state[other] for key, other in _tied(model).items() if other in state}
    load_exactly(model, state)
    return model.to(dtype).eval()


def read(path: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Configuration and weights (as float32) of a file that `save` wrote. Raises as `load` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: train one with `python -m minivlm train`, or check the path")
    if path.suffix in _PICKLES:
        raise ValueError(f"{path} is a pickle, which can run any code when opened: convert it to safetensors first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error
    if "minivlm" not in metadata:
        raise ValueError(f"{path} was not written by minivlm.save: open other programs' weights with from_transformers")
    try:
        return _from_dict(json.loads(metadata["minivlm"])), state
    except ValueError as error:  # broken JSON is one too
        raise ValueError(f"{path} holds a configuration that does not make sense here: {error}") from error


ENCODERS = ("clip", "reader", "reader_any", "reader_two")  # bundled models whose picture part other designs start with


def bundled(name: str, device: str | torch.device | None = None) -> nn.Module:
    """A trained mini model that comes with the package: "clip", "decoder", "decoder_pages" (it has read about pages
    too), "decoder_videos" (about videos, too), "llava15", or an encoder that has read pages: "reader", "reader_any"
    (pictures of any size), "reader_two" (two encoders in one)."""
    with as_file(files("minivlm").joinpath("weights", f"{name}.safetensors")) as path:
        return load(path, device)


def warm_start(model: VLM) -> VLM:
    """Give a mini model the bundled encoder and decoder, as a real system starts from pretrained parts. Returns it."""
    start_encoder(model)
    decoder = getattr(model.language, "decoder", model.language)  # what routes its places has it inside
    start_from(decoder, ("decoder",))
    model.fusion.start_from(model.language)
    return model


def start_encoder(model: VLM) -> None:
    """Give a mini model the bundled encoder like its own."""
    tower = getattr(model.vision, "tower", model.vision)  # what cuts pictures first has the encoder inside
    if next(tower.parameters(), None) is not None:  # raw patches have none
        start_from(tower, ENCODERS)


def start_from(ours: nn.Module, names: Sequence[str]) -> None:
    """Give an encoder or a decoder the weights of the first bundled model that holds one like it; ValueError if none
    does."""
    seen = []
    for theirs in (bundled(name, "cpu") for name in names):  # one after the other: the rest is not opened
        theirs = getattr(theirs, "vision", theirs)
        if ours.config == theirs.config:
            return load_exactly(ours, theirs.state_dict())
        seen.append(str(theirs.config))
    raise ValueError(f"the bundled weights are for {' and '.join(seen)}, this model has {ours.config}")


def _tied(model: nn.Module) -> dict[str, str]:
    """Names under which a weight appears a second time, and the name it is stored by."""
    first = {id(value): key for key, value in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {key: first[id(value)] for key, value in every if first[id(value)] != key}


def _to_dict(config: Any) -> dict[str, Any]:
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {"kind": type(config).__name__} | {k: _to_dict(v) if is_dataclass(v) else v for k, v in values.items()}


def _from_dict(stored: dict[str, Any]) -> Any:
    values = {k: _from_dict(v) if isinstance(v, dict) else v for k, v in stored.items() if k != "kind"}
    if stored.get("kind") not in _CONFIGS:
        raise ValueError(
            f"unknown configuration {stored.get('kind')!r}: written by a newer minivlm? known: {', '.join(_CONFIGS)}"
        )
    kind = _CONFIGS[stored["kind"]]
    known, needed = {f.name for f in fields(kind)}, {f.name for f in fields(kind) if f.default is MISSING}
    if not needed <= values.keys() <= known:
        raise ValueError(
            f"a stored {kind.__name__} does not fit this version of minivlm: fields missing "
            f"{sorted(needed - values.keys())}, fields unknown {sorted(values.keys() - known)}"
        )
    return kind(**{k: _as_tuple(v) for k, v in values.items()})


def _as_tuple(value: Any) -> Any:
    """What JSON made a list of, and the lists in it, as the tuples that they were."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
