"""How a model card says to load what it lies beside: with lightft, and without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightft.spans import bio_labels

__all__ = ["loading_code"]

_AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "causal-lm": "AutoModelForCausalLM",
}
_PIPELINES = {
    "text-classification": "text-classification",
    "token-classification": "ner",
    "causal-lm": "text-generation",
}
_CALLS = {
    "text-classification": 'print(predictor("A text of the kind it was trained on."))',
    "token-classification": 'print(predictor("A text of the kind it was trained on."))',
    "causal-lm": 'print(predictor.generate("A question of the kind it was trained on."))',
}
_QUANTIZED = {
    "nf4": "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)",
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
}


def loading_code(task: str, labels: Sequence[str], base: Mapping[str, Any], form: str) -> dict[str, str]:
    """Return Python code by what it loads with, for a built-in task; ``folder`` in it is what the reader fills in.

    Args:
        task: registered name of the task.
        labels: the classes or entity types, in the model's order.
        base: ``name``, ``revision`` and ``quantization`` of the base model.
        form: ``"adapter"``, ``"checkpoint"``, ``"onnx"`` or ``"gguf"``.
    """
    opening = ["import lightft", "", "predictor = lightft.load(folder)"]
    if form == "onnx":
        opening = ["from lightft.portable import load_onnx", "", "predictor = load_onnx(folder)"]
    with_lightft = [
        *opening,
        *([_CALLS[task]] if task in _CALLS else []),
    ]
    code = {"lightft": "\n".join(with_lightft)}
    if task not in _AUTO_CLASSES:
        return code
    if form == "adapter":
        code["transformers and peft"] = "\n".join(_with_peft(task, labels, base))
    elif form == "checkpoint":
        code["transformers"] = "\n".join(_with_pipeline(task))
    return code


def _with_pipeline(task: str) -> list[str]:
    grouped = ', aggregation_strategy="simple"' if task == "token-classification" else ""
    return [
        "from transformers import pipeline",
        "",
        f'answer = pipeline("{_PIPELINES[task]}", model=folder{grouped})',
        'print(answer("A text of the kind it was trained on."))',
    ]


def _with_peft(task: str, labels: Sequence[str], base: Mapping[str, Any]) -> list[str]:
    auto, arguments = _AUTO_CLASSES[task], [repr(base["name"])]
    if base.get("revision"):
        arguments.append(f"revision={base['revision']!r}")
    before: list[str] = []
    if task != "causal-lm":
        outputs = bio_labels(labels) if task == "token-classification" else tuple(labels)
        before = [f"id2label = {dict(enumerate(outputs))!r}"]
        arguments += ["num_labels=len(id2label)", "id2label=id2label"]
    imports = [f"from transformers import {auto}, AutoTokenizer"]
    if base.get("quantization") in _QUANTIZED:
        imports = [f"from transformers import {auto}, AutoTokenizer, BitsAndBytesConfig"]
        before.append(f"quantized = {_QUANTIZED[base['quantization']]}")
        arguments.append("quantization_config=quantized")
    return [
        "from peft import PeftModel",
        *imports,
        "",
        *before,
        f"base = {auto}.from_pretrained({', '.join(arguments)})",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
