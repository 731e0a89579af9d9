"""The ``lightft`` command: each verb is a thin call of the library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lightft import __version__
from lightft.cli import export, extract, serve
from lightft.errors import LightFTError
from lightft.records import Run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 1 done in part, 2 refused with a message.

    2 is also how argparse refuses what it cannot read, and 1 what Python returns for an exception that nobody foresaw.
    """
    parser = argparse.ArgumentParser(prog="lightft", description="Fine-tune, compare and use language models.")
    parser.add_argument("--version", action="version", version=f"lightft {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_compare(verbs.add_parser("compare", help="compare saved runs"))
    _add_run(verbs.add_parser("run", help="train, compare and report what a recipe says"))
    _add_predict(verbs.add_parser("predict", help="answer texts with an adapter or a checkpoint"))
    export.add_arguments(verbs.add_parser("export", help="turn an adapter into what works without lightft"))
    extract.add_arguments(
        verbs.add_parser("extract", help="find the entities of a file of texts with a language model")
    )
    serve.add_arguments(verbs.add_parser("serve", help="answer requests over HTTP"))
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked))
    except LightFTError as error:
        print(f"lightft: {error}", file=sys.stderr)
        return 2


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="folders that fit() wrote; NAME=FOLDER gives one another name")
    parser.add_argument("--baseline", help="name of the method or run the others are compared with")
    parser.add_argument("--metric", help="the headline metric; by default the runs' own first")
    parser.add_argument(
        "--on", choices=("all", "common"), default="all", help="common: only the examples that all runs have"
    )
    parser.add_argument("--correction", choices=("holm", "benjamini-hochberg"), default="holm")
    parser.add_argument(
        "--selected-on-test",
        choices=("refuse", "warn"),
        default="refuse",
        help="what to do with runs that are scored on the examples that chose their best epoch",
    )
    parser.add_argument("--data", help="the data of the runs, for what needs their texts")
    parser.add_argument("--include-text", action="store_true", help="write texts of --data into the reports")
    parser.add_argument("--html", type=Path, help="write an HTML report")
    parser.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        help="write a report; its suffix says which: .html, .md, .tex, .csv, .parquet, .svg or .json",
    )
    parser.set_defaults(run=_compare)


def _compare(asked: argparse.Namespace) -> int:
    from lightft.comparator import ModelComparator

    texts = {}
    if asked.data is not None:
        # Reading data sets is not needed to compare runs, and slow to import.
        from lightft.data import load_data

        data = load_data(asked.data)
        texts = {"examples": data.test or data.validation, "train": data.train}
    comparison = ModelComparator(correction=asked.correction).compare(
        _named_runs(asked.runs),
        baseline=asked.baseline,
        metric=asked.metric,
        on=asked.on,
        selected_on_test=asked.selected_on_test,
        **texts,
    )
    print(comparison)
    for path in [*([asked.html] if asked.html else []), *asked.report]:
        print(f"Wrote {comparison.save(path, include_text=asked.include_text)}")
    return 0


def _named_runs(given: Sequence[str]) -> list[Run]:
    """Return the runs of ``FOLDER`` and ``NAME=FOLDER`` arguments."""
    runs = []
    for argument in given:
        name, equals, folder = argument.partition("=")
        if equals and not Path(argument).exists():
            runs.append(replace(Run.load(folder), name=name))
        else:
            runs.append(Run.load(argument))
    return runs


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a YAML file; see the docs on sweeps")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be trained, and what it would cost")
    parser.add_argument("--data", help="read the data from here instead of where the recipe says")
    parser.add_argument("--output-dir", type=Path, help="write the runs here instead of where the recipe says")
    parser.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> int:
    from lightft.recipe import run_recipe
    from lightft.sweeping import SweepResult

    result = run_recipe(asked.recipe, data=asked.data, output_dir=asked.output_dir, dry_run=asked.dry_run)
    print(result)
    # Whoever started it, such as a queue of jobs, sees by the status that something is missing.
    return int(isinstance(result, SweepResult) and bool(result.failed or result.unfinished))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="an adapter folder or a checkpoint")
    parser.add_argument("texts", nargs="*", help="texts; without any, one per line of standard input")
    parser.set_defaults(run=_predict)


def _predict(asked: argparse.Namespace) -> int:
    from lightft.inference import load

    predictor = load(asked.model)
    texts = asked.texts or (line.rstrip("\n") for line in sys.stdin)
    for answer in predictor(texts):
        if isinstance(answer, list):
            print(json.dumps([asdict(span) for span in answer], ensure_ascii=False))
        else:
            print(json.dumps(answer if isinstance(answer, str) else asdict(answer), ensure_ascii=False))
    return 0
