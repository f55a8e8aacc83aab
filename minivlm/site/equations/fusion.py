"""Equations of how visual tokens meet the decoder, other than by standing among its words."""

from minivlm.fusion.cross_attention import (
    FlamingoCrossAttention,
    GatedCrossAttention,
    GatedLayer,
    IdeficsCrossAttention,
)
from minivlm.fusion.experts import divided, run
from minivlm.fusion.multiway import Multiway
from minivlm.fusion.visual_expert import VisualExpert
from minivlm.language.depths import Depths, PredictingRouter, Router
from minivlm.language.grounding import box_to_cells
from minivlm.language.routed import highest, on_picked
from minivlm.site.equations.equation import Equation

_GATED = r"""\begin{split}
    x &\leftarrow x + \tanh(\alpha)\, \operatorname{Attn}(\operatorname{Norm}(x), Z) \\
    x &\leftarrow x + \tanh(\beta)\, \operatorname{MLP}(\operatorname{Norm}(x))
    \end{split}"""
_GATES = "The gates α and β start at 0: at first the decoder says what it said without pictures."
FLAMINGO_LAYERS = Equation(
    "**Fusion: gated cross attention.** Before the last of every few blocks of the decoder stands a layer in which "
    f"words look at the visual tokens Z, which are no part of the sequence. {_GATES} Norms are LayerNorms, the MLP "
    "has GELU.",
    _GATED,
    (GatedLayer, FlamingoCrossAttention),
)
IDEFICS_LAYERS = Equation(
    f"**Fusion: gated cross attention.** A layer before the first of every few blocks. {_GATES} It is made as the "
    "decoder's blocks are, of RMSNorm and a gated MLP, and each head's queries and keys are normed as well.",
    _GATED,
    (GatedLayer, IdeficsCrossAttention),
)
LATEST_PICTURE = Equation(
    "**Who sees what.** A word at place i looks at the K tokens of the latest picture m that has begun, and at no "
    "other; before the first picture it looks at nothing.",
    r"M_{i, (m, k)} = \begin{cases} 0 & m = \text{latest}(i) \\ -\infty & \text{else} \end{cases}",
    (GatedCrossAttention._mask,),
)
VISUAL_EXPERTS = Equation(
    "**Fusion: visual experts.** Patches V pass maps of their own (queries, keys, values, output, MLP), which start "
    "as copies of the words'. All meet in one causal attention, and share the norms. Patches of a picture are told "
    "one place.",
    r"""\begin{split}
    (q_i, k_i, v_i) &= \begin{cases} \tilde{x}_i W^{V} & i \in V \\ \tilde{x}_i W^{T} & \text{else} \end{cases},
    \qquad \tilde{x} = \operatorname{Norm}(x) \\
    x_i &\leftarrow x_i + \operatorname{head}(q, k, v)_i\, W_o^{V \text{ or } T} \\
    x_i &\leftarrow x_i + \operatorname{MLP}^{V \text{ or } T}(\operatorname{Norm}(x_i))
    \end{split}""",
    (VisualExpert, run, divided),
)
MULTIWAY = Equation(
    "**Fusion: multiway blocks.** Attention is one; all maps, all norms, and the final norm are the modality's own, "
    "A for places of a picture and B for words. Patches all see one another, words see what came before.",
    r"""\begin{split}
    m(i) &= \begin{cases} A & i \in V \\ B & \text{else} \end{cases} \\
    (q_i, k_i, v_i) &= \operatorname{LN}^{m(i)}(x_i)\, W^{m(i)} \\
    x_i &\leftarrow x_i + \operatorname{head}(q, k, v)_i\, W_o^{m(i)} \\
    x_i &\leftarrow x_i + \operatorname{MLP}^{m(i)}\left(\operatorname{LN}^{m(i)}(x_i)\right)
    \end{split}""",
    (Multiway, run, divided),
)
DEPTHS = Equation(
    "**Depths.** In every second block a router scores each of L places. The block f works on the share c with the "
    "highest scores, P, among themselves; all others pass by unchanged. The score multiplies what f adds, and so "
    "learns.",
    r"""\begin{split}
    r_i &= x_i \cdot w \\
    P &= \text{the } \lceil c L \rceil \text{ places of the highest } r_i \\
    x_i &\leftarrow \begin{cases} x_i + r_i\, f(x_P)_i & i \in P \\ x_i & \text{else} \end{cases}
    \end{split}""",
    (Router.forward, highest, on_picked, Depths._routed),
)
GUESS = Equation(
    "**Without looking ahead.** Whether a score is among the highest depends on later places. So a small MLP learns "
    "to guess it of each place alone, moving nothing else; while answering, a place is picked if its guess is above "
    "0.",
    r"""\begin{split}
    g_i &= \operatorname{MLP}(x_i), \qquad p_i = \begin{cases} 1 & i \in P \\ 0 & \text{else} \end{cases} \\
    \mathcal{L}_{\text{aside}} &= -\frac{1}{L} \sum_i \left( p_i \log \sigma(g_i)
    + (1 - p_i) \log (1 - \sigma(g_i)) \right)
    \end{split}""",
    (PredictingRouter.guess, Router.surprise),
)
CELLS = Equation(
    "**Boxes as words.** A picture is a grid of S x S cells, S = 32, each with a word of its own. A box from (l, t) "
    "to (r, b), as shares of the sides, is the two cells of its upper left and lower right corners.",
    r"""\begin{split}
    \text{first} &= \lfloor t S \rfloor\, S + \lfloor l S \rfloor \\
    \text{last} &= (\lceil b S \rceil - 1)\, S + \lceil r S \rceil - 1
    \end{split}""",
    (box_to_cells,),
)
