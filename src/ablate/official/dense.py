"""Detectors and segmenters on Swin, ELSA-Swin or NAT under the names of mmdetection 2.x, mmsegmentation 0.x.

Backbones have the names of Swin's and ELSA's own repositories (`backbone.layers.0.blocks.0.attn.qkv`), of
NAT's (`backbone.levels.0.blocks.0.attn.qkv`), or of mmdetection's later Swin
(`backbone.stages.0.blocks.0.attn.w_msa.qkv`), which merges four neighbors channel by channel. Only the names
of heads differ: background is the last class, boxes have four offsets for each class, and maps are flattened
channel by channel, there as here. Weights of mmdetection 1.x, whose background is the first class, may have
the same names and shapes, and are not recognised.

No published file has been converted yet: names and layouts are those of the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ablate import official

HOST, NORMS = "features.model.", "features.norms."
BACKBONE = "backbone."
HEADS = ("neck.", "rpn_head.", "roi_head.", "decode_head.", "auxiliary_head.")
LATER = (  # names of mmdetection's own Swin → those of Swin's repository
    (r"^stages\.", "layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
)
RENAMED = (
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"heads.pyramid.fusion.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", r"heads.pyramid.fusion.layer_blocks.\1.0.\2"),
    (r"rpn_head\.rpn_conv\.(\w+)", r"heads.proposals.head.conv.0.0.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", r"heads.proposals.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", r"heads.proposals.head.bbox_pred.\1"),
    (r"roi_head\.bbox_head\.(\d+)\.shared_convs\.(\d+)\.conv\.(\w+)", r"heads.box_heads.\1.layers.\2.0.\3"),
    (r"roi_head\.bbox_head\.(\d+)\.shared_convs\.(\d+)\.bn\.(\w+)", r"heads.box_heads.\1.layers.\2.1.\3"),
    (r"roi_head\.bbox_head\.(\d+)\.fc_cls\.(\w+)", r"heads.box_heads.\1.classifier.\2"),
    (r"roi_head\.bbox_head\.(\d+)\.fc_reg\.(\w+)", r"heads.box_heads.\1.regressor.\2"),
    (r"roi_head\.mask_head\.(\d+)\.convs\.(\d+)\.conv\.(\w+)", r"heads.mask_heads.\1.layers.\2.0.\3"),
    (r"roi_head\.mask_head\.(\d+)\.upsample\.(\w+)", r"heads.mask_heads.\1.predictor.conv5_mask.\2"),
    (r"roi_head\.mask_head\.(\d+)\.conv_logits\.(\w+)", r"heads.mask_heads.\1.predictor.mask_fcn_logits.\2"),
    (r"decode_head\.psp_modules\.(\d+)\.1\.conv\.(\w+)", r"head.pooling.\1.0.\2"),
    (r"decode_head\.psp_modules\.(\d+)\.1\.bn\.(\w+)", r"head.pooling.\1.1.\2"),
    (r"decode_head\.bottleneck\.conv\.(\w+)", r"head.bottleneck.0.\1"),
    (r"decode_head\.bottleneck\.bn\.(\w+)", r"head.bottleneck.1.\1"),
    (r"decode_head\.lateral_convs\.(\d+)\.conv\.(\w+)", r"head.laterals.\1.0.\2"),
    (r"decode_head\.lateral_convs\.(\d+)\.bn\.(\w+)", r"head.laterals.\1.1.\2"),
    (r"decode_head\.fpn_convs\.(\d+)\.conv\.(\w+)", r"head.smoothing.\1.0.\2"),
    (r"decode_head\.fpn_convs\.(\d+)\.bn\.(\w+)", r"head.smoothing.\1.1.\2"),
    (r"decode_head\.fpn_bottleneck\.conv\.(\w+)", r"head.fusion.0.\1"),
    (r"decode_head\.fpn_bottleneck\.bn\.(\w+)", r"head.fusion.1.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classifier.\1"),
    (r"auxiliary_head\.convs\.0\.conv\.(\w+)", r"auxiliary.layer.0.\1"),
    (r"auxiliary_head\.convs\.0\.bn\.(\w+)", r"auxiliary.layer.1.\1"),
    (r"auxiliary_head\.conv_seg\.(\w+)", r"auxiliary.classifier.\1"),
)
CONNECTED = re.compile(r"roi_head\.bbox_head\.(\d+)\.shared_fcs\.(\d+)\.(\w+)")
WAY_OUT = (
    "choose the authors' settings: op, host and host.stages; task=mask_rcnn, task=cascade_rcnn or "
    "task=segmentation with its widths; data with as many classes"
)


def backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the host's weights in a detector or segmenter, the authors' or ours; other weights as they are.

    Norms of the feature maps, which a classifier does not have, are left out.
    """
    if any(name.startswith(HOST) for name in state):
        return {name.removeprefix(HOST): value for name, value in state.items() if name.startswith(HOST)}
    if not any(name.startswith(HEADS) for name in state):
        return dict(state)
    found = (_original(name, value) for name, value in state.items() if name.startswith(BACKBONE))
    return {name: value for name, value in found if not re.match(r"norm\d\.", name)}


def convert(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a whole detector or segmenter by our names; strict both ways.

    Args:
        module: a `Detector` or `Segmenter` of ours, also on the meta device.
        state: under the authors' names.

    Raises:
        UserError: says which names have no place, are missing, or have another shape: how many, and
            the first of them.
    """
    own = module.state_dict()
    features, left = official.placed(module.get_submodule(HOST.removesuffix(".")), backbone(state))
    converted = {f"{HOST}{name}": value for name, value in features.items()}
    given = {_original(name, value)[0]: name for name, value in state.items()}
    unmatched = [given[name] for name in left]
    for theirs, value in state.items():
        if theirs.startswith(BACKBONE):
            if (norm := re.fullmatch(r"backbone\.norm(\d)\.(\w+)", theirs)) is None:
                continue
            ours: str | None = f"{NORMS}{norm[1]}.{norm[2]}"
        else:
            ours = _renamed(theirs, own)
        if ours is None or ours not in own:
            unmatched.append(theirs)
        else:
            converted[ours] = value
    official.refuse_misfits("the weights do not fit the network", module, converted, unmatched, WAY_OUT)
    return converted


def _original(name: str, value: Tensor) -> tuple[str, Tensor]:
    """A tensor of a backbone by the names and in the layout of Swin's own repository."""
    name = name.removeprefix(BACKBONE)
    later = name.startswith("stages.")
    if later and (merged := re.fullmatch(r"stages\.\d+\.downsample\.(reduction\.weight|norm\.\w+)", name)):
        value = _by_neighbor(value, rows=merged[1] == "reduction.weight")
    for pattern, theirs in LATER:
        name = re.sub(pattern, theirs, name)
    return name, value


def _by_neighbor(value: Tensor, *, rows: bool) -> Tensor:
    """Reorder the last dimension from (C, row, column), `nn.Unfold`'s, to (column, row, C), Swin's.

    Args:
        value: (outputs, 4·C) with `rows`, else (4·C,).
        rows: the tensor is a matrix.
    """
    matrix = value if rows else value[None]
    moved = matrix.unflatten(1, (-1, 2, 2)).permute(0, 3, 2, 1).flatten(1)
    return moved if rows else moved[0]


def _renamed(theirs: str, own: Mapping[str, Tensor]) -> str | None:
    """Return our name of a head's tensor; None if there is none."""
    name = re.sub(r"^roi_head\.(bbox|mask)_head\.(?!\d)", r"roi_head.\1_head.0.", theirs)
    if match := CONNECTED.fullmatch(name):
        prefix = f"heads.box_heads.{match[1]}.layers."
        plain = f"{prefix}fc{6 + int(match[2])}.{match[3]}"
        if plain in own or match[2] != "0":
            return plain
        after = [one for one in own if re.fullmatch(rf"{re.escape(prefix)}\d+\.{match[3]}", one)]
        return after[0] if after else None  # the one layer that follows convolutions
    for pattern, ours in RENAMED:
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None
