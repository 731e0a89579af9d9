"""Constrained decoding: the answer is always the text with marks, and that of decoding token by token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import PrefixTuningConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lightft import Span
from lightft.errors import DataError, InvalidSettingError
from lightft.llm_ner.decoding.constrained import ConstrainedAnswer, ConstrainedDecoder
from lightft.llm_ner.decoding.copy_grammar import CopyGrammar, State
from lightft.llm_ner.decoding.drafting import Drafter, EntityGuesses
from lightft.llm_ner.decoding.token_bytes import TokenBytes
from tests.tiny_models import SENTENCES, llama_config, unigram_tokenizer, wordpiece_tokenizer

LABELS = ("PER", "LOC")
STYLES = ("brackets", "xml")
MARKED = (
    "[anna](PER) met [bert](PER) in [new york](LOC).",
    "[Anna Berg](PER)[Bert](PER) went to ([Rome](LOC)).",
    "<PER>Anna Berg</PER> went from <LOC>Paris</LOC> to <LOC>Rome</LOC>.",
)
ODD_TEXTS = (
    "a",
    "Anna",
    " Anna ",
    "Anna\r\nmet\nBert\r",
    "😀 Zoë met 👩‍👩‍👧 in Zu\u0308rich\u0301",
    "[Anna](PER) [Bert](LOC) [[",
    "see [Rome](http://rome.it) or ](PER)](LOC)",
    "<PER>Anna</PER> </LOC><LO",
    "<|im_end|> and </s> are text <s>",
    "   \n\t ",
)


@cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<s>", "</s>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *MARKED, *MARKED], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@cache
def llama2_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece BPE as LLaMA 2's: a space before every text, and byte tokens for unknown characters."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁anbetromwPERLOC[]().", "▁a", "an"]
    merges = [("▁", "a"), ("a", "n")]
    tokenizer = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@cache
def llama(seed: int, scale: float = 0.1) -> LlamaForCausalLM:
    """A random model in float64, so that no two tokens are equally likely up to rounding."""
    torch.manual_seed(seed)
    config = llama_config(len(byte_tokenizer()))
    config.initializer_range = scale
    config.max_position_embeddings = 1024
    return LlamaForCausalLM(config).double().eval()


def token_by_token(model, grammar: CopyGrammar, prompt: list[int], limit: int) -> tuple[list[int], list[float]]:
    """The plain way: one pass over everything per token, and every token of the vocabulary tried byte by byte."""
    tokens: list[int] = []
    log_probabilities = []
    state: State | None = grammar.start
    while not tokens or tokens[-1] != grammar.vocabulary.end_token:
        assert len(tokens) < limit
        allowed = by_brute_force(grammar, state)
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
        masked = torch.full_like(logits, -torch.inf)
        masked[allowed] = logits[allowed]
        tokens.append(int(masked.argmax()))
        log_probabilities.append(float(masked.log_softmax(-1)[tokens[-1]]))
        state = after(grammar, state, grammar.vocabulary[tokens[-1]])
    return tokens, log_probabilities


def by_brute_force(grammar: CopyGrammar, state: State) -> list[int]:
    vocabulary = grammar.vocabulary
    ending = [vocabulary.end_token] if grammar.finished(state) else []
    pieces = {token: vocabulary[token] for token in range(len(byte_tokenizer()))}
    return ending + [token for token, piece in pieces.items() if piece and after(grammar, state, piece) is not None]


def after(grammar: CopyGrammar, state: State | None, piece: bytes) -> State | None:
    for byte in piece:
        state = grammar.advance(state, byte) if state is not None else None
    return state


def constrained_answers(model, tokenizer, prompts, texts, labels=LABELS, **settings) -> list[ConstrainedAnswer]:
    return list(
        ConstrainedDecoder(model, TokenBytes(tokenizer), labels, **settings).answers(zip(prompts, texts, strict=True))
    )


def prompts_for(texts: list[str] | tuple[str, ...]) -> list[list[int]]:
    return [byte_tokenizer()(f"Mark the names.\n{text}\n", add_special_tokens=False)["input_ids"] for text in texts]


def random_texts(seed: int, count: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    words = [*SENTENCES[2].split(), *SENTENCES[0].split(), "[x]", "<b>", "Zoë", "](PER)", "😀"]
    return [
        " ".join(words[int(n)] for n in torch.randint(len(words), (int(size),), generator=generator))
        for size in torch.randint(1, 9, (count,), generator=generator)
    ]


# --- the grammar, without a model ---


def all_answers(text: str, labels: tuple[str, ...], style: str) -> dict[bytes, tuple[Span, ...]]:
    """Every answer by what the rules say, written without an automaton."""

    def marks(label: str) -> tuple[str, str]:
        return ("[", f"]({label})") if style == "brackets" else (f"<{label}>", f"</{label}>")

    def fits(start: int, end: int, label: str) -> bool:
        opening, closing = marks(label)
        return (
            not text[start].isspace()
            and not text[end - 1].isspace()
            and "\u0301" not in (text[start], text[end : end + 1])
            and not text.startswith(opening, start)
            and not text.startswith(closing, end)
            and not parts_a_word(start)
            and not parts_a_word(end)
        )

    def parts_a_word(place: int) -> bool:
        # Letters with their accents.
        before = text[:place].rstrip("\u0301")[-1:] if text[place - 1 : place] == "\u0301" else text[place - 1 : place]
        return 0 < place < len(text) and before.isalpha() and text[place].isalpha()

    def continued(done: int) -> Iterator[tuple[str, tuple[Span, ...]]]:
        yield text[done:], ()
        for start in range(done, len(text)):
            for end in range(start + 1, len(text) + 1):
                for label in labels:
                    if fits(start, end, label):
                        opening, closing = marks(label)
                        for rest, spans in continued(end):
                            yield (
                                f"{text[done:start]}{opening}{text[start:end]}{closing}{rest}",
                                (Span(start, end, label), *spans),
                            )

    answers: dict[bytes, tuple[Span, ...]] = {}
    for answer, spans in continued(0):
        assert answer.encode() not in answers, "two readings of one answer"
        answers[answer.encode()] = spans
    return answers


@cache
def vocabulary() -> TokenBytes:
    return TokenBytes(byte_tokenizer())


@given(st.text("[]()P<>/ aé\u0301\n", max_size=3), st.sampled_from(STYLES), st.randoms(use_true_random=False))
@example("](P)", "brackets", None)
@example("[](", "brackets", None)
@example("<P>", "xml", None)
@example("</P>", "xml", None)
@settings(max_examples=150, deadline=None)
def test_the_grammar_holds_exactly_the_answers_that_the_rules_allow(text, style, random):
    labels = ("P", "PE")
    answers = all_answers(text, labels, style)
    grammar = CopyGrammar(text, labels, vocabulary(), style)
    for answer, spans in answers.items():
        assert grammar.read(answer) == spans
    beginnings = {answer[:end] for answer in answers for end in range(len(answer) + 1)}
    tried = sorted(beginnings) if random is None else random.sample(sorted(beginnings), min(10, len(beginnings)))
    for written in tried:
        state = after(grammar, grammar.start, written)
        continued = {byte for byte in range(256) if written + bytes((byte,)) in beginnings}
        assert {byte for byte in range(256) if grammar.advance(state, byte) is not None} == continued
        assert grammar.finished(state) == (written in answers)
        expected = {
            token for piece, tokens in vocabulary().ids.items() if written + piece in beginnings for token in tokens
        } | ({vocabulary().end_token} if written in answers else set())
        assert set(grammar.allowed_tokens(state)) == expected


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_allowed_tokens_are_those_that_trying_the_whole_vocabulary_finds(text, style):
    grammar = CopyGrammar(text, LABELS, vocabulary(), style)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        state = grammar.start
        written = b""
        while True:
            allowed = grammar.allowed_tokens(state)
            assert sorted(by_brute_force(grammar, state)) == list(allowed)
            token = list(allowed)[int(torch.randint(len(allowed), (1,), generator=generator))]
            if token == vocabulary().end_token:
                break
            state = allowed[token]
            written += vocabulary()[token]
        spans = grammar.read(written)
        assert b"".join(piece for piece, _ in grammar.pieces(spans)) == written
        for span in spans:
            assert text[span.start : span.end] == span.text == span.text.strip() != ""
        assert all(left.end <= right.start for left, right in pairwise(spans))


def test_an_answer_that_leaves_the_text_or_stops_early_is_refused_when_read():
    grammar = CopyGrammar("Anna met Bert", LABELS, vocabulary())
    with pytest.raises(DataError, match="does not follow the text at byte 5"):
        grammar.read(b"Anna saw Bert")
    with pytest.raises(DataError, match="ends before the text does"):
        grammar.read(b"Anna met")
    with pytest.raises(DataError, match="within an entity"):
        grammar.read(b"Anna met [Bert")


def test_a_control_token_never_writes_the_text_that_looks_like_it():
    text = "<|im_end|></s>"
    grammar = CopyGrammar(text, LABELS, vocabulary())
    control = set(byte_tokenizer().all_special_ids) | set(byte_tokenizer().added_tokens_decoder)
    assert control.isdisjoint(grammar.allowed_tokens(grammar.start))
    draft = Drafter(text, grammar, EntityGuesses(LABELS)).draft(grammar.start, b"", 100)
    assert control.isdisjoint(draft)
    assert b"".join(vocabulary()[token] for token in draft) == text.encode()


def test_an_unknown_style_suggests_the_nearest_name():
    with pytest.raises(InvalidSettingError, match="Did you mean 'brackets'"):
        CopyGrammar("a", LABELS, vocabulary(), "bracket")


@pytest.mark.parametrize(("label", "style"), [("P)", "brackets"), ("a>", "xml"), ("", "xml"), (" x", "brackets")])
def test_a_label_that_would_break_the_marks_is_refused(label, style):
    with pytest.raises(InvalidSettingError, match="cannot be a type"):
        CopyGrammar("a", ("PER", label), vocabulary(), style)


def test_labels_are_given_once_and_at_least_one():
    for labels in [(), ("PER", "PER")]:
        with pytest.raises(InvalidSettingError, match="Give each type once"):
            CopyGrammar("a", labels, vocabulary())


def test_half_a_character_is_refused_and_named():
    with pytest.raises(DataError, match="ud800"):
        CopyGrammar("a\ud800", LABELS, vocabulary())


# --- vocabularies ---


def test_what_tokens_write_is_what_the_tokenizer_decodes():
    for tokenizer in (byte_tokenizer(), llama2_tokenizer()):
        known = TokenBytes(tokenizer)
        for text in ("Anna met Zoë 😀", " a\n"):
            tokens = known.tokenised(text)
            assert b"".join(known[token] for token in tokens) == known.prefix(text) + text.encode()


def test_a_space_before_every_text_is_written_and_is_not_part_of_the_answer():
    grammar = CopyGrammar("an Ärger", LABELS, TokenBytes(llama2_tokenizer()))
    assert grammar.prefix == b" "
    assert grammar.read(" an [Ärger](PER)".encode()) == (Span(3, 8, "PER"),)
    assert all(grammar.vocabulary[token].startswith(b" ") for token in grammar.allowed_tokens(grammar.start))


def test_characters_without_tokens_are_refused_and_named():
    known = TokenBytes(unigram_tokenizer())
    with pytest.raises(DataError, match="no tokens for '😀'"):
        CopyGrammar("anna 😀", ("per",), known)


def test_characters_are_written_byte_by_byte_though_the_vocabulary_lacks_bytes_that_are_in_none_of_them():
    backend = byte_tokenizer().backend_tokenizer.to_str()
    described = json.loads(backend)
    # As in SmolLM2's, which has no token for some control characters and for bytes that begin no character it has seen.
    lacking = {bytes_to_unicode()[byte] for byte in (0x04, 0xC0, 0xF1, 0xFF)}
    described["model"]["vocab"] = {
        piece: token for piece, token in described["model"]["vocab"].items() if piece not in lacking
    }
    known = TokenBytes(
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)), eos_token="</s>")
    )
    assert known.missing_from("Čubuklu 战 😀") == []
    assert known.missing_from("a\x04") == ["\x04"]
    text = "Č 战"
    grammar = CopyGrammar(text, LABELS, known)
    state, written = grammar.start, b""
    while not grammar.finished(state):
        token, state = next(
            (token, after)
            for token, after in grammar.allowed_tokens(state).items()
            if text.encode().startswith(written + known[token])
        )
        written += known[token]
    assert written == text.encode()


def test_a_tokenizer_that_changes_letters_is_refused_by_name():
    tokenizer = wordpiece_tokenizer()
    tokenizer.eos_token = "[SEP]"
    with pytest.raises(InvalidSettingError, match="WordPiece"):
        TokenBytes(tokenizer)


def test_a_tokenizer_without_end_token_is_refused():
    with pytest.raises(InvalidSettingError, match="no end token"):
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend_tokenizer))


# --- decoding ---


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", [0.05, 0.1, 0.4])
def test_answers_are_those_of_decoding_token_by_token(scale, style):
    texts = [*random_texts(int(scale * 100), 4), *ODD_TEXTS[3:8]]
    prompts = prompts_for(texts)
    entities = 0
    for seed in (0,):
        model = llama(seed, scale)
        answers = constrained_answers(model, byte_tokenizer(), prompts, texts, LABELS, style=style, rows=3)
        for text, prompt, answer in zip(texts, prompts, answers, strict=True):
            grammar = CopyGrammar(text, LABELS, vocabulary(), style)
            tokens, log_probabilities = token_by_token(model, grammar, prompt, limit=40 + 20 * len(text))
            assert answer.tokens == tuple(tokens)
            assert answer.log_probabilities == pytest.approx(log_probabilities, abs=1e-8)
            entities += len(answer.spans)
    assert entities > 5


@pytest.mark.parametrize("style", STYLES)
def test_neither_batch_nor_draft_changes_an_answer(style):
    texts = [*ODD_TEXTS[3:8], *random_texts(7, 4), ""]
    prompts = prompts_for(texts)

    def answers(rows: int, draft_tokens: int) -> list[tuple]:
        found = constrained_answers(
            llama(3), byte_tokenizer(), prompts, texts, LABELS, style=style, rows=rows, draft_tokens=draft_tokens
        )
        return [(answer.tokens, answer.spans, answer.text) for answer in found]

    expected = answers(1, 0)
    for rows, draft_tokens in [(1, 5), (1, 100), (4, 0), (4, 24), (99, 100)]:
        assert answers(rows, draft_tokens) == expected
    alone = [
        constrained_answers(llama(3), byte_tokenizer(), [prompt], [text], LABELS, style=style)[0]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    assert [(answer.tokens, answer.spans, answer.text) for answer in alone] == expected


def test_the_answer_is_the_text_with_marks_and_spans_are_exact():
    answers = decode(llama(1), ODD_TEXTS)
    for text, answer in zip(ODD_TEXTS, answers, strict=True):
        marked, done = "", 0
        for span in answer.spans:
            assert text[span.start : span.end] == span.text
            marked += f"{text[done : span.start]}[{span.text}]({span.label})"
            done = span.end
        assert answer.text == marked + text[done:]


def test_an_empty_text_takes_no_pass():
    (answer,) = decode(llama(0), [""])
    assert (answer.text, answer.spans, answer.passes) == ("", (), 0)


def test_no_texts_have_no_answers():
    assert decode(llama(0), []) == []


def test_scores_are_the_probability_of_the_decisions_for_an_entity():
    answers = [answer for answer in decode(llama(1), random_texts(3, 12)) if len(answer.spans) == 1]
    assert answers
    for answer in answers:
        (span,), (score,) = answer.spans, answer.scores
        assert span.score == pytest.approx(torch.tensor([score.opening, score.extent, score.type]).sum().exp().item())
        opened = [n for n, token in enumerate(answer.tokens) if b"[" in vocabulary()[token]]
        assert score.opening == pytest.approx(sum(answer.log_probabilities[n] for n in opened))
        assert sum(answer.log_probabilities) <= score.opening + score.extent + score.type + 1e-12 <= 1e-12


class Scripted(LlamaForCausalLM):
    """A model that wants to write one answer in the tokenizer's own tokens, and counts its passes."""

    def script(self, prompt: list[int], answer: str) -> None:
        self.wanted = [*prompt, *vocabulary().tokenised(answer), vocabulary().end_token]
        self.passes = 0

    def forward(self, position_ids=None, logits_to_keep=0, **inputs):
        output = super().forward(position_ids=position_ids, logits_to_keep=logits_to_keep, **inputs)
        if position_ids is None:
            # Its scores are not just products with its last state.
            output.logits += 1
            return output
        self.passes += 1
        for place, position in enumerate(position_ids[0, logits_to_keep].tolist()):
            if position + 1 < len(self.wanted):
                output.logits[0, place, self.wanted[position + 1]] = 1000.0
        return output


@pytest.mark.parametrize(
    ("answer", "entities"),
    [
        ("it was a very long and boring film about the sea and Anna met Bert in Rome .", 0),
        ("it was a very long and boring film about the sea and [Anna](PER) met Bert in Rome .", 1),
        ("it was a very long and boring film about the sea and [Anna](PER) met [Bert](PER) in [Rome](LOC) .", 3),
    ],
)
def test_the_number_of_passes_follows_the_number_of_entities(answer, entities):
    text = answer.replace("[", "").replace("](PER)", "").replace("](LOC)", "")
    model = Scripted(llama_config(len(byte_tokenizer()))).eval()
    (prompt,) = prompts_for([text])
    model.script(prompt, answer)
    (found,) = constrained_answers(model, byte_tokenizer(), [prompt], [text], LABELS, draft_tokens=200)
    assert found.text == answer
    assert found.passes == model.passes <= 1 + 2 * entities
    assert len(found.tokens) > 4 * found.passes


def test_a_long_text_is_written_to_its_end():
    text = "Anna Berg went from Paris to Rome. " * 286
    (prompt,) = prompts_for(["x"])
    answer = (
        "".join("[Anna Berg](PER) went from Paris to Rome. " for _ in range(1))
        + text[len("Anna Berg went from Paris to Rome. ") :]
    )
    model = Scripted(llama_config(len(byte_tokenizer()))).eval()
    model.script(prompt, answer)
    (found,) = constrained_answers(model, byte_tokenizer(), [prompt], [text], LABELS, draft_tokens=1000)
    assert len(text) > 10_000
    assert found.text == answer
    assert found.passes < 10


def test_a_model_with_learned_positions_answers_as_token_by_token():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(byte_tokenizer()), n_positions=256, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
    )
    model = GPT2LMHeadModel(config).double().eval()
    texts = random_texts(5, 4)
    for text, prompt, answer in zip(texts, prompts_for(texts), decode(model, texts), strict=True):
        tokens, _ = token_by_token(model, CopyGrammar(text, LABELS, vocabulary()), prompt, limit=999)
        assert answer.tokens == tuple(tokens)


def test_a_model_keeps_the_mode_it_was_in():
    model = LlamaForCausalLM(llama_config(len(byte_tokenizer()))).train()
    decode(model, ["Anna"])
    assert model.training


def test_models_that_cannot_be_packed_are_refused():
    local = MistralForCausalLM(
        MistralConfig(
            vocab_size=380,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
        )
    )
    with pytest.raises(InvalidSettingError, match="full attention in every layer"):
        decode(local, ["a"])
    prefixed = get_peft_model(
        LlamaForCausalLM(llama_config(380)), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(InvalidSettingError, match="PREFIX_TUNING"):
        decode(prefixed, ["a"])
    with pytest.raises(InvalidSettingError, match="'sdpa'"):
        decode(SimpleNamespace(config=SimpleNamespace(_attn_implementation="flash_attention_2")), ["a"])


def test_wrong_numbers_are_refused():
    with pytest.raises(InvalidSettingError, match="A prompt is empty"):
        constrained_answers(llama(0), byte_tokenizer(), [[]], ["a"], LABELS)
    with pytest.raises(InvalidSettingError, match="rows is 0"):
        constrained_answers(llama(0), byte_tokenizer(), [[1]], ["a"], LABELS, rows=0)


def decode(model, texts) -> list[ConstrainedAnswer]:
    return constrained_answers(model, byte_tokenizer(), prompts_for(texts), texts, LABELS)


def test_scores_that_a_model_bends_are_its_own():
    class Bent(LlamaForCausalLM):
        def forward(self, *ids, **inputs):
            output = super().forward(*ids, **inputs)
            output.logits = 3 * torch.tanh(output.logits)
            return output

    torch.manual_seed(1)
    model = Bent(llama_config(len(byte_tokenizer()))).double().eval()
    texts = random_texts(8, 3)
    for text, prompt, answer in zip(texts, prompts_for(texts), decode(model, texts), strict=True):
        grammar = CopyGrammar(text, LABELS, vocabulary())
        tokens, log_probabilities = token_by_token(model, grammar, prompt, limit=999)
        assert answer.tokens == tuple(tokens)
        assert answer.log_probabilities == pytest.approx(log_probabilities, abs=1e-8)


# --- many texts ---


def test_texts_are_read_as_their_answers_are_written_and_come_in_order():
    texts = ["Anna " * 12, *(f"Bert{n}" for n in range(100))]
    read: list[str] = []

    def asked():
        for text in texts:
            read.append(text)
            yield [1, 2, 3], text

    answers = ConstrainedDecoder(llama(2), vocabulary(), LABELS, rows=2).answers(asked())
    first = next(answers)
    assert re.sub(r"\[|\]\([A-Z]*\)", "", first.text) == texts[0]
    assert len(read) < 30
    rest = [re.sub(r"\[|\]\([A-Z]*\)", "", answer.text) for answer in answers]
    assert rest == texts[1:]
    assert len(read) == len(texts)


def test_what_cannot_be_written_fails_alone():
    texts = ["anna", "anna 😀", "bert"]
    torch.manual_seed(0)
    known = TokenBytes(unigram_tokenizer())
    model = LlamaForCausalLM(llama_config(len(unigram_tokenizer()))).double().eval()
    answers = list(ConstrainedDecoder(model, known, ("per",)).answers([([5, 6], text) for text in texts]))
    assert ["no tokens for" in answer.error for answer in answers] == [False, True, False]
    assert [bool(answer.tokens) for answer in answers] == [True, False, True]


def test_an_answer_that_does_not_fit_fails_alone():
    model = Scripted(llama_config(len(byte_tokenizer()))).eval()
    texts = ["anna", "anna met bert in rome", "bert"]
    prompts = prompts_for(texts)
    model.wanted, model.passes = [], 0
    fits = len(prompts[0]) + 40
    answers = constrained_answers(
        model, byte_tokenizer(), [prompts[0], [*prompts[1], *[7] * 90], prompts[2]], texts, max_length=fits
    )
    assert [bool(answer.error) for answer in answers] == [False, True, False]
    assert f"longer than the {fits} tokens" in answers[1].error


def test_a_prompt_that_begins_otherwise_does_not_see_what_the_others_share():
    texts = ["Anna met Bert", "Bert was in Rome", "Anna", "Rome"]
    shared = byte_tokenizer()("Mark the names in what follows.\n", add_special_tokens=False)["input_ids"]
    prompts = [[*shared, 9], [*shared, 10], [*shared, 11], [33, 34]]
    together = constrained_answers(llama(4), byte_tokenizer(), prompts, texts, rows=2)
    for prompt, text, answer in zip(prompts, texts, together, strict=True):
        (alone,) = constrained_answers(llama(4), byte_tokenizer(), [prompt], [text])
        assert answer.tokens == alone.tokens
        assert answer.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-8)


def test_a_prompt_shares_as_much_as_it_begins_with():
    """Where the first texts happen to begin alike, the others share what is before that."""
    rows, instruction = 3, "Mark the names in what follows, and write the rest again as it is.\n"
    texts = [*(f"Anna met {name}" for name in ("Bert", "Rome", "Paris")), "Bert was in Rome", "it was a film"]
    prompts = [byte_tokenizer()(instruction + text, add_special_tokens=False)["input_ids"] for text in texts]
    shared = len(byte_tokenizer()(instruction, add_special_tokens=False)["input_ids"])
    prompts += [prompts[0][: shared + 1], prompts[3][: shared - 2], [34, 35]]
    texts += ["Anna", "Rome", "sea"]
    model = llama(4)
    lengths: list[int] = []
    counting = model.model.register_forward_pre_hook(
        lambda _, args, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    together = constrained_answers(model, byte_tokenizer(), prompts, texts, rows=rows, draft_tokens=0)
    counting.remove()
    for prompt, text, answer in zip(prompts, texts, together, strict=True):
        (alone,) = constrained_answers(model, byte_tokenizer(), [prompt], [text], draft_tokens=0)
        assert answer.tokens == alone.tokens
        assert answer.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-8)
    written = sum(len(answer.tokens) for answer in together)
    own = sum(max(1, len(prompt) - shared) for prompt in prompts)
    assert sum(lengths) <= 4 + shared + own + written, "the instruction went through the model once"


def test_a_prompt_that_others_go_on_from_has_a_token_of_its_own():
    prompts = [[3, 4, 5, 33], [3, 4, 5, 34], [3, 4, 5]]
    together = constrained_answers(llama(4), byte_tokenizer(), prompts, ["Anna", "Bert", "Rome"], rows=2)
    (alone,) = constrained_answers(llama(4), byte_tokenizer(), [prompts[2]], ["Rome"])
    assert together[2].tokens == alone.tokens
    assert together[2].log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-8)


# --- drafts ---


def test_what_was_marked_before_is_expected_again():
    guesses = EntityGuesses(LABELS)

    def expected(text: str) -> list[tuple[str, str, bool | None, bool]]:
        return [
            (text[one.span.start : one.span.end], one.span.label, one.is_marked, one.label_is_sure)
            for one in guesses.guesses(text)
        ]

    assert [is_marked for _, _, is_marked, _ in expected("Anna met Bert")] == [False, False]
    for _ in range(3):
        guesses.learn("Anna met Bert in Rome", (Span(0, 4, "PER"), Span(9, 13, "PER"), Span(17, 21, "LOC")))
    assert expected("Bert and Anna left Rome") == [
        ("Bert", "PER", True, True), ("Anna", "PER", True, True), ("Rome", "LOC", True, True)
    ]  # fmt: skip
    assert expected("so Carla Berg left") == [("Carla Berg", "PER", True, False)], (
        "its kind was marked, PER is commonest"
    )
    for _ in range(4):
        guesses.learn("so Rome fell", ())
    assert expected("in Rome") == [("Rome", "LOC", None, True)]
    for _ in range(40):
        guesses.learn("so Rome fell", ())
    assert expected("in Rome") == [("Rome", "LOC", False, True)]


@pytest.mark.parametrize("style", STYLES)
def test_a_draft_ends_where_it_is_unsure(style):
    guesses = EntityGuesses(LABELS)
    for _ in range(9):
        guesses.learn("so Anna met", (Span(3, 7, "PER"),))
        guesses.learn("so Carla met", (Span(3, 8, "PER"),))
    for label in LABELS:
        guesses.learn("in Paris was", (Span(3, 8, label),))
        guesses.learn("in Rome was", (Span(3, 7, label),) if label == "PER" else ())

    def drafted(text: str) -> bytes:
        grammar = CopyGrammar(text, LABELS, vocabulary(), style)
        draft = Drafter(text, grammar, guesses).draft(grammar.start, b"", 100)
        return b"".join(vocabulary()[token] for token in draft)

    anna = b"[Anna](PER)" if style == "brackets" else b"<PER>Anna</PER>"
    assert drafted("so Anna met us") == b"so " + anna + b" met us"
    assert drafted("so Anna met Rome again") in (b"so " + anna + b" met", b"so " + anna + b" met ")
    paris = drafted("so Anna met Paris again")
    assert paris == b"so " + anna + b" met [Paris](" if style == "brackets" else paris.endswith((b" met", b" met "))


def test_a_good_guess_saves_passes_and_changes_nothing():
    answer = "[Anna](PER) met [Bert](PER) in [Rome](LOC) ."
    text = "Anna met Bert in Rome ."
    model = Scripted(llama_config(len(byte_tokenizer()))).eval()
    prompts = prompts_for([text] * 4)
    model.script(prompts[0], answer)
    answers = constrained_answers(model, byte_tokenizer(), prompts, [text] * 4, rows=1, draft_tokens=100)
    assert {found.text for found in answers} == {answer}
    assert answers[0].passes > 3
    assert [found.passes for found in answers[2:]] == [1, 1], "a name that was seen twice is expected"
