"""Presets: points of the one equation, each described in `conf/op/<name>.yaml`."""

from ablate.ops.registry import CONVNEXT, NAT, RESNET, register_preset

CONTIGUOUS = "channels belong to heads in contiguous blocks, as in the code of every paper of the zoo but SAN"
LOST = "taps outside the map take part in the softmax with value 0: at borders part of the weight is lost"

register_preset(
    "lsa",
    paper="Swin, Liu et al.",
    year=2021,
    equation="y_i = Σ_j softmax_j( q_i·k_j/√d + r^b_{j−i} ) v_j   (j in the window of i)",
    quirks=(
        "pairs across the seam of a shift are left out; the authors add −100 to their logits, which in "
        "float32 is the same",
        "a map that windows do not tile is filled up with zeros that take part, as in timm and the authors' "
        "detectors",
    ),
)
register_preset(
    "lsa_neighborhood",
    paper="after NAT, Hassani et al.",
    year=2023,
    equation="y_i = Σ_j softmax_j( q_i·k_j/√d + r^b_{j−i} ) v_j   (j in the map, K×K around i)",
    quirks=("ours: NAT's attention without its border rule; op=na has that rule",),
)
register_preset(
    "na",
    paper="NAT, Hassani et al.",
    year=2023,
    host=NAT,
    equation="y_i = Σ_j softmax_j( q_i·k_j/√d + r^b_{j−i} ) v_j   (j in the K×K moved into the map)",
    quirks=(
        "at borders the neighborhood moves inside, within its residue class modulo the dilation, and the "
        "bias follows the true offset: its table has (2K−1)² entries; op.region.border=mask leaves taps out",
        "a map smaller than K · dilation is filled up with zeros at its right and bottom, and they take "
        "part, as in NATTEN up to 0.14",
    ),
)
register_preset(
    "dinat",
    paper="DiNAT, Hassani & Shi",
    year=2022,
    host=NAT,
    equation="y_i = Σ_j softmax_j( q_i·k_j/√d + r^b_{j−i} ) v_j   (j in the K×K, δ apart, moved inside)",
    quirks=(
        "blocks alternate in each stage: even ones have δ = 1, odd ones the largest that fits the map, "
        "δ = ⌊side / K⌋, which at 224×224 is the published 8, 4, 2, 1; a number for op.region.dilation is "
        "the δ of all blocks",
        "the bias follows the true offset in units of δ: its table has (2K−1)² entries at any δ",
        "at borders the neighborhood moves inside, within its residue class modulo δ; where K · δ is the "
        "side of the map it is the whole class",
    ),
)
register_preset(
    "dwconv",
    paper="DWNet, Han et al.",
    year=2022,
    host=CONVNEXT,
    equation="y_i[c] = Σ_Δ s_Δ[c] · x_{i+Δ}[c] + b[c]",
    quirks=("alone, without projections: op.channel.value=linear op.channel.output=linear add them",),
)
register_preset(
    "d_dwconv",
    paper="D-DWNet, Han et al.",
    year=2022,
    equation="y_i[c] = Σ_Δ F_Δ[c] · x_{i+Δ}[c] + b[c]\n"
    "F = W₂ relu(BN(W₁ mean_i(x_i)))   (a filter per channel and image)",
    quirks=(
        "alone; its authors put it between 1×1 convolutions with batch norm: timm model d_dwnet_tiny",
        "the authors' last commit computes a static convolution in its place; this is the form of the one "
        "before, which gives the published parameter counts",
    ),
)
register_preset(
    "i_d_dwconv",
    paper="I-D-DWNet, Han et al.",
    year=2022,
    equation="y_i[c] = Σ_Δ F_Δ[i, g(c)] · x_{i+Δ}[c]\n"
    "F[i] = W₂ relu(BN(W₁ x_i + b₁)) + b₂   (a filter per group and position)",
    quirks=(
        "32 filters at every stage, as released: the constructor's argument is channels per filter and is "
        "given numbers of heads; op.channel.heads=1x has the heads",
        "alone; its authors put it between 1×1 convolutions with batch norm: timm model i_d_dwnet_tiny",
    ),
)
register_preset(
    "dynamic_filter",
    paper="Jia et al.",
    year=2016,
    equation="y_i = Σ_Δ F_Δ[i, g] · v_{i+Δ}\nF[i] = W x_i + b   (a filter per head and position)",
    quirks=("ours: the paper's filter generator is a network of its own; here it is one linear layer",),
)
register_preset(
    "involution",
    paper="Li et al.",
    year=2021,
    host=RESNET,
    equation="y_i[c] = Σ_Δ F_Δ[i, g(c)] · x_{i+Δ}[c]\n"
    "F[i] = W₂ relu(BN(W₁ x_i)) + b₂   (one per 16 channels and position)",
    quirks=(
        "16 channels a filter at every width, as in the code; op.channel.heads=C/n for others",
        "with a stride, filters result from the mean over stride² positions, the sum is at the first of them",
    ),
)
register_preset(
    "qna",
    paper="QnA, Arar et al.",
    year=2022,
    equation="y_i = Σ_j Σ_q s_{j−i}[q] · softmax_j( q̂[q]·k_j/√d + r^b_{j−i}[q] ) v_j   (j in the map, 3×3)\n"
    "q̂ = q / ‖q‖   (n = 2 learned queries per head, the same for all positions and images)",
    quirks=(
        "the score of a key is the same for all positions that meet it: filters differ from static ones by "
        "the content of the neighbors only",
        "gains s are signed and start as normal(0, σ = 0.02), outside the softmax: at the start the output "
        "is 2 to 3 % of an attention's; op.weights.gains=per_query is the paper's, per_tap the code's",
        "the authors do not subtract a maximum before they exponentiate, which overflows in half precision "
        "where queries are not normalized; this softmax does",
        "filters with more than 4 entries per channel (7×7 with 8 channels per head) are computed again in "
        "the backward pass and not kept",
        "with a stride, each block of the map is averaged; the authors' sum is at every stride-th position",
    ),
)
register_preset(
    "ls_conv",
    paper="LSNet, Wang et al.",
    year=2025,
    equation="y_i[c] = BN( Σ_Δ F_Δ[i, g(c)] · x_{i+Δ}[c] ) + x_i[c]   (Δ in 3×3)\n"
    "F[i] = n(W₄ relu(BN(W₃ BN(depthwise_7×7(relu(BN(W₁ x))))))_i + b₄)   (one per 8 channels and position)\n"
    "n: group norm of each filter over its taps and all positions",
    quirks=(
        "a filter depends on the whole image and on its size, by the statistics of the group norm; in "
        "windows they are those of each window",
        "the authors share filters by interleaved channels, channel c has filter c mod C/8; here channels of "
        "a filter are contiguous, so that their weights fit after a permutation of channels, which "
        "`ablate.official` makes for a single operator",
        "the skip is part of the operator: a host with residual blocks adds its own; "
        "op.channel.output=identity is the sum alone",
        "with a stride, filters result from the mean over stride² positions, and so does the skip",
    ),
)
register_preset(
    "elsa",
    paper="ELSA, Zhou et al., code",
    year=2021,
    equation="y_i[c] = Σ_j ( (o_Δ[c])^λ · softmax_j(A_ij[g]) + γ · s_Δ[c] ) v_j[c]\n"
    ""
    "A_i = W₂ gelu(Conv_K×K grouped(scale · q⊙k))_i   (ghost head λ=0, γ=1)",
    quirks=(
        "the code sends q⊙k through a K×K convolution, GELU and a 1×1 convolution; the paper's equation has "
        "position terms instead: op=elsa_equation",
        LOST + "; op.region.border=mask leaves them out",
        "λ must be a whole number: o is drawn from a normal distribution, and o^λ of its negative half "
        "would be NaN",
        CONTIGUOUS + "; the paper's pseudo-code interleaves them",
        "scale is 1, as its blocks set it, and not 1/√d; op.weights.scale",
        "2·⌊C/3⌋ channels of q and k, rounded up to whole groups of op.weights.group_width: 4 in "
        "ELSA-Swin-T, 8 in -S and -B",
        "with a stride, q⊙k is averaged over stride² positions before the convolutions, as the code means "
        "to: its own stride does not run",
    ),
)
register_preset(
    "elsa_equation",
    paper="ELSA, Zhou et al., equation",
    year=2021,
    equation="y_i[c] = Σ_j ( (o_Δ[c])^λ · softmax_j(A_ij[g]) + γ · s_Δ[c] ) v_j[c]\n"
    ""
    "A_ij = u_i·r^k_Δ + r^q_Δ·u_j + r^b_Δ,  u = q⊙k   (ghost head λ=0, γ=1)",
    quirks=("the paper's form; its published weights and figures result from the other one, op=elsa", LOST),
)
