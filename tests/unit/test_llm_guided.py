"""Guided decoding of the two dictionary formats: whole JSON of asked types and mentions of the text, whatever the text."""

from __future__ import annotations

import codecs
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from peft import PrefixTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerBase,
)

from lightft.errors import EngineError, InvalidSettingError, MissingExtraError
from lightft.llm_ner import FORMATS
from lightft.llm_ner.decoding import GuidedAnswer, GuidedDecoder, TokenBytes
from lightft.llm_ner.decoding.guided import _Engine, _Row
from lightft.llm_ner.decoding.json_grammar import WRITERS, Mentions, Segment
from tests.tiny_models import llama_config, llama_tokenizer, unigram_tokenizer, wordpiece_tokenizer
from tests.unit.test_llm_decoding import byte_tokenizer, llama2_tokenizer
from tests.unit.test_llm_decoding import llama as byte_llama

from_tokenizer = pytest.importorskip("llguidance.hf").from_tokenizer

LABELS = ("PER", "LOC")
FORMAT_NAMES = ("categories", "objects")
PROMPT = [0, 5, 6, 7]
NASTY = (
    "a",
    "aa a aa",
    " ",
    "",
    'He said "Anna", and \\n is no line break \\',
    "Anna\r\nmet\n\tBert\x00\x1f\x7f\x85",
    '"]}, {"entity": "x", "type": "PER"}]',
    "<|im_end|> and </s> are text <s>",
    "😀 Zoë met 👩‍👩‍👧 in Zu\u0308rich\u0301",
    "安倍晋三は東京で",
    '\\u0041 \\\\ \\" \u2028\u2029',
    "half \ud83d of a character",
)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return llama_tokenizer(chat=True)


@cache
def llama(seed: int, vocabulary: int = 0) -> LlamaForCausalLM:
    """A random model in float64, so that no two tokens are equally likely up to rounding."""
    torch.manual_seed(seed)
    config = llama_config(vocabulary or len(tokenizer()))
    config.max_position_embeddings = 4096
    return LlamaForCausalLM(config).double().eval()


TOKENIZERS = {"bytes": tokenizer, "sentencepiece": llama2_tokenizer, "unigram": cache(unigram_tokenizer)}


def guided_answers(model, tokenizer, prompts, texts, labels, *, max_new_tokens, **settings) -> list[GuidedAnswer]:
    limits = [max_new_tokens] * len(texts) if isinstance(max_new_tokens, int) else max_new_tokens
    decoder = GuidedDecoder(model, TokenBytes(tokenizer), labels, **settings)
    return list(decoder.answers(zip(prompts, texts, limits, strict=True)))


def prompts_of(texts: Sequence[str]) -> list[list[int]]:
    return [[0, *range(4, 5 + 3 * (number % 4))] for number in range(len(texts))]


def ask(texts: Sequence[str], labels=LABELS, *, seed=0, limit: int | list[int] = 300, **options) -> list[GuidedAnswer]:
    return guided_answers(llama(seed), tokenizer(), prompts_of(texts), texts, labels, max_new_tokens=limit, **options)


def named(answer: str, format: str) -> list[tuple[str, str]]:
    """Return types and mentions, by Python's JSON alone."""
    read = json.loads(answer, object_pairs_hook=list)
    if format == "categories":
        assert len({label for label, _ in read}) == len(read)
        return [(label, mention) for label, mentions in read for mention in mentions]
    assert all([name for name, _ in row] == ["entity", "type"] for row in read)
    return [(label, mention) for (_, mention), (_, label) in read]


def check(text: str, answer: GuidedAnswer, labels, format: str) -> None:
    assert "".join(piece for piece, _ in answer.pieces) == answer.text
    assert all(log_probability <= 0 for _, log_probability in answer.pieces)
    reading = FORMATS[format].read(text, answer.text, labels)
    if not answer.finished:
        assert reading.outcome in ("truncated", "refused", "ungrounded")
        return
    pairs = named(answer.text, format)
    assert {label for label, _ in pairs} <= set(labels)
    assert all(mention and mention in text and mention == mention.strip() for _, mention in pairs)
    assert reading.outcome == "ok"
    assert sorted((span.label, text[span.start : span.end]) for span in reading.spans) == sorted(pairs)


def wander(
    text: str, labels, format: str, seed: int, *, tokenizer: PreTrainedTokenizerBase, limit: int = 500
) -> tuple[GuidedAnswer, list[int]]:
    """Write an answer by the throw of a die among the allowed tokens, preferring longer ones; return its tokens too."""
    chance = random.Random(seed)
    engine = engine_of(tokenizer)
    row = _Row(engine, WRITERS[format](Mentions(text, engine.vocabulary), labels), PROMPT, limit)
    tokens = []
    while not row.done:
        allowed = row.allowed
        assert len(allowed), row.answer().text
        picks = [int(chance.choice(allowed)) for _ in range(2)]
        tokens.append(max(picks, key=lambda token: len(engine.vocabulary[token])))
        row.take(tokens[-1], 0.0)
    return row.answer(), tokens


@cache
def engine_of(tokenizer: PreTrainedTokenizerBase) -> _Engine:
    return _Engine(TokenBytes(tokenizer))


_LETTERS = st.sampled_from([*"ab A1.\"'\\/n{}[]:,<|>\n\t\x00\x1f\x7f\x85\xa0é\u0301東😀\u2028"])
_TEXTS = st.one_of(st.sampled_from(NASTY), st.text(_LETTERS, max_size=30), st.text(max_size=20))
_USUAL_LABELS = st.sampled_from(["PER", "LOC", 'a "b"', "\\", "entity", "null", "</s>"])
_LABELS = st.lists(_USUAL_LABELS | st.text(_LETTERS, min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@given(_TEXTS, _LABELS, st.sampled_from(FORMAT_NAMES), st.sampled_from(tuple(TOKENIZERS)), st.integers(0, 2**30))
@settings(max_examples=150, deadline=None)
@example('a \\n "b" \\', ["\\"], "categories", "bytes", 0)
@example("a a b", ["PER", "LOC"], "objects", "bytes", 1)
def test_whatever_is_allowed_becomes_json_that_its_format_reads_whole(text, labels, format, kind, seed) -> None:
    assume(not engine_of(TOKENIZERS[kind]()).vocabulary.missing_from(json.dumps(labels, ensure_ascii=False)))
    answer, tokens = wander(text, labels, format, seed, tokenizer=TOKENIZERS[kind]())
    check(text, answer, labels, format)
    assert not set(tokens) & set(TOKENIZERS[kind]().all_special_ids)


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_a_model_names_only_what_stands_in_the_text(format: str) -> None:
    labels = ("PER", 'a "quoted" \\ type')
    answers = [answer for seed in range(2) for answer in ask(NASTY, labels, format=format, seed=seed, limit=80)]
    for text, answer in zip(NASTY * 2, answers, strict=True):
        check(text, answer, labels, format)
    assert sum(answer.finished for answer in answers) > len(NASTY) / 2


def categories_of(mentions: dict[str, int], labels: tuple[str, ...], words: int) -> set[str]:
    """Enumerate all answers, each mention at most so often, and at most so many for a type."""
    lists = [
        chosen
        for size in range(1, words + 1)
        for chosen in product(mentions, repeat=size)
        if all(chosen.count(mention) <= mentions[mention] for mention in chosen)
    ]
    return {
        json.dumps(dict(zip(types, chosen, strict=True)), ensure_ascii=False)
        for count in range(len(labels) + 1)
        for types in permutations(labels, count)
        for chosen in product(lists, repeat=count)
    }


def objects_of(mentions: dict[str, int], labels: tuple[str, ...], words: int) -> set[str]:
    """Enumerate all answers, each mention at most so often with a type."""
    pairs = list(product(mentions, labels))
    return {
        json.dumps([{"entity": mention, "type": label} for mention, label in chosen], ensure_ascii=False)
        for size in range(words * len(labels) + 1)
        for chosen in product(pairs, repeat=size)
        if all(chosen.count(pair) <= mentions[pair[0]] for pair in chosen)
    }


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("format", "text", "mentions", "words", "labels"),
    [
        ("categories", "Anna met", {"Anna": 1, "met": 1, "Anna met": 1}, 2, ("PER", "LOC")),
        ("categories", 'a "', {"a": 1, '"': 1, 'a "': 1}, 2, ('"', "PER")),
        ("categories", "a\ta", {"a": 2, "a\ta": 1}, 2, ("PER",)),
        ("objects", "Anna met", {"Anna": 1, "met": 1, "Anna met": 1}, 2, ("PER", "LOC")),
        ("objects", "a a", {"a": 2, "a a": 1}, 2, ("P\\",)),
    ],
)
def test_the_answer_is_that_of_a_greedy_loop_over_all_possible_answers(
    format: str, text: str, mentions: dict[str, int], words: int, labels: tuple[str, ...], seed: int
) -> None:
    enumerate_all = {"categories": categories_of, "objects": objects_of}[format]
    language = sorted(answer.encode() for answer in enumerate_all(mentions, labels, words))
    vocabulary = TokenBytes(tokenizer())
    ids = list(PROMPT)
    written, pieces = b"", []
    while written not in language:
        # No answer begins another, so that an answer ends where it is whole.
        rests = [answer.removeprefix(written) for answer in language if answer.startswith(written)]
        prefixes = {rest[:end] for rest in rests for end in range(1, 10)}
        allowed = [token for piece, tokens in vocabulary.ids.items() if piece in prefixes for token in tokens]
        with torch.inference_mode():
            scores = llama(seed)(input_ids=torch.tensor([ids])).logits[0, -1]
        scores = scores[allowed].log_softmax(-1)
        best = int(scores.argmax())
        ids.append(allowed[best])
        written += vocabulary[allowed[best]]
        pieces.append((vocabulary[allowed[best]].decode(), float(scores[best])))

    (answer,) = guided_answers(llama(seed), tokenizer(), [PROMPT], [text], labels, format=format, max_new_tokens=1000)
    assert answer.text == written.decode()
    assert answer.finished
    assert [piece for piece, _ in answer.pieces] == [piece for piece, _ in pieces]
    np.testing.assert_allclose([p for _, p in answer.pieces], [p for _, p in pieces], atol=1e-9)


def mentions_allowed(text: str, exhausted: tuple[str, ...] = ()) -> set[str]:
    """Return all mentions that the grammar allows, byte by byte."""
    engine = engine_of(tokenizer())
    segment = Segment(['"'], Mentions(text, engine.vocabulary).terminal(exhausted))
    singles = {vocabulary[0]: tokens[0] for vocabulary, tokens in engine.vocabulary.ids.items() if len(vocabulary) == 1}
    found, open_ends = set(), [(b"", engine.matcher(segment.grammar()))]
    while open_ends:
        written, matcher = open_ends.pop()
        allowed = set(engine.allowed_tokens(matcher).tolist())
        nexts = [bytes((byte,)) for byte, token in singles.items() if token in allowed]
        assert nexts
        for byte in nexts:
            if byte == b'"' and (len(written) - len(written.rstrip(b"\\"))) % 2 == 0:
                found.add(json.loads(b'"' + written + b'"'))
            else:
                after = matcher.deep_copy()
                engine.take(after, singles[byte[0]])
                open_ends.append((written + byte, after))
    return found


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Anna met", {"Anna", "met", "Anna met"}),
        (" a  b\n", {"a", "b", "a  b"}),
        ("a\t\\t", {"a", "\\", "t", "a\t\\", "\\t", "a\t\\t"}),
        ("x1y", {"x1y"}),
        ("東京x", {"東", "京", "x", "東京", "京x", "東京x"}),
        ("Zu\u0308rich", {"Zu\u0308rich"}),
        ('"é"', {'"', '"é', "é", 'é"', '"é"'}),
        ("a\ud83db", {"a", "b"}),
    ],
)
def test_mentions_are_runs_of_whole_words_without_white_space_at_their_ends(text: str, mentions: set[str]) -> None:
    assert mentions_allowed(text) == mentions
    for exhausted in mentions:
        if len(mentions) > 1:
            assert mentions_allowed(text, (exhausted,)) == mentions - {exhausted}


def test_texts_with_characters_that_no_token_writes_have_mentions_around_them() -> None:
    engine = engine_of(unigram_tokenizer())
    answers = {
        wander("anna ж bert", ["per"], "objects", seed, tokenizer=TOKENIZERS["unigram"]())[0].text for seed in range(30)
    }
    assert engine.vocabulary.missing_from("ж")
    assert any("anna" in answer for answer in answers)
    assert any("bert" in answer for answer in answers)
    assert not any("ж" in answer for answer in answers)


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_tokens_write_what_llguidance_says_they_write(kind: str) -> None:
    its_own = from_tokenizer(TOKENIZERS[kind]())
    vocabulary = TokenBytes(TOKENIZERS[kind]())
    for piece, tokens in vocabulary.ids.items():
        # No byte 0xff is in UTF-8; llguidance has another use for it.
        assert piece == b"\xff" or all(its_own.decode_bytes([token]) == piece for token in tokens)


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_answers_do_not_depend_on_their_neighbours(format: str) -> None:
    texts = [*NASTY[:8], "Anna Berg went from Paris to Rome ."]
    limits = [5, 40, 20, 40, 60, 20, 33, 1, 40]
    alone = ask(texts, format=format, limit=limits, rows=1)
    together = ask(texts, format=format, limit=limits, rows=4)
    assert [(a.text, a.finished) for a in alone] == [(a.text, a.finished) for a in together]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose([p for _, p in one.pieces], [p for _, p in other.pieces], atol=1e-9)


def token_by_token(model, prompt: Sequence[int], text: str, format: str, limit: int) -> GuidedAnswer:
    """Write an answer with a pass for each token over all that stands before it."""
    engine, decoder = engine_of(tokenizer()), codecs.getincrementaldecoder("utf-8")()
    writer = WRITERS[format](Mentions(text, engine.vocabulary), LABELS)
    ids, pieces, goes_on = list(prompt), [], True
    while goes_on and len(pieces) < limit:
        segment, written = writer.segment(""), b""
        matcher = engine.matcher(segment.grammar())
        while not matcher.is_accepting() and len(pieces) < limit:
            allowed = engine.allowed_tokens(matcher)
            with torch.inference_mode():
                scores = model(input_ids=torch.tensor([ids])).logits[0, -1, allowed].log_softmax(-1)
            best = int(scores.argmax())
            ids.append(int(allowed[best]))
            engine.take(matcher, ids[-1])
            written += engine.vocabulary[ids[-1]]
            pieces.append((decoder.decode(engine.vocabulary[ids[-1]]), float(scores[best])))
        if matcher.is_accepting():
            goes_on = writer.take(*segment.read(written.decode()))
    return GuidedAnswer("".join(piece for piece, _ in pieces), tuple(pieces), not goes_on)


@contextmanager
def recorded_passes(model) -> Iterator[list[torch.Tensor]]:
    """Give the tokens of each forward pass."""
    passes: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: passes.append(inputs["input_ids"]), with_kwargs=True
    )
    try:
        yield passes
    finally:
        hook.remove()


@pytest.mark.parametrize(("format", "seed"), [("categories", 3), ("objects", 0)])
def test_answers_are_those_of_decoding_token_by_token_in_fewer_passes(format: str, seed: int) -> None:
    texts = [*NASTY, "Anna Berg went from Paris to Rome .", "anna"]
    with recorded_passes(llama(seed)) as passes:
        answers = ask(texts, format=format, seed=seed, limit=30, rows=len(texts))
    for prompt, text, answer in zip(prompts_of(texts), texts, answers, strict=True):
        expected = token_by_token(llama(seed), prompt, text, format, limit=30)
        assert (answer.text, answer.finished) == (expected.text, expected.finished)
        assert [piece for piece, _ in answer.pieces] == [piece for piece, _ in expected.pieces]
        np.testing.assert_allclose([p for _, p in answer.pieces], [p for _, p in expected.pieces], atol=1e-9)
    assert len(passes) < max(len(answer.pieces) for answer in answers)


@pytest.mark.parametrize(
    ("begun", "likely"),
    [
        ("", ""),
        ("Anto", "nio"),
        ("Antonio", ""),
        ("Antonio Kan", "dir"),
        ("Antonio Kandir", ""),
        ('Antonio"', ', "type": "'),
        ('Antonio", "ty', 'pe": "'),
        ("Kandir\\", ""),
        ("Kandir x", ""),
    ],
)
def test_what_is_likely_to_follow_is_the_rest_of_a_word_or_of_what_alone_can_follow(begun: str, likely: str) -> None:
    text = 'Antonio Kandir\'s "plan"'
    mentions = Mentions(text, engine_of(tokenizer()).vocabulary)
    segment = Segment(['", "type": "'], mentions.terminal(()), mentions.escaped_text)
    assert segment.likely(begun.encode()) == likely.encode()


def test_a_type_is_likely_to_be_ended_but_not_what_comes_after_it() -> None:
    segment = Segment(['ORGANIZATION"}]', 'ORGANIZATION"}, {"entity": "', 'LOC"}]', 'LOC"}, {"entity": "'])
    assert segment.likely(b"") == b""
    assert segment.likely(b"ORG") == b"ANIZATION"
    assert segment.likely(b'LOC"},') == b' {"entity": "'


def test_a_run_without_choice_goes_through_the_model_in_one_pass() -> None:
    letters = byte_tokenizer()
    with recorded_passes(byte_llama(3)) as passes:
        (answer,) = guided_answers(
            byte_llama(3), letters, [PROMPT], [""], ["PER"], format="categories", max_new_tokens=9
        )
    assert (answer.text, answer.pieces) == ("{}", (("{", 0.0), ("}", 0.0)))
    assert passes == []


def test_what_prompts_begin_with_is_computed_once() -> None:
    prompts = [[0, *range(5, 50), number] for number in (60, 61, 62)]
    texts = ["Anna", "Bert", "Carla"]
    with recorded_passes(llama(0)) as passes:
        together = guided_answers(llama(0), tokenizer(), prompts, texts, LABELS, format="objects", max_new_tokens=20)
    assert passes[0].tolist() == [prompts[0][:-1]]
    assert all(ids.shape[1] < 46 for ids in passes[1:])
    for prompt, text, answer in zip(prompts, texts, together, strict=True):
        expected = token_by_token(llama(0), prompt, text, "objects", 20)
        assert answer.text == expected.text


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_the_next_text_enters_when_one_is_done(format: str) -> None:
    texts = ["Anna Berg", "Anna Berg went from Paris to Rome .", "Carla met Bert in Zürich ."]
    limits = [3, 40, 40]
    decoder = GuidedDecoder(llama(5), TokenBytes(tokenizer()), LABELS, format=format, rows=2)
    asked = list(zip(prompts_of(texts), texts, limits, strict=True))
    alone = []
    for one in asked:
        with recorded_passes(llama(5)) as passes:
            list(decoder.answers([one]))
        alone.append(len(passes))
    assert min(alone[1:]) > 5
    with recorded_passes(llama(5)) as passes:
        together = list(decoder.answers(asked))
    assert max(len(ids) for ids in passes) == 2
    # In batches of two that wait for their longest answer, the third text would have all its passes after the second's.
    assert len(passes) < max(alone[:2]) + alone[2]
    for (prompt, text, limit), answer in zip(asked, together, strict=True):
        assert answer.text == token_by_token(llama(5), prompt, text, format, limit).text


def test_texts_are_read_as_answers_are() -> None:
    read = []

    def asked() -> Iterator[tuple[list[int], str, int]]:
        for number in range(1000):
            read.append(number)
            yield PROMPT, "Anna", 3 + number % 2

    decoder = GuidedDecoder(llama(0), TokenBytes(tokenizer()), LABELS, format="objects", rows=2)
    answers = decoder.answers(asked())
    for answered in range(1, 20):
        next(answers)
        assert len(read) <= answered + 8 * 2


def test_a_text_without_room_for_an_answer_fails_alone() -> None:
    asked = [(PROMPT, "Anna", 20), (PROMPT * 4, "Bert", 20), ([*PROMPT, 9], "Anna", 20)]
    decoder = GuidedDecoder(llama(0), TokenBytes(tokenizer()), LABELS, format="objects", max_length=len(PROMPT) + 3)
    first, without, last = decoder.answers(asked)
    assert without.error.startswith(f"Prompt and answer are longer than the {len(PROMPT) + 3} tokens")
    assert [len(answer.pieces) for answer in (first, without, last)] == [3, 0, 2]


def test_a_text_that_llguidance_cannot_take_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Anna met", "Carla met", "Bert met"]
    alone = ask(texts, format="objects", seed=0, limit=40)
    assert "[{" in alone[1].text
    grammar = Segment.grammar
    monkeypatch.setattr(
        Segment, "grammar", lambda part: "start: unknown\n" if part.text.startswith("Carla") else grammar(part)
    )
    answers = ask(texts, format="objects", seed=0, limit=40)
    assert answers[1].error.startswith("llguidance stopped")
    assert (answers[1].text, answers[1].pieces, answers[1].finished) == ("", (), False)
    assert [answer.text for answer in answers[::2]] == [answer.text for answer in alone[::2]]


def test_an_answer_ends_where_its_limit_is_and_begins_as_without_it() -> None:
    text = "Anna Berg went from Paris to Rome ."
    (whole,), (cut,) = ask([text], format="objects", limit=400), ask([text], format="objects", limit=30)
    assert len(cut.pieces) == 30
    assert not cut.finished
    assert whole.text.startswith(cut.text)
    assert whole.pieces[:30] == cut.pieces


def test_a_small_model_cannot_go_round_in_circles() -> None:
    answers = [answer for seed in range(5) for answer in ask(["a", ""], format="categories", seed=seed)]
    assert {answer.text for answer in answers} <= {
        "{}", '{"PER": ["a"]}', '{"LOC": ["a"]}', '{"PER": ["a"], "LOC": ["a"]}', '{"LOC": ["a"], "PER": ["a"]}'
    }  # fmt: skip
    assert all(answer.finished for answer in answers)


def test_a_model_is_left_in_its_mode() -> None:
    model = llama(7).train()
    guided_answers(model, tokenizer(), [PROMPT], ["a"], LABELS, format="objects", max_new_tokens=3)
    assert model.training


def test_no_texts_have_no_answers() -> None:
    assert ask([], format="objects") == []


def test_models_that_are_open_to_everyone_are_guided(tiny_llama: Path) -> None:
    model, its_tokenizer = AutoModelForCausalLM.from_pretrained(tiny_llama), AutoTokenizer.from_pretrained(tiny_llama)
    answers = guided_answers(
        model, its_tokenizer, [PROMPT, PROMPT], ["Anna", "</s>"], LABELS, format="categories", max_new_tokens=60
    )
    for text, answer in zip(["Anna", "</s>"], answers, strict=True):
        check(text, answer, LABELS, "categories")
        assert answer.finished


def test_a_model_with_an_attention_window_is_guided() -> None:
    torch.manual_seed(0)
    settings = llama_config(len(tokenizer())).to_diff_dict() | {"sliding_window": 16}
    model = MistralForCausalLM(MistralConfig(**{**settings, "model_type": "mistral"})).double().eval()
    (answer,) = guided_answers(model, tokenizer(), [PROMPT], ["Anna met"], LABELS, format="objects", max_new_tokens=150)
    check("Anna met", answer, LABELS, "objects")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": [[]]}, "A prompt is empty"),
        ({"max_new_tokens": 0}, "at least one token"),
        ({"rows": 0}, "at least 1"),
        ({"format": "brackets"}, "Known: categories, objects"),
        ({"labels": []}, "at least one"),
        ({"labels": ["PER", "PER"]}, "once"),
        ({"labels": [""]}, "empty"),
        ({"labels": ["\ud800"]}, "Rename"),
        ({"tokenizer": wordpiece_tokenizer()}, "end token"),
    ],
)
def test_settings_that_cannot_be_used_are_named(options: dict[str, object], words: str) -> None:
    given = {"prompts": [PROMPT], "labels": LABELS, "format": "objects", "max_new_tokens": 5, "tokenizer": tokenizer()}
    with pytest.raises(InvalidSettingError, match=words):
        guided_answers(llama(0), texts=["Anna"], **{**given, **options})


def test_prompt_tuning_is_refused() -> None:
    model = get_peft_model(llama(8), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(InvalidSettingError, match="PREFIX_TUNING"):
        guided_answers(model, tokenizer(), [PROMPT], ["a"], LABELS, format="objects", max_new_tokens=5)


def test_without_llguidance_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"lightft\[llm\]"):
        ask(["a"], format="objects")


def test_what_llguidance_cannot_do_is_told() -> None:
    with pytest.raises(EngineError, match="llguidance stopped"):
        engine_of(tokenizer()).matcher("start: unknown\n")
