"""The designs in the controlled setting: the same 64-pixel encoder and the same decoder for all, so that only the
design differs; and those made for reading, with encoders of the same sizes that have read pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.connectors.glu_projection import GLUProjection
from minivlm.connectors.hybrid_aligner import HybridProjection
from minivlm.connectors.perceiver import FlamingoResampler, Idefics2Resampler, IdeficsResampler
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.contrastive.towers import TextConfig
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.fusion import FusionConfig, Interleaved
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.depths import DepthsConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.tokenizer import ROOM, Tokenizer, grounded_tokenizer, mini_tokenizer
from minivlm.model import ConnectorConfig, VLMConfig
from minivlm.vision.hybrid import HybridConfig
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.sam import SAMConfig
from minivlm.vision.tiles import TilesConfig
from minivlm.vision.variable import VariableViTConfig, variable_vit
from minivlm.vision.vision import VisionConfig
from minivlm.vision.vit import ViTConfig, clip_vit, siglip_vit

VOCABULARY = ROOM  # with room for words that later lessons add, so that trained weights keep their meaning
TOKENS = 16  # visual tokens of a picture, where a connector is free to choose: a quarter of the patches
CONTEXT = 96  # ids a text tower reads: a caption of nine objects
BERT = BertConfig(width=96, depth=3, heads=4, mlp_width=192)  # its first and its last block look at the picture
WORDS = VocabularyConfig(VOCABULARY, context=CONTEXT)  # a Q-Former reads what the decoder reads
INTERLEAVED = Interleaved()


def vision(tower: Callable[..., ViTConfig] = clip_vit) -> ViTConfig:
    """The encoder: 64 pixels in 8x8 patches."""
    sizes = dict(image_size=(64, 64), patch_size=8, width=128, depth=5, heads=4, mlp_width=512)
    return tower(**sizes, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def language() -> LlamaConfig:
    """The decoder."""
    return LlamaConfig(VOCABULARY, width=128, depth=4, heads=4, kv_heads=4, mlp_width=384, tied=True)


def vlm(connector: ConnectorConfig, fusion: FusionConfig = INTERLEAVED) -> VLMConfig:
    return VLMConfig(vision(), connector, language(), Tokenizer.image_id, Tokenizer.eos_id, fusion=fusion)


def _text(tower: Callable[..., TextConfig]) -> TextConfig:
    return tower(VOCABULARY, context=CONTEXT, width=128, depth=2, heads=4, mlp_width=512)


def clip() -> CLIPConfig:
    return CLIPConfig(vision(), _text(clip_text), embed_dim=128, eos_id=Tokenizer.eos_id)


def siglip() -> SigLIPConfig:
    return SigLIPConfig(vision(siglip_vit), _text(siglip_text))


def llava() -> VLMConfig:
    return vlm(LinearProjection())


def llava15() -> VLMConfig:
    return vlm(MLPProjection())


def reader() -> ViTConfig:
    """A tower that has read pages: the encoder's sizes, and patches alone."""
    return vision(partial(siglip_vit, pool="mean"))


def reader_any() -> VariableViTConfig:
    """One that has read pages of any size, and tells 16x16 places apart."""
    return replace(vision(variable_vit), image_size=(128, 128))


def reader_two() -> HybridConfig:
    """The first beside one like it that sees twice as many rows and columns, mostly in windows as large as the first's
    pictures."""
    sizes = dict(image_size=(128, 128), patch_size=8, width=128, depth=5, heads=4, mlp_width=512)
    centre = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return HybridConfig(SAMConfig(**sizes, **centre, window=8, global_blocks=(2, 4), out_width=32), reader())


def _reading(tower: VisionConfig, connector: ConnectorConfig) -> VLMConfig:
    """With one of the towers that have read pages, to its final norm."""
    return replace(vlm(connector), vision=tower, layer=None)


def llava_next() -> VLMConfig:
    """Up to four tiles of the encoder's size: pictures of 128 pixels, four times as many patches."""
    canvases = ((64, 128), (128, 64), (128, 128), (192, 64), (64, 192))
    tiles = TilesConfig(reader(), canvases, image_size=(128, 128))
    return replace(_reading(tiles, MLPProjection()), separators=Separators(newline=LEARNED, lined_from=1))


def idefics2() -> VLMConfig:
    return _reading(reader_any(), Idefics2Resampler(TOKENS, depth=2, heads=4, head_dim=32, kv_heads=2, hidden=384))


def deepseek_vl() -> VLMConfig:
    return _reading(reader(), MLPProjection())


def deepseek_vl_hybrid() -> VLMConfig:
    tower = reader_two()
    return _reading(tower, HybridProjection(tower.high_width))


def yi_vl() -> VLMConfig:
    return vlm(NormedMLPProjection())


def moondream2() -> VLMConfig:
    return vlm(MLPProjection("gelu_tanh", hidden=1024))


def deco() -> VLMConfig:
    return vlm(AveragePooling(TOKENS))


def smolvlm() -> VLMConfig:
    return vlm(PixelShuffle(factor=2))


def blip2() -> VLMConfig:
    return vlm(QFormerConfig(TOKENS, BERT))


def instructblip() -> VLMConfig:
    return vlm(InstructQFormerConfig(TOKENS, WORDS, BERT))


def flamingo_resampler(depth: int = 2) -> VLMConfig:
    return vlm(FlamingoResampler(TOKENS, depth=depth, heads=4, head_dim=32))


def flamingo(every: int = 2, gate_start: float = 0.0) -> VLMConfig:
    """Where no picture is seen, only the decoder runs: what it said without pictures it goes on saying."""
    sizes = dict(every=every, heads=4, head_dim=32, visual_width=128)
    fusion = FlamingoCrossAttention(**sizes, blind_mlp=False, gate_start=gate_start)
    return replace(flamingo_resampler(), fusion=fusion)


def open_flamingo() -> VLMConfig:
    return flamingo(every=1)


def idefics() -> VLMConfig:
    """As `flamingo`, with the decoder's own kind of blocks."""
    fusion = IdeficsCrossAttention(every=2, heads=4, mlp_width=384, visual_width=128, blind_mlp=False)
    return vlm(IdeficsResampler(TOKENS, depth=2, heads=4, head_dim=32), fusion)


def qwen_vl() -> VLMConfig:
    return vlm(QwenVLResampler(TOKENS, heads=4))


def honeybee_c() -> VLMConfig:
    return vlm(CAbstraction(TOKENS, width=128, depth=1))


def honeybee_d() -> VLMConfig:
    """Points a patch or two away, as four are on the published grid of 24 rows; wired as one reads the paper. With the
    wiring of the released configuration it does not learn shapes within the steps that all others need, and with two
    layers it does for some seeds only."""
    return vlm(DAbstraction(TOKENS, width=96, depth=1, heads=4, points=2, mlp_width=384, pooled="tgt"))


def mm1() -> VLMConfig:
    return honeybee_c()


def kosmos2() -> VLMConfig:
    return vlm(Kosmos2Resampler(TOKENS, heads=4))


def llama_vid() -> VLMConfig:
    return vlm(ContextContentConfig(1 + TOKENS, WORDS, queries=TOKENS, bert=BERT))


def cogvlm() -> VLMConfig:
    return vlm(GLUProjection(hidden=384), VisualExpertConfig())


def beit3() -> VLMConfig:
    return vlm(LinearProjection(), MultiwayConfig())


def fuyu() -> VLMConfig:
    """With the decoder that all share, and a word of it that no text holds as newline."""
    separators = Separators(newline=VOCABULARY - 1)
    return replace(llava(), vision=PatchesConfig(8, image_size=(64, 64)), layer=None, separators=separators)


def otterhd() -> VLMConfig:
    """Fuyu's network; it is trained on pictures of several sizes."""
    return fuyu()


def routed(config: VLMConfig, rule: str = "predictor") -> VLMConfig:
    """A mini design of whose decoder every second block works on an eighth of the places, picked outside training by
    that rule (`DepthsConfig`)."""
    return replace(config, language=DepthsConfig(config.language, rule=rule))


def mod() -> VLMConfig:
    """LLaVA-1.5's parts."""
    return routed(llava15())


def fuyu_mod() -> VLMConfig:
    return routed(fuyu())


def tiles_apart(*tags: str) -> VLMConfig:
    """The whole and four tiles as views of their own, in order and without newlines; before each its tag, in words."""
    tiles = TilesConfig(reader(), ((128, 128),), image_size=(128, 128), merge=False)
    words = tuple(tuple(mini_tokenizer().encode(tag)) for tag in tags)
    return replace(_reading(tiles, MLPProjection()), separators=Separators(tags=words))


def grounded(config: VLMConfig, side: int) -> VLMConfig:
    """A mini design whose decoder has words for `side` x `side` places as well (`grounded_tokenizer`). ValueError for
    one whose connector reads words, of which it knows only the others."""
    if config.make_connector().conditioned:
        raise ValueError(f"{type(config.connector).__name__} reads the question, and knows no words for places")
    return replace(config, language=replace(config.language, vocab_size=len(grounded_tokenizer(side))))


# Not designs of anyone's: what comparisons need beside them.
VARIANTS: dict[str, Callable[[], VLMConfig]] = {
    # Flamingo whose gates start open: shut, they open too slowly for the steps that all others need
    "flamingo_open": lambda: flamingo(gate_start=1.0),
    # Flamingo's resampler, as deep as makes it as large as its layers in the decoder
    "flamingo_resampler_deep": lambda: flamingo_resampler(depth=4),
    # CogVLM without its experts, and with those of the MLPs alone
    "cogvlm_interleaved": lambda: replace(cogvlm(), fusion=INTERLEAVED),
    "cogvlm_mlp": lambda: replace(cogvlm(), fusion=VisualExpertConfig(routes=("mlp",))),
    # depths whose blocks work on places drawn by lot, or guessed from the scores that pick them in training
    "mod_random": lambda: routed(llava15(), "random"),
    "mod_auxiliary": lambda: routed(llava15(), "auxiliary"),
    # Idefics2 with a picture's quarters beside the whole
    "idefics2_split": lambda: replace(idefics2(), vision=QuartersConfig(reader_any())),
    # NVLM's comparison: which tile this is goes unsaid, or is said by its number, by its row and column, or by a vector
    # that is learned
    "tiles_untagged": tiles_apart,
    "tiles_1d": lambda: tiles_apart("image", "1", "2", "3", "4"),
    "tiles_2d": lambda: tiles_apart("image", "1 1", "1 2", "2 1", "2 2"),
    "tiles_learned": lambda: replace(tiles_apart(), separators=Separators(tags=((LEARNED,),) * 5)),
}
