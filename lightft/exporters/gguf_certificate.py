"""GGUF certificates: how far the answers of a GGUF file, as transformers reads it, lie from those of its adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import AdapterError
from lightft.exporters.certificate import Agreement, Certificate, compare_with_adapter
from lightft.models import ModelSource
from lightft.models.quiet import quiet_transformers

__all__ = ["TEXTS_TO_SPLIT", "GgufCertificate", "certify_gguf"]

_SMALLEST_AGREEMENT = {"F32": 0.999, "F16": 0.99, "BF16": 0.99, "Q8_0": 0.95}

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


@dataclass(frozen=True, kw_only=True)
class GgufCertificate(Certificate):
    """What ``gguf_certificate.json`` says of the file beside it, as transformers reads it.

    Attributes:
        written: ``file``, ``precision``, ``bytes`` and ``digest``.
        tokens: ``texts`` that were split by the file's tokenizer and by the adapter's, all into the same ``ids``.
    """

    tokens: Mapping[str, int]

    file_name: ClassVar[str] = "gguf_certificate.json"


def certify_gguf(
    adapter: Path, tokenizer: PreTrainedTokenizerBase, file: Path, precision: str, texts: Sequence[str]
) -> GgufCertificate:
    """Open a GGUF file as a user of transformers would, compare it with the adapter on its base, and say how alike they are.

    Args:
        adapter: the adapter folder.
        tokenizer: the adapter's.
        file: the GGUF file.
        precision: of the file's weights.
        texts: what to compare on; random rows fill up to 256.

    Raises:
        AdapterError: the two differ by more than the rule allows, or one of the texts is split into other tokens.
    """

    def refuse(found: Agreement, probe: Mapping[str, Any], _: Any) -> None:
        _refuse_difference(found, adapter, precision, random_rows=probe["random_rows"])

    model, of_file = _reopened(file)
    split = [*texts, *TEXTS_TO_SPLIT]
    ids = sum(len(_same_tokens(tokenizer, of_file, text, adapter)) for text in split)
    return GgufCertificate(
        rule=f"argmax_agreement >= {_SMALLEST_AGREEMENT[precision]}",
        tokens={"texts": len(split), "ids": ids},
        written={
            "file": file.name,
            "precision": precision,
            "bytes": file.stat().st_size,
            "digest": ModelSource(file.name, str(file.parent), gguf_file=file.name).digest(),
        },
        **compare_with_adapter(adapter, model, refuse, texts=texts),
    )


def _reopened(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open the file as a user of transformers would; nothing but the file is read."""
    with quiet_transformers():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return model.eval(), tokenizer


def _refuse_difference(found: Agreement, adapter: Path, precision: str, *, random_rows: int) -> None:
    smallest = _SMALLEST_AGREEMENT[precision]
    # Written so that a difference that is not a number is refused too.
    if found.argmax_agreement >= smallest and found.largest_logit_gap < float("inf"):
        return
    finer = "F16" if precision == "Q8_0" else "F32"
    more = f"Hold more of it: lightft.export({str(adapter)!r}, to='gguf', out=..., precision={finer!r})."
    next_step = "Export to 'merged'." if precision == "F32" else more
    harder = " Or compare on texts such as it will read, with probe=[...]: random tokens are harder."
    raise AdapterError(
        f"In {precision}, the GGUF file answers {found.argmax_agreement:.2%} of {found.positions:,} positions of "
        f"{found.rows} probe rows as the adapter does, with logits up to {found.largest_logit_gap:.3g} apart; "
        f"{smallest:.1%} is asked for. Nothing was written. {next_step}{harder if random_rows else ''}"
    )


def _same_tokens(
    of_adapter: PreTrainedTokenizerBase, of_file: PreTrainedTokenizerBase, text: str, adapter: Path
) -> list[int]:
    """Return the tokens of a text, special ones included, which must be the same by both tokenizers."""
    expected, found = (tokenizer(text)["input_ids"] for tokenizer in (of_adapter, of_file))
    if expected != found:
        raise AdapterError(
            f"The tokenizer in the GGUF file of {adapter} splits {text[:60]!r} into other tokens than the adapter's, so "
            "that the model would read another text. Nothing was written. Export to 'merged', and convert that folder with "
            "llama.cpp's own convert_hf_to_gguf.py."
        )
    ids: list[int] = expected
    return ids
