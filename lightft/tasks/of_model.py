"""Tell the task head of a model that is already in memory."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from lightft.errors import DataError, InvalidSettingError
from lightft.models import provenance_of
from lightft.records import Example
from lightft.tasks.head import TASKS, TaskHead

__all__ = ["head_of_model", "labels_of", "task_of_model"]


def head_of_model(model: PreTrainedModel, examples: Sequence[Example]) -> TaskHead:
    """Return the head a model in memory has, with the labels that its config or the data name."""
    task = task_of_model(model)
    if task == "causal-lm":
        return TASKS[task]()
    outputs = model.config.num_labels
    found = provenance_of(model)
    if found is not None and found.loader.labels is not None:
        return TASKS[task](labels=tuple(found.loader.labels))
    labels = labels_of(examples, task)
    named = tuple(model.config.id2label[index] for index in range(outputs))
    if task == "text-classification" and set(labels) <= set(named):
        return TASKS[task](labels=named)
    needed = len(labels) if task == "text-classification" else 2 * len(labels) + 1
    if needed != outputs:
        raise DataError(
            f"The data has {len(labels)} labels ({', '.join(labels)}), for which the model needs {needed} outputs; it has "
            f"{outputs}. Load it with ModelLoader(name, task={task!r}, labels={list(labels)!r})."
        )
    return TASKS[task](labels=labels)


def task_of_model(model: PreTrainedModel) -> str:
    """Return the name of the task whose head ``model`` has."""
    found = provenance_of(model)
    if found is not None:
        return found.loader.task
    name = type(model).__name__
    for ending, task in (
        ("ForSequenceClassification", "text-classification"),
        ("ForTokenClassification", "token-classification"),
    ):
        if name.endswith(ending):
            return task
    if model.get_output_embeddings() is not None:
        return "causal-lm"
    raise InvalidSettingError(f"A {name} has no task head. Load it with ModelLoader(name, task=...).")


def labels_of(examples: Sequence[Example], task: str) -> tuple[str, ...]:
    """Return the classes or entity types that occur in ``examples``, sorted."""
    if task == "causal-lm":
        return ()
    found: set[str] = set()
    for example in examples:
        if isinstance(example.target, str):
            found.add(example.target)
        else:
            found.update(span.label for span in example.target or ())
    return tuple(sorted(found))
