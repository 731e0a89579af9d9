"""The scikit-learn estimator: fits, predicts, is searched, cloned and pickled as scikit-learn's own are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from lightft import AdapterSpec, LoRATrainer, ModelLoader
from lightft.errors import InvalidSettingError, UnknownNameError
from lightft.integrations import LightFTClassifier
from tests.tiny_models import classified_texts

EXAMPLES = classified_texts(16)
TEXTS = [example.text for example in EXAMPLES]
CLASSES = [str(example.target) for example in EXAMPLES]


def classifier(tiny_bert: Path, **parameters: Any) -> LightFTClassifier:
    return LightFTClassifier(
        tiny_bert, **{"learning_rate": 1e-2, "epochs": 6, "batch_size": 4, "random_state": 0, **parameters}
    )


@pytest.fixture(scope="module")
def fitted(tiny_bert: Path) -> LightFTClassifier:
    return classifier(tiny_bert).fit(TEXTS, CLASSES)


def test_it_learns_the_classes(fitted: LightFTClassifier) -> None:
    assert fitted.predict(TEXTS).tolist() == CLASSES
    assert fitted.score(TEXTS, CLASSES) == accuracy_score(CLASSES, fitted.predict(TEXTS)) == 1.0


def test_probabilities_have_a_column_for_each_class_in_order(fitted: LightFTClassifier) -> None:
    probabilities = fitted.predict_proba(TEXTS)
    assert fitted.classes_.tolist() == ["negative", "positive"]
    assert probabilities.shape == (16, 2)
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert fitted.classes_[probabilities.argmax(axis=1)].tolist() == CLASSES
    assert fitted.predict_proba([]).shape == (0, 2)


def test_it_is_what_the_trainer_makes_of_the_same_settings(tiny_bert: Path, fitted: LightFTClassifier) -> None:
    loader = ModelLoader(str(tiny_bert), labels=("negative", "positive"))
    trainer = LoRATrainer(loader, learning_rate=1e-2, epochs=6, batch_size=4, progress=False)
    predictions = trainer.predictor(trainer.train(EXAMPLES)).predict(EXAMPLES)
    expected = [[prediction.probabilities[name] for name in fitted.classes_] for prediction in predictions]
    assert fitted.predict_proba(TEXTS).tolist() == expected


@pytest.mark.parametrize(
    "classes",
    [[3, 1], [True, False], ["b", "a"], [0.0, 1.0], np.array(["x", "y"], dtype=object)],
    ids=["integers", "booleans", "strings", "whole floats", "object array"],
)
def test_classes_come_back_as_they_were_given(tiny_bert: Path, classes: Any) -> None:
    y = [classes[row % 2] for row in range(8)]
    predicted = classifier(tiny_bert, epochs=1).fit(TEXTS[:8], y).predict(TEXTS)
    assert predicted.dtype == np.asarray(y).dtype
    assert set(predicted.tolist()) <= set(np.asarray(y).tolist())


def test_equal_random_states_give_equal_models(tiny_bert: Path, fitted: LightFTClassifier) -> None:
    again = clone(fitted).fit(np.array(TEXTS), np.array(CLASSES))
    assert np.array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    other = classifier(tiny_bert, random_state=np.random.RandomState(1)).fit(TEXTS, CLASSES)
    assert not np.array_equal(other.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_a_clone_has_the_parameters_and_is_not_fitted(fitted: LightFTClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(TEXTS)
    assert copy.set_params(r=4).get_params()["r"] == 4


def test_every_parameter_reaches_the_training(tiny_bert: Path) -> None:
    estimator = classifier(
        tiny_bert, r=2, alpha=5, dropout=0.0, targets=["query"], epochs=1, validation=0.25, settings={"max_steps": 2}
    )
    estimator.fit(TEXTS, CLASSES)
    config = estimator.predictor_.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (2, 5, 0.0)
    assert {name.rpartition(".")[2] for name in config.target_modules} == {"query"}
    ready = classifier(tiny_bert, adapter=AdapterSpec("ia3"), epochs=1).fit(TEXTS, CLASSES)
    assert ready.predictor_.model.peft_config["default"].peft_type == "IA3"


def test_a_validation_share_keeps_the_best_epoch(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    train = LoRATrainer.train

    def watched(self: LoRATrainer, *splits: Any, **settings: Any) -> Any:
        given.append(splits)
        return train(self, *splits, **settings)

    monkeypatch.setattr(LoRATrainer, "train", watched)
    classifier(tiny_bert, epochs=1, validation=0.25).fit(TEXTS, CLASSES)
    ((trained, validated),) = given
    assert {*trained, *validated} == {*EXAMPLES}
    assert sorted(example.target for example in validated) == ["negative"] * 2 + ["positive"] * 2


def test_it_is_searched_by_grid(tiny_bert: Path) -> None:
    search = GridSearchCV(classifier(tiny_bert), {"learning_rate": [1e-6, 1e-2], "r": [2]}, cv=2)
    search.fit(TEXTS, CLASSES)
    assert search.best_params_ == {"learning_rate": 1e-2, "r": 2}
    assert search.predict(TEXTS[:4]).tolist() == CLASSES[:4]


def test_it_is_cross_validated_at_the_end_of_a_pipeline(tiny_bert: Path) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("classify", classifier(tiny_bert, epochs=8))])
    shouted = np.array([text.upper() for text in TEXTS])
    assert cross_val_score(pipeline, shouted, CLASSES, cv=2).mean() > 0.8


def test_pickled_and_opened_it_answers_the_same(fitted: LightFTClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEXTS)
    once = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(once.predict_proba(TEXTS), expected)
    joblib.dump(once, tmp_path / "model.joblib")
    assert np.array_equal(joblib.load(tmp_path / "model.joblib").predict_proba(TEXTS), expected)
    assert pickle.loads(pickle.dumps(clone(fitted))).get_params() == fitted.get_params()


def test_a_pickle_holds_the_adapter_and_not_the_base(fitted: LightFTClassifier, tiny_bert: Path) -> None:
    assert len(pickle.dumps(fitted)) < (tiny_bert / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("texts", "y", "message"),
    [
        (["a", "b"], [1, 1], "at least two classes; y has 1 class: \\[1\\]"),
        (["a", 2], [0, 1], "Row 1 is 2, of type int"),
        ([["a"], ["b"]], [0, 1], "X has 2 dimensions"),
        ("a text", [0], "not a single one"),
        (["a", "b"], [0.3, 0.7], "Unknown label type"),
        (["a", "b"], [0], "inconsistent numbers of samples"),
    ],
)
def test_what_it_cannot_learn_from_is_refused(tiny_bert: Path, texts: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(tiny_bert).fit(texts, y)


def test_parameters_are_checked_at_fit(tiny_bert: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
        classifier(tiny_bert, adapter="lroa").fit(TEXTS, CLASSES)
    with pytest.raises(InvalidSettingError, match="'ia3' has no parameter 'r'"):
        classifier(tiny_bert, adapter="ia3", r=4).fit(TEXTS, CLASSES)


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_mixin_order",
        "check_valid_tag_types",
        "check_estimator_tags_renamed",
    ],
)
def test_it_passes_the_checks_of_scikit_learn_that_do_not_feed_numbers(tiny_bert: Path, check: str) -> None:
    estimator = classifier(tiny_bert, epochs=1)
    assert is_classifier(estimator)
    getattr(estimator_checks, check)("LightFTClassifier", estimator)
