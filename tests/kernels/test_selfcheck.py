"""The self-check in processes of its own, with kernels that fail in every way; no GPU is needed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from tests.kernels import faulty

from ablate.ops.kernels import choice
from ablate.ops.kernels.selfcheck import cases, verdicts

CPU, SINGLE, MODULE = torch.device("cpu"), torch.float32, faulty.__name__


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(verdicts, "_known", {})
    monkeypatch.setattr(choice, "_fallbacks", {})
    for kernel in faulty.KERNELS:
        kernel.reasons.clear()


def test_each_failure_is_told_from_the_others_and_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 3.0)
    verdicts.prepare(CPU, [SINGLE], [MODULE])
    found = {name.rpartition(".")[2]: reason for name, reason in verdicts.of(MODULE, CPU, SINGLE).items()}
    assert found["right"] is None and found["last"] is None
    assert "is off at kernel 7" in str(found["wrong"])
    assert "RuntimeError: no such instruction" in str(found["refused"])
    assert "SIGSEGV" in str(found["deadly"])
    assert "does not end within 3 s" in str(found["endless"])
    assert "checking the Triton kernels on cpu" in capfd.readouterr().err

    kept = json.loads(verdicts.verdict_file(CPU).read_text())
    assert len(kept["verdicts"]) == len(faulty.KERNELS) and kept["versions"]["torch"] == torch.__version__
    verdicts._known.clear()
    monkeypatch.setattr(verdicts, "check_in_children", pytest.fail)  # everything is on disk
    assert verdicts.of(MODULE, CPU, SINGLE)[faulty.right.name] is None

    x = torch.randn(1, 2, 3, 4)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for kernel in (*faulty.KERNELS, *faulty.KERNELS):
            assert torch.equal(kernel(x), 2 * x)
    assert len(warned) == len(choice.fallbacks()) == 4
    assert all("infra.kernels=reference" in str(one.message) for one in warned)


@pytest.mark.parametrize("damage", ["", "{", '{"verdicts": [1]}', '{"verdicts": {"a": 1}}'])
def test_a_damaged_file_of_verdicts_counts_as_none(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = verdicts.verdict_file(CPU)
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    monkeypatch.setattr(faulty, "KERNELS", (faulty.right,))
    monkeypatch.setattr(verdicts, "check_in_children", lambda *_: {faulty.right.name: None})
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
    def refuse(*_: object) -> verdicts.Verdicts:
        raise verdicts.CannotCheckError("all CUDA-capable devices are busy")

    monkeypatch.setattr(faulty, "KERNELS", (faulty.right, faulty.wrong))
    monkeypatch.setattr(verdicts, "check_in_children", refuse)
    found = verdicts.of(MODULE, CPU, SINGLE)
    assert [reason is None for reason in found.values()] == [True, False]
    assert not verdicts._on_disk(verdicts.verdict_file(CPU))


def test_cases_reach_what_networks_have() -> None:
    """K, the widths of heads, the borders and every combination of static factors that a kernel may take."""
    assert {case.kernel for case in cases.CASES} == {3, 5, 7}
    assert {case.head_width for case in cases.CASES} >= {1, 3, 16, 32, 96}
    assert {case.border for case in cases.CASES} == {"zero", "mask", "inside", "reflect"}
    factors = {(bool(case.multiply), bool(case.add)) for case in cases.CASES}
    assert factors == {(False, False), (True, False), (False, True), (True, True)}
