"""The CRF: every number is that of trying all sequences, no invalid one comes out, and what is saved answers alike."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForTokenClassification

import lightft
from lightft import Example, LoRATrainer, ModelLoader, QLoRATrainer, TaskData
from lightft.contracts.tiny_models import LABELS, PAIRS, Pair, save_base
from lightft.errors import AdapterError, InvalidSettingError
from lightft.models import head_modules
from lightft.reading.decoding import PathScores, best_paths, scores_of_valid_bio, tag_probabilities
from lightft.spans import allowed_starts, allowed_transitions, bio_labels
from lightft.tasks import TokenClassification
from lightft.tasks.crf import (
    ChainScores,
    LinearWithTransitions,
    add_transitions,
    chain_scores,
    conditional_logits,
)
from tests.tiny_models import TYPES, tagged, tagged_texts, tokenizer_of

TAGS = bio_labels(("A", "B"))
HEAD = TokenClassification(labels=TYPES, decoding="crf")
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "progress": False}


def random_scores(seed: int, *, bio: bool = True, tags: int = len(TAGS)) -> ChainScores:
    generator = torch.Generator().manual_seed(seed)
    transitions, starts, ends = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((tags, tags), (tags,), (tags,))
    )
    if bio:
        transitions = transitions.masked_fill(~torch.tensor(allowed_transitions(TAGS)), -torch.inf)
        starts = starts.masked_fill(~torch.tensor(allowed_starts(TAGS)), -torch.inf)
    return ChainScores(transitions, starts, ends)


def score_of(path: tuple[int, ...], emissions: Any, scores: Any) -> Any:
    """Return the score of one sequence by its definition, as a number or a tensor."""
    total = scores.starts[path[0]] + scores.ends[path[-1]]
    total = total + sum(row[tag] for row, tag in zip(emissions, path, strict=True))
    return total + sum(scores.transitions[a, b] for a, b in pairwise(path))


def all_scores(emissions: Any, scores: Any) -> dict[tuple[int, ...], Any]:
    paths = product(range(emissions.shape[1]), repeat=len(emissions))
    return {path: score_of(path, emissions, scores) for path in paths}


def negative_log_likelihood(emissions: Tensor, gold: list[int], scores: ChainScores) -> Tensor:
    """Return −log p(gold) by summing over all sequences."""
    every = torch.stack(list(all_scores(emissions, scores).values()))
    return torch.logsumexp(every, 0) - score_of(tuple(gold), emissions, scores)


def crf_loss(emissions: Tensor, labels: Tensor, scores: ChainScores) -> Tensor:
    logits, gold = conditional_logits(emissions, labels, scores)
    return functional.cross_entropy(logits, gold, reduction="sum")


def labelled_rows(seed: int, golds: list[list[int]]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return emissions (rows, 9, tags), labels with gaps between them, and each row's emissions at its labels."""
    rng = np.random.default_rng(seed)
    emissions = torch.tensor(2 * rng.standard_normal((len(golds), 9, len(TAGS))), dtype=torch.float32)
    labels = torch.full((len(golds), 9), -100)
    at_labels = []
    for row, gold in enumerate(golds):
        places = sorted(rng.choice(9, size=len(gold), replace=False).tolist())
        labels[row, places] = torch.tensor(gold)
        at_labels.append(emissions[row, places].double())
    return emissions, labels, at_labels


def tag_numbers(*tags: str) -> list[int]:
    return [TAGS.index(tag) for tag in tags]


GOLDS = [
    tag_numbers("O", "B-A", "I-A", "I-A", "O"),
    tag_numbers("B-B"),
    tag_numbers("B-A", "B-B", "I-B", "B-B"),
    tag_numbers("O", "O"),
]

# --- the likelihood


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bio", [True, False])
def test_the_loss_is_that_of_trying_every_sequence(seed: int, bio: bool) -> None:
    scores = random_scores(seed, bio=bio)
    emissions, labels, at_labels = labelled_rows(seed, GOLDS)
    one_by_one = [negative_log_likelihood(row, gold, scores) for row, gold in zip(at_labels, GOLDS, strict=True)]
    single = ChainScores(*(part.float() for part in scores))
    assert float(crf_loss(emissions, labels, single)) == pytest.approx(float(sum(one_by_one)), rel=1e-5)
    for row, expected in enumerate(one_by_one):
        alone = crf_loss(emissions[row : row + 1], labels[row : row + 1], single)
        assert float(alone) == pytest.approx(float(expected), rel=1e-5)


def test_the_gradients_are_those_of_trying_every_sequence() -> None:
    emissions, labels, at_labels = labelled_rows(0, GOLDS)
    ours = [part.float().requires_grad_() for part in random_scores(0)]
    theirs = [part.clone().requires_grad_() for part in random_scores(0)]
    crf_loss(emissions, labels, ChainScores(*ours)).backward()
    sum(
        negative_log_likelihood(row, gold, ChainScores(*theirs)) for row, gold in zip(at_labels, GOLDS, strict=True)
    ).backward()  # type: ignore[union-attr]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert mine.grad.isfinite().all()
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


def test_a_chain_without_scores_is_an_independent_softmax_for_each_word() -> None:
    nothing = ChainScores(torch.zeros(5, 5), torch.zeros(5), torch.zeros(5))
    emissions, labels, _ = labelled_rows(1, GOLDS)
    logits, gold = conditional_logits(emissions, labels, nothing)
    torch.testing.assert_close(logits.log_softmax(-1), emissions[labels >= 0].log_softmax(-1))
    assert torch.equal(gold, labels[labels >= 0])
    rows = [text.double().numpy() for text in emissions]
    for text, marginals in zip(emissions, tag_probabilities(rows, nothing.to_numpy()), strict=True):
        np.testing.assert_allclose(marginals, text.softmax(-1).numpy(), rtol=1e-5)
    paths = best_paths(rows, nothing.to_numpy())
    np.testing.assert_array_equal(np.stack(paths), emissions.argmax(-1).numpy())


def test_a_window_that_starts_inside_an_entity_has_no_score_of_its_start() -> None:
    scores = ChainScores(*(part.float() for part in random_scores(2)))
    gold = tag_numbers("I-A", "I-A", "O", "B-B")
    emissions, labels, at_labels = labelled_rows(2, [gold])
    any_start = ChainScores(scores.transitions.double(), torch.zeros(5).double(), scores.ends.double())
    expected = negative_log_likelihood(at_labels[0], gold, any_start)
    assert float(crf_loss(emissions, labels, scores)) == pytest.approx(float(expected), rel=1e-5)


def test_an_entity_whose_first_word_has_no_token_starts_a_new_chain() -> None:
    scores = ChainScores(*(part.float() for part in random_scores(3)))
    gold = tag_numbers("O", "B-A", "I-B", "O")
    emissions, labels, at_labels = labelled_rows(3, [gold])
    before, after = gold[:2], gold[2:]
    precise = random_scores(3)
    any_start = precise._replace(starts=torch.zeros(5).double())
    expected = negative_log_likelihood(at_labels[0][:2], before, precise) + negative_log_likelihood(
        at_labels[0][2:], after, any_start
    )
    assert float(crf_loss(emissions, labels, scores)) == pytest.approx(float(expected), rel=1e-5)


def test_certain_emissions_give_finite_losses_and_gradients() -> None:
    scores = ChainScores(*(part.float().requires_grad_() for part in random_scores(0)))
    emissions, labels, _ = labelled_rows(0, GOLDS)
    large = (1e4 * emissions.sign()).requires_grad_()
    loss = crf_loss(large, labels, scores)
    loss.backward()
    assert loss.isfinite()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in (large, *scores))


# --- decoding


@pytest.mark.parametrize("seed", range(4))
def test_probabilities_and_best_paths_are_those_of_trying_every_sequence(seed: int) -> None:
    scores = random_scores(seed)
    rng = np.random.default_rng(seed)
    rows = [2 * rng.standard_normal((int(length), len(TAGS))) for length in rng.integers(0, 6, 25)]
    probabilities, paths = tag_probabilities(rows, scores.to_numpy()), best_paths(rows, scores.to_numpy())
    for emissions, its_probabilities, path in zip(rows, probabilities, paths, strict=True):
        assert its_probabilities.shape == emissions.shape
        if not len(emissions):
            continue
        every = {path: float(score) for path, score in all_scores(emissions, scores.to_numpy()).items()}
        assert tuple(path.tolist()) == max(every, key=every.__getitem__)
        weights = np.exp(np.array(list(every.values())) - max(every.values()))
        for word in range(len(emissions)):
            tag_here = np.array([path[word] for path in every])
            expected = np.bincount(tag_here, weights=weights, minlength=len(TAGS)) / weights.sum()
            np.testing.assert_allclose(its_probabilities[word], expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_without_learned_scores_the_best_path_is_the_best_valid_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [np.log(rng.dirichlet(np.full(5, 0.7), size=int(length))) for length in rng.integers(0, 6, 40)]
    bio = scores_of_valid_bio(TAGS)
    for text, path in zip(texts, best_paths(texts, bio), strict=True):
        assert len(path) == len(text)
        if len(text):
            every = all_scores(text, bio)
            assert every[tuple(path.tolist())] == pytest.approx(max(every.values()))


@pytest.mark.parametrize("learned", [True, False])
def test_best_paths_are_always_valid_even_against_certainty(learned: bool) -> None:
    rng = np.random.default_rng(0)
    scores = random_scores(0).to_numpy() if learned else scores_of_valid_bio(TAGS)
    texts = [rng.integers(0, 2, size=(int(length), len(TAGS))) * -1e4 for length in rng.integers(1, 300, 600)]
    for text, path in zip(texts, best_paths(texts, scores), strict=True):
        assert len(path) == len(text)
        assert scores.starts[path[0]] > -np.inf
        assert (scores.transitions[path[:-1], path[1:]] > -np.inf).all()


def test_a_long_texts_probabilities_are_precise() -> None:
    rng = np.random.default_rng(0)
    scores = random_scores(1)
    text = 20 * rng.standard_normal((4000, len(TAGS)))
    (probabilities,) = tag_probabilities([text], scores.to_numpy())
    np.testing.assert_allclose(probabilities.sum(-1), 1.0)
    assert probabilities.min() >= 0


# --- the output layer


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.task == "token-classification"], ids=str)
def test_every_architecture_gets_transitions_and_keeps_its_logits(pair: Pair, tmp_path: Path) -> None:
    base = save_base(pair, tmp_path / "base", with_head=True)
    loader = ModelLoader(str(base), task=pair.task, labels=LABELS[pair.task], dtype="float32")
    plain, _ = loader.load_model()
    model, _ = TokenClassification(labels=LABELS[pair.task], decoding="crf").load_model(loader)
    assert head_modules(model) == head_modules(plain)
    new = set(model.state_dict()) - set(plain.state_dict())
    assert sorted(name.rpartition(".")[2] for name in new) == ["ends", "starts", "transitions"]
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        assert torch.equal(*(of(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for of in (model, plain)))
    assert not any(part.isfinite().logical_and(part != 0).any() for part in chain_scores(model))


def test_a_half_precision_base_keeps_its_head_in_float32(tiny_bert: Path) -> None:
    model, tokenizer = HEAD.load_model(ModelLoader(str(tiny_bert), dtype="bfloat16"))
    assert {parameter.dtype for parameter in model.classifier.parameters()} == {torch.float32}
    batch = tokenizer("anna met bert", return_tensors="pt")
    assert model(**batch).logits.dtype == torch.float32


def test_a_model_without_transitions_is_refused_with_the_way_to_get_them(tiny_bert: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES).load_model()
    with pytest.raises(InvalidSettingError, match=r"has no scores of transitions.*head.load_model\(loader\)"):
        HEAD.predict(model, tokenizer, tagged_texts(), max_length=64)
    with pytest.raises(AdapterError, match="no linear output layer with 7 outputs"):
        add_transitions(model, bio_labels(("A", "B", "C")))


def test_settings_that_contradict_a_crf_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="label_all_subtokens=True would show it parts of words"):
        TokenClassification(labels=TYPES, decoding="crf", label_all_subtokens=True)
    with pytest.raises(InvalidSettingError, match=r"label_smoothing is 0.1 with decoding='crf'"):
        TokenClassification(labels=TYPES, decoding="crf", label_smoothing=0.1)


# --- the head


def loss_of(head: TokenClassification, model: nn.Module, examples: list[Example], max_length: int = 64) -> float:
    tokenizer = tokenizer_of("wordpiece")
    encodings, _ = head.encode(examples, tokenizer, max_length)
    batch = head.collate(encodings, tokenizer)
    labels = batch.pop("labels")
    with torch.inference_mode():
        return float(head.loss(model(**batch).logits, labels, model))


def test_class_weights_and_focus_apply_to_each_word_of_a_sequence(tiny_bert: Path) -> None:
    model, _ = HEAD.load_model(ModelLoader(str(tiny_bert), dtype="float32"))
    examples = list(tagged_texts())
    whole = loss_of(HEAD, model, examples)
    by_type = [
        loss_of(TokenClassification(TYPES, decoding="crf", class_weights={**dict.fromkeys((*TYPES, "O"), 0), name: 1}),
                model, examples)
        for name in (*TYPES, "O")
    ]  # fmt: skip
    assert all(part > 0 for part in by_type)
    assert sum(by_type) == pytest.approx(whole, rel=1e-5)
    focal = TokenClassification(TYPES, decoding="crf", loss_function="focal")
    assert 0 < loss_of(focal, model, examples) < whole


def test_windows_of_a_long_text_all_have_a_finite_loss(tiny_bert: Path) -> None:
    model, _ = HEAD.load_model(ModelLoader(str(tiny_bert), dtype="float32"))
    tokens = ["anna", *["berg"] * 60, "met", "bert"]
    text = tagged("long", tokens)
    span = lightft.Span(0, text.words[60][1], "PER")  # type: ignore[index]
    long = Example("long", text.text, (span,), words=text.words)
    assert np.isfinite(loss_of(HEAD, model, [long], max_length=12))


def test_training_a_crf_learns_how_tags_follow_each_other(tiny_bert: Path) -> None:
    train = tagged_texts(32)
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), dtype="float32"), head=HEAD, **{**SETTINGS, "epochs": 8})
    model = trainer.train(train)
    transitions = chain_scores(model).transitions.detach()
    outside, begin, inside = (HEAD.tags.index(tag) for tag in ("O", "B-PER", "I-PER"))
    # People have one or two names in these texts.
    assert transitions[inside, inside] < transitions[inside, outside]
    assert transitions[begin, inside] > transitions[inside, inside]
    assert transitions[outside, inside] == -torch.inf
    assert trainer.evaluate(model, train)["span_f1"] > 0.95
    scores = [span.score for answer in trainer.predict(model, train) for span in answer.predicted]  # type: ignore[union-attr]
    assert 0.5 < min(scores) <= max(scores) <= 1  # type: ignore[type-var]


def test_the_transitions_of_the_active_adapter_are_read(tiny_bert: Path) -> None:
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), dtype="float32"), head=HEAD, **SETTINGS)
    model: Any = trainer.train(tagged_texts())
    assert chain_scores(model).ends.abs().sum() > 0.01
    with model.disable_adapter():
        assert chain_scores(model).ends.abs().sum() == 0


# --- on disk


@pytest.mark.parametrize("architecture", ["bert", "llama", "modernbert"])
@pytest.mark.parametrize("adapter", ["lora", "head-only", "full"])
def test_a_saved_crf_answers_as_it_did(architecture: str, adapter: str, tmp_path: Path) -> None:
    task = "token-classification"
    base = save_base(Pair(architecture, task), tmp_path / "base", with_head=False)
    head = TokenClassification(labels=TYPES, decoding="crf")
    trainer = LoRATrainer(ModelLoader(str(base), dtype="float32"), head=head, adapter=adapter, **SETTINGS)
    model = trainer.train(tagged_texts())
    folder = trainer.save(model, tmp_path / "adapter")
    reopened = lightft.load(folder)
    assert reopened.head == head
    ids = torch.arange(4, 20).reshape(2, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        assert torch.equal(reopened.model(**batch).logits, model(**batch).logits)
    for ours, theirs in zip(chain_scores(reopened.model), chain_scores(model), strict=True):
        assert torch.equal(ours, theirs)
        assert theirs[theirs.isfinite()].abs().sum() > 0
    assert reopened.predict(tagged_texts()) == trainer.predict(model, tagged_texts())


def test_a_4_bit_base_takes_a_crf(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = QLoRATrainer(ModelLoader(str(tiny_bert)), head=HEAD, **SETTINGS)
    model = trainer.train(tagged_texts())
    reopened = lightft.load(trainer.save(model, tmp_path / "adapter"))
    assert reopened.predict(tagged_texts()) == trainer.predict(model, tagged_texts())
    dequantized = lightft.load(tmp_path / "adapter", dequantize=True)
    assert torch.equal(chain_scores(dequantized.model).transitions, chain_scores(model).transitions)


def test_a_run_with_a_crf_says_so_and_is_resumed(tiny_bert: Path, tmp_path: Path) -> None:
    rows = tagged_texts()
    data = TaskData("token-classification", "made up", TYPES, rows, rows, rows)
    loader = ModelLoader(str(tiny_bert), dtype="float32")
    trainer = LoRATrainer(loader, head=HEAD, output_dir=tmp_path / "run", **SETTINGS)
    run = trainer.fit(data)
    assert json.loads((tmp_path / "run/adapter/lightft.json").read_text())["head"]["decoding"] == "crf"
    again = LoRATrainer(loader, head=HEAD, output_dir=tmp_path / "run", **SETTINGS)
    assert again.fit(data, resume=True).predictions == run.predictions


def test_a_plain_peft_model_reads_the_emissions(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), dtype="float32"), head=HEAD, **SETTINGS)
    model = trainer.train(tagged_texts())
    folder = trainer.save(model, tmp_path / "adapter")
    stored = load_file(folder / "adapter_model.safetensors")
    assert {name.rpartition(".")[2] for name in stored if "classifier" in name} == {
        "weight", "bias", "transitions", "starts", "ends",
    }  # fmt: skip
    bare = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    theirs = PeftModel.from_pretrained(bare, str(folder)).eval()
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        assert torch.equal(theirs(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_merged_checkpoint_keeps_emissions_for_everyone_and_transitions_for_us(
    tiny_bert: Path, tmp_path: Path
) -> None:
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), dtype="float32"), head=HEAD, **SETTINGS)
    model = trainer.train(tagged_texts())
    merged = lightft.export(trainer.save(model, tmp_path / "adapter"), to="merged", out=tmp_path / "merged")
    reopened = lightft.load(merged)
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        for whole in (AutoModelForTokenClassification.from_pretrained(merged), reopened.model):
            torch.testing.assert_close(whole(input_ids=ids).logits, expected, rtol=0, atol=1e-4)
    for ours, theirs in zip(chain_scores(reopened.model), chain_scores(model), strict=True):
        assert torch.equal(ours, theirs)
    assert reopened.head == HEAD
    answers = reopened.predict(tagged_texts())
    assert [answer.tags for answer in answers] == [answer.tags for answer in trainer.predict(model, tagged_texts())]


def test_training_goes_on_from_the_transitions_of_a_checkpoint_of_the_same_labels(
    tiny_bert: Path, tmp_path: Path
) -> None:
    loader = ModelLoader(str(tiny_bert), dtype="float32")
    trainer = LoRATrainer(loader, head=HEAD, adapter="full", **SETTINGS)
    model = trainer.train(tagged_texts())
    folder = trainer.save(model, tmp_path / "whole")
    further, _ = HEAD.load_model(loader.replace(name=str(folder)))
    assert torch.equal(chain_scores(further).transitions, chain_scores(model).transitions)
    for base, labels in ((tiny_bert, TYPES), (folder, ("A", "B", "C"))):
        fresh, _ = TokenClassification(labels=labels, decoding="crf").load_model(loader.replace(name=str(base)))
        assert chain_scores(fresh).ends.abs().sum() == 0


def test_the_layer_keeps_its_weights_and_draws_no_random_numbers() -> None:
    layer = nn.Linear(4, len(TAGS), bias=False)
    before = torch.get_rng_state()
    made = LinearWithTransitions(layer, TAGS)
    assert torch.equal(torch.get_rng_state(), before)
    assert made.weight is layer.weight
    assert made.bias is None
    assert isinstance(made.scores().to_numpy(), PathScores)
    assert set(made.state_dict()) == {"weight", "transitions", "starts", "ends"}
