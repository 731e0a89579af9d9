"""Instruction data: examples with entities become questions and answers that a language model learns from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lightft.errors import DataError
from lightft.llm_ner.prompts import Prompt, spans_of_types, types_of
from lightft.records import Example
from lightft.tasks import CausalLM
from lightft.tasks.head import IGNORED

__all__ = ["build_instruction_data", "write_instruction_data", "x_ray"]


def build_instruction_data(
    examples: Sequence[Example],
    format: str = "brackets",
    prompt: str = "basic",
    *,
    labels: Mapping[str, str] | Sequence[str] | None = None,
    shown: Sequence[Example] | None = None,
    shots: int = 3,
    choice: str = "similar",
) -> tuple[tuple[Example, ...], Mapping[str, int]]:
    """Return examples for ``task="causal-lm"``: the question as text, the answer to write as target.

    The question is the one that ``LLMNERExtractor`` asks with the same labels, format, prompt and examples.

    Args:
        examples: with spans as targets.
        format: a name of ``FORMATS``.
        prompt: ``"basic"``, ``"few-shot"`` or a template, as for ``Prompt``.
        labels: the types, or types with a description of each; by default those that occur, in order of the alphabet.
        shown: the examples that worked examples are chosen from; by default ``examples``. An example is never shown in
            the question about its own text.
        shots: how many worked examples a question shows.
        choice: how they are chosen, ``"similar"`` or ``"fixed"``, as for ``Prompt``.

    Returns:
        The examples, with the ids they had, and counts: ``rows``, ``entities``, and, where there are any,
        ``entities_left_out`` that the format cannot hold (overlapping ones, in inline formats),
        ``entities_of_other_types``, and ``blank_texts``, which make no row.

    Raises:
        DataError: an example has no gold spans, or there is nothing to learn.
    """
    rows, counts = _rows(examples, format, prompt, labels, shown, shots, choice)
    return tuple(Example(row.id, row.asked, row.answer) for row in rows), counts


def write_instruction_data(
    path: str | Path,
    examples: Sequence[Example],
    format: str = "brackets",
    prompt: str = "basic",
    *,
    labels: Mapping[str, str] | Sequence[str] | None = None,
    shown: Sequence[Example] | None = None,
    shots: int = 3,
    choice: str = "similar",
) -> Mapping[str, int]:
    """Write what ``build_instruction_data`` returns as a JSON list of objects with ``instruction``, ``input``, ``output``.

    ``lightft.load_data(path)`` reads it for instruction tuning, and so do most programs for it.

    Args:
        path: the file to write, with the suffix ``.json``.
        examples: as for ``build_instruction_data``, and so are the other arguments.
        format: as there.
        prompt: as there.
        labels: as there.
        shown: as there.
        shots: as there.
        choice: as there.

    Returns:
        The counts.

    Raises:
        DataError: an example has no gold spans, or there is nothing to learn.
    """
    rows, counts = _rows(examples, format, prompt, labels, shown, shots, choice)
    written = [{"instruction": row.instruction, "input": row.input, "output": row.answer} for row in rows]
    Path(path).write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return counts


def x_ray(
    example: Example, tokenizer: PreTrainedTokenizerBase, head: CausalLM, *, max_length: int | None = None
) -> str:
    """Return a text that shows which tokens of an example carry loss, token by token.

    Args:
        example: of instruction data.
        tokenizer: the model's.
        head: what encodes it, as in training.
        max_length: tokens after which training cuts the row; None for no end.
    """
    (row,), counts = head.encode([example], tokenizer, max_length or _NO_END)
    lines = []
    tokens = zip(row.input_ids, row.labels, strict=True)
    for trained, group in groupby(tokens, key=lambda token: token[1] != IGNORED):
        shown = [tokenizer.decode([token]) for token, _ in group]
        loss = "trained" if trained else "no loss"
        lines.append(f"{loss}, {len(shown)} tokens: {' '.join(map(repr, shown))}")
    if counts.get("truncated_texts"):
        lines.append(f"cut after {len(row.input_ids)} tokens: the end of the answer is not taught")
    return "\n".join(lines)


_NO_END = 2**62


@dataclass(frozen=True)
class _Row:
    id: str
    instruction: str
    input: str
    answer: str

    @property
    def asked(self) -> str:
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


def _rows(
    examples: Sequence[Example],
    format: str,
    prompt: str,
    labels: Mapping[str, str] | Sequence[str] | None,
    shown: Sequence[Example] | None,
    shots: int,
    choice: str,
) -> tuple[list[_Row], Mapping[str, int]]:
    if labels is None:
        labels = sorted({span.label for one in examples if isinstance(one.target, tuple) for span in one.target})
    pool = examples if shown is None else shown
    asking = Prompt(prompt, labels, format, examples=pool, shots=shots, choice=choice)
    types = types_of(labels)
    counts: Counter[str] = Counter()
    rows = []
    for example in examples:
        spans = spans_of_types(example, types)
        counts["entities_of_other_types"] += len(example.target or ()) - len(spans)
        if not example.text.strip():
            counts["blank_texts"] += 1
            continue
        answer, left_out = asking.answer_format.write(example.text, spans)
        counts["entities_left_out"] += len(left_out)
        counts["entities"] += len(set(spans)) - len(left_out)
        rows.append(_Row(example.id, *asking.instruction_and_input(example.text), answer))
    if not rows:
        raise DataError(f"None of the {len(examples)} examples has a text. Give examples for token-classification.")
    return rows, {"rows": len(rows), **+counts}
