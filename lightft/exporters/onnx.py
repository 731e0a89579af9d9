"""Export of a classifier to an ONNX folder, which onnxruntime and ``lightft.portable`` run without torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftConfig

from lightft.checkpoint import MANIFEST_NAME, Manifest, whole_or_nothing
from lightft.errors import AdapterError, InvalidSettingError
from lightft.exporters.certificate import rows_of_random_tokens
from lightft.exporters.exporter import register
from lightft.exporters.merged import merged_model, refuse_unmergeable
from lightft.exporters.model_card import write_model_card
from lightft.exporters.onnx_certificate import OnnxCertificate, certify_onnx, refuse_other_tokens
from lightft.exporters.onnx_graph import require_packages, trace
from lightft.exporters.onnx_int8 import quantize
from lightft.inference import Predictor, load
from lightft.models import head_modules, provenance_of
from lightft.models.quiet import quiet_transformers
from lightft.portable.description import OnnxDescription
from lightft.portable.session import MODEL_NAME
from lightft.tasks import TokenClassification
from lightft.tasks.crf import chain_scores

__all__ = ["onnx", "onnx_int8"]

_FASTEST_FIRST = ("row", "block")
_ROWS_FOR_RANGES = 64
_SEED_OF_RANGES = 1


@register("onnx")
def onnx(adapter: Path, out: Path, *, probe: Sequence[str] | None = None) -> Path:
    """Write ``model.onnx`` in float32, its tokenizer, and what must be known to answer texts with it.

    The graph takes ``input_ids`` and ``attention_mask``, int64 of any (rows, tokens), and gives float32 ``logits``. The
    adapter is merged in float32 first, as ``"merged"`` does. The graph is then run by onnxruntime and compared with the
    adapter on its own base, on the texts of ``probe`` and, up to 256 rows, on random tokens, and on four more rows as long
    as the model reads; the figures stand beside it in ``onnx_certificate.json``. No logit may differ by more than 1e-4.
    What does not keep this is not written.

    Args:
        adapter: the adapter folder.
        out: the folder to write.
        probe: texts to compare on, such as the model will read.

    Raises:
        AdapterError: the adapter is of a language model or cannot be merged, ONNX has no operator for something in the
            model, or the graph answers otherwise than the adapter does.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    return _export(adapter, out, probe or ())


@register("onnx-int8")
def onnx_int8(adapter: Path, out: Path, *, probe: Sequence[str] | None = None, rounded_by: str | None = None) -> Path:
    """Write what ``"onnx"`` writes with the weights of products and embeddings in 8 bits: about a quarter of the size.

    The head stays in float32. What a product is given is rounded too: one scale for a row is fastest, one for every 32
    numbers of it closer, and either way no answer depends on the texts beside it. At least 99 % of the positions must be
    answered as the adapter does, every token of a tagger counting as one; what keeps less is not written.

    Args:
        adapter: the adapter folder.
        out: the folder to write.
        probe: texts to compare on, such as the model will read.
        rounded_by: ``"row"`` or ``"block"``; None takes the first of the two that keeps 99 % alike.

    Raises:
        InvalidSettingError: ``rounded_by`` is neither.
        AdapterError: as ``"onnx"``, or the graph gives too many other answers than the adapter does.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    if rounded_by not in (None, *_FASTEST_FIRST):
        raise InvalidSettingError(
            f"rounded_by is {rounded_by!r}. Give 'row' or 'block', or leave it out for the faster that is close enough."
        )
    return _export(adapter, out, probe or (), (rounded_by,) if rounded_by else _FASTEST_FIRST)


def _export(adapter: Path, out: Path, texts: Sequence[str], ways: Sequence[str] = ()) -> Path:
    """Write an ONNX folder: in float32, or in 8 bits in the first of ``ways`` to round that is close enough."""
    require_packages()
    refuse_unmergeable(adapter)
    _refuse_language_model(adapter)
    with whole_or_nothing(out) as unfinished:
        # The card comes first, so that a run that cannot be read is refused before anything is loaded.
        write_model_card(adapter, unfinished, "onnx")
        with quiet_transformers():
            predictor = load(adapter, device="cpu", dequantize=True)
        predictor.tokenizer.save_pretrained(unfinished)
        tokens = refuse_other_tokens(predictor.tokenizer, unfinished, adapter, texts)
        _describe(predictor, adapter, "int8" if ways else "float32").write(unfinished)

        def certify(in_8_bits: Mapping[str, Any]) -> OnnxCertificate:
            return certify_onnx(adapter, unfinished, in_8_bits=in_8_bits, tokens=tokens, texts=texts)

        if not ways:
            _write_graph(predictor, adapter, unfinished, unfinished / MODEL_NAME)
            del predictor
            certificate = certify({})
        else:
            exact = unfinished / "float32"
            exact.mkdir()
            head = _write_graph(predictor, adapter, unfinished, exact / MODEL_NAME)
            # Other rows than those on which the certificate compares.
            seen = [row.input_ids for row in rows_of_random_tokens(predictor, _ROWS_FOR_RANGES, seed=_SEED_OF_RANGES)]
            del predictor
            certificate = _in_8_bits(exact / MODEL_NAME, unfinished / MODEL_NAME, head, seen, ways, certify)
            # A graph beyond 2 GB keeps each of its weights in a file of its own.
            shutil.rmtree(exact)
        certificate.write(unfinished)
    return out


def _in_8_bits(
    exact: Path,
    out: Path,
    head: Collection[str],
    seen: Sequence[Sequence[int]],
    ways: Sequence[str],
    certify: Callable[[Mapping[str, Any]], OnnxCertificate],
) -> OnnxCertificate:
    """Write the graph in 8 bits in the first of ``ways`` that is certified, and return its certificate."""
    refused: dict[str, str] = {}
    for way in ways:
        found = quantize(exact, out, kept=head, rounded_by=way, seen=seen)
        try:
            return certify({**found, "rounded_by": way, **refused})
        except AdapterError as refusal:
            if way == ways[-1]:
                raise
            refused[f"refused_by_{way}"] = str(refusal)
    raise AssertionError("there is a way")


def _refuse_language_model(adapter: Path) -> None:
    described = (adapter / MANIFEST_NAME).is_file()
    task = Manifest.read(adapter).task if described else PeftConfig.from_pretrained(str(adapter)).task_type
    if task not in ("text-classification", "token-classification", "SEQ_CLS", "TOKEN_CLS"):
        raise AdapterError(
            f"The adapter in {adapter} is for {task}; an ONNX folder holds models that classify texts or tokens. Export a "
            "language model to 'merged' or 'gguf'."
        )


def _describe(predictor: Predictor, adapter: Path, precision: str) -> OnnxDescription:
    """Return what is needed to answer texts with the model; before it is merged, since its chain is the adapter's."""
    head, tokenizer = predictor.head, predictor.tokenizer
    # A plain PEFT folder of a classifier, which has no manifest, is not opened: it does not name its labels.
    manifest = Manifest.read(adapter)
    tags = head.tags if isinstance(head, TokenClassification) else None
    return OnnxDescription(
        task=head.name,
        labels=tuple(head.labels),
        outputs=tuple(tags or head.labels),
        max_length=predictor.max_length,
        precision=precision,
        padding=tokenizer.pad_token_id or 0,
        cut=tokenizer.truncation_side,
        decoding=head.decoding if isinstance(head, TokenClassification) else None,
        chain=_chain(predictor),
        base=manifest.base,
        adapter=manifest.adapter,
    )


def _chain(predictor: Predictor) -> dict[str, Any] | None:
    """Return what a CRF learned of how tags follow each other; JSON has no −inf for what BIO forbids."""
    head = predictor.head
    if not isinstance(head, TokenClassification) or head.decoding != "crf":
        return None
    scores = chain_scores(predictor.model).to_numpy()._asdict()
    return {part: np.where(np.isneginf(values), 0.0, values).tolist() for part, values in scores.items()}


def _write_graph(predictor: Predictor, adapter: Path, folder: Path, graph: Path) -> Collection[str]:
    """Write the graph, the model's config and the manifest; return the names of the modules of the head."""
    model = merged_model(predictor.model, adapter).eval()
    model.config.save_pretrained(folder)
    manifest = Manifest.read(adapter)
    replace(manifest, base={**manifest.base, "dtype": "float32", "quantization": None}).write(folder)
    trace(model, graph)
    found = provenance_of(model)
    return head_modules(model, found.new_parameters if found is not None else ())
