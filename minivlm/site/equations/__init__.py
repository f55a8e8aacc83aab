"""The equations of every design, by its name, each with the code that computes it."""

from minivlm.site.equations import connectors as c
from minivlm.site.equations import fusion as f
from minivlm.site.equations import spaces as s
from minivlm.site.equations import vision as v
from minivlm.site.equations.equation import Equation
from minivlm.site.equations.shared import INTERLEAVED, SHARED

__all__ = ["EQUATIONS", "SHARED", "Equation"]

EQUATIONS: dict[str, tuple[Equation, ...]] = {
    "clip": (s.CLIP_SPACE, s.CLIP_LOSS),
    "siglip": (s.SIGLIP_SPACE, s.SIGLIP_LOSS),
    "mmv_fac": (s.MMV_GRAPH, s.MMV_LOSS),
    "llava": (c.LINEAR, INTERLEAVED),
    "llava15": (c.MLP, INTERLEAVED),
    "llava_next": (v.TILES, c.MLP, c.NEWLINES, INTERLEAVED),
    "yi_vl": (c.NORMED_MLP, INTERLEAVED),
    "moondream2": (c.WIDE_MLP, INTERLEAVED),
    "deepseek_vl": (c.MLP, INTERLEAVED),
    "deepseek_vl_hybrid": (v.TWO_ENCODERS, c.ALIGNER, INTERLEAVED),
    "deco": (c.POOL, INTERLEAVED),
    "smolvlm": (c.SHUFFLE, INTERLEAVED),
    "blip2": (c.Q_FORMER, INTERLEAVED),
    "instructblip": (c.INSTRUCT_Q_FORMER, INTERLEAVED),
    "flamingo_resampler": (c.PERCEIVER, INTERLEAVED),
    "flamingo": (c.PERCEIVER, f.FLAMINGO_LAYERS, f.LATEST_PICTURE),
    "open_flamingo": (c.PERCEIVER, f.FLAMINGO_LAYERS, f.LATEST_PICTURE),
    "idefics": (c.HEAD_NORM_PERCEIVER, f.IDEFICS_LAYERS, f.LATEST_PICTURE),
    "idefics2": (v.ANY_SIZE, c.GATED_PERCEIVER, INTERLEAVED),
    "qwen_vl": (c.PLACED_QUERIES, c.SINES, INTERLEAVED),
    "honeybee_c": (c.C_ABSTRACTOR, c.BOTTLENECK, INTERLEAVED),
    "honeybee_d": (c.D_ABSTRACTOR, c.DEFORMABLE, INTERLEAVED),
    "mm1": (c.C_ABSTRACTOR, c.BOTTLENECK, INTERLEAVED),
    "kosmos2": (c.FREE_QUERIES, f.CELLS, INTERLEAVED),
    "llama_vid": (c.CONTEXT, c.CONTENT, INTERLEAVED),
    "cogvlm": (c.GLU, f.VISUAL_EXPERTS),
    "beit3": (c.NONE, f.MULTIWAY),
    "fuyu": (v.RAW_PATCHES, c.LINEAR, c.NEWLINES, INTERLEAVED),
    "otterhd": (v.RAW_PATCHES, c.LINEAR, c.NEWLINES, INTERLEAVED),
    "mod": (c.MLP, INTERLEAVED, f.DEPTHS, f.GUESS),
    "fuyu_mod": (v.RAW_PATCHES, c.LINEAR, c.NEWLINES, INTERLEAVED, f.DEPTHS, f.GUESS),
}
