"""What every explorer is: controls, one picture, and one line that says in words what the picture shows.

The controls are moved by keyboard or mouse. Where no kernel runs, what stays of an explorer is a sentence.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakSet

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.figures.common import in_lines

DPI = 100


class State(NamedTuple):
    """A picture, as PNG, and what it shows in words."""

    png: bytes
    words: str


class Explorer(widgets.VBox):
    """Controls (by the name that `draw` calls each), the picture that `draw` makes of their values, and its description
    in words.

    `hidden` says which controls have no part in the state that some values make; they are out of sight meanwhile.
    States that were drawn once are kept. What goes wrong in drawing is said in place of the description; the first such
    error stays in `failure` and, at the end of the line, under all that is shown later, so that nobody, and no test,
    can miss it.
    """

    live: WeakSet[Explorer] = WeakSet()

    def __init__(
        self,
        title: str,
        controls: Mapping[str, widgets.Widget],
        draw: Callable[..., tuple[Figure, str]],
        hidden: Callable[..., Collection[str]] = lambda **_: (),
    ):
        self.title, self.controls, self.failure = title, dict(controls), None
        self._draw, self._hidden, self._drawn = draw, hidden, {}
        self.picture, self.status = widgets.HTML(), widgets.HTML()
        super().__init__([*self.controls.values(), self.status, self.picture])
        for control in self.controls.values():
            control.observe(self._update, "value")
        self.add_class("minivlm-explorer")
        self._update()
        self.live.add(self)

    @property
    def state(self) -> State:
        """What is shown now."""
        return self._state

    def sweep(self) -> None:
        """Move every control through all its values, each where it first comes into sight, and back; raise the first
        error that any drawing ever met."""
        self._sweep(set())
        if self.failure:
            raise self.failure

    def _sweep(self, done: set[str]) -> None:
        for name, control in self.controls.items():
            if name in done or name in self._hidden(**self._values()):
                continue
            done.add(name)
            before = control.index
            for index in range(len(control.options)):
                control.index = index
                self._sweep(done)
            control.index = before

    def _values(self) -> dict[str, object]:
        return {name: control.value for name, control in self.controls.items()}

    def _update(self, _: object = None) -> None:
        values = self._values()
        hidden = self._hidden(**values)
        for name, control in self.controls.items():
            control.layout.display = "none" if name in hidden else None
        self._state = self._shown({name: value for name, value in values.items() if name not in hidden})
        source = f"data:image/png;base64,{base64.b64encode(self._state.png).decode()}"
        alt = html.escape(self._state.words)
        self.picture.value = f'<img alt="{alt}" src="{source}" style="max-width: 100%">' if self._state.png else ""
        self.status.value = f'<div role="status" aria-live="polite">{alt}</div>'

    def _shown(self, values: Mapping[str, object]) -> State:
        key = tuple(values.items())
        try:
            if key not in self._drawn:
                self._drawn[key] = _drawn(self._draw, values)
            state = self._drawn[key]
        except Exception as error:  # whatever it is, it would otherwise end unseen in the log of the kernel
            self.failure = self.failure or error
            state = State(b"", f"This could not be drawn: {_told(error)}.")
        earlier = self.failure and key in self._drawn
        return state._replace(words=f"{state.words} Earlier: {_told(self.failure)}.") if earlier else state

    def _repr_mimebundle_(self, **kwargs) -> dict[str, object]:
        said = ", ".join(
            f"{control.description} ({control.options[control.index][0]})"
            for name, control in self.controls.items()
            if name not in self._hidden(**self._values())
        )
        told = f"{self.title}, to be moved where a kernel runs: {said}. It shows: {self._state.words}"
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": in_lines(told)}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _drawn(draw: Callable[..., tuple[Figure, str]], values: Mapping[str, object]) -> State:
    """What `draw` makes of some values; no figure stays open, else the next cell of the notebook would show it."""
    before = set(plt.get_fignums())
    try:
        figure, words = draw(**values)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DPI)
        return State(png.getvalue(), words)
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def buttons(description: str, options: Sequence[tuple[str, object]], index: int = 0) -> widgets.ToggleButtons:
    """Also for long texts: a drop-down list in JupyterLab did not answer to the arrow keys."""
    style = {"description_width": "6em", "button_width": "auto"}
    return widgets.ToggleButtons(options=options, index=index, description=description, style=style)


def slider(description: str, options: Sequence[tuple[str, object]], value: object = None) -> widgets.Widget:
    """A slider over named values; a single value, on which a slider cannot be drawn, is a button."""
    if len(options) == 1:
        return buttons(description, options)
    return widgets.SelectionSlider(
        options=options,
        value=options[0][1] if value is None else value,
        description=description,
        style={"description_width": "8em"},
        layout={"width": "32em", "max_width": "98%"},
    )


def counted(n: int) -> list[tuple[str, int]]:
    return [(str(i), i) for i in range(1, n + 1)]
