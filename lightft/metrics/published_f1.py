"""F1 of entities as others count it: of sub-tokens, of strings without their places, of all places of a string."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lightft.errors import DataError
from lightft.metrics.metric import METRICS, gold_and_predicted_spans
from lightft.metrics.span_f1 import SpanF1
from lightft.records import Prediction, Span
from lightft.spans import spans_to_tags, split_words, tags_to_word_spans


@METRICS.register("span_f1_subtoken")
@dataclass(frozen=True)
class SpanF1Subtoken(SpanF1):
    """Micro F1 over sub-tokens: each carries its word's tag, B- too, and entities are read leniently.

    So ``B-PER`` of a word of three sub-tokens is three entities, and a long rare name weighs more than a short one.
    Equals seqeval's default mode on tags repeated once per sub-token. Compare it with numbers of scripts that score
    sub-tokens with ``label_all_tokens=True``, as the older token classification examples of transformers can; their
    models tag every sub-token by itself, here it has its word's tag. It depends on the tokenizer: not for comparing
    models that have different ones, and not for numbers per word, such as conlleval's.
    """

    name: str = "span_f1_subtoken"

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (true positives, predicted entities, gold entities), entities of sub-tokens.

        A gold entity whose ends are no ends of words has no tags; it counts once, as missed.

        Raises:
            DataError: the prediction has no sub-tokens, or not as many counts of them as words.
        """
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        words, pieces = prediction.words, prediction.pieces
        if words is None or pieces is None:
            raise DataError(
                f"{self.name!r} cannot score prediction {prediction.id!r}: it has no sub-tokens. Compare taggers under it, "
                "each predicted anew if its run is older than this metric; for answers of language models use 'span_f1'."
            )
        gold_tags, untagged = spans_to_tags(gold, words)
        tags, beyond_tags = (prediction.tags, ()) if prediction.tags is not None else spans_to_tags(predicted, words)
        if not len(tags) == len(words) == len(pieces):
            raise DataError(
                f"Prediction {prediction.id!r} has {len(tags)} tags and {len(pieces)} numbers of sub-tokens for "
                f"{len(words)} words. Predict again: there is one of each for each word."
            )
        gold_entities, entities = _entities_of_pieces(gold_tags, pieces), _entities_of_pieces(tags, pieces)
        return (
            len(gold_entities & entities),
            len(entities) + len(beyond_tags),
            len(gold_entities) + len(untagged),
        )


@METRICS.register("entity_strings_f1")
@dataclass(frozen=True)
class EntityStringsF1(SpanF1):
    """Micro F1 over (type, string) pairs without their places, each as often as it occurs in the text.

    Two mentions of ``Paris`` take two predictions of ``Paris``, wherever these stand. Compare it with numbers of language
    models that list the entities of a text as strings, where repeated strings are counted. Never lower than ``span_f1``
    on the same predictions, so not for numbers of taggers, such as those on CoNLL-2003.
    """

    name: str = "entity_strings_f1"

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (strings in both, predicted strings, gold strings), repeated ones as often as they occur.

        Raises:
            DataError: the prediction has no text.
        """
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        text = _text_of(prediction, self.name)
        gold_strings, strings = Counter(_strings(gold, text)), Counter(_strings(predicted, text))
        return (gold_strings & strings).total(), strings.total(), gold_strings.total()


@METRICS.register("entity_string_set_f1")
@dataclass(frozen=True)
class EntityStringSetF1(SpanF1):
    """Micro F1 over the different (type, string) pairs of each text, strings normalised.

    Normalised is: compatibility characters resolved (NFKC), case folded, white space collapsed, punctuation at both ends
    left off. Compare it with numbers of language models that list each entity of a text once: UniversalNER's evaluation
    (which also drops articles and all punctuation) and InstructUIE's (which keeps case and punctuation) are of this kind,
    though neither normalises just so. Not for numbers of taggers: neither place nor number of the mentions matters.
    """

    name: str = "entity_string_set_f1"

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (strings in both, predicted strings, gold strings), each different one once.

        Raises:
            DataError: the prediction has no text.
        """
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        text = _text_of(prediction, self.name)
        gold_strings = {(label, normalized(string)) for label, string in _strings(gold, text)}
        strings = {(label, normalized(string)) for label, string in _strings(predicted, text)}
        return len(gold_strings & strings), len(strings), len(gold_strings)


@METRICS.register("entity_occurrences_f1")
@dataclass(frozen=True)
class EntityOccurrencesF1(SpanF1):
    """Micro F1 over entities, after every predicted string was marked wherever it stands in its text.

    That is what a pipeline does that turns a list of mentions into tags. Strings are marked where words begin and end
    (words of running text, whatever the corpus's are, so that all models are treated alike), one that never stands so
    where it was predicted. Of two that overlap the longer is kept, of equally long ones the first. Gold entities stay as
    they are. Compare it with numbers per word of such pipelines, and with ``span_f1`` to see what marking changes; not
    with numbers of taggers, nor of nested entities.
    """

    name: str = "entity_occurrences_f1"

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (true positives, marked spans, gold spans).

        Raises:
            DataError: the prediction has no text.
        """
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        marked = all_occurrences(predicted, _text_of(prediction, self.name))
        return len(gold & marked), len(marked), len(gold)


def normalized(string: str) -> str:
    """Return a string under NFKC, case folded, with single spaces, and without punctuation at its ends.

    A string of punctuation alone keeps it.
    """
    folded = " ".join(unicodedata.normalize("NFKC", string).casefold().split())
    kept = [place for place, character in enumerate(folded) if not _is_edge(character)]
    return folded[kept[0] : kept[-1] + 1] if kept else folded


def all_occurrences(spans: Iterable[Span], text: str) -> set[Span]:
    """Return the strings of ``spans`` marked wherever they stand in ``text`` between word boundaries, without overlaps."""
    candidates = {found for span in spans for found in _occurrences(span, text)}
    marked: set[Span] = set()
    for one in sorted(candidates, key=lambda span: (span.start - span.end, span)):
        if not any(one.start < other.end and other.start < one.end for other in marked):
            marked.add(one)
    return marked


def _occurrences(span: Span, text: str) -> list[Span]:
    string = text[span.start : span.end]
    places = list(_places(string, text))
    if len(places) == 1:
        return [span]
    words = split_words(text)
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    found = [
        Span(start, start + len(string), span.label)
        for start in places
        if start in starts and start + len(string) in ends
    ]
    return found or [span]


def _places(string: str, text: str) -> Iterator[int]:
    start = text.find(string)
    while start >= 0:
        yield start
        start = text.find(string, start + 1)


def _entities_of_pieces(tags: Sequence[str], pieces: Sequence[int]) -> set[tuple[int, int, str]]:
    repeated = [tag for tag, count in zip(tags, pieces, strict=True) for _ in range(count)]
    return set(tags_to_word_spans(repeated, "BIO", lenient=True))


def _strings(spans: Iterable[Span], text: str) -> Iterator[tuple[str, str]]:
    return ((span.label, text[span.start : span.end]) for span in spans)


def _is_edge(character: str) -> bool:
    return character == " " or unicodedata.category(character).startswith("P")


def _text_of(prediction: Prediction, metric: str) -> str:
    if prediction.text is None:
        raise DataError(
            f"{metric!r} cannot score prediction {prediction.id!r}: it compares strings, and saved runs hold no texts. "
            "Give examples=data.test to compare."
        )
    return prediction.text
