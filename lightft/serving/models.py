"""The models of a service: adapters that share a base, merged models, checkpoints and ONNX folders, each under a name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightft.errors import InvalidSettingError, LightFTError, ModelLoadError, UnknownNameError, suggest
from lightft.records import Answer

if TYPE_CHECKING:
    from lightft.inference import Predictor

__all__ = ["ModelFacts", "ServedBase", "ServedModels", "cannot_compute", "first_line"]

_NAME = re.compile(r"[\w.-]{1,100}")
_ADAPTER_FILES = ("lightft.json", "adapter_config.json")


@dataclass(frozen=True)
class ModelFacts:
    """What a client may want to know of a model.

    Attributes:
        name: what requests choose it by.
        task: ``"token-classification"``, ``"text-classification"`` or ``"causal-lm"``.
        labels: its classes or entity types.
        base: the base model it was made of, where that is recorded.
        adapter: the kind of its adapter; None for a whole model.
        parameters: how many it has, those of its base included.
        max_length: tokens it reads at once.
        runtime: what computes it.
        precision: of its weights.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    base: str | None
    adapter: str | None
    parameters: int | None
    max_length: int
    runtime: Literal["torch", "onnx"]
    precision: str


@dataclass(frozen=True)
class ServedBase:
    """A base in memory with all that is served of it: one worker computes for all of these models.

    Attributes:
        models: by name.
        answer: gives the answers of ``(model names, texts)``, one per text.
        predictors: its models for more than answers, which is writing; empty where torch computes none of them.
    """

    models: Mapping[str, ModelFacts]
    answer: Callable[[Sequence[str], Sequence[str]], list[Answer]]
    predictors: Mapping[str, Predictor] = field(default_factory=dict)


class ServedModels(Mapping[str, ModelFacts]):
    """All models of a service by name; the first is the default.

    Args:
        bases: what is in memory.
        order: the names of all models; None takes them as they come.

    Raises:
        InvalidSettingError: there is no model.
    """

    def __init__(self, bases: Sequence[ServedBase], order: Sequence[str] | None = None) -> None:
        if not bases:
            raise InvalidSettingError(
                "There is no model to serve. Name an adapter folder or a checkpoint, or give a Predictor: "
                "ServedModels.of(name=predictor)."
            )
        self.bases = tuple(bases)
        self._base_of = {name: base for base in bases for name in base.models}
        self._names = tuple(order or self._base_of)

    @classmethod
    def open(
        cls, models: Sequence[str], *, base: str | None = None, device: str = "auto", threads: int | None = None
    ) -> ServedModels:
        """Open what is named on a command line.

        Args:
            models: adapter folders, merged models, checkpoints (also a Hub id or ``package:NAME/path``) and ONNX folders;
                ``NAME=MODEL`` gives one a name. The default name is the folder's own.
            base: where the base of the adapters is now, when it moved since training.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
            threads: how many threads compute; None leaves it to torch or onnxruntime.

        Raises:
            InvalidSettingError: no model, two of one name, a name that cannot be one, or less than one thread.
            LightFTError: a model cannot be opened.
        """
        if threads is not None and threads < 1:
            raise InvalidSettingError(f"threads is {threads}. Give 1 or more, or leave it out for one per core.")
        how = _Opening(base, device, threads)
        named = _named(models)
        groups: dict[str, dict[str, str]] = {}
        for name, path in named.items():
            groups.setdefault(_group(name, path), {})[name] = path
        return cls([_open_group(group, how) for group in groups.values()], tuple(named))

    @classmethod
    def of(cls, **predictors: Predictor) -> ServedModels:
        """Serve models that are in memory, each by itself, under the names they are given.

        Raises:
            InvalidSettingError: no model is given.
            ModelLoadError: weights of a model are no numbers.
        """
        return cls([_of_predictor(name, predictor, None) for name, predictor in predictors.items()])

    @property
    def default(self) -> str:
        """The model of a request that names none."""
        return self._names[0]

    def base_of(self, name: str) -> ServedBase:
        """Return the base that ``name`` is served with."""
        self[name]
        return self._base_of[name]

    def __getitem__(self, name: str) -> ModelFacts:
        if name not in self._base_of:
            raise UnknownNameError(f"There is no model of that name. {suggest(name, self._names)}")
        return self._base_of[name].models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the facts of all models as plain data."""
        return [{**asdict(facts), "labels": list(facts.labels)} for facts in self.values()]


@dataclass(frozen=True)
class _Opening:
    base: str | None
    device: str
    threads: int | None

    def set_torch_threads(self) -> None:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


def _named(models: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for given in models:
        name, equals, path = given.partition("=")
        if not equals or Path(given).exists():
            name, path = _own_name(given), given
        if not _NAME.fullmatch(name):
            raise InvalidSettingError(
                f"{name!r} cannot be the name of a model. Use letters, digits, '.', '_' and '-': NAME={path}"
            )
        if name in named:
            raise InvalidSettingError(f"Two models are named {name!r}. Give one of them another name: NAME={path}")
        named[name] = path
    return named


def _own_name(path: str) -> str:
    """Return the name of a folder: the run's for ``runs/NAME/adapter``."""
    found = Path(path)
    folder = found.resolve() if found.exists() else found
    parent = folder.parent.name
    return parent if folder.name == "adapter" and parent else folder.name.removesuffix(".gguf")


def _group(name: str, path: str) -> str:
    """Return what models have in common that can share one base in memory; other models have a group of their own."""
    described = _manifest(path)
    if described is None or not _is_adapter(path):
        return f"alone: {name}"
    recorded = described.get("base") or {}
    which = recorded.get("digest") or recorded.get("name")
    return f"base: {which} {recorded.get('quantization')} {recorded.get('dtype')}"


def _is_adapter(path: str) -> bool:
    return all((Path(path) / file).is_file() for file in _ADAPTER_FILES)


def _manifest(path: str) -> dict[str, Any] | None:
    """Return what ``lightft.json`` says; None where there is none, or none that can be read: opening it says why."""
    try:
        described = json.loads((Path(path) / "lightft.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return described if isinstance(described, dict) else None


def _open_group(paths: Mapping[str, str], how: _Opening) -> ServedBase:
    try:
        if len(paths) > 1:
            return _open_adapters(paths, how)
        [(name, path)] = paths.items()
        return _open_onnx(name, path, how) if (Path(path) / "model.onnx").is_file() else _open_alone(name, path, how)
    except LightFTError:
        raise
    except Exception as cause:  # what libraries raise at damaged files has no common kind
        raise ModelLoadError(
            f"{' and '.join(paths.values())} cannot be opened ({first_line(cause)}). Restore the files, or save it again."
        ) from cause


def _open_alone(name: str, path: str, how: _Opening) -> ServedBase:
    # torch is imported only where a model needs it: a service of ONNX models does without.
    from lightft.inference import load

    how.set_torch_threads()
    return _of_predictor(name, load(path, base=how.base if _is_adapter(path) else None, device=how.device), path)


def _open_adapters(paths: Mapping[str, str], how: _Opening) -> ServedBase:
    from lightft.adapter_sets import load_adapters

    how.set_torch_threads()
    opened = load_adapters(paths, base=how.base, device=how.device)

    def answer(models: Sequence[str], texts: Sequence[str]) -> list[Answer]:
        # One name for all keeps to the one model's own path.
        chosen = models[0] if len(set(models)) == 1 else models
        answers: list[Answer] = opened(texts, adapter=chosen)
        return answers

    _refuse_weights_that_are_no_numbers(opened)
    facts = {name: _facts(name, predictor, paths[name]) for name, predictor in opened.items()}
    return ServedBase(facts, answer, dict(opened))


def _of_predictor(name: str, predictor: Predictor, path: str | None) -> ServedBase:
    def answer(models: Sequence[str], texts: Sequence[str]) -> list[Answer]:
        del models
        answers: list[Answer] = predictor(texts)
        return answers

    _refuse_weights_that_are_no_numbers({name: predictor})
    return ServedBase({name: _facts(name, predictor, path)}, answer, {name: predictor})


def _refuse_weights_that_are_no_numbers(predictors: Mapping[str, Predictor]) -> None:
    """Refuse models that would answer all the same: with such weights a tagger finds no entity, and says nothing."""
    checked: set[int] = set()
    for name, predictor in predictors.items():
        for key, weight in _weights_in_numbers(predictor.model):
            # Adapters share the weights of their base.
            if id(weight) in checked or not weight.numel():
                continue
            checked.add(id(weight))
            # Unlike isfinite, this makes no copy, and takes 0.1 s for 120 million numbers.
            if not all(map(math.isfinite, (bound.item() for bound in weight.aminmax()))):
                raise cannot_compute(name, f"there are values in {key} that are no finite numbers")


def _weights_in_numbers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights of all layers by name, but those of embeddings, of which texts read, and load, only some rows."""
    from torch.nn import Embedding, Parameter

    for place, layer in model.named_modules():
        for name, weight in [] if isinstance(layer, Embedding) else layer.named_parameters(recurse=False):
            # What is quantised holds no numbers, but bits: in a type of its own, or in single bytes.
            if type(weight) is Parameter and weight.dtype.itemsize > 1:
                yield f"{place}.{name}", weight


def _open_onnx(name: str, path: str, how: _Opening) -> ServedBase:
    from lightft.portable import load_onnx

    opened = load_onnx(path, threads=how.threads)
    [logits] = opened.logits([[opened.description.padding]])
    if not all(map(math.isfinite, logits.ravel())):
        raise cannot_compute(name, "its scores are no finite numbers")

    def answer(models: Sequence[str], texts: Sequence[str]) -> list[Answer]:
        del models
        answers: list[Answer] = opened(texts)
        return answers

    facts = ModelFacts(
        name,
        opened.task,
        tuple(opened.labels),
        _public_name(opened.base),
        None,
        None,
        opened.max_length,
        "onnx",
        opened.precision,
    )
    return ServedBase({name: facts}, answer)


def _facts(name: str, predictor: Predictor, path: str | None) -> ModelFacts:
    described = (_manifest(path) if path is not None else None) or {}
    recorded = described.get("base") or {}
    adapter = (described.get("adapter") or {}).get("kind") if path is not None and _is_adapter(path) else None
    return ModelFacts(
        name=name,
        task=predictor.head.name,
        labels=predictor.head.labels,
        base=_public_name(recorded.get("name")),
        adapter=adapter,
        parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
        max_length=predictor.max_length,
        runtime="torch",
        precision=recorded.get("quantization") or _precision(predictor.model),
    )


def _public_name(base: str | None) -> str | None:
    """Return the name of a base without the folders that lead to it on this machine, which are nobody's business."""
    return Path(base).name if base is not None and Path(base).is_absolute() else base


def _precision(model: Any) -> str:
    """Return the type in which most weights are held."""
    held: dict[str, int] = {}
    for parameter in model.parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        held[kind] = held.get(kind, 0) + parameter.numel()
    return max(held, key=lambda kind: held[kind])


def cannot_compute(name: str, why: str) -> ModelLoadError:
    """Return the refusal of a model that opens and is of no use."""
    return ModelLoadError(
        f"The model {name!r} opens, but cannot compute: {why}. Its files are damaged or of different models. Restore them, "
        "or save the model again."
    )


def first_line(cause: Exception) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
