"""Use a trained adapter or any checkpoint: one text, a list, or a stream."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.checkpoint import MANIFEST_NAME, Manifest, load_adapter, tokenizer_digest
from lightft.errors import AdapterError, InvalidSettingError
from lightft.models import ModelLoader, provenance_of
from lightft.models.quantization import dequantized, guard_cpu_kernels
from lightft.portable.description import is_onnx_folder
from lightft.records import Answer, Example, Message, Prediction
from lightft.spans import bio_labels, bio_tags_of_outputs, split_tag
from lightft.tasks import TASKS, CausalLM, TaskHead, TokenClassification
from lightft.tasks.head import max_input_length

__all__ = ["Predictor", "load", "load_base"]

_TEXTS_PER_CHUNK = 512
_TASK_OF_TYPE = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification", "CAUSAL_LM": "causal-lm"}
_TASK_OF_ARCHITECTURE = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}


@dataclass(frozen=True)
class Predictor:
    """A model that answers texts: spans (token classification), a Classified (text classification), or a written text.

    Attributes:
        model: with its adapter, in eval mode.
        tokenizer: the model's.
        head: the task.
        max_length: tokens the model reads at once.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: TaskHead
    max_length: int

    def __call__(self, texts: str | Iterable[str]) -> Any:
        """Answer one text, a list of texts, or a stream of any length, which is read as the answers are.

        Returns:
            One answer for a string, a list for a list, an iterator for any other iterable. An answer is a list of Span
            (token classification), a Classified (text classification) or a string (causal LM).
        """
        if isinstance(texts, str):
            return self._answer([texts])[0]
        return self._answer(texts) if isinstance(texts, Sequence) else self._stream(texts)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, in order, with the example's gold answer beside it."""
        return self.head.predict(self.model, self.tokenizer, examples, max_length=self.max_length)

    def generate(self, prompt: str | Sequence[Message], max_new_tokens: int = 200, **options: Any) -> str:
        """Return what a causal language model answers to a prompt or a conversation.

        Args:
            prompt: the user's message, or all messages so far.
            max_new_tokens: where to stop at the latest.
            options: of ``model.generate``; the default is greedy, so that an answer repeats.

        Raises:
            InvalidSettingError: the model is no causal language model.
        """
        if not isinstance(self.head, CausalLM):
            raise InvalidSettingError(f"A {self.head.name} model writes no text. Call it with a text instead.")
        messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        return self.head.generate(self.model, self.tokenizer, [messages], max_new_tokens=max_new_tokens, **options)[0]

    def _stream(self, texts: Iterable[str]) -> Iterator[Answer]:
        remaining = iter(texts)
        while chunk := list(islice(remaining, _TEXTS_PER_CHUNK)):
            yield from self._answer(chunk)

    def _answer(self, texts: Sequence[str]) -> list[Answer]:
        if isinstance(self.head, CausalLM):
            prompts = [[Message("user", text)] for text in texts]
            return list(self.head.generate(self.model, self.tokenizer, prompts, max_new_tokens=200))
        predictions = self.predict([Example(str(number), text) for number, text in enumerate(texts)])
        return [prediction.answer for prediction in predictions]


def load(
    path: str | Path,
    *,
    base: str | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    dequantize: bool = False,
) -> Predictor:
    """Open what was trained.

    That is an adapter folder of ours, a plain PEFT folder, or any classification, token-classification or causal
    checkpoint.

    Args:
        path: the folder; for a checkpoint also a Hub id or ``package:NAME/path``.
        base: where the base model is now, when it moved since training.
        labels: the classes or entity types, in the model's order, where the folder does not name them.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        dequantize: hold a 4-bit base as the float32 weights that its bits stand for: the same answers up to rounding,
            faster on a CPU, in eight times the memory.

    Raises:
        AdapterError: the base is another than the adapter was trained on, or tensors are missing or unexpected.
        ModelLoadError: the base model cannot be found.
    """
    folder = Path(path)
    if is_onnx_folder(folder):
        raise AdapterError(
            f"{folder} is an ONNX folder, which needs no torch. Open it with lightft.portable.load_onnx({str(folder)!r})."
        )
    if (folder / MANIFEST_NAME).is_file():
        return _open_described(folder, base, device, dequantize=dequantize)
    if (folder / "adapter_config.json").is_file():
        return _open_plain_peft(folder, base, labels, device)
    return _open_checkpoint(str(path), labels, device)


def load_base(
    manifest: Manifest, folder: Path, *, base: str | None = None, device: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskHead]:
    """Load the model that ``manifest`` describes, without its adapter, as it was in training.

    Args:
        manifest: of ``folder``.
        folder: what a trainer wrote; a model that was trained whole is read from there.
        base: where the base model is now, when it moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …

    Raises:
        AdapterError: the base or its tokenizer is another than the adapter was trained on.
        ModelLoadError: the base model cannot be found.
    """
    head = TASKS[manifest.task](labels=manifest.labels, **_tuples(manifest.head))
    is_adapter = (folder / "adapter_config.json").is_file()
    recorded = manifest.base
    loader = ModelLoader(
        (base or recorded["name"]) if is_adapter else str(folder),
        task=manifest.task,
        labels=manifest.labels or None,
        revision=None if base else recorded["revision"],
        dtype=recorded["dtype"],
        # A merged model that was quantised again holds its bits as they are, and its config says so.
        quantization=recorded["quantization"] if is_adapter else None,
        device=device,
        seed=recorded["seed"],
    )
    model, tokenizer = head.load_model(loader)
    if is_adapter:
        _refuse_other_base(model, manifest, folder)
        _refuse_other_tokenizer(tokenizer, manifest, folder)
    elif recorded["quantization"] == "nf4":
        guard_cpu_kernels(model)
    return model, tokenizer, head


def _open_described(folder: Path, base: str | None, device: str, *, dequantize: bool) -> Predictor:
    manifest = Manifest.read(folder)
    model, tokenizer, head = load_base(manifest, folder, base=base, device=device)
    if dequantize and manifest.base["quantization"] is not None:
        model = dequantized(model, manifest.base["quantization"])
    if (folder / "adapter_config.json").is_file():
        model = load_adapter(model, folder)
    return Predictor(model.eval(), tokenizer, head, manifest.max_length)


def _open_plain_peft(folder: Path, base: str | None, labels: Sequence[str] | None, device: str) -> Predictor:
    config = PeftConfig.from_pretrained(str(folder))
    if config.task_type not in _TASK_OF_TYPE:
        raise AdapterError(
            f"The adapter in {folder} has task_type {config.task_type!r}; lightft opens {', '.join(_TASK_OF_TYPE)}. "
            "Set it in adapter_config.json."
        )
    task = _TASK_OF_TYPE[str(config.task_type)]
    if labels is None and task != "causal-lm":
        raise AdapterError(
            f"{folder} is a plain PEFT folder, which does not name its labels. "
            f"Give them in the model's order: lightft.load({str(folder)!r}, labels=[...])."
        )
    name = base or config.base_model_name_or_path
    if name is None:
        raise AdapterError(f"{folder} does not name its base model. Give it: lightft.load(..., base='owner/name').")
    head = TASKS[task](labels=tuple(labels or ()))
    loader = ModelLoader(
        name,
        task=task,
        labels=tuple(labels) if labels else None,
        revision=config.revision if base is None else None,
        dtype="float32",
        device=device,
    )
    model, tokenizer = head.load_model(loader)
    return _predictor(load_adapter(model, folder), tokenizer, head)


def _open_checkpoint(name: str, labels: Sequence[str] | None, device: str) -> Predictor:
    task = _task_of_checkpoint(name)
    # A classifier keeps the precision it was published in; a language model is held in what the machine multiplies best.
    loader = ModelLoader(name, task=task, dtype="auto" if task == "causal-lm" else "float32", device=device)
    model, tokenizer = loader.load_model()
    found = provenance_of(model)
    if found is not None and found.new_parameters and task != "causal-lm":
        raise AdapterError(
            f"{name!r} has no trained head: {', '.join(sorted(found.new_parameters)[:3])} are not in the checkpoint. "
            "Train it first with LoRATrainer."
        )
    head = _head_of_checkpoint(name, task, model, labels)
    return _predictor(model, tokenizer, head)


def _head_of_checkpoint(name: str, task: str, model: PreTrainedModel, labels: Sequence[str] | None) -> TaskHead:
    if task == "causal-lm":
        return CausalLM()
    outputs = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    unnamed = all(output == f"LABEL_{index}" for index, output in enumerate(outputs))
    if unnamed and labels is None:
        raise AdapterError(
            f"{name!r} names its {len(outputs)} outputs LABEL_0 to LABEL_{len(outputs) - 1}. "
            f"Give their names in that order: lightft.load({name!r}, labels=[...]). For a command such as lightft serve, "
            'write them into its config.json: "id2label": {"0": ..., "1": ...}.'
        )
    if task == "text-classification":
        if labels is not None and len(labels) != len(outputs):
            raise InvalidSettingError(
                f"The model has {len(outputs)} outputs. Give as many labels; {len(labels)} labels were given."
            )
        return TASKS[task](labels=tuple(labels or outputs))
    tags = bio_tags_of_outputs(outputs if labels is None else _fitting(tuple(labels), len(outputs)))
    types = tuple(dict.fromkeys(split_tag(tag)[1] for tag in tags if tag != "O"))
    return TokenClassification(types, tags=tags)


def _fitting(labels: tuple[str, ...], outputs: int) -> tuple[str, ...]:
    """Return tags: the BIO tags of ``labels`` if they are types, as given if they are the tags themselves."""
    if len(labels) == outputs:
        return labels
    if len(bio_labels(labels)) == outputs:
        return bio_labels(labels)
    raise InvalidSettingError(
        f"The model has {outputs} outputs. Give as many tags{f', or {outputs // 2} entity types' if outputs % 2 else ''}; "
        f"{len(labels)} labels were given."
    )


def _task_of_checkpoint(name: str) -> str:
    from lightft.models import find_model

    source = find_model(name)
    if source.gguf_file is not None:
        return "causal-lm"
    if source.is_hub:
        from huggingface_hub import hf_hub_download

        config_path = Path(hf_hub_download(source.location, "config.json", revision=source.revision))
    else:
        config_path = Path(source.location) / "config.json"
    architectures = json.loads(config_path.read_text(encoding="utf-8")).get("architectures") or ["none"]
    for ending, task in _TASK_OF_ARCHITECTURE.items():
        if architectures[0].endswith(ending):
            return task
    raise AdapterError(
        f"{name!r} is a {architectures[0]}, which has no classification, token-classification or language-model head. "
        "Train one with LoRATrainer, or name an adapter folder."
    )


def _refuse_other_base(model: PreTrainedModel, manifest: Manifest, folder: Path) -> None:
    found = provenance_of(model)
    recorded = manifest.base["digest"]
    if found is None or recorded is None:
        return
    digest = found.source.digest()
    if digest != recorded and digest.partition(":")[0] == recorded.partition(":")[0]:
        raise AdapterError(
            f"The adapter in {folder} was trained on {manifest.base['name']!r} with the weights {recorded[:19]}…, but "
            f"{found.source.location} holds {digest[:19]}…. Use the base it was trained on: lightft.load(path, base=...)."
        )


def _refuse_other_tokenizer(tokenizer: PreTrainedTokenizerBase, manifest: Manifest, folder: Path) -> None:
    if tokenizer_digest(tokenizer) != manifest.tokenizer_digest:
        raise AdapterError(
            f"The tokenizer of {manifest.base['name']!r} is not the one the adapter in {folder} was trained with. "
            "Use the base model's revision of that time."
        )


def _predictor(model: Any, tokenizer: PreTrainedTokenizerBase, head: TaskHead) -> Predictor:
    if isinstance(head, CausalLM) and tokenizer.eos_token_id is None:
        warnings.warn(
            f"The tokenizer of {model.name_or_path!r} has no end token, so that answers may go on to max_new_tokens. Set "
            "eos_token in the model's tokenizer_config.json.",
            stacklevel=4,
        )
    return Predictor(model.eval(), tokenizer, head, max_input_length(model, tokenizer))


def _tuples(settings: Any) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
