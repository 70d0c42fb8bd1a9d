"""`ablate completion`: completion with Tab in bash, zsh and fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ablate import commands
from ablate.cli.parsing import add_verb
from ablate.errors import UserError

WORDS = "--words"  # asks for the completions of the last of the words that follow
STUDY, RUN, LEVEL, KIND, INFRA = "STUDY", "RUN", "LEVEL", "KIND", "infra.KEY=VALUE"
OPERATOR = ("NAME", "NAME|FILE")
OVERRIDES = ("train", "plan")  # verbs whose words are those of Hydra

BASH = r"""
_ablate() {
    local line="${COMP_LINE:0:COMP_POINT}" word prefix
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    prefix="${word%"${word##*[=:]}"}"  # bash itself splits words at = and :
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" completion --words "${words[@]:1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} -eq 1 && $COMPREPLY == *= ]] && compopt -o nospace
    return 0
}
complete -o default -F _ablate ablate
"""
ZSH = r"""
_ablate() {
    local -a found whole open
    found=(${(f)"$("${words[1]}" completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    whole=(${found:#*=})
    open=(${(M)found:#*=})
    (( $#whole )) && compadd -Q -- $whole
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#found )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit -i }
compdef _ablate ablate
"""
FISH = r"""
function __ablate_complete
    set -l words (commandline -opc)
    set -l found ($words[1] completion --words $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ablate -f -a '(__ablate_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
INSTALL = {
    "bash": 'add to ~/.bashrc:  eval "$(ablate completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(ablate completion zsh)"',
    "fish": "ablate completion fish > ~/.config/fish/completions/ablate.fish",
}


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        completion,
        "completion with Tab of verbs, studies, runs and settings: "
        + "; ".join(f"{shell}: {how}" for shell, how in INSTALL.items()),
        "ablate completion bash",
    )
    sub.add_argument("shell", choices=tuple(SCRIPTS), help="the shell that reads what is printed")


def completion(arguments: argparse.Namespace) -> None:
    """Print the lines that a shell reads."""
    print(f"# {INSTALL[arguments.shell]}{SCRIPTS[arguments.shell]}", end="")


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return what the last of the words of a command line, without `ablate`, may become.

    Nothing is returned where files are meant, and the shell then offers those.
    """
    *before, current = words or [""]
    if before[:1] and before[0] in OVERRIDES:
        from ablate.compose.completion import overrides

        return overrides(before[1:], current)
    positions: list[str] = []
    while before and (verbs := _verbs(parser)) is not None:
        if before[0] not in verbs.choices:
            return []
        parser, before = verbs.choices[before[0]], before[1:]
    if (verbs := _verbs(parser)) is not None:
        return _beginning([*verbs.choices, *_options(parser)] if current else list(verbs.choices), current)
    place = Place(parser, before)
    if place.option is None and current.startswith("-"):
        return _beginning(_options(parser), current)
    with suppress(UserError, OSError):  # a damaged study has no levels to offer
        positions = place.choices()
    return _beginning(positions, current)


class Place:
    """The place of a word among the arguments of a verb: of an option, or positional."""

    def __init__(self, parser: argparse.ArgumentParser, before: Sequence[str]) -> None:
        actions = {name: action for action in parser._actions for name in action.option_strings}
        self.option: argparse.Action | None = None
        self.given: list[str] = []
        self.runs_dir: Path | None = None
        left = 0
        for word in before:
            if left:
                left -= 1
                if self.option is not None and self.option.dest == "runs_dir":
                    self.runs_dir = Path(word)
            elif word in actions:
                self.option = actions[word]
                left = self.option.nargs if isinstance(self.option.nargs, int) else 1
            else:
                self.given.append(word)
        self.option = self.option if left else None
        self.positionals = [action for action in parser._actions if not action.option_strings]

    @property
    def action(self) -> argparse.Action | None:
        """The argument that the word belongs to; the last one may have many words."""
        if self.option is not None or not self.positionals:
            return self.option
        return self.positionals[min(len(self.given), len(self.positionals) - 1)]

    def choices(self) -> list[str]:
        """Return the words that fit this place.

        Raises:
            UserError: a study whose levels are wanted cannot be read.
        """
        action = self.action
        if action is None:
            return []
        if action.choices is not None:
            return [str(choice) for choice in action.choices]
        if action.metavar in OPERATOR:
            from ablate.compose.completion import operators

            return operators()
        if action.metavar == KIND:
            from ablate.scaffold import TRIES

            return [*TRIES]
        if action.metavar == INFRA:
            from ablate.compose.completion import settings_of_infra

            return [f"{name}=" for name in settings_of_infra()]
        return self._of_runs(action)

    def _of_runs(self, action: argparse.Action) -> list[str]:
        from ablate.store import manifest

        runs_dir = self.runs_dir or commands.default_runs_dir()
        runs = sorted(path.parent.name for path in runs_dir.glob("*/config.yaml"))
        if action.metavar == STUDY:
            many = isinstance(action.nargs, str) and action.nargs == "+"
            if self.given and not many:
                return []
            return [name for name in manifest.names(runs_dir) if name not in self.given]
        if action.metavar == RUN:
            return runs
        if action.metavar in (LEVEL, "FACTOR=LEVEL") and self.given:
            levels = dict.fromkeys(
                f"{factor}={level}"
                for run in manifest.load(runs_dir, self.given[0]).runs
                for factor, level in run.factors.items()
            )
            return list(levels)
        return []


def _verbs(parser: argparse.ArgumentParser) -> argparse._SubParsersAction | None:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(found, None)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def _beginning(words: Iterable[str], current: str) -> list[str]:
    return [word for word in words if word.startswith(current)]
