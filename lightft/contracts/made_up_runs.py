"""Runs that nobody trained, with predictions as good or bad as a test wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lightft.records import Prediction, Run, Span
from lightft.spans import spans_to_tags

TYPES = ("LOC", "MISC", "ORG", "PER")
_TWELVE_WORDS = " ".join(f"{number:05d}" for number in range(12))


def tagging_run(
    name: str,
    *,
    skill: float,
    examples: int = 300,
    seed: int = 0,
    types: tuple[str, ...] = TYPES,
    **fields: Any,
) -> Run:
    """Return a token-classification run that finds each entity with probability ``skill``."""
    gold_rng = np.random.default_rng(12345)
    luck = np.random.default_rng([seed, int(skill * 1000)])
    predictions = []
    for number in range(examples):
        words = tuple((6 * place, 6 * place + 5) for place in range(12))
        gold, predicted = [], []
        for first in range(0, 12, 3):
            if gold_rng.random() < 0.45:
                label = types[int(gold_rng.integers(len(types)))]
                last = first + int(gold_rng.integers(1, 3))
                gold.append(Span(words[first][0], words[last - 1][1], label))
                if luck.random() < skill:
                    predicted.append(gold[-1])
                elif luck.random() < 0.5:
                    predicted.append(Span(words[first][0], words[last - 1][1], types[int(luck.integers(len(types)))]))
            elif luck.random() < (1 - skill) / 5:
                predicted.append(Span(words[first][0], words[first][1], types[int(luck.integers(len(types)))]))
        tags, _ = spans_to_tags(predicted, words)
        predictions.append(
            Prediction(
                f"test-{number}",
                gold=tuple(gold),
                predicted=tuple(predicted),
                words=words,
                tags=tags,
                pieces=(1, 2, 3) * 4,
                text=_TWELVE_WORDS,
            )
        )
    metrics = ("span_f1", "span_precision", "span_recall", "token_accuracy")
    return _run(name, "token-classification", metrics, types, predictions, seed, fields)


def classification_run(
    name: str,
    *,
    skill: float,
    examples: int = 400,
    seed: int = 0,
    labels: tuple[str, ...] = ("negative", "positive"),
    **fields: Any,
) -> Run:
    """Return a text-classification run with probabilities; more ``skill`` parts the classes further."""
    gold_rng = np.random.default_rng(12345)
    luck = np.random.default_rng([seed, int(skill * 1000)])
    predictions = []
    for number in range(examples):
        gold = int(gold_rng.integers(len(labels)))
        logits = luck.normal(size=len(labels))
        logits[gold] += 4 * skill
        probabilities = np.exp(logits) / np.exp(logits).sum()
        predictions.append(
            Prediction(
                f"test-{number}",
                gold=labels[gold],
                predicted=labels[int(probabilities.argmax())],
                probabilities=dict(zip(labels, probabilities.tolist(), strict=True)),
            )
        )
    metrics = ("accuracy", "weighted_f1", "roc_auc")
    return _run(name, "text-classification", metrics, labels, predictions, seed, fields)


def generation_run(name: str, *, skill: float, examples: int = 200, seed: int = 0, **fields: Any) -> Run:
    """Return a causal-lm run whose answers are right with probability ``skill``."""
    luck = np.random.default_rng([seed, int(skill * 1000)])
    predictions = []
    for number in range(examples):
        gold = f"answer {number}"
        tokens = int(luck.integers(3, 30))
        predictions.append(
            Prediction(
                f"test-{number}",
                gold=gold,
                predicted=gold if luck.random() < skill else "something else",
                log_likelihood=-float(tokens * luck.gamma(4, (1.5 - skill) / 4)),
                target_tokens=tokens,
            )
        )
    return _run(name, "causal-lm", ("perplexity", "exact_match", "answer_f1"), (), predictions, seed, fields)


def made_up_history(
    headline: str, *, steps: int = 400, epochs: int = 3, best: float = 0.8, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the rows a trainer logs: a falling loss every ten steps and a validation after each epoch."""
    luck = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        loss = 0.15 + 1.8 * np.exp(-4 * step / steps) + luck.normal(scale=0.05)
        rate = 3e-4 * min(step / (0.1 * steps), (steps - step) / (0.9 * steps) + 1e-3)
        rows.append({"step": step, "epoch": epochs * step / steps, "train_loss": float(loss), "learning_rate": rate})
    for epoch in range(1, epochs + 1):
        score = best * (1 - 0.5 * np.exp(-1.5 * epoch))
        rows.append({"step": steps * epoch // epochs, "epoch": float(epoch), f"validation_{headline}": float(score)})
    return rows


def made_up_cost(rank: int) -> dict[str, float]:
    """Return what a training of LoRA may have cost, by its rank, with what filled the memory."""
    return {
        "train_seconds": 400.0 + 20 * rank,
        "predictions_per_second": 800.0 - 10 * rank,
        "trainable_parameters": 78_000 * rank,
        "total_parameters": 22_713_216,
        "weight_bytes": 0.9e9,
        "gradient_bytes": 0.01e9 * rank,
        "optimizer_bytes": 0.02e9 * rank,
        "activation_bytes": 0.3e9,
        "peak_memory_bytes": 1.25e9 + 0.03e9 * rank,
    }


def lora_runs(
    make: Callable[..., Run] = tagging_run,
    *,
    ranks: tuple[int, ...] = (4, 8, 16),
    seeds: int = 3,
    headline: str = "span_f1",
    **fields: Any,
) -> list[Run]:
    """Return runs of LoRA that differ in rank and seed alone; the higher the rank, the better and the dearer.

    Args:
        make: ``tagging_run``, ``classification_run`` or ``generation_run``.
        ranks: one method each.
        seeds: runs of each method.
        headline: metric of the validation scores in the histories.
        fields: of every run, or arguments of ``make``.
    """
    runs = []
    for place, rank in enumerate(ranks):
        for seed in range(seeds):
            skill = 0.5 + 0.4 * place / len(ranks) + 0.015 * seed
            described: dict[str, Any] = {
                "model": {"name": "made-up/base"},
                "adapter": {"kind": "lora", "params": {"r": rank, "alpha": 2 * rank, "dropout": 0.1, "targets": "all"}},
                "training": {"learning_rate": 1e-3, "seed": seed},
                "cost": made_up_cost(rank),
                "history": made_up_history(headline, best=skill, seed=seed),
            }
            runs.append(make(f"lora-r{rank}-seed{seed}", skill=skill, seed=seed, **{**described, **fields}))
    return runs


def _run(
    name: str,
    task: str,
    metrics: tuple[str, ...],
    labels: tuple[str, ...],
    predictions: list[Prediction],
    seed: int,
    fields: dict[str, Any],
) -> Run:
    described: dict[str, Any] = {
        "metrics": metrics,
        "labels": labels,
        "seed": seed,
        "data": {"source": "made-up", "test_fingerprint": "f" * 64},
        "predictions": tuple(predictions),
        **fields,
    }
    return Run(name=name, task=task, **described)
