"""Equations of the designs that compare pictures with texts and with sounds."""

from minivlm.contrastive.clip import CLIP, softmax_loss
from minivlm.contrastive.graphs import FineAndCoarse, MLPHead
from minivlm.contrastive.mmv import BagOfWords, nce_loss
from minivlm.contrastive.siglip import SigLIP, _surprise, sigmoid_loss
from minivlm.site.equations.equation import Equation
from minivlm.vision.vit import MAPHead

CLIP_SPACE = Equation(
    "**One space.** A picture's class token f(x), and a text's vector g(t) at its end, pass a linear map each and "
    "are brought to length 1.",
    r"u_i = \frac{f(x_i)\, W_I}{\lVert f(x_i)\, W_I \rVert}, \qquad "
    r"v_j = \frac{g(t_j)\, W_T}{\lVert g(t_j)\, W_T \rVert}",
    (CLIP.encode_image, CLIP.encode_text),
)
CLIP_LOSS = Equation(
    "**Softmax loss.** Among the texts of a batch of B, each picture is to find its own, and each text its picture. "
    "The scale s is learned, from 1 / 0.07 on.",
    r"""\begin{split}
    \ell_{ij} &= s\; u_i \cdot v_j \\
    \mathcal{L} &= -\frac{1}{2B} \sum_{i=1}^{B} \left( \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}}
    + \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}} \right)
    \end{split}""",
    (softmax_loss,),
)
SIGLIP_SPACE = Equation(
    "**One space.** A learned query q looks at all patches; what it found is the picture's vector. A text is read "
    "off at its last place. Both are brought to length 1.",
    r"""\begin{split}
    a_i &= \operatorname{Attn}(q, X_i), \qquad f(x_i) = a_i + \operatorname{MLP}(\operatorname{LN}(a_i)) \\
    u_i &= \frac{f(x_i)}{\lVert f(x_i) \rVert}, \qquad v_j = \frac{g(t_j)\, W_T + b_T}{\lVert g(t_j)\, W_T + b_T \rVert}
    \end{split}""",
    (MAPHead, SigLIP.encode_image, SigLIP.encode_text),
)
SIGLIP_LOSS = Equation(
    "**Sigmoid loss.** Each pair of a picture and a text is a question of its own: do they belong together? m is 1 "
    "for a pair that does and -1 for all others; scale s and bias b are learned, from 10 and -10 on.",
    r"""\begin{split}
    \ell_{ij} &= s\; u_i \cdot v_j + b \\
    \mathcal{L} &= -\frac{1}{B} \sum_{i=1}^{B} \sum_{j=1}^{B} \log \sigma\left(m_{ij}\, \ell_{ij}\right)
    \end{split}""",
    (sigmoid_loss, _surprise),
)
MMV_GRAPH = Equation(
    "**Two spaces.** Pictures and sounds (F, S) meet in the fine space. From there one map leads on to the coarse "
    "space, where texts are (T, the strongest word in each channel). All five vectors are then brought to length 1.",
    r"""\begin{split}
    u^f &= \operatorname{BN}\left(\operatorname{ReLU}\left(\operatorname{BN}(F W_1 + b_1)\right) W_2\right) \\
    a^f &= S\, W_a + b_a \\
    u^c &= \operatorname{BN}\left(\operatorname{ReLU}(u^f)\, W_c + b_c\right) \\
    a^c &= \operatorname{BN}\left(\operatorname{ReLU}(a^f)\, W_c + b_c\right) \\
    t^c &= T\, W_t + b_t \\
    T &= \max_{l} \operatorname{ReLU}(w_l W_w + b_w)
    \end{split}""",
    (MLPHead, FineAndCoarse, BagOfWords.forward),
)
MMV_LOSS = Equation(
    "**The loss** of a space: of all pairs with picture i or with one of its K candidates v, its own are to be the "
    "likely ones. Pictures with sounds (K = 1) and pictures with texts are added; sounds and texts never meet. τ is "
    "0.07.",
    r"""\begin{split}
    P_i &= \sum_k e^{u_i \cdot v_{ik} / \tau} \\
    R_i &= \sum_{j \ne i} \sum_k \left( e^{u_i \cdot v_{jk} / \tau} + e^{u_j \cdot v_{ik} / \tau} \right) \\
    \mathcal{L} &= -\frac{1}{B} \sum_{i=1}^{B} \log \frac{P_i}{P_i + R_i}
    \end{split}""",
    (nce_loss,),
)
