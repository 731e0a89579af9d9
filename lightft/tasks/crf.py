"""A linear-chain conditional random field over the tags of a text, on top of any token classifier.

The probability of a whole sequence of tags is ∝ exp(start + Σ emissions + Σ transitions + end) (Lafferty, McCallum and
Pereira 2001; on a neural tagger Lample et al. 2016, arXiv:1603.01360). Emissions are the model's logits. What BIO does
not allow has no probability, neither in training nor afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import hf_hub_download
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightft.errors import AdapterError, InvalidSettingError
from lightft.models import head_modules, provenance_of
from lightft.models.structure import keep_head_in_float32
from lightft.reading.decoding import PathScores, scores_of_valid_bio
from lightft.tasks.head import IGNORED

__all__ = [
    "ChainScores",
    "LinearWithTransitions",
    "add_transitions",
    "chain_scores",
    "conditional_logits",
]

_PARAMETERS = ("transitions", "starts", "ends")
_LEARNING_RATE_FACTOR = 100.0


class ChainScores(NamedTuple):
    """The learned scores of a chain of tags, −inf for what BIO does not allow.

    Attributes:
        transitions: (tags, tags), of the second tag directly after the first.
        starts: (tags,), of a text that starts with the tag.
        ends: (tags,), of a text that ends with it.
    """

    transitions: Tensor
    starts: Tensor
    ends: Tensor

    def to_numpy(self) -> PathScores:
        """Return the same as arrays."""
        return PathScores(*(scores.detach().double().cpu().numpy() for scores in self))


class LinearWithTransitions(nn.Linear):
    """A model's output layer that also holds the scores of its tags' transitions.

    It computes what the layer it was made of computes, with the same weights under the same names, so that a checkpoint
    holding it opens as a plain token classifier too. The parameters hold the scores divided by a constant; what they
    stand for is ``scores()``.
    """

    allowed_transitions: Tensor
    allowed_starts: Tensor

    def __init__(self, layer: nn.Linear, tags: Sequence[str]) -> None:
        # On the meta device nothing is drawn or held for weights that the next lines replace.
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        device = layer.weight.device
        self.transitions = nn.Parameter(torch.zeros(len(tags), len(tags), device=device))
        self.starts = nn.Parameter(torch.zeros(len(tags), device=device))
        self.ends = nn.Parameter(torch.zeros(len(tags), device=device))
        allowed = scores_of_valid_bio(tags)
        for name in ("transitions", "starts"):
            scores = torch.tensor(getattr(allowed, name), dtype=torch.float32, device=device)
            self.register_buffer(f"allowed_{name}", scores, persistent=False)

    def scores(self) -> ChainScores:
        """Return the scores that the parameters stand for."""
        return ChainScores(
            _fast(self.transitions) + self.allowed_transitions,
            _fast(self.starts) + self.allowed_starts,
            _fast(self.ends),
        )


def add_transitions(model: PreTrainedModel, tags: Sequence[str]) -> None:
    """Give the model's output layer transitions, in place: those of its checkpoint, or zeros where it has none.

    Args:
        model: a token classifier as loaded, without an adapter.
        tags: the BIO tags in the order of its outputs.

    Raises:
        AdapterError: the model ends in no linear layer of as many outputs.
    """
    name, layer = _output_layer(model, len(tags))
    made = LinearWithTransitions(layer, tags)
    made.load_state_dict(_stored_transitions(model, name), strict=False)
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, made)
    keep_head_in_float32(model, [name])


def chain_scores(model: nn.Module) -> ChainScores:
    """Return the scores of transitions in a model, those of its active adapter if it has one.

    Raises:
        InvalidSettingError: the model's output layer has none.
    """
    layer = _find_transitions(model)
    if layer is None:
        raise InvalidSettingError(
            f"This {type(model).__name__} has no scores of transitions, which decoding='crf' learns. Load it through the "
            "head, model, tokenizer = head.load_model(loader), or give LoRATrainer a ModelLoader."
        )
    return layer.scores()


def conditional_logits(emissions: Tensor, labels: Tensor, scores: ChainScores) -> tuple[Tensor, Tensor]:
    """Return logits of each labelled word's tag given the gold tag before it and the whole text, and the gold tags.

    p(tags | text) is the product over words of p(tag | tag before, text). Their softmax gives these factors, so that the
    summed cross-entropy of the logits returned is the CRF's negative log-likelihood, one term per word.

    Positions without a label are left out, and the chain goes on after them. Each row is a chain of its own. A row that
    starts in the middle of an entity, as a window of a long text may, has no score of its start; one in which the first
    word of an entity is missing falls into two such chains.

    Args:
        emissions: (rows, tokens, tags).
        labels: (rows, tokens), IGNORED where there is none; at least one is a label.
        scores: of the chain.

    Returns:
        Logits (labelled words, tags) in float32, and gold tags (labelled words,).
    """
    transitions, starts = scores.transitions, scores.starts
    rows, tokens = torch.nonzero(labels != IGNORED, as_tuple=True)
    gold, words = labels[rows, tokens], emissions[rows, tokens].float()
    before = gold.roll(1)
    opens = (rows != rows.roll(1)) | transitions[before, gold].isneginf()
    opens[0] = True
    chain = opens.cumsum(0) - 1
    first = opens.nonzero().squeeze(-1)
    place = torch.arange(len(gold), device=gold.device) - first[chain]
    lengths = torch.bincount(chain)
    padded = words.new_zeros(len(lengths), int(lengths.max()), words.shape[-1])
    padded[chain, place] = words
    continued = starts[gold].isneginf()[:, None]
    leading = torch.where(opens[:, None], starts.masked_fill(continued, 0.0), transitions[before])
    return leading + words + _scores_after(padded, lengths, scores)[chain, place], gold


def _scores_after(emissions: Tensor, lengths: Tensor, scores: ChainScores) -> Tensor:
    """Return, for each tag of each word, the log-sum of the scores of all ways to go on after it."""
    after = scores.ends.expand(len(emissions), -1)
    found = [after]
    for position in range(emissions.shape[1] - 1, 0, -1):
        onward = scores.transitions + (emissions[:, position] + after)[:, None, :]
        after = torch.where((position < lengths)[:, None], torch.logsumexp(onward, dim=-1), scores.ends)
        found.append(after)
    return torch.stack(found[::-1], dim=1)


def _fast(parameter: Tensor) -> Tensor:
    """Return a parameter's score, which learns faster than the weights around it.

    Adam moves every number by about the learning rate a step. That suits weights, of which hundreds add up to a score;
    a transition is a score itself and would hardly move. Its gradient is passed on as it is, so that clipping the
    gradient of the whole model weighs it like any other.
    """
    return parameter + (_LEARNING_RATE_FACTOR - 1) * parameter.detach()


def _find_transitions(module: nn.Module) -> LinearWithTransitions | None:
    if isinstance(module, LinearWithTransitions):
        return module
    if isinstance(module, ModulesToSaveWrapper):
        # peft keeps the untrained original beside each copy.
        adapters = [] if module.disable_adapters else module.active_adapters
        within = [module.modules_to_save[adapters[0]] if adapters else module.original_module]
    else:
        within = list(module.children())
    return next((found for part in within if (found := _find_transitions(part)) is not None), None)


def _output_layer(model: PreTrainedModel, outputs: int) -> tuple[str, nn.Linear]:
    layers = [
        (f"{head}.{name}".rstrip("."), module)
        for head in head_modules(model)
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs
    ]
    if not layers:
        raise AdapterError(
            f"{type(model).__name__} has no linear output layer with {outputs} outputs, on which decoding='crf' puts its "
            "transitions. Use decoding='constrained'."
        )
    return layers[-1]


def _stored_transitions(model: PreTrainedModel, layer: str) -> dict[str, Tensor]:
    """Return the transitions that the model's checkpoint holds for its output layer; empty if it holds none."""
    found = provenance_of(model)
    if found is None or f"{layer}.weight" in found.new_parameters:
        return {}
    source = found.source
    folder = (
        Path(hf_hub_download(source.location, "config.json", revision=source.revision)).parent
        if source.is_hub
        else Path(source.location)
    )
    stored: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            names = {part: f"{layer}.{part}" for part in _PARAMETERS}
            stored |= {part: opened.get_tensor(name) for part, name in names.items() if name in set(opened.keys())}
    return stored
