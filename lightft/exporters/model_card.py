"""Model cards: what a trained model is, how well it does with which certainty, what it cost, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from lightft.comparison.words import COST_HEADINGS, cost_words
from lightft.exporters.card_facts import CardFacts, facts_of, is_hub_id, shown_name
from lightft.exporters.card_loading import loading_code
from lightft.exporters.licence import UNKNOWN, licence_of_base
from lightft.metrics import METRICS, build_metric
from lightft.metrics.tables import per_label_table
from lightft.records import Run
from lightft.reports.markdown import escaped
from lightft.wording import MISSING, score_words

__all__ = ["Form", "model_card", "write_model_card"]

Form = Literal["adapter", "checkpoint", "onnx", "gguf"]
"""What a card lies beside: a PEFT folder, a checkpoint of transformers, an ONNX or a GGUF file."""

_PIPELINE_TAGS = {
    "text-classification": "text-classification",
    "token-classification": "token-classification",
    "causal-lm": "text-generation",
}
_LIBRARIES = {"adapter": "peft", "checkpoint": "transformers", "onnx": "onnx", "gguf": "gguf"}
_RELATIONS = {"adapter": "adapter", "checkpoint": "finetune", "onnx": "finetune", "gguf": "quantized"}
_HUB_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "weighted_f1": "f1",
    "span_f1": "f1",
    "span_precision": "precision",
    "span_recall": "recall",
    "roc_auc": "roc_auc",
    "perplexity": "perplexity",
    "exact_match": "exact_match",
}
_DOES = {
    "text-classification": "It tells the class of a text: {labels}.",
    "token-classification": "It marks the entities of a text: {labels}.",
    "causal-lm": "It writes the answer to an instruction.",
}
_FILL_IN = "**Fill in before you share this:**"


def model_card(of: Run | str | Path, *, form: Form = "adapter") -> str:
    """Return the card of a model as Markdown with a front matter, as the Hugging Face Hub reads it.

    Numbers come from ``run.json`` beside the adapter; without a run the card says that no evaluation is recorded. What only
    the author can know, such as the intended use, is left to be filled in and marked so.

    Args:
        of: a run, its folder, or an adapter folder.
        form: what the card lies beside.

    Raises:
        AdapterError: the folder holds neither a run nor an adapter.
        DataError: the run is damaged.
    """
    facts = facts_of(of)
    licence = licence_of_base(str(facts.base.get("name")), facts.base.get("revision"))
    blocks = [
        f"# {escaped(facts.name)}",
        _summary(facts, form),
        *_loading(facts, form),
        *_intended_use(facts),
        *_evaluation(facts),
        *_data(facts),
        *_training(facts),
        *_licence(facts, licence),
    ]
    return f"---\n{_front_matter(facts, form, licence)}\n---\n\n" + "\n\n".join(blocks) + "\n"


def write_model_card(adapter: Path, folder: Path, form: Form) -> None:
    """Write the card of an adapter as ``README.md`` into ``folder``, in the place of the one that stands there."""
    (folder / "README.md").write_text(model_card(adapter, form=form), encoding="utf-8")


# --- front matter


def _front_matter(facts: CardFacts, form: Form, licence: Mapping[str, Any]) -> str:
    source = facts.run.data.get("source") if facts.run is not None else None
    data = ModelCardData(
        **licence,
        library_name=_LIBRARIES[form],
        base_model=facts.base["name"] if is_hub_id(facts.base.get("name")) else None,
        base_model_relation=_RELATIONS[form] if is_hub_id(facts.base.get("name")) else None,
        pipeline_tag=_PIPELINE_TAGS.get(facts.task),
        tags=list(dict.fromkeys(["lightft", facts.kind, *(["gguf"] if form == "gguf" else [])])),
        datasets=[str(source)] if is_hub_id(source) else None,
        model_name=facts.name if _eval_results(facts) else None,
        eval_results=_eval_results(facts) or None,
    )
    return data.to_yaml().strip()


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    run = facts.run
    if run is None:
        return []
    source = str(run.data.get("source"))
    return [
        EvalResult(
            task_type=_PIPELINE_TAGS.get(facts.task, facts.task),
            dataset_type=source if is_hub_id(source) else "custom",
            dataset_name=shown_name(source),
            dataset_split=run.data.get("tested_on"),
            dataset_args={"fingerprint": run.data.get("test_fingerprint")},
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=score["value"],
            metric_args={"interval_95": [score["low"], score["high"]]} if "low" in score else None,
        )
        for name, score in run.scores.items()
        # YAML has no number for what is not defined.
        if math.isfinite(score["value"])
    ]


# --- sections


def _summary(facts: CardFacts, form: Form) -> str:
    what = {"adapter": "An adapter", "checkpoint": "A model", "onnx": "An ONNX model", "gguf": "A GGUF model"}[form]
    how = f"trained with lightft as {escaped(repr(facts.kind))} on {_code(shown_name(facts.base.get('name')))}"
    does = _DOES.get(facts.task, "Its task is {task}.").format(
        labels=escaped(", ".join(facts.labels)) or "see its config", task=escaped(facts.task)
    )
    return f"{what}, {how}. {does}"


def _loading(facts: CardFacts, form: Form) -> list[str]:
    code = loading_code(facts.task, facts.labels, {**facts.base, "name": shown_name(facts.base.get("name"))}, form)
    blocks = [
        "## How to load it",
        "`folder` is where this card lies; from the Hub: `huggingface_hub.snapshot_download(ID)`.",
    ]
    for program, lines in code.items():
        blocks += [f"With {program}:", f"```python\n{lines}\n```"]
    if form == "gguf":
        blocks.append("With llama.cpp: `llama-cli -m model-F16.gguf`, by the name of the file beside this card.")
    if not is_hub_id(facts.base.get("name")) and form == "adapter":
        blocks.append("The base is no model of the Hub: put the place where you have it for its name.")
    return blocks


def _intended_use(facts: CardFacts) -> list[str]:
    return [
        "## Intended use and limits",
        f"{_FILL_IN} who this is for, on what texts it is to be used, and what must not be decided by it alone.",
        f"{_FILL_IN} languages, known failures, and whom they would hurt.",
        "What was measured below holds for texts drawn as the test set was. For others nothing is claimed. A model takes "
        "over the biases of its base and of its training data.",
    ]


def _evaluation(facts: CardFacts) -> list[str]:
    run = facts.run
    if run is None:
        return ["## Evaluation", "No evaluation is recorded: there is no run beside the adapter. Nothing is claimed."]
    tested = escaped(str(run.data.get("tested_on", "test")))
    blocks = [
        "## Evaluation",
        f"On the {len(run.predictions):,} examples of the {tested} split, one training (seed {run.seed}). The interval is "
        "where the score would plausibly lie on another test set of this size and kind (95 %, bootstrap over examples).",
        _table(["metric", "value", "95 % interval"], [_score_line(name, score) for name, score in run.scores.items()]),
    ]
    if run.data.get("tested_on") == "validation":
        blocks.append(
            "There was no test split. The validation split also chose the best epoch, so that new texts will score lower."
        )
    if facts.task != "causal-lm":
        blocks += _by_label(run)
    return blocks


def _score_line(name: str, score: Mapping[str, float]) -> list[str]:
    unit = build_metric(name).unit if name in METRICS else "fraction"
    value, low, high = (score_words(score.get(part), unit) for part in ("value", "low", "high"))
    return [escaped(name), value, f"{low} to {high}" if MISSING not in (low, high) else MISSING]


def _by_label(run: Run) -> list[str]:
    table = per_label_table(run.predictions, run.labels)
    if not table:
        return []
    lines = [
        [
            escaped(row.label),
            f"{row.support:,}",
            f"{row.predicted:,}",
            *(score_words(score) for score in (row.precision, row.recall, row.f1)),
        ]
        for row in table
    ]
    by = "entity type" if run.task == "token-classification" else "class"
    return [f"By {by}:", _table([by, "gold", "predicted", "precision", "recall", "F1"], lines)]


def _data(facts: CardFacts) -> list[str]:
    if facts.run is None:
        return ["## Data", f"{_FILL_IN} what it was trained on. No run is recorded beside the adapter."]
    data = facts.run.data
    rows = ", ".join(f"{split} {count:,}" for split, count in data.get("rows", {}).items())
    facts_told = [
        f"Source: {_code(shown_name(data.get('source')))}",
        f"Rows: {rows or MISSING}",
        f"Fingerprint of all splits: {_code(data.get('fingerprint'))}; of the one that was scored: "
        f"{_code(data.get('test_fingerprint'))}",
        *(escaped(str(data[key])) for key in ("validation_from", "test_from") if key in data),
    ]
    return ["## Data", _bullets(facts_told), f"{_FILL_IN} who wrote and labelled the texts, and under which licence."]


def _training(facts: CardFacts) -> list[str]:
    params = ", ".join(f"{name}={value!r}" for name, value in facts.params.items())
    told = [f"Adapter: {escaped(facts.kind)}{f' ({escaped(params)})' if params else ''}"]
    if facts.base.get("dtype"):
        held = ", ".join(str(facts.base[key]) for key in ("quantization", "dtype") if facts.base.get(key))
        told.append(f"Base held in: {escaped(held)}")
    if facts.run is not None:
        shown = ("epochs", "best_epoch", "steps", "batch_size", "learning_rate")
        settings = [f"{name} {facts.run.training[name]}" for name in shown if name in facts.run.training]
        told.append(f"Settings: {escaped(', '.join(settings))}; all of them stand in run.json")
        told += [f"{COST_HEADINGS[key].capitalize()}: {words}" for key, words in cost_words(facts.run.cost).items()]
        told.append(f"Device: {escaped(str(facts.run.environment.get('device', MISSING)))}")
    versions = ", ".join(f"{package} {number}" for package, number in facts.versions.items())
    if versions:
        told.append(f"Versions: {escaped(versions)}")
    return ["## Training and its cost", _bullets(told)]


def _licence(facts: CardFacts, licence: Mapping[str, Any]) -> list[str]:
    base = _code(shown_name(facts.base.get("name")))
    if licence["license"] == UNKNOWN:
        words = f"unknown: look it up. {base} states none that could be read, and its licence binds what is made of it."
    else:
        stated = licence.get("license_name") or licence["license"]
        words = (
            f"{base} states {_code(stated)}, which binds what is made of it. The licence of the data may ask for more."
        )
    return ["## Licence", f"Licence of the base: {words}"]


# --- words


def _code(text: Any) -> str:
    """Return text in type of fixed width; a backtick in it cannot end it."""
    return f"<code>{escaped(str(text))}</code>"


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
