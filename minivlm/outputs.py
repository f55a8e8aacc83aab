"""What chosen layers of a model give, kept while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def layer_outputs(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What the layers of these names give inside, in the order in which they are first called, and each as of that
    first call; of several outputs the first. A layer that is not called is left out."""
    given: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, inputs: tuple, output: Any) -> None:
            given.setdefault(name, output[0] if isinstance(output, tuple) else output)

        return keep

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
