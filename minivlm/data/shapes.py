"""Shapes, each as the signed distance to its outline: negative within, in units of the shape's radius, y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() + y.abs() - 1.0) * 0.7071


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(0.884 * x.abs() - 0.468 * (y + 0.95), y - 0.75)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.95, y - 0.32), torch.maximum(x - 0.32, y - 0.95))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.24


def _star(x: Tensor, y: Tensor) -> Tensor:
    tip, fifth = 1.0, 2 * torch.pi / 5
    notch = (0.42 * math.cos(fifth / 2), 0.42 * math.sin(fifth / 2))  # between two tips
    angle = torch.remainder(torch.atan2(x, -y) + fifth / 2, fifth) - fifth / 2
    radius = torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin().abs()
    normal = (notch[1], tip - notch[0])
    return ((along - tip) * normal[0] + across * normal[1]) / math.hypot(*normal)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y - 0.1
    return torch.minimum((x + y.abs() - 0.78) * 0.7071, torch.hypot(x - 0.39, y + 0.39) - 0.5515)


SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "diamond": _diamond,
    "star": _star, "cross": _cross, "ring": _ring, "heart": _heart,
}  # fmt: skip
