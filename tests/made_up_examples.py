"""Texts for runs that nobody trained: five-letter words, because those runs tag words of five letters."""

from __future__ import annotations

import numpy as np

from lightft.comparison import Comparison, compare_runs
from lightft.contracts.made_up_runs import classification_run, generation_run, made_up_history, tagging_run
from lightft.records import Example, Prediction, Run

_NAMES = {
    "LOC": "Paris Tokyo Delhi Milan Osaka Cairo Kabul Seoul Texas Wales".split(),
    "MISC": "Dutch Greek Irish Czech Asian Swiss Welsh Roman Latin Iraqi".split(),
    "ORG": "Intel Nokia Apple Shell Tesla Bayer Volvo Honda Bosch Ocado".split(),
    "PER": "Maria Peter James Helen Diana Oscar Laura Simon Clara Henry".split(),
}
_OTHERS = (
    "after about again began being below could daily doubt early every final first found given great group house "
    "known large later legal level local major meets might money month moved never north offer order other party "
    "place plans power press price quite ready right round seems shown since small south spoke state still story "
    "study table taken talks terms their there these think third those three today total trade under until urged "
    "using value visit votes water weeks where which while whole whose women works world would wrote years young"
).split()


def made_up_examples(run: Run) -> list[Example]:
    """Return the examples that a made-up run answers, with texts that fit its entities."""
    luck = np.random.default_rng(7)
    return [Example(one.id, _text(one, luck), one.gold, words=one.words) for one in run.predictions]


def _text(prediction: Prediction, luck: np.random.Generator) -> str:
    if isinstance(prediction.gold, str) or prediction.gold is None:
        words = luck.choice(_OTHERS, size=int(luck.integers(8, 60)))
        return f"{' '.join(words).capitalize()}."
    words = list(luck.choice(_OTHERS, size=len(prediction.words or ()), replace=False))
    for span in prediction.gold:
        first, last = span.start // 6, span.end // 6
        words[first : last + 1] = luck.choice(_NAMES[span.label], size=last + 1 - first, replace=False)
    return " ".join(words)


def made_up_cost(factor: float) -> dict[str, float]:
    """Return what a training may have cost."""
    return {
        "train_seconds": 552.0 * factor,
        "peak_memory_bytes": 1.2e9 * (0.6 + 0.4 * factor),
        "trainable_parameters": round(312_000 * factor),
        "total_parameters": 22_713_216,
        "adapter_bytes": 1_260_000 * factor,
        "predictions_per_second": 745.0 / (0.8 + 0.2 * factor),
    }


def made_up_methods(
    kind: str = "tagging", *, methods: int = 3, seeds: int = 3, examples: int = 300, resamples: int = 500
) -> Comparison:
    """Return a comparison of methods that differ in skill and cost, each with several seeds, with its texts.

    Args:
        kind: ``"tagging"``, ``"classes"`` or ``"texts"``.
        methods: how many; the last of several has one seed only.
        seeds: runs of each other method.
        examples: in the test set.
        resamples: of the test set.
    """
    make = {"tagging": tagging_run, "classes": classification_run, "texts": generation_run}[kind]
    names = ("head-only", "lora", "dora", "ia3", "prefix", "pissa", "vera", "loha", "lokr", "boft", "oft", "hra")
    runs = []
    for place in range(methods):
        for seed in range(1 if place == methods - 1 and methods > 1 else seeds):
            skill = (0.55, 0.78, 0.80, 0.70)[place % 4] + 0.01 * seed
            runs.append(
                make(
                    f"{names[place % len(names)]}-seed{seed}",
                    skill=skill,
                    examples=examples,
                    seed=seed,
                    cost=made_up_cost(0.3 + 0.8 * place),
                    history=made_up_history({"tagging": "span_f1", "classes": "accuracy"}.get(kind, "loss"), seed=seed),
                    model={"name": "made-up/base"},
                    adapter={"kind": names[place % len(names)], "params": {"r": 8}},
                    training={"epochs": 3, "learning_rate": 3e-4},
                    environment={"lightft": "0.1.0", "device": "made-up"},
                )
            )
    baseline = runs[0].name if methods > 4 else None
    return compare_runs(runs, baseline=baseline, resamples=resamples, examples=made_up_examples(runs[0]))
