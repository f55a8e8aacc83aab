"""Folders of published systems: a model that transformers saved, opened by `load`, computes what it computed; whatever
is not whole, not ours or not safe is refused by name."""

from __future__ import annotations

import pytest
import saved
import test_decoders
import test_fuyu
import test_hybrid
import test_idefics
import test_kosmos2
import test_parity
import test_qformer
import test_tiles
import test_variable

from minivlm import load

pytestmark = pytest.mark.usefixtures("no_graph")

# Tests of `from_transformers` against the published classes, which are run again with a folder in between.
ROADS = {
    "CLIP": (test_parity, lambda: test_parity.test_clip(0, 1.0, True)),
    "CLIP's tower": (test_parity, lambda: test_parity.test_clip_vision(1, 1.0)),
    "SigLIP": (test_parity, lambda: test_parity.test_siglip(1, 1.0)),
    "SigLIP's tower": (test_parity, lambda: test_parity.test_siglip_vision(2, 1.0)),
    "ViT": (test_parity, lambda: test_parity.test_vit(1, 1.0)),
    "Llama": (test_parity, lambda: test_parity.test_llama(1, 1.0, "left", False)),
    "Llama, tied": (test_parity, lambda: test_parity.test_llama(2, 1.0, "left", True)),
    "OPT": (test_decoders, lambda: test_decoders.test_scores_are_those_of_the_published_class("opt", "left", 1.0, 0)),
    "Phi": (test_decoders, lambda: test_decoders.test_scores_are_those_of_the_published_class("phi", "left", 1.0, 1)),
    "LLaVA": (test_parity, lambda: test_parity.test_llava(0, 1.0)),
    "LLaVA-1.5": (test_parity, lambda: test_parity.test_llava15(1, 1.0, -2)),
    "LLaVA-1.5, untied": (test_parity, lambda: test_parity.test_llava15(2, 1.0, -2)),
    "LLaVA with SigLIP": (test_parity, lambda: test_parity.test_llava_with_a_siglip_tower(0, 1.0)),
    "LLaVA-NeXT": (test_tiles, lambda: test_tiles.test_llava_next(1, 1.0, 2)),
    "BLIP-2 on Llama": (test_qformer, lambda: test_qformer.test_blip2(0, 1.0, "llama")),
    "BLIP-2 on OPT": (test_qformer, lambda: test_qformer.test_blip2(1, 1.0, "opt")),
    "InstructBLIP": (test_qformer, lambda: test_qformer.test_instructblip(1, 1.0, "llama")),
    "Kosmos-2": (test_kosmos2, lambda: test_kosmos2.test_kosmos2(((2, 6), (0, 1)), 1.0, 1)),
    "Idefics": (test_idefics, lambda: test_idefics.test_idefics(0, 1.0)),
    "Idefics, tied": (test_idefics, lambda: test_idefics.test_idefics(2, 1.0)),
    "Idefics2": (test_variable, lambda: test_variable.test_idefics2(1, 1.0)),
    "DeepSeek-VL": (test_hybrid, lambda: test_hybrid.test_deepseek_vl(1, 1.0, False)),
    "DeepSeek-VL 7B": (test_hybrid, lambda: test_hybrid.test_deepseek_vl(1, 1.0, True)),
    "Fuyu": (test_fuyu, lambda: test_fuyu.test_fuyu(((7, 13), (12, 6)), "left", 1.0, 1)),
    "OtterHD": (test_fuyu, lambda: test_fuyu.test_otterhd_is_the_same_network_on_squares_of_any_size(11, 0)),
}


MOVED = ("ViT", "LLaVA", "Fuyu", "DeepSeek")  # whose names differ between the layouts
BESIDE = ("CLIP", "InstructBLIP", "Kosmos-2")  # whose old files hold more than weights
TRIED = [
    (road, layout)
    for road in ROADS
    for layout in saved.LAYOUTS
    if layout == "today" or road.startswith(MOVED) or road.endswith("tower") or (layout == "hub" and road in BESIDE)
]


@pytest.mark.parametrize(("road", "layout"), TRIED)
def test_a_saved_model_computes_what_it_computed(road, layout, monkeypatch, tmp_path):
    module, compare = ROADS[road]
    opened = []

    def through_a_folder(theirs):
        opened.append(load(saved.write(theirs, tmp_path / str(len(opened)), layout), "cpu"))
        return opened[-1]

    monkeypatch.setattr(module, "from_transformers", through_a_folder)
    compare()
    assert opened and not opened[-1].training
