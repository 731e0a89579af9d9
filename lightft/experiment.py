"""The whole pipeline on one page: load, adapt, train, keep the best, predict, write the run."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.adapters import AdapterSpec
from lightft.adapters.attach import attach_adapter, check_fit
from lightft.checkpoint import save_adapter
from lightft.cost import Stopwatch, folder_bytes, stored_numbers
from lightft.data import TaskData
from lightft.description import (
    describe_data,
    describe_model,
    environment_of,
    finished_run,
    interval_scores,
    is_same_run,
    manifest_of,
)
from lightft.errors import DataError, InvalidSettingError
from lightft.inference import Predictor
from lightft.metrics import score_predictions
from lightft.models import ModelLoader, count_parameters, provenance_of
from lightft.models.loader import ensure_padding
from lightft.models.quantization import quantization_of
from lightft.records import Example, Prediction, Run
from lightft.tasks import TASKS, TaskHead
from lightft.tasks.head import LearnsFromTraining, max_input_length
from lightft.tasks.of_model import head_of_model, labels_of
from lightft.tracking import LiveTracking, Tracking, catch_up
from lightft.train_config import TrainConfig, TrainingResult
from lightft.training import Callback, Course, train_together

__all__ = ["LoRATrainer", "QLoRATrainer", "as_predictor"]


@dataclass(frozen=True)
class _Training:
    """What a model was trained to do and how, so that a trained model alone can be saved, and compared with others.

    It does not hold the model: one that nobody else holds is to be forgotten.
    """

    tokenizer: PreTrainedTokenizerBase
    head: TaskHead
    max_length: int
    described: dict[str, Any]


_TRAINED: weakref.WeakKeyDictionary[nn.Module, _Training] = weakref.WeakKeyDictionary()


class LoRATrainer:
    """Trains an adapter, LoRA unless told otherwise, and leaves the base model as it was.

    Two ways in: ``LoRATrainer(loader, output_dir=...).fit(data)`` gives a run on disk that can be compared;
    ``LoRATrainer(model, tokenizer).train(train, validation)`` gives a model in memory.

    Args:
        base: a ModelLoader, or a model that is already in memory.
        tokenizer: the model's; not needed with a loader.
        adapter: an AdapterSpec, a kind's name such as ``"head-only"`` or ``"full"``, or any ready peft config.
        head: the task head; by default the one of the loader's task and the data's labels.
        output_dir: where ``fit`` writes the run.
        name: the run's name in reports; by default the last part of ``output_dir``.
        callbacks: called with each row of the training history.
        track: where ``fit`` also sends the run: ``"mlflow"``, ``"tensorboard"``, ``"trackio"``, ``"wandb"``, several of
            them, or a Tracking. What goes wrong there costs no run: it is warned of when the run is on disk.
        settings: fields of TrainConfig, such as ``epochs=5`` or ``learning_rate=1e-3``.

    Raises:
        InvalidSettingError: a setting that does not exist or is out of range.
        MissingExtraError: the package of a tracker is not installed.
    """

    default_quantization: str | None = None

    def __init__(
        self,
        base: ModelLoader | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        adapter: AdapterSpec | PeftConfig | str = "lora",
        head: TaskHead | None = None,
        output_dir: str | Path | None = None,
        name: str | None = None,
        callbacks: Sequence[Callback] = (),
        track: str | Sequence[str] | Tracking | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(base, PreTrainedModel) and tokenizer is None:
            raise InvalidSettingError("A model in memory needs its tokenizer: LoRATrainer(model, tokenizer).")
        self.base = base
        self.tokenizer = tokenizer
        self.adapter = AdapterSpec.of(adapter)
        self.head = head
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.name = name
        self.callbacks = tuple(callbacks)
        self.track = Tracking.of(track) if track is not None else None
        self.config = TrainConfig.from_settings(settings)
        self.result: TrainingResult | None = None
        """What happened in the last training."""

    def train(
        self,
        train_dataset: Sequence[Example],
        eval_dataset: Sequence[Example] = (),
        *,
        lora_r: int | None = None,
        lora_alpha: int | None = None,
        lora_dropout: float | None = None,
        target_modules: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> PeftModel | PreTrainedModel:
        """Train on examples and return the adapted model, with the weights of the best epoch, in eval mode.

        The model given to the trainer is not changed: it shares its frozen weights with the one returned.

        Args:
            train_dataset: what to learn from.
            eval_dataset: what chooses the best epoch; without it the last epoch is kept.
            lora_r: rank, in the place of the adapter's.
            lora_alpha: scale, likewise.
            lora_dropout: likewise.
            target_modules: ``"all"`` or names of layers, likewise.
            settings: fields of TrainConfig for this training.
        """
        given = {"r": lora_r, "alpha": lora_alpha, "dropout": lora_dropout, "targets": target_modules}
        changed = {name: value for name, value in given.items() if value is not None}
        spec = AdapterSpec(self.adapter.kind, {**self.adapter.params, **changed}) if changed else self.adapter
        config = TrainConfig.from_settings({**self.config.to_json(), **settings})
        base, tokenizer, head = self._base_model(train_dataset)
        config = replace(config, learning_rate=_learning_rate(config, spec, head))
        model, self.result, max_length = _train(
            base, tokenizer, head, spec, config, train_dataset, eval_dataset, self.callbacks
        )
        self.tokenizer, self.head = tokenizer, head
        _TRAINED[model] = _Training(tokenizer, head, max_length, describe_model(base, head, spec, config))
        return model

    def evaluate(self, model: nn.Module, dataset: Sequence[Example]) -> dict[str, float]:
        """Return the head's metrics of ``model`` on ``dataset``, by name."""
        head = self._known_head(dataset)
        return score_predictions(self.predict(model, dataset), head.metrics, head.labels)

    def predict(self, model: Any, dataset: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, in order."""
        if self.tokenizer is None:
            raise InvalidSettingError("This trainer has no tokenizer yet: call train() first, or pass one to it.")
        head = self._known_head(dataset)
        return head.predict(model, self.tokenizer, dataset, max_length=self._max_length(model, self.tokenizer))

    def fit(self, data: TaskData, *, resume: bool = False) -> Run:
        """Train on ``data.train``, keep the best epoch on ``data.validation``, predict ``data.test``, and write the run.

        Args:
            data: the splits. Without a test split the validation split is predicted, and the run says so.
            resume: return the finished run in ``output_dir`` if it was made with the same settings and data.

        Returns:
            The run as it stands in ``output_dir``.

        Raises:
            InvalidSettingError: no ``output_dir``, or it holds another run.
            DataError: ``data`` has nothing to score on.
        """
        if self.output_dir is None:
            raise InvalidSettingError("fit() writes a run to disk: give the trainer output_dir='runs/NAME'.")
        if not data.test and not data.validation:
            raise DataError(
                f"{data.source} has neither a test nor a validation split, so that a run could not be scored. "
                "Load it with validation=0.1, or use train()."
            )
        finished = finished_run(self.output_dir)
        started = time.perf_counter()
        base, tokenizer, head = self._base_model(data.train, data)
        config = replace(self.config, learning_rate=_learning_rate(self.config, self.adapter, head))
        described = {**describe_model(base, head, self.adapter, config), "data": describe_data(data)}
        if finished is not None:
            if resume and is_same_run(finished, described):
                if self.track is not None:
                    catch_up(finished, self.track)
                return finished
            raise InvalidSettingError(
                f"{self.output_dir} already holds the run {finished.name!r}"
                f"{', made with other settings or data' if resume else ''}. Choose another output_dir, or delete it."
            )
        load_seconds = time.perf_counter() - started

        device = next(base.parameters()).device
        processes = PartialState(cpu=device.type == "cpu")
        run = None
        with self._live_tracking(described, head, device) as live:
            callbacks = (*self.callbacks, live.row)
            with Stopwatch(device) as training:
                model, result, max_length = _train(
                    base, tokenizer, head, self.adapter, config, data.train, data.validation, callbacks
                )
            self.result, self.tokenizer, self.head = result, tokenizer, head
            if processes.is_main_process:
                predictor = Predictor(model, tokenizer, head, max_length)
                cost = {"load_seconds": load_seconds, **training_cost(result, training)}
                run = write_run(predictor, data, described, result, cost, self.output_dir, self.name)
                live.finish(run)
        processes.wait_for_everyone()
        return run or Run.load(self.output_dir)

    def save(self, model: Any, folder: str | Path) -> Path:
        """Write a model that ``train`` returned as an adapter folder, for ``lightft.load``, and return the folder."""
        trained = _TRAINED.get(model)
        if trained is None:
            raise InvalidSettingError(
                "There is nothing to save yet: call train() first, and give the model it returns."
            )
        manifest = manifest_of(trained.described, trained.tokenizer, trained.head, trained.max_length)
        return save_adapter(model, trained.tokenizer, manifest, folder)

    def predictor(self, model: Any) -> Predictor:
        """Return a trained model as something to call with texts."""
        if self.tokenizer is None or self.head is None:
            raise InvalidSettingError("Train first: the trainer does not know its tokenizer and head yet.")
        return Predictor(model, self.tokenizer, self.head, self._max_length(model, self.tokenizer))

    def _live_tracking(self, described: dict[str, Any], head: TaskHead, device: torch.device) -> LiveTracking:
        """Return what sends the run that is about to be trained to its trackers, from the main process alone."""
        folder = Path(self.output_dir or "")
        planned = Run(
            name=self.name or folder.name, metrics=head.metrics, environment=environment_of(device), **described
        )
        return LiveTracking(self.track if PartialState().is_main_process else None, planned, folder)

    def _max_length(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many tokens ``model`` reads at once: as in its training, where it was trained."""
        trained = _TRAINED.get(model)
        return trained.max_length if trained is not None else max_input_length(model, tokenizer, self.config.max_length)

    def _base_model(
        self, train: Sequence[Example], data: TaskData | None = None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskHead]:
        """Return the base model with its head, loading it where it is not in memory yet."""
        if isinstance(self.base, PreTrainedModel):
            if self.tokenizer is None:
                raise InvalidSettingError("A model in memory needs its tokenizer.")
            base, tokenizer = self._model_in_memory(self.base, self.tokenizer)
            return base, tokenizer, self.head or head_of_model(base, train)
        loader = self._adjusted(self.base)
        head = self.head or head_for(loader, train, data)
        # Refused now rather than after gigabytes have been read.
        check_fit(self.adapter, loader.sketch(head.task_type), head.task_type, quantization=loader.quantization)
        base, tokenizer = head.load_model(loader)
        return base, tokenizer, head

    def _adjusted(self, loader: ModelLoader) -> ModelLoader:
        """Return the loader as this trainer needs it: what is trained of the base itself must be held in float32."""
        return loader.replace(dtype="float32") if self.adapter.hooks().needs_float32_base else loader

    def _model_in_memory(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return model, tokenizer

    def _known_head(self, dataset: Sequence[Example]) -> TaskHead:
        if self.head is None:
            if not isinstance(self.base, PreTrainedModel):
                raise InvalidSettingError("This trainer does not know its labels yet: call train() or fit() first.")
            return head_of_model(self.base, dataset)
        return self.head


def head_for(loader: ModelLoader, train: Sequence[Example], data: TaskData | None = None) -> TaskHead:
    """Return the head of the loader's task, or of the data's where the loader names no labels, with the labels of either."""
    task = data.task if data is not None and loader.labels is None else loader.task
    labels = loader.labels or (data.labels if data is not None else labels_of(train, task))
    return TASKS[task](labels=tuple(labels)) if task != "causal-lm" else TASKS[task]()


class QLoRATrainer(LoRATrainer):
    """LoRATrainer on a base model held in 4 or 8 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

    Only how the base is loaded differs.

    Args:
        base: a ModelLoader, or a model that a ModelLoader loaded: it is loaded again, quantised.
        quantization: ``"nf4"`` (4 bits, double quantisation) or ``"int8"``; by default the loader's own, else ``"nf4"``.
        arguments: of LoRATrainer.
    """

    def __init__(
        self,
        base: ModelLoader | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        quantization: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(base, tokenizer, **arguments)
        self.quantization = quantization
        self._quantized: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def _adjusted(self, loader: ModelLoader) -> ModelLoader:
        quantization = self.quantization or loader.quantization or "nf4"
        return super()._adjusted(loader).replace(quantization=quantization)

    def _model_in_memory(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if quantization_of(model) is not None:
            return model, tokenizer
        found = provenance_of(model)
        if found is None:
            raise InvalidSettingError(
                f"This {type(model).__name__} is not quantised and was not loaded by a ModelLoader, so it cannot be loaded "
                "again in 4 bits. Give QLoRATrainer a ModelLoader."
            )
        if self._quantized is None:
            self._quantized = self._adjusted(found.loader).load_model()
        return self._quantized


def write_run(
    predictor: Predictor,
    data: TaskData,
    described: dict[str, Any],
    result: TrainingResult,
    cost: dict[str, Any],
    output_dir: Path,
    name: str | None = None,
) -> Run:
    """Save the adapter, predict the test split, and write the run."""
    head = predictor.head
    manifest = manifest_of(described, predictor.tokenizer, head, predictor.max_length)
    folder = save_adapter(predictor.model, predictor.tokenizer, manifest, output_dir / "adapter")
    tested = data.test or data.validation
    device = next(predictor.model.parameters()).device
    with Stopwatch(device) as predicting:
        predictions = predictor.predict(tested)
    _, counts = head.encode(tested, predictor.tokenizer, predictor.max_length)
    cut = {"truncated_test_texts": counts["truncated_texts"]} if counts.get("truncated_texts") else {}
    run = Run(
        name=name or output_dir.name,
        metrics=head.metrics,
        cost={
            **cost,
            "trainable_parameters": result.trainable_parameters,
            "total_parameters": result.total_parameters,
            "saved_parameters": stored_numbers(folder),
            "adapter_bytes": folder_bytes(folder, "*.safetensors"),
            **prediction_cost(predictor, tested, predicting),
        },
        history=result.history,
        predictions=tuple(predictions),
        path=output_dir,
        environment=environment_of(device),
        **{
            **described,
            "training": {**described["training"], "best_epoch": result.best_epoch, "steps": result.steps},
            "data": {**described["data"], "encoding": {**result.counts, **cut}},
        },
    )
    run = replace(run, scores=interval_scores(run))
    run.save(output_dir)
    return run


def training_cost(result: TrainingResult, training: Stopwatch) -> dict[str, Any]:
    """Return what a training took, by the keys of ``Run.cost``; energy only where the machine tells."""
    return {
        "train_seconds": training.seconds,
        "seconds_to_best": result.seconds_to_best,
        "seconds_per_step": sum(result.step_seconds) / result.steps,
        "train_rows_per_second": result.rows / training.seconds,
        "train_tokens_per_second": result.tokens / training.seconds,
        "padding_share": 1 - result.tokens / result.padded_tokens,
        **({"energy_joules": training.joules} if training.joules is not None else {}),
        "peak_memory_bytes": training.peak_bytes,
        "peak_memory_is_of_process": training.peak_is_of_process,
        **result.memory,
    }


def prediction_cost(predictor: Predictor, examples: Sequence[Example], predicting: Stopwatch) -> dict[str, float]:
    """Return what the prediction of ``examples`` took, by the keys of ``Run.cost``."""
    encodings, _ = predictor.head.encode(examples, predictor.tokenizer, predictor.max_length)
    return {
        "predict_seconds": predicting.seconds,
        "predictions_per_second": len(examples) / predicting.seconds,
        "predict_tokens_per_second": sum(len(encoding.input_ids) for encoding in encodings) / predicting.seconds,
    }


def as_predictor(model: Any) -> Predictor:
    """Return what predicts with ``model``: a Predictor, a model that a trainer returned, or one a ModelLoader loaded.

    Raises:
        InvalidSettingError: it is none of these, so that its tokenizer and labels are not known.
    """
    if isinstance(model, Predictor):
        return model
    if isinstance(model, nn.Module) and model in _TRAINED:
        trained = _TRAINED[model]
        return Predictor(model, trained.tokenizer, trained.head, trained.max_length)
    found = provenance_of(model) if isinstance(model, nn.Module) else None
    if found is None or (found.loader.labels is None and found.loader.task != "causal-lm"):
        raise InvalidSettingError(
            f"This {type(model).__name__} does not say what its tokenizer and labels are. Give what lightft.load(path) or "
            "trainer.predictor(model) returns, or load it with ModelLoader(name, task=..., labels=[...])."
        )
    tokenizer = found.loader.load_tokenizer()
    ensure_padding(model, tokenizer, found.loader.task)
    head = TASKS[found.loader.task](labels=tuple(found.loader.labels or ()))
    return Predictor(model, tokenizer, head, max_input_length(model, tokenizer))


def _train(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: TaskHead,
    spec: AdapterSpec,
    config: TrainConfig,
    train: Sequence[Example],
    validation: Sequence[Example],
    callbacks: Sequence[Callback],
) -> tuple[PeftModel | PreTrainedModel, TrainingResult, int]:
    """Put the adapter on a copy that shares the base's weights, train it, and return it with what happened."""
    hooks = spec.hooks()
    model = attach_adapter(base, head.task_type, spec, seed=config.seed, hooks=hooks)
    max_length = max_input_length(model, tokenizer, config.max_length)
    trained_head = head.fitted(train) if isinstance(head, LearnsFromTraining) else head
    course = Course(model, trained_head, train, validation, max_length, hooks)
    result = train_together([course], tokenizer, config, callbacks=callbacks)
    # Counted as they were trained: some kinds fold what they learned into another form.
    result.trainable_parameters, result.total_parameters = count_parameters(model)
    return hooks.after_training(model, base), result, max_length


def _learning_rate(config: TrainConfig, spec: AdapterSpec, head: TaskHead) -> float:
    if config.learning_rate is not None:
        return config.learning_rate
    return spec.definition.learning_rate_for(head.task_type)
