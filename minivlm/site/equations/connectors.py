"""Equations of how features become visual tokens."""

from minivlm.connectors.bert import Added, QueryBlock, ReadingBlock
from minivlm.connectors.c_abstractor import Bottleneck, CAbstractor
from minivlm.connectors.context_content import ContextContent
from minivlm.connectors.cross_resampler import FreeQueries, PlacedQueries, sine_positions
from minivlm.connectors.d_abstractor import DAbstractor, DeformableAttention, DeformableLayer
from minivlm.connectors.glu_projection import GLUAdapter
from minivlm.connectors.hybrid_aligner import HybridAligner
from minivlm.connectors.perceiver import FlamingoResampler, Idefics2Resampler, IdeficsResampler, Layer, Perceiver
from minivlm.connectors.pooling import AveragePool, Shuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection, Unprojected
from minivlm.connectors.qformer import InstructQFormer, QFormer
from minivlm.connectors.separators import _lined
from minivlm.site.equations.equation import Equation

LINEAR = Equation(
    "**Connector: one linear map.** Every patch becomes a token: K = N.",
    r"Z = X W + b",
    (LinearProjection,),
)
MLP = Equation(
    "**Connector: an MLP.** Every patch becomes a token, by two maps: K = N.",
    r"Z = \operatorname{GELU}(X W_1 + b_1)\, W_2 + b_2",
    (MLPProjection,),
)
WIDE_MLP = Equation(
    "**Connector: an MLP**, 8,192 wide inside, with the GELU that is approximated by tanh: K = N.",
    r"""\begin{split}
    Z &= \varphi(X W_1 + b_1)\, W_2 + b_2, \qquad W_1 \in \mathbb{R}^{D_v \times 8192} \\
    \varphi(x) &= \frac{x}{2} \left(1 + \tanh\left(\sqrt{\frac{2}{\pi}} \left(x + 0.044715\, x^3\right)\right)\right)
    \end{split}""",
    (MLPProjection,),
)
NORMED_MLP = Equation(
    "**Connector: an MLP with norms**, a LayerNorm after each of its maps: K = N.",
    r"Z = \operatorname{LN}\left(\operatorname{GELU}\left(\operatorname{LN}(X W_1 + b_1)\right) W_2 + b_2\right)",
    (NormedMLPProjection,),
)
NONE = Equation(
    "**No connector.** The patches of the tower's first layer, and its class token, are the visual tokens: K = N + "
    "1. (In the controlled setting, where all share one encoder, it is a linear map of the patches.)",
    r"Z = X",
    (Unprojected,),
)
NEWLINES = Equation(
    "**Newlines.** Each of r rows of c tokens is ended by a vector e, so that the sequence says where rows end. "
    "Such a grid takes r (c + 1) places.",
    r"[\, z_{1,1}, \dots, z_{1,c},\, e,\;\; \dots,\;\; z_{r,1}, \dots, z_{r,c},\, e \,]",
    (_lined,),
)
ALIGNER = Equation(
    "**Connector: a projection for each encoder**, each to half the decoder's width, and one map that reads both: K "
    "= N.",
    r"Z = \operatorname{GELU}\left([\, X_s W_s + b_s,\; X_l W_l + b_l \,]\right) W + b",
    (HybridAligner,),
)
POOL = Equation(
    "**Connector: average pooling.** The grid is cut into K cells; a token is the mean of its cell C, after an MLP.",
    r"""\begin{split}
    \bar{x}_k &= \frac{1}{|C_k|} \sum_{n \in C_k} x_n \\
    z_k &= \operatorname{GELU}(\bar{x}_k W_1 + b_1)\, W_2 + b_2
    \end{split}""",
    (AveragePool,),
)
SHUFFLE = Equation(
    "**Connector: pixel shuffle.** Squares of f x f patches are laid side by side in the channels: K = N / f². "
    "Nothing is thrown away before the map.",
    r"z_k = [\, x_n : n \in C_k \,]\, W, \qquad W \in \mathbb{R}^{f^2 D_v \times D}",
    (Shuffle,),
)
Q_FORMER = Equation(
    "**Connector: a Q-Former.** K learned queries pass the blocks of a BERT; in every second one they look at the "
    "picture (second line). Norms come after the sums.",
    r"""\begin{split}
    Q &\leftarrow \operatorname{LN}\left(Q + \operatorname{Attn}(Q, Q)\right) \\
    Q &\leftarrow \operatorname{LN}\left(Q + \operatorname{Attn}(Q, X)\right) \\
    Q &\leftarrow \operatorname{LN}\left(Q + \operatorname{MLP}(Q)\right) \\
    Z &= Q W + b
    \end{split}""",
    (Added, QueryBlock, QFormer),
)
INSTRUCT_Q_FORMER = Equation(
    "**Connector: a Q-Former that reads the question.** Words T of the question stand beside the queries, and all "
    "attend to all; only queries look at the picture, and only they are handed on.",
    r"""\begin{split}
    \left[Q; T\right] &\leftarrow \operatorname{LN}\left([Q; T] + \operatorname{Attn}([Q; T], [Q; T])\right) \\
    Q &\leftarrow \operatorname{LN}\left(Q + \operatorname{Attn}(Q, X)\right) \\
    Q &\leftarrow \operatorname{LN}\left(Q + \operatorname{MLP}(Q)\right) \\
    T &\leftarrow \operatorname{LN}\left(T + \operatorname{MLP}_T(T)\right) \\
    Z &= Q W + b
    \end{split}""",
    (QueryBlock.look, ReadingBlock, InstructQFormer),
)
_LATENTS = r"""\begin{split}
    \Lambda &\leftarrow \Lambda + \operatorname{Attn}\left(\operatorname{NORM}(\Lambda),
    [\operatorname{NORM}(FEATURES); \operatorname{NORM}(\Lambda)]\right) \\
    \Lambda &\leftarrow \Lambda + \operatorname{MLP}(\operatorname{NORM}(\Lambda)) \\
    Z &= \operatorname{NORM}(\Lambda)OUT
    \end{split}"""


def _latents(norm: str, features: str, out: str) -> str:
    return _LATENTS.replace("NORM", norm).replace("FEATURES", features).replace("OUT", out)


PERCEIVER = Equation(
    "**Connector: a Perceiver.** K learned latents Λ read the patches, and one another, in layer after layer, and "
    "refine what they hold. (W only where they stand among words of another width.)",
    _latents("LN", "X", r"\, W + b"),
    (Layer, Perceiver.forward, FlamingoResampler),
)
HEAD_NORM_PERCEIVER = Equation(
    "**Connector: a Perceiver** whose attention norms each head's queries and keys before they meet, and whose MLP "
    "has ReLU.",
    _latents("LN", "X", ""),
    (Layer, Perceiver.forward, IdeficsResampler),
)
GATED_PERCEIVER = Equation(
    "**Connector: a Perceiver in the decoder's width.** A gated MLP brings the features there first; the latents, K "
    "= 64, have RMSNorm, gated MLPs, and heads that share keys.",
    _latents("RMS", r"X'", r", \qquad X' = \operatorname{GatedMLP}(X)"),
    (Layer, Perceiver.forward, Idefics2Resampler),
)
PLACED_QUERIES = Equation(
    "**Connector: one cross attention.** K learned queries Q look once. Places P are added to what decides where to "
    "look, queries and keys, and not to what is seen, the values.",
    r"""\begin{split}
    \tilde{X} &= \operatorname{LN}(X W_e) \\
    Z &= \operatorname{LN}\left(\operatorname{Attn}\left(\operatorname{LN}(Q) + P_Q,\;
    \text{keys } \tilde{X} + P_X,\; \text{values } \tilde{X}\right)\right) W_o
    \end{split}""",
    (PlacedQueries,),
)
SINES = Equation(
    "**Places.** The column in the first half of the channels, the row in the second, each by sines and cosines; "
    "for the patches they are stretched over their grid.",
    r"""\begin{split}
    P_{(i, j)} &= [\, \sin j\omega,\; \cos j\omega,\; \sin i\omega,\; \cos i\omega \,] \\
    \omega_t &= 10000^{-t / (D / 4)}, \quad t = 0, \dots, \frac{D}{4} - 1
    \end{split}""",
    (sine_positions,),
)
FREE_QUERIES = Equation(
    "**Connector: one cross attention.** Patches are brought to length 1; K learned queries look at them and at one "
    "another, once, without places, residual or norm.",
    r"""\begin{split}
    \tilde{x}_n &= \frac{x_n}{\lVert x_n \rVert} W + b \\
    Z &= \operatorname{Attn}(Q, [\tilde{X}; Q])
    \end{split}""",
    (FreeQueries,),
)
C_ABSTRACTOR = Equation(
    "**Connector: a C-Abstractor.** Convolutions before and after the grid is pooled to K cells; P are learned "
    "places, the MLP has SiLU.",
    r"Z = \operatorname{MLP}\left(\operatorname{Conv}_2\left(\operatorname{pool}_{\sqrt{K} \times \sqrt{K}}"
    r"\left(\operatorname{Conv}_1(X + P)\right)\right)\right)",
    (CAbstractor,),
)
BOTTLENECK = Equation(
    "**A block of Conv:** mix the channels (1x1), look at the 3x3 neighbours channel by channel, weigh each channel "
    "by a gate read off the mean of all places, mix again. N is a LayerNorm over the channels.",
    r"""\begin{split}
    y &= \operatorname{SiLU}\left(N\left(\operatorname{look}_{3 \times 3}\left(
    \operatorname{SiLU}\left(N(x W_1)\right)\right)\right)\right) \\
    y &\leftarrow y \odot \sigma\left(\operatorname{MLP}(\bar{y})\right) \\
    x &\leftarrow \operatorname{SiLU}\left(N(y W_2) + x\right)
    \end{split}""",
    (Bottleneck,),
)
D_ABSTRACTOR = Equation(
    "**Connector: a D-Abstractor.** K queries x pass layers of self-attention, of looks at a few points, and of an "
    "MLP. They start as learned vectors; p, the mean of the features around each, is added wherever they look from.",
    r"""\begin{split}
    x &\leftarrow \operatorname{LN}\left(x + \operatorname{Attn}(x + p,\; \text{keys } x + p,\;
    \text{values } x)\right) \\
    x &\leftarrow \operatorname{LN}\left(x + \operatorname{Deform}(x + p, X)\right) \\
    x &\leftarrow \operatorname{LN}\left(x + \operatorname{MLP}(x)\right)
    \end{split}""",
    (DAbstractor.forward, DeformableLayer.forward),
)
DEFORMABLE = Equation(
    "**Looks at points.** Around its learned place r, a query reads the values at a few points in each head h, "
    "between patches too. Offsets Δ (in patches; G are the grid's sides) and weights A come from the query alone.",
    r"""\begin{split}
    \left[\Delta_{kh1}, \dots\right] &= q_k W_\Delta + b_\Delta \\
    A_{kh} &= \operatorname{softmax}\left((q_k W_A + b_A)_h\right) \\
    \operatorname{Deform}(q, X)_k &= \left[ \sum_{p} A_{khp}\; V_h\left(r_k + \frac{\Delta_{khp}}{G}\right)
    \right]_{h} W_o + b_o \\
    V &= X W_v + b_v
    \end{split}""",
    (DeformableAttention.forward, DeformableAttention._look),
)
CONTEXT = Equation(
    "**The context token.** Queries A of a Q-Former, which have read the question, attend to the patches as they "
    "are; the mean of what they found is one token.",
    r"""\begin{split}
    E &= \operatorname{softmax}\left(\frac{(A W_q + b_q)(X W_k + b_k)^\top}{\sqrt{D_v}}\right) X \\
    z_1 &= \left(\frac{1}{|A|} \sum_a E_a\right) W + b
    \end{split}""",
    (ContextContent.forward, ContextContent._attend),
)
CONTENT = Equation(
    "**The content tokens** are means over the cells C of a coarse grid of n x n, after an MLP: K = 1 + n², and n = "
    "1 for a picture of a video.",
    r"z_{1+k} = \operatorname{MLP}\left(\frac{1}{|C_k|} \sum_{n \in C_k} x_n\right)",
    (ContextContent._pool,),
)
GLU = Equation(
    "**Connector: a gated MLP between two tags.** Every patch passes a linear map, a norm and a gated MLP; two "
    "learned vectors say where a picture begins and ends: K = N + 2.",
    r"""\begin{split}
    H &= \operatorname{GELU}\left(\operatorname{LN}(X W)\right) \\
    Z &= [\, z_{\text{begin}};\; \operatorname{GatedMLP}(H);\; z_{\text{end}} \,]
    \end{split}""",
    (GLUAdapter,),
)
