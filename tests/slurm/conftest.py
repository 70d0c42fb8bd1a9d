from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.slurm.cluster import Cluster, missing
from tests.slurm.study import HERE, RECOVERY, Study


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and not config.getoption("--slurm"):
        reason = "needs the machine for itself: make slurm"
    elif (reason := missing() or "") == "":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Properties of reports, and not a variable, since the tests may run in other processes."""
    passed = [report for report in terminalreporter.stats.get("passed", ()) if report.when == "call"]
    recoveries = [value for report in passed for name, value in report.user_properties if name == RECOVERY]
    if recoveries:
        terminalreporter.section(
            "seconds from a fault, or from the retry where one is needed, to training again"
        )
    for fault, seconds in recoveries:
        terminalreporter.write_line(f"{fault:40} {seconds:5.0f}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("slurm"))
    found.start()
    os.environ["SLURM_CONF"] = found.environment["SLURM_CONF"]
    yield found
    found.stop()
    del os.environ["SLURM_CONF"]


@pytest.fixture
def silent_cluster(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Another one, which preempts without a signal to the user's processes."""
    found = Cluster(tmp_path / "slurm", announces_preemption=False)
    found.start()
    monkeypatch.setenv("SLURM_CONF", found.environment["SLURM_CONF"])
    yield found
    found.stop()


@pytest.fixture
def study(cluster: Cluster, tmp_path: Path, record_property: Callable) -> Iterator[Study]:
    yield Study(cluster, tmp_path, record_property)
    cluster.tell("scancel", "-u", "root", check=False)
    deadline = time.monotonic() + 30
    while cluster.tell("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
        time.sleep(0.2)
