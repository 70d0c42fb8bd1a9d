"""Set-up of the device before a run computes, for a CPU and for a card that is not here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch

from ablate.kernels import selfcheck
from ablate.training import device as devices
from ablate.training.distributed import SOLO, Group

INFRA = {"kernels": "auto", "tf32": False}
CUDA = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    devices.prepare(torch.device("cpu"), INFRA, "float32", SOLO)
    torch.use_deterministic_algorithms(False)


def _fused_attention() -> list[bool]:
    cuda = torch.backends.cuda
    return [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]


def test_fused_attention_is_off_on_a_card_only_where_its_gradients_may_differ() -> None:
    for device, fused in ((CUDA, False), (torch.device("cpu"), True)):
        devices.deterministic_algorithms(device)
        assert _fused_attention() == [fused] * 3
        assert torch.backends.cuda.math_sdp_enabled() and torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("tf32", [False, True])
def test_products_and_convolutions_have_one_precision(tf32: bool) -> None:
    devices.prepare(torch.device("cpu"), {**INFRA, "tf32": tf32}, "float32", SOLO)
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32
    torch.compile(
        torch.relu, backend="inductor"
    )  # reads the settings; PyTorch refuses a mixture of its two ways


def test_the_first_process_of_each_machine_checks_the_kernels_before_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    def check(device: torch.device, dtypes: Iterable[torch.dtype]) -> None:
        seen.append((device, list(dtypes)))

    monkeypatch.setattr(devices, "hindrance", lambda device: None)
    monkeypatch.setattr(selfcheck, "prepare", check)
    monkeypatch.setattr(Group, "all_reduce_sum", lambda self, *values: seen.append("barrier") or list(values))
    devices.prepare(CUDA, INFRA, "bfloat16", SOLO)
    assert seen == [(CUDA, [torch.float32, torch.bfloat16]), "barrier"]
    seen.clear()
    devices.prepare(CUDA, INFRA, "bfloat16", replace(SOLO, rank=9, world_size=16, local_rank=1))
    assert seen == ["barrier"]
    seen.clear()
    devices.prepare(CUDA, {**INFRA, "kernels": "reference"}, "bfloat16", SOLO)
    assert not seen
    devices.kernels.use("auto")
