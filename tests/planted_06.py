"""Classic mistakes in the exercises of lesson 06, each with the message that it must get."""

from __future__ import annotations

_LAYER = """
def gated_layer(x, pictures, attention_norm, attention, attention_gate, mlp_norm, mlp, mlp_gate):
    open_look, open_mlp = {gates}
    x = {look}
    return {mlp}
"""
_SEES = """
def who_sees(is_image, pictures):
    begun = is_image.cumsum(dim=1)[..., None]
    number = torch.arange(pictures, device=is_image.device)
    return {}
"""
_SHARE = """
def picture_share(cross, own, sees):
    a, b = cross.norm(dim=-1), own.norm(dim=-1)
    return {}
"""


def _layer(
    gates: str = "attention_gate.tanh(), mlp_gate.tanh()",
    look: str = "x + open_look * attention(attention_norm(x), pictures)",
    mlp: str = "x + open_mlp * mlp(mlp_norm(x))",
) -> str:
    return _LAYER.format(gates=gates, look=look, mlp=mlp)


MISTAKES = {
    "06.layer": [
        (_layer(gates="attention_gate, mlp_gate"), "There is no tanh"),
        (_layer(gates="attention_gate.sigmoid(), mlp_gate.sigmoid()"), "A sigmoid is half open"),
        (
            _layer(
                look="open_look * (x + attention(attention_norm(x), pictures))", mlp="open_mlp * (x + mlp(mlp_norm(x)))"
            ),
            "The gate is on x too",
        ),
        (_layer(mlp="x + mlp(mlp_norm(x))"), "The MLP has no gate"),
        (
            _layer(
                look="attention_norm(x + open_look * attention(x, pictures))", mlp="mlp_norm(x + open_mlp * mlp(x))"
            ),
            r"post-norm",
        ),
        (_layer(mlp="x"), "The MLP is missing"),
        (_layer(mlp="x + open_look * mlp(mlp_norm(x))"), "One gate for both"),
        (_layer(look="x + open_look * attention(attention_norm(x), attention_norm(pictures))"), "The pictures pass"),
        (_layer(look="x + open_look * attention(pictures, attention_norm(x))"), "Roles exchanged"),
    ],
    "06.sees": [
        (_SEES.format("begun > number"), "All preceding pictures"),
        (_SEES.format("begun - is_image[..., None].long() - 1 == number"), "Off by one: the `<image>` word"),
        (_SEES.format("begun == number"), "Off by one picture"),
        (_SEES.format("(begun > 0) & (number == 0)"), "Every word sees the first picture: it"),
        (_SEES.format("(begun - 1).clamp(min=0) == number"), "before the first picture sees picture 0"),
        (_SEES.format("(begun - 1 == number) | (begun == 0)"), "before the first picture sees all"),
        (_SEES.format("(begun - 1 == number).long()"), "These are numbers"),
    ],
    "06.share": [
        (_SHARE.format("(a / (a + b)).mean()"), "see no picture are counted"),
        (_SHARE.format("(a / b)[sees].mean()"), "ratio of the look"),
        (_SHARE.format("a[sees].mean() / (a + b)[sees].mean()"), "divides the mean lengths"),
        (_SHARE.format("(a**2 / (a**2 + b**2))[sees].mean()"), "lengths are squared"),
        (_SHARE.format("(a / (a + b))[sees]"), "return the mean, one number"),
    ],
}
