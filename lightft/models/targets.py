"""Which layers an adapter goes on: said by intent, such as ``"attention"``, or by name, on any architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightft.errors import AdapterError, suggest
from lightft.models.structure import is_inside, layer_shape

__all__ = [
    "feedforward_outputs",
    "key_value_targets",
    "linear_modules",
    "match_targets",
]

# transformers names the class of every attention module so; Jamba and its like also name whole layers after theirs.
_ATTENTION = re.compile(r"Attention(?!DecoderLayer)|MLA$")
# What stands in the place of attention in state-space, linear-attention and convolutional layers, and what chooses experts.
_NO_FEEDFORWARD = re.compile(r"(Mixer|MambaLayer|DeltaNet|ShortConv|RecurrentBlock|Router|Gating)$")
_LAST_LAYERS = re.compile(r"last-(\d+)-layers?")


def match_targets(model: PreTrainedModel, targets: str | Sequence[str], head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the full names of the layers that ``targets`` means, in the model's order.

    One target is an intent or a name, and a list is the union of its members:

    - ``"all"``: every linear layer of the base, in a multimodal model of its text tower;
    - ``"attention"``: those inside attention, self and cross;
    - ``"query-value"``: of these the query and value projections, or the one layer that computes them with the keys;
    - ``"mlp"``: the feed-forward layers of the repeated blocks;
    - ``"last-4-layers"``, or any other number: every linear layer of the last blocks, in an encoder-decoder of each half;
    - ``"attention in last-4-layers"``: any of the others, there alone;
    - a whole module path or the last parts of one (``"query"``, ``"attention.self.query"``).

    Args:
        model: the base model with its head.
        targets: one target or several.
        head: the head's module names; a target inside it is an error.

    Raises:
        AdapterError: a target matches nothing, or only in the head or in another tower than the text's; or there are not
            so many layers.
    """
    wanted = [targets] if isinstance(targets, str) else list(targets)
    if not wanted:
        raise AdapterError("There are no targets. Name an intent such as 'all' or 'attention', or layers.")
    layers = linear_modules(model, head)
    chosen = {name for target in wanted for name in _resolve(target, model, layers, head)}
    return tuple(name for name in layers if name in chosen)


def linear_modules(model: PreTrainedModel, head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the full names of every linear layer of the base: ``nn.Linear``, its quantised kinds and ``Conv1D``.

    Of a base with several towers these are the layers of the text tower.
    """
    base = "" if model.base_model is model else model.base_model_prefix
    towers = _text_towers(model)
    output = model.get_output_embeddings()
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and module is not output
        and (not base or is_inside(name, [base]))
        and (not towers or is_inside(name, towers))
        and not is_inside(name, head)
    )


def key_value_targets(model: PreTrainedModel, head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the key and value projections of every attention, or the one layer that computes them with the queries.

    Raises:
        AdapterError: the model has none, as where attention is no linear layer.
    """
    found = _projections(model, linear_modules(model, head), "kv")
    if not found:
        raise AdapterError(f"{type(model).__name__} has no key and value projections{_no_linear_layer(model)}.")
    return tuple(found)


def feedforward_outputs(model: PreTrainedModel, head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the last layer of each feed-forward network: the one that maps back to the hidden size.

    Raises:
        AdapterError: the model has none, as where experts are no linear layers.
    """
    hidden_size = model.config.get_text_config().hidden_size
    inside = _feedforward(model, linear_modules(model, head))
    last_of_block = {_block_of(model, name): name for name in inside}
    found = []
    for name in inside:
        inputs, outputs = layer_shape(model.get_submodule(name))
        # Where all sizes are equal they do not tell, and the last is the last in order.
        if outputs == hidden_size and (inputs != hidden_size or name in last_of_block.values()):
            found.append(name)
    if not found:
        raise AdapterError(f"{type(model).__name__} has no linear feed-forward layers{_no_linear_layer(model)}.")
    return tuple(found)


# --- one target


def _resolve(target: str, model: PreTrainedModel, layers: Sequence[str], head: Sequence[str]) -> Sequence[str]:
    """Return the layers one target means; ``"X in last-N-layers"`` is what both have in common."""
    what, within, where = target.partition(" in ")
    found = _select(what, model, layers)
    if not found:
        raise _matches_nothing(what, model, layers, head)
    if not within:
        return found
    if not _LAST_LAYERS.fullmatch(where):
        raise AdapterError(
            f"The target {target!r} looks in {where!r}. What stands there must be the last layers, as in "
            f"{what + ' in last-4-layers'!r}."
        )
    last = _select(where, model, layers)
    both = [name for name in found if name in last]
    if not both:
        raise AdapterError(f"The target {target!r} matches nothing: no layer of {what!r} is in the {where}.")
    return both


def _select(target: str, model: PreTrainedModel, layers: Sequence[str]) -> Sequence[str]:
    last = _LAST_LAYERS.fullmatch(target)
    if last:
        return _last_layers(model, layers, int(last[1]), target)
    if target in _INTENTS:
        return _INTENTS[target](model, layers)
    return [name for name in layers if _ends_with(name, target)]


def _every(model: PreTrainedModel, layers: Sequence[str]) -> Sequence[str]:
    del model
    return layers


def _attention(model: PreTrainedModel, layers: Sequence[str]) -> Sequence[str]:
    modules = _modules_of_class(model, _ATTENTION)
    return [name for name in layers if is_inside(name, modules)]


def _feedforward(model: PreTrainedModel, layers: Sequence[str]) -> Sequence[str]:
    others = [*_modules_of_class(model, _ATTENTION), *_modules_of_class(model, _NO_FEEDFORWARD)]
    return [name for name in layers if _block_of(model, name) and not is_inside(name, others)]


def _query_value(model: PreTrainedModel, layers: Sequence[str]) -> Sequence[str]:
    return _projections(model, layers, "qv")


_INTENTS: Mapping[str, Callable[[PreTrainedModel, Sequence[str]], Sequence[str]]] = {
    "all": _every,
    "attention": _attention,
    "query-value": _query_value,
    "mlp": _feedforward,
}


# --- attention


def _modules_of_class(model: PreTrainedModel, name_of_class: re.Pattern[str]) -> list[str]:
    """Return the outermost modules, the model itself aside, whose class is called so."""
    found: list[str] = []
    for name, module in model.named_modules():
        if name and name_of_class.search(type(module).__name__) and not is_inside(name, found):
            found.append(name)
    return found


def _projections(model: PreTrainedModel, layers: Sequence[str], letters: str) -> list[str]:
    """Return the attention layers that compute queries (``q``), keys (``k``) or values (``v``), in the model's order."""
    chosen: set[str] = set()
    for attention in _modules_of_class(model, _ATTENTION):
        computed = {name: _computed(name) for name in layers if is_inside(name, [attention])}
        if not any("v" in found for found in computed.values()):
            # GPT-2 and DeBERTa do not say it in the name, but what computes several at once is wider than its input.
            wide = [name for name, found in computed.items() if not found and _is_widening(model.get_submodule(name))]
            computed |= dict.fromkeys((name for name in wide if not _is_of_positions(name)), "qkv")
        chosen.update(name for name, found in computed.items() if set(found) & set(letters))
    return [name for name in layers if name in chosen]


def _computed(name: str) -> str:
    """Return which of q, k and v a layer computes by its name: ``"qkv"`` for ``query_key_value``, ``"v"`` for ``v_lin``."""
    if _is_of_positions(name):
        return ""
    words = {"query": "q", "key": "k", "value": "v"}
    pieces = [words.get(piece, piece) for piece in _pieces(name)]
    return "".join(piece.removeprefix("w") for piece in pieces if re.fullmatch("w?[qkv]+", piece))


def _is_of_positions(name: str) -> bool:
    """Whether a layer projects relative positions, as in DeBERTa, and not the text."""
    return "pos" in _pieces(name)


def _pieces(name: str) -> list[str]:
    return name.rpartition(".")[2].lower().split("_")


def _is_widening(layer: nn.Module) -> bool:
    inputs, outputs = layer_shape(layer)
    return outputs > inputs


# --- blocks


def _last_layers(model: PreTrainedModel, layers: Sequence[str], count: int, target: str) -> Sequence[str]:
    stacks: dict[str, list[str]] = {}
    for name in layers:
        place = _block_of(model, name)
        if place and place[1] not in stacks.setdefault(place[0], []):
            stacks[place[0]].append(place[1])
    _check_count(model, {stack: len(blocks) for stack, blocks in stacks.items()}, count, target)
    last = [block for blocks in stacks.values() for block in blocks[-count:]]
    return [name for name in layers if is_inside(name, last)]


def _check_count(model: PreTrainedModel, sizes: Mapping[str, int], count: int, target: str) -> None:
    found = ", ".join(f"{size} in {stack}" for stack, size in sizes.items()) or "no repeated blocks of linear layers"
    deepest = max(sizes.values(), default=0)
    # Not every config counts its layers; where one does, and there are fewer blocks, layers share them.
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None) or 0
    if 0 < deepest < depth:
        raise AdapterError(
            f"The target {target!r} cannot be trained alone: the {depth} layers of {type(model).__name__} share "
            f"{deepest} block{'s' if deepest > 1 else ''} of weights. Use 'all', 'attention' or 'mlp'."
        )
    if not 1 <= count <= min(sizes.values(), default=0):
        raise AdapterError(f"The target {target!r} asks for {count} layers; {type(model).__name__} has {found}.")


def _block_of(model: PreTrainedModel, layer: str) -> tuple[str, str] | None:
    """Return the list of repeated blocks that a layer stands in, and its block there; None outside of every list."""
    module: nn.Module = model
    stack, path = "", ""
    for part in layer.split(".")[:-1]:
        module = module.get_submodule(part)
        path = f"{path}.{part}" if path else part
        if isinstance(module, nn.ModuleList):
            stack = stack or path
        elif stack:
            return stack, path
    return None


# --- towers


def _text_towers(model: PreTrainedModel) -> list[str]:
    """Return the modules that read text in a model that reads more than text; none where the whole model reads text."""
    text = model.config.get_text_config()
    if text is model.config or model.config.is_encoder_decoder:
        return []
    return [
        name for name, module in model.named_modules() if isinstance(module, PreTrainedModel) and module.config is text
    ]


def _other_tower(target: str, model: PreTrainedModel) -> str | None:
    """Return the module beside the text tower in which ``target`` is found."""
    towers = _text_towers(model)
    for name, _ in model.named_modules():
        if towers and _ends_with(name, target) and not is_inside(name, towers):
            parts, text = name.split("."), towers[0].split(".")
            shared = next((depth for depth, part in enumerate(parts) if part != text[depth]), len(parts) - 1)
            return ".".join(parts[: shared + 1])
    return None


# --- messages


def _matches_nothing(target: str, model: PreTrainedModel, layers: Sequence[str], head: Sequence[str]) -> AdapterError:
    if any(is_inside(target, [part]) or part.endswith(f".{target}") for part in head):
        return AdapterError(f"The target {target!r} is part of the head, which is trained whole anyway. Leave it out.")
    tower = _other_tower(target, model)
    if tower is not None:
        return AdapterError(
            f"The target {target!r} is in {tower}, which reads no text: adapters go on {_text_towers(model)[0]}. "
            "Leave it out."
        )
    known = {*_INTENTS, "last-N-layers", *_short_names(layers)} - {target}
    why = _no_linear_layer(model) if target in _INTENTS else ""
    return AdapterError(
        f"The target {target!r} matches no linear layer of {type(model).__name__}{why}. {suggest(target, known)}"
    )


def _no_linear_layer(model: PreTrainedModel) -> str:
    """Return which modules hold matrices of their own instead of linear layers, as an insertion into a message."""
    others = [
        type(module).__name__
        for name, module in model.base_model.named_modules()
        if name
        and not isinstance(module, (nn.Linear, Conv1D, nn.Embedding))
        and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    ]
    names = ", ".join(dict.fromkeys(others))
    return f"; what it has beside them is in {names}" if names else ""


def _short_names(layers: Sequence[str]) -> list[str]:
    """Return, for each kind of layer, the last parts of its path that tell it from the others."""
    kinds = list(dict.fromkeys(re.split(r"\.\d+\.", name)[-1] for name in layers))
    short = []
    for kind in kinds:
        parts = kind.split(".")
        endings = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        short.append(next((end for end in endings if sum(_ends_with(other, end) for other in kinds) == 1), kind))
    return short


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
