"""Identity of code: digests of the modules that compute a run, and whether runs were computed by the same.

A digest is of a module's text without comments, docstrings and layout. Which modules compute a run is found
by following the import statements of those in which its network, task, data set and training loop are
defined, to modules of this package and of their own, and to all that are not installed; the versions of other
packages are in environment.json. Compiled forms of a kernel are left out: tests hold them
to the reference beside them, which is included.

In environment.json: {"code": {"digests": {"ablate.ops.local": "0f…", …}, "paths": {"my_operator": "/…"}}}.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ablate import plugins

OWN = "ablate"
ROOT = Path(__file__).resolve().parents[1]
FOLLOWED = tuple(
    f"{OWN}.{room}."
    for room in ("ops", "kernels", "hosts", "models", "official", "tasks", "data", "training")
)
# They compute a run only where it begins with weights that `task.init` or `host.pretrained` names, and are
# entries then.
INITIAL, PRETRAINED = "ablate.tasks.initial", "ablate.tasks.pretrained"
# They name every operator, task or data set, of which a run uses one.
REGISTRIES = ("ablate.ops", "ablate.ops.registry", "ablate.tasks", "ablate.data.catalogue")
LISTS = ("ablate.hosts",)  # it names every host, and has code of its own: its imports are not followed
COMPILED = ("numba", "triton", "_numba", "_triton", "selfcheck")  # parts of names of modules
# They show a run or keep it, and change none of its figures.
BESIDE = (
    *(
        f"ablate.training.{name}"
        for name in (
            "callbacks",
            "checkpoint",
            "context",
            "cores",
            "memory",
            "operators",
            "progress",
            "provenance",
        )
    ),
    *("ablate.training.readback", "ablate.training.utilization", INITIAL, PRETRAINED),
)
LIBRARIES = ("torch", "torchvision", "timm", "numpy")  # of which the versions are recorded
DATA, SIZES, VERSION = "data ", "sizes of data ", "version of "  # before the names of what is not a module
DIGITS = 16
UNREADABLE = "unreadable"  # instead of a digest; a run with it is stale
UNRECORDED = "code that was not recorded"  # of an attempt that a run resumes
EQUAL = ROOT / "store" / "equal_code.json"

Record = Mapping[str, Any]  # environment.json


class Code(NamedTuple):
    """The code that computes a run.

    Attributes:
        digests: of modules by name, and of what else decides figures, such as the data.
        paths: files of the modules outside this package.
        libraries: names of the installed packages that these import.
    """

    digests: dict[str, str]
    paths: dict[str, str]
    libraries: set[str]


def collect(entries: Iterable[str]) -> Code:
    """Return the code that modules consist of: themselves, and what they import of the same package.

    Args:
        entries: names of modules; those of libraries are left out.
    """
    found: dict[str, Path] = {}
    libraries: set[str] = set()
    entries = set(entries)
    waiting = [name for name in entries if name.partition(".")[0] not in LIBRARIES]
    while waiting:
        name = waiting.pop()
        if name in found or not (_counts(name) or name in entries) or (path := _file(name)) is None:
            continue
        found[name] = path
        if name in LISTS:
            continue
        for other in _imported(name, path):
            if _belongs(other, name, path):
                waiting.append(other)
            elif not _is_ours(name):
                libraries.add(other.partition(".")[0])
    digests = {name: _loaded(path) for name, path in sorted(found.items())}
    paths = {name: plugins.original(str(found[name])) for name in digests if not _is_ours(name)}
    return Code(digests, paths, libraries - sys.stdlib_module_names)


@cache
def _loaded(path: Path) -> str:
    """Return a file's digest as this process first saw it: a module that changes is not loaded again."""
    return digest_of(path) or UNREADABLE


def changed(record: Record, today: Mapping[str, str] | None = None) -> list[str]:
    """Return the modules of a run's record whose text is another one today, in alphabetical order.

    What is no longer on disk is not compared. A run that was computed before code was recorded has none.

    Args:
        record: environment.json.
        today: digests, as they are now, of what is not a module, such as the data.
    """
    code = record.get("code") or {}
    paths = code.get("paths") or {}
    names = []
    for name, then in (code.get("digests") or {}).items():
        if today is not None and name in today:
            names += [] if today[name] == then else [name]
            continue
        path = _file(name) if _is_ours(name) else Path(paths[name]) if name in paths else None
        if path is None:
            continue
        now = digest_of(path)
        if not _is_ours(name) and not path.exists():
            continue
        if now is None or not same(name, then, now):
            names.append(name)
    return sorted([*names, *(code.get("resumed") or [])])


def has_data(record: Record) -> bool:
    """Return True if a run's record has a digest of its data."""
    return any(name.startswith(DATA) for name in (record.get("code") or {}).get("digests") or ())


def changed_in_each(records: Iterable[tuple[Record, Mapping[str, str] | None]]) -> list[list[str]]:
    """Return `changed` of each record with what is so today; those of one code are compared once."""
    compared: dict[str, list[str]] = {}
    found = []
    for record, today in records:
        key = json.dumps([record.get("code"), today], sort_keys=True)
        if key not in compared:
            compared[key] = changed(record, today)
        found.append(compared[key])
    return found


def differing(records: Mapping[str, Record]) -> dict[str, list[list[str]]]:
    """Return modules, and data, of which runs have different ones: the runs of each, the most first.

    Args:
        records: environment.json by signature. Runs without a record of their code are compatible with all.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for signature, record in records.items():
        code = record.get("code") or {}
        for name, now in (code.get("digests") or {}).items():
            digest = f"{now} after another" if name in (code.get("resumed") or ()) else now
            kept = groups.setdefault(name, {})
            alike = next((other for other in kept if same(name, other, digest)), digest)
            kept.setdefault(alike, []).append(signature)
    return {
        name: sorted(kept.values(), key=len, reverse=True)
        for name, kept in sorted(groups.items())
        if len(kept) > 1
    }


def short(record: Record | None) -> str | None:
    """Return 8 hex digits of all code of a run; None if it is not known."""
    if not known(record):
        return None
    assert record is not None
    text = json.dumps([record["code"].get("digests"), record["code"].get("resumed")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def known(record: Record | None) -> bool:
    """Return True if a run's record says which code computed it."""
    return bool(record and record.get("code"))


def same(name: str, one: str, other: str) -> bool:
    """Return True if two digests of a module are equal, or declared to compute the same bits."""
    return one == other or any({one, other} <= set(group) for group in _equal().get(name, ()))


def digest_of_module(name: str) -> str | None:
    """Return the digest of a module's file; None if there is none."""
    path = _file(name)
    return None if path is None else digest_of(path)


def digest_of(path: Path) -> str | None:
    """Return 16 hex digits of a source file without comments, docstrings and layout; None if unreadable."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return None


@cache
def _digest(path: Path, modified: int, size: int) -> str:  # the last two: of which state of the file
    return digest_of_text(_text(path))


def _text(path: Path) -> str:
    """Return a source text in the encoding that it states."""
    with tokenize.open(path) as stream:
        return stream.read()


def _tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file; that of nothing if it cannot be read."""
    try:
        return ast.parse(_text(path))
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def digest_of_text(text: str) -> str:
    """Return 16 hex digits of the tokens of a source text, without comments, docstrings and layout.

    Raises:
        SyntaxError: it is not Python.
    """
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
        and isinstance(node.body[0].value.value, str)
    }
    whole = hashlib.sha256()
    for token in _tokens(text, docstrings):
        whole.update(token.encode() + b"\0")
    return whole.hexdigest()[:DIGITS]


def _tokens(text: str, docstrings: set[tuple[int, int]]) -> Iterator[str]:
    """Yield tokens, strings with fields as one token, as Python had them before 3.12."""
    lines = text.splitlines(keepends=True)
    depth, begun, dropped = 0, (0, 0), False
    for kind, string, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[kind]
        if name in ("FSTRING_START", "TSTRING_START"):
            begun = begun if depth else start
            depth += 1
        elif name in ("FSTRING_END", "TSTRING_END"):
            depth -= 1
            if not depth:
                yield _between(lines, begun, end)
        elif depth or name in ("COMMENT", "NL", "ENDMARKER", "ENCODING"):
            continue
        elif name == "NEWLINE" and dropped:  # of a docstring
            dropped = False
        elif name in ("INDENT", "DEDENT", "NEWLINE"):
            yield name
        elif name == "STRING" and start in docstrings:
            dropped = True
        else:
            yield string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    rows = lines[start[0] - 1 : end[0]]
    rows[-1] = rows[-1][: end[1]]
    rows[0] = rows[0][start[1] :]
    return "".join(rows)


def _is_ours(name: str) -> bool:
    return name == OWN or name.startswith(f"{OWN}.")


def _counts(name: str) -> bool:
    if not _is_ours(name):
        return True
    parts = name.split(".")
    return (
        f"{name}.".startswith(FOLLOWED)
        and name not in (*REGISTRIES, *BESIDE)
        and not any(part in COMPILED for part in parts)
    )


def _belongs(other: str, name: str, path: Path) -> bool:
    """Return True if an imported module is of the importing one's package, or not of an installed library.

    A file beside that of the importing module, or in a folder beside it, is somebody's own in any place.
    """
    if _is_ours(other) or other.partition(".")[0] == name.partition(".")[0]:
        return True
    file = _file(other)
    if file is None:
        return False
    return not is_installed(file) or ("." not in name and file.is_relative_to(path.parent))


def is_installed(path: Path) -> bool:
    """Return True for a file of Python's own library, or of what is installed beside it."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    return path.is_relative_to(standard) or bool({"site-packages", "dist-packages"} & set(path.parts))


def _file(name: str) -> Path | None:
    """Return the file of a module without importing it; None if there is none."""
    if _is_ours(name):
        path = ROOT.joinpath(*name.split(".")[1:])
    else:
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded is not None:
            return Path(loaded) if loaded.endswith(".py") else None
        top, *rest = name.split(".")
        base = getattr(sys.modules.get(top), "__file__", None)
        if base is None or not rest:
            return None
        path = Path(base).parent.joinpath(*rest)
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _imported(name: str, path: Path) -> set[str]:
    """Return the modules that a module's import statements lead to, through names that packages pass on."""
    tree = _tree(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    packages: dict[str, str] = {}  # by the name that they are bound to
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                target = _resolved(base, alias.name)
                if target is not None and _is_package(target) and target == f"{base}.{alias.name}":
                    packages[alias.asname or alias.name] = target
                elif target is not None:
                    found.add(target)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of = packages.get(node.value.id)
            if of is not None and (target := _resolved(of, node.attr)) is not None:
                found.add(target)
    return found


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _resolved(base: str, name: str) -> str | None:
    """Return the module that a name of another module is defined in."""
    if _file(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    path = _file(base)
    if path is None or path.name != "__init__.py":
        return None if path is None else base
    passed_on = _passed_on(base, path).get(name)
    return base if passed_on is None else _resolved(*passed_on)


@cache
def _passed_on(package: str, path: Path) -> dict[str, tuple[str, str]]:
    """Return by the names that a package imports from elsewhere the module, and the name there."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (base := _base(node, package)) != package:
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, (base, alias.name))
    return found


def _is_package(name: str) -> bool:
    path = _file(name)
    return path is not None and path.name == "__init__.py"


@cache
def _equal() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = json.loads(EQUAL.read_text(encoding="utf-8"))
    return found
