"""What an equation of a design is.

Rows are vectors, as in the code: a linear map is x W + b. N patches become K visual tokens; X (N, D_v) are the
encoder's features, Z (K, D) the visual tokens, D is the decoder's width, d a head's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """One step of a design: what it `says` in words (Markdown), the `math` (LaTeX), and the `code` of the package that
    computes it."""

    says: str
    math: str
    code: tuple[type | Callable, ...]
