"""What stands where, against versions slow and plain enough to be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from minivlm.fusion.interleave import interleave, merge
from minivlm.layout import Kind, Layout, VisualLayout

IMAGE = 9


@dataclass
class Texts:
    """A batch of random texts: ids (B, T), where words are, and which question each belongs to."""

    ids: Tensor
    mask: Tensor
    segments: Tensor


def random_texts(seed: int) -> Texts:
    """Up to three questions after a shared part, some pictures anywhere, padding on both sides and in between."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    batch, length = 3, 10
    ids = draw(0, IMAGE, batch, length)
    ids[draw(0, 4, batch, length) == 0] = IMAGE
    mask = draw(0, 4, batch, length) > 0
    mask[0] = True
    mask[:, 2] = True  # something is shared in every sample
    segments = torch.zeros_like(ids)
    segments[:, 3:] = draw(0, 4, batch, length - 3).sort(dim=1).values
    return Texts(ids, mask, segments)


def newline_layout() -> VisualLayout:
    """Two rows of two patches, each with a newline after it."""
    kind = torch.tensor([Kind.PATCH, Kind.PATCH, Kind.NEWLINE] * 2)
    row, col = torch.tensor([0, 0, -1, 1, 1, -1]), torch.tensor([0, 1, -1, 0, 1, -1])
    return VisualLayout(kind, row, col, torch.zeros_like(row))


def views_layout() -> VisualLayout:
    """A latent of the whole picture, then two patches of a part of it."""
    return VisualLayout.latents(1) + VisualLayout.patches((1, 2)).in_view(1)


PICTURES = {"patches": VisualLayout.patches((2, 3)), "newlines": newline_layout(), "views": views_layout()}
PADDING = dict(kind=Kind.PAD, image=-1, view=0, row=-1, col=-1, index=-1, segment=-1, position=0, latest=-1)


def slow_layout(texts: Texts, picture_of: Callable[[int, int], VisualLayout]) -> list[list[dict]]:
    """For every sample, what stands at each of its positions, one position after the other; `picture_of` its number and
    a picture's is what that picture becomes."""
    samples = []
    rows = zip(texts.ids.tolist(), texts.mask.tolist(), texts.segments.tolist(), strict=True)
    for sample, (ids, mask, segments) in enumerate(rows):
        places, pictures = [], 0
        for i, (word, real, segment) in enumerate(zip(ids, mask, segments, strict=True)):
            if real and word == IMAGE:
                picture = picture_of(sample, pictures)
                for k in range(len(picture)):
                    own = {name: int(getattr(picture, name)[k]) for name in ("kind", "row", "col", "view")}
                    places.append(dict(image=pictures, index=k, segment=segment, **own))
                pictures += 1
            elif real:
                places.append(dict(kind=Kind.TEXT, image=-1, view=0, row=-1, col=-1, index=i, segment=segment))
        for place, position in zip(places, slow_positions(places), strict=True):
            place["position"] = position
            place["latest"] = max(other["image"] for other in places[: places.index(place) + 1])
        samples.append(places)
    return samples


def slow_positions(places: list[dict]) -> list[int]:
    """Every question goes on from the end of the shared part."""
    counts: dict[int, int] = {0: 0}
    positions = []
    for place in places:
        segment = place["segment"]
        counts.setdefault(segment, counts[0])
        positions.append(counts[segment])
        counts[segment] += 1
    return positions


def layout_of(texts: Texts, picture: VisualLayout) -> Layout:
    return interleave(texts.ids, texts.mask, texts.segments, picture, IMAGE)


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("seed", range(20))
def test_interleave(seed, picture):
    texts = random_texts(seed)
    check_layout(layout_of(texts, picture), slow_layout(texts, lambda sample, number: picture))


@pytest.mark.parametrize("seed", range(20))
def test_interleave_pictures_that_differ(seed):
    texts = random_texts(seed)
    images = int(((texts.ids == IMAGE) & texts.mask).sum(dim=1).max())
    kinds = list(PICTURES.values())
    chosen = torch.randint(len(kinds), (len(texts.ids), max(1, images)), generator=torch.Generator().manual_seed(seed))
    stack = VisualLayout.stack([kinds[i] for i in chosen.flatten()], chosen.shape[1])
    assert len(stack) == max(len(kinds[i]) for i in chosen.flatten())
    wanted = slow_layout(texts, lambda sample, number: kinds[chosen[sample, number]])
    check_layout(interleave(texts.ids, texts.mask, texts.segments, stack, IMAGE), wanted)


def check_layout(layout: Layout, wanted: list[list[dict]]) -> None:
    length = max(map(len, wanted))
    for field in fields(Layout):
        rows = [[place[field.name] for place in places + [PADDING] * (length - len(places))] for places in wanted]
        assert getattr(layout, field.name).tolist() == rows, field.name
    assert layout.lengths.tolist() == [len(places) for places in wanted]


@pytest.mark.parametrize("seed", range(20))
def test_attention_mask(seed):
    layout = layout_of(random_texts(seed), PICTURES["patches"])
    mask = layout.attention_mask()
    batch, length = layout.kind.shape
    assert mask.shape == (batch, 1, length, length)
    for b in range(batch):
        segment = layout.segment[b].tolist()
        for query in range(length):
            for key in range(length):
                padding = segment[query] == -1 or segment[key] == -1
                sees = not padding and key <= query and segment[key] in (0, segment[query])
                assert mask[b, 0, query, key] == sees


@pytest.mark.parametrize("seed", range(20))
def test_predecessor_is_the_last_position_that_a_word_sees(seed):
    layout = layout_of(random_texts(seed), PICTURES["patches"])
    before, mask = layout.predecessor(), layout.attention_mask()[:, 0]
    for b, length in enumerate(layout.lengths.tolist()):
        for place in range(length):
            seen = mask[b, place, :place].nonzero().flatten().tolist()
            assert before[b, place] == (seen[-1] if seen else -1)


@pytest.mark.parametrize("seed", range(20))
def test_an_encoder_sees_all_of_its_sample(seed):
    layout = layout_of(random_texts(seed), PICTURES["patches"])
    for mask, length in zip(layout.encoder_mask()[:, 0], layout.lengths.tolist(), strict=True):
        assert mask[:length, :length].all() and mask.sum() == length**2


@pytest.mark.parametrize("seed", range(20))
def test_the_place_that_follows(seed):
    """The next word of the last question."""
    texts = random_texts(seed)
    layout = layout_of(texts, PICTURES["patches"])
    for sample, places in enumerate(slow_layout(texts, lambda *_: PICTURES["patches"])):
        said = dict(kind=Kind.TEXT, image=-1, view=0, row=-1, col=-1, index=-1, segment=places[-1]["segment"])
        said |= dict(position=slow_positions([*places, said])[-1], latest=places[-1]["latest"])
        for field in fields(Layout):
            assert getattr(layout.following(), field.name)[sample].tolist() == [said[field.name]], field.name


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("seed", range(20))
def test_patches_of_a_picture_may_share_one_place(seed, picture):
    """In a row of patches only the first counts; a newline does, and the patch behind it."""
    texts = random_texts(seed)
    layout = interleave(texts.ids, texts.mask, texts.segments, picture, IMAGE, one_place=True)
    for sample, places in enumerate(slow_layout(texts, lambda *_: picture)):
        kept = []
        for i, place in enumerate(places):
            patches = place["kind"] == Kind.PATCH and i > 0 and places[i - 1]["kind"] == Kind.PATCH
            if not (patches and places[i - 1]["image"] == place["image"]):
                kept.append(place)
            place["stands_for"] = len(kept) - 1
        positions = slow_positions(kept)
        wanted = [positions[place["stands_for"]] for place in places]
        assert layout.position[sample, : len(places)].tolist() == wanted


def test_predecessor_where_nothing_is_shared():
    ids = torch.tensor([[1, 2, 3, 4]])
    texts = Texts(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([[1, 1, 2, 2]]))
    layout = layout_of(texts, PICTURES["patches"])
    assert layout.predecessor().tolist() == [[-1, 0, -1, 2]]
    assert layout.position.tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("seed", range(10))
def test_merge(seed, picture):
    texts = random_texts(seed)
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(*texts.ids.shape, 5, generator=generator)
    most = int((texts.ids == IMAGE).sum(dim=1).max())
    visual = torch.randn(len(texts.ids), most, len(picture), 5, generator=generator)
    merged = merge(layout_of(texts, picture), words, visual)
    for b, places in enumerate(slow_layout(texts, lambda *_: picture)):
        for at, place in enumerate(places):
            source = words[b] if place["image"] < 0 else visual[b, place["image"]]
            assert torch.equal(merged[b, at], source[place["index"]])
        assert (merged[b, len(places) :] == 0).all()


def test_kinds_of_positions():
    ids = torch.tensor([[1, IMAGE, 2], [3, 4, 5]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    layout = layout_of(Texts(ids, mask, torch.zeros_like(ids)), PICTURES["newlines"])
    assert layout.is_text.tolist() == [[True] + [False] * 6 + [True], [True, True] + [False] * 6]
    assert layout.is_visual.tolist() == [[False] + [True] * 6 + [False], [False] * 8]
    assert layout.valid.tolist() == [[True] * 8, [True, True] + [False] * 6]
