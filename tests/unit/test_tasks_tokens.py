"""Token classification: every word answered once, no gold entity lost, whatever the tokenizer does to the text."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightft import Example, ModelLoader, Span
from lightft.errors import DataError, InvalidSettingError
from lightft.metrics import build_metric, score_predictions
from lightft.spans import bio_tags_of_outputs, join_words, spans_to_tags, tags_to_spans
from lightft.tasks import Encoding, TokenClassification
from tests.tiny_models import TOKENIZERS, TYPES, tagged, tagged_texts, tokenizer_of

HEAD = TokenClassification(labels=TYPES)
TOKENIZER = {kind: tokenizer_of(kind, model_max_length=10**6) for kind in TOKENIZERS}
ODD_TOKENS = [
    "\u200b",
    "\u0301",
    "e\u0301",
    "😀",
    "",
    "ﬁlm",
    "…",
    "東京",
    "\xad",
    "U.S.",
    "#",
    "\uff46\uff49\uff4c\uff4d",  # full-width letters
    "\ufeff",
    "a\u200bb",
    "\x7f",
]


class Oracle(nn.Module):
    """A model that gives, for rows of ids it has been told of, logits that are sure of the labels, and noise elsewhere."""

    def __init__(self, encodings: Sequence[Encoding], outputs: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.outputs = outputs
        # Rows of the same ids are asked for in their order.
        self.known: defaultdict[tuple[int, ...], deque[list[int]]] = defaultdict(deque)
        for encoding in encodings:
            self.known[tuple(encoding.input_ids)].append(encoding.labels)

    def get_output_embeddings(self) -> None:
        """Say that this is no language model, as transformers' models do."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        logits = 9 * torch.randn(*input_ids.shape, self.outputs, generator=torch.Generator().manual_seed(0))
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            for place, label in enumerate(self.known[tuple(ids[mask.bool()].tolist())].popleft()):
                if label >= 0:
                    logits[row, place] = -30.0
                    logits[row, place, label] = 30.0
        return SimpleNamespace(logits=logits)


def answers_of_perfect_model(
    head: TokenClassification, kind: str, examples: Sequence[Example], max_length: int = 64
) -> list[Any]:
    encodings, _ = head.encode(examples, TOKENIZER[kind], max_length)
    model: Any = Oracle(encodings, len(head.tags))
    return head.predict(model, TOKENIZER[kind], examples, max_length=max_length)


def long_text(words: int = 120) -> Example:
    tokens = [word for example in tagged_texts(40) for word in example.text.split()][:words]
    return tagged("long", [f"{word}{number}" if word == "film" else word for number, word in enumerate(tokens)])


# --- encoding


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_first_token_of_each_word_carries_its_tag(kind: str) -> None:
    example = tagged("a", ["anna", "berg", "met", "bert", "in", "new", "york", "xyxy"])
    (encoding,), counts = HEAD.encode([example], TOKENIZER[kind], 64)
    assert counts == {}
    tags = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "I-LOC", "O"]
    assert [encoding.labels[token] for _, token in encoding.words] == [HEAD.tags.index(tag) for tag in tags]
    assert [word for word, _ in encoding.words] == list(range(8))
    assert encoding.label_count == 8
    assert encoding.input_ids == TOKENIZER[kind](example.text)["input_ids"]
    pieces = TOKENIZER[kind].convert_ids_to_tokens([encoding.input_ids[token] for _, token in encoding.words])
    assert all(
        piece.strip("Ġ▁#")[:1] in (word[0], "") for piece, word in zip(pieces, example.text.split(), strict=True)
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", [8, 9, 13, 20, 33, 64])
def test_every_word_of_a_long_text_is_answered_exactly_once(kind: str, max_length: int) -> None:
    examples = [long_text(), *tagged_texts()]
    encodings, counts = HEAD.encode(examples, TOKENIZER[kind], max_length)
    answered = Counter((encoding.example, word) for encoding in encodings for word, _ in encoding.words)
    assert set(answered.values()) == {1}
    assert set(answered) == {
        (row, word) for row, example in enumerate(examples) for word in range(len(example.words or ()))
    }
    assert all(len(encoding.input_ids) <= max_length for encoding in encodings)
    assert counts.get("extra_windows", 0) == len(encodings) - len(examples)
    before, after = encodings[0].input_ids[0], encodings[0].input_ids[-1]
    assert all((encoding.input_ids[0], encoding.input_ids[-1]) == (before, after) for encoding in encodings)
    labelled = sum(encoding.label_count for encoding in encodings)
    assert labelled == sum(len(example.words or ()) for example in examples)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", [8, 12, 25, 64])
def test_no_gold_entity_is_lost_at_any_window_size(kind: str, max_length: int) -> None:
    examples = [long_text(), *tagged_texts()]
    predictions = answers_of_perfect_model(HEAD, kind, examples, max_length)
    assert [prediction.gold for prediction in predictions] == [example.target for example in examples]
    assert [prediction.predicted for prediction in predictions] == [example.target for example in examples]
    assert score_predictions(predictions, ["span_recall", "span_f1"]) == {"span_recall": 1.0, "span_f1": 1.0}


def test_support_is_the_datas_even_if_nothing_is_found(tiny_bert: Path) -> None:
    model, tokenizer = ModelLoader(
        str(tiny_bert), task="token-classification", labels=TYPES, dtype="float32"
    ).load_model()
    with torch.no_grad():
        model.classifier.bias[HEAD.tags.index("O")] = 100.0
    examples = [long_text(), *tagged_texts()]
    predictions = HEAD.predict(model, tokenizer, examples, max_length=12)
    assert all(prediction.predicted == () for prediction in predictions)
    counts = build_metric("span_f1", TYPES)
    missed = sum(counts.counts(prediction)[2] for prediction in predictions)  # type: ignore[union-attr]
    assert missed == sum(len(example.target or ()) for example in examples) > 0


def test_a_word_is_answered_where_it_has_most_context() -> None:
    example = long_text()
    encodings, _ = HEAD.encode([example], TOKENIZER["wordpiece"], 22)
    whole = TOKENIZER["wordpiece"](example.text, add_special_tokens=False)["input_ids"]
    context: dict[int, list[int]] = {}
    start = 0
    for number, encoding in enumerate(encodings):
        inner = encoding.input_ids[1:-1]
        while whole[start : start + len(inner)] != inner:
            start += 1
        last = number == len(encodings) - 1
        for word, token in encoding.words:
            left = 10**6 if start == 0 else token - 1
            right = 10**6 if last else len(inner) - token
            context[word] = [left, right]
    assert set(context) == set(range(len(example.words or ())))
    assert min(min(sides) for sides in context.values()) >= 2


def test_too_small_a_window_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="max_length leaves 0 tokens for the text"):
        HEAD.encode(tagged_texts(), TOKENIZER["wordpiece"], 2)


def test_labelling_all_subtokens_changes_training_and_not_what_is_counted() -> None:
    example = tagged("a", ["xyxy", "anna", "met", "bert", "in", "rome"])
    example = Example("a", example.text, (Span(0, 9, "PER"), *(example.target or ())[1:]), words=example.words)
    tokenizer = TOKENIZER["wordpiece"]
    (first,), _ = HEAD.encode([example], tokenizer, 64)
    every = TokenClassification(labels=TYPES, label_all_subtokens=True)
    (all_of_them,), _ = every.encode([example], tokenizer, 64)
    assert all_of_them.words == first.words
    assert all_of_them.input_ids == first.input_ids
    assert first.label_count == 6
    assert all_of_them.label_count == len(first.input_ids) - 2 == 9
    begin, inside = HEAD.tags.index("B-PER"), HEAD.tags.index("I-PER")
    assert first.labels[1:6] == [begin, -100, -100, -100, inside]
    assert all_of_them.labels[1:6] == [begin, inside, inside, inside, inside]
    ours, theirs = (answers_of_perfect_model(head, "wordpiece", [example]) for head in (HEAD, every))
    assert [prediction.tags for prediction in ours] == [prediction.tags for prediction in theirs]
    assert [prediction.words for prediction in ours] == [example.words] == [prediction.words for prediction in theirs]


def test_an_entity_that_is_not_on_word_boundaries_counts_as_missed() -> None:
    example = Example("a", "anna met bertram", (Span(0, 4, "PER"), Span(9, 13, "PER")))
    _, counts = HEAD.encode([example], TOKENIZER["wordpiece"], 64)
    assert counts == {"unalignable_spans": 1}
    (prediction,) = answers_of_perfect_model(HEAD, "wordpiece", [example])
    assert prediction.predicted == (Span(0, 4, "PER"),)
    assert prediction.gold == example.target
    assert score_predictions([prediction], ["span_recall", "span_precision"]) == {
        "span_recall": 0.5,
        "span_precision": 1.0,
    }


def test_targets_of_the_wrong_kind_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"Example 'a' has the target 'PER'; token classification needs spans"):
        HEAD.encode([Example("a", "anna", "PER")], TOKENIZER["wordpiece"], 64)
    with pytest.raises(DataError, match=r"Example 'a' has entities of type ORG.*It knows: LOC, PER"):
        HEAD.encode([Example("a", "anna", (Span(0, 4, "ORG"),))], TOKENIZER["wordpiece"], 64)


def test_a_text_without_gold_carries_no_loss_and_is_still_answered() -> None:
    (encoding,), _ = HEAD.encode([Example("a", "anna met bert")], TOKENIZER["wordpiece"], 64)
    assert encoding.label_count == 0
    assert [word for word, _ in encoding.words] == [0, 1, 2]


def test_empty_texts_have_a_row_and_no_words() -> None:
    encodings, counts = HEAD.encode([Example("a", "", ()), Example("b", " \n ", ())], TOKENIZER["wordpiece"], 64)
    assert [encoding.example for encoding in encodings] == [0, 1]
    assert [encoding.words for encoding in encodings] == [(), ()]
    assert counts == {}
    assert HEAD.encode([], TOKENIZER["wordpiece"], 64)[0] == []
    predictions = answers_of_perfect_model(HEAD, "wordpiece", [Example("a", "", ())])
    assert (predictions[0].predicted, predictions[0].tags, predictions[0].words) == ((), (), ())


# --- perfect logits decode to the gold


def odd_sentence(tokens: list[str], tags: list[str]) -> Example:
    text, words = join_words(tokens)
    return Example("odd", text, tags_to_spans(tags, words, text), words=words)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("odd", ODD_TOKENS, ids=ascii)
def test_odd_tokens_do_not_shift_the_tags_of_others(kind: str, odd: str) -> None:
    tokens = ["anna", odd, "met", odd, "bert", odd, "berg", "in", odd, "new", "york", odd]
    tags = ["B-PER", "O", "O", "O", "B-PER", "I-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    example = odd_sentence(tokens, tags)
    (prediction,) = answers_of_perfect_model(HEAD, kind, [example])
    assert prediction.predicted == example.target
    assert prediction.tags == tuple(tags)
    _, counts = HEAD.encode([example], TOKENIZER[kind], 64)
    if odd == "":
        assert counts["words_without_tokens"] == 5


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_perfect_logits_decode_to_the_gold(kind: str, data: st.DataObject) -> None:
    plain = st.sampled_from(["anna", "new", "york", "film", *ODD_TOKENS])
    word = st.one_of(plain, st.text(max_size=6).map(lambda text: "".join(text.split())))
    tokens = data.draw(st.lists(word, min_size=1, max_size=12))
    tags = data.draw(valid_tags(len(tokens)))
    example = odd_sentence(tokens, tags)
    encodings, counts = HEAD.encode([example], TOKENIZER[kind], 16)
    answered = {number for encoding in encodings for number, _ in encoding.words}
    assert counts.get("words_without_tokens", 0) == len(tokens) - len(answered)
    (prediction,) = answers_of_perfect_model(HEAD, kind, [example], 16)
    # Where an entity starts or ends in what the tokenizer drops, where one ends and the next begins cannot be told.
    dropped_begin = {number for number, tag in enumerate(tags) if tag.startswith("B-") and number not in answered}
    starts = {start for number, (start, _) in enumerate(example.words or ()) if number in answered}
    ends = {
        end
        for number, (_, end) in enumerate(example.words or ())
        if number in answered and number + 1 not in dropped_begin
    }
    certain = {span for span in example.target or () if span.start in starts and span.end in ends}
    assert certain <= set(prediction.predicted)
    if len(answered) == len(tokens):
        assert prediction.predicted == example.target


@st.composite
def valid_tags(draw: st.DrawFn, length: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < length:
        label = draw(st.sampled_from(["", *TYPES]))
        size = draw(st.integers(1, 3))
        tags += [f"B-{label}", *[f"I-{label}"] * (size - 1)] if label else ["O"]
    return tags[:length]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_running_text_is_read_in_words_with_any_spacing(kind: str) -> None:
    text = "  Anna Berg\tmet  bert,in\nnew york!"
    spans = tuple(
        Span(text.index(mention), text.index(mention) + len(mention), label)
        for mention, label in (("Anna Berg", "PER"), ("bert", "PER"), ("new york", "LOC"))
    )
    (prediction,) = answers_of_perfect_model(HEAD, kind, [Example("a", text, spans)])
    assert prediction.predicted == spans
    assert [span.text for span in prediction.predicted] == ["Anna Berg", "bert", "new york"]
    assert all(span.score == pytest.approx(1.0) for span in prediction.predicted)


def test_argmax_drops_what_constrained_decoding_mends() -> None:
    example = tagged("a", ["anna", "met", "bert"])
    encodings, _ = HEAD.encode([example], TOKENIZER["wordpiece"], 64)
    stray = [HEAD.tags.index(tag) if tag else -100 for tag in ("", "I-PER", "O", "B-PER", "")]
    wrong = Encoding(0, encodings[0].input_ids, stray, encodings[0].words)
    for decoding, tags in (("argmax", ("I-PER", "O", "B-PER")), ("constrained", None)):
        head = TokenClassification(labels=TYPES, decoding=decoding)
        model: Any = Oracle([wrong], len(head.tags))
        (prediction,) = head.predict(model, TOKENIZER["wordpiece"], [example], max_length=64)
        assert prediction.tags is not None
        assert tags is None or prediction.tags == tags
        assert prediction.tags[0].startswith("I-") is (decoding == "argmax")
        assert Span(9, 13, "PER") in prediction.predicted
    with pytest.raises(InvalidSettingError, match="No decoding named 'viterbi'"):
        TokenClassification(labels=TYPES, decoding="viterbi")


def test_a_checkpoint_may_have_its_tags_in_another_order() -> None:
    order = ("I-PER", "B-PER", "B-LOC", "O", "I-LOC")
    head = TokenClassification(labels=TYPES, tags=order)
    predictions = answers_of_perfect_model(head, "wordpiece", tagged_texts())
    assert [prediction.predicted for prediction in predictions] == [example.target for example in tagged_texts()]
    with pytest.raises(InvalidSettingError, match=r"not BIO tags of LOC, PER: B-ORG\."):
        TokenClassification(labels=TYPES, tags=("O", "B-LOC", "B-ORG", "B-PER", "I-PER"))
    with pytest.raises(InvalidSettingError, match=r"not BIO tags of LOC, PER: LOC\."):
        TokenClassification(labels=TYPES, tags=("O", "B-PER", "I-PER"))


WORDS_OF_SCHEMES = ["anna", "berg", "met", "bert", "rome", "paris", "new", "york"]


@pytest.mark.parametrize(
    ("outputs", "tags", "read_as"),
    [
        pytest.param("O LOC PER", "PER PER O PER LOC LOC LOC LOC", "B I O B B I I I", id="bare types"),
        pytest.param("I-PER O I-LOC", "I-PER I-PER O I-PER I-LOC I-LOC I-LOC I-LOC", "B I O B B I I I", id="IO"),
        pytest.param(
            "B-LOC I-LOC I-PER O", "I-PER I-PER O I-PER I-LOC B-LOC B-LOC I-LOC", "B I O B B B B I", id="IOB1"
        ),
        pytest.param(
            "O B-PER I-PER L-PER U-PER B-LOC I-LOC L-LOC U-LOC",
            "B-PER L-PER O U-PER U-LOC U-LOC B-LOC L-LOC",
            "B I O B B B B I",
            id="BILOU",
        ),
        pytest.param(
            "B-PER I-PER E-PER S-PER B-LOC I-LOC E-LOC S-LOC O",
            "B-PER E-PER O S-PER B-LOC I-LOC I-LOC E-LOC",
            "B I O B B I I I",
            id="BIOES",
        ),
        pytest.param("O B-PER I-PER B-LOC", "B-PER I-PER O B-PER B-LOC B-LOC O O", "B I O B B B O O", id="no I-LOC"),
        pytest.param(
            "NOUN VERB S", "NOUN NOUN VERB NOUN NOUN NOUN S S", "B B B B B B B B", id="parts of speech: words alone"
        ),
        pytest.param("B M E S", "B E S S S S B E", "B I B B B B B I", id="bare prefixes"),
    ],
)
def test_tags_of_any_scheme_are_read_as_entities(outputs: str, tags: str, read_as: str) -> None:
    names = outputs.split()
    nearest = bio_tags_of_outputs(names)
    types = tuple(dict.fromkeys(tag[2:] for tag in nearest if tag != "O"))
    head = TokenClassification(types, tags=nearest)
    text, words = join_words(WORDS_OF_SCHEMES)
    example = Example("a", text, words=words)
    (encoding,), _ = head.encode([example], TOKENIZER["unigram"], 64)
    labels = [-100] * len(encoding.input_ids)
    for (_, token), tag in zip(encoding.words, tags.split(), strict=True):
        labels[token] = names.index(tag)
    model: Any = Oracle([Encoding(0, encoding.input_ids, labels, encoding.words)], len(names))
    (prediction,) = head.predict(model, TOKENIZER["unigram"], [example], max_length=64)
    expected = tuple(
        prefix if prefix == "O" else f"{prefix}-{nearest[names.index(tag)][2:]}"
        for prefix, tag in zip(read_as.split(), tags.split(), strict=True)
    )
    assert prediction.tags == expected
    assert prediction.predicted == tags_to_spans(expected, words, text)
    assert spans_to_tags(prediction.predicted, words)[0] == expected, "a metric reads them alike"
    assert all(span.score == pytest.approx(1.0) for span in prediction.predicted)


def test_a_word_without_tokens_has_no_part_of_speech() -> None:
    head = TokenClassification(("NOUN", "VERB"), tags=("B-NOUN", "B-VERB"))
    example = odd_sentence(["anna", "", "met"], ["O", "O", "O"])
    (encoding,), _ = head.encode([example], TOKENIZER["wordpiece"], 64)
    model: Any = Oracle([Encoding(0, encoding.input_ids, [-100, 0, 1, -100], encoding.words)], 2)
    (prediction,) = head.predict(model, TOKENIZER["wordpiece"], [example], max_length=64)
    assert prediction.tags == ("B-NOUN", "O", "B-VERB")


def test_only_bio_is_trained() -> None:
    head = TokenClassification(TYPES, tags=("O", "I-LOC", "I-PER"))
    with pytest.raises(InvalidSettingError, match=r"another scheme than BIO.*ModelLoader\(name"):
        head.fitted(tagged_texts())
    encodings, _ = head.encode(tagged_texts(), TOKENIZER["wordpiece"], 64)
    assert all(encoding.label_count == 0 for encoding in encodings)


def test_a_batch_answers_as_each_text_alone(tiny_bert: Path) -> None:
    model, tokenizer = ModelLoader(
        str(tiny_bert), task="token-classification", labels=TYPES, dtype="float32"
    ).load_model()
    examples = [long_text(), *tagged_texts()]
    together = HEAD.predict(model, tokenizer, examples, max_length=30)
    assert any(prediction.predicted for prediction in together)
    for example, prediction in zip(examples, together, strict=True):
        (alone,) = HEAD.predict(model, tokenizer, [example], max_length=30)
        assert alone.tags == prediction.tags
        assert [span.score for span in alone.predicted] == pytest.approx(
            [span.score for span in prediction.predicted], abs=1e-5
        )  # type: ignore[union-attr]
