"""What a tagger's answers and speed are in each form it can be exported to, against the adapter as it was trained.

A MiniLM LoRA tagger of CoNLL-2003 tags test sentences of random choice, on one thread. The forms take turns, several times.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from reporting import describe_machine, write_result
from serve import train_tagger

import lightft
from lightft import Example
from lightft.inference import Predictor
from lightft.metrics import score_predictions
from lightft.portable import OnnxPredictor, load_onnx
from lightft.records import Prediction

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "merged": ("merged", {}),
    "merged_bfloat16": ("merged", {"dtype": "bfloat16"}),
    "onnx": ("onnx", {}),
    "onnx_int8_row": ("onnx-int8", {"rounded_by": "row"}),
    "onnx_int8_block": ("onnx-int8", {"rounded_by": "block"}),
}
PROBE_ROWS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="a tagger; by default one is trained, which takes minutes")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = lightft.load_data(asked.data / "conll2003")
    rows = random.Random(0).sample(data.test, asked.sentences)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        adapter = asked.adapter or train_tagger(asked.data, work / "tagger" / "adapter")
        probe = [example.text for example in data.validation[:PROBE_ROWS]]
        result = _compare(adapter, work, rows, probe, asked.repeats)
    asked.adapter = "ADAPTER" if asked.adapter else None
    write_result(asked.out, {**result, **describe_machine("benchmarks/export_forms.py", asked)})


def _compare(adapter: Path, work: Path, rows: Sequence[Example], probe: Sequence[str], repeats: int) -> dict[str, Any]:
    answers: dict[str, Predictor | OnnxPredictor] = {"adapter": lightft.load(adapter, device="cpu")}
    result: dict[str, Any] = {"sentences": len(rows), "probe_rows": len(probe)}
    for name, (form, options) in FORMS.items():
        given = {**options, "probe": probe} if form.startswith("onnx") else options
        out = lightft.export(adapter, to=form, out=work / name, **given)
        answers[name] = load_onnx(out, threads=1) if form.startswith("onnx") else lightft.load(out, device="cpu")
        result[f"{name}_megabytes"] = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    texts = [row.text for row in rows]
    found = {name: answer.predict(rows) for name, answer in answers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(repeats):
        for name, answer in answers.items():
            started = time.perf_counter()
            answer(texts)
            seconds[name].append(time.perf_counter() - started)
    for name, predictions in found.items():
        ratios = [one / other for one, other in zip(seconds["adapter"], seconds[name], strict=True)]
        result |= {
            f"{name}_f1": score_predictions(predictions, ["span_f1"])["span_f1"],
            f"{name}_sentences_alike": sum(map(_same, predictions, found["adapter"])) / len(rows),
            f"{name}_sentences_per_second": len(rows) / statistics.median(seconds[name]),
            f"{name}_speedup": statistics.median(ratios),
        }
    return result


def _same(one: Prediction, other: Prediction) -> bool:
    # A span is compared without its score.
    return one.predicted == other.predicted


if __name__ == "__main__":
    main()
