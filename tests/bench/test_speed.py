"""`ablate bench`: what it says is measured and agrees; how long anything takes is not tested."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ablate import hosts, kernels
from ablate.bench import aot, ceiling, library, memory, networks, settings, timing
from ablate.bench.agreement import disagreements
from ablate.errors import UserError
from ablate.kernels import dispatch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 7×7 with two heads, samples of one call, a ceiling that is found at once."""
    for number in settings.STAGES:
        monkeypatch.setitem(settings.STAGES, number, settings.Stage(7, 32, 2))
    monkeypatch.setattr(timing, "SAMPLE", 1e-9)
    monkeypatch.setitem(ceiling.PRODUCT, "cpu", 64)
    monkeypatch.setitem(ceiling.COPY, "cpu", 2**16)


def test_every_kernel_agrees_with_the_form_of_the_authors(ablate: Callable) -> None:
    done = ablate("bench", "kernels", "--quick", "--stages", "4", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["versions"]["torch"] == torch.__version__
    assert found["ceiling"]["flops"] > 0
    steps = [(line["kernel"], line["pass"]) for line in found["lines"]]
    names = ("aggregate", "aggregate_ghost", "scores", "attention")
    assert steps == [(name, step) for name in names for step in ("forward", "training")]
    for line in found["lines"]:
        assert set(line["seconds"]) == {"unfold", "fast", "nearest"}
        assert all(times["samples"] == 3 for times in line["seconds"].values())
        assert line["share_of_ceiling"] > 0
        assert line["memory"]["extra"] >= line["memory"]["least"]
    maps, table, filters = 2 * 7 * 7 * 32 * 4, 32 * 49 * 4, 2 * 7 * 7 * 2 * 49 * 4
    ghost = found["lines"][3]["memory"]
    assert ghost["inputs"] == 2 * maps + filters + 2 * table
    assert ghost["least"] == 2 * maps + filters + 2 * table
    assert found["lines"][2]["flops"] == 4 * 2 * 7 * 7 * 49 * 32


def test_a_wrong_gradient_is_not_timed(ablate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.scores

    def wrong(query: Tensor, key: Tensor, *others: int, **options: int) -> Tensor:
        return right(query, 2 * key - key.detach(), *others, **options)  # the values are right

    monkeypatch.setattr(kernels, "scores", wrong)
    for unfolds in ([], ["--no-unfold"]):
        done = ablate("bench", "kernels", "scores", "aggregate", "--quick", "--stages", "4", *unfolds)
        assert done.code == 1
        assert re.search(r"not timed: scores stage 4, training gradient of key differs by 1.0e\+00", done.out)
        assert "gradient of query differs" not in done.out
        assert "output differs" not in done.out
        assert re.search(r"^stage 4, training .*\d", done.out, re.MULTILINE)  # aggregate's


def test_what_counts_as_the_same() -> None:
    one, rounding = torch.ones(3), torch.full((3,), 1e-8)
    truth = {"output": one, "gradient of x": one, "gradient of b": 0 * one}
    assert not disagreements({**truth, "gradient of b": rounding}, truth)  # zero in theory
    assert len(disagreements({**truth, "gradient of b": 1e-3 * one}, truth)) == 1
    assert len(disagreements({**truth, "output": float("nan") * one}, truth)) == 1
    assert len(disagreements({"output": one + 2e-4, "gradient of x": one}, truth)) == 2


def test_memory_at_the_highest_point() -> None:
    x = torch.zeros(1000, 250, requires_grad=True)  # a megabyte
    device = torch.device("cpu")
    for call, expected in (
        (lambda: x.detach().exp(), 1),
        (lambda: x.detach().exp().sum(), 1),
        (lambda: (x.detach() + 1).exp(), 2),
        (lambda: torch.autograd.grad(x.exp(), x, x.detach()), 2),
        (lambda: (x.detach().clone(), x.detach().clone(), x.detach().clone()), 3),
    ):
        assert memory.peak(call, device) == pytest.approx(expected * 1e6, rel=1e-3)


def test_contenders_take_turns_and_slow_ones_sit_out(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    calls = {name: partial(called.append, name) for name in "abc"}
    found = timing.interleave(calls, 4)
    assert "".join(called[-12:]) == "abccbaabccba"
    assert all(len(times.samples) == 4 for times in found.values())
    monkeypatch.setattr(timing, "PATIENCE", 0)
    assert all(len(times.samples) == 3 for times in timing.interleave(calls, 9).values())
    times = timing.Times((1.0, 2.0, 3.0, 4.0, 10.0))
    assert (times.median, times.quartiles) == (3, (2, 4))


def test_the_nearest_is_attention_in_windows() -> None:
    query, key, value = (torch.randn(2, 6, 9, 8) for _ in range(3))
    y = library.window_attention(2, 3, query, key, value, torch.zeros(2, 25))
    scores = library.window_scores(2, 3, query, key)
    there = (1, slice(3, 6), slice(6, 9))  # the last window of the second image
    rows, columns, values = (x[there].reshape(9, 2, 4).transpose(0, 1) for x in (query, key, value))
    expected = rows @ columns.transpose(1, 2)
    torch.testing.assert_close(scores[-1], expected)
    found = y[there].reshape(9, 2, 4).transpose(0, 1)
    torch.testing.assert_close(found, expected.softmax(-1) @ values)


def test_operators_are_kept_beside_the_baselines_with_versions(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("bench", "ops", "elsa", "--quick", "--keep")
    assert done.code == 0, done.err
    for word in ("reference", "fast", "÷ lsa", "÷ dwconv", "images/s", "elsa", "training"):
        assert word in done.out
    (page,) = (tmp_path / "benchmarks").glob("cpu-*-ops.md")
    written = page.read_text(encoding="utf-8")
    assert f"torch {torch.__version__}" in written
    assert written.count("\n| ") == 2 + 6
    record = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert [line["operator"] for line in record["lines"][::2]] == ["lsa", "dwconv", "elsa"]
    assert all(line["ratios"]["lsa"] == 1 for line in record["lines"][:2])


def test_networks_beside_the_baseline(ablate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise UserError("it does not fit", "leave it")

    monkeypatch.setattr(networks, "HOST", "swin_micro")
    monkeypatch.setattr(networks, "PIXELS", 28)
    found = {name: partial(hosts.create, "swin_micro", name) for name in ("na", "conv")} | {"other": refused}
    monkeypatch.setattr(networks, "catalogue", lambda: found)
    monkeypatch.setattr(networks, "MOST_MACS", 1.1)  # na needs those of the baseline, conv more
    monkeypatch.setattr(networks, "TARGET", 0.01)  # is missed, and the line says where the time goes
    done = ablate("bench", "models", "--time", "--quick", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    (line,) = record["lines"]
    assert (line["network"], line["target"]) == ("na", networks.TARGET)
    assert not line["met"]
    assert 0.9 < line["macs_ratio"] < 1.1
    assert len(line["shares"]) == networks.REASONS
    assert 0 < sum(line["shares"].values()) <= 1
    assert list(record["refused"]) == ["conv", "other"]
    assert record["refused"]["other"] == "it does not fit"


def test_every_operator_is_offered_as_a_network() -> None:
    assert {"elsa_swin_tiny", "na_swin_tiny", "elsa", "dwconv"} <= set(networks.catalogue())


def test_compiled_kernels_are_listed_and_their_spills_counted(
    ablate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = {
        "scores_taps float32 sm_90 k=7": 0,
        "scores_taps float32 sm_80 k=7": 8,
        "aggregate_transpose_taps float32": 0,
    }
    monkeypatch.setattr(aot, "names", lambda: {name: (local, 90) for name, local in forms.items()})
    monkeypatch.setattr(aot, "measure", lambda local, _: aot.Resources(40, 0, local, 1024, 4))
    done = ablate("bench", "kernels", "--aot", "scores_taps")
    assert "registers" in done.out
    assert "2 compiled kernels of 1 functions, 1 of them with spills" in done.out
    assert set(json.loads(ablate("bench", "kernels", "--aot", "--json").out)) == set(forms)


REFUSED = {
    "kernel": (["kernels", "agregate"], "did you mean 'aggregate'"),
    "operator": (["ops", "elssa"], "did you mean 'elsa'"),
    "network": (["models", "--time", "na_swin_tinny"], "did you mean 'na_swin_tiny'"),
    "compiled kernel": (["kernels", "--aot", "sums"], "known: "),
    "stage": (["kernels", "--stages", "4,5"], "'5' is no stage"),
    "batch": (["ops", "--batch", "0"], "1 or more"),
    "device": (["ops", "--device", "cuda"], "ablate doctor"),
    "time of what is counted": (["models", "--batch", "4"], "add --time"),
    "time of what is compiled": (["kernels", "--aot", "--quick"], "leave out --aot"),
    "golden figures of speed": (["kernels", "--golden"], "--aot --golden"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str, ablate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(aot, "names", lambda: {"scores_taps float32": (None, 90)})
    arguments, expected = REFUSED[case]
    done = ablate("bench", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", ["kernels", "ops", "models"])
def test_help_shows_examples(kind: str, ablate: Callable) -> None:
    assert f"  ablate bench {kind} " in ablate("bench", kind, "--help").out.partition("examples:")[2]


def test_what_the_reference_computed_is_never_printed_as_fast(
    ablate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dispatch.MISSING, "cpu", "numba")
    for kind in (["kernels", "aggregate", "--stages", "4"], ["ops", "na"]):
        for strict, code in (([], 0), (["--strict"], 1)):
            done = ablate("bench", *kind, "--quick", *strict)
            assert done.code == code, done.err
            assert re.search("not timed: .*fell back to PyTorch: .*Numba is not installed", done.out)
    assert "dwconv" in done.out.partition("not timed")[0]  # computes without compiled kernels
    done = ablate("doctor")
    assert done.code == 0 and re.search("Numba +FELL BACK", done.out)
    assert ablate("doctor", "--strict").code == 1
