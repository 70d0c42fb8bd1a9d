"""The reference of the configuration, from the files in conf and their comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from generate import ROOT, Pages
from generate.files import link
from generate.markdown import plain, table, toctree

CONF = ROOT / "conf"
GROUPS = {
    "op": "The operator. One choice per operator of the zoo; its two axes are four groups below.",
    "op/channel": "The channel setting: how many filters there are over the channels.",
    "op/region": "The region: which positions around a position take part.",
    "op/weights": "The weights: which computation generates the filter weights.",
    "op/norm": "The norm: what is done to the weights over the positions of the region.",
    "host": "The host: the network whose slots the operator fills.",
    "data": "The data set.",
    "task": "The task: what the network is trained for, and by which metrics it is judged.",
    "recipe": "The recipe: how the network is trained.",
    "study": "A study: baseline, factors and seeds. A study sets the other groups itself.",
    "variant": "A variant: one named condition of a study that is a path and not a product of factors.",
    "infra": "Infrastructure: where and how runs are computed. This group is outside the identity of a run.",
}


@dataclass(frozen=True)
class Setting:
    """One line of a configuration file: `path` is dotted, `meaning` is its comment."""

    path: str
    default: str
    meaning: str


def write(pages: Pages) -> None:
    """Write reference/configuration/*.md."""
    names = ["index"]
    rows = []
    for group, meaning in GROUPS.items():
        name = group.replace("/", "-")
        names.append(name)
        choices = sorted(_choices(group))
        rows.append((f"[`{group}`]({name}.md)", meaning, str(len(choices))))
        pages.write(f"reference/configuration/{name}.md", _group(group, meaning, choices))
    head, settings = read(CONF / "train.yaml")
    top = [setting for setting in settings if not setting.path.startswith(("defaults", "hydra"))]
    index = [
        "# Configuration",
        "A run is described by one choice from each group and by settings within the choices. Choose with "
        "`group=choice`, change with `group.setting=value`; `ablate train --cfg job` prints the result "
        "without running it. These pages are generated from the files in `conf/` and their comments.",
        "## Groups",
        table(["group", "what it chooses", "choices"], rows, "llr"),
        "## Settings at the top",
        f"From {link('conf/train.yaml', depth=2)}: {head[0].lower()}{head[1:]}",
        _table(top),
        toctree(names[1:], "hidden"),
    ]
    pages.write("reference/configuration/index.md", "\n\n".join(index) + "\n")


def _choices(group: str) -> Iterator[str]:
    folder = CONF / group
    deep = group in ("study", "variant")
    for path in folder.rglob("*.yaml") if deep else folder.glob("*.yaml"):
        yield path.relative_to(folder).with_suffix("").as_posix()


def _group(group: str, meaning: str, choices: list[str]) -> str:
    parts = [f"# `{group}`", meaning]
    if group == "op":
        parts.append("[The zoo](../../zoo/index.md) has a page for each, with its equation and its settings.")
    for choice in choices:
        path = CONF / group / f"{choice}.yaml"
        head, settings = read(path)
        source = link(path.relative_to(ROOT).as_posix(), depth=2)
        title = f"`{group}={choice}`" if group != "infra" else "Settings"
        parts += [f"## {title}", f"{plain(head)} ({source})"]
        if group in ("study", "variant"):
            continue
        prefix = f"{group.replace('/', '.')}."
        everywhere = "@package _global_" in path.read_text(encoding="utf-8")  # the file gives whole paths
        shown = [setting for setting in settings if setting.path not in ("name", f"{group}.name", group)]
        inherited = [setting for setting in shown if setting.path.startswith("defaults")]
        shown = [
            replace(setting, path=setting.path and f"{'' if everywhere else prefix}{setting.path}")
            for setting in shown
            if setting not in inherited
        ]
        if group == "op" and (ROOT / "docs/generated/zoo" / f"{choice}.md").exists():
            shown = []
        if shown:
            parts.append(_table(shown))
    return "\n\n".join(parts) + "\n"


def _table(settings: list[Setting]) -> str:
    rows = []
    for each in settings:
        path, default = (f"`{text}`" if text else "" for text in (each.path, each.default))
        rows.append((path, default, plain(each.meaning) if each.path else f"**{plain(each.meaning)}**"))
    return table(["setting", "default", "meaning"], rows)


def read(path: Path) -> tuple[str, list[Setting]]:
    """Return the comment at the head of a file, and its settings with their comments.

    A comment is after its setting, or on lines of its own before it; a comment that continues is
    indented on the next line.
    """
    head: list[str] = []
    settings: list[Setting] = []
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            text = stripped.lstrip("# ")
            deep = len(line) - len(line.lstrip())
            if not settings and not parents:
                head.append(text)
            elif deep > 20 and settings:  # the comment of the line before continues
                last = settings.pop()
                settings.append(Setting(last.path, last.default, f"{last.meaning} {text}"))
            else:
                above.append(text)
            continue
        match = re.match(r"(\s*)([\w/]+):(?:\s+|$)(.*)", line)
        if match is None:
            if not stripped:
                above = []
            continue
        depth, key, rest = len(match[1]), match[2], match[3]
        while parents and parents[-1][0] >= depth:
            parents.pop()
        value, meaning = _split(rest)
        dotted = ".".join([*(name for _, name in parents), key])
        if not value:
            parents.append((depth, key))
            if above and not dotted.startswith(("defaults", "hydra")):
                settings.append(Setting(dotted, "", " ".join(above)))
        else:
            if above and meaning:  # a heading over several settings
                settings.append(Setting("", "", " ".join(above)))
                above = []
            settings.append(Setting(dotted, value, meaning or " ".join(above)))
        above = []
    return " ".join(text for text in head if not text.startswith("@package")), settings


def _split(rest: str) -> tuple[str, str]:
    """Return value and comment of a line behind its key."""
    if rest.startswith("#"):
        return "", rest.lstrip("# ")
    value, _, meaning = rest.partition(" #")
    return value.strip(), meaning.strip()
