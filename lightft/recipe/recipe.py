"""Recipe: everything an analysis is made of, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from lightft.errors import InvalidSettingError, LightFTError, suggest
from lightft.metrics.metric import METRICS
from lightft.recipe.parts import RecipeAdapter, RecipeComparison, RecipeData, RecipeModel, check_report
from lightft.sweeping.budget import Budget
from lightft.sweeping.candidates import LEARNING_RATES, Candidate, LearningRates, candidates_of, seeds_of
from lightft.sweeping.search import Search
from lightft.tracking import Tracking
from lightft.train_config import TrainConfig

__all__ = ["Recipe", "mistakes_in"]


@dataclass(frozen=True)
class Recipe:
    """A whole analysis: which adapters are trained on which base and data, how, and how they are compared.

    A YAML file has the same fields, read by ``from_yaml`` and written by ``to_yaml``.

    Attributes:
        model: the base.
        data: what is learned.
        adapters: what is trained.
        training: fields of TrainConfig for all runs.
        seeds: how many, counted from 0, or which.
        budget: what every run may spend, in the place of ``training.epochs``.
        learning_rates: ``"default"`` or ``"chosen"``, as for ``sweep``.
        search: settings to search for each adapter.
        compare: how the runs are compared.
        report: files to write; the suffix says how.
        track: trackers that each run and the comparison are sent to, such as ``"mlflow"``.
        output_dir: where the runs are written.

    Raises:
        InvalidSettingError: the parts contradict each other; the message names every contradiction.
    """

    model: RecipeModel
    data: RecipeData
    adapters: tuple[RecipeAdapter, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | tuple[int, ...] = 3
    budget: Budget | None = None
    learning_rates: LearningRates = "default"
    search: Search | None = None
    compare: RecipeComparison = field(default_factory=RecipeComparison)
    report: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    output_dir: str = "runs"

    def __post_init__(self) -> None:
        found = [message for _, message in mistakes_in({item.name: getattr(self, item.name) for item in fields(self)})]
        if found:
            raise InvalidSettingError("\n".join(found))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            InvalidSettingError: the file cannot be read as a recipe; the message names every mistake in it with its line
                and column.
        """
        from lightft.recipe.reading import read_recipe

        return read_recipe(Path(path))

    def to_yaml(self) -> str:
        """Return the text of a file that ``from_yaml`` reads as an equal recipe."""
        from lightft.recipe.writing import yaml_of

        return yaml_of(self)

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the adapters with every grid written out."""
        return candidates_of([candidate for adapter in self.adapters for candidate in adapter.candidates()])


def mistakes_in(parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between the parts of a recipe: the dotted name of a field, and a message.

    Args:
        parts: the fields of a recipe; those with mistakes of their own are left out.
    """
    training: Mapping[str, Any] = parts.get("training") or {}
    budget, search, learning_rates = parts.get("budget"), parts.get("search"), parts.get("learning_rates", "default")
    if "seed" in training:
        yield "training.seed", "A recipe has seeds, so that training cannot have a seed. Use seeds: [0, 1, 2]."
    yield from _failing("training", lambda: TrainConfig.from_settings(training))
    if budget is not None:
        yield from _failing("budget", lambda: budget.applied_to(training))
    if learning_rates not in LEARNING_RATES:
        yield "learning_rates", f"learning_rates is {learning_rates!r}. {suggest(str(learning_rates), LEARNING_RATES)}"
    if learning_rates == "chosen" and search is not None:
        yield (
            "learning_rates",
            "Either learning_rates: chosen or a search finds the learning rate. Leave one out, and put learning_rate into "
            "the search's space.",
        )
    if learning_rates == "chosen" and training.get("learning_rate") is not None:
        yield (
            "training.learning_rate",
            "learning_rates: chosen chooses a rate for each method. Leave one of the two out.",
        )
    seeds = parts.get("seeds", 1)
    yield from _failing("seeds", lambda: seeds_of(seeds))
    yield from _mistakes_of_adapters(parts, search)
    metric = parts["compare"].metric if "compare" in parts else None
    if metric is not None and metric not in METRICS:
        yield "compare.metric", f"There is no metric {metric!r}. {suggest(metric, METRICS)}"
    for place, path in enumerate(parts.get("report", ())):
        yield from _failing(f"report[{place}]", partial(check_report, path))
    for place, tracker in enumerate(parts.get("track", ())):
        yield from _failing(f"track[{place}]", partial(Tracking, tracker))


def _mistakes_of_adapters(parts: Mapping[str, Any], search: Search | None) -> Iterator[tuple[str, str]]:
    if "adapters" not in parts:
        return
    made = [candidate for adapter in parts["adapters"] for candidate in adapter.candidates()]
    yield from _failing("adapters", lambda: candidates_of(made))
    baseline = parts["compare"].baseline if "compare" in parts else None
    names = [candidate.name for candidate in made]
    if baseline is not None and baseline not in names:
        yield "compare.baseline", f"There is no adapter called {baseline!r}. {suggest(baseline, names)}"
    if search is not None:
        for candidate in made:
            yield from _failing("search.space", partial(search.check_adapter, candidate.adapter))


def _failing(name: str, check: Callable[[], Any]) -> Iterator[tuple[str, str]]:
    try:
        check()
    except LightFTError as error:
        yield name, str(error)
