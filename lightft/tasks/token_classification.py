"""Token classification: a BIO tag for every word, read out as spans of characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.models import ModelLoader
from lightft.models.bidirectional import lift_causal_mask
from lightft.reading.tagging import DECODINGS, decode_tags, scores_of_words, tagged_prediction
from lightft.reading.windows import Offsets, TokenizedText, Tokenizing, Window, read_windows, tokenize_words, words_of
from lightft.records import Example, Prediction
from lightft.spans import bio_labels, repair_bio, spans_to_tags, split_tag
from lightft.tasks.crf import add_transitions, chain_scores, conditional_logits
from lightft.tasks.head import (
    IGNORED,
    TASKS,
    Encoding,
    forward_in_batches,
    pad_batch,
    pad_labels,
    special_tokens_around,
)
from lightft.tasks.losses import LossSettings

__all__ = ["TokenClassification"]


@TASKS.register("token-classification")
@dataclass(frozen=True)
class TokenClassification(LossSettings):
    """BIO tags over the words of a text, for entity types ``labels``.

    Words are the corpus's own where it has them, else runs of letters and digits and single punctuation marks. A text
    longer than the model's window is read in overlapping windows; each word is answered by the window in which it
    stands farthest from an edge.

    Attributes:
        labels: entity types, without BIO prefixes. ``class_weights`` may name them and ``"O"``; the B- and I- of a type
            share its weight, which is computed from the words of the training data.
        label_all_subtokens: train on every sub-token of a word instead of its first; never changes what is counted.
        decoding: ``"constrained"`` takes the most probable tag sequence in which each I- follows its own type
            (Viterbi), ``"argmax"`` the most probable tag of each word, of which strict scoring drops stray I- tags.
            ``"crf"`` also learns how well tags follow each other and is trained on whole sequences (see ``crf.py``).
        tags: the BIO tag of each of the model's outputs. A checkpoint from elsewhere may have them in another order, or be
            of another scheme, so that some are missing or repeated (see ``spans.bio_tags_of_outputs``); it can then
            predict, but not be trained.
        bidirectional: let every token of a decoder-only base read the whole text, not only what stands before it.
    """

    labels: tuple[str, ...]
    label_all_subtokens: bool = False
    decoding: str = "constrained"
    tags: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("span_f1", "span_precision", "span_recall", "span_f1_lenient", "token_accuracy")
    bidirectional: bool = False

    name: ClassVar[str] = "token-classification"
    task_type: ClassVar[str] = "TOKEN_CLS"

    def __post_init__(self) -> None:
        if self.decoding not in DECODINGS:
            raise InvalidSettingError(f"No decoding named {self.decoding!r}. {suggest(self.decoding, DECODINGS)}")
        expected = bio_labels(self.labels)
        object.__setattr__(self, "tags", self.tags or expected)
        untagged = set(self.labels) - set(map(_type_of, self.tags))
        odd = sorted({*self.tags} - {*expected} | untagged)
        if odd:
            raise InvalidSettingError(f"The tags are not BIO tags of {', '.join(self.labels)}: {', '.join(odd)}.")
        self.check_loss((*self.labels, "O"))
        if self.decoding == "crf":
            self._refuse_what_a_crf_cannot()

    def load_model(self, loader: ModelLoader) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with one output per tag and, for ``"crf"``, scores of their transitions."""
        model, tokenizer = loader.replace(task=self.name, labels=self.labels).load_model()
        if self.bidirectional:
            lift_causal_mask(model)
        if self.decoding == "crf":
            add_transitions(model, self.tags)
        return model, tokenizer

    def fitted(self, train: Sequence[Example]) -> TokenClassification:
        """Return a copy whose class weights are those of the words of ``train``, where they are to come from it.

        Raises:
            InvalidSettingError: the model's tags are of another scheme.
        """
        if not self._is_bio:
            raise InvalidSettingError(
                f"The model tags in another scheme than BIO, in which taggers are trained. Give it a new head: "
                f"ModelLoader(name, task={self.name!r}, labels={list(self.labels)!r})."
            )
        gold = [self._gold_tags(example, words_of(example), Counter()) or [] for example in train]
        return self.with_weights_of(Counter(_type_of(self.tags[tag]) for tags in gold for tag in tags))

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[Encoding], Mapping[str, int]]:
        """Return the windows of each example.

        Counts: ``extra_windows`` beyond one per text, ``unalignable_spans`` whose ends are not word boundaries (they
        cannot be learned, and count as missed), ``words_without_tokens`` that the tokenizer drops.
        """
        counts: Counter[str] = Counter()
        texts = tokenize_words(examples, _tokenizing(tokenizer))
        gold = [self._gold_tags(example, text.words, counts) for example, text in zip(examples, texts, strict=True)]
        return self._windows(texts, gold, tokenizer, max_length, counts), +counts

    def collate(self, encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        """Return the padded batch; ``labels`` has shape (rows, longest)."""
        batch = pad_batch(encodings, tokenizer)
        return {**batch, "labels": pad_labels(encodings, batch["input_ids"].shape[1])}

    def loss(self, logits: Tensor, labels: Tensor, model: Module) -> Tensor:
        """Summed loss of logits (rows, tokens, tags); with a CRF, of each tag given the gold tag before it."""
        if self.decoding == "crf":
            logits, labels = conditional_logits(logits, labels, chain_scores(model))
        return self.class_loss(logits, labels, [_type_of(tag) for tag in self.tags])

    def predict(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        *,
        max_length: int,
        validating: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Return the spans of each text.

        A span's score is the mean probability of the tags of its words: the model's, or with a CRF the marginal one over
        all sequences of tags.
        """
        del validating
        texts = tokenize_words(examples, _tokenizing(tokenizer))
        encodings = self._windows(texts, [None] * len(texts), tokenizer, max_length, Counter())
        batches = forward_in_batches(model, encodings, lambda batch: self.collate(batch, tokenizer), progress=progress)
        words = scores_of_words(texts, encodings, ((rows, logits.numpy()) for rows, _, logits in batches), self.tags)
        chain = chain_scores(model).to_numpy() if self.decoding == "crf" else None
        # Where an I- may begin an entity, no sequence is forbidden.
        decoding = "argmax" if self._begins_inside else self.decoding
        decoded = decode_tags(words, self.tags, decoding, chain)
        if not self._is_bio:
            decoded = [self._in_bio(text, scored_tags) for text, scored_tags in zip(texts, decoded, strict=True)]
        return [
            tagged_prediction(example, text, scored_tags)
            for example, text, scored_tags in zip(examples, texts, decoded, strict=True)
        ]

    @property
    def _is_bio(self) -> bool:
        return sorted(self.tags) == sorted(bio_labels(self.labels))

    @property
    def _begins_inside(self) -> bool:
        """Whether some type has no B-, as in IO and mostly in IOB1."""
        return any(f"B-{label}" not in self.tags for label in self.labels)

    def _in_bio(self, text: TokenizedText, scored_tags: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
        """Return the tags with a B- wherever an entity begins, and without a tag that no token speaks for."""
        may_be_outside = "O" in self.tags
        tags = [
            tag if pieces or may_be_outside else "O" for (tag, _), pieces in zip(scored_tags, text.pieces, strict=True)
        ]
        repaired, _ = repair_bio(tags)
        return [(tag, score) for tag, (_, score) in zip(repaired, scored_tags, strict=True)]

    def _refuse_what_a_crf_cannot(self) -> None:
        if self.label_all_subtokens:
            raise InvalidSettingError(
                "decoding='crf' learns how tags of words follow each other; label_all_subtokens=True would show it parts "
                "of words. Leave one of the two out."
            )
        if self.label_smoothing:
            raise InvalidSettingError(
                f"label_smoothing is {self.label_smoothing} with decoding='crf', where some tags must have no probability. "
                "Leave one of the two out."
            )

    def _windows(
        self,
        texts: Sequence[TokenizedText],
        gold: Sequence[Sequence[int] | None],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        counts: Counter[str],
    ) -> list[Encoding]:
        """Return the windows of each text, labelled with the tags of its words where there are any."""
        encodings: list[Encoding] = []
        if not texts:
            return encodings
        before, after = special_tokens_around(tokenizer)
        room = max_length - len(before) - len(after)
        for row, (text, its_gold) in enumerate(zip(texts, gold, strict=True)):
            counts["words_without_tokens"] += text.pieces.count(0)
            windows = read_windows(text, room)
            counts["extra_windows"] += len(windows) - 1
            for window in windows:
                labels = [IGNORED] * len(before) + self._label_tokens(window, its_gold) + [IGNORED] * len(after)
                input_ids = [*before, *window.input_ids, *after]
                encodings.append(Encoding(row, input_ids, labels, window.answers(len(before))))
        return encodings

    def _gold_tags(self, example: Example, words: Sequence[tuple[int, int]], counts: Counter[str]) -> list[int] | None:
        if example.target is None:
            return None
        if isinstance(example.target, str):
            raise DataError(
                f"Example {example.id!r} has the target {example.target!r}; token classification needs spans."
            )
        unknown = sorted({span.label for span in example.target} - set(self.labels))
        if unknown:
            raise DataError(
                f"Example {example.id!r} has entities of type {', '.join(unknown)}, which the model does not know. "
                f"It knows: {', '.join(self.labels)}. Load the model with labels=data.labels."
            )
        tags, unalignable = spans_to_tags(example.target, words)
        counts["unalignable_spans"] += len(unalignable)
        if not self._is_bio:
            return None
        return [self.tags.index(tag) for tag in tags]

    def _label_tokens(self, window: Window, gold: Sequence[int] | None) -> list[int]:
        """Return the label of each token of a window."""
        if gold is None:
            return [IGNORED] * len(window.word_of)
        labels, seen = [], set()
        for word in window.word_of:
            is_first = word not in seen
            seen.add(word)
            if word < 0 or not (is_first or self.label_all_subtokens):
                labels.append(IGNORED)
            else:
                labels.append(gold[word] if is_first else self._continued(gold[word]))
        return labels

    def _continued(self, tag: int) -> int:
        """Return the tag of a further sub-token: B- is kept for the first only."""
        name = self.tags[tag]
        return self.tags.index(f"I-{name[2:]}") if name.startswith("B-") else tag


def _tokenizing(tokenizer: PreTrainedTokenizerBase) -> Tokenizing:
    def tokenize(texts: list[str]) -> Iterable[tuple[list[int], Offsets]]:
        found = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return zip(found["input_ids"], found["offset_mapping"], strict=True)

    return tokenize


def _type_of(tag: str) -> str:
    """Return the entity type of a BIO tag, ``"O"`` outside."""
    return split_tag(tag)[1] or "O"
