"""The ``lightft`` command: each verb is a thin call of the library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightft import __version__
from lightft.errors import LightFTError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 1 refused with a message."""
    parser = argparse.ArgumentParser(prog="lightft", description="Fine-tune, compare and use language models.")
    parser.add_argument("--version", action="version", version=f"lightft {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_compare(verbs.add_parser("compare", help="compare saved runs"))
    _add_predict(verbs.add_parser("predict", help="answer texts with an adapter or a checkpoint"))
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked))
    except LightFTError as error:
        print(f"lightft: {error}", file=sys.stderr)
        return 1


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, help="folders that fit() wrote")
    parser.add_argument("--baseline", help="name of the run the others are compared with")
    parser.add_argument(
        "--report", type=Path, action="append", default=[], help="write a .html, .md, .csv, .svg or .json report"
    )
    parser.set_defaults(run=_compare)


def _compare(asked: argparse.Namespace) -> int:
    from lightft.comparator import ModelComparator

    comparison = ModelComparator().compare(asked.runs, baseline=asked.baseline)
    print(comparison)
    for path in asked.report:
        print(f"Wrote {comparison.save(path)}")
    return 0


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
