"""The spaCy component ``lightft``: what an adapter finds becomes a document's entities, or its categories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lightft.errors import InvalidSettingError, suggest
from lightft.extras import package_of_extra
from lightft.inference import Predictor, load
from lightft.records import Classified, Span
from lightft.tasks import CausalLM

__all__ = ["LightFTPipe", "make_pipe"]

_spacy = package_of_extra("spacy", "spacy", "The pipe component needs spaCy")
_ALIGNMENTS = ("expand", "contract", "strict")


class LightFTPipe:
    """Answers documents with a predictor.

    Entities: all that the model finds are in ``doc.spans[spans_key]``, whose ``attrs`` hold ``scores`` (one per span),
    ``moved`` (how many did not begin and end with a token of spaCy's and were moved to one) and ``left_out`` (those that
    have no place among the tokens: ``[start, end, label, score]``). ``doc.ents``, which cannot overlap, gets the spans with
    the highest scores first, then entities that other components found, as far as they fit; ``attrs["overlapping"]`` counts
    the spans that did not.

    Classes: ``doc.cats`` gets the probability of each.

    Args:
        predictor: of a token or text classification.
        alignment: ``"expand"`` a span to whole tokens, ``"contract"`` it, or be ``"strict"`` and leave it out.
        spans_key: under which the spans stand in ``doc.spans``.

    Raises:
        InvalidSettingError: the predictor writes text, or there is no such alignment.
    """

    def __init__(self, predictor: Predictor, *, alignment: str = "expand", spans_key: str = "lightft") -> None:
        if isinstance(predictor.head, CausalLM):
            raise InvalidSettingError(
                "A causal-lm model writes text, which is neither entities nor categories. Give a model for "
                "token-classification or text-classification."
            )
        if alignment not in _ALIGNMENTS:
            raise InvalidSettingError(f"There is no alignment {alignment!r}. {suggest(alignment, _ALIGNMENTS)}")
        self.predictor = predictor
        self.alignment = alignment
        self.spans_key = spans_key

    def __call__(self, doc: Any) -> Any:
        """Answer one document."""
        self._annotate(doc, self.predictor(doc.text))
        return doc

    def pipe(self, stream: Iterable[Any], *, batch_size: int = 256) -> Iterator[Any]:
        """Answer a stream of documents, ``batch_size`` at once."""
        for docs in _spacy.util.minibatch(stream, size=batch_size):
            for doc, answer in zip(docs, self.predictor([doc.text for doc in docs]), strict=True):
                self._annotate(doc, answer)
                yield doc

    def _annotate(self, doc: Any, answer: Classified | Sequence[Span]) -> None:
        if isinstance(answer, Classified):
            doc.cats.update(answer.probabilities)
            return
        placed, left_out = [], []
        for span in answer:
            found = doc.char_span(span.start, span.end, label=span.label, alignment_mode=self.alignment)
            if found is None or not len(found):
                left_out.append([span.start, span.end, span.label, span.score])
            else:
                placed.append((found, span))
        best_first = [found for found, span in sorted(placed, key=lambda pair: -(pair[1].score or 0.0))]
        entities = _without_overlap(best_first)
        doc.spans[self.spans_key] = _spacy.tokens.SpanGroup(
            doc,
            name=self.spans_key,
            spans=[found for found, _ in placed],
            attrs={
                "scores": np.array([span.score for _, span in placed], dtype=np.float32),
                "moved": sum((found.start_char, found.end_char) != (span.start, span.end) for found, span in placed),
                "left_out": left_out,
                "overlapping": len(placed) - len(entities),
            },
        )
        doc.ents = _without_overlap([*entities, *doc.ents])


@_spacy.Language.factory(  # type: ignore[untyped-decorator]
    "lightft",
    assigns=["doc.ents", "doc.spans", "doc.cats"],
    default_config={
        "base": None,
        "labels": None,
        "device": "auto",
        "alignment": "expand",
        "spans_key": "lightft",
    },
)
def make_pipe(
    nlp: Any,
    name: str,
    model: str,
    base: str | None,
    labels: list[str] | None,
    device: str,
    alignment: str,
    spans_key: str,
) -> LightFTPipe:
    """Return the component of ``nlp.add_pipe("lightft", config={"model": "runs/lora/adapter"})``.

    A pipeline that is written to disk holds these settings, and opens the model again from where they say it is.

    Args:
        nlp: the pipeline.
        name: of the component.
        model: what ``lightft.load`` opens: an adapter folder or any checkpoint.
        base: where the base model is now, when it moved since training.
        labels: the labels in the model's order, where the folder does not name them.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ….
        alignment: as for LightFTPipe.
        spans_key: as for LightFTPipe.
    """
    del nlp, name
    return LightFTPipe(load(model, base=base, labels=labels, device=device), alignment=alignment, spans_key=spans_key)


def _without_overlap(spans: Sequence[Any]) -> list[Any]:
    """Return the spans that share no token with one before them, in the order of the document."""
    kept: list[Any] = []
    taken: set[int] = set()
    for span in spans:
        tokens = range(span.start, span.end)
        if taken.isdisjoint(tokens):
            kept.append(span)
            taken.update(tokens)
    return sorted(kept, key=lambda span: int(span.start))
