"""The explorers of the lessons: attention, similarity, budget.

They read results that are there (`Output`, cosines, budgets) through `minivlm.figures`; none runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from torch import Tensor

from minivlm.attribution import READINGS, decoder_attention
from minivlm.batch import Batch
from minivlm.budget import Budget, budget
from minivlm.designs import DESIGNS, configure
from minivlm.explore.base import Explorer, buttons, counted, slider
from minivlm.figures import attention_maps, budget_bars, match_probabilities, words_of_patch
from minivlm.figures.budget import CARDS
from minivlm.figures.common import told_apart, words_at
from minivlm.model import Output

TEMPERATURES = np.geomspace(0.01, 1, 17).round(4).tolist()
PIXELS = (112, 224, 336, 448, 672, 896)
PATCHES = (8, 14, 16, 28, 32)
IMAGES = (1, 2, 4, 8, 16, 32, 64)  # pictures, or frames of a video


def attention_explorer(batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int = 0) -> Explorer:
    """From a word of a sample to the patches that it reads, or from a patch to the words that read it: in one block and
    head, or in the mean.

    Reads `output.maps` and `output.layout`. The method "gradient" is there for an output that was made outside of
    `torch.no_grad()`. ValueError for an output without maps.
    """
    layers, layout = decoder_attention(output), output.layout
    graph = all(weights.requires_grad for weights in layers)
    readers = layout.is_text[sample] & (layout.predecessor()[sample] >= 0)  # the begin mark reads nothing
    places = readers.nonzero().flatten().tolist()
    words = told_apart(words_at(batch, output, decode, sample, places))
    methods = [(method, method) for method in READINGS if graph or method != "gradient"]
    controls = {
        "start": buttons("Start from", [("a word", "word"), ("a patch", "patch")]),
        "place": buttons("Word", list(zip(words, places, strict=True))),
        "method": buttons("Method", methods),
        "row": slider("Patch row", counted(int(layout.row[sample].max()) + 1)),
        "col": slider("Patch column", counted(int(layout.col[sample].max()) + 1)),
        "layer": slider("Block", [("mean", 0), *counted(len(layers))]),
        "head": slider("Head", [("mean", 0), *counted(layers[0].shape[1])]),
    }

    def draw(start, layer, head, place=None, method=None, row=None, col=None):
        site = dict(sample=sample, layer=layer - 1 if layer else None, head=head - 1 if head else None)
        if start == "word":
            figure, told = attention_maps(batch, output, decode, [place], method=method, **site)
            told = f"Word {places.index(place) + 1} of {len(places)}. {told}"  # a word may stand there twice
            return figure, told if graph else f"{told} No gradients: the model was called under torch.no_grad()."
        figure, told = words_of_patch(batch, output, decode, row - 1, col - 1, **site)
        return figure, f"In {_which('block', layer)} and {_which('head', head)}: {told}"

    unused = {"word": ("row", "col"), "patch": ("place", "method")}
    return Explorer("Attention explorer", controls, draw, hidden=lambda start, **_: unused[start])


def _which(kind: str, number: int) -> str:
    return f"{kind} {number}" if number else f"the mean over {kind}s"


def similarity_explorer(
    panels: Mapping[str, Float[Tensor, "I T"]],
    rows: Sequence[str],
    columns: Sequence[str],
    temperature: float = 0.07,
    kind: str = "Step",
) -> Explorer:
    """How surely each picture (row) picks each text (column), in each of `panels`, by temperature.

    `panels` hold cosines, and `kind` says what they are: steps of a training, or spaces. `temperature` is the one to
    begin with; CLIP's own is 0.07 when its training begins.
    """
    choices = sorted({*TEMPERATURES, temperature})
    controls = {
        "panel": slider(kind, [(name, name) for name in panels]),
        "temperature": slider("Temperature", [(f"{value:.3g}", value) for value in choices], temperature),
    }

    def draw(panel, temperature):
        figure, told = match_probabilities(panels[panel], [temperature], rows, columns)
        return figure, f"{kind} {panel}. {told}"

    return Explorer("Similarity explorer", controls, draw)


def budget_explorer(names: Sequence[str] = (), words: int = 64) -> Explorer:
    """What published designs would cost if their encoders were made for pictures of other sizes, in other patches, and
    with more pictures, and in how much memory they fit. `names`: designs with a decoder, or none for all of these."""
    names = names or [name for name, design in DESIGNS.items() if design.answers]
    own = configure(names[0], "published").vision
    side = min(PIXELS, key=lambda n: abs(n - own.image_size[0]))
    patch = min(PATCHES, key=lambda n: abs(n - getattr(own, "patch_size", PATCHES[0])))
    controls = {
        "name": buttons("Design", [(DESIGNS[name].title, name) for name in names]),
        "pixels": slider("Picture side", [(f"{n} pixels", n) for n in PIXELS], side),
        "patch": slider("Patch side", [(f"{n} pixels", n) for n in PATCHES], patch),
        "images": slider("Pictures", [(str(n), n) for n in IMAGES]),
    }

    def draw(name, pixels, patch, images):
        title = DESIGNS[name].title
        try:
            cost = budget(name, words=words, encoder_size=pixels, patch_size=patch, images=images)
        except ValueError as error:  # sizes that do not suit the design: nothing went wrong
            return plt.figure(figsize=(2, 0.2)), f"{title} cannot read this: {error}."
        return budget_bars({title: cost})[0], _costs(title, cost)

    return Explorer("Budget explorer", controls, draw)


def _costs(title: str, cost: Budget) -> str:
    """One budget in words: sizes, tokens, operations by part, cache by kind, memory, and the cards that it fits on."""
    height, width = cost.image_size
    pictures = f"{cost.images} picture{'s' if cost.images > 1 else ''} of {height} x {width} pixels"
    parts = ", ".join(f"{part} {count / 1e12:,.2f}" for part, count in cost.flops.items())
    fits = ", ".join(f"{card} GB {'yes' if cost.fits(card) else 'no'}" for card in CARDS)
    return (
        f"{title}, {pictures} and {cost.words} words: {cost.visual_tokens:,} visual tokens; "
        f"{sum(cost.flops.values()) / 1e12:,.2f} TFLOP to read all ({parts}); KV cache "
        f"{cost.image_cache_bytes / 2**20:,.0f} MiB of pictures, {cost.text_cache_bytes / 2**20:,.0f} MiB of words; "
        f"{cost.memory_bytes / 1e9:,.1f} GB with the weights, in 16 bits. Fits on: {fits}."
    )
