"""A model in this process: how long its answers may be, which of them were cut, and texts that it cannot read at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from lightft.errors import InvalidSettingError
from lightft.inference import Predictor
from lightft.llm_ner import FORMATS, Answer, InProcess, Question
from lightft.records import Message, Span
from lightft.tasks import CausalLM
from lightft.tasks.conversations import prompt_tokens
from tests.tiny_models import llama_tokenizer

LABELS = ("PER", "ORGANIZATION")
POSITIONS = 128


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return llama_tokenizer(chat=True)


def gpt2() -> GPT2LMHeadModel:
    """A model that cannot read a token beyond its positions."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer()),
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        eos_token_id=2,
        bos_token_id=0,
    )
    return GPT2LMHeadModel(config).double().eval()


def engine(**settings: object) -> InProcess:
    return InProcess(Predictor(gpt2(), tokenizer(), CausalLM(), POSITIONS), **settings)  # type: ignore[arg-type]


def ask(asked: InProcess, texts: Sequence[str], format: str = "objects") -> list[Answer]:
    questions = [Question(text, (Message("user", text),)) for text in texts]
    return list(asked.answers(questions, labels=LABELS, format=format))


# --- cut answers


def test_a_free_answer_without_an_end_token_is_cut() -> None:
    writing = engine(decoding="free", max_new_tokens=4)
    (answer,) = ask(writing, ["anna"])
    assert answer.cut
    model = writing.predictor.model
    prompt = prompt_tokens([Message("user", "anna")], tokenizer())
    last = model.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, pad_token_id=2)[0, -1]
    model.generation_config.eos_token_id = [2, int(last)]
    (ended,) = ask(writing, ["anna"])
    assert not ended.cut
    assert answer.text.startswith(ended.text)


def test_what_is_written_and_what_is_generated_have_the_same_texts() -> None:
    head, model = CausalLM(), gpt2()
    conversations = [[Message("user", text)] for text in ("anna", "the film was bad")]
    written = head.write(model, tokenizer(), conversations, max_new_tokens=5)
    assert [answer.text for answer in written] == head.generate(model, tokenizer(), conversations, max_new_tokens=5)
    ended = head.write(model, tokenizer(), conversations, max_new_tokens=5, eos_token_id=list(range(len(tokenizer()))))
    assert [answer.cut for answer in (*written, *ended)] == [True, True, False, False]


@pytest.mark.parametrize("format", ["categories", "objects"])
def test_a_guided_answer_that_is_not_whole_is_cut(format: str) -> None:
    pytest.importorskip("llguidance")
    (cut,), (whole,) = (ask(engine(max_new_tokens=limit), ["a"], format) for limit in (1, None))
    assert (cut.cut, whole.cut) == (True, False)
    assert FORMATS[format].read("a", whole.text, LABELS).outcome == "ok"


# --- how long an answer may be


@pytest.mark.parametrize("format", ["brackets", "xml", "categories", "objects"])
@pytest.mark.parametrize(
    "text", ["Ann, Bob, Carl, Dora, Emil", " ".join(f"Name{n}" for n in range(48)), "安倍晋三", "a"]
)
def test_the_limit_is_enough_for_an_answer_in_which_every_word_is_an_entity(text: str, format: str) -> None:
    words = [*text] if text == "安倍晋三" else text.replace(",", "").split()
    spans = [Span(text.index(word), text.index(word) + len(word), "ORGANIZATION") for word in words]
    answer, left_out = FORMATS[format].write(text, spans)
    assert not left_out
    needed = len(tokenizer()(answer, add_special_tokens=False)["input_ids"])
    limit = engine()._limit(text, LABELS, format)
    assert needed < limit <= 2 * (needed + 160)


def test_an_answer_without_a_token_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="max_new_tokens=0"):
        engine(max_new_tokens=0)


# --- texts that are too long


@pytest.mark.parametrize(("decoding", "format"), [("free", "brackets"), ("constrained", "objects")])
def test_a_text_that_the_model_cannot_read_fails_alone(decoding: str, format: str) -> None:
    if decoding == "constrained":
        pytest.importorskip("llguidance")
    texts = ["anna", "anna met bert " * 30, "bert"]
    short, long, last = ask(engine(decoding=decoding, max_new_tokens=6), texts, format)
    alone = [ask(engine(decoding=decoding, max_new_tokens=6), [text], format)[0] for text in texts[::2]]
    assert [(answer.text, answer.error) for answer in (short, last)] == [(answer.text, "") for answer in alone]
    assert long.text == ""
    assert f"longer than the {POSITIONS} tokens the model reads at once" in long.error
    assert "Cut the text into smaller windows" in long.error


@pytest.mark.parametrize(
    ("decoding", "format"), [("free", "brackets"), ("constrained", "brackets"), ("constrained", "objects")]
)
def test_texts_that_begin_alike_and_cannot_be_read_all_fail_alone(decoding: str, format: str) -> None:
    if format == "objects":
        pytest.importorskip("llguidance")
    long = "anna met bert " * 60
    answers = ask(engine(decoding=decoding), [long + "a", long + "b", "bert", long + "c", "anna"], format)
    assert [bool(answer.error) for answer in answers] == [True, True, False, True, False]
    assert all("Cut the text into smaller windows" in answer.error for answer in answers if answer.error)
    only_long = ask(engine(decoding=decoding), [long + "a", long + "b"], format)
    assert all(answer.error for answer in only_long)


@pytest.mark.parametrize(("decoding", "format"), [("free", "brackets"), ("constrained", "objects")])
def test_an_answer_has_the_room_that_the_prompt_leaves(decoding: str, format: str) -> None:
    if decoding == "constrained":
        pytest.importorskip("llguidance")
    text = "anna"
    while len(prompt_tokens([Message("user", text + " x")], tokenizer())) < POSITIONS:
        text += " x"
    room = POSITIONS - len(prompt_tokens([Message("user", text)], tokenizer()))
    assert 0 < room < 5
    (answer,) = ask(engine(decoding=decoding), [text], format)
    assert not answer.error
    # A model without sense may close a list at once.
    assert answer.cut or answer.text == "[]"
