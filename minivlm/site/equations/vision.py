"""Equations of how pictures become features, where that is what a design is about."""

from minivlm.site.equations.equation import Equation
from minivlm.vision.hybrid import Hybrid
from minivlm.vision.patches import Patches
from minivlm.vision.sam import Neck
from minivlm.vision.tiles import Tiles, TilesConfig
from minivlm.vision.variable import VariableViT, bins

TILES = Equation(
    "**Tiles.** Of a few canvases H x W, made of whole tiles, the one is taken on which most pixels of a picture of "
    "h x w survive; of equals, the one with the least empty room. The encoder reads the whole, squashed to a tile, "
    "and each tile of the canvas.",
    r"""\begin{split}
    s(H, W) &= \min\left(\frac{H}{h}, \frac{W}{w}\right) \\
    k(H, W) &= \min\left(\lfloor h s \rfloor \lfloor w s \rfloor,\; h w\right) \\
    (H, W)^{*} &= \underset{H, W}{\operatorname{argmax}} \left( k,\; k - H W \right) \\
    X &= [\, X_{\text{whole}};\; X_{\text{canvas}} \,]
    \end{split}""",
    (TilesConfig.best_canvas, Tiles.cut),
)
RAW_PATCHES = Equation(
    "**No encoder.** A picture of h x w pixels is filled up to whole patches, p pixels a side; the features of a "
    "patch are its pixels, 3 colours each, brought to [-1, 1].",
    r"""\begin{split}
    N &= \left\lceil \frac{h}{p} \right\rceil \left\lceil \frac{w}{p} \right\rceil \\
    x_n &= \operatorname{flatten}\left(\frac{\text{patch}_n - 0.5}{0.5}\right) \in [-1, 1]^{3 p^2}
    \end{split}""",
    (Patches.cut,),
)
ANY_SIZE = Equation(
    "**Pictures of any size.** A picture keeps its own grid of r x c patches. Places are learned for G x G parts of "
    "a picture, and the patch in row i and column j is told the part that it begins in.",
    r"x_{ij} = \text{patch}_{ij} W + b + p_{g}, \qquad g = \left\lfloor \frac{i\, G}{r} \right\rfloor G + "
    r"\left\lfloor \frac{j\, G}{c} \right\rfloor",
    (VariableViT.features, bins),
)
TWO_ENCODERS = Equation(
    "**Two encoders.** SAM sees the picture large. Its last state A, and α times that after its first block of "
    "global attention B, each through a neck, are resized and halved twice by convolutions to SigLIP's grid. Then "
    "each place has the features of both.",
    r"""\begin{split}
    X_s &= \operatorname{Conv}_2\left(\operatorname{Conv}_1\left(\operatorname{resize}\left(
    \operatorname{neck}_1(A) + \alpha \operatorname{neck}_2(B)\right)\right)\right) \\
    X &= [\, X_s,\; X_l \,] \\
    X_l &= \operatorname{SigLIP}(\text{the picture, small})
    \end{split}""",
    (Hybrid.features, Hybrid.high_features, Neck),
)
