"""The training loop: one for every head and every adapter, on Accelerate."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import PeftModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from lightft.adapters import AdapterHooks, TrainingPlan
from lightft.batching import training_steps
from lightft.dropout import use_fast_dropout
from lightft.errors import InvalidSettingError, TrainingError, suggest
from lightft.metrics import build_metric, score_predictions
from lightft.models.precision import has_native_bfloat16
from lightft.records import Example
from lightft.tasks import Encoding, TaskHead
from lightft.tasks.head import forward_tokens

__all__ = ["SCHEDULES", "TrainConfig", "TrainingResult", "train_model"]

SCHEDULES = ("linear", "cosine", "constant")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_STEPS_PER_HISTORY_ROW = 10


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training split.
        max_steps: end after so many optimiser steps, even inside an epoch; None trains all epochs.
        learning_rate: the peak; None takes the adapter kind's default.
        batch_size: rows per optimiser step and accumulation step; of rows with many labels (words, tokens) the
            average number, so that every step learns from about as many labels.
        accumulation: an optimiser step covers ``batch_size × accumulation`` rows. The loss is the mean over all their
            labels, however they are split.
        max_tokens: padded tokens of one forward pass at most; less needs less memory and changes nothing else. None is
            8192, or for a language model so many that the scores of its vocabulary fit into 256 MiB.
        max_length: tokens per row at most; None is what the model can read.
        schedule: ``"linear"`` or ``"cosine"`` decay to zero, or ``"constant"``, each after the warm-up.
        warmup: share of the steps over which the learning rate rises from zero.
        weight_decay: AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101); biases and norms are spared.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it.
        seed: seeds the order of the data and dropout.
        precision: of the computation when the model is held in float32: ``"auto"`` is bfloat16 where it is native.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        by_length: batch rows of like length together.
        validation_metric: by which the best epoch is chosen, always on the validation split; None is the head's first.
        patience: stop after so many epochs without a better validation score; None never stops early.
        progress: show a progress bar.
    """

    epochs: int = 3
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    max_tokens: int | None = None
    max_length: int | None = None
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    precision: str = "auto"
    gradient_checkpointing: bool = False
    by_length: bool = True
    validation_metric: str | None = None
    patience: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation"):
            if getattr(self, name) is None or getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("max_tokens", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InvalidSettingError(
                    f"{name} is {getattr(self, name)}; it must be 1 or more, or None for the default."
                )
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InvalidSettingError(f"learning_rate is {self.learning_rate}; it must lie between 0 and 1.")
        if not 0 <= self.warmup < 1:
            raise InvalidSettingError(f"warmup is {self.warmup}; it is the share of steps, from 0 to below 1.")
        if self.schedule not in SCHEDULES:
            raise InvalidSettingError(f"No schedule named {self.schedule!r}. {suggest(self.schedule, SCHEDULES)}")
        if self.precision not in _PRECISIONS:
            raise InvalidSettingError(f"No precision named {self.precision!r}. {suggest(self.precision, _PRECISIONS)}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Build from keywords; an unknown one is refused with the nearest known name."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise InvalidSettingError(f"There is no setting {name!r}. {suggest(name, cls.__dataclass_fields__)}")
        return cls(**settings)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


@dataclass
class TrainingResult:
    """What happened in training.

    Attributes:
        history: rows ``step, epoch, train_loss, learning_rate, gradient_norm`` and ``step, epoch, validation_<metric>``.
        steps: optimiser steps taken.
        rows: rows seen, repeats included.
        tokens: tokens seen, padding left out.
        padded_tokens: tokens computed, padding included.
        best_epoch: the epoch (from 1) whose weights were kept; the last one when there was no validation split.
        best_score: its validation score; None without a validation split.
        seconds_to_best: from the first step to the end of the best epoch's validation.
        counts: what did not fit in encoding, by kind.
        trainable_parameters: trained, each counted once.
        total_parameters: of the model with its adapter.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    seconds_to_best: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    trainable_parameters: int = 0
    total_parameters: int = 0


Callback = Callable[[Mapping[str, Any]], bool | None]
"""Called with every row of the history; returning True ends training after the current epoch's validation."""


def train_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    head: TaskHead,
    train: Sequence[Example],
    validation: Sequence[Example],
    config: TrainConfig,
    *,
    max_length: int,
    callbacks: Sequence[Callback] = (),
    hooks: AdapterHooks | None = None,
) -> TrainingResult:
    """Train the parameters of ``model`` that require gradients, in place, and leave the best epoch's in it.

    Args:
        model: with its adapter, on its device.
        tokenizer: the model's.
        head: what the model is to learn.
        train: what it learns from.
        validation: what chooses the best epoch; empty keeps the last.
        config: how; ``learning_rate`` must be set.
        max_length: tokens per row at most.
        callbacks: called with each history row.
        hooks: what the adapter does beside being trained.

    Raises:
        TrainingError: nothing to train, nothing to learn from, or a loss that is not finite.
    """
    learning_rate = config.learning_rate
    if learning_rate is None:
        raise InvalidSettingError(
            "learning_rate is None; give a number, or train through LoRATrainer, which has defaults."
        )
    hooks = hooks or AdapterHooks({})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise TrainingError("No parameter of the model is trainable. Add an adapter, or use AdapterSpec('full').")
    encodings, counts = head.encode(train, tokenizer, max_length)
    learnable = [encoding for encoding in encodings if encoding.label_count]
    if not learnable:
        raise TrainingError(f"None of the {len(train)} training examples has a gold answer to learn from.")
    result = TrainingResult(counts=dict(counts))
    if len(learnable) < len(encodings):
        result.counts["rows_without_labels"] = len(encodings) - len(learnable)

    max_tokens = config.max_tokens or forward_tokens(model)
    device = trained[0].device
    accelerator = _accelerator(device, _mixed_precision(model, config, device))
    lengths = [len(encoding.input_ids) for encoding in learnable]
    label_counts = [encoding.label_count for encoding in learnable]
    rows_per_step = config.batch_size * config.accumulation
    plan = partial(
        training_steps,
        lengths,
        label_counts,
        batch_size=rows_per_step,
        max_tokens=max_tokens,
        seed=config.seed,
        by_length=config.by_length,
    )
    total_steps = sum(len(plan(epoch=epoch)) for epoch in range(config.epochs))
    if config.max_steps is not None:
        total_steps = min(total_steps, config.max_steps)
    first_epoch = partial(_inputs_of_epoch, plan(epoch=0), learnable, head, tokenizer, device)
    all_rows = min(len(learnable) * config.epochs, total_steps * rows_per_step)
    hooks.before_training(model, TrainingPlan(total_steps, first_epoch))
    if device.type == "cpu":
        use_fast_dropout(model)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, learning_rate, config.weight_decay, hooks), fused=device.type in ("cpu", "cuda")
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    # Accelerate would leave the model computing in the lower precision for good, unlike the one that is saved; the steps
    # below ask for it themselves.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    factor = _schedule(config, total_steps)
    schedule = LambdaLR(optimizer.optimizer, factor)
    keeper = _BestKeeper(head, config)
    torch.manual_seed(config.seed)
    started = time.perf_counter()
    try:
        with _checkpointed(model, config.gradient_checkpointing), _progress_bar(config, all_rows) as bar:
            for epoch in range(config.epochs):
                model.train()
                steps = plan(epoch=epoch)[: total_steps - result.steps]
                running = _RunningLoss()
                stop = False
                for number, micro_batches in enumerate(steps):
                    step = [[learnable[row] for row in rows] for rows in micro_batches]
                    loss, norm = _optimiser_step(
                        step, wrapped, head, tokenizer, accelerator, optimizer, config, max_tokens, hooks
                    )
                    schedule.step()
                    running.add(loss)
                    result.steps += 1
                    hooks.after_step(model, result.steps)
                    optimizer.zero_grad()
                    _count_rows(result, step)
                    bar.update(sum(map(len, step)))
                    bar.set_postfix_str(f"epoch {epoch + 1}/{config.epochs}, loss {running.mean:.3f}", refresh=False)
                    if result.steps % _STEPS_PER_HISTORY_ROW == 0 or number == len(steps) - 1:
                        row = {
                            "step": result.steps,
                            "epoch": epoch + (number + 1) / len(steps),
                            "train_loss": running.take(),
                            "learning_rate": learning_rate * factor(schedule.last_epoch),
                            "gradient_norm": norm,
                        }
                        stop |= _record(result, row, callbacks)
                stop |= _validate_epoch(
                    result, keeper, model, tokenizer, validation, max_length, epoch, started, callbacks
                )
                if stop or result.steps == total_steps:
                    break
        keeper.restore(model)
    finally:
        model.eval()
        accelerator.free_memory()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return result


def _optimiser_step(
    step: Sequence[Sequence[Encoding]],
    model: nn.Module,
    head: TaskHead,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    optimizer: Any,
    config: TrainConfig,
    max_tokens: int,
    hooks: AdapterHooks,
) -> tuple[float, float]:
    """Take one step over all micro-batches of ``step`` and return (mean loss per label, gradient norm).

    The gradients are still there afterwards.
    """
    bare = accelerator.unwrap_model(model)
    mine, weight = _share_of_process(step, accelerator, max_tokens)
    labels_in_step = sum(encoding.label_count for micro_batch in step for encoding in micro_batch)
    total = 0.0
    for number, micro_batch in enumerate(mine):
        batch = {key: value.to(accelerator.device) for key, value in head.collate(micro_batch, tokenizer).items()}
        labels = batch.pop("labels")
        is_last = number == len(mine) - 1
        with nullcontext() if is_last else accelerator.no_sync(model), accelerator.autocast():
            logits = model(**batch).logits
        # Every process averages over the labels of the whole step; DDP then takes the mean of the processes' gradients.
        loss = head.loss(logits, labels, bare) * (weight * accelerator.num_processes / labels_in_step)
        total += loss.detach().item()
        penalty = hooks.penalty(bare) if is_last else None
        accelerator.backward(loss if penalty is None else loss + penalty)
    mean_loss = float(accelerator.reduce(torch.tensor(total, device=accelerator.device), reduction="mean"))
    if not math.isfinite(mean_loss):
        raise TrainingError(
            f"The loss became {mean_loss}. Lower learning_rate (now {config.learning_rate}), or compute in float32 with "
            "precision='float32' and ModelLoader(dtype='float32')."
        )
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = accelerator.clip_grad_norm_(trained, config.max_grad_norm or math.inf)
    optimizer.step()
    return mean_loss, float(norm if norm is not None else math.nan)


def _share_of_process(
    step: Sequence[Sequence[Encoding]], accelerator: Accelerator, max_tokens: int
) -> tuple[list[list[Encoding]], float]:
    """Return this process's micro-batches of a step, and 1.0; a process without rows helps with one of weight 0.0."""
    if accelerator.num_processes == 1:
        return [list(micro_batch) for micro_batch in step], 1.0
    rows = [encoding for micro_batch in step for encoding in micro_batch]
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    if not mine:
        return [rows[:1]], 0.0
    rows_at_once = max(1, max_tokens // max(len(encoding.input_ids) for encoding in mine))
    return [mine[start : start + rows_at_once] for start in range(0, len(mine), rows_at_once)], 1.0


def _validate_epoch(
    result: TrainingResult,
    keeper: _BestKeeper,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    validation: Sequence[Example],
    max_length: int,
    epoch: int,
    started: float,
    callbacks: Sequence[Callback],
) -> bool:
    """Score the epoch, keep its weights if they are the best, and return whether to stop."""
    if not validation:
        result.best_epoch = epoch + 1
        return False
    scores = keeper.score(model, tokenizer, validation, max_length)
    row = {"step": result.steps, "epoch": epoch + 1, **{f"validation_{name}": value for name, value in scores.items()}}
    stop = _record(result, row, callbacks)
    if keeper.keep_if_best(model, scores[keeper.metric]):
        result.best_epoch = epoch + 1
        result.best_score = scores[keeper.metric]
        result.seconds_to_best = time.perf_counter() - started
    return stop or keeper.is_out_of_patience


class _BestKeeper:
    """Holds the trained weights of the best epoch by the declared validation metric."""

    def __init__(self, head: TaskHead, config: TrainConfig) -> None:
        self.metric = config.validation_metric or head.metrics[0]
        self._head = head
        self._names = head.metrics if self.metric in head.metrics else (*head.metrics, self.metric)
        # Looked up before training, so that a misspelt metric costs no epoch.
        self._higher_is_better = build_metric(self.metric, head.labels).higher_is_better
        self._patience = config.patience
        self._best: float | None = None
        self._epochs_since_best = 0
        self._weights: dict[str, Tensor] = {}

    @property
    def is_out_of_patience(self) -> bool:
        return self._patience is not None and self._epochs_since_best >= self._patience

    def score(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, validation: Sequence[Example], max_length: int
    ) -> dict[str, float]:
        predictions = self._head.predict(model, tokenizer, validation, max_length=max_length, validating=True)
        scores = score_predictions(predictions, self._names, self._head.labels)
        return {name: score for name, score in scores.items() if not math.isnan(score) or name == self.metric}

    def keep_if_best(self, model: nn.Module, score: float) -> bool:
        if math.isnan(score):
            raise TrainingError(
                f"The validation metric {self.metric!r} is undefined on the validation split. Choose another with "
                "validation_metric=, or give a validation split that it can be computed on."
            )
        better = self._best is None or (score > self._best if self._higher_is_better else score < self._best)
        self._epochs_since_best = 0 if better else self._epochs_since_best + 1
        if better:
            self._best = score
            self._weights = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        return better

    def restore(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in self._weights.items():
                parameters[name].copy_(weight)


class _RunningLoss:
    """The mean loss since the last history row."""

    def __init__(self) -> None:
        self.mean = math.nan
        self._sum, self._count = 0.0, 0

    def add(self, loss: float) -> None:
        self._sum += loss
        self._count += 1
        self.mean = self._sum / self._count

    def take(self) -> float:
        mean, self._sum, self._count = self.mean, 0.0, 0
        return mean


def _record(result: TrainingResult, row: dict[str, Any], callbacks: Sequence[Callback]) -> bool:
    result.history.append(row)
    asked_to_stop = [callback(row) for callback in callbacks]
    return True in asked_to_stop


def _count_rows(result: TrainingResult, step: Sequence[Sequence[Encoding]]) -> None:
    for micro_batch in step:
        lengths = [len(encoding.input_ids) for encoding in micro_batch]
        result.rows += len(lengths)
        result.tokens += sum(lengths)
        result.padded_tokens += max(lengths) * len(lengths)


def _accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    # Accelerate keeps its settings for the whole process; a second training may want another precision.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu")


def _mixed_precision(model: nn.Module, config: TrainConfig, device: torch.device) -> str:
    """Return Accelerate's name of the precision to compute in.

    A base that is held in bfloat16 computes in it as it is; only weights held in float32 are cast on the way.
    """
    if config.precision == "float16" and device.type != "cuda":
        raise InvalidSettingError(f"precision='float16' needs a GPU; on {device.type} use 'auto' or 'bfloat16'.")
    if config.precision in ("bfloat16", "float16"):
        return {"bfloat16": "bf16", "float16": "fp16"}[config.precision]
    # Whoever trains an adapter on a float32 base has chosen float32; only a model that is trained whole has to be.
    trained_whole = all(parameter.requires_grad for parameter in model.parameters())
    return "bf16" if config.precision == "auto" and trained_whole and has_native_bfloat16(device) else "no"


def _inputs_of_epoch(
    steps: Sequence[Sequence[Sequence[int]]],
    encodings: Sequence[Encoding],
    head: TaskHead,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    for step in steps:
        for rows in step:
            batch = head.collate([encodings[row] for row in rows], tokenizer)
            yield {key: value.to(device) for key, value in batch.items() if key != "labels"}


def _parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, hooks: AdapterHooks
) -> list[dict[str, Any]]:
    """Return AdamW's groups: matrices with weight decay, biases and norms without, each at its learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((learning_rate * hooks.learning_rate_factor(name), decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def _schedule(config: TrainConfig, total_steps: int) -> Callable[[int], float]:
    warmup_steps = math.ceil(config.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        if config.schedule == "linear":
            return max(0.0, 1.0 - done)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))) if config.schedule == "cosine" else 1.0

    return factor


@contextmanager
def _checkpointed(model: nn.Module, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    # transformers 5.23 calls it activation checkpointing and will forget the old name.
    kind = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    # The reentrant kind gives no gradients to adapters above frozen embeddings.
    settings = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(base, f"{kind}_checkpointing_enable")(**settings)
    try:
        yield
    finally:
        getattr(base, f"{kind}_checkpointing_disable")()


@contextmanager
def _progress_bar(config: TrainConfig, rows: int) -> Iterator[Any]:
    with tqdm(total=rows, unit=" rows", disable=not config.progress, smoothing=0.05) as bar:
        yield bar
