"""The training loop: one for every head and every adapter, on Accelerate."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from lightft.adapters import AdapterHooks, TrainingPlan
from lightft.batching import training_steps
from lightft.best_epoch import BestEpoch, Validation
from lightft.cost import TrainingMemory
from lightft.cpu_training import sped_up_on_cpu
from lightft.errors import InvalidSettingError, TrainingError
from lightft.models.computation import checkpointed, mixed_precision
from lightft.pace import TimeLeft, learning_rate_factor
from lightft.records import Example
from lightft.tasks import Encoding, TaskHead
from lightft.tasks.head import RunsModelItself, forward_tokens
from lightft.train_config import TrainConfig, TrainingResult

__all__ = ["Callback", "Course", "train_together"]

_STEPS_PER_HISTORY_ROW = 10

Callback = Callable[[Mapping[str, Any]], bool | None]
"""Called with every row of the history; returning True ends training after the current epoch's validation."""


@dataclass(frozen=True)
class Course:
    """What one head learns in a training, and from what.

    Attributes:
        model: with its adapter, on its device; several courses may share the adapter's parameters.
        head: what the model is to learn.
        train: what it learns from.
        validation: what chooses the best epoch; empty has no say.
        max_length: tokens per row at most.
        hooks: what the adapter does beside being trained.
        name: of the task among several; empty for one alone.
        share: of the steps, relative to the other courses' shares; None is as many as its own data fill.
    """

    model: nn.Module
    head: TaskHead
    train: Sequence[Example]
    validation: Sequence[Example]
    max_length: int
    hooks: AdapterHooks = field(default_factory=lambda: AdapterHooks({}))
    name: str = ""
    share: float | None = None


def train_together(
    courses: Sequence[Course],
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    *,
    callbacks: Sequence[Callback] = (),
    rehearse: int | None = None,
) -> TrainingResult:
    """Train the parameters that require gradients, in place, and leave the best epoch's in them.

    Every optimiser step belongs to one course; an epoch is all steps of all courses in an order drawn by the seed.

    Args:
        courses: what is learned; those of several tasks share the adapter.
        tokenizer: the models'.
        config: how; ``learning_rate`` must be set.
        callbacks: called with each history row.
        rehearse: take only this many steps of the first epoch, of sizes spread evenly, after the largest of all: enough to
            know what the training will cost.

    Raises:
        TrainingError: nothing to train, nothing to learn from, or a loss that is not finite.
    """
    learning_rate = config.learning_rate
    if learning_rate is None:
        raise InvalidSettingError(
            "learning_rate is None; give a number, or train through LoRATrainer, which has defaults."
        )
    device = next(courses[0].model.parameters()).device
    processes = PartialState(cpu=device.type == "cpu").num_processes
    if len(courses) > 1 and processes > 1:
        raise InvalidSettingError("Several tasks learn together in one process only. Start it without torchrun.")
    result = TrainingResult()
    prepared = [_Prepared(course, tokenizer, config, result) for course in courses]
    if config.max_seconds is not None and processes > 1:
        raise InvalidSettingError(
            "max_seconds needs one process: several would not end at the same step. Use max_steps."
        )
    total_steps = _total_steps(prepared, config)
    result.planned_steps = total_steps or 0
    time_left = TimeLeft(config.max_seconds)
    memory = TrainingMemory([course.model for course in courses])
    for part in prepared:
        part.begin(total_steps)
    optimizer = torch.optim.AdamW(
        _parameter_groups(courses, learning_rate, config.weight_decay), fused=device.type in ("cpu", "cuda")
    )
    accelerator = _accelerator(device, mixed_precision(courses[0].model, config, device))
    optimizer = accelerator.prepare(optimizer)
    for part in prepared:
        part.wrap(accelerator)
    factor = learning_rate_factor(config, total_steps, time_left)
    schedule = LambdaLR(optimizer.optimizer, factor)
    judged = [
        Validation(course.name, course.model, course.head, course.validation, course.max_length)
        for course in courses
        if course.validation
    ]
    best = BestEpoch(judged, config.validation_metric, config.patience)
    torch.manual_seed(config.seed)
    started = time.perf_counter()
    rows_in_all = sum(len(part.encodings) for part in prepared) * config.epochs
    if total_steps is not None:
        rows_in_all = min(rows_in_all, total_steps * config.batch_size * config.accumulation)
    try:
        with ExitStack() as stack:
            for course in courses:
                stack.enter_context(sped_up_on_cpu(course.model))
                stack.enter_context(checkpointed(course.model, config.gradient_checkpointing))
            bar = stack.enter_context(_progress_bar(config, rows_in_all))
            for epoch in range(config.epochs):
                steps = _steps_of_epoch(prepared, epoch, config.seed)
                result.steps_per_epoch = len(steps)
                if total_steps is not None:
                    steps = steps[: total_steps - result.steps]
                if rehearse is not None:
                    steps = _rehearsal(steps, rehearse)
                for course in courses:
                    course.model.train()
                running = _RunningLoss()
                stop = False
                for number, (part, micro_batches) in enumerate(steps):
                    step = [[part.encodings[row] for row in rows] for rows in micro_batches]
                    with time_left.running():
                        loss, norm = _optimiser_step(step, part, tokenizer, accelerator, optimizer, config, memory)
                    result.step_seconds.append(time_left.seconds_of_last)
                    schedule.step()
                    running.add(loss)
                    result.steps += 1
                    courses[0].hooks.after_step(courses[0].model, result.steps)
                    optimizer.zero_grad()
                    _count_rows(result, step)
                    bar.update(sum(map(len, step)))
                    bar.set_postfix_str(f"epoch {epoch + 1}/{config.epochs}, loss {running.mean:.3f}", refresh=False)
                    if result.steps % _STEPS_PER_HISTORY_ROW == 0 or number == len(steps) - 1 or time_left.is_over:
                        row = {
                            "step": result.steps,
                            "epoch": epoch + (number + 1) / len(steps),
                            "train_loss": running.take(),
                            "learning_rate": learning_rate * factor(schedule.last_epoch),
                            "gradient_norm": norm,
                        }
                        stop |= _record(result, row, callbacks)
                    if time_left.is_over:
                        break
                memory.end_counting()
                stop |= _judge_epoch(result, best, courses, tokenizer, epoch, started, callbacks)
                if stop or time_left.is_over or result.steps == total_steps or rehearse is not None:
                    break
        result.memory = memory.totals(optimizer.optimizer)
        best.restore()
    finally:
        for course in courses:
            course.model.eval()
        accelerator.free_memory()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return result


class _Prepared:
    """A course with its rows encoded and its steps planned."""

    def __init__(
        self, course: Course, tokenizer: PreTrainedTokenizerBase, config: TrainConfig, result: TrainingResult
    ) -> None:
        if not any(parameter.requires_grad for parameter in course.model.parameters()):
            raise TrainingError("No parameter of the model is trainable. Add an adapter, or use AdapterSpec('full').")
        encodings, counts = course.head.encode(course.train, tokenizer, course.max_length)
        self.course = course
        self.wrapped: Any = course.model
        self.encodings = [encoding for encoding in encodings if encoding.label_count]
        self._config = config
        self._tokenizer = tokenizer
        if not self.encodings:
            raise TrainingError(f"None of the {len(course.train)} training examples has a gold answer to learn from.")
        self.max_tokens = config.max_tokens or forward_tokens(course.model, scored=self._share_scored())
        for name, count in counts.items():
            result.counts[name] = result.counts.get(name, 0) + count
        if len(self.encodings) < len(encodings):
            without = len(encodings) - len(self.encodings)
            result.counts["rows_without_labels"] = result.counts.get("rows_without_labels", 0) + without

    def plan(self, epoch: int) -> list[list[list[int]]]:
        """Return the steps of a pass over this course's rows, each a list of micro-batches of row numbers."""
        return training_steps(
            [len(encoding.input_ids) for encoding in self.encodings],
            [encoding.label_count for encoding in self.encodings],
            batch_size=self._config.batch_size * self._config.accumulation,
            max_tokens=self.max_tokens,
            seed=self._config.seed,
            epoch=epoch,
            by_length=self._config.by_length,
        )

    def begin(self, total_steps: int | None) -> None:
        """Let the adapter look at the data and the number of steps; it may still change its parameters."""
        model = self.course.model
        self.course.hooks.before_training(model, TrainingPlan(total_steps, self._inputs))
        for parameter in model.parameters():
            # What peft makes anew has the base's precision, in which small steps are lost.
            if parameter.requires_grad and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()

    def wrap(self, accelerator: Accelerator) -> None:
        """Make the model ready for several processes."""
        self.wrapped = accelerator.prepare(self.course.model)
        # Accelerate would leave the model computing in the lower precision for good, unlike the one that is saved; the
        # steps ask for it themselves.
        accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)

    def _share_scored(self) -> float:
        """Return the share of the positions at which the model scores its outputs."""
        if not isinstance(self.course.head, RunsModelItself):
            return 1.0
        labels = sum(encoding.label_count for encoding in self.encodings)
        return labels / sum(len(encoding.input_ids) for encoding in self.encodings)

    def _inputs(self, rows: int) -> Iterator[dict[str, Tensor]]:
        device = next(self.course.model.parameters()).device
        order = np.random.default_rng(self._config.seed).permutation(len(self.encodings))
        for first in range(0, len(order) - rows + 1, rows):
            chosen = [self.encodings[row] for row in order[first : first + rows]]
            batch = self.course.head.collate(chosen, self._tokenizer)
            yield {key: value.to(device) for key, value in batch.items() if key != "labels"}


def _steps_of_epoch(prepared: Sequence[_Prepared], epoch: int, seed: int) -> list[tuple[_Prepared, list[list[int]]]]:
    """Return every step of an epoch with its course: one course's own order, or several mixed by the seed.

    A course with a share gets that share of the epoch's steps: its rows are repeated, or some wait for a later epoch.
    """
    plans = [part.plan(epoch) for part in prepared]
    if len(prepared) == 1:
        return [(prepared[0], step) for step in plans[0]]
    in_all = sum(map(len, plans))
    asked = [part.course.share for part in prepared]
    if None not in asked:
        whole = sum(share for share in asked if share is not None)
        counts = [max(1, round(in_all * share / whole)) for share in asked if share is not None]
        plans = [_repeated(part, epoch, count) for part, count in zip(prepared, counts, strict=True)]
    steps = [(part, step) for part, plan in zip(prepared, plans, strict=True) for step in plan]
    order = np.random.default_rng([seed, epoch]).permutation(len(steps))
    return [steps[place] for place in order]


def _rehearsal(
    steps: Sequence[tuple[_Prepared, list[list[int]]]], count: int
) -> list[tuple[_Prepared, list[list[int]]]]:
    """Return the largest step, which warms up, and then one from each of ``count`` equal parts of the steps by size."""
    by_size = sorted(steps, key=lambda step: _padded_tokens(*step))
    largest = max(steps, key=lambda step: max(_padded_tokens(step[0], [rows]) for rows in step[1]))
    return [largest, *(by_size[(2 * part + 1) * len(steps) // (2 * count)] for part in range(count))]


def _padded_tokens(part: _Prepared, micro_batches: Sequence[Sequence[int]]) -> int:
    return sum(len(rows) * max(len(part.encodings[row].input_ids) for row in rows) for rows in micro_batches)


def _repeated(part: _Prepared, epoch: int, count: int) -> list[list[list[int]]]:
    """Return ``count`` steps of a course, going on where the epoch before ended."""
    per_pass = len(part.plan(0))
    first = epoch * count
    steps: list[list[list[int]]] = []
    while len(steps) < count:
        turn, place = divmod(first + len(steps), per_pass)
        steps += part.plan(turn)[place : place + count - len(steps)]
    return steps


def _optimiser_step(
    step: Sequence[Sequence[Encoding]],
    part: _Prepared,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    optimizer: Any,
    config: TrainConfig,
    memory: TrainingMemory,
) -> tuple[float, float]:
    """Take one step over all micro-batches of ``step`` and return (mean loss per label, gradient norm).

    The gradients are still there afterwards.
    """
    head, model, bare = part.course.head, part.wrapped, part.course.model
    mine, weight = _share_of_process(step, accelerator, part.max_tokens)
    labels_in_step = sum(encoding.label_count for micro_batch in step for encoding in micro_batch)
    total = 0.0
    for number, micro_batch in enumerate(mine):
        batch = {key: value.to(accelerator.device) for key, value in head.collate(micro_batch, tokenizer).items()}
        is_last = number == len(mine) - 1
        with memory.forward_pass(bare, batch["input_ids"].numel()) as count_saved:
            with nullcontext() if is_last else accelerator.no_sync(model), accelerator.autocast():
                summed = _summed_loss(head, model, bare, batch)
            # Every process averages over the labels of the whole step; DDP then takes the mean of their gradients.
            loss = summed * (weight * accelerator.num_processes / labels_in_step)
            total += loss.detach().item()
            penalty = part.course.hooks.penalty(bare) if is_last else None
            loss = loss if penalty is None else loss + penalty
            count_saved(loss)
        accelerator.backward(loss)
    memory.after_backward()
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


def _summed_loss(head: TaskHead, model: Any, bare: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    if isinstance(head, RunsModelItself):
        return head.training_loss(model, batch)
    labels = batch.pop("labels")
    return head.loss(model(**batch).logits, labels, bare)


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


def _judge_epoch(
    result: TrainingResult,
    best: BestEpoch,
    courses: Sequence[Course],
    tokenizer: PreTrainedTokenizerBase,
    epoch: int,
    started: float,
    callbacks: Sequence[Callback],
) -> bool:
    """Score the epoch, keep its weights if they are the best, and return whether to stop."""
    if not best.judges:
        result.best_epoch = epoch + 1
        result.seconds_to_best = time.perf_counter() - started
        return False
    score, named = best.score(tokenizer)
    stop = _record(result, {"step": result.steps, "epoch": epoch + 1, **named}, callbacks)
    if best.keep_if_best([course.model for course in courses], score):
        result.best_epoch = epoch + 1
        result.best_score = best.headline(score)
        result.seconds_to_best = time.perf_counter() - started
    return stop or best.is_out_of_patience


def _total_steps(prepared: Sequence[_Prepared], config: TrainConfig) -> int | None:
    """Return the optimiser steps there will be; None where seconds decide."""
    if config.max_seconds is not None:
        return None
    total = 0
    for epoch in range(config.epochs):
        total += len(_steps_of_epoch(prepared, epoch, config.seed))
        if config.max_steps is not None and total >= config.max_steps:
            return config.max_steps
    return total


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


def _parameter_groups(courses: Sequence[Course], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: matrices with weight decay, biases and norms without, each at its learning rate."""
    groups: dict[tuple[float, float], dict[nn.Parameter, None]] = {}
    for course in courses:
        for name, parameter in course.model.named_parameters():
            if parameter.requires_grad:
                decay = weight_decay if parameter.ndim >= 2 else 0.0
                rate = learning_rate * course.hooks.learning_rate_factor(name)
                groups.setdefault((rate, decay), {})[parameter] = None
    return [{"params": list(members), "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


@contextmanager
def _progress_bar(config: TrainConfig, rows: int) -> Iterator[Any]:
    with tqdm(total=rows, unit=" rows", disable=not config.progress, smoothing=0.05) as bar:
        yield bar
