"""What must hold for every design, whatever its parts: who sees whom, what learns, and that no detour changes a number.

A design that is added to `DESIGNS` is tested here without a line being written.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import chain, combinations

import pytest
import torch
import torch.nn.functional as F
from references import LAST_ID, assert_same, pictures, randomise, words
from torch import Tensor, nn

from minivlm import DESIGNS, VLM, Batch, build
from minivlm.attention import Attention
from minivlm.contrastive.clip import CLIPConfig
from minivlm.contrastive.siglip import SigLIPConfig
from minivlm.language.depths import Depths
from minivlm.language.tokenizer import Tokenizer
from minivlm.layout import Kind, Layout
from minivlm.model import Output, VLMConfig, answer_positions
from minivlm.vision.patches import Patches

DECODING = [name for name, design in DESIGNS.items() if isinstance(design.mini(), VLMConfig)]
CONTRASTIVE = [name for name, design in DESIGNS.items() if isinstance(design.mini(), CLIPConfig | SigLIPConfig)]

TOKENIZER = Tokenizer("what colour is the shape how many are there red blue circle square two a and".split())
IMAGE = Tokenizer.image_id


@pytest.fixture(params=DECODING)
def vlm(request) -> VLM:
    return randomise(build(request.param, device="cpu"))


@pytest.fixture(params=CONTRASTIVE)
def towers(request) -> nn.Module:
    return randomise(build(request.param, device="cpu"))


def pictures_for(model: nn.Module, *batch: int, seed: int = 0) -> Tensor:
    return pictures(*batch, 3, *model.config.vision.image_size, seed=seed)


def told(batch: Batch, samples: slice = slice(None)) -> Batch:
    """With an instruction for each of two samples, the second shorter, for designs that read one; `samples`: of which
    of the two."""
    ids, mask = words(2, 7, seed=1), torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    return replace(batch, instruction=ids[samples], instruction_mask=mask[samples])


def two_picture_batch(model: VLM) -> Batch:
    """Two samples: words, picture, words, picture, words; the second has shorter texts, padded on the right."""
    ids, mask = words(2, 11), torch.ones(2, 11, dtype=torch.bool)
    ids[0, [2, 6]] = ids[1, [1, 4]] = IMAGE
    mask[1, 8:] = False
    labels = torch.where(mask & (ids != IMAGE), ids, -100)
    return told(Batch(pictures_for(model, 2, 2), ids, labels, mask))


def with_changed_word(batch: Batch, place: int) -> Batch:
    ids = batch.input_ids.clone()
    ids[:, place] += 1
    return replace(batch, input_ids=ids)


def alone(batch: Batch, sample: int) -> Batch:
    """One sample of a batch without its padding."""
    words_here = batch.text_mask[sample]
    ids, labels = (x[sample][words_here][None] for x in (batch.input_ids, batch.labels))
    instruction = batch.instruction[sample][batch.instruction_mask[sample]][None]
    return Batch(batch.images[sample : sample + 1], ids, labels, instruction=instruction)


# --- who sees whom --------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("place", [1, 4, 9])
def test_no_word_is_seen_before_it_comes(vlm, place):
    batch = replace(two_picture_batch(vlm), text_mask=None)
    ids = batch.input_ids.clone()
    ids[1] = ids[0]  # the same places in both samples
    batch = replace(batch, input_ids=ids)
    before, after = vlm(batch), vlm(with_changed_word(batch, place))
    at = int(((before.layout.index[0] == place) & before.layout.is_text[0]).nonzero())
    assert_same(after.logits[:, :at], before.logits[:, :at])
    changed = (after.logits[:, at:] - before.logits[:, at:]).abs().amax(dim=(0, 2))
    assert (changed > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("picture", [0, 1])
def test_no_picture_is_seen_before_it_comes(vlm, picture):
    batch = two_picture_batch(vlm)
    images = batch.images.clone()
    images[:, picture] = 1 - images[:, picture]
    before, after = vlm(batch), vlm(replace(batch, images=images))
    for sample in range(2):
        # a tag before its patches says only that a picture comes
        told = (before.layout.image[sample] == picture) & (before.layout.kind[sample] != Kind.TAG)
        starts = int(told.nonzero()[0])
        ends = int(before.layout.lengths[sample])
        assert_same(after.logits[sample, :starts], before.logits[sample, :starts])
        changed = (after.logits[sample, starts:ends] - before.logits[sample, starts:ends]).abs().amax(dim=1)
        assert (changed > 1e-4).all()


@torch.no_grad()
def test_a_sample_does_not_notice_its_batch(vlm):
    batch = two_picture_batch(vlm)
    together = vlm(batch)
    for sample in range(2):
        apart = vlm(alone(batch, sample))
        assert_same(together.logits[sample][together.layout.valid[sample]], apart.logits[0])


@torch.no_grad()
def test_padding_on_the_left_is_padding_on_the_right(vlm):
    right = two_picture_batch(vlm)
    left = {name: getattr(right, name).clone() for name in ("input_ids", "labels", "text_mask")}
    for value in left.values():
        value[1] = value[1].roll(3)
    left = vlm(replace(right, **left))
    right = vlm(right)
    assert_same(left.logits[right.layout.valid], right.logits[right.layout.valid])
    assert_same(left.loss, right.loss)


def fewer_pictures_batch(model: VLM) -> Batch:
    """Two samples, the second with one picture less than the first, and noise where its second would be."""
    batch = two_picture_batch(model)
    ids = batch.input_ids.clone()
    ids[1, 4] = ids[1, 2]
    return replace(batch, input_ids=ids, image_mask=torch.tensor([[True, True], [True, False]]))


@torch.no_grad()
def test_a_sample_with_fewer_pictures_does_not_notice(vlm):
    batch = fewer_pictures_batch(vlm)
    together = vlm(batch)
    apart = vlm(alone(replace(batch, images=batch.images[:, :1], image_mask=None), 1))
    assert_same(together.logits[1][together.layout.valid[1]], apart.logits[0])
    noise = batch.images.clone()
    noise[1, 1] = pictures_for(vlm, seed=1)
    other = vlm(replace(batch, images=noise))
    assert torch.equal(other.logits, together.logits)


@torch.no_grad()
def test_a_further_picture_changes_nothing_that_came_before(vlm):
    """Neither as the third of three pictures, nor as one that another sample has."""
    batch = replace(two_picture_batch(vlm), labels=None)
    ids, mask = F.pad(batch.input_ids, (0, 3), value=5), F.pad(batch.text_mask, (0, 3), value=True)
    ids[0, -3] = IMAGE
    images = torch.cat([batch.images, pictures_for(vlm, 2, 1, seed=1)], dim=1)
    longer = replace(batch, input_ids=ids, text_mask=mask, images=images)
    longer = replace(longer, image_mask=torch.tensor([[True, True, True], [True, True, False]]))
    before, after = vlm(batch), vlm(longer)
    for sample in range(2):
        length = int(before.layout.lengths[sample])
        assert_same(after.logits[sample, :length], before.logits[sample, :length])


# --- ways round that must not change a number -----------------------------------------------------------------------


@torch.no_grad()
def test_captured_equals_uncaptured(vlm):
    batch = two_picture_batch(vlm)
    plain, captured = vlm(batch), vlm(batch, capture=True)
    assert plain.maps == {}
    assert_same(captured.logits[plain.layout.valid], plain.logits[plain.layout.valid])
    assert_same(captured.loss, plain.loss)
    # the encoder's last blocks, behind the layer that the connector reads, are not computed and leave no map
    unread = [module for part in vlm.vision.unread(vlm.config.layer) for module in part.modules()]
    sites = {name for name, module in vlm.named_modules() if isinstance(module, Attention) and module not in unread}
    assert {f"{site}.weights" for site in sites} <= captured.maps.keys()


def routes(model: VLM, output: Output) -> dict[str, Tensor]:
    """By the names of the maps whose blocks work on some places only: which."""
    if not isinstance(model.language, Depths):
        return {}
    numbers = enumerate(model.language.config.routed)
    sites = {
        f"language.decoder.blocks.{block}.attention.weights": f"language.routers.{n}.route" for n, block in numbers
    }
    return {site: output.maps[route] for site, route in sites.items()}


def among_all(weights: Tensor, route: Tensor) -> Tensor:
    """What the places of a route pay one another, (B, H, n, n), as a map of all places, with zeros for the others."""
    spread = weights.new_zeros(*weights.shape[:2], *route.shape[1:], *route.shape[1:])
    for sample, taken in enumerate(route):
        at = taken.nonzero().flatten()
        spread[sample][:, at[:, None], at] = weights[sample, :, : len(at), : len(at)]
        assert (weights[sample, :, : len(at), len(at) :] == 0).all()  # what fills up is seen by nobody
    return spread


@torch.no_grad()
def test_maps_are_shares_of_what_may_be_seen(vlm):
    output = vlm(two_picture_batch(vlm), capture=True)
    allowed = vlm.fusion.mask(output.layout)
    for name, weights in output.maps.items():
        if name.endswith(".points"):  # places (x, y) in the picture, each with a share of its own beside it
            assert weights.shape == (*output.maps[name.removesuffix("points") + "weights"].shape, 2)
            continue
        if name.startswith("fusion") and not name.endswith(".weights"):
            continue  # gates, routes, and what is added to the words: the fusions' own tests tell of them
        if name.endswith(".route"):  # which places a block works on
            assert weights.dtype == torch.bool and not weights[~output.layout.valid].any()
            continue
        route = routes(vlm, output).get(name)
        if route is not None:
            weights = among_all(weights, route)
        rows = weights.sum(dim=-1)
        if name.startswith("fusion") and not vlm.fusion.opens:
            sees = output.layout.latest >= 0
            assert (weights.transpose(1, 2)[~sees] == 0).all()
            rows = rows.transpose(1, 2)[sees]
        if name.startswith("language"):
            assert (weights[~allowed.expand_as(weights)] == 0).all()
            rows = rows.transpose(1, 2)[output.layout.valid if route is None else route]
        assert_same(rows, torch.ones_like(rows))


def test_a_logit_has_a_gradient_for_every_map(vlm):
    output = vlm(two_picture_batch(vlm), capture=True)
    last = output.layout.lengths[0] - 1
    maps = [value for name, value in output.maps.items() if not name.endswith(".route")]  # a route is taken or not
    for gradient in torch.autograd.grad(output.logits[0, last, 5], maps):
        assert (gradient[0] != 0).any()


@torch.no_grad()
def test_features_stand_in_for_their_pictures(vlm):
    batch = two_picture_batch(vlm)
    from_features = vlm(replace(batch, images=None, features=vlm.features(batch.images)))
    assert torch.equal(from_features.logits, vlm(batch).logits)


@torch.no_grad()
def test_features_of_another_encoder_are_refused(vlm):
    batch = two_picture_batch(vlm)
    short = vlm.features(batch.images)[:, :, 1:]
    with pytest.raises(ValueError, match="features must be"):
        vlm(replace(batch, images=None, features=short))


@torch.no_grad()
def test_blind_is_the_same_text_without_pictures(vlm):
    batch = two_picture_batch(vlm)
    blind = vlm(batch.blind(IMAGE))
    assert not blind.layout.is_visual.any()
    for sample in range(2):
        keep = batch.text_mask[sample] & (batch.input_ids[sample] != IMAGE)
        bare = vlm(Batch(None, batch.input_ids[sample][keep][None]))
        assert_same(blind.logits[sample][blind.layout.valid[sample]], bare.logits[0])


# --- generation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def speaker(vlm) -> VLM:
    """A model whose blocks outweigh the words they read, so that it does not say one word over and over; and that does
    not say `<image>`, which would be read as one more picture."""
    for weight in chain(vlm.language.blocks.parameters(), vlm.fusion.parameters()):
        weight.data *= 2
    vlm.language.head.weight.data[IMAGE] = 0
    return vlm


@torch.no_grad()
def slow_generate(model: VLM, batch: Batch, steps: int) -> Tensor:
    """The likeliest word each time, reading everything again for every word, one sample at a time."""
    said = []
    for sample in range(len(batch)):
        now = alone(batch, sample)
        for _ in range(steps):
            word = model(now).logits[:, -1:].argmax(dim=-1)
            now = replace(now, input_ids=torch.cat([now.input_ids, word], dim=1), labels=None)
        said.append(now.input_ids[0, -steps:])
    return torch.stack(said)


def test_generation_with_a_cache_equals_reading_everything_again(speaker):
    batch = two_picture_batch(speaker)
    wanted = slow_generate(speaker, batch, 6)
    unsaid = next(word for word in range(speaker.config.language.vocab_size) if word not in wanted)
    speaker.config = replace(speaker.config, eos_id=unsaid)  # or a sample might end by chance
    said = speaker.generate(batch, max_new_tokens=6)
    assert torch.equal(said, wanted)
    assert len(set(said.flatten().tolist())) > 6


def test_a_sample_that_has_ended_is_filled_while_others_go_on(speaker):
    batch = two_picture_batch(speaker)
    free = slow_generate(speaker, batch, 6)
    end = next(i for i in range(5) if (free == free[0, i]).sum() == 1)  # where only the first sample ends
    speaker.config = replace(speaker.config, eos_id=int(free[0, end]))
    wanted = free.clone()
    wanted[0, end:] = speaker.config.eos_id
    assert torch.equal(speaker.generate(batch, max_new_tokens=6), wanted)
    alone_said = speaker.generate(alone(batch, 0), max_new_tokens=6)
    assert alone_said.tolist() == free[:1, : end + 1].tolist()  # nobody to wait for


@torch.no_grad()
def test_cached_logits_equal_uncached(vlm):
    ids = words(2, 9)
    ids[:, 2] = IMAGE
    batch = told(Batch(pictures_for(vlm, 2, 1), ids))
    x, layout, seen = vlm._sequence(batch)
    wanted, mask = vlm(batch).logits, vlm.fusion.mask(layout)
    length = x.shape[1]
    cache = vlm.language.make_cache(length)
    for start, end in ((0, length - 5), (length - 5, length - 2), (length - 2, length - 1), (length - 1, length)):
        here = Layout(**{field.name: getattr(layout, field.name)[:, start:end] for field in fields(Layout)})
        hidden = vlm._read(x[:, start:end], here, seen, mask[:, :, start:end, :end], cache)
        assert_same(vlm.language.logits(hidden), wanted[:, start:end])


# --- several questions on one picture -------------------------------------------------------------------------------

DIALOGS = [
    [("what colour is the circle?", "red"), ("how many are there?", "two"), ("", "a red circle and a blue square")],
    [("is there a triangle?", "no"), ("what colour is the square?", "blue")],
]
CONTEXTS = ["a red circle", ""]  # what all questions on a picture may read


@torch.no_grad()
def test_packed_questions_equal_questions_apart(vlm):
    images = pictures_for(vlm, 2, 1)
    batch = told(Batch.pack(TOKENIZER, DIALOGS, images, contexts=CONTEXTS))
    packed = vlm(batch)
    losses = word_losses(packed, batch)
    apart_losses = []
    for sample, dialog in enumerate(DIALOGS):
        for number, turn in enumerate(dialog, start=1):
            here = slice(sample, sample + 1)
            single = told(Batch.pack(TOKENIZER, [[turn]], images[here], contexts=CONTEXTS[here]), here)
            apart = vlm(single)
            asked = packed.layout.segment[sample] == number
            assert_same(packed.logits[sample, asked], apart.logits[0, apart.layout.segment[0] == 1])
            apart_losses.append(word_losses(apart, single))
    assert_same(losses, torch.cat(apart_losses))
    assert_same(packed.loss, losses.mean())


def word_losses(output, batch: Batch) -> Tensor:
    """The loss of every learned word, from the logits just before it."""
    rows, columns, targets = answer_positions(output.layout, batch.labels)
    before = output.layout.predecessor()[rows, columns]
    return F.cross_entropy(output.logits[rows, before], targets, reduction="none")


@torch.no_grad()
def test_what_is_learned_is_the_answer_and_its_end(vlm):
    batch = Batch.pack(TOKENIZER, DIALOGS, pictures_for(vlm, 2, 1))
    learned = [batch.labels[sample][batch.labels[sample] >= 0] for sample in range(2)]
    for ids, dialog in zip(learned, DIALOGS, strict=True):
        wanted = [TOKENIZER.encode(answer) + [Tokenizer.eos_id] for _, answer in dialog]
        assert ids.tolist() == list(chain.from_iterable(wanted))


def test_an_open_question_is_answered_as_if_it_were_alone(speaker):
    images = pictures_for(speaker, 2, 1)
    dialogs = [[*dialog[:-1], ("what is there?", "")] for dialog in DIALOGS]
    packed = speaker.generate(told(Batch.pack(TOKENIZER, dialogs, images)), max_new_tokens=5)
    last = told(Batch.pack(TOKENIZER, [dialog[-1:] for dialog in dialogs], images))
    assert torch.equal(packed, speaker.generate(last, max_new_tokens=5))


@torch.no_grad()
def test_a_word_with_nothing_before_it_is_not_learned(vlm):
    # without any shared part the first word of the second question would else be read off the first question
    ids = words(1, 6)
    segments = torch.tensor([[1, 1, 1, 2, 2, 2]])
    together = vlm(Batch(None, ids, ids, segments=segments))
    halves = [vlm(Batch(None, half, half)).loss for half in ids.chunk(2, dim=1)]
    assert_same(together.loss, torch.stack(halves).mean())


# --- what the question changes --------------------------------------------------------------------------------------


def test_the_loss_alone_is_that_of_a_whole_pass_and_scores_only_what_is_learned(vlm):
    batch, scored = two_picture_batch(vlm), []
    labels = batch.labels.clone()
    labels[:, :7] = -100  # the last words of both, of one sample a single one
    batch = replace(batch, labels=labels)
    learning = [weight for weight in vlm.train().parameters() if weight.requires_grad]
    torch.manual_seed(0)
    whole = torch.autograd.grad(vlm(batch).loss, learning, allow_unused=True)
    vlm.language.head.register_forward_hook(lambda _, given, scores: scored.append(scores.shape[:-1].numel()))
    torch.manual_seed(0)  # of depths drawn by lot
    alone = torch.autograd.grad(vlm.loss(batch), learning, allow_unused=True)
    assert scored == [int((labels != -100).sum())]
    for own, other in zip(alone, whole, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            assert_same(own, other, 1e-5 * max(1, float(other.abs().max())))
    with pytest.raises(ValueError, match="nothing to learn: give a batch with labels"):
        vlm.loss(replace(batch, labels=None))


@torch.no_grad()
def test_the_question_changes_the_visual_tokens_of_designs_that_read_it_only(vlm):
    """Another instruction, and everything else as it was: words that are not the instruction's stay the same words."""
    batch = two_picture_batch(vlm)
    swapped = replace(batch, instruction=batch.instruction.flip(0), instruction_mask=batch.instruction_mask.flip(0))
    features = vlm.features(batch.images)
    tokens, others = vlm.connect(features, batch), vlm.connect(features, swapped)
    if not vlm.connector.conditioned:
        assert torch.equal(tokens, others)
        assert torch.equal(vlm.connect(features, replace(batch, instruction=None, instruction_mask=None)), tokens)
    else:
        assert ((tokens - others).abs().amax(dim=(2, 3)) > 1e-3).all()  # of every picture of every sample


@torch.no_grad()
def test_what_pads_an_instruction_is_not_read(vlm):
    batch = two_picture_batch(vlm)
    junk = torch.where(batch.instruction_mask, batch.instruction, LAST_ID)
    longer = F.pad(junk, (0, 2), value=LAST_ID), F.pad(batch.instruction_mask, (0, 2))
    other = vlm(replace(batch, instruction=longer[0], instruction_mask=longer[1]))
    assert_same(other.logits[other.layout.valid], vlm(batch).logits[other.layout.valid])


@torch.no_grad()
def test_a_caption_is_said_without_an_instruction(vlm):
    """A dialog without a question gives an instruction without words: as good as any other batch of captions."""
    batch = Batch.pack(TOKENIZER, [[("", "a red circle")], [("what is there?", "two")]], pictures_for(vlm, 2, 1))
    assert batch.instruction_mask.any(dim=1).tolist() == [False, True]
    together = vlm(batch)
    for sample in range(2):
        apart = vlm(alone(batch, sample))  # the first: with an instruction of length 0
        assert_same(together.logits[sample][together.layout.valid[sample]], apart.logits[0])


@torch.no_grad()
def test_questions_packed_together_are_refused_by_designs_that_read_them(vlm):
    batch = Batch.pack(TOKENIZER, DIALOGS, pictures_for(vlm, 2, 1))
    assert batch.instruction is None
    if not vlm.connector.conditioned:
        assert vlm(batch).loss.isfinite()
    else:
        with pytest.raises(ValueError, match="pack dialogs of one question, or give Batch an instruction"):
            vlm(batch)
    assert vlm(batch.blind(IMAGE)).loss.isfinite()  # without pictures there are no visual tokens to read it into


# --- what learns ----------------------------------------------------------------------------------------------------


def powerset(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1)))


def assert_gradients(model: nn.Module, loss: Tensor) -> None:
    """A gradient for every weight that learns, none for the frozen."""
    loss.backward()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert weight.grad is None, f"{name} is frozen but has a gradient"
        else:
            assert weight.grad is not None, f"{name} learns but has no gradient"
            # softmax does not care for a number added to all its scores, so the bias of the keys has gradient 0
            assert (weight.grad != 0).any() or name.endswith(".k.bias"), f"the gradient of {name} is 0"


def choices(name: str) -> list[tuple[str, ...]]:
    """Every choice of the parts of that design."""
    return powerset(build(name, device="meta").parts)


@pytest.mark.parametrize(
    ("vlm", "parts"),
    [pytest.param(name, parts, id=f"{name}-{'+'.join(parts)}") for name in DECODING for parts in choices(name)],
    indirect=["vlm"],
)
def test_only_the_chosen_parts_learn(vlm, parts, capsys):
    vlm.train_only(*parts)
    said = capsys.readouterr().out
    for part in vlm.parts:
        weights = list(getattr(vlm, part).parameters())
        learning = [weight for weight in weights if weight.requires_grad]
        assert bool(learning) == (part in parts)
        assert f"{part}: " in said and f"{sum(w.numel() for w in learning):,} of" in said
    assert_gradients(vlm.train(), vlm(two_picture_batch(vlm)).loss)


def test_a_part_that_does_not_exist_cannot_learn(vlm):
    with pytest.raises(ValueError, match="no part named brain"):
        vlm.train_only("brain")


# --- counts ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_token_count_is_the_tensor(vlm):
    batch = two_picture_batch(vlm)
    visual = vlm.connect(vlm.features(batch.images), batch)
    views, tokens = vlm.config.vision.views(vlm.config.vision.image_size), vlm.config.num_tokens
    assert visual.shape == (2, 2, tokens, vlm.config.fusion.visual_width or vlm.config.language.width)
    picture, sources = vlm.separators.arrange(views, vlm.connector)
    assert len(picture) == len(picture.row) == len(picture.col) == len(sources) == tokens
    output = vlm(batch)
    assert output.logits.shape[:2] == output.layout.kind.shape
    if not vlm.fusion.opens:  # pictures stay out of the sequence: it is the text, and each `<image>` a word of it
        assert output.layout.lengths.tolist() == output.layout.is_text.sum(dim=1).tolist()
        assert output.layout.lengths.tolist() == batch.text_mask.sum(dim=1).tolist()
        return
    texts = (batch.text_mask & (batch.input_ids != IMAGE)).sum(dim=1)
    assert output.layout.lengths.tolist() == (texts + 2 * tokens).tolist()
    assert output.layout.is_text.sum(dim=1).tolist() == texts.tolist()
    for number in (0, 1):
        here = output.layout.image[0] == number
        assert output.layout.kind[0, here].tolist() == picture.kind.tolist()
        assert output.layout.index[0, here].tolist() == list(range(tokens))


@torch.no_grad()
def test_patch_tokens_stand_where_their_patch_is(vlm):
    """Grey everywhere but in one patch: of the visual tokens before any mixing, only that patch's own differs. What
    cuts pictures is asked of its tower; of two encoders, of the one whose patches the tokens are."""
    tower = getattr(vlm.vision, "tower", getattr(vlm.vision, "low", vlm.vision))
    layout, patch = vlm.connector.layout(tower.config.grid), tower.config.patch_size
    patches = (layout.kind == Kind.PATCH).nonzero().flatten()
    for token in patches[[0, 1, 9, -1]] if len(patches) else []:
        row, col = int(layout.row[token]), int(layout.col[token])
        images = torch.full((2, 3, *tower.config.image_size), 0.5)
        images[1, :, row * patch : (row + 1) * patch, col * patch : (col + 1) * patch] = 1.0
        raw = isinstance(tower, Patches)
        states = tower.features(images) if raw else tower.embed(images)[:, int(tower.config.class_token) :]
        number = patches.tolist().index(int(token))  # tags are not the encoder's
        assert (states[0] != states[1]).any(dim=-1).nonzero().flatten().tolist() == [number]


# --- two towers -----------------------------------------------------------------------------------------------------


def slow_contrastive_loss(kind: str, logits: Tensor) -> Tensor:
    """The loss as its paper writes it, pair by pair."""
    number, total = len(logits), torch.zeros(())
    for i in range(number):
        if kind == "siglip":
            for j in range(number):
                total = total - torch.log(1 / (1 + torch.exp((-1 if i == j else 1) * logits[i, j])))
        else:
            for line in (logits[i], logits[:, i]):  # a picture's texts, a text's pictures
                total = total - torch.log(line[i].exp() / line.exp().sum()) / 2
    return total / number


@torch.no_grad()
def test_contrastive_loss_pair_by_pair(towers):
    output = towers(pictures_for(towers, 5), words(5, 12))
    assert_same(output.loss, slow_contrastive_loss(type(towers).__name__.lower(), output.logits_per_image))
    for embeddings in (output.image_embeds, output.text_embeds):
        assert_same(embeddings.norm(dim=-1), torch.ones(5))


@torch.no_grad()
def test_a_loss_needs_one_text_a_picture(towers):
    output = towers(pictures_for(towers, 2), words(3, 12))
    assert output.loss is None
    assert output.logits_per_image.shape == (2, 3)


@torch.no_grad()
def test_text_tower_reads_forward_only_where_it_says_so(towers):
    ids = words(2, 12)
    changed = ids.clone()
    changed[:, 6] += 1
    moved = (towers.text(ids) - towers.text(changed)).abs().amax(dim=(0, 2))
    assert (moved[6:] > 1e-4).all()
    assert (moved[:6] < 1e-5).all() if towers.config.text.causal else (moved[:6] > 1e-4).all()


@torch.no_grad()
def test_captured_contrastive_equals_uncaptured(towers):
    images, ids = pictures_for(towers, 3), words(3, 12)
    plain, captured = towers(images, ids), towers(images, ids, capture=True)
    assert plain.maps == {}
    assert_same(captured.logits_per_image, plain.logits_per_image)
    sites = {f"{name}.weights" for name, module in towers.named_modules() if isinstance(module, Attention)}
    assert captured.maps.keys() == sites
    for weights in captured.maps.values():
        assert_same(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_both_towers_learn(towers):
    assert_gradients(towers, towers(pictures_for(towers, 3), words(3, 12)).loss)


def test_untrained_blocks_do_not_drown_the_words():
    """A fresh decoder hands on mostly the words themselves: what its blocks add is not much louder."""
    torch.manual_seed(0)
    language = build("llava15", device="cpu").language
    words = language.embedding(torch.randint(4, 512, (4, 60))).detach()
    x = words
    mask = torch.ones(60, 60, dtype=torch.bool).tril()
    for block in language.blocks:
        x = block(x, mask=mask[None, None])
    assert words.norm(dim=-1).mean() == pytest.approx(1, abs=0.1)
    assert (x.detach() - words).norm(dim=-1).mean() < 2 * words.norm(dim=-1).mean()
