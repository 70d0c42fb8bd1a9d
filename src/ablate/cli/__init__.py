"""The command line: `ablate VERB`, a module for each kind of verb.

Each verb imports what it needs when it runs: none but those that compute load torch. `main` is the console
script; `train` hands the rest to Hydra. Start reading here.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablate.cli import bench, published, study, zoo
from ablate.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

USER_ERROR = 2  # exit code for what the user can mend


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["train"]:
            train(given[1:])
            return
        parsed = parse(given)
        parsed.verb(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except BrokenPipeError:  # `ablate ops | head`
        sys.stderr.close()
    except OSError as error:  # a full disk, a folder that cannot be written: the message says which
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def train(arguments: list[str]) -> None:
    """Hand the rest of the command line to Hydra.

    Raises:
        UserError: a setting or choice that does not exist, or a run that cannot.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    from ablate.compose.catalogue import publish_operators
    from ablate.compose.explanation import explain, explained
    from ablate.configuration import conf_dir
    from ablate.launch.launchers import request, run_inline, run_study
    from hydra_plugins.ablate_launchers import publish_sweeper

    sys.argv = ["ablate train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out as they are, to be explained here
    warnings.filterwarnings("ignore", message=".*overriding with `hydra.mode=MULTIRUN`.*")
    publish_operators()
    Plugins.instance()  # loads all of them
    publish_sweeper()
    single: list[tuple[DictConfig, list[str]]] = []

    def remember(config: DictConfig) -> None:
        """Hydra's task for a single run, which starts when Hydra has ended; sweeps go through a launcher."""
        typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        single.append((config, typed))

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(remember)()
        requests = [request(config, overrides) for config, overrides in single]
    except Exception as error:
        if not explained(error):
            raise
        raise explain(error, arguments) from error
    if requests:
        run_study(requests, run_inline)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of any verb but `train`; settings may stand before, between and after options."""
    parser = _parser()
    parsed, left = parser.parse_known_args(given)
    if left:  # argparse looks for positional arguments once, before the first option
        if not hasattr(parsed, "overrides") or any(word.startswith("-") for word in left):
            parser.error(f"unrecognized arguments: {' '.join(left)}")
        parsed.overrides = [*parsed.overrides, *left]
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate",
        description="Ablation studies of local vision operators.",
        epilog="example:\n  ablate train study=quick hydra/launcher=local\n  ablate report quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="train one run or a study (Hydra's syntax; see `ablate train --help`)")
    study.add(verbs)
    zoo.add(verbs)
    bench.add(verbs)
    published.add(verbs)
    return parser


class _Version(argparse.Action):
    """Reads the version only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ablate

        print(f"ablate {ablate.__version__}")
        parser.exit()
