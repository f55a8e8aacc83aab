"""Explorers of connectors: what their queries look at, and what a question changes in it.

They read the maps of `Output`s that are there; none runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ipywidgets import Widget
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.explore.base import Explorer, buttons, counted, slider
from minivlm.figures import query_maps, question_maps
from minivlm.model import Output, VLMConfig
from minivlm.queries import query_attention, query_sites, query_statistics

Maps = dict[str, tuple[int, int]]  # how many heads and queries a site has, by its name


def queries_explorer(
    outputs: Mapping[str, Output], images: Float[Tensor, "B M 3 H W"], configs: Mapping[str, VLMConfig]
) -> Explorer:
    """What the queries of each of some connectors attend to, all at once or a single one enlarged.

    `outputs`, captured, and `configs` have a connector each, by its name ("1 token", "4 tokens"), and `images` are what
    all of them saw. ValueError for an output without maps of queries, or of other pictures.
    """
    if not outputs or outputs.keys() != configs.keys():
        raise ValueError(f"outputs of {', '.join(outputs) or 'nothing'}, configs of {', '.join(configs) or 'nothing'}")
    maps = {name: _maps(name, output, images, configs[name]) for name, output in outputs.items()}
    shapes = [shape for sites in maps.values() for shape in sites.values()]
    controls = {
        "name": buttons("Connector", [(name, name) for name in outputs]),
        **_pictures(images),
        **{key: control for sites in maps.values() for key, control in _sites(sites).items()},
        **_numbered("query", "all", (queries for _, queries in shapes)),
        **_numbered("head", "mean", (heads for heads, _ in shapes if heads > 1)),
    }

    def draw(name: str, query: int = 0, **place) -> tuple[Figure, str]:
        output, config = outputs[name], configs[name]
        if query:
            return question_maps({name: output}, images, config, query - 1, **place)
        figure, told = query_maps(output, images, config, **place)
        found = query_statistics(query_attention(output, config, **place).patches.flatten(1))
        alike = f"Two of its maps have a cosine of {found.collapse:.2f} in the mean; " if len(found.entropy) > 1 else ""
        return figure, f"{name}: {told} {alike}{found.coverage:.0%} of the patches get more than an even share."

    return _explorer("Queries explorer", controls, draw, lambda name, **_: maps[name])


def questions_explorer(
    outputs: Mapping[str, Output], images: Float[Tensor, "B M 3 H W"], config: VLMConfig
) -> Explorer:
    """What one query attends to for two questions about the same pictures, side by side, and what is different.

    `outputs`, captured, are of one model, by the question (the one that was asked about every sample). ValueError for
    an output without maps of queries, of other pictures or another model.
    """
    if not outputs:
        raise ValueError("no questions to compare: outputs are empty")
    found = {question: _maps(question, output, images, config) for question, output in outputs.items()}
    questions, (maps, *others) = list(outputs), found.values()
    if any(other != maps for other in others):
        raise ValueError(f"the outputs are not of one model: their maps of queries are {found}")
    options = [(question, question) for question in questions]
    controls = {
        "left": buttons("Left", options),
        "right": buttons("Right", options, index=min(1, len(options) - 1)),
        **_pictures(images),
        **_sites(maps),
        **{_key("query", n): slider("Query", counted(n)) for n in dict.fromkeys(n for _, n in maps.values())},
        **_numbered("head", "mean", (heads for heads, _ in maps.values() if heads > 1)),
    }

    def draw(left: str, right: str, query: int, **place) -> tuple[Figure, str]:
        figure, told = question_maps(
            {question: outputs[question] for question in (left, right)}, images, config, query - 1, **place
        )
        return figure, told if left != right else f"Left and right are the same question. {told}"

    return _explorer("Questions explorer", controls, draw, lambda **_: maps)


def _maps(name: str, output: Output, images: Float[Tensor, "B M 3 H W"], config: VLMConfig) -> Maps:
    samples, pictures = images.shape[:2]
    site = query_attention(output, config).site  # or says why there is none
    read = len(output.maps[site])
    if len(output.layout.kind) != samples or read != samples * pictures:
        raise ValueError(
            f"{name}: images are {samples} samples of {pictures} pictures, the output is of "
            f"{len(output.layout.kind)} samples and {read} pictures"
        )
    return {site: tuple(output.maps[site].shape[1:3]) for site in query_sites(output, config)}


# A control is named after its role and, where that depends on another, " of " what it is for: that comes into sight
# where it is used.


def _pictures(images: Float[Tensor, "B M 3 H W"]) -> dict[str, Widget]:
    sizes = dict(zip(("sample", "picture"), images.shape, strict=False))
    return {role: slider(role.capitalize(), _from_zero(n)) for role, n in sizes.items() if n > 1}


def _sites(maps: Maps) -> dict[str, Widget]:
    options = [(site.removeprefix("connector.").removesuffix(".weights"), site) for site in maps]
    return {_key("site", maps): slider("Site", options, options[-1][1])} if len(maps) > 1 else {}


def _numbered(role: str, together: str, counts: Iterable[int]) -> dict[str, Widget]:
    """For each different count a slider from `together` (0) to it."""
    return {_key(role, n): slider(role.capitalize(), [(together, 0), *counted(n)]) for n in dict.fromkeys(counts)}


def _from_zero(n: int) -> list[tuple[str, int]]:
    return [(label, i - 1) for label, i in counted(n)]


def _key(role: str, of: object) -> str:
    return f"{role} of {', '.join(of) if isinstance(of, dict) else of}"


def _explorer(
    title: str, controls: dict[str, Widget], draw: Callable[..., tuple[Figure, str]], maps_of: Callable[..., Maps]
) -> Explorer:
    """`draw` is called with the roles of what is in sight; `maps_of` says of which maps that is."""

    def hidden(**values: object) -> set[str]:
        maps = maps_of(**values)
        sites = _key("site", maps)
        heads, queries = maps[values.get(sites, next(reversed(maps)))]
        used = {sites, _key("head", heads), _key("query", queries)}
        return {key for key in controls if " of " in key and key not in used}

    def drawn(**values: object) -> tuple[Figure, str]:
        place = {key.partition(" of ")[0]: value for key, value in values.items()}
        if "head" in place:
            place["head"] = place["head"] - 1 if place["head"] else None
        figure, told = draw(**place)
        where = [f"{role.capitalize()} {place[role] + 1}. " for role in ("sample", "picture") if role in place]
        return figure, "".join([*where, told])

    return Explorer(title, controls, drawn, hidden)
