"""The ``extract`` verb of the ``lightft`` command: the entities of a file of texts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lightft extract``, and what runs it."""
    parser.add_argument("input", type=Path, help="JSONL (an object per line) or TXT (a text per line), perhaps .gz")
    parser.add_argument(
        "--model", required=True, help="an adapter folder or a checkpoint; with --server its name there"
    )
    parser.add_argument("--out", type=Path, help="where to write; by default INPUT.entities.jsonl")
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="TYPE",
        help="types, or TYPE='what it means'; by default those that were saved beside the adapter",
    )
    parser.add_argument(
        "--format", help="how the model is to answer; by default as saved beside the adapter, else brackets"
    )
    parser.add_argument("--prompt", help="basic, few-shot or a template; by default as saved, else basic")
    parser.add_argument("--examples", help="data whose training split a few-shot prompt takes examples from")
    parser.add_argument("--text-field", default="text", help="the field of a JSONL input that holds the text")
    parser.add_argument("--html", type=Path, metavar="VIEW", help="write a page with the entities marked")
    parser.add_argument("--server", metavar="URL", help="ask a server that speaks the OpenAI protocol")
    parser.add_argument("--window", type=int, metavar="WORDS", help="the most words that are asked about at once")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="TOKENS",
        help="the longest answer of a server, or in a JSON format; by default what a text needs",
    )
    parser.add_argument("--minimum-precision", type=float, metavar="P", help="keep only entities as sure as this")
    parser.set_defaults(run=_extract)


def _extract(asked: argparse.Namespace) -> int:
    # Reading the help of another verb needs no deep-learning stack.
    from lightft.llm_ner import LLMNERExtractor, OpenAIServer, extract_file

    optional = {
        "format": asked.format,
        "prompt": asked.prompt,
        "window": asked.window,
        "minimum_precision": asked.minimum_precision,
    }
    given: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
    if asked.examples is not None:
        from lightft.data import load_data

        given["examples"] = load_data(asked.examples).train
    if asked.server:
        model: Any = OpenAIServer(asked.server, asked.model, max_new_tokens=asked.max_new_tokens)
    else:
        model = asked.model
        given |= {} if asked.max_new_tokens is None else {"max_new_tokens": asked.max_new_tokens}
    extractor = LLMNERExtractor(model, _labels(asked.labels), **given)
    out = asked.out or _beside(asked.input)
    result = extract_file(extractor, asked.input, out, text_field=asked.text_field, html=asked.html)
    print(result)
    return 0


def _labels(given: Sequence[str] | None) -> dict[str, str] | None:
    """Return the types of ``TYPE`` and ``TYPE=description`` arguments."""
    if given is None:
        return None
    parted = [argument.partition("=") for argument in given]
    return {label.strip(): description.strip() for label, _, description in parted}


def _beside(source: Path) -> Path:
    name = source.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".txt")
    return source.with_name(f"{name}.entities.jsonl")
