"""ModelLoader: a base model and its tokenizer, from anywhere, in the precision that suits the machine."""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import InvalidSettingError, ModelLoadError, suggest
from lightft.models.padding import move_padding_before_text
from lightft.models.precision import compute_device, compute_dtype
from lightft.models.quantization import guard_cpu_kernels, keep_int8_scales, quantization_config
from lightft.models.quiet import quiet_transformers
from lightft.models.sources import ModelSource, cache_folder, find_model
from lightft.models.structure import head_modules, keep_head_in_float32
from lightft.spans import bio_labels

if TYPE_CHECKING:
    from lightft.records import Example

__all__ = ["ModelLoader", "Provenance", "ensure_padding", "provenance_of"]

_AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "causal-lm": "AutoModelForCausalLM",
}
_TASK_OF_TYPE = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification", "CAUSAL_LM": "causal-lm"}


@dataclass(frozen=True)
class Provenance:
    """How a model in memory came about: what an adapter trained on it must record.

    Attributes:
        loader: the loader that loaded it.
        source: where the files were found.
        dtype: of the frozen weights, e.g. ``"bfloat16"``.
        new_parameters: parameters the checkpoint did not contain.
    """

    loader: ModelLoader
    source: ModelSource
    dtype: str
    new_parameters: frozenset[str]


_PROVENANCE: weakref.WeakKeyDictionary[nn.Module, Provenance] = weakref.WeakKeyDictionary()


def provenance_of(model: nn.Module) -> Provenance | None:
    """Return how ``model`` was loaded; None when no ModelLoader loaded it."""
    return _PROVENANCE.get(model)


@dataclass(frozen=True)
class ModelLoader:
    """Loads a base model with the head a task needs.

    Attributes:
        name: a Hub id, a folder, a ``.gguf`` file or ``package:NAME/path``.
        task: ``"text-classification"``, ``"token-classification"``, ``"causal-lm"`` or a registered task.
        labels: the classes, or the entity types (not BIO tags). None takes them from the checkpoint or the data.
        revision: commit, tag or branch of a Hub model; resolved to a commit, which adapters record.
        dtype: of the frozen base: ``"auto"`` (bfloat16 where the processor multiplies it natively, else float32),
            ``"float32"``, ``"bfloat16"`` or ``"float16"``. The head is always held in float32.
        quantization: None, ``"nf4"`` or ``"int8"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        seed: seeds the weights the checkpoint does not contain.
    """

    name: str
    task: str = "text-classification"
    labels: Sequence[str] | None = None
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            repeated = sorted({label for label in self.labels if list(self.labels).count(label) > 1})
            if repeated:
                raise InvalidSettingError(f"The labels {repeated} are given more than once. Name each label once.")
        object.__setattr__(self, "name", str(self.name))

    def replace(self, **changes: Any) -> ModelLoader:
        """Return a loader with some fields changed."""
        return dataclasses.replace(self, **changes)

    def outputs(self) -> tuple[str, ...] | None:
        """Return what the head's outputs stand for: classes, or BIO tags; None when the labels are not known."""
        if self.labels is None or self.task == "causal-lm":
            return None
        return bio_labels(self.labels) if self.task == "token-classification" else tuple(self.labels)

    def load_model(self, auto_class: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the model, in eval mode on its device, and its tokenizer.

        Args:
            auto_class: name of a transformers auto class; needed only for tasks beyond the three built in.

        Raises:
            ModelLoadError: the model cannot be found or opened.
        """
        source = _as_checkpoint(find_model(self.name, self.revision), self.dtype)
        tokenizer = _load_tokenizer(source)
        device = compute_device(self.device)
        dtype = compute_dtype(self.dtype, device)
        loading = self._loading_arguments(source)
        auto = getattr(transformers, auto_class or self._auto_class())

        if self.quantization is not None:
            # The head must be known before the weights are read. Loading onto the meta device reads no weights and
            # still tells which parameters the checkpoint lacks.
            sketch, info = _from_pretrained(auto, source, {**loading, "device_map": "meta"})
            skip = _never_quantized(sketch, info["missing_keys"])
            loading |= {
                "quantization_config": quantization_config(self.quantization, compute_dtype=dtype, skip=skip),
                "device_map": {"": device},
            }
        transformers.set_seed(self.seed)
        model, info = _from_pretrained(auto, source, {**loading, "dtype": dtype})
        if self.quantization == "nf4":
            guard_cpu_kernels(model)
        elif self.quantization == "int8":
            keep_int8_scales(model)
        elif self.quantization is None:
            model.to(device)
        _hold_base_in(model, dtype)
        new_parameters = frozenset(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
        keep_head_in_float32(model, head_modules(model, new_parameters))
        ensure_padding(model, tokenizer, self.task)
        move_padding_before_text(model)
        _PROVENANCE[model] = Provenance(self, source, str(dtype).removeprefix("torch."), new_parameters)
        return model.eval(), tokenizer

    def sketch(self, task_type: str) -> PreTrainedModel:
        """Return the model with its head but without weights, on the meta device: enough to see what fits it.

        Args:
            task_type: a ``peft.TaskType`` value, which names the head.

        Raises:
            ModelLoadError: the model cannot be found, or has no such head.
        """
        source = _as_checkpoint(find_model(self.name, self.revision), self.dtype)
        auto = getattr(transformers, _AUTO_CLASSES[_TASK_OF_TYPE.get(task_type, self.task)])
        try:
            config = transformers.AutoConfig.from_pretrained(source.location, **self._loading_arguments(source))
            with torch.device("meta"), quiet_transformers():
                sketch: PreTrainedModel = auto.from_config(config)
        except (OSError, ValueError, KeyError) as cause:
            raise _cannot_open(source, auto, cause) from cause
        return sketch

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer alone."""
        return _load_tokenizer(_as_checkpoint(find_model(self.name, self.revision), self.dtype))

    def load_sst2_dataset(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Return the training and validation sentences of SST-2 (binary sentiment, GLUE) from the Hub."""
        from lightft.data import load_data

        data = load_data("sst2")
        return data.train, data.validation

    def _auto_class(self) -> str:
        if self.task not in _AUTO_CLASSES:
            raise InvalidSettingError(
                f"No built-in task named {self.task!r}. {suggest(self.task, _AUTO_CLASSES)} "
                "A task of another package is loaded through its head."
            )
        return _AUTO_CLASSES[self.task]

    def _loading_arguments(self, source: ModelSource) -> dict[str, Any]:
        arguments: dict[str, Any] = {"revision": source.revision} if source.is_hub else {}
        outputs = self.outputs()
        if outputs is not None:
            arguments |= {
                "id2label": dict(enumerate(outputs)),
                "label2id": {label: index for index, label in enumerate(outputs)},
                "num_labels": len(outputs),
                # A checkpoint of another task may hold a head of another size: it is replaced, and counted as new.
                "ignore_mismatched_sizes": True,
            }
        return arguments


def _from_pretrained(
    auto: Any, source: ModelSource, arguments: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        with quiet_transformers():
            model, info = auto.from_pretrained(source.location, output_loading_info=True, **arguments)
    except (OSError, ValueError, KeyError) as cause:
        raise _cannot_open(source, auto, cause) from cause
    return model, info


def _cannot_open(source: ModelSource, auto: Any, cause: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"{source.name!r} was found but cannot be opened as {auto.__name__.removeprefix('AutoModelFor')}: {cause}"
    )


def _hold_base_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the parameters that transformers left in float32 though their model does not ask for it.

    DeBERTa creates its query and value biases in float32, whatever the rest is loaded in, and then cannot multiply.
    """
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float32 and kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _never_quantized(sketch: PreTrainedModel, new_parameters: Sequence[str]) -> list[str]:
    """Name the head, the language model's output layer and every other new module, by full path."""
    names = list(head_modules(sketch, new_parameters))
    output = sketch.get_output_embeddings()
    names += [name for name, module in sketch.named_modules() if module is output and output is not None]
    return names


def _load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    revision = {"revision": source.revision} if source.is_hub else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **revision)
    except Exception as cause:  # what the tokenizers library raises is a plain Exception
        raise ModelLoadError(
            f"The model {source.name!r} was found, but not its tokenizer: {cause}. Save one beside it with "
            "tokenizer.save_pretrained(folder)."
        ) from cause
    # Without its files transformers makes a tokenizer that knows its special tokens and nothing else.
    if len(tokenizer) <= len(tokenizer.all_special_ids) + 2:
        raise ModelLoadError(
            f"The model {source.name!r} was found, but not its tokenizer: there is no vocabulary beside it. Save one "
            "with tokenizer.save_pretrained(folder)."
        )
    if not tokenizer.is_fast:
        raise ModelLoadError(
            f"{source.name!r} has only a slow tokenizer, which cannot tell where in the text a token stands. "
            "Convert it to a tokenizer.json first."
        )
    return tokenizer


def ensure_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str) -> None:
    """Give a decoder without a padding token one, in tokenizer and model.

    Its text classifier reads the last token that is no padding. A language model whose padding is its end token gets
    another one; a published text classifier keeps it, for that decides which token it reads.
    """
    pads_with_end = task == "causal-lm" and tokenizer.pad_token == tokenizer.eos_token
    chosen = tokenizer.pad_token is None or pads_with_end
    if chosen:
        tokenizer.pad_token = _unused_token(tokenizer, model.get_input_embeddings().weight.shape[0])
    for config in (model.config.get_text_config(), model.config):
        if chosen or config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id


def _unused_token(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> str | None:
    """Return a token to pad with that no text ends with; the end token only where there is no other.

    The first of: a special token named for padding, the token of the unknown, a special token that neither the tokenizer
    nor its chat template uses. None is added, for a frozen embedding would have no row for it.
    """
    in_use = {tokenizer.bos_token, tokenizer.eos_token}
    template = str(tokenizer.chat_template)
    special = [
        token.content
        for token_id, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and token_id < embeddings and token.content not in in_use and token.content not in template
    ]
    named = [token for token in special if "pad" in token.lower()]
    unknown = [tokenizer.unk_token] if tokenizer.unk_token not in (None, *in_use) else []
    chosen: str | None = next(iter([*named, *unknown, *special]), tokenizer.eos_token)
    return chosen


def _as_checkpoint(source: ModelSource, dtype: str) -> ModelSource:
    """Turn a GGUF file into an ordinary checkpoint, once; anything else is returned as it is.

    transformers dequantises a GGUF file on every load and cannot save the result, since the model still counts as
    quantised. Written out once as a plain checkpoint it loads in a second, can be quantised again, and can be saved.
    """
    if source.gguf_file is None:
        return source
    stored = torch.bfloat16 if compute_dtype(dtype, compute_device("auto")) is torch.bfloat16 else torch.float32
    name = f"{Path(source.gguf_file).stem}-{source.digest()[-16:]}-{str(stored).removeprefix('torch.')}"
    folder = cache_folder() / "gguf" / name
    if not (folder / "config.json").is_file():
        _convert_gguf(source, folder, stored)
    return ModelSource(source.name, str(folder))


def _convert_gguf(source: ModelSource, folder: Path, dtype: torch.dtype) -> None:
    try:
        with quiet_transformers():
            packed = transformers.AutoModelForCausalLM.from_pretrained(
                source.location, gguf_file=source.gguf_file, dtype=dtype
            )
        tokenizer = AutoTokenizer.from_pretrained(source.location, gguf_file=source.gguf_file)
    except (OSError, ValueError, KeyError, ImportError) as cause:
        raise ModelLoadError(f"The GGUF file of {source.name!r} cannot be read: {cause}") from cause
    config = packed.config
    del config.quantization_config
    config.dtype = dtype
    fresh = type(packed)(config).to(dtype)
    fresh.load_state_dict(packed.state_dict())
    fresh.generation_config = packed.generation_config
    if tokenizer.model_max_length > config.max_position_embeddings:
        tokenizer.model_max_length = config.max_position_embeddings
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    with quiet_transformers():
        fresh.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
