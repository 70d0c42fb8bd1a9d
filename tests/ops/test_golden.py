"""Outputs and every gradient against the authors' own modules, from weights under the authors' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.ops.small import build, drawn
from tests.ops.test_contmix import ContMixBlock
from torch import Tensor, nn

from ablate import official, ops
from ablate.errors import UserError
from ablate.models.dwnet import DWNetAttention
from ablate.official.operators import contiguous

GOLDEN = Path(__file__).parent.parent / "golden"
CHANNELS_FIRST = (
    "lsconv",
    "cloformer",
    "involution",
    "ddf",
    "d_dwconv",
    "lesa",
    "dilated_reparam",
    "contmix",
)  # of the authors' module, by the file's name
TOKENS = {
    "aggregated_w3_sr2": (8, 6),
    "dcnv4_k3_g2": (8, 7),
}  # maps that the authors' modules have row by row
# Parts of an authors' whole block that are not its operator's.
AROUND = {"contmix_k7_s5_eval": ("dwconv", "norm", "mlp")}

CASES: dict[str, Callable[[], nn.Module]] = {
    "elsa_k5_lam1_gamma1": lambda: ops.create(
        "elsa", 24, heads=3, channel={"ghost_lambda": 1}, region={"kernel": 5}
    ),
    "elsa_k3_lam0_gamma1": lambda: ops.create(
        "elsa", 24, heads=2, weights={"group_width": 4}, region={"kernel": 3}
    ),
    "na_k5_d1": lambda: ops.create("na", 24, heads=3, region={"kernel": 5}),
    "dinat_k3_d3": lambda: ops.create("dinat", 24, heads=3, region={"kernel": 3, "dilation": 3}),
    "involution_k7_eval": lambda: ops.create("involution", 32, heads=1),
    "lsconv_k7_k3_eval": lambda: ops.create("ls_conv", 32, heads=1),
    "qna_k3_q2": lambda: ops.create("qna", 24, heads=1),
    "cloformer_k3_w2": lambda: ops.create("attn_conv", 24, heads=4, pooled_share=0.25, grid=3),
    "masa_full": lambda: ops.create("manhattan", 24, heads=3, decomposed=False),
    "masa_decomposed": lambda: ops.create("manhattan", 24, heads=3),
    "d_dwconv_k7_eval": lambda: ops.create("d_dwconv", 16, heads=1),
    "dwblock_k7_eval": lambda: DWNetAttention(16, ops.create("dwconv", 16, heads=1)),
    "slide_k3": lambda: ops.create("slide", 24, heads=3),
    "csa_k3": lambda: ops.create("csa", 16, heads=2),
    "ddf_mul_k3": lambda: ops.create("ddf", 20, heads=1),
    "contmix_k7_s5_eval": lambda: ContMixBlock(ops.create("contmix", 16, heads=4, kernel=7, small_kernel=5)),
    "dcnv3_k3_g3": lambda: ops.create("dcnv3", 24, heads=3, settings={"heads": "1x"}),
    "dcnv4_k3_g2": lambda: ops.create("dcnv4", 32, heads=2, depthwise=True, bias=True),
    "dilated_reparam_k7_eval": lambda: ops.create("dilated_reparam", 16, heads=1, kernel=7),
    "dilated_reparam_k7_train": lambda: ops.create("dilated_reparam", 16, heads=1, kernel=7),
    "dilated_reparam_k7_merged": lambda: ops.create("dilated_reparam", 16, heads=1, kernel=7).merge(),
    "focal_w3_l2": lambda: ops.create("focal", 24, heads=1),
    "aggregated_w3_sr2": lambda: ops.create("aggregated", 24, heads=3, resolution=(8, 6), reduction=2),
    "rasa_sr2_r2": lambda: ops.create("rasa", 24, heads=3, reduction=2),
    "lesa_g4_eval": lambda: ops.create("lesa", 32, heads=4, resolution=(6, 6)),
    "lesa_g4_train": lambda: ops.create("lesa", 32, heads=4, resolution=(6, 6)).train(),
}


def read(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        tensors = {key: torch.from_numpy(archive[key]) for key in archive.files}
    for key in [key for key in tensors if "/" in key and name in AROUND]:
        kind, _, path = key.partition("/")
        if not path.startswith(AROUND[name]):
            tensors[f"{kind}/mixer.{path}"] = tensors.pop(key)
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def under(golden: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Tensors of a kind, `param` or `grad`, by the authors' name."""
    return {
        key.removeprefix(f"{kind}/"): value for key, value in golden.items() if key.startswith(f"{kind}/")
    }


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(CASES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_authors(name: str, dtype: torch.dtype) -> None:
    golden = read(name, dtype)
    operator = CASES[name]().to(dtype).train(name.endswith("_train"))
    official.load(operator, under(golden, "param"))

    def move(t: Tensor) -> Tensor:
        t = t.unflatten(1, TOKENS[name]) if name in TOKENS else t
        t = t.permute(0, 2, 3, 1) if name.startswith(CHANNELS_FIRST) else t
        return contiguous(t, operator.heads, 3) if name.startswith("lsconv") else t

    x = move(golden["x"]).contiguous().requires_grad_()
    y = operator(x)
    (y * move(golden["grad_y"])).sum().backward()
    gradients = {name: value.grad for name, value in operator.named_parameters() if value.requires_grad}
    expected = official.convert(operator, under(golden, "grad"))
    assert gradients.keys() == expected.keys()
    found = {"y": y, "grad_x": x.grad, **gradients}
    expected = {"y": move(golden["y"]), "grad_x": move(golden["grad_x"]), **expected}
    largest = max(value.abs().max().item() for value in expected.values())
    for name, value in found.items():
        # theirs are float32: rounding goes with the largest entry; some gradients are rounding alone
        scale = max(expected[name].abs().max().item(), 0.05 * largest)
        torch.testing.assert_close(
            value, expected[name], rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_unmatched_name_is_listed() -> None:
    golden = under(read("elsa_k3_lam0_gamma1", torch.float32), "param")
    golden["ghost_heads"] = golden.pop("ghost_head")
    operator = ops.create("elsa", 24, heads=2, weights={"group_width": 4}, region={"kernel": 5})
    with pytest.raises(UserError) as reason:
        official.load(operator, golden)
    assert "without a place: ghost_heads" in reason.value.problem
    assert "missing: ghost.add" in reason.value.problem
    assert "weights.mix.weight (16, 4, 3, 3) instead of (16, 4, 5, 5)" in reason.value.problem


# Without a golden file: SAN's sums are CUDA kernels, LESA's detection form needs mmcv. The start of our
# names and of theirs, and how many dimensions of size 1 their convolutions have where ours are linear.
SAN = {"centre": "conv1", "neighbor": "conv2", "value": "conv3", "position": "conv_p", "weights": "conv_w"}
RENAMED: dict[str, tuple[dict[str, str], int]] = {
    "san_pairwise": (SAN, 2),
    "san_patchwise": (SAN, 2),
    "lesa_qr": (
        {
            "binary.query_key_value": "qkv_transform",
            "binary.norm": "bn_qkv",
            "binary.similarity_norm": "bn_similarity",
            "binary.output_norm": "bn_output",
            "binary.position.rows": "rel_height",
            "binary.position.columns": "rel_width",
            "unary.spatial": "x_transform.0",
            "unary.mix": "x_transform.1",
            "unary.norm": "bn_x",
            "fusion.gate.1": "reasoning.1",
            "fusion.gate.2": "reasoning.2",
            "fusion.gate.4": "projection.0",
            "fusion.gate.5": "projection.1",
        },
        1,
    ),
}


@pytest.mark.parametrize("name", RENAMED)
def test_the_authors_names_find_their_places(name: str) -> None:
    starts, dimensions = RENAMED[name]
    ours, again = drawn(build(name)), build(name, seed=1).double()
    theirs = {}
    for key, value in ours.state_dict().items():
        (start,) = [start for start in starts if key == start or key.startswith(f"{start}.")]
        linear = key.endswith(".weight") and isinstance(ours.get_submodule(key[:-7]), nn.Linear)
        shape = (*value.shape, *[1] * dimensions) if linear else value.shape
        theirs[starts[start] + key.removeprefix(start)] = value.reshape(shape)
    official.load(again, theirs)
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    with pytest.raises(UserError, match="another_"):
        official.load(again, {f"another_{key}": value for key, value in theirs.items()})


def test_counters_of_batch_norms_may_be_missing() -> None:
    """Older versions of PyTorch did not save them."""
    layer = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    given = {name: value + 1 for name, value in layer.state_dict().items() if not name.endswith("tracked")}
    official.load(layer, given)
    assert torch.equal(layer[0].running_var, given["0.running_var"])
    with pytest.raises(UserError, match=r"1 missing: 0\.weight"):
        official.load(layer, {name: value for name, value in given.items() if name != "0.weight"})
