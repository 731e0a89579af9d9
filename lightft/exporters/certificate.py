"""Merge certificates: how far the answers of a merged model lie from those of its adapter on the adapter's own base."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.batching import inference_batches
from lightft.checkpoint import MANIFEST_NAME, Manifest
from lightft.description import environment_of
from lightft.errors import AdapterError
from lightft.inference import Predictor, load
from lightft.models import ModelSource, provenance_of
from lightft.models.quiet import quiet_transformers
from lightft.records import Example
from lightft.tasks.head import Encoding, inference_tokens, pad_batch, special_tokens_around

__all__ = [
    "CERTIFICATE_NAME",
    "Agreement",
    "Certificate",
    "Held",
    "MergeCertificate",
    "Refuse",
    "certify",
    "compare_answers",
    "compare_with_adapter",
    "digest_of",
    "probe_rows",
    "rows_of_random_tokens",
]

CERTIFICATE_NAME = "merge_certificate.json"
_FORMAT = 1
_PROBE_ROWS = 256
_SHORTEST, _LONGEST = 8, 64
_LONGEST_ROW = 512
_SEED = 0
_LARGEST_GAP = 1e-4
_TIMES_OWN_ROUNDING = 4
_SMALLEST_AGREEMENT = 0.99


@dataclass(frozen=True)
class Held:
    """How weights are held: ``dtype``, and ``quantization`` (``"nf4"`` or ``"int8"``) or None."""

    dtype: str
    quantization: str | None

    @property
    def is_exact(self) -> bool:
        """Whether a sum made in float32 is held without rounding."""
        return self.dtype == "float32" and self.quantization is None

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.quantization, self.dtype]))


@dataclass(frozen=True)
class Agreement:
    """How alike two models answer the same rows.

    Attributes:
        argmax_agreement: share of positions, from 0 to 1, at which both put the same output first.
        largest_logit_gap: largest absolute difference between two logits.
        rows: rows that were read.
        positions: answers that were compared: one per row of a text classifier, else one per token; padding is none.
    """

    argmax_agreement: float
    largest_logit_gap: float
    rows: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is said of an exported model in a file beside it.

    Attributes:
        agreement: of the model as it was written with ``reference``.
        rule: what ``agreement`` had to keep.
        reference: what the written model was compared with.
        trained_precision: where the adapter was trained in less than float32, how far the written model lies from the
            adapter in that precision, whose products are rounded on their own; else None.
        probe: what the rows were.
        written: what was written, with its ``digest``.
        adapter: ``kind`` and ``params``, where known, and ``digest``.
        base: ``name``, ``revision``, ``digest``, ``dtype``, ``quantization`` and ``seed`` of the adapter's base.
        environment: versions, Python, device, threads and date.
        format: of this file.
    """

    agreement: Agreement
    rule: str
    reference: str
    trained_precision: Agreement | None
    probe: Mapping[str, Any]
    written: Mapping[str, Any]
    adapter: Mapping[str, Any]
    base: Mapping[str, Any]
    environment: Mapping[str, Any]
    format: int = _FORMAT

    file_name: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write the certificate into ``folder``, under its name."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / self.file_name).write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class MergeCertificate(Certificate):
    """What ``merge_certificate.json`` says: ``written`` holds ``dtype``, ``quantization`` and ``digest``."""

    file_name: ClassVar[str] = CERTIFICATE_NAME


def certify(
    adapter: Path, folder: Path, written: PreTrainedModel, held: Held, *, texts: Sequence[str] = ()
) -> MergeCertificate:
    """Compare a merged model with its adapter and return the certificate.

    The reference is the adapter, unmerged, on its own base with the weights it was trained on, 4-bit ones included. Its
    products are in float32. Where training rounded them to less, the same weights give other last digits on every
    machine, so that equality can be asked of the weights alone; what that rounding amounts to is measured beside it.

    Args:
        adapter: the adapter folder.
        folder: where the merged model is.
        written: the merged model, opened from ``folder`` by transformers alone.
        held: how its weights are held.
        texts: what to compare on; random rows fill up to 256.

    Raises:
        AdapterError: the two differ by more than the rule allows.
    """
    largest_gap, rule = _LARGEST_GAP, f"largest_logit_gap <= {_LARGEST_GAP}"

    def refuse(found: Agreement, probe: Mapping[str, Any], own_rounding: Callable[[], float]) -> None:
        nonlocal largest_gap, rule
        if held.is_exact and found.largest_logit_gap > largest_gap:
            # Inside some language models values are so large that float32 cannot say more exactly what the answer is.
            largest_gap = max(largest_gap, _TIMES_OWN_ROUNDING * own_rounding())
            rule = f"largest_logit_gap <= {largest_gap:.3g}, {_TIMES_OWN_ROUNDING} times what float32 rounds off the adapter"
        _refuse_difference(found, held, adapter, largest_gap, random_rows=probe["random_rows"])

    compared = compare_with_adapter(adapter, written, refuse, texts=texts)
    return MergeCertificate(
        rule=rule if held.is_exact else f"argmax_agreement >= {_SMALLEST_AGREEMENT}",
        written={**asdict(held), "digest": digest_of(folder)},
        **compared,
    )


Refuse = Callable[[Agreement, Mapping[str, Any], Callable[[], float]], None]
"""Raises where an agreement is too small. It is also given what the rows were, and what measures, when called, how far the
adapter's answers in float32 lie from its own in float64."""


def compare_with_adapter(
    adapter: Path,
    written: Callable[..., Any],
    refuse: Refuse,
    *,
    texts: Sequence[str] = (),
    longest_rows: int = 0,
) -> dict[str, Any]:
    """Compare what was written with the adapter itself, and return what a certificate says of any such comparison.

    Args:
        adapter: the adapter folder.
        written: called like a transformers model.
        refuse: raises where the agreement is too small.
        texts: what to compare on; random rows fill up to 256.
        longest_rows: how many random rows more are as long as the model reads, 512 tokens at most.
    """
    manifest = Manifest.read(adapter) if (adapter / MANIFEST_NAME).is_file() else None
    rounded = manifest is not None and manifest.base["dtype"] != "float32"
    predictor = _load_quietly(adapter, dequantize=rounded)
    base = manifest.base if manifest is not None else _described_base(predictor)
    rows, probe = probe_rows(predictor, texts)
    if longest_rows:
        length = min(_LONGEST_ROW, predictor.max_length)
        rows += rows_of_random_tokens(predictor, longest_rows, (length, length))
        probe |= {"longest_rows": longest_rows, "their_length": length}
    reference: Any = predictor.model.float() if rounded else predictor.model
    agreement = compare_answers(reference, written, predictor.tokenizer, rows)
    refuse(agreement, probe, lambda: _own_rounding(adapter, reference, predictor.tokenizer, rows))
    trained_precision = None
    if rounded:
        del predictor, reference
        trained = _load_quietly(adapter, dequantize=False)
        trained_precision = compare_answers(trained.model, written, trained.tokenizer, rows)
    trained_as = Held(base["dtype"], base["quantization"])
    return {
        "agreement": agreement,
        "reference": f"the adapter on its own base as trained ({trained_as}), its products in float32",
        "trained_precision": trained_precision,
        "probe": probe,
        "adapter": {**(manifest.adapter if manifest is not None else {}), "digest": digest_of(adapter)},
        "base": base,
        "environment": environment_of(torch.device("cpu")),
    }


def _own_rounding(
    adapter: Path, reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoding]
) -> float:
    """Return how far an adapter's logits in float32 lie from its own in float64, at most."""
    exact = _load_quietly(adapter, dequantize=True).model.double()
    return compare_answers(reference, exact, tokenizer, rows).largest_logit_gap


@torch.inference_mode()
def compare_answers(
    reference: PreTrainedModel, other: Callable[..., Any], tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoding]
) -> Agreement:
    """Return how alike two models, both in eval mode, answer ``rows``; ``other`` need only be called like a model."""
    gap, agreeing, positions = torch.zeros(()), 0, 0
    for batch_rows in _batches([len(row.input_ids) for row in rows], max_tokens=inference_tokens(reference)):
        batch = pad_batch([rows[row] for row in batch_rows], tokenizer)
        expected, found = (model(**batch).logits.float() for model in (reference, other))
        if expected.dim() == 3:
            real = batch["attention_mask"].bool()
            expected, found = expected[real], found[real]
        # Unlike max(), this keeps a difference that is not a number.
        gap = torch.maximum(gap, (expected - found).abs().max())
        agreeing += int((expected.argmax(-1) == found.argmax(-1)).sum())
        positions += len(expected)
    return Agreement(agreeing / positions, float(gap), len(rows), positions)


def _batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return batches of row numbers: every other row among rows of its own length, the rest with padding.

    A model may take another way where there is nothing to mask, and must answer alike on both.
    """
    groups: dict[int | None, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length if row % 2 else None, []).append(row)
    return [
        [rows[place] for place in batch]
        for rows in groups.values()
        for batch in inference_batches([lengths[row] for row in rows], max_tokens=max_tokens)
    ]


def probe_rows(predictor: Predictor, texts: Sequence[str]) -> tuple[list[Encoding], dict[str, Any]]:
    """Return the rows to compare on, texts first, and what they are."""
    examples = [Example(str(number), text) for number, text in enumerate(texts)]
    rows, counts = predictor.head.encode(examples, predictor.tokenizer, predictor.max_length)
    random = rows_of_random_tokens(predictor, max(0, _PROBE_ROWS - len(rows)))
    described = {
        "texts": len(texts),
        "text_rows": len(rows),
        "text_counts": dict(counts),
        "random_rows": len(random),
    }
    if random:
        described |= {"random_lengths": _lengths(predictor), "random_seed": _SEED}
    return [*rows, *random], described


def rows_of_random_tokens(
    predictor: Predictor, count: int, lengths: Sequence[int] | None = None, *, seed: int = _SEED
) -> list[Encoding]:
    """Return rows of ordinary tokens in random order, with the tokenizer's special tokens around them.

    Args:
        predictor: whose tokens they are.
        count: how many rows.
        lengths: how many tokens a row has at least and at most, special tokens included; None for short rows.
        seed: decides the tokens.
    """
    tokenizer = predictor.tokenizer
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = predictor.model.get_input_embeddings().weight.shape[0]
    ordinary = sorted(index for index in set(tokenizer.get_vocab().values()) - special if index < known)
    before, after = special_tokens_around(tokenizer)
    shortest, longest = lengths or _lengths(predictor)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (), generator=generator)) - len(before) - len(after)
        picked = torch.randint(len(ordinary), (max(1, length),), generator=generator).tolist()
        rows.append(Encoding(0, [*before, *(ordinary[place] for place in picked), *after], []))
    return rows


def _lengths(predictor: Predictor) -> tuple[int, int]:
    """Return how many tokens a random row has at least and at most, special tokens included."""
    longest = min(_LONGEST, predictor.max_length)
    return min(_SHORTEST, longest), longest


def _refuse_difference(found: Agreement, held: Held, adapter: Path, largest_gap: float, *, random_rows: int) -> None:
    compared = f"{found.positions:,} positions of {found.rows} probe rows"
    # Both are written so that a difference that is not a number is refused too.
    if held.is_exact and not found.largest_logit_gap <= largest_gap:
        raise AdapterError(
            f"The merged model, opened by transformers alone, is not the model that was trained: at {compared} its logits "
            f"lie up to {found.largest_logit_gap:.3g} apart from the adapter's, where {largest_gap:.3g} is accepted, and "
            f"{found.argmax_agreement:.2%} of the answers agree. Nothing was written. Use the adapter as it is: "
            f"lightft.load({str(adapter)!r})."
        )
    agrees = found.argmax_agreement >= _SMALLEST_AGREEMENT and found.largest_logit_gap < float("inf")
    if not held.is_exact and not agrees:
        harder = " Or compare on texts such as it will read, with probe=[...]: random tokens are harder."
        in_float32 = f"lightft.export({str(adapter)!r}, to='merged', out=...)"
        raise AdapterError(
            f"Held in {held}, the merged model answers {found.argmax_agreement:.2%} of {compared} as the adapter does, with "
            f"logits up to {found.largest_logit_gap:.3g} apart; {_SMALLEST_AGREEMENT:.0%} is asked for. Nothing was "
            f"written. Export in float32: {in_float32}.{harder if random_rows else ''}"
        )


def _load_quietly(adapter: Path, *, dequantize: bool) -> Predictor:
    with quiet_transformers():
        return load(adapter, device="cpu", dequantize=dequantize)


def _described_base(predictor: Predictor) -> dict[str, Any]:
    """Return what is known of the base of a plain PEFT folder."""
    model: Any = predictor.model
    found: Any = provenance_of(model.get_base_model())
    return {
        "name": found.source.name,
        "revision": found.source.revision,
        "digest": found.source.digest(),
        "dtype": found.dtype,
        "quantization": found.loader.quantization,
        "seed": found.loader.seed,
    }


def digest_of(folder: Path) -> str:
    """Return the digest of the weights in a folder."""
    return ModelSource(str(folder), str(folder)).digest()
