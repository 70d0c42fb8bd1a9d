"""Search space of a search, read from Hydra's sweep syntax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer

from ablate.errors import UserError, unknown

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """Search space: parameters in the order in which they are drawn, and overrides common to all trials.

    Attributes:
        distributions: parameter → distribution.
        fixed: override → value, as typed.
        conditions: parameter → {another parameter or override: levels for which it is drawn}.
        keys: parameter or override → its key as typed, with a leading `+` where there was one.
    """

    distributions: dict[str, BaseDistribution]
    fixed: dict[str, str]
    conditions: dict[str, dict[str, set[str]]]
    keys: dict[str, str]

    def draw(self, trial: optuna.Trial) -> list[str]:
        """Draw a level of each parameter whose conditions hold; return the trial's overrides."""
        levels = dict(self.fixed)
        for name, distribution in self.distributions.items():
            wanted = self.conditions.get(name, {})
            if all(levels.get(other) in accepted for other, accepted in wanted.items()):
                levels[name] = str(trial._suggest(name, distribution))
        return self._typed(levels)

    def drawn(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial that was drawn before."""
        return self._typed({**self.fixed, **{name: str(value) for name, value in params.items()}})

    def _typed(self, levels: Mapping[str, str]) -> list[str]:
        return [f"{self.keys[name]}={level}" for name, level in levels.items()]


def read_space(overrides: Sequence[str], conditions: Mapping[str, Mapping[str, Any]]) -> Space:
    """Read Hydra's sweep syntax as a search space.

    `choice(a,b)` or `a,b` draws from a list, `range(1,9,2)` from these numbers, `interval(1e-4,1e-2)` from an
    interval, `int(interval(1,9))` from its whole numbers, `tag(log, interval(…))` from its logarithm.

    Raises:
        UserError: nothing is to be searched, or a condition names one that is drawn later or never.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    distributions = {str(o.key_or_group): _distribution(o) for o in parsed if o.is_sweep_override()}
    fixed = {
        str(override.key_or_group): override.get_value_element_as_str()
        for override in parsed
        if not override.is_sweep_override() and str(override.key_or_group) not in distributions
    }
    if not distributions:
        raise UserError(
            "the search has nothing to draw",
            "give a parameter several values: 'recipe.learning_rate=tag(log, interval(1e-4, 1e-2))'",
        )
    read: dict[str, dict[str, set[str]]] = {}
    order = [*fixed, *distributions]
    for name, wanted in conditions.items():
        if name not in distributions:
            raise unknown("parameter of hydra.sweeper.conditions:", str(name), distributions)
        earlier = order[: order.index(name)]
        for other, levels in wanted.items():
            if other not in earlier:
                raise unknown(f"condition of {name}, which must be drawn before it:", str(other), earlier)
            accepted = levels if isinstance(levels, (list, tuple)) else [levels]
            read.setdefault(name, {})[other] = {str(level) for level in accepted}
    keys = {str(override.key_or_group): override.get_key_element() for override in parsed}
    return Space(distributions, fixed, read, keys)


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if override.is_interval_sweep():
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(value.start, value.end, log=log)
    if override.is_range_sweep() and not value.shuffle:
        numbers = list(value.range())
        if len(numbers) > 1 and numbers[1] > numbers[0]:
            step = numbers[1] - numbers[0]
            whole = all(isinstance(number, int) for number in numbers)
            kind: Any = IntDistribution if whole else FloatDistribution
            return kind(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution([str(x) for x in override.sweep_iterator(transformer=Transformer.encode)])
