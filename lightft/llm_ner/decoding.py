"""constrained_answers: a language model marks the entities of texts, in far fewer forward passes than tokens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from lightft.errors import InvalidSettingError
from lightft.llm_ner.grammar import CopyGrammar, State, TokenBytes
from lightft.records import Span

__all__ = ["ConstrainedAnswer", "EntityScore", "constrained_answers"]


@dataclass(frozen=True)
class EntityScore:
    """Log-probabilities of the decisions for one entity, each among the tokens that the grammar allowed.

    A token that decides several things counts for the last. The entity's probability is ``exp`` of the sum.

    Attributes:
        opening: that an entity begins here.
        extent: that it goes on, and ends, where it does.
        type: that it is of this type.
    """

    opening: float
    extent: float
    type: float


@dataclass(frozen=True)
class ConstrainedAnswer:
    """What a model wrote for one text.

    Attributes:
        spans: the entities in order; ``score`` is the probability of all decisions for that entity.
        text: the answer, marks included: the text itself once the marks are taken out.
        scores: one per span.
        tokens: ids of the answer, the end token among them.
        log_probabilities: one per token, among the tokens that the grammar allowed; 0 where there was no choice.
        passes: forward passes this text took part in, that of a shared prompt prefix left out.
    """

    spans: tuple[Span, ...]
    text: str
    scores: tuple[EntityScore, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    passes: int


def constrained_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    style: str = "brackets",
    rows: int = 8,
    draft_tokens: int = 24,
) -> list[ConstrainedAnswer]:
    """Let a model write each text again with its entities marked; greedy among the tokens that ``CopyGrammar`` allows.

    The answer is that of decoding token by token. But several tokens go through the model at once: the text without
    further marks is a draft, of which as much is accepted as the model would have written (speculative decoding without
    a second model; Leviathan et al. 2023, arXiv 2211.17192). So the number of passes follows the number of entities.
    Several texts share a pass as one packed sequence, in which a mask keeps them apart and no padding is computed. What
    all prompts begin with is computed once. Where two tokens are equally likely up to rounding, the number of tokens per
    pass may decide between them.

    Args:
        model: a causal language model with full attention, "eager" or "sdpa".
        tokenizer: the model's.
        prompts: token ids before each answer, never empty.
        texts: one per prompt.
        labels: the types.
        style: ``"brackets"`` or ``"xml"``.
        rows: texts per pass; the next text enters when one is done.
        draft_tokens: at most so many tokens of draft for each text in a pass.

    Returns:
        One answer per text, in order.

    Raises:
        InvalidSettingError: a setting is outside what is accepted, or model or tokenizer are of a kind that cannot be used.
        DataError: a text holds characters that the tokenizer cannot write.
    """
    if len(prompts) != len(texts) or not all(prompts):
        raise InvalidSettingError(
            f"There are {len(prompts)} prompts for {len(texts)} texts. Give one prompt, which is not empty, for each text."
        )
    if rows < 1 or draft_tokens < 0:
        raise InvalidSettingError(f"rows is {rows} and draft_tokens {draft_tokens}. Use at least 1 and 0.")
    vocabulary = TokenBytes(tokenizer)
    _check_model(model)
    waiting = deque(
        _Row(number, CopyGrammar(text, labels, vocabulary, style), list(prompt), guessed_label=labels[0])
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    )
    everyone = list(waiting)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            _decode(_PackedModel(model), waiting, rows, draft_tokens)
    finally:
        model.train(was_training)
    return [row.answer() for row in everyone]


@dataclass
class _Row:
    """One text on its way: ``pending`` tokens are decided but not yet in the model's cache."""

    number: int
    grammar: CopyGrammar
    pending: list[int]
    guessed_label: str
    cached: int = 0
    passes: int = 0
    done: bool = False
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state: State = self.grammar.start
        self._take_forced()

    def plan(self, draft_tokens: int) -> list[list[int]]:
        """Choose a draft; return the allowed tokens after ``pending`` and after each token of the draft."""
        self.draft = self.grammar.draft(self.state, draft_tokens, self.guessed_label)
        state = self.state
        allowed = [self.grammar.allowed_tokens(state)]
        for token in self.draft:
            state = allowed[-1][token]
            allowed.append(self.grammar.allowed_tokens(state))
        return [list(tokens) for tokens in allowed]

    def accept(self, allowed: list[list[int]], logits: list[np.ndarray]) -> None:
        """Take the model's tokens up to the first that the draft has not."""
        self.passes += 1
        self.cached += len(self.pending)
        self.pending = []
        agreed = 0
        for choices, values in zip(allowed, logits, strict=True):
            best = int(values.argmax())
            self._take(choices[best], float(values[best] - np.logaddexp.reduce(values)))
            if self.done or agreed == len(self.draft) or choices[best] != self.draft[agreed]:
                break
            agreed += 1
        self.cached += agreed
        if not self.done:
            self.pending = self.tokens[-1:]
            self._take_forced()

    def answer(self) -> ConstrainedAnswer:
        """Return what was written, with the probability of each entity."""
        pieces = [self.grammar.vocabulary[token] for token in self.tokens]
        written = b"".join(pieces)
        spans = self.grammar.read(written)
        decided = [decision for piece, decision in self.grammar.pieces(spans) for _ in piece]
        sums = {(number, part): 0.0 for number in range(len(spans)) for part in ("opening", "extent", "type")}
        begin = 0
        for piece, log_probability in zip(pieces, self.log_probabilities, strict=True):
            decisions = [decision for decision in decided[begin : begin + len(piece)] if decision]
            begin += len(piece)
            if decisions:
                sums[decisions[-1]] += log_probability
        scores = tuple(
            EntityScore(*(sums[n, part] for part in ("opening", "extent", "type"))) for n in range(len(spans))
        )
        return ConstrainedAnswer(
            spans=tuple(
                Span(span.start, span.end, span.label, text=span.text, score=_probability(score))
                for span, score in zip(spans, scores, strict=True)
            ),
            text=written.removeprefix(self.grammar.prefix).decode(),
            scores=scores,
            tokens=tuple(self.tokens),
            log_probabilities=tuple(self.log_probabilities),
            passes=self.passes,
        )

    def _take(self, token: int, log_probability: float) -> None:
        self.state = self.grammar.allowed_tokens(self.state)[token]
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        self.done = token == self.grammar.vocabulary.end_token

    def _take_forced(self) -> None:
        """Take tokens that have no alternative: they need no logits, and reach the model with the next pass."""
        while not self.done and len(only := list(self.grammar.allowed_tokens(self.state))) == 1:
            self._take(only[0], 0.0)
            self.pending.append(only[0])


def _decode(packed: _PackedModel, waiting: deque[_Row], rows: int, draft_tokens: int) -> None:
    """Let rows enter and leave until all are done."""
    shared = _common_prefix([row.pending for row in waiting if not row.done])
    if shared:
        packed.forward([_Chunk(_EVERYONE, 0, shared, ())])
        for row in waiting:
            row.pending = row.pending[len(shared) :]
            row.cached = len(shared)
    active: list[_Row] = []
    while True:
        while waiting and len(active) < rows:
            row = waiting.popleft()
            active += [] if row.done else [row]
        if not active:
            return
        allowed = [row.plan(draft_tokens) for row in active]
        chunks = [
            _Chunk(row.number, row.cached, [*row.pending, *row.draft], tokens)
            for row, tokens in zip(active, allowed, strict=True)
        ]
        logits = packed.forward(chunks)
        for row, tokens, values in zip(active, allowed, logits, strict=True):
            row.accept(tokens, values)
        packed.keep({row.number: 0 if row.done else row.cached for row in active})
        active = [row for row in active if not row.done]


@dataclass(frozen=True)
class _Chunk:
    """Tokens of one row for one pass; ``allowed`` holds the choices after the last ``len(allowed)`` of them."""

    owner: int
    position: int
    ids: Sequence[int]
    allowed: Sequence[list[int]]


_EVERYONE = -1


class _PackedModel:
    """A model and its cache, in which the tokens of all rows lie one after another; only the mask tells them apart."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device
        self._owners = torch.empty(0, dtype=torch.long, device=self._device)
        self._positions = torch.empty(0, dtype=torch.long, device=self._device)

    def forward(self, chunks: Sequence[_Chunk]) -> list[list[np.ndarray]]:
        """Return the logits of each chunk's choices, in float64."""
        ids = self._tensor([token for chunk in chunks for token in chunk.ids])
        owners = self._tensor([chunk.owner for chunk in chunks for _ in chunk.ids])
        positions = self._tensor([chunk.position + place for chunk in chunks for place in range(len(chunk.ids))])
        self._owners = torch.cat([self._owners, owners])
        self._positions = torch.cat([self._positions, positions])
        # At least one place, because 0 would mean all.
        places = list(_places_of_choices(chunks)) or [len(ids) - 1]
        logits = self._model(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=self._mask(owners, positions),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=self._tensor(places),
        ).logits[0]
        return self._choices(logits, chunks)

    def keep(self, lengths: dict[int, int]) -> None:
        """Forget what lies beyond the first ``lengths[owner]`` positions of each owner."""
        limits = torch.full((max(lengths) + 2,), torch.iinfo(torch.long).max, device=self._device)
        limits[list(lengths)] = self._tensor(list(lengths.values()))
        # The owner -1 finds the last limit, which is none.
        kept = (self._positions < limits[self._owners]).nonzero().squeeze(-1)
        self._owners, self._positions = self._owners[kept], self._positions[kept]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys.index_select(-2, kept), layer.values.index_select(-2, kept)

    def _mask(self, owners: Tensor, positions: Tensor) -> Tensor:
        """Return what is added to attention scores, (1, 1, tokens, slots): a row sees the shared prefix and its own past."""
        seen = (self._owners == _EVERYONE) | (self._owners == owners[:, None])
        seen &= self._positions <= positions[:, None]
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=self._device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[None, None]

    def _choices(self, logits: Tensor, chunks: Sequence[_Chunk]) -> list[list[np.ndarray]]:
        """Pick the choices' logits on the device, so that only these few leave it."""
        allowed = [choices for chunk in chunks for choices in chunk.allowed]
        places = self._tensor([place for place, choices in enumerate(allowed) for _ in choices])
        tokens = self._tensor([token for choices in allowed for token in choices])
        values = logits[places, tokens].double().cpu().numpy()
        parts = iter(np.split(values, np.cumsum([len(choices) for choices in allowed])[:-1]))
        return [[next(parts) for _ in chunk.allowed] for chunk in chunks]

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)


def _places_of_choices(chunks: Sequence[_Chunk]) -> Iterator[int]:
    end = 0
    for chunk in chunks:
        end += len(chunk.ids)
        yield from range(end - len(chunk.allowed), end)


def _common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return what all prompts begin with, less what each needs to have a token of its own; nothing for one prompt."""
    if len(prompts) < 2:
        return []
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _probability(score: EntityScore) -> float:
    return math.exp(score.opening + score.extent + score.type)


def _check_model(model: PreTrainedModel) -> None:
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        raise InvalidSettingError(
            f"Constrained decoding keeps its own cache, which {model.active_peft_config.peft_type.value} does not allow. "
            "Use an adapter on weights, such as LoRA."
        )
    attention = model.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        raise InvalidSettingError(
            f"Constrained decoding needs a mask of its own, which attention {attention!r} does not take. "
            "Load the model with attn_implementation='sdpa'."
        )
    layers = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    if not layers <= {DynamicLayer.__name__}:
        raise InvalidSettingError(
            f"Constrained decoding needs full attention in every layer; this model has {', '.join(sorted(layers))}. "
            "Take a model such as LLaMA, Qwen or SmolLM."
        )
