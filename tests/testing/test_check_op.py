"""`ablate check-op` and `ablate.testing`, on operators with faults."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import command

from ablate import ops, testing
from ablate.errors import UserError
from ablate.ops import registry
from ablate.store.folder import RunFolder

HEAD = """
import torch
from torch import nn
from ablate.ops import register

@register("{name}", paper="-", year=2026, channel_setting="-", spatial_processing="-", equivariance=1)
class Mine(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        {more}

    def forward(self, x):
        {returns}
"""
FAULTS = {  # what an operator does wrong, and the checks that say so
    "right": ("", "return self.layer(x)", {}),
    "dropout": ("", "return self.layer(nn.functional.dropout(x, 0.1, self.training))", {}),
    "one_position": ("", "return self.layer(x).mean((1, 2), keepdim=True)", {"shape": "(2, 1, 1, 16)"}),
    "dtype": ("", "return self.layer(x).float()", {"shape": "torch.float32 for an input of torch.float64"}),
    "idle": ("self.idle = nn.Parameter(torch.zeros(3))", "return self.layer(x)", {"gradients": "idle"}),
    "random": ("", "return self.layer(x) + torch.rand(()).to(x.dtype)", {"determinism": "other bits: y"}),
    "batch": ("", "return self.layer(x) - x.mean(0)", {"images": "without the others of its batch"}),
    "number": ("", "return self.layer(x) * x.abs().max().item()", {"meta": ""}),
    "forgotten": ("self.scale = torch.ones(()).fill_(2)", "return self.layer(x.detach() * self.scale)",
                  {"gradients": "the input"}),
    "raises": ("", "raise RuntimeError('on purpose')", {"shape": ".py:"}),
    "evaluates": ("", "return self.layer(x) if self.training else self.layer(x).mean((1, 2), keepdim=True)",
                  {"shape": "(2, 1, 1, 16)"}),
    "coarse": ("", "return self.layer(x) * (1 if x.dtype.itemsize > 2 else 1.1)",
               {"half precision": "away from float64"}),
    "lists": ("", "return [self.layer(x)]", {"shape": "list"}),
    "crowd": ("", "assert len(x) > 1, 'alone'\n        return self.layer(x)", {"meta": "alone"}),
    "constructor": ("raise RuntimeError('on purpose')", "return self.layer(x)", {"shape": "cannot be built"}),
    "moves": ("", "return self.layer(x.roll(1, 1) * torch.arange(x.shape[1]).view(-1, 1, 1).to(x))",
              {"equivariance": "equivariance=1"}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def restored() -> object:
    """The registry as it was."""
    ops.names()
    before, path, modules = dict(registry._ENTRIES), list(sys.path), set(sys.modules)
    yield
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("file_of_") or name in ("right", "helper_beside"):
            del sys.modules[name]


def written(folder: Path, name: str) -> Path:
    more, returns, _ = FAULTS[name]
    path = folder / f"file_of_{name}.py"
    path.write_text(HEAD.format(name=f"mine_{name}", more=more or "pass", returns=returns))
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_its_check(name: str, tmp_path: Path) -> None:
    (operator,) = ops.registry.load_file(str(written(tmp_path, name)))
    wanted = FAULTS[name][2]
    found = {one.check: one for one in testing.results(testing.Subject(operator), [*wanted] or ())}
    for check, words in wanted.items():
        assert found[check].outcome == "failed", found[check]
        assert words in found[check].detail
    if not wanted:
        assert {one.outcome for one in found.values()} == {"ok"}, found
        testing.check_operator(operator, checks=["shape"])
    else:
        with pytest.raises(AssertionError, match=f"{operator} fails {len(wanted)} checks"):
            testing.check_operator(operator, checks=wanted)


def test_the_command_prints_a_table_and_fails_with_the_operator(ablate: Callable, tmp_path: Path) -> None:
    checks = [word for check in ("shape", "gradients") for word in ("--check", check)]
    assert ablate("check-op", str(written(tmp_path, "right")), *checks).code == 0
    done = ablate("check-op", str(written(tmp_path, "idle")), *checks)
    assert done.code == 1
    assert "no gradient: idle" in done.out
    assert "1 check failed" in done.out
    (tmp_path / "broken.py").write_text("1/0\n")
    (tmp_path / "empty.py").write_text("")
    for given, words in (
        (str(tmp_path / "broken.py"), "ZeroDivisionError"),
        (str(tmp_path / "empty.py"), "registers no operator"),
        (str(tmp_path / "none.py"), "no file"),
        ("elza", "did you mean 'elsa'"),
    ):
        done = ablate("check-op", given)
        assert done.code == 2
        assert words in done.err
    assert ablate("check-op", "elsa", "--check", "gradchek").code == 2
    assert ablate("check-op").code == ablate("check-op", "elsa", "--all").code == 2
    everything = ablate("check-op", "--all", "--check", "state")
    assert everything.code == 0
    assert [line.split()[0] for line in everything.out.splitlines()[1:]] == ops.names()


def test_a_check_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no check 'x'"):
        list(testing.results(testing.Subject("elsa"), ["x"]))


TINY = (
    *("data=synthetic", "recipe=debug", "recipe.epochs=1", "infra.tracking=none", "infra.threads=1"),
    *("infra.device=cpu", "study.name=s"),
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_position", " instead of ("),
        ("evaluates", " instead of ("),
        ("lists", "returns a list instead of a tensor"),
        ("raises", "RuntimeError: on purpose ("),
        ("constructor", "RuntimeError: on purpose ("),
    ],
)
def test_a_run_refuses_what_would_be_broadcast(
    ablate: Callable, tmp_path: Path, name: str, words: str
) -> None:
    ops.registry.load_file(str(written(tmp_path, name)))
    done = ablate("train", "-m", f"op=mine_{name},dwconv", *TINY)
    assert done.code == 1
    assert words in done.err
    assert "1 finished, 1 failed" in done.err or "1 failed, 1 finished" in done.err
    if name in ("raises", "constructor"):
        assert f"file_of_{name}.py:" in done.err


def test_a_compiled_network_is_checked_too(ablate: Callable, tmp_path: Path) -> None:
    ops.registry.load_file(str(written(tmp_path, "one_position")))
    done = ablate("train", "op=mine_one_position", *TINY, "infra.compile=true")
    assert done.code == 1
    assert " instead of (" in done.err


def test_operations_that_cannot_be_counted_stop_no_run(ablate: Callable, tmp_path: Path) -> None:
    ops.registry.load_file(str(written(tmp_path, "crowd")))
    done = ablate("train", "-m", "op=mine_crowd,dwconv", "seed=0,1", *TINY)
    assert done.code == 0, done.err
    assert "not counted: AssertionError: alone" in done.err
    results = [RunFolder(path.parent).result() for path in (tmp_path / "runs").glob("*/result.json")]
    assert sorted(result["macs"] is None for result in results) == [False, False, True, True]
    report = ablate("report", "s", "--baseline", "dwconv")
    assert report.code == 0, report.err


def test_a_run_names_parameters_that_no_gradient_reaches(ablate: Callable, tmp_path: Path) -> None:
    ops.registry.load_file(str(written(tmp_path, "idle")))
    done = ablate("train", "op=mine_idle", *TINY)
    assert done.code == 0, done.err
    assert done.err.count("no gradient reached") == 1
    assert "attn.idle" in done.err
    assert "no gradient" not in ablate("train", "op=dwconv", *TINY).err


@pytest.mark.parametrize("name", ["torch", "random", "with-dash", "right"])
def test_a_file_never_replaces_another_module(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(HEAD.format(name="mine_named", more="pass", returns="return self.layer(x)"))
    before = sys.modules.get(name)
    if name == "right":
        (tmp_path / "helper_beside.py").write_text("X = 1\n")
        path.write_text("import helper_beside\n" + path.read_text())
        assert ops.registry.load_file(str(path)) == ops.registry.load_file(str(path)) == ["mine_named"]
    else:
        with pytest.raises(UserError, match="rename the file"):
            ops.registry.load_file(str(path))
        assert sys.modules.get(name) is before


def test_an_operator_that_reads_values_is_trained_and_counted(ablate: Callable, tmp_path: Path) -> None:
    ops.registry.load_file(str(written(tmp_path, "number")))
    done = ablate("train", "op=mine_number", *TINY)
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/result.json"))
    assert RunFolder(folder).result()["macs"] > 0
    assert ablate("look", folder.name, "--images", "1").code == 0


def test_a_broken_plug_in_is_one_line_and_breaks_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(HEAD.format(name="half", more="pass", returns="return x") + "\n1 / 0\n")

    def run(*arguments: str) -> tuple[int, str]:
        environment = {"ABLATE_OPERATORS": "half, nowhere", "PYTHONPATH": str(tmp_path), "COLUMNS": "300"}
        done = command.run(*arguments, folder=tmp_path, environment=environment)
        return done.returncode, done.stdout + done.stderr

    lines = (
        f"half (of ABLATE_OPERATORS): ZeroDivisionError: division by zero ({tmp_path}/half.py:",
        "nowhere (of ABLATE_OPERATORS): ModuleNotFoundError: No module named 'nowhere'",
    )
    for arguments, expected in (
        (("ops",), 0),
        (("doctor",), 0),
        (("train", "op=half"), 2),
        (("ops", "half"), 2),
    ):
        code, said = run(*arguments)
        assert code == expected, said
        assert "Traceback" not in said
        if arguments != (
            "train",
            "op=half",
        ):  # Hydra knows no conf/op/half.yaml of an operator that is not there
            assert all(line in said for line in lines), said
