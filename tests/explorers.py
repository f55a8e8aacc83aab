"""The explorers on data small enough to be drawn within a test, in this process or in a notebook of a test."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import arenas
import comparisons
import numpy as np
import tiny
import torch
from torch import Tensor

from minivlm.batch import Batch
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import QwenVLResampler
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.connectors.separators import Separators
from minivlm.data.referring import Referent
from minivlm.designs import configure
from minivlm.evaluate import Score
from minivlm.explore import (
    Explorer,
    arena_explorer,
    attention_explorer,
    budget_explorer,
    canvas_explorer,
    context_explorer,
    depths_explorer,
    experts_explorer,
    frames_explorer,
    frontier_explorer,
    gates_explorer,
    grounding_explorer,
    planning_explorer,
    queries_explorer,
    questions_explorer,
    raw_explorer,
    similarity_explorer,
    switchboard_explorer,
)
from minivlm.fusion.cross_attention import FlamingoCrossAttention
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.gates import forced
from minivlm.grounding import Located
from minivlm.language.depths import DepthsConfig
from minivlm.model import VLM, ConnectorConfig, Output, VLMConfig
from minivlm.planning import Run
from minivlm.skipping import highest_picked
from minivlm.vision.patches import PatchesConfig

DIALOG = [("what color is the circle ?", "red"), ("is there a red circle ?", "no")]
PANELS = {"before": torch.eye(3).roll(1, dims=0), "trained": torch.tensor([[0.9, 0, 0], [0, 0.5, 0.6], [0, 0, 0.7]])}
QUESTIONS = ["what color is the circle ?", "where is the star ?", "is there a red star ?"]
PAIRS = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))  # two samples of a picture
TEXTS = ["a circle", "a square", "a star"]
TILED = configure("llava_next")


def visible(explorer: Explorer) -> dict[str, object]:
    """The controls in sight, by their description."""
    return {c.description: c for c in explorer.controls.values() if c.layout.display != "none"}


def seen(graph: bool = True) -> tuple[Batch, Output]:
    """A batch of one picture with two questions, and what a tiny model made of it, with its maps."""
    images = torch.rand(1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch.pack(tiny.TOKENIZER, [DIALOG], images=images)
    with torch.set_grad_enabled(graph):
        return batch, tiny.vlm()(batch, capture=True)


def attention(graph: bool = True) -> Explorer:
    return attention_explorer(*seen(graph), tiny.TOKENIZER.decode)


def similarity() -> Explorer:
    return similarity_explorer(PANELS, TEXTS, TEXTS)


def budget() -> Explorer:
    return budget_explorer(["llava", "yi_vl"], words=32)


def looked_at(connector: ConnectorConfig, question: str = QUESTIONS[0]) -> tuple[VLMConfig, Output]:
    """What a tiny model with that connector, its weights drawn large, makes of `PAIRS`, and its configuration."""
    vision = replace(tiny.vlm().config.vision, image_size=(32, 32))
    config = replace(tiny.vlm().config, vision=vision, connector=connector)
    torch.manual_seed(1)
    model = config.build()
    for weights in model.connector.parameters():
        torch.nn.init.normal_(weights, std=0.6)
    batch = Batch.pack(tiny.TOKENIZER, [[(question, "red")]] * 2, images=PAIRS)
    with torch.no_grad():
        return config, model(batch, capture=True)


def seen_by_queries() -> tuple[dict[str, VLMConfig], dict[str, Output]]:
    """Of two resamplers with two sites, and one with one, which has one head."""
    kinds = {f"{n} tokens": FlamingoResampler(n, depth=2, heads=2, head_dim=8) for n in (2, 4)}
    seen = {name: looked_at(kind) for name, kind in (kinds | {"one site": QwenVLResampler(1, heads=1)}).items()}
    return tuple({name: pair[i] for name, pair in seen.items()} for i in (0, 1))


def queries() -> Explorer:
    configs, outputs = seen_by_queries()
    return queries_explorer(outputs, PAIRS, configs)


def asked() -> tuple[dict[str, Output], VLMConfig]:
    """What a tiny model that reads the question looks at for each, and its configuration."""
    bert = replace(tiny.reader().config.connector.bert, depth=3)
    connector = replace(tiny.reader().config.connector, bert=bert)
    seen = {question: looked_at(connector, question) for question in QUESTIONS}
    return {question: output for question, (_, output) in seen.items()}, seen[QUESTIONS[0]][0]


def questions() -> Explorer:
    outputs, config = asked()
    return questions_explorer(outputs, PAIRS, config)


def blended() -> tuple[Batch, dict[float, Output]]:
    """Two pictures with two questions each, and what a tiny model answers with its experts as they began, halfway to
    others, and there."""
    dialogs = [[(QUESTIONS[0], "red"), (QUESTIONS[1], "left")], [(QUESTIONS[2], "no"), (QUESTIONS[0], "blue")]]
    batch = Batch.pack(tiny.TOKENIZER, dialogs, images=PAIRS[..., :16, :16])
    torch.manual_seed(1)
    model = replace(tiny.vlm().config, fusion=VisualExpertConfig()).build()
    for weights in model.language.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    outputs = {}
    for share in (0.0, 0.5, 1.0):
        model.fusion.start_from(model.language)
        with torch.no_grad():
            for weights in model.fusion.parameters():
                weights += share * torch.randn(weights.shape, generator=torch.Generator().manual_seed(2))
            outputs[share] = model(batch)
    return batch, outputs


def experts() -> Explorer:
    return experts_explorer(*blended(), tiny.TOKENIZER.decode)


def flamingo() -> VLM:
    """A tiny one with a layer before each of two blocks, its weights drawn large, its gates open both ways."""
    fusion = FlamingoCrossAttention(every=1, heads=2, head_dim=8, visual_width=16)
    connector = FlamingoResampler(3, depth=1, heads=2, head_dim=8)
    torch.manual_seed(1)
    model = replace(tiny.vlm().config, connector=connector, fusion=fusion).build()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return model


def gated() -> tuple[Batch, dict[float, Output], dict[float, Score]]:
    """Two pictures with a question each, what a tiny model answers with its gates shut, half as far open as they are,
    and as they are, and made-up scores of it."""
    dialogs = [[(QUESTIONS[0], "red")], [(QUESTIONS[2], "no")]]
    batch, model, outputs = Batch.pack(tiny.TOKENIZER, dialogs, images=PAIRS[..., :16, :16]), flamingo(), {}
    for times in (0.0, 0.5, 1.0):
        with forced(model, times), torch.no_grad():
            outputs[times] = model(batch)
    return batch, outputs, {times: Score(int(10 * times) + 3, 40, 0.5) for times in outputs}


def gates() -> Explorer:
    return gates_explorer(*gated(), tiny.TOKENIZER.decode)


def canvases() -> Explorer:
    chance = torch.Generator().manual_seed(3)
    shapes = {"square": (100, 100), "wide": (60, 150), "small": (40, 40)}
    return canvas_explorer({name: torch.rand(3, *size, generator=chance) for name, size in shapes.items()}, TILED)


def located() -> tuple[Tensor, list[Located], dict[str, Tensor]]:
    """Two pictures, an object of each with what might have been said of it, and two kinds of made-up heat."""
    one = Located(0, Referent("the red ring", "a small red ring", (0.0, 0.0, 0.5, 0.5), False), (0.0, 0.0, 0.5, 0.25))
    other = Located(4, Referent("the blue star", "a large blue star", (0.5, 0.5, 1.0, 1.0), True), None)
    rising = torch.arange(16.0).view(4, 4)
    heats = {"attention": torch.eye(4).flip(0).expand(2, 4, 4), "gradient": torch.stack([rising, rising.flip(0, 1)])}
    return PAIRS[:, 0, :, :16, :16], [one, other], heats


def grounding() -> Explorer:
    return grounding_explorer(*located())


def sized() -> tuple[dict[int, Batch], dict[str, dict[int, Output]]]:
    """Two pictures with a question each, at three sizes, and what two tiny models of raw patches answer."""
    dialogs, models = [[(QUESTIONS[0], "red")], [(QUESTIONS[2], "no")]], {}
    patches = PatchesConfig(8, image_size=(16, 16))
    for name, newline in (("newlines", Separators(newline=0)), ("none", Separators())):
        torch.manual_seed(1)
        models[name] = replace(tiny.vlm().config, vision=patches, layer=None, separators=newline).build()
    batches = {side: Batch.pack(tiny.TOKENIZER, dialogs, images=PAIRS[..., :side, :side]) for side in (8, 18, 32)}
    with torch.no_grad():
        return batches, {name: {side: model(batches[side]) for side in batches} for name, model in models.items()}


def raw() -> Explorer:
    return raw_explorer(*sized(), tiny.TOKENIZER.decode, patch_size=8)


def watched() -> tuple[dict[str, Output], Tensor, VLMConfig]:
    """What a tiny LLaMA-VID made of two videos of three frames for each of two questions, the frames, and its
    configuration."""
    bert = BertConfig(width=12, depth=1, heads=2, mlp_width=16)
    words = VocabularyConfig(len(tiny.TOKENIZER), context=9)
    vision = replace(tiny.vlm().config.vision, image_size=(32, 32))
    connector = ContextContentConfig(2, words, queries=3, bert=bert)
    config = replace(tiny.vlm().config, vision=vision, connector=connector)
    torch.manual_seed(1)
    model = config.build()
    for weights in model.connector.parameters():
        torch.nn.init.normal_(weights, std=0.6)
    images = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    outputs = {}
    for question in QUESTIONS[:2]:
        batch = Batch.pack(tiny.TOKENIZER, [[(question, "red")]] * 2, images=images)
        with torch.no_grad():
            outputs[question] = model(batch, capture=True)
    return outputs, images, config


def frames() -> Explorer:
    videos = [PAIRS[n, 0].repeat(count, 1, 1, 1) for n, count in ((0, 16), (1, 8))]
    return frames_explorer(videos, [4, 1], {"short": 10, "long": 60}, words=4)


def context() -> Explorer:
    return context_explorer(*watched())


def skipped() -> tuple[Batch, dict[float, Output], DepthsConfig]:
    """Two pictures with a question each, and what a tiny decoder of three blocks, two of which are routed, makes of
    them by the highest scores at three capacities."""
    dialogs, plain = [[(QUESTIONS[0], "red")], [(QUESTIONS[2], "no")]], tiny.vlm().config
    batch = Batch.pack(tiny.TOKENIZER, dialogs, images=PAIRS[..., :16, :16])
    torch.manual_seed(1)
    model = replace(plain, language=DepthsConfig(replace(plain.language, depth=3), every=1)).build()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    outputs = {}
    for capacity in (0.25, 0.5, 1.0):
        with highest_picked(model, capacity), torch.no_grad():
            outputs[capacity] = model(batch, capture=True)
    return batch, outputs, model.config.language


def depths() -> Explorer:
    return depths_explorer(*skipped(), tiny.TOKENIZER.decode)


def arena() -> Explorer:
    chance = np.random.default_rng(0)
    return arena_explorer(arenas.played(chance, arenas.abilities(chance, 3, 2), np.full(3, 0.2), seeds=3, each=20))


def frontier() -> Explorer:
    return frontier_explorer(comparisons.several())


def switchboard() -> Explorer:
    return switchboard_explorer(comparisons.several())


@cache
def small_run() -> Run:
    """A run on paper, counted once."""
    return Run("smolvlm", samples=10_000, batch_size=64, words=32, trains=("connector", "language"))


def planning() -> Explorer:
    return planning_explorer(small_run(), price=2.0)


ALL = {
    "attention": attention,
    "similarity": similarity,
    "budget": budget,
    "queries": queries,
    "questions": questions,
    "experts": experts,
    "gates": gates,
    "canvases": canvases,
    "grounding": grounding,
    "raw": raw,
    "frames": frames,
    "context": context,
    "depths": depths,
    "arena": arena,
    "frontier": frontier,
    "switchboard": switchboard,
    "planning": planning,
}
