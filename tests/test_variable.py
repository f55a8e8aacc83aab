"""Pictures of any size and shape in one tower, and the resampler behind it, against transformers' Idefics2."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from references import IMAGE_ID, assert_same, llama_sizes, pictures, randomise, vision_sizes, words
from torch import Tensor, nn
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionEmbeddings

from minivlm.attention import capturing
from minivlm.batch import Batch, pad_pictures
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.designs import build, configure
from minivlm.pretrained import CONVERTERS, from_transformers
from minivlm.pretrained.idefics2 import idefics2_parts
from minivlm.pretrained.keys import load_exactly
from minivlm.storage import load, save
from minivlm.vision.quarters import QuartersConfig
from minivlm.vision.variable import VariableViT, variable_vit
from minivlm.vision.vision import sizes_of
from minivlm.vision.vit import siglip_vit

pytestmark = pytest.mark.usefixtures("no_graph")

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.5, 0.2)
TINY = dict(image_size=(12, 12), patch_size=4, width=12, depth=2, heads=2, mlp_width=16)


def idefics2(seed: int = 0, scale: float = 1.0, perceiver: dict | None = None, text: dict | None = None) -> nn.Module:
    language = llama_sizes(seed) | dict(model_type="mistral", sliding_window=None, pad_token_id=0)
    sizes = dict(resampler_n_latents=3 + seed, resampler_depth=1 + seed, resampler_n_heads=4, resampler_head_dim=6)
    shared = dict(hidden_size=language["hidden_size"], rms_norm_eps=(1e-5, 1e-6, 1e-5)[seed])
    config = transformers.Idefics2Config(
        vision_config=vision_sizes(seed),
        perceiver_config={**sizes, **shared, "num_key_value_heads": (1, 2, 4)[seed], **(perceiver or {})},
        text_config={**language, **(text or {})},
        image_token_id=IMAGE_ID,
    )
    return randomise(transformers.Idefics2ForConditionalGeneration(config), seed, scale)


def parts_of(theirs: nn.Module) -> nn.ModuleDict:
    """Our tower, which centres its pictures, and our connector, with their weights."""
    vision, connector, state = idefics2_parts(theirs)
    out_width = theirs.config.text_config.hidden_size
    ours = nn.ModuleDict(
        dict(
            vision=replace(vision, mean=MEAN, std=STD).build(),
            connector=connector.build(vision.width, out_width, vision.grid),
        )
    )
    load_exactly(ours, state)
    return ours


def test_idefics2(seed, scale):
    """From pixels and words to scores: a sample of two pictures of other sizes, and one of a single picture."""
    theirs = idefics2(seed, scale)
    ours = from_transformers(theirs)
    patch = ours.config.vision.patch_size
    sizes = [(3 * patch, 5 * patch), (6 * patch, 2 * patch), (2 * patch, 4 * patch)]
    shown = [pictures(3, *size) for size in sizes]
    images, there, valid = pad_pictures([shown[:2], shown[2:]])
    ids = words(2, 9, seed=seed)
    ids[0, [1, 4]] = ids[1, 3] = IMAGE_ID
    inside = torch.zeros(2, 2, *images.shape[3:], dtype=torch.bool)
    for b in range(2):
        for m in range(2):
            inside[b, m, : valid[b, m, 0], : valid[b, m, 1]] = there[b, m]
    tokens = ours.config.connector.tokens
    rows = [
        torch.tensor(sum(([word] * (tokens if word == IMAGE_ID else 1) for word in row), [])) for row in ids.tolist()
    ]
    many = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    wanted = theirs(input_ids=many, attention_mask=mask, pixel_values=images, pixel_attention_mask=inside).logits
    got = ours(Batch(images, ids, image_mask=there, sizes=valid))
    assert torch.equal(got.layout.valid, mask.bool())
    assert_same(got.logits[got.layout.valid], wanted[mask.bool()])


def test_a_converted_model_is_saved_and_loaded(tmp_path):
    ours = from_transformers(idefics2())
    save(ours, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.config == ours.config
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in ours.state_dict().items())


def batch(patch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Five pictures of many shapes, one larger than the learned grid of `side` x `side`, with pixels beyond the last
    whole patch and something in the padding that must not be seen: images, sizes, and where there are pixels."""
    grids = torch.tensor([(3, 5), (6, 2), (1, 1), (side + 3, side), (side, 1)])
    sizes = grids * patch + torch.tensor([(0, 0), (patch - 1, 1), (0, patch - 1), (1, 0), (0, 0)])
    height, width = (sizes.amax(dim=0) + torch.tensor([1, 2])).tolist()
    down, across = torch.arange(height)[:, None], torch.arange(width)
    inside = (down < sizes[:, 0, None, None]) & (across < sizes[:, 1, None, None])  # (P, H, W)
    return pictures(5, 3, height, width), sizes, inside


def theirs_of(theirs: nn.Module, images: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The features of whole batches, and the tokens of each picture."""
    centred = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    wanted = theirs.model.get_image_features(centred[None], inside[None])
    return wanted.last_hidden_state, wanted.pooler_output[0]


def fully_inside(inside: Tensor, patch: int) -> Tensor:
    """For each patch of the batch's grid (P, N): is every pixel of it there?"""
    counts = nn.functional.avg_pool2d(inside.float()[:, None], patch)  # (P, 1, rows, cols)
    return (counts > 1 - 1e-4).flatten(1)


def test_many_shapes_in_one_batch(seed, scale):
    theirs = idefics2(seed, scale)
    ours = parts_of(theirs)
    patch = ours.vision.config.patch_size
    images, sizes, inside = batch(patch, ours.vision.config.grid[0])
    features = ours.vision.features(images, sizes)
    wanted, tokens = theirs_of(theirs, images, inside)
    counts = []
    for number, there in enumerate(fully_inside(inside, patch)):
        counts.append(int(there.sum()))
        assert_same(features[number, : counts[-1]], wanted[number, there])
        assert (features[number, counts[-1] :] == 0).all()
        ((rows, cols),) = ours.vision.config.views(tuple(sizes[number].tolist()))
        assert rows * cols == counts[-1]
    assert features.shape == (5, max(counts), wanted.shape[2])
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    assert_same(ours.connector(features, mask).flatten(0, 1), tokens)


def test_no_sizes_mean_no_padding(seed):
    theirs = idefics2(seed)
    ours = parts_of(theirs)
    images = pictures(2, 3, 29, 38)
    features = ours.vision.features(images)
    wanted, tokens = theirs_of(theirs, images, torch.ones(2, 29, 38, dtype=torch.bool))
    assert_same(features, wanted)
    assert_same(ours.connector(features).flatten(0, 1), tokens)


def test_capture_changes_nothing():
    tower = randomise(variable_vit(**TINY).build())
    images, sizes, _ = batch(4, 3)
    plain = tower.features(images, sizes)
    with capturing(tower) as maps:
        assert_same(tower.features(images, sizes), plain)
    assert (maps["blocks.1.attention.weights"][2, :, :, 1:] == 0).all()  # the third picture has a single patch


def test_a_picture_of_the_learned_size_is_read_as_siglip_reads_it():
    sizes = {**TINY, "image_size": (12, 21), "pool": "mean"}  # one pixel beyond the last whole patch
    ours, siglip = (randomise(tower(**sizes).build()) for tower in (variable_vit, siglip_vit))
    images = pictures(2, 3, 12, 21)
    assert_same(ours.features(images), siglip(images)[0])


# --- which learned place a patch gets -------------------------------------------------------------------------------

SIDE = 70
ROUNDED = [25, 49, 50, 55, 100]  # where single precision does not give what whole numbers do


def places() -> tuple[VariableViT, Idefics2VisionEmbeddings]:
    """Ours and theirs, so made that what comes out for a patch is the number of its place."""
    sizes = dict(image_size=(SIDE, SIDE), patch_size=1, width=1, depth=0, heads=1, mlp_width=1)
    ours = variable_vit(**sizes, final_norm=False).build()
    theirs = Idefics2VisionEmbeddings(
        Idefics2VisionConfig(hidden_size=1, num_attention_heads=1, image_size=SIDE, patch_size=1)
    )
    numbers = torch.arange(SIDE * SIDE).float()[:, None]
    for model in (ours, theirs):
        for weight in model.patch_embedding.parameters():
            weight.zero_()
    ours.position_embedding.copy_(numbers)
    theirs.position_embedding.weight.copy_(numbers)
    return ours, theirs


@pytest.mark.parametrize("rows", [1, 2, 7, 24, *ROUNDED, 51, 69, 70, 71])
def test_places_are_rounded_as_theirs(rows):
    ours, theirs = places()
    sizes = torch.tensor([(rows, 3), (2, rows)])
    images = torch.zeros(2, 3, *sizes.amax(dim=0).tolist())
    inside = torch.zeros(2, *images.shape[2:], dtype=torch.bool)
    inside[0, :rows, :3] = inside[1, :2, :rows] = True
    got, wanted = ours.features(images, sizes), theirs(images, inside)
    for number, (height, width) in enumerate(sizes.tolist()):
        assert torch.equal(got[number, : height * width], wanted[number, inside[number].flatten()])
    down = got[0, : rows * 3 : 3, 0] // SIDE
    whole_numbers = torch.arange(rows) * SIDE // rows
    assert torch.equal(down.long(), whole_numbers) == (rows not in ROUNDED)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_sizes_that_do_not_fit_are_refused():
    tower = variable_vit(**TINY).build()
    images = pictures(2, 3, 9, 16)
    with pytest.raises(ValueError, match="sizes: picture 1 cannot be 9x17 pixels in a batch of 9x16"):
        tower.features(images, torch.tensor([(9, 16), (9, 17)]))
    with pytest.raises(ValueError, match="sizes: picture 0 cannot be 0x4"):
        tower.features(images, torch.tensor([(0, 4), (9, 16)]))
    with pytest.raises(ValueError, match="sizes: a picture of 9x3 pixels holds no whole patch of 4: enlarge it"):
        tower.features(images, torch.tensor([(9, 16), (9, 3)]))
    with pytest.raises(ValueError, match="images hold NaN"):
        tower.features(images * torch.nan)
    with pytest.raises(ValueError, match=r"sizes must be \(2, 2\), .* got \(1, 2\)"):
        sizes_of(images, torch.tensor([(9, 16)]))
    with pytest.raises(TypeError, match="sizes must be an integer tensor .* got torch.float32"):
        sizes_of(images, torch.ones(2, 2))


@pytest.mark.parametrize("changes", [dict(class_token=True), dict(pool="map")])
def test_a_tower_that_gives_more_than_patches_is_refused(changes):
    with pytest.raises(ValueError, match="gives patches only: class_token .* must be False"):
        variable_vit(**TINY, **changes)


def test_a_mask_that_does_not_fit_is_refused():
    perceiver = FlamingoResampler(3, depth=1, heads=2, head_dim=4).build(6, 6, (2, 2))
    with pytest.raises(ValueError, match=r"mask must be boolean and \(2, 4\), .* got torch.bool \(1, 4\)"):
        perceiver.sees(torch.ones(1, 4, dtype=torch.bool), torch.zeros(2, 4, 6))
    with pytest.raises(ValueError, match=r"got torch.int64 \(2, 4\)"):
        perceiver.sees(torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4, 6))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(text=dict(hidden_act="gelu")), "activation 'gelu' before the resampler"),
        (dict(perceiver=dict(hidden_act="relu")), "activation 'relu' in the resampler"),
    ],
)
def test_variants_that_ours_does_not_compute_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        idefics2_parts(idefics2(**changes))


@pytest.mark.parametrize("part", ["vision_model", "connector.perceiver_resampler"])
def test_a_key_too_many_is_refused(part):
    theirs = idefics2()
    theirs.model.get_submodule(part).surprise = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="no place for 1 keys: .*surprise"):
        idefics2_parts(theirs)


# --- the published one ----------------------------------------------------------------------------------------------


def test_published_sizes():
    """The parts as in the paper's table and the checkpoint, and 8.4 billion weights in all."""
    model = build("idefics2", "published", device="meta")
    count = lambda module: sum(p.numel() for p in module.parameters()) / 1e6  # noqa: E731
    assert [count(part) for part in (model.vision, model.connector)] == pytest.approx([417.8, 743.2], abs=0.05)
    assert count(model) == pytest.approx(8400, abs=10)
    assert model.config.vision.grid == (70, 70)


def test_the_published_design_is_what_the_converted_one_would_be():
    """But for the decoder's sliding window, and for the epsilon of the resampler: it was trained with the decoder's, to
    which transformers has since then preferred another."""
    config = transformers.Idefics2Config(
        vision_config=dict(
            hidden_size=1152,
            image_size=980,
            intermediate_size=4304,
            num_attention_heads=16,
            num_hidden_layers=27,
            patch_size=14,
        ),
        text_config=dict(
            model_type="mistral", vocab_size=32003, rms_norm_eps=1e-5, pad_token_id=0, sliding_window=None
        ),
        image_token_id=32001,
    )
    with torch.device("meta"):
        converted, _ = CONVERTERS["Idefics2ForConditionalGeneration"](
            transformers.Idefics2ForConditionalGeneration(config)
        )
    wanted = configure("idefics2", "published")
    assert replace(converted.connector, eps=1e-5) == wanted.connector
    assert converted == replace(
        wanted, connector=converted.connector, language=replace(wanted.language, head_dim=wanted.language.dim_per_head)
    )


@pytest.mark.parametrize("size", [(980, 980), (980, 378), (378, 504), (14, 980), (391, 29)])
def test_published_counts(size):
    """64 tokens, whatever the picture; with its quarters, each of which is read like one, 5 * 64."""
    whole = configure("idefics2", "published")
    split = replace(whole, vision=QuartersConfig(whole.vision))
    assert whole.tokens_of(size) == 64 and whole.features_of(size) == (size[0] // 14) * (size[1] // 14)
    if min(size) >= 28:  # or a quarter would hold no patch
        assert split.tokens_of(size) == 320


@pytest.mark.parametrize("size", [(56, 84), (35, 42)])
def test_published_counts_are_those_of_the_tensors(size):
    whole = configure("idefics2", "published")
    for vision, tokens in ((whole.vision, 64), (QuartersConfig(whole.vision), 320)):
        with torch.device("meta"):
            model = replace(whole, vision=vision, language=replace(whole.language, depth=1)).build()
        images = torch.zeros(1, 1, 3, *size, device="meta")
        seen = Batch(images, torch.full((1, 1), model.image_token_id, device="meta"))
        assert model.connect(model.features(images), seen).shape == (1, 1, tokens, 4096)
