"""ONNX certificates: how far the answers of an ONNX model, run by onnxruntime, lie from those of its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightft.errors import AdapterError
from lightft.exporters.certificate import Agreement, Certificate, compare_with_adapter
from lightft.exporters.gguf_certificate import TEXTS_TO_SPLIT
from lightft.models import ModelSource
from lightft.portable.description import OnnxDescription
from lightft.portable.session import MODEL_NAME, Session
from lightft.portable.tokenizer import FileTokenizer

__all__ = ["OnnxCertificate", "certify_onnx", "refuse_other_tokens"]

_LONGEST_ROWS = 4
_LARGEST_GAP = 1e-4
_SMALLEST_AGREEMENT = 0.99


@dataclass(frozen=True, kw_only=True)
class OnnxCertificate(Certificate):
    """What ``onnx_certificate.json`` says of the graph beside it, run by onnxruntime.

    Attributes:
        written: ``file``, ``precision``, ``bytes`` and ``digest``, and how many ``products`` and ``embeddings`` are in 8
            bits, ``rounded_by`` row or block, and why a faster way was refused.
        tokens: ``texts`` that ``tokenizer.json`` alone and the adapter's tokenizer split, all into the same ``ids``.
    """

    tokens: Mapping[str, int]

    file_name: ClassVar[str] = "onnx_certificate.json"


def certify_onnx(
    adapter: Path, folder: Path, *, in_8_bits: Mapping[str, Any], tokens: Mapping[str, int], texts: Sequence[str]
) -> OnnxCertificate:
    """Run an ONNX folder as it will be run, compare it with its adapter, and say how alike they are.

    Args:
        adapter: the adapter folder.
        folder: with the graph and its description.
        in_8_bits: how many parts of the graph are, and how they are rounded.
        tokens: what ``refuse_other_tokens`` returned.
        texts: what to compare on; random rows fill up to 256, and some more are as long as the model reads.

    Raises:
        AdapterError: the two differ by more than the rule allows.
    """
    precision = OnnxDescription.read(folder).precision
    graph = Session(folder)

    def refuse(found: Agreement, probe: Mapping[str, Any], _: Any) -> None:
        _refuse_difference(found, adapter, precision, random_rows=probe["random_rows"])

    shared = compare_with_adapter(adapter, _as_model(graph), refuse, texts=texts, longest_rows=_LONGEST_ROWS)
    file = folder / MODEL_NAME
    packages = {name: metadata.version(name) for name in ("onnx", "onnxruntime")}
    environment = shared.pop("environment")
    return OnnxCertificate(
        rule=_rule(precision),
        tokens=tokens,
        written={
            "file": file.name,
            "precision": precision,
            "bytes": file.stat().st_size,
            "digest": ModelSource(file.name, str(folder), gguf_file=file.name).digest(),
            **in_8_bits,
        },
        environment={**environment, "versions": {**environment["versions"], **packages}},
        **shared,
    )


def refuse_other_tokens(
    tokenizer: PreTrainedTokenizerBase, folder: Path, adapter: Path, texts: Sequence[str]
) -> dict[str, int]:
    """Compare ``tokenizer.json`` alone with the adapter's tokenizer; return how many texts and ids were alike.

    Raises:
        AdapterError: a text is split otherwise, or the tokenizer has no ``tokenizer.json``.
    """
    alone = FileTokenizer(folder)
    split = [*texts, *TEXTS_TO_SPLIT]
    expected = tokenizer(split, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = 0
    for text, its_ids, offsets, found in zip(
        split, expected["input_ids"], expected["offset_mapping"], alone.tokens(split), strict=True
    ):
        whole = tokenizer(text, verbose=False)["input_ids"]
        same_places = [tuple(place) for place in offsets] == [tuple(place) for place in found[1]]
        if not same_places or its_ids != found[0] or whole != alone.whole(text, len(whole) + 1, "right"):
            raise AdapterError(
                f"The tokenizer of {adapter} splits {text[:60]!r} otherwise without transformers, so that the model would "
                "read another text. Nothing was written. Export to 'merged'."
            )
        ids += len(its_ids)
    return {"texts": len(split), "ids": ids}


def _as_model(graph: Session) -> Callable[..., Any]:
    def answer(input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(logits=torch.from_numpy(graph.logits(input_ids.numpy(), attention_mask.numpy())))

    return answer


def _rule(precision: str) -> str:
    if precision == "float32":
        return f"largest_logit_gap <= {_LARGEST_GAP}"
    return f"argmax_agreement >= {_SMALLEST_AGREEMENT}"


def _refuse_difference(found: Agreement, adapter: Path, precision: str, *, random_rows: int) -> None:
    # Both are written so that a difference that is not a number is refused too.
    compared = f"{found.positions:,} positions of {found.rows} probe rows"
    if precision == "float32" and not found.largest_logit_gap <= _LARGEST_GAP:
        raise AdapterError(
            f"The ONNX model is not the model that was trained: at {compared} its logits lie up to "
            f"{found.largest_logit_gap:.3g} apart from the adapter's, where {_LARGEST_GAP:g} is accepted, and "
            f"{found.argmax_agreement:.2%} of the answers agree. Nothing was written. Export to 'merged', or use the "
            f"adapter as it is: lightft.load({str(adapter)!r})."
        )
    agrees = found.argmax_agreement >= _SMALLEST_AGREEMENT and found.largest_logit_gap < float("inf")
    if precision == "int8" and not agrees:
        harder = ", or compare on texts such as it will read, with probe=[...]: random tokens are harder"
        raise AdapterError(
            f"In 8 bits, the ONNX model answers {found.argmax_agreement:.2%} of {compared} as the adapter does, with logits "
            f"up to {found.largest_logit_gap:.3g} apart; {_SMALLEST_AGREEMENT:.0%} is asked for. Nothing was written. "
            f"Export in float32, to='onnx'{harder if random_rows else ''}."
        )
