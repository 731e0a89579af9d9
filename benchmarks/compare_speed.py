"""What it costs to compare 20 taggers on 37,648 sentences: every interval and every p-value, and the same by a seqeval loop.

The gold spans are those of Few-NERD, repeated up to the size of its full test set. The taggers are simulated: each loses,
moves and renames spans with probabilities of its own, and invents some. Nothing is trained, for the cost of resampling
depends on the counts alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import time
from collections.abc import Sequence
from itertools import combinations, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import seqeval.metrics
from reporting import describe_machine, write_result
from seqeval.scheme import IOB2

from lightft.metrics import build_metric
from lightft.metrics.metric import Metric, count_rows
from lightft.records import Prediction, Span
from lightft.significance import (
    bca_from_resamples,
    holm_adjusted,
    jackknife_scores,
    joint_randomization,
    resampled_scores,
)
from lightft.spans import tags_to_word_spans

SOURCE = "few_nerd_inter_train36_part"
LEVEL = 0.95

WordSpan = tuple[int, int, str]
Sentence = tuple[int, list[WordSpan]]  # words, spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {SOURCE}/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sentences", type=int, default=37_648)
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap, and trials of randomization")
    parser.add_argument("--loop-calls", type=int, default=3, help="calls of seqeval that its time is estimated from")
    asked = parser.parse_args()

    sentences = _sentences(asked.data / SOURCE, asked.sentences)
    labels = sorted({label for _, spans in sentences for _, _, label in spans})
    metric = build_metric("span_f1", labels)
    counts, counting_seconds = [], 0.0
    for run in range(asked.runs):
        predictions = _predictions(sentences, labels, run)
        started = time.perf_counter()
        counts.append(count_rows(predictions, metric))
        counting_seconds += time.perf_counter() - started
    result = _compared(counts, metric, asked.resamples)
    calls = [_seqeval_call(sentences, labels, counts, metric, number) for number in range(asked.loop_calls)]
    call_seconds = float(np.median([seconds for seconds, _ in calls]))
    pairs = asked.runs * (asked.runs - 1) // 2
    bootstrap_loop = asked.runs * asked.resamples * call_seconds
    randomization_loop = 2 * pairs * asked.resamples * call_seconds
    seconds = result["bootstrap_seconds"] + result["randomization_seconds"]
    write_result(
        asked.out,
        {
            "seconds": round(seconds, 2),
            "loop_seconds_estimated": round(bootstrap_loop + randomization_loop),
            "ratio": round((bootstrap_loop + randomization_loop) / (seconds + counting_seconds)),
            "ratio_of_bootstrap_alone": round(bootstrap_loop / (result["bootstrap_seconds"] + counting_seconds)),
            "counting_seconds": round(counting_seconds, 2),
            **result,
            "seqeval_call_seconds": round(call_seconds, 3),
            "bootstrap_loop_seconds_estimated": round(bootstrap_loop),
            "randomization_loop_seconds_estimated": round(randomization_loop),
            "largest_disagreement_with_seqeval": max(disagreement for _, disagreement in calls),
            "runs": asked.runs,
            "pairs": pairs,
            "sentences": asked.sentences,
            "entity_types": len(labels),
            "resamples": asked.resamples,
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **describe_machine("benchmarks/compare_speed.py", asked),
        },
    )


def _compared(counts: Sequence[np.ndarray], metric: Metric, resamples: int) -> dict[str, Any]:
    """Compute the BCa intervals of all runs and pairs and the p-values of all pairs; return how long they took."""
    pairs = list(combinations(range(len(counts)), 2))
    processor_started, started = time.process_time(), time.perf_counter()
    scores = resampled_scores(counts, metric.score, resamples=resamples, rng=np.random.default_rng(0))
    observed = [float(metric.score(rows.sum(axis=0))) for rows in counts]
    jackknife = [jackknife_scores(rows, metric.score) for rows in counts]
    of_runs = [bca_from_resamples(*parts, LEVEL) for parts in zip(observed, scores, jackknife, strict=True)]
    of_pairs = [
        bca_from_resamples(observed[a] - observed[b], scores[a] - scores[b], jackknife[a] - jackknife[b], LEVEL)
        for a, b in pairs
    ]
    between = time.perf_counter()
    p_values = joint_randomization(counts, metric.score, pairs, trials=resamples, rng=np.random.default_rng(0))
    adjusted = holm_adjusted(p_values.tolist())
    ended, processor_ended = time.perf_counter(), time.process_time()
    return {
        "bootstrap_seconds": round(between - started, 2),
        "randomization_seconds": round(ended - between, 2),
        # On a machine that is busy with other things, the seconds above are more than half of these.
        "processor_seconds": round(processor_ended - processor_started, 2),
        "lowest_score": round(min(observed), 4),
        "highest_score": round(max(observed), 4),
        "mean_width_of_run_intervals": round(float(np.mean([interval.high - interval.low for interval in of_runs])), 5),
        "pairs_whose_interval_has_no_zero": sum(interval.low > 0 or interval.high < 0 for interval in of_pairs),
        "pairs_significant_after_holm": sum(p < 1 - LEVEL for p in adjusted),
    }


def _seqeval_call(
    sentences: Sequence[Sentence], labels: Sequence[str], counts: Sequence[np.ndarray], metric: Metric, number: int
) -> tuple[float, float]:
    """Score one resample of a run by seqeval; return the seconds and how far its score is from that of the counts."""
    run = number % len(counts)
    drawn = np.random.default_rng([1, number]).integers(0, len(sentences), len(sentences))
    gold = [_tags(*sentence) for sentence in sentences]
    answers = [
        _tags(words, spans) for (words, _), spans in zip(sentences, _answers(sentences, labels, run), strict=True)
    ]
    truth, predicted = [gold[place] for place in drawn], [answers[place] for place in drawn]
    # It uses one thread; processor time does not grow with what else the machine does.
    started = time.process_time()
    score = seqeval.metrics.f1_score(truth, predicted, mode="strict", scheme=IOB2)
    seconds = time.process_time() - started
    return seconds, abs(float(metric.score(counts[run][drawn].sum(axis=0))) - score)


def _sentences(folder: Path, wanted: int) -> list[Sentence]:
    found: list[Sentence] = []
    for split in ("test", "train"):
        with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            tags = [json.loads(line)["ner_tags"] for line in lines]
        found += [(len(row), tags_to_word_spans(row)) for row in tags]
    return list(islice(cycle(found), wanted))


def _answers(sentences: Sequence[Sentence], labels: Sequence[str], run: int) -> list[list[WordSpan]]:
    """Return what a simulated tagger makes of every sentence; later runs are a little better."""
    # How hard a span is, is the same for all runs, so that they tend to fail on the same sentences.
    ease = np.random.default_rng(2).beta(4, 1.5, sum(len(spans) for _, spans in sentences))
    rng = np.random.default_rng([3, run])
    found = rng.random(len(ease)) < ease + 0.002 * run
    other_label = rng.integers(0, len(labels), len(ease))
    kind_of_error = rng.integers(0, 3, len(ease))
    invented = rng.random(len(sentences)) < 0.15
    answers, place = [], 0
    for (_, spans), invents in zip(sentences, invented, strict=True):
        row: list[WordSpan] = []
        for start, end, label in spans:
            if found[place]:
                row.append((start, end, label))
            elif kind_of_error[place] == 0:
                row.append((start, end, labels[other_label[place]]))
            elif kind_of_error[place] == 1 and end - start > 1:
                row.append((start, end - 1, label))
            place += 1
        if invents and all(start > 0 for start, _, _ in spans):
            row.insert(0, (0, 1, labels[run % len(labels)]))
        answers.append(row)
    return answers


def _predictions(sentences: Sequence[Sentence], labels: Sequence[str], run: int) -> list[Prediction]:
    return [
        Prediction(str(number), gold=_spans(gold), predicted=_spans(answer))
        for number, ((_, gold), answer) in enumerate(zip(sentences, _answers(sentences, labels, run), strict=True))
    ]


def _spans(word_spans: Sequence[WordSpan]) -> tuple[Span, ...]:
    """Return character spans of a text whose words are three letters and a space."""
    return tuple(Span(4 * start, 4 * end - 1, label) for start, end, label in word_spans)


def _tags(words: int, spans: Sequence[WordSpan]) -> list[str]:
    tags = ["O"] * words
    for start, end, label in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


if __name__ == "__main__":
    main()
