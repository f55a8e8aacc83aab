"""From a picture and a text through the published processor: into the published class as it is, and into ours as a
batch, the same scores at the same places."""

from __future__ import annotations

import fuyus
import numpy as np
import pytest
import references
import test_hybrid
import test_idefics as test_idefics_model
import test_variable
import torch
import transformers
from PIL import Image
from references import assert_same
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Fast

from minivlm import from_transformers
from minivlm.pretrained.processed import batch_of

pytestmark = pytest.mark.usefixtures("no_graph")

PAD, BEGIN, END, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
# (height, width): square, flat, tall, larger than any canvas
SIZES = [(20, 20), (11, 29), (40, 17), (90, 70)]


def tokenizer(first: tuple[str, ...] = (PAD, BEGIN, END), kind: type = Fast, **at: str) -> Fast:
    """Words w4 to w65, but for those that are called otherwise: `w63="<image>"`."""
    words = [*first, UNKNOWN, *(f"w{n}" for n in range(4, 66))]
    words = [at.get(word, word) for word in words]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = dict(pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=UNKNOWN)
    fast = kind(tokenizer_object=made, **named)
    fast.add_special_tokens({"additional_special_tokens": list(at.values())})
    return fast


def drawn(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def compare(theirs: nn.Module, inputs: dict, pictures: int, **their_own: Tensor) -> None:
    """Place by place, whatever the padding: as many places, the same scores."""
    ours = from_transformers(theirs)
    batch = batch_of(inputs, ours)
    assert int(batch.num_images.sum()) == pictures
    output = ours(batch)
    known = {key: value for key, value in inputs.items() if key not in their_own}
    wanted = theirs(**known, **their_own).logits
    mask = inputs["attention_mask"].bool()
    assert output.layout.lengths.tolist() == mask.sum(dim=1).tolist()
    got = torch.cat([row[valid] for row, valid in zip(output.logits, output.layout.valid, strict=True)])
    assert_same(got, torch.cat([row[valid] for row, valid in zip(wanted, mask, strict=True)]))


def square(theirs: nn.Module) -> dict:
    return dict(zip(("height", "width"), [theirs.config.vision_config.image_size] * 2, strict=True))


def clip_pictures(theirs: nn.Module, kind: type, **more) -> transformers.BaseImageProcessor:
    side = theirs.config.vision_config.image_size
    return kind(size=dict(shortest_edge=side), crop_size=square(theirs), **more)


TEXTS = [f"w5 {IMAGE} w6 w7 {IMAGE} w8", f"{IMAGE} w9"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_llava(side):
    theirs = references.llava(1)
    sizes = dict(patch_size=theirs.config.vision_config.patch_size, vision_feature_select_strategy="default")
    words = tokenizer(w63=IMAGE)
    words.padding_side = side
    made = clip_pictures(theirs, transformers.CLIPImageProcessor)
    processor = transformers.LlavaProcessor(made, words, num_additional_image_tokens=1, **sizes)
    pictures = [drawn(size, n) for n, size in enumerate(SIZES[:3])]
    compare(theirs, processor(images=pictures, text=TEXTS, padding=True, return_tensors="pt"), 3)


@pytest.mark.parametrize("first", range(4))
def test_llava_next(first):
    theirs = references.llava_next(first % 3)
    sizes = dict(patch_size=theirs.config.vision_config.patch_size, vision_feature_select_strategy="default")
    points = theirs.config.image_grid_pinpoints
    made = clip_pictures(theirs, transformers.LlavaNextImageProcessor, image_grid_pinpoints=points)
    processor = transformers.LlavaNextProcessor(made, tokenizer(w63=IMAGE), num_additional_image_tokens=1, **sizes)
    pictures = [drawn(SIZES[(first + n) % 4], n) for n in range(3)]
    compare(theirs, processor(images=pictures, text=TEXTS, padding=True, return_tensors="pt"), 3)


def test_blip2():
    theirs = references.blip2(1)
    made = transformers.BlipImageProcessor(size=square(theirs))
    processor = transformers.Blip2Processor(made, tokenizer(w63=IMAGE), num_query_tokens=4)
    pictures = [drawn(size, n) for n, size in enumerate(SIZES[:2])]
    compare(theirs, processor(images=pictures, text=["w6 w7 w8", "w9"], padding=True, return_tensors="pt"), 2)


def test_instructblip():
    theirs = references.instructblip(1)
    made = transformers.BlipImageProcessor(size=square(theirs))
    words = tokenizer(w63=IMAGE), tokenizer()
    processor = transformers.InstructBlipProcessor(made, *words, num_query_tokens=4)
    pictures = [drawn(size, n) for n, size in enumerate(SIZES[:2])]
    compare(theirs, processor(images=pictures, text=["w6 w7 w8", "w9"], padding=True, return_tensors="pt"), 2)


@pytest.mark.parametrize("quarters", [False, True])
def test_idefics2(quarters):
    """Quarters are pictures of their own, in words that say where each begins."""
    theirs = test_variable.idefics2(1)
    patch = theirs.config.vision_config.patch_size
    edges = dict(shortest_edge=3 * patch, longest_edge=8 * patch)
    made = transformers.Idefics2ImageProcessor(size=edges, do_image_splitting=quarters)
    words = tokenizer(w63=IMAGE, w62="<fake_token_around_image>", w61="<end_of_utterance>")
    tokens = theirs.config.perceiver_config.resampler_n_latents
    processor = transformers.Idefics2Processor(made, words, image_seq_len=tokens)
    pictures = [[drawn(SIZES[1], 0), drawn(SIZES[2], 1)], [drawn(SIZES[0], 2)]]
    inputs = processor(images=pictures, text=TEXTS, padding=True, return_tensors="pt")
    compare(theirs, inputs, 15 if quarters else 3)


def deepseek(theirs: nn.Module, processor: type, made: object) -> None:
    """Either of the two: by `processor`, of which `made` is the part for pictures."""
    words = tokenizer(w63="<image_placeholder>")
    words.image_token = "<image_placeholder>"
    both = processor(made, words, num_image_tokens=from_transformers(theirs).config.num_tokens)
    pictures = [drawn(size, n) for n, size in enumerate(SIZES[:3])]
    texts = [text.replace(IMAGE, words.image_token) for text in TEXTS]
    compare(theirs, both(images=pictures, text=texts, padding=True, return_tensors="pt"), 3)


def test_deepseek_vl():
    theirs = test_hybrid.low_only(1)
    made = transformers.DeepseekVLImageProcessor(size=square(theirs), min_size=2)
    deepseek(theirs, transformers.DeepseekVLProcessor, made)


def test_deepseek_vl_hybrid():
    theirs = test_hybrid.hybrid(1)
    high = dict(zip(("height", "width"), [theirs.config.high_res_vision_config.image_size] * 2, strict=True))
    made = transformers.DeepseekVLHybridImageProcessor(size=square(theirs), high_res_size=high, min_size=2)
    deepseek(theirs, transformers.DeepseekVLHybridProcessor, made)


def test_idefics():
    """Each word sees the picture begun last, which their processor says beside the ids."""
    theirs = test_idefics_model.idefics(0)
    side = theirs.config.vision_config.image_size
    words = tokenizer(w64="<fake_token_around_image>", w65=IMAGE)
    made = transformers.IdeficsImageProcessor(image_size=side)
    processor = transformers.IdeficsProcessor(made, words, image_size=side)
    prompts = [["w5", drawn(SIZES[1], 0), "w6 w7", drawn(SIZES[2], 1), "w8"], [drawn(SIZES[0], 2), "w9"]]
    compare(theirs, processor(text=prompts, padding=True, return_tensors="pt"), 3)


def test_kosmos2():
    """Where a picture stands is said beside the ids; those there are anything."""
    theirs = references.kosmos2(1)
    words = tokenizer(first=(BEGIN, PAD, END), w56=IMAGE, w57="</image>")
    made = clip_pictures(theirs, transformers.CLIPImageProcessor)
    processor = transformers.Kosmos2Processor(made, words)
    pictures = [drawn(size, n) for n, size in enumerate(SIZES[1:3])]
    told = dict(num_image_tokens=theirs.config.latent_query_num, padding=True, return_tensors="pt")
    compare(theirs, processor(images=pictures, text=["w6 w7 w8", "w9"], **told), 2)


class Underscored(Fast):
    """Begins every text with a word of its own, which Fuyu's processor cuts off before a picture."""

    def __call__(self, text: str, **options):
        return super().__call__(f"w4 {text}", **options)


def test_fuyu(seed):
    """A picture that is shrunk to the processor's limit, and smaller ones; how many rows each has only the ids tell."""
    theirs = fuyus.fuyu(seed)
    theirs.config.newline_token_id = 62
    words = tokenizer(kind=Underscored, w63="|SPEAKER|", w62="|NEWLINE|", w60="<0x04>")
    processor = transformers.FuyuProcessor(fuyus.processor(), words)
    pictures = [drawn(size, n) for n, size in enumerate([(7, 13), (12, 6), (50, 61)])]
    told = dict(return_legacy_image_output=False, return_tensors="pt")
    compare(theirs, processor(images=pictures, text=["w6 w7 w8", "w9", "w5 w9"], **told), 3)


# --- what does not go together --------------------------------------------------------------------------------------


def made(pictures: int, tokens: int, marks: int) -> dict[str, Tensor]:
    """A text with so many marks, each of so many ids, and so many pictures, for the first LLaVA."""
    side = references.vision_sizes(0)["image_size"]
    row = [5, *([references.IMAGE_ID] * tokens + [6]) * marks]
    return dict(input_ids=torch.tensor([row]), pixel_values=references.pictures(pictures, 3, side, side))


@pytest.mark.parametrize(
    ("pictures", "off", "marks", "said"),
    [
        (1, -1, 1, r"a picture of \(\d+, \d+\) pixels fills \d+ places here, the processor left \d+"),
        (1, 0, 2, "places for more than its 1 pictures"),
        (2, 0, 1, "1 pictures more than the texts have places for"),
    ],
)
def test_what_does_not_go_together_is_refused(pictures, off, marks, said):
    ours = from_transformers(references.llava(0))
    inputs = made(pictures, ours.config.num_tokens + off, marks)
    with pytest.raises(ValueError, match=said):
        batch_of(inputs, ours)


def test_texts_alone_need_no_pictures():
    ours = from_transformers(references.llava(0))
    batch = batch_of(dict(input_ids=torch.tensor([[5, 6, 7]])), ours)
    assert batch.images is None and batch.input_ids.tolist() == [[5, 6, 7]]
