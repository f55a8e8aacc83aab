"""What designs share: attention, MLPs, and how visual tokens stand among words."""

from minivlm.attention import Attention, attend
from minivlm.fusion.interleave import merge
from minivlm.layers import MLP, Block, GatedMLP
from minivlm.site.equations.equation import Equation

ATTENTION = Equation(
    "**Attention.** Queries of *x* meet keys and values of a context *c* (in self-attention the same), in each of H "
    "heads, d wide. The mask M is 0 where a query may look and minus infinity where it may not. The equations of "
    "the designs call this Attn(x, c).",
    r"""\begin{split}
    Q &= x W_q, \quad K = c\, W_k, \quad V = c\, W_v \\
    \operatorname{head}(Q, K, V) &= \operatorname{softmax}\left(\frac{Q K^\top}{\sqrt{d}} + M\right) V \\
    \operatorname{Attn}(x, c) &= [\operatorname{head}_1, \dots, \operatorname{head}_H]\, W_o
    \end{split}""",
    (attend, Attention.forward, Attention.mix),
)
FEED_FORWARD = Equation(
    "**MLPs.** Two linear maps with an activation φ between them (GELU, SiLU or ReLU), or the gated one that the "
    "Llamas have, SwiGLU.",
    r"""\begin{split}
    \operatorname{MLP}(x) &= \varphi(x W_1 + b_1)\, W_2 + b_2 \\
    \operatorname{GatedMLP}(x) &= \left(\operatorname{SiLU}(x W_g) \odot x W_u\right) W_d
    \end{split}""",
    (MLP, GatedMLP),
)
BLOCK = Equation(
    "**The block** of encoders and decoders: the norm comes first, what is computed is added.",
    r"""\begin{split}
    x &\leftarrow x + \operatorname{Attn}(\operatorname{Norm}(x), \operatorname{Norm}(x)) \\
    x &\leftarrow x + \operatorname{MLP}(\operatorname{Norm}(x))
    \end{split}""",
    (Block,),
)
INTERLEAVED = Equation(
    "**Fusion: interleaved.** In the sequence the visual tokens take the place of `<image>`, and the decoder reads "
    "on. Of the places T + K - 1, the loss is taken on the answers' alone.",
    r"x = [\, e_1, \dots, e_s,\; z_1, \dots, z_K,\; e_{s+2}, \dots, e_T \,]",
    (merge,),
)
SHARED = (ATTENTION, FEED_FORWARD, BLOCK, INTERLEAVED)
