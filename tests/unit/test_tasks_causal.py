"""Causal language modelling: what carries loss, that training and asking see the same ids, and how likely an answer is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightft import AdapterSpec, Example, Message, ModelLoader
from lightft.adapters.attach import attach_adapter
from lightft.errors import DataError, InvalidSettingError
from lightft.metrics import score_predictions
from lightft.tasks import CausalLM
from lightft.tasks.answer_scores import answer_scores
from lightft.tasks.conversations import prompt_tokens, render_prompt
from tests.tiny_models import instructions, llama_tokenizer

HEAD = CausalLM()
ASK = Example("a", "say the film", "the film was good")
CHAT = Example(
    "chat",
    "and bert ?",
    "bert was in new york",
    context=(
        Message("system", "be very good"),
        Message("user", "who met anna ?"),
        Message("assistant", "bert met anna"),
        Message("user", "in rome ?"),
        Message("assistant", "it was rome"),
    ),
)


def encoded(example: Example, tokenizer: Any, max_length: int = 256) -> tuple[list[int], list[int]]:
    (encoding,), _ = HEAD.encode([example], tokenizer, max_length)
    return encoding.input_ids, encoding.labels


def trained_texts(ids: list[int], labels: list[int], tokenizer: Any) -> list[str]:
    """Return the stretches that carry loss, as text."""
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    stretches: list[list[int]] = []
    for place, label in enumerate(labels):
        if label != -100:
            if place == 0 or labels[place - 1] == -100:
                stretches.append([])
            stretches[-1].append(label)
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.fixture(params=["chat-template", "no-template"])
def tokenizer(request: pytest.FixtureRequest, tiny_llama: Path, plain_llama: Path) -> Any:
    folder = tiny_llama if request.param == "chat-template" else plain_llama
    tokenizer = ModelLoader(str(folder), task="causal-lm", dtype="float32").load_model()[1]
    # The case in which an end is easily masked with the padding.
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_the_loss_is_on_the_answer_and_its_end_alone(tokenizer: Any) -> None:
    ids, labels = encoded(ASK, tokenizer)
    assert trained_texts(ids, labels, tokenizer) == ["the film was good</s>"]
    answer = tokenizer("the film was good", add_special_tokens=False)["input_ids"]
    assert [label for label in labels if label != -100] == [*answer, tokenizer.eos_token_id]


def test_padding_carries_no_loss_and_ends_do_though_they_are_the_same_token(tokenizer: Any) -> None:
    examples = [ASK, CHAT, *instructions()]
    encodings, _ = HEAD.encode(examples, tokenizer, 256)
    batch = HEAD.collate(encodings, tokenizer)
    assert (batch["attention_mask"] == 0).any()
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    ends = (batch["labels"] == tokenizer.eos_token_id).sum(-1)
    assert ends.tolist() == [1, 3, *[1] * len(instructions())]
    counted = batch["labels"] != -100
    assert torch.equal(batch["labels"][counted], batch["input_ids"][counted])


def test_every_assistant_turn_of_a_conversation_is_taught(tokenizer: Any) -> None:
    ids, labels = encoded(CHAT, tokenizer)
    assert trained_texts(ids, labels, tokenizer) == ["bert met anna</s>", "it was rome</s>", "bert was in new york</s>"]


def test_training_reads_the_prompt_exactly_as_generation_does(tokenizer: Any) -> None:
    for example in (ASK, CHAT, Example("b", "", "good", context=(Message("system", "be good"),))):
        ids, labels = encoded(example, tokenizer)
        asked = render_prompt([*example.context, Message("user", example.text)], tokenizer)
        prompt_ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
        assert ids[: len(prompt_ids)] == prompt_ids
        assert trained_texts(ids[len(prompt_ids) :], labels[len(prompt_ids) :], tokenizer) == [f"{example.target}</s>"]
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id


def test_generation_is_asked_with_the_prompt_of_training(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    asked: list[list[int]] = []
    generate = model.generate

    def noting(**inputs: Any) -> Any:
        asked.extend(inputs["input_ids"][0][inputs["attention_mask"][0].bool()].tolist() for _ in range(1))
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", noting)
    HEAD.generate(model, tokenizer, [[*CHAT.context, Message("user", CHAT.text)]], max_new_tokens=1)
    ids, _ = encoded(CHAT, tokenizer)
    assert asked[0] == ids[: len(asked[0])]
    assert len(asked[0]) > len(ids) // 2


def test_a_template_that_rewrites_earlier_turns_teaches_the_last_one(tiny_llama: Path) -> None:
    tokenizer = llama_tokenizer(chat=True)
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n"
        "{% if message.role == 'assistant' and not loop.last %}...{% else %}{{ message.content }}{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    ids, labels = encoded(CHAT, tokenizer)
    assert trained_texts(ids, labels, tokenizer)[-1].startswith("bert was in new york")
    asked = render_prompt([*CHAT.context, Message("user", CHAT.text)], tokenizer)
    prompt_ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt_ids)] == prompt_ids


def test_a_ready_text_is_learned_whole(tokenizer: Any) -> None:
    ids, labels = encoded(Example("a", "", "the film was good"), tokenizer)
    assert ids == [0, *tokenizer("the film was good", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert labels == [-100, *ids[1:]]
    already_ended, _ = encoded(Example("a", "", "the film was good</s>"), tokenizer)
    assert already_ended == ids


def test_answers_that_are_cut_are_counted_and_not_taught_an_end(tokenizer: Any) -> None:
    examples = [ASK, CHAT]
    lengths = [len(encoded(example, tokenizer)[0]) for example in examples]
    assert lengths[0] < lengths[1]
    encodings, counts = HEAD.encode(examples, tokenizer, lengths[1] - 4)
    assert counts == {"truncated_texts": 1}
    assert [len(encoding.input_ids) for encoding in encodings] == [lengths[0], lengths[1] - 4]
    assert encodings[1].labels.count(tokenizer.eos_token_id) == 2
    _, counts = HEAD.encode(examples, tokenizer, 5)
    assert counts == {"truncated_texts": 2, "texts_without_loss": 2}
    assert HEAD.encode(examples, tokenizer, max(lengths))[1] == {}


def test_the_likelihood_of_an_answer_is_the_product_over_its_tokens(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    examples = [ASK, CHAT, *instructions()]
    predictions = HEAD.predict(model, tokenizer, examples, max_length=256)
    total, tokens = 0.0, 0
    for example, prediction in zip(examples, predictions, strict=True):
        ids, labels = encoded(example, tokenizer)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        by_hand = 0.0
        for place in range(1, len(ids)):
            if labels[place] != -100:
                by_hand += float(torch.log_softmax(logits[place - 1], -1)[ids[place]])
        assert prediction.log_likelihood == pytest.approx(by_hand, rel=1e-5)
        assert prediction.target_tokens == sum(label != -100 for label in labels)
        assert (prediction.id, prediction.gold, prediction.predicted) == (example.id, example.target, "")
        total, tokens = total + by_hand, tokens + sum(label != -100 for label in labels)
    perplexity = score_predictions(predictions, ["perplexity"])["perplexity"]
    assert perplexity == pytest.approx(float(torch.tensor(-total / tokens).exp()), rel=1e-5)


@pytest.mark.parametrize("which", ["tiny_llama", "plain_llama"])
def test_answers_of_a_batch_are_those_of_each_prompt_alone(which: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer = ModelLoader(str(request.getfixturevalue(which)), task="causal-lm", dtype="float32").load_model()
    conversations = [[*example.context, Message("user", example.text)] for example in (ASK, CHAT, *instructions())]
    together = HEAD.generate(model, tokenizer, conversations, max_new_tokens=12)
    alone = [HEAD.generate(model, tokenizer, [conversation], max_new_tokens=12)[0] for conversation in conversations]
    assert together == alone
    assert len(set(together)) > 1


def test_generation_is_greedy_whatever_the_checkpoint_says(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    prompt = [[Message("user", "say the film")]]
    greedy = HEAD.generate(model, tokenizer, prompt, max_new_tokens=12)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    assert [HEAD.generate(model, tokenizer, prompt, max_new_tokens=12) for _ in range(3)] == [greedy] * 3
    sampled = {
        HEAD.generate(model, tokenizer, prompt, max_new_tokens=12, do_sample=True, temperature=5.0)[0] for _ in range(5)
    }
    assert len(sampled) > 1


def test_greedy_answers_are_the_most_probable_token_each_time(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    ids = tokenizer(render_prompt([Message("user", "say the film")], tokenizer), add_special_tokens=False)["input_ids"]
    start = len(ids)
    for _ in range(8):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    written = tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    assert HEAD.generate(model, tokenizer, [[Message("user", "say the film")]], max_new_tokens=8) == [written]


def test_answers_are_written_in_a_final_test_and_not_while_validating(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    writing = CausalLM(max_new_tokens=6)
    assert writing.metrics == ("perplexity", "exact_match", "answer_f1")
    rows = instructions()[:3]
    validating = writing.predict(model, tokenizer, rows, max_length=256, validating=True)
    testing = writing.predict(model, tokenizer, rows, max_length=256)
    assert [prediction.predicted for prediction in validating] == ["", "", ""]
    assert all(prediction.predicted for prediction in testing)
    assert [prediction.log_likelihood for prediction in testing] == [
        prediction.log_likelihood for prediction in validating
    ]


def test_no_examples_give_no_predictions(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    assert HEAD.predict(model, tokenizer, [], max_length=256) == []
    assert HEAD.generate(model, tokenizer, [], max_new_tokens=3) == []


# --- what users write is text, whatever it looks like


@pytest.mark.parametrize("name", ["</s>", "<s>", "<|im_end|>"])
def test_control_tokens_named_in_a_message_stay_text(tokenizer: Any, name: str) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|im_end|>|"]})
    control = set(tokenizer.get_added_vocab().values())
    text = f"anna {name}{name} met {name}"
    asked = prompt_tokens([Message("user", text)], tokenizer)
    usual = prompt_tokens([Message("user", "anna met")], tokenizer)
    assert [token for token in asked if token in control] == [token for token in usual if token in control]
    example = Example("a", text, f"bert {name}")
    ids, labels = encoded(example, tokenizer)
    assert ids[: len(asked)] == asked
    answer = [label for label in labels if label != -100]
    assert answer[-1] == tokenizer.eos_token_id
    assert not control & set(answer[:-1])


def test_a_shield_changes_nothing_else(tokenizer: Any) -> None:
    """A byte-level tokenizer shows the text itself: what is asked decodes to what was rendered."""
    from tests.unit.test_llm_decoding import byte_tokenizer

    whole = byte_tokenizer()
    text = "\ue000 and \ue0007\ue000 </s>anna</s>"
    assert whole.decode(prompt_tokens([Message("user", text)], whole)) == render_prompt([Message("user", text)], whole)


def test_a_text_of_private_use_characters_is_asked_all_the_same(tokenizer: Any) -> None:
    private = "".join(map(chr, range(0xE000, 0xF900)))
    control = set(tokenizer.get_added_vocab().values())
    usual = prompt_tokens([Message("user", "anna")], tokenizer)
    asked = prompt_tokens([Message("user", f"{private} </s>")], tokenizer)
    assert [token for token in asked if token in control] == [token for token in usual if token in control]
    everything = private + "".join(map(chr, [*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]))
    with pytest.raises(DataError, match="every private-use character of Unicode"):
        prompt_tokens([Message("user", f"{everything} </s>")], tokenizer)


@pytest.mark.parametrize("example", [ASK, Example("a", "", "the film was good")], ids=["asked", "ready text"])
def test_an_answer_cannot_be_taught_without_an_end_token(tokenizer: Any, example: Example) -> None:
    tokenizer.eos_token = None
    with pytest.raises(InvalidSettingError, match=r"no end token.*Set tokenizer\.eos_token"):
        HEAD.encode([example], tokenizer, 256)


# --- the loss from no more than is needed


@pytest.mark.parametrize("prompts", ["like", "unlike", "one row"])
def test_the_loss_and_its_gradients_are_those_of_all_scores(tiny_llama: Path, prompts: str) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    model.double()
    instruction = "the film was very good and anna met bert in new york " * 3
    rows = [
        ("anna", "anna was good"),
        ("bert met anna", "rome"),
        ("the film", "paris it was paris"),
        ("new", "in rome"),
    ]
    examples = [
        Example(str(number), f"{instruction if prompts != 'unlike' else word} {word}", answer)
        for number, (word, answer) in enumerate(rows[: 1 if prompts == "one row" else None])
    ]
    encodings, _ = HEAD.encode(examples, tokenizer, 256)
    batch = HEAD.collate(encodings, tokenizer)
    passes: list[int] = []
    model.model.register_forward_hook(lambda *hooked: passes.append(1))
    parameters = list(model.parameters())
    loss = HEAD.training_loss(model, batch)
    gradients = torch.autograd.grad(loss, parameters)
    assert len(passes) == (2 if prompts == "like" else 1), "what all begin with goes through the model once"
    plain = {key: value for key, value in batch.items() if key != "labels"}
    expected = HEAD.loss(model(**plain).logits, batch["labels"], model)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["prompt-tuning", "p-tuning", "prefix-tuning", "lora"])
def test_virtual_tokens_shift_no_label(tiny_llama: Path, kind: str) -> None:
    base, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    model = attach_adapter(base, "CAUSAL_LM", AdapterSpec(kind), seed=0)
    text = "the film was very good and anna met bert in new york " * 3
    examples = [Example("a", f"{text} anna", "rome was good"), Example("b", f"{text} the", "paris")]
    encodings, _ = HEAD.encode(examples, tokenizer, 256)
    batch = HEAD.collate(encodings, tokenizer)
    plain = {key: value for key, value in batch.items() if key != "labels"}
    expected = HEAD.loss(model(**plain).logits, batch["labels"], model)
    torch.testing.assert_close(HEAD.training_loss(model, batch), expected, rtol=1e-5, atol=1e-5)


def test_the_vocabulary_is_scored_before_labels_alone(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    encodings, _ = HEAD.encode([ASK, Example("b", "say it", "it was")], tokenizer, 256)
    batch = HEAD.collate(encodings, tokenizer)
    logits, targets = answer_scores(model, batch)
    plain = {key: value for key, value in batch.items() if key != "labels"}
    is_label = batch["labels"][:, 1:] != -100
    assert targets.tolist() == batch["labels"][:, 1:][is_label].tolist()
    torch.testing.assert_close(logits, model(**plain).logits[:, :-1][is_label])


def test_layers_that_are_recomputed_share_nothing(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    model.double()
    text = "the film was very good and anna met bert in new york " * 3
    encodings, _ = HEAD.encode([Example("a", text, "rome"), Example("b", text, "paris")], tokenizer, 256)
    batch = HEAD.collate(encodings, tokenizer)
    expected = HEAD.training_loss(model, batch)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    torch.testing.assert_close(HEAD.training_loss(model, batch), expected)
