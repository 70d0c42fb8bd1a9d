"""Tensors of outlook attention, CSA, RASA, slide attention, SAN, CloFormer, RMT and TransNeXt."""

from __future__ import annotations

from torch import Tensor, nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.aggregated import AggregatedAttention
from ablate.ops.zoo.attn_conv import CloFormerAttention
from ablate.ops.zoo.manhattan import ManhattanAttention
from ablate.ops.zoo.outlook import ConvolutionalSelfAttention, OutlookAttention
from ablate.ops.zoo.rasa import RecursiveAtrousSelfAttention
from ablate.ops.zoo.san import PairwiseSelfAttention, PatchwiseSelfAttention
from ablate.ops.zoo.slide import SlideAttention

_outlook = by_table(
    {
        r"attn\.(weight|bias)": r"weights.expand.\1",
        r"v\.(weight|bias)": r"value.\1",
        r"proj\.(weight|bias)": r"output.\1",
    }
)


def _csa(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`weight` is one convolution with a group for each tap: (K²·C, C, 1, 1)."""
    if name == "weight.weight":
        return {"taps": tensor.reshape(-1, tensor.shape[1], tensor.shape[1])}
    return _outlook(operator, name, tensor)


_slide_renamed = by_table(
    {
        r"qkv\.(weight|bias)": r"query_key_value.\1",
        r"proj\.(weight|bias)": r"output.\1",
        r"dep_conv\.(weight|bias)": r"shift.\1",
        r"dep_conv1\.(weight|bias)": r"deform.\1",
    }
)


def _slide(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """The bias table comes with dimensions to broadcast: (1, heads, 1, K², 1, 1)."""
    if name == "relative_position_bias_table":
        return {"bias_table": tensor.reshape(tensor.shape[1], tensor.shape[3])}
    return _slide_renamed(operator, name, tensor)


_rasa = by_table(
    {
        r"q\.weight": "query.weight",
        r"kv\.weight": "key_value.weight",
        r"proj\.(weight|bias)": r"output.\1",
        r"sr\.(weight|bias)": r"reduce.\1",
        r"norm\.(weight|bias)": r"norm.\1",
        r"ds\.weight": "atrous",
    }
)

_san = by_table(
    {
        r"conv1\.(weight|bias)": r"centre.\1",
        r"conv2\.(weight|bias)": r"neighbor.\1",
        r"conv3\.(weight|bias)": r"value.\1",
        r"conv_p\.(weight|bias)": r"position.\1",
        r"conv_w\.(\d)\.(\w+)": r"weights.\1.\2",
    }
)

_aggregated_renamed = by_table(
    {
        r"q\.(weight|bias)": r"query.\1",
        r"kv\.(weight|bias)": r"key_value.\1",
        r"proj\.(weight|bias)": r"output.\1",
        r"sr\.(weight|bias)": r"pool.\1",
        r"norm\.(weight|bias)": r"norm.\1",
        r"cpb_fc1\.(weight|bias)": r"distance.0.\1",
        r"cpb_fc2\.(weight|bias)": r"distance.2.\1",
        r"relative_pos_bias_local": "relative_position_bias_table",
        r"learnable_tokens": "tokens",
    }
)


def _aggregated(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """TransNeXt's module; what a map has to do with it is computed here, and not stored."""
    assert isinstance(operator, AggregatedAttention)
    if name in ("temperature", "query_embedding", "learnable_bias"):
        ours = {"learnable_bias": "token_bias"}.get(name, name)
        return {ours: tensor.reshape(operator.get_parameter(ours).shape)}
    return _aggregated_renamed(operator, name, tensor)


_cloformer = by_table(
    {
        r"qkvs\.0\.(weight|bias)": r"convolution.query_key_value.\1",
        r"convs\.0\.(weight|bias)": r"convolution.look.\1",
        r"act_blocks\.0\.act_block\.0\.(weight|bias)": r"convolution.gate.mix.\1",
        r"act_blocks\.0\.act_block\.2\.(weight|bias)": r"convolution.gate.expand.\1",
        r"global_q\.(weight|bias)": r"attention.query.\1",
        r"global_kv\.(weight|bias)": r"attention.key_value.\1",
        r"proj\.(weight|bias)": r"output.\1",
    }
)

_manhattan = by_table(
    {
        r"q_proj\.(weight|bias)": r"query.\1",
        r"k_proj\.(weight|bias)": r"key.\1",
        r"v_proj\.(weight|bias)": r"value.\1",
        r"out_proj\.(weight|bias)": r"output.\1",
        r"lepe\.conv\.(weight|bias)": r"enhance.\1",
    }
)

PLACES: dict[type[nn.Module], Place] = {
    OutlookAttention: _outlook,
    ConvolutionalSelfAttention: _csa,
    SlideAttention: _slide,
    RecursiveAtrousSelfAttention: _rasa,
    PairwiseSelfAttention: _san,
    PatchwiseSelfAttention: _san,
    AggregatedAttention: _aggregated,
    CloFormerAttention: _cloformer,
    ManhattanAttention: _manhattan,
}
