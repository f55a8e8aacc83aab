"""Training on data in shards (`data/hub.py`): batches of pictures with captions for two towers, and of pictures with
questions, or with captions, for a model that answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.batch import Batch, Encodes
from minivlm.contrastive.clip import CLIP
from minivlm.contrastive.siglip import SigLIP
from minivlm.data.files import decoded
from minivlm.data.hub import Lanes, Sample, Shards
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.model import VLM
from minivlm.recipes import CLIP_SIZES, VLM_SIZES, two_stages
from minivlm.train import Stage, Step

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class HubPairs:
    """(pictures, captions) for a two-tower model; of a question on a picture, the answer is its caption."""

    tokenizer: Tokenizer
    lanes: Lanes
    context: int
    size: Size

    @property
    def batch_size(self) -> int:
        return self.lanes.batch_size

    def __call__(self, step: int, rows: range) -> Step:
        samples = self.lanes(step, rows)
        ids = self.tokenizer.pad([sample.answer for sample in samples], self.context)
        return Step((pictures(samples, self.size), ids), len(rows))


@dataclass(frozen=True)
class HubDialogs:
    """A question on each picture and its answer, or its caption, for a model that answers."""

    tokenizer: Encodes
    lanes: Lanes
    size: Size

    @property
    def batch_size(self) -> int:
        return self.lanes.batch_size

    def __call__(self, step: int, rows: range) -> Step:
        samples = self.lanes(step, rows)
        dialogs = [[(sample.question, sample.answer)] for sample in samples]
        batch = Batch.pack(self.tokenizer, dialogs, images=pictures(samples, self.size)[:, None])
        return Step((batch,), int((batch.labels >= 0).sum()))


def pictures(samples: Sequence[Sample], size: Size) -> Float[Tensor, "B 3 H W"]:
    """As `load_image` has them, several at a time. DataError names the row of one that cannot be read."""
    with ThreadPoolExecutor() as pool:
        return torch.stack(list(pool.map(lambda one: decoded(BytesIO(one.picture), size, one.name), samples)))


def hub_stages(model: nn.Module, name: str | Path, scale: str, seed: int = 0) -> list[Stage]:
    """The recipe of each kind of design, on the train split of data in shards instead of scenes. ValueError for one
    that pictures and texts are not enough for."""
    shards = Shards(name, seed=seed)
    if isinstance(model, VLM):
        size = VLM_SIZES[scale]
        source = HubDialogs(mini_tokenizer(), Lanes(shards, size.batch_size), model.config.vision.image_size)
        return two_stages(model, source, source, size)
    if not isinstance(model, CLIP | SigLIP):
        raise ValueError(f"a {type(model).__name__} does not learn from pictures with texts alone")
    size, context = CLIP_SIZES[scale], model.config.text.context
    pairs = HubPairs(mini_tokenizer(), Lanes(shards, size.batch_size), context, model.config.vision.image_size)
    return [Stage("contrast", pairs, size.steps, lr=1e-3)]
