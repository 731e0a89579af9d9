"""LightFTClassifier: fine-tune and classify as scikit-learn does, with its searches, pipelines and cross-validation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftConfig
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from lightft.adapters import AdapterSpec
from lightft.errors import InvalidSettingError
from lightft.experiment import LoRATrainer
from lightft.inference import Predictor, load
from lightft.models import ModelLoader
from lightft.records import Example

__all__ = ["LightFTClassifier"]

_ADAPTER_PARAMETERS = ("r", "alpha", "dropout", "targets")


class LightFTClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A text classifier with the interface of scikit-learn, on top of ModelLoader, LoRATrainer and Predictor.

    Every parameter can be searched: ``GridSearchCV(LightFTClassifier(base), {"r": [8, 16], "adapter": ["lora", "dora"]})``.
    None leaves a parameter at its default.

    Args:
        base: of the base model: a Hub id, a folder, a ``.gguf`` file or ``package:NAME/path``.
        adapter: an adapter kind's name, an AdapterSpec or a ready peft config.
        r: rank, in the place of the adapter's.
        alpha: scale, likewise.
        dropout: likewise.
        targets: names of layers or ``"all"``, likewise.
        learning_rate: the peak.
        epochs: passes over the training texts.
        batch_size: texts per optimiser step.
        validation: share of the training texts, drawn class by class, that chooses the best epoch; 0 keeps the last one.
        settings: other fields of TrainConfig, by name.
        dtype: of the frozen base.
        quantization: None, ``"nf4"`` or ``"int8"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ….
        random_state: seeds the head, the order of the texts, dropout and the validation split.

    Attributes:
        classes_: the classes, sorted; the order of the columns of ``predict_proba``.
        predictor_: the trained Predictor.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        adapter: str | AdapterSpec | PeftConfig = "lora",
        r: int | None = None,
        alpha: int | None = None,
        dropout: float | None = None,
        targets: str | Sequence[str] | None = None,
        learning_rate: float | None = None,
        epochs: int = 3,
        batch_size: int = 16,
        validation: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.base = base
        self.adapter = adapter
        self.r = r
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation = validation
        self.settings = settings
        self.dtype = dtype
        self.quantization = quantization
        self.device = device
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> LightFTClassifier:  # noqa: N803 (scikit-learn's name)
        """Train on texts and their classes, and return the estimator.

        Args:
            X: the texts.
            y: their classes: strings, numbers or booleans.

        Raises:
            InvalidSettingError: something other than texts, fewer than two classes, or a parameter out of range.
        """
        texts = _texts(X)
        check_consistent_length(texts, y)
        targets = column_or_1d(y, warn=True)
        check_classification_targets(targets)
        self.classes_, numbers = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidSettingError(
                f"A classifier needs at least two classes; y has {len(self.classes_)} class: {self.classes_.tolist()}."
            )
        names = _names_of(self.classes_)
        examples = [Example(str(row), text, names[numbers[row]]) for row, text in enumerate(texts)]
        seed = self._seed()
        train, validation = examples, []
        if self.validation:
            train, validation = train_test_split(
                examples, test_size=self.validation, stratify=numbers, random_state=seed
            )
        trainer = self._trainer(names, seed)
        model = trainer.train(train, validation)
        self._saved = _files_of_adapter(trainer, model)
        self.predictor_ = trainer.predictor(model)
        return self

    def predict(self, X: Sequence[str]) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each text."""
        probabilities = self.predict_proba(X)
        classes: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return classes

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:  # noqa: N803
        """Return the probability of each class, of shape (texts, classes), in the order of ``classes_``.

        Raises:
            InvalidSettingError: something other than texts.
        """
        check_is_fitted(self)
        predictor: Predictor = self.predictor_
        answers = predictor(_texts(X))
        rows = [[answer.probabilities[name] for name in predictor.head.labels] for answer in answers]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes_))

    def _seed(self) -> int:
        if isinstance(self.random_state, int):
            return self.random_state
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _trainer(self, labels: Sequence[str], seed: int) -> LoRATrainer:
        spec = AdapterSpec.of(self.adapter)
        given = {name: getattr(self, name) for name in _ADAPTER_PARAMETERS if getattr(self, name) is not None}
        loader = ModelLoader(
            str(self.base),
            labels=labels,
            dtype=self.dtype,
            quantization=self.quantization,
            device=self.device,
            seed=seed,
        )
        settings = {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": seed,
            "progress": False,
            **(self.settings or {}),
        }
        return LoRATrainer(
            loader, adapter=AdapterSpec(spec.kind, {**spec.params, **given}) if given else spec, **settings
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # The adapter's files stand in for the model: the base stays where it is.
        return {name: value for name, value in super().__getstate__().items() if name != "predictor_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_saved" in state:
            self.predictor_ = _predictor_of(state["_saved"], self.device)


def _texts(given: Any) -> list[str]:
    """Return the texts of a list, array or column."""
    if isinstance(given, str):
        raise InvalidSettingError("Give a list of texts, not a single one.")
    if np.ndim(given) > 1:
        raise InvalidSettingError(
            f"X has {np.ndim(given)} dimensions. Give one text per row: a list of strings, or one column of a table."
        )
    texts = list(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidSettingError(f"Row {row} is {text!r}, of type {type(text).__name__}. X is a list of strings.")
    return [str(text) for text in texts]


def _names_of(classes: NDArray[Any]) -> tuple[str, ...]:
    """Return what the model calls the classes: as they are written, numbered where that is not unique or empty."""
    written = [str(one) for one in classes.tolist()]
    return tuple(written if len(set(written)) == len(written) else map(str, range(len(written))))


def _files_of_adapter(trainer: LoRATrainer, model: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        saved = trainer.save(model, Path(folder) / "adapter")
        return {path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*") if path.is_file()}


def _predictor_of(files: Mapping[str, bytes], device: str) -> Predictor:
    with tempfile.TemporaryDirectory() as folder:
        for place, content in files.items():
            path = Path(folder) / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load(folder, device=device)
