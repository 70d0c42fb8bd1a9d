"""The self-check in processes of its own, with kernels that fail in every way; no GPU is needed."""

from __future__ import annotations

import json
import threading
import warnings
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch
from tests.kernels import faulty

from ablate.kernels import dispatch
from ablate.kernels.selfcheck import cases, verdicts

CPU, SINGLE, MODULE = torch.device("cpu"), torch.float32, faulty.__name__


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(verdicts, "_known", {})
    monkeypatch.setattr(dispatch, "_fallbacks", {})
    for kernel in faulty.KERNELS:
        kernel.reasons.clear()


def test_each_failure_is_identified_and_kept_if_it_is_the_kernels_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 10.0)
    verdicts.prepare(CPU, [SINGLE], [MODULE])
    found = {name.rpartition(".")[2]: reason for name, reason in verdicts.of(MODULE, CPU, SINGLE).items()}
    assert found["right"] is None and found["last"] is None
    for name, said in (
        ("wrong", "is off at kernel 7"),
        ("refused", "RuntimeError: no such instruction"),
        ("deadly", "kills its process by SIGSEGV"),
        ("endless", "does not end within 10 s"),
        ("stopped", "kills its process by SIGTERM"),
        ("full", "No space left on device"),
    ):
        assert said in str(found[name])
    assert "checking the Triton kernels on cpu" in capfd.readouterr().err

    kept = json.loads(verdicts.verdict_file(CPU).read_text())
    lasting = {"right", "wrong", "refused", "deadly", "last"}
    assert {key.split()[0].rpartition(".")[2] for key in kept["verdicts"]} == lasting
    assert kept["versions"]["torch"] == torch.__version__

    x = torch.randn(1, 2, 3, 4)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for kernel in (*faulty.KERNELS, *faulty.KERNELS):
            assert torch.equal(kernel(x), 2 * x)
    assert len(warned) == len(dispatch.fallbacks()) == len(found) - 2
    assert all("infra.kernels=reference" in str(one.message) for one in warned)


def test_what_is_on_disk_is_not_checked_again_unless_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty, "KERNELS", (faulty.right, faulty.wrong))
    checked: list[str] = []

    def check(device: torch.device, shard: verdicts.Shard, ended: threading.Event) -> verdicts.Verdict:
        checked.append(shard.kernel)
        return verdicts.Verdict(None if shard.kernel == faulty.right.name else "is off")

    monkeypatch.setattr(verdicts, "check_in_child", check)
    told: list[tuple[str, torch.dtype, str | None]] = []
    for again, expected in (
        (False, [faulty.right.name, faulty.wrong.name]),
        (False, []),
        (True, [faulty.wrong.name]),
    ):
        checked.clear(), told.clear(), verdicts._known.clear()
        verdicts.prepare(CPU, [SINGLE], [MODULE], lambda *found: told.append(found), again=again)
        assert sorted(checked) == sorted(expected)
        assert {(name, reason) for name, _, reason in told} == {
            (faulty.right.name, None),
            (faulty.wrong.name, "is off"),
        }


@pytest.mark.parametrize("damage", ["", "{", '{"verdicts": [1]}', '{"verdicts": {"a": 1}}'])
def test_a_damaged_file_of_verdicts_counts_as_none(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = verdicts.verdict_file(CPU)
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    monkeypatch.setattr(faulty, "KERNELS", (faulty.right,))
    monkeypatch.setattr(verdicts, "check_in_child", lambda *_: verdicts.Verdict(None))
    assert verdicts.of(MODULE, CPU, SINGLE) == {faulty.right.name: None}
    assert json.loads(path.read_text())["verdicts"] == {f"{faulty.right.name} torch.float32": None}


def test_verdicts_are_of_the_card_the_versions_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {verdicts.verdict_file(CPU)}
    for name, changed in (
        ("card", lambda device: "NVIDIA H100 80GB HBM3 (9.0)"),
        ("versions", lambda: {"torch": "2.9.0"}),
        ("code_digest", lambda: "0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(verdicts, name, changed)
            seen.add(verdicts.verdict_file(CPU))
    assert len(seen) == 4


def test_where_no_process_may_use_the_device_this_one_checks_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> verdicts.Verdict:
        raise verdicts.CannotCheckError("all CUDA-capable devices are busy")

    monkeypatch.setattr(faulty, "KERNELS", (faulty.right, faulty.wrong))
    monkeypatch.setattr(verdicts, "check_in_child", refuse)
    found = verdicts.of(MODULE, CPU, SINGLE)
    assert [reason is None for reason in found.values()] == [True, False]
    assert not verdicts._on_disk(verdicts.verdict_file(CPU))


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_cases_reach_what_networks_have() -> None:
    """Of every kernel: K, widths of heads, borders and static factors, within what it takes."""
    reached: dict[str, list[cases.Case]] = {}
    for module in verdicts.MODULES:
        for kernel in verdicts.kernels_of(module):
            taken = [
                found.case for found in cases.operands(torch.bfloat16) if kernel.arguments(found) is not None
            ]
            reached[kernel.name] = taken
    for name, taken in reached.items():
        widths = {case.head_width for case in taken}
        if name.startswith("slide"):
            assert {(case.kernel, case.head_width) for case in taken} >= {(3, 32), (5, 16)}, name
            continue
        assert {case.kernel for case in taken} == {3, 5, 7}, name
        assert {case.border for case in taken} >= {"zero", "mask", "inside"}, name
        assert {case.dilation for case in taken} == {1, 2}, name
        if name.startswith("neighborhood_attention"):
            assert widths >= {1, 3, 16, 32, 64} and {case.axial for case in taken} == {True, False}, name
            continue
        assert widths >= {1, 3, 16, 32, 96} and {case.stride for case in taken} == {1, 2}, name
        assert {(bool(case.multiply), bool(case.add)) for case in taken} == {
            *product((True, False), repeat=2)
        }
