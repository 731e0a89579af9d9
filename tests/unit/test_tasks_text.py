"""Text classification: what is cut, what is refused, and that an answer does not depend on its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightft import Example, ModelLoader
from lightft.errors import DataError, InvalidPluginError, ModelLoadError, UnknownNameError
from lightft.tasks import TASKS, TextClassification
from lightft.tasks.head import max_input_length, pad_batch, special_tokens_around
from tests.tiny_models import LABELS, TOKENIZERS, classified_texts, llama_tokenizer, save_bert, tokenizer_of

HEAD = TextClassification(labels=LABELS)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_is_encoded_as_its_tokenizer_encodes_it(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    examples = classified_texts()
    encodings, counts = HEAD.encode(examples, tokenizer, 64)
    assert [encoding.input_ids for encoding in encodings] == [
        tokenizer(example.text)["input_ids"] for example in examples
    ]
    assert [encoding.labels for encoding in encodings] == [[LABELS.index(str(example.target))] for example in examples]
    assert counts == {}


@pytest.mark.parametrize("max_length", [4, 7, 12])
def test_texts_that_are_cut_are_counted(max_length: int) -> None:
    tokenizer = tokenizer_of("wordpiece")
    examples = classified_texts()
    lengths = [len(tokenizer(example.text)["input_ids"]) for example in examples]
    encodings, counts = HEAD.encode(examples, tokenizer, max_length)
    too_long = sum(length > max_length for length in lengths)
    assert 0 < too_long < len(examples)
    assert counts == {"truncated_texts": too_long}
    assert [len(encoding.input_ids) for encoding in encodings] == [min(length, max_length) for length in lengths]
    assert all(encoding.input_ids[-1] == tokenizer.sep_token_id for encoding in encodings)


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    examples = [Example("7", "film", "neutral")]
    with pytest.raises(DataError, match=r"Example '7' has the class 'neutral'.*It knows: negative, positive"):
        HEAD.encode(examples, tokenizer_of("wordpiece"), 64)


def test_an_unknown_class_in_the_gold_does_not_stop_a_prediction(tiny_bert: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32").load_model()
    (prediction,) = HEAD.predict(model, tokenizer, [Example("7", "film", "neutral")], max_length=64)
    assert prediction.gold == "neutral"


def test_a_row_without_class_carries_no_loss() -> None:
    (with_class, without), _ = HEAD.encode(
        [Example("a", "film", "positive"), Example("b", "film")], tokenizer_of("wordpiece"), 64
    )
    assert (with_class.label_count, without.label_count) == (1, 0)
    batch = HEAD.collate([with_class, without], tokenizer_of("wordpiece"))
    logits, model = torch.tensor([[0.3, 0.1], [0.9, -5.0]]), torch.nn.Identity()
    assert HEAD.loss(logits, batch["labels"], model) == HEAD.loss(logits[:1], batch["labels"][:1], model)


def test_no_examples_give_no_rows(tiny_bert: Path) -> None:
    assert HEAD.encode([], tokenizer_of("wordpiece"), 64) == ([], {})
    model, tokenizer = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32").load_model()
    assert HEAD.predict(model, tokenizer, [], max_length=64) == []


@pytest.mark.parametrize("which", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_probabilities_of_a_batch_are_those_of_each_text_alone(
    which: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    model, tokenizer = ModelLoader(str(request.getfixturevalue(which)), labels=LABELS, dtype=dtype).load_model()
    examples = [*classified_texts(), Example("empty", ""), Example("odd", "\u200b \u0301 😀")]
    together = HEAD.predict(model, tokenizer, examples, max_length=64)
    assert [prediction.id for prediction in together] == [example.id for example in examples]
    assert [prediction.gold for prediction in together] == [example.target for example in examples]
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for example, prediction in zip(examples, together, strict=True):
        (alone,) = HEAD.predict(model, tokenizer, [example], max_length=64)
        assert prediction.probabilities is not None
        assert alone.probabilities is not None
        assert list(prediction.probabilities) == list(LABELS)
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=tolerance)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert prediction.predicted == max(prediction.probabilities, key=prediction.probabilities.__getitem__)


def test_predicting_leaves_the_model_in_the_mode_it_was_in(dropout_bert: Path) -> None:
    model, tokenizer = ModelLoader(str(dropout_bert), labels=LABELS, dtype="float32").load_model()
    model.train()
    first = HEAD.predict(model, tokenizer, classified_texts(), max_length=64)
    assert model.training
    assert first == HEAD.predict(model, tokenizer, classified_texts(), max_length=64)


def test_progress_is_told_of_every_text(tiny_bert: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32").load_model()
    told: list[int] = []
    HEAD.predict(model, tokenizer, classified_texts(), max_length=64, progress=told.append)
    assert sum(told) == len(classified_texts())


def test_padding_goes_where_it_is_asked_for_and_is_masked() -> None:
    tokenizer = tokenizer_of("wordpiece")
    encodings, _ = HEAD.encode([Example("a", "film"), Example("b", "a long film")], tokenizer, 64)
    right, left = pad_batch(encodings, tokenizer), pad_batch(encodings, tokenizer, left=True)
    pad = tokenizer.pad_token_id
    short = encodings[0].input_ids
    assert right["input_ids"].tolist() == [[*short, pad, pad], encodings[1].input_ids]
    assert left["input_ids"].tolist() == [[pad, pad, *short], encodings[1].input_ids]
    assert right["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert left["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1] * 5]


def test_the_window_is_the_smallest_of_what_model_tokenizer_and_user_say(tmp_path: Path) -> None:
    model, tokenizer = ModelLoader(str(save_bert(tmp_path / "bert")), labels=LABELS, dtype="float32").load_model()
    assert max_input_length(model, tokenizer) == 64
    assert max_input_length(model, tokenizer, 20) == 20
    assert max_input_length(model, tokenizer, 1000) == 64
    tokenizer.model_max_length = 50
    assert max_input_length(model, tokenizer) == 50
    tokenizer.model_max_length = int(1e30)
    assert max_input_length(model, tokenizer) == 64


def test_roberta_has_two_positions_fewer_than_its_config_says() -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = tokenizer_of("byte-bpe", model_max_length=10**30)
    config = RobertaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    model = RobertaForSequenceClassification(config).eval()
    assert max_input_length(model, tokenizer) == 32
    long = Example("a", "film " * 100)
    HEAD.predict(model, tokenizer, [long], max_length=max_input_length(model, tokenizer))
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        HEAD.predict(model, tokenizer, [long], max_length=33)


@pytest.mark.parametrize(
    ("kind", "around"), [("wordpiece", ([2], [3])), ("byte-bpe", ([0], [2])), ("unigram", ([0], [2]))]
)
def test_special_tokens_are_those_the_tokenizer_puts_around_a_text(
    kind: str, around: tuple[list[int], list[int]]
) -> None:
    assert special_tokens_around(tokenizer_of(kind)) == around


def test_a_decoder_has_special_tokens_before_a_text_only() -> None:
    assert special_tokens_around(llama_tokenizer(chat=True)) == ([0], [])


def test_a_tokenizer_that_changes_a_text_with_its_special_tokens_is_refused() -> None:
    class Changing:
        name_or_path = "changing"

        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [1, 8, 2] if add_special_tokens else [7]}

    with pytest.raises(ModelLoadError, match="cannot be cut into windows"):
        special_tokens_around(Changing())  # type: ignore[arg-type]


def test_tasks_are_registered_by_name() -> None:
    assert list(TASKS) == ["causal-lm", "text-classification", "token-classification"]
    with pytest.raises(
        UnknownNameError, match=r"No task named 'text-clasification'. Did you mean 'text-classification'"
    ):
        TASKS["text-clasification"]


def test_a_head_without_all_its_parts_is_refused() -> None:
    class Half:
        task_type = "SEQ_CLS"

        def encode(self) -> None: ...

    with pytest.raises(InvalidPluginError, match="The task 'half' lacks load_model, collate, loss, predict"):
        TASKS.register("half")(Half)  # type: ignore[arg-type]
    assert "half" not in TASKS
