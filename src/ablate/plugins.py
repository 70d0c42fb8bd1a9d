"""Plug-ins: modules from outside this package that add operators, hosts, data sets, metrics and callbacks.

They are found as entry points of the group `ablate.plugins`, in the environment variable ABLATE_PLUGINS, and
by `infra.plugins`, which names modules and Python files. `load` imports, once, those of entry points and of
the environment; `use` imports those that `infra.plugins` names; processes that are started later inherit the
names in the environment. Each kind of thing has a `Registry`. A folder `conf` beside a plug-in's module joins
Hydra's search path.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from ablate.errors import SOMEBODYS_OWN, UserError, place_of, require_name, unknown

__all__ = ["Registry", "broken", "load", "modules", "use"]

GROUPS = ("ablate.plugins", "ablate.operators")  # of entry points; the second is the earlier name
VARIABLES = ("ABLATE_PLUGINS", "ABLATE_OPERATORS")  # comma-separated modules and files; likewise
VARIABLE = VARIABLES[0]
COPIES = (
    "ABLATE_PLUGIN_COPIES"  # environment variable: a JSON file, from paths of files to those of their copies
)
CONF = "conf"
INSTALLED = ("site-packages", "dist-packages")
REGISTERING = (  # modules with a function that registers things
    "ablate.plugins",
    "ablate.callbacks",
    "ablate.data.catalogue",
    "ablate.hosts",
    "ablate.ops.registry",
    "ablate.store.metrics",
    "ablate.tasks.own",
)

Entry = TypeVar("Entry")

_broken: dict[str, str] = {}
_conf_dirs: list[Path] = []
_modules: list[str] = []  # of plug-ins, in the order in which they were loaded
_distributions: dict[str, str] = {}
_adding: list[
    list[tuple[dict, str]]
] = []  # what the plug-ins that are being loaded have added, the innermost last
_loaded: set[str] = set()  # names that `load` and `use` have seen


class Registry(dict[str, Entry]):
    """Things of one kind by name: those of this package, and those that plug-ins add.

    Args:
        kind: of a thing, with its article: `an operator`.
        own: adds those of this package, once, before the first question or the first addition.
    """

    def __init__(self, kind: str, own: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.kind, self._own = kind, own
        self.versions: dict[str, str] = {}
        self.modules: dict[str, str] = {}

    def add(self, name: str, entry: Entry, version: str = "") -> None:
        """Add a thing.

        Args:
            name: of the thing.
            entry: the thing.
            version: changed by hand where results change though no text does.

        Raises:
            UserError: the name is taken, or breaks the rule for names.
        """
        self._load_own()
        require_name(self.kind, name)
        if name in self:
            raise UserError(f"{self._bare} {name!r} is registered twice", "give the new one another name")
        self[name] = entry
        if version:
            self.versions[name] = str(version)
        if module := _registering():
            self.modules[name] = module
        if _adding:
            _adding[-1].append((self, name))

    def all(self) -> Registry[Entry]:
        """Return this registry with the things of all plug-ins in it."""
        self._load_own()
        load()
        return self

    def find(self, name: str) -> Entry:
        """Return a thing.

        Raises:
            UserError: unknown name; names the nearest one, and the plug-ins that could not be loaded.
        """
        if name not in self.all():
            raise with_broken(unknown(self._bare, name, self))
        return self[name]

    @property
    def _bare(self) -> str:
        return self.kind.partition(" ")[2]

    def _load_own(self) -> None:
        if self._own is not None:
            own, self._own = self._own, None
            _adding.append([])  # nothing of this is a plug-in's, also where a plug-in is the first to ask
            try:
                own()
            finally:
                _adding.pop()


def _registering() -> str:
    """Return the module that calls a function `register` of this package; empty if it is of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in REGISTERING:
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__", ""))
    return "" if name.partition(".")[0] in ("ablate", "importlib") else name


def load() -> None:
    """Import the plug-ins of entry points and of the environment, once. Those that fail are in `broken`."""
    if "" in _loaded:
        return
    _loaded.add("")
    for group in GROUPS:
        for point in entry_points(group=group):
            said = f"the entry point {point.name} ({point.value})"
            if _try(said, point.module) and point.dist is not None:
                _distributions[point.dist.name] = point.dist.version
    for variable in VARIABLES:
        for name in split(os.environ.get(variable, "")):
            if name not in _loaded:
                _loaded.add(name)
                _try(f"{name} (of {variable})", name)


def use(names: Iterable[str], *, strict: bool = False) -> None:
    """Import named plug-ins, unless they are loaded, and pass their names to processes started from now on.

    Args:
        names: modules, and Python files by their path.
        strict: a plug-in that fails is an error; else it is in `broken`.

    Raises:
        UserError: `strict`, and one of them fails.
    """
    load()
    for name in names:
        if name in _loaded:
            continue
        if _try(f"{name} (of infra.plugins)", name):
            _loaded.add(name)
        elif strict:
            said = f"{name} (of infra.plugins)"
            raise UserError(
                f"plug-in {name} cannot be loaded: {_broken.pop(said)}", "correct it, or its name"
            )
        else:
            _loaded.add(name)
    inherited = [*split(os.environ.get(VARIABLE, "")), *(name for name in names if name in _loaded)]
    if inherited:
        os.environ[VARIABLE] = ",".join(dict.fromkeys(inherited))


def split(text: str) -> list[str]:
    """Return the names in a text, where commas separate them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def absolute(name: str) -> str:
    """Return the name of a plug-in as it is from any folder: a file by its absolute path.

    Raises:
        UserError: the path has a comma in it, which separates plug-ins in the environment.
    """
    if "," in name:
        raise UserError(f"infra.plugins: {name!r} has a comma in it", "rename the file or its folder")
    return str(Path(name).expanduser().absolute()) if is_file(name) else name


def is_file(name: str) -> bool:
    """Return True for the path of a Python file, False for the name of a module."""
    return name.endswith(".py")


def broken() -> dict[str, str]:
    """Return the plug-ins that cannot be loaded, each with the reason in one line."""
    load()
    return dict(_broken)


def report_broken(what: str, reason: str) -> None:
    """Add a line to `broken`, of a part of a plug-in that cannot be used."""
    _broken[what] = reason


def lines_of_broken() -> list[str]:
    """Return a line for each plug-in that cannot be loaded."""
    return [f"not loaded: {plugin}: {reason}" for plugin, reason in broken().items()]


def with_broken(refused: UserError) -> UserError:
    """Return an error for a name that is not known, with the plug-ins that may have it but are not loaded."""
    return UserError("\n  ".join([refused.problem, *lines_of_broken()]), refused.way_out)


def modules() -> list[str]:
    """Return the names of the modules of plug-ins that are loaded."""
    return list(_modules)


def distributions() -> dict[str, str]:
    """Return the installed packages that plug-ins are from, with their versions."""
    return dict(_distributions)


def conf_dirs() -> list[Path]:
    """Return the folders of configuration of the plug-ins that are loaded."""
    return list(_conf_dirs)


def _conf_dir_of(module: str) -> Path | None:
    """Return the folder `conf` beside a module; None if there is none.

    One beside a module that is in no package and is installed belongs to nobody in particular.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.has_location or found.origin is None:
        return None
    folder = Path(found.origin).resolve().parent
    shared = folder.name in INSTALLED
    return folder / CONF if (folder / CONF).is_dir() and not shared else None


def import_file(path: str) -> str:
    """Import a Python file, if it is not imported yet, and return the name of its module.

    Files beside it can be imported from it. In a job that runs from a copy of the code, it is the file's
    copy.

    Raises:
        UserError: there is no such file, it fails, or its name is that of another module.
    """
    given = Path(path).expanduser().resolve()
    file = Path(_copies().get(str(given), given))
    if not file.is_file():
        raise UserError(f"no file {path}", "give the path of a Python file that registers something")
    loaded = (key for key, one in list(sys.modules.items()) if getattr(one, "__file__", None) == str(file))
    if (name := next(loaded, None)) is not None:
        return name
    name = file.stem
    importlib.invalidate_caches()
    other = importlib.util.find_spec(name) if name.isidentifier() else None
    if not name.isidentifier() or (other is not None and other.origin != str(file)):
        raise UserError(
            f"{path} cannot be imported: {name!r} is not a name of a module, or that of another one",
            "rename the file",
        )
    sys.path.insert(0, str(file.parent))
    try:
        _import(name)
    except (Exception, SystemExit) as error:  # the file is somebody's own: it may raise anything
        sys.path.remove(str(file.parent))
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} cannot be imported: {type(error).__name__}: {error}{place_of(error)}", "correct it"
        ) from error
    return name


def original(path: str) -> str:
    """Return the path of the file that a path is the copy of, in a job that runs from copies; else itself."""
    return next((source for source, copy in _copies().items() if copy == path), path)


def _copies() -> dict[str, str]:
    """Return the paths of the copies that a job of a snapshot runs from, by those of the files."""
    if not (place := os.environ.get(COPIES)):
        return {}
    found: dict[str, str] = json.loads(Path(place).read_text(encoding="utf-8"))
    return found


def _try(said: str, name: str) -> bool:
    """Import a plug-in; note the reason and return False if that fails."""
    try:
        if is_file(name):
            import_file(name)
        else:
            _import(name)
    except (Exception, SystemExit) as error:  # the module is somebody's own: it may raise anything
        first = (str(error).splitlines() or [""])[0]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        _broken[said] = f"{kind}{first}{place_of(error)}"
        return False
    return True


def _import(module: str) -> None:
    """Import the module of a plug-in; its configuration is known before, since a registration may read it."""
    top = importlib.util.find_spec(module.partition(".")[0])
    if top is not None and top.submodule_search_locations:
        SOMEBODYS_OWN.update(map(Path, top.submodule_search_locations))
    with _undone_on_failure():
        folder = _conf_dir_of(module)
        new = folder is not None and folder not in _conf_dirs
        if folder is not None and new:
            _conf_dirs.append(folder)
        try:
            importlib.import_module(module)
        except BaseException:
            if folder is not None and new:
                _conf_dirs.remove(folder)
            raise
    if module not in _modules:
        _modules.append(module)


@contextmanager
def _undone_on_failure() -> Iterator[None]:
    """Remove what a plug-in has added if it fails in the block."""
    _adding.append([])
    try:
        yield
    except BaseException:
        for registry, name in _adding[-1]:
            registry.pop(name, None)
        raise
    finally:
        added = _adding.pop()
        if _adding:
            _adding[-1] += added
