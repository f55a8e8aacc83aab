"""Any design there could be: vision x connector x fusion x decoder, small, in sizes that may or may not go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

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
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.experts import PARTS
from minivlm.fusion.fusion import Interleaved
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.depths import ROUTERS, DepthsConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import LearnedMagnetoConfig, MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.persimmon import PersimmonConfig
from minivlm.language.phi import PhiConfig
from minivlm.model import VLMConfig
from minivlm.vision.film import FilmConfig
from minivlm.vision.hybrid import HybridConfig
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.sam import SAMConfig
from minivlm.vision.tiles import TilesConfig
from minivlm.vision.variable import variable_vit
from minivlm.vision.vit import bare_patches, clip_vit, eva2_vit, eva_vit, siglip_vit, vit

VOCABULARY = 48


@dataclass(frozen=True)
class Plan:
    """A configuration before anybody has looked whether its sizes go together: `make` makes it, or is refused."""

    kind: Callable[..., Any]
    sizes: dict[str, Any]

    def make(self) -> Any:
        return self.kind(**{name: x.make() if isinstance(x, Plan) else x for name, x in self.sizes.items()})


def plan(kind: Callable[..., Any], **sizes: Any) -> st.SearchStrategy[Plan]:
    """Sizes are strategies, or values that are always so."""
    drawn = {n: s if isinstance(s, st.SearchStrategy) else st.just(s) for n, s in sizes.items()}
    return st.fixed_dictionaries(drawn).map(lambda sizes: Plan(kind, sizes))


def one_of(*values: Any) -> st.SearchStrategy:
    return st.sampled_from(values)


few, some, flag = st.integers(1, 2), st.integers(3, 30), st.booleans()
widths, tokens, sides = one_of(12, 24), one_of(1, 2, 4, 4, 6, 9), one_of(8, 12, 17, 24)
heads = one_of(*(1, 2, 3) * 5, 5)  # the last of which divides nothing
INSIDE = dict(width=widths, depth=few, heads=heads, mlp_width=some)
ANY_SIDE = dict(image_size=st.tuples(sides, sides), patch_size=one_of(4, 4, 5, 8))


def tower(kind: Callable[..., Any], **sizes: Any) -> st.SearchStrategy[Plan]:
    return plan(kind, **{**INSIDE, **ANY_SIDE, **sizes})


TILE = tower(clip_vit, image_size=(16, 12), patch_size=4)
VARIABLE = tower(variable_vit)
CANVASES = st.lists(st.tuples(one_of(16, 32), one_of(12, 24, 24, 30)), min_size=1, max_size=2).map(tuple)
WINDOWS = dict(depth=2, window=few, global_blocks=one_of((0,), (1,), (0, 1)), out_width=one_of(3, 4))
VISIONS = st.one_of(
    *(tower(kind) for kind in (clip_vit, siglip_vit, eva_vit, eva2_vit, vit)),
    plan(bare_patches, image_size=(12, 16), patch_size=4, width=widths),
    plan(TilesConfig, tower=TILE, canvases=CANVASES, image_size=st.tuples(some, some), merge=flag),
    plan(FilmConfig, tower=TILE, frames=few),
    VARIABLE,
    plan(QuartersConfig, tower=VARIABLE),
    plan(
        HybridConfig,
        high=tower(SAMConfig, image_size=(24, 20), patch_size=4, **WINDOWS),
        low=tower(siglip_vit, image_size=(12, 8), patch_size=4, pool="mean"),
    ),
    plan(PatchesConfig, patch_size=one_of(2, 3), limit=one_of(None, (9, 8)), image_size=st.tuples(some, some)),
)

BERT = plan(BertConfig, **INSIDE)
WORDS = VocabularyConfig(VOCABULARY, context=9)
HEADED = dict(tokens=tokens, depth=few, heads=heads, head_dim=one_of(4, 6))
CONNECTORS = st.one_of(
    *(plan(kind) for kind in (LinearProjection, MLPProjection, NormedMLPProjection)),
    plan(NoProjection, class_token=flag),
    plan(GLUProjection, hidden=some),
    plan(HybridProjection, high_width=one_of(12, 16)),
    plan(AveragePooling, tokens=tokens),
    plan(PixelShuffle, factor=few),
    plan(QFormerConfig, tokens=tokens, bert=BERT),
    plan(InstructQFormerConfig, tokens=tokens, vocabulary=WORDS, bert=BERT),
    plan(FlamingoResampler, **HEADED, frames=few),
    plan(IdeficsResampler, **HEADED),
    plan(Idefics2Resampler, **HEADED, kv_heads=one_of(1, 1, 2), hidden=some),
    plan(QwenVLResampler, tokens=tokens, heads=heads),
    plan(Kosmos2Resampler, tokens=tokens, heads=heads),
    plan(CAbstraction, tokens=tokens, width=widths, depth=few),
    plan(DAbstraction, **INSIDE, tokens=tokens, points=few, pooled=one_of("query", "tgt")),
    plan(ContextContentConfig, tokens=tokens, vocabulary=WORDS, queries=few, bert=BERT),
)

SIZES = dict(vocab_size=VOCABULARY, **INSIDE)
LLAMA = dict(**SIZES, kv_heads=one_of(1, 1, 1, 3), tied=flag, qkv_bias=flag)
LLAMAS, DEEPER = plan(LlamaConfig, **LLAMA), plan(LlamaConfig, **{**LLAMA, "depth": one_of(2, 3)})
LANGUAGES = st.one_of(
    *[LLAMAS] * 4,  # which alone go with every fusion
    plan(DepthsConfig, decoder=DEEPER, capacity=one_of(0.1, 0.5, 1.0), every=few, rule=one_of(*ROUTERS)),
    *(plan(kind, **SIZES) for kind in (OPTConfig, PersimmonConfig, MagnetoConfig, LearnedMagnetoConfig, PhiConfig)),
)
CROSS = dict(every=few, heads=heads, visual_width=widths, looks=one_of("latest", "preceding"), blind_mlp=flag)
ROUTES = st.lists(one_of(*PARTS), min_size=1, max_size=7, unique=True).map(tuple)
FUSIONS = st.one_of(
    plan(Interleaved),
    plan(FlamingoCrossAttention, **CROSS, head_dim=one_of(4, 6)),
    plan(IdeficsCrossAttention, **CROSS, mlp_width=some, head_norms=flag, vector_gates=flag),
    plan(VisualExpertConfig, every=few, routes=ROUTES, qkv_bias=flag),
    plan(MultiwayConfig, shared_attention=flag, own_places=flag),
)
WORD = one_of(LEARNED, 3, VOCABULARY - 1)
SEPARATORS = st.one_of(
    *[plan(Separators)] * 3,
    plan(Separators, newline=WORD, lined_from=st.integers(0, 1), end=st.none() | WORD),
    plan(Separators, tags=st.lists(st.tuples(WORD), min_size=1, max_size=6).map(tuple)),
)


@st.composite
def designs(draw: Callable[[st.SearchStrategy], Any]) -> Plan:
    """A design whose parts may not go together. Mostly what is read of the encoder is what it has to give."""
    vision = draw(VISIONS)
    plain = vision.kind in (variable_vit, QuartersConfig, HybridConfig, PatchesConfig)
    layer, class_token = draw(one_of(None) if plain else one_of(-2, -1, None)), False
    if draw(one_of(*[False] * 4, True)):
        layer, class_token = draw(one_of(-3, -2, 0, 1, 9, None)), draw(flag)
    drawn = {name: draw(kind) for name, kind in PARTS_OF_A_DESIGN.items()}
    return Plan(VLMConfig, dict(vision=vision, layer=layer, class_token=class_token, image_id=1, eos_id=2, **drawn))


PARTS_OF_A_DESIGN = dict(connector=CONNECTORS, language=LANGUAGES, fusion=FUSIONS, separators=SEPARATORS)
