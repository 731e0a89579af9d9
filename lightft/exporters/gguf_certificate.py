"""GGUF certificates: how far a GGUF file, as transformers reads it, lies from the model it was written from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import AdapterError
from lightft.exporters.certificate import Agreement, compare_answers, probe_rows
from lightft.inference import Predictor
from lightft.models import ModelSource
from lightft.models.quiet import quiet_transformers

__all__ = ["TEXTS_TO_SPLIT", "GgufCertificate", "certify_gguf"]

_CERTIFICATE_NAME = "gguf_certificate.json"
_FORMAT = 1
_LARGEST_GAP = 1e-4
_SMALLEST_AGREEMENT = {"F16": 0.99, "BF16": 0.99, "Q8_0": 0.95}

TEXTS_TO_SPLIT = (
    "Hello, world! It's 3:45 p.m. and I'LL be there; you've 12345 reasons.",
    "def f(x):\n\treturn x**2  # tabs,  two spaces\n\n\n    indented",
    " leading, trailing  and   inner    spaces  ",
    "naïve café, e\u0301 with a combining accent, Straße, 10\u202f000,5 €",
    "Привет, мир! 你好\uff0c世界。 こんにちは مرحبا हिन्दी ไทย",
    "🙂 👩\u200d👩\u200d👧 🇫🇷 ✅ ½ ² ① … — “quotes” «guillemets»",
    "http://example.org/a_b?c=d&e=%20f user@example.org C++ x<y>z {1:[2,3]}",
    "ALLCAPS camelCase snake_case 1a2b 007 3.14159 1e-5 v2.0.1 \x01\x7f\x00",
)
"""Texts on which tokenizers that are almost alike differ: contractions, digits, white space, scripts, emoji, code."""


@dataclass(frozen=True)
class GgufCertificate:
    """What ``gguf_certificate.json`` says of the file beside it.

    Attributes:
        agreement: of the file, as transformers reads it, with the merged model it was written from.
        rule: what ``agreement`` had to keep.
        reference: what the file was compared with.
        tokens: ``texts`` that were split by the file's tokenizer and by the model's, all into the same ``ids``.
        merge: what ``merge_certificate.json`` of the merged model says.
        probe: what the rows were.
        written: ``file``, ``precision``, ``bytes`` and ``digest``.
        format: of this file.
    """

    agreement: Agreement
    rule: str
    reference: str
    tokens: Mapping[str, int]
    merge: Mapping[str, Any]
    probe: Mapping[str, Any]
    written: Mapping[str, Any]
    format: int = _FORMAT

    def write(self, folder: Path) -> None:
        """Write ``gguf_certificate.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / _CERTIFICATE_NAME).write_text(text, encoding="utf-8")


def certify_gguf(
    adapter: Path, whole: Predictor, file: Path, precision: str, merge: Mapping[str, Any], texts: Sequence[str]
) -> GgufCertificate:
    """Open a GGUF file as a user of transformers would, compare it with the model it was written from, and say how alike.

    Args:
        adapter: the adapter folder, for what is said when it is refused.
        whole: the merged model in float32.
        file: the GGUF file.
        precision: of the file's weights.
        merge: the merged model's own certificate.
        texts: what to compare on; random rows fill up to 256.

    Raises:
        AdapterError: the two differ by more than the rule allows, or one of the texts is split into other tokens.
    """
    rows, probe = probe_rows(whole, texts)
    model, tokenizer = _reopened(file)
    agreement = compare_answers(whole.model, model, whole.tokenizer, rows)
    _refuse_difference(agreement, adapter, precision)
    split = [*texts, *TEXTS_TO_SPLIT]
    ids = sum(len(_same_tokens(whole.tokenizer, tokenizer, text, adapter)) for text in split)
    return GgufCertificate(
        agreement=agreement,
        rule=_rule(precision),
        reference="the merged model in float32; both opened by transformers, the file's weights unpacked to float32",
        tokens={"texts": len(split), "ids": ids},
        merge=merge,
        probe=probe,
        written={
            "file": file.name,
            "precision": precision,
            "bytes": file.stat().st_size,
            "digest": ModelSource(file.name, str(file.parent), gguf_file=file.name).digest(),
        },
    )


def _rule(precision: str) -> str:
    if precision == "F32":
        return f"largest_logit_gap <= {_LARGEST_GAP}"
    return f"argmax_agreement >= {_SMALLEST_AGREEMENT[precision]}"


def _reopened(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open the file as a user of transformers would; nothing but the file is read."""
    with quiet_transformers():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return model.eval(), tokenizer


def _refuse_difference(found: Agreement, adapter: Path, precision: str) -> None:
    # Both are written so that a difference that is not a number is refused too.
    if precision == "F32":
        kept = found.largest_logit_gap <= _LARGEST_GAP
        asked, next_step = f"{_LARGEST_GAP:g} apart is accepted", "Export to 'merged'."
    else:
        smallest = _SMALLEST_AGREEMENT[precision]
        kept = found.argmax_agreement >= smallest and found.largest_logit_gap < float("inf")
        asked = f"{smallest:.0%} is asked for"
        next_step = (
            f"Hold more of it: lightft.export({str(adapter)!r}, to='gguf', out=..., precision='F32'), or compare on texts "
            "such as it will read, with probe=[...]: random tokens are harder."
        )
    if not kept:
        raise AdapterError(
            f"In {precision}, the GGUF file answers {found.argmax_agreement:.2%} of {found.positions:,} positions of "
            f"{found.rows} probe rows as the merged model does, with logits up to {found.largest_logit_gap:.3g} apart; "
            f"{asked}. Nothing was written. {next_step}"
        )


def _same_tokens(
    of_model: PreTrainedTokenizerBase, of_file: PreTrainedTokenizerBase, text: str, adapter: Path
) -> list[int]:
    """Return the tokens of a text, special ones included, which must be the same by both tokenizers."""
    expected, found = (tokenizer(text)["input_ids"] for tokenizer in (of_model, of_file))
    if expected != found:
        raise AdapterError(
            f"The tokenizer in the GGUF file of {adapter} splits {text[:60]!r} into other tokens than the model's, so that "
            "the model would read another text. Nothing was written. Export to 'merged', and convert that folder with "
            "llama.cpp's own convert_hf_to_gguf.py."
        )
    ids: list[int] = expected
    return ids
