"""ConstrainedDecoder: a language model marks the entities of texts, in far fewer forward passes than tokens."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lightft.errors import DataError, InvalidSettingError
from lightft.llm_ner.decoding.copy_grammar import CopyGrammar, State
from lightft.llm_ner.decoding.drafting import Drafter, EntityGuesses
from lightft.llm_ner.decoding.model_window import too_long_for
from lightft.llm_ner.decoding.prefixes import common_prefix, shared_beginning
from lightft.llm_ner.decoding.refilled_batch import done_in_order
from lightft.llm_ner.decoding.token_bytes import TokenBytes
from lightft.records import Span

__all__ = ["ConstrainedAnswer", "ConstrainedDecoder", "EntityScore"]


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
        error: why there is no answer; empty where there is one.
    """

    spans: tuple[Span, ...]
    text: str
    scores: tuple[EntityScore, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    passes: int
    error: str = ""


class ConstrainedDecoder:
    """Lets a model write texts again with their entities marked; greedy among the tokens that ``CopyGrammar`` allows.

    An answer is that of decoding token by token. But several tokens go through the model at once: the text with the marks
    that earlier answers lead to expect is a draft, of which as much is accepted as the model would have written
    (speculative decoding without a second model; Leviathan et al. 2023, arXiv 2211.17192). So the number of passes
    follows the number of surprises. Several texts share a pass as one packed sequence, in which a mask keeps them apart
    and no padding is computed; the next text enters when one is done. What prompts begin with is computed once. Where
    two tokens are equally likely up to rounding, the number of tokens per pass may decide between them.

    Args:
        model: a causal language model with full attention, "eager" or "sdpa".
        vocabulary: of the model's tokenizer.
        labels: the types.
        style: ``"brackets"`` or ``"xml"``.
        rows: texts per pass.
        draft_tokens: at most so many tokens of draft for each text in a pass.
        max_length: tokens of prompt and answer together at most; None for no end.
        known: texts with entities as the model may mark them, such as its training data: what to expect at first.

    Raises:
        InvalidSettingError: a setting is outside what is accepted, or the model is of a kind that cannot be used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: TokenBytes,
        labels: Sequence[str],
        *,
        style: str = "brackets",
        rows: int = 8,
        draft_tokens: int = 48,
        max_length: int | None = None,
        known: Iterable[tuple[str, Sequence[Span]]] = (),
    ) -> None:
        if rows < 1 or draft_tokens < 0:
            raise InvalidSettingError(f"rows is {rows} and draft_tokens {draft_tokens}. Use at least 1 and 0.")
        _check_model(model)
        self._model = model
        self._labels = tuple(labels)
        self._style = style
        self._rows = rows
        self._draft_tokens = draft_tokens
        self._max_length = max_length
        self._guesses = EntityGuesses(self._labels)
        for text, spans in known:
            self._guesses.learn(text, spans)
        self._vocabulary = vocabulary
        # Refuses a wrong style or label before the first text.
        CopyGrammar("", self._labels, self._vocabulary, style)

    def answers(self, asked: Iterable[tuple[Sequence[int], str]]) -> Iterator[ConstrainedAnswer]:
        """Yield one answer for each ``(prompt, text)``, in order; some of them are read ahead.

        A text that cannot be written in the tokenizer's tokens, or does not fit with its prompt, has an ``error``.

        Args:
            asked: the token ids before an answer, never empty, and the text to write.
        """
        batch = _Batch(self._model, self._draft_tokens, self._max_length)
        coming = iter(asked)
        ahead = list(islice(coming, self._rows))
        batch.share([prompt for prompt, _ in ahead])
        waiting = (self._row(prompt, text) for prompt, text in chain(ahead, coming))
        was_training = self._model.training
        self._model.eval()
        try:
            for row in done_in_order(waiting, batch, most=self._rows):
                yield row.answer()
        finally:
            self._model.train(was_training)

    def _row(self, prompt: Sequence[int], text: str) -> _Row:
        if not prompt:
            raise InvalidSettingError("A prompt is empty. Give at least one token before each answer.")
        try:
            grammar = CopyGrammar(text, self._labels, self._vocabulary, self._style)
        except DataError as error:
            return _Row(None, text, list(prompt), self._guesses, error=str(error))
        return _Row(grammar, text, list(prompt), self._guesses)


class _Row:
    """One text on its way: ``pending`` tokens are decided but not yet in the model's cache."""

    def __init__(
        self, grammar: CopyGrammar | None, text: str, prompt: list[int], guesses: EntityGuesses, error: str = ""
    ) -> None:
        self.text = text
        self.pending = prompt
        self.cached = 0
        self.passes = 0
        self.error = error
        self.done = bool(error)
        self.shared = 0
        self.tokens: list[int] = []
        self.log_probabilities: list[float] = []
        self._draft: list[int] = []
        self._guesses = guesses
        if grammar is not None:
            self._grammar = grammar
            self._drafter = Drafter(text, grammar, guesses)
            self._state: State = grammar.start
            self._take_forced()

    def plan(self, draft_tokens: int) -> list[list[int]]:
        """Choose a draft; return the allowed tokens after ``pending`` and after each token of the draft."""
        self._draft = self._drafter.draft(self._state, self._written(), draft_tokens) if draft_tokens > 0 else []
        state = self._state
        allowed = [self._grammar.allowed_tokens(state)]
        for token in self._draft:
            state = allowed[-1][token]
            allowed.append(self._grammar.allowed_tokens(state))
        return [list(tokens) for tokens in allowed]

    @property
    def coming(self) -> list[int]:
        """The tokens that go through the model next."""
        return [*self.pending, *self._draft]

    def accept(self, allowed: list[list[int]], logits: list[np.ndarray]) -> None:
        """Take the model's tokens up to the first that the draft has not."""
        self.passes += 1
        self.cached += len(self.pending)
        self.pending = []
        agreed = 0
        for choices, values in zip(allowed, logits, strict=True):
            best = int(values.argmax())
            self._take(choices[best], float(values[best] - np.logaddexp.reduce(values)))
            if self.done or agreed == len(self._draft) or choices[best] != self._draft[agreed]:
                break
            agreed += 1
        self.cached += agreed
        if not self.done:
            self.pending = self.tokens[-1:]
            self._take_forced()

    def fail(self, error: str) -> None:
        """End without an answer."""
        self.error = error
        self.done = True

    def answer(self) -> ConstrainedAnswer:
        """Return what was written, with the probability of each entity."""
        if self.error:
            return ConstrainedAnswer((), "", (), (), (), self.passes, self.error)
        pieces = [self._grammar.vocabulary[token] for token in self.tokens]
        written = b"".join(pieces)
        spans = self._grammar.read(written)
        decided = [decision for piece, decision in self._grammar.pieces(spans) for _ in piece]
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
            text=written.removeprefix(self._grammar.prefix).decode(),
            scores=scores,
            tokens=tuple(self.tokens),
            log_probabilities=tuple(self.log_probabilities),
            passes=self.passes,
        )

    def _written(self) -> bytes:
        return b"".join(self._grammar.vocabulary[token] for token in self.tokens)

    def _take(self, token: int, log_probability: float) -> None:
        self._state = self._grammar.allowed_tokens(self._state)[token]
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        if token == self._grammar.vocabulary.end_token:
            self.done = True
            self._guesses.learn(self.text, self._grammar.read(self._written()))

    def _take_forced(self) -> None:
        """Take tokens that have no alternative: they need no logits, and reach the model with the next pass."""
        while not self.done and len(only := list(self._grammar.allowed_tokens(self._state))) == 1:
            self._take(only[0], 0.0)
            self.pending.append(only[0])


class _Batch:
    """The rows that go through the model together.

    Attributes:
        active: the row in each place that is taken.
    """

    def __init__(self, model: PreTrainedModel, draft_tokens: int, max_length: int | None) -> None:
        self.active: dict[int, _Row] = {}
        self._packed = _PackedModel(model)
        self._shared: list[int] = []
        self._draft_tokens = draft_tokens
        self._max_length = max_length or sys.maxsize

    def share(self, prompts: Sequence[Sequence[int]]) -> None:
        """Compute what the prompts begin with."""
        self._shared = shared_beginning(prompts, self._max_length)
        if self._shared:
            self._packed.forward([_Chunk(_EVERYONE, 0, self._shared, (), shared=0)])

    def enter(self, rows: Sequence[_Row]) -> None:
        """Give each row a free place; it need not compute what it begins with as the shared tokens do."""
        free = (place for place in count() if place not in self.active)
        for place, row in zip(free, rows, strict=False):
            self.active[place] = row
            row.shared = row.cached = len(common_prefix([self._shared, row.pending[:-1]]))
            row.pending = row.pending[row.shared :]

    def step(self) -> None:
        """Take all rows through the model once; those that are done leave."""
        allowed = {place: self._plan(row) for place, row in self.active.items()}
        going = {place: row for place, row in self.active.items() if not row.done}
        if going:
            chunks = [_Chunk(place, row.cached, row.coming, allowed[place], row.shared) for place, row in going.items()]
            for (place, row), values in zip(going.items(), self._packed.forward(chunks), strict=True):
                row.accept(allowed[place], values)
        self._packed.keep({place: 0 if row.done else row.cached for place, row in self.active.items()})
        self.active = {place: row for place, row in self.active.items() if not row.done}

    def _plan(self, row: _Row) -> list[list[int]]:
        room = self._max_length - row.cached - len(row.pending)
        if room < 0:
            row.fail(too_long_for(self._max_length))
            return []
        return row.plan(min(self._draft_tokens, room))


@dataclass(frozen=True)
class _Chunk:
    """Tokens of one row for one pass; ``allowed`` holds the choices after the last ``len(allowed)`` of them.

    The row sees the first ``shared`` tokens of what was computed for everyone.
    """

    owner: int
    position: int
    ids: Sequence[int]
    allowed: Sequence[list[int]]
    shared: int


_EVERYONE = -1


class _PackedModel:
    """A model and its cache, in which the tokens of all rows lie one after another; only the mask tells them apart."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device
        self._owners = torch.empty(0, dtype=torch.long, device=self._device)
        self._positions = torch.empty(0, dtype=torch.long, device=self._device)
        self._output = _plain_output_weights(model)

    @torch.inference_mode()
    def forward(self, chunks: Sequence[_Chunk]) -> list[list[np.ndarray]]:
        """Return the logits of each chunk's choices, in float64."""
        ids = self._tensor([token for chunk in chunks for token in chunk.ids])
        owners = self._tensor([chunk.owner for chunk in chunks for _ in chunk.ids])
        positions = self._tensor([chunk.position + place for chunk in chunks for place in range(len(chunk.ids))])
        shared = self._tensor([chunk.shared for chunk in chunks for _ in chunk.ids])
        self._owners = torch.cat([self._owners, owners])
        self._positions = torch.cat([self._positions, positions])
        inputs: dict[str, Any] = {
            "input_ids": ids[None],
            "position_ids": positions[None],
            "attention_mask": self._mask(owners, positions, shared),
            "past_key_values": self._cache,
            "use_cache": True,
        }
        allowed = [choices for chunk in chunks for choices in chunk.allowed]
        if not allowed:
            self._model(**inputs, logits_to_keep=self._tensor([]))
            return [[] for _ in chunks]
        values = self._values(inputs, self._tensor(list(_places_of_choices(chunks))), allowed)
        parts = iter(np.split(values, np.cumsum([len(choices) for choices in allowed])[:-1]))
        return [[next(parts) for _ in chunk.allowed] for chunk in chunks]

    @torch.inference_mode()
    def keep(self, lengths: dict[int, int]) -> None:
        """Forget what lies beyond the first ``lengths[owner]`` positions of each owner."""
        limits = torch.full((max(lengths) + 2,), torch.iinfo(torch.long).max, device=self._device)
        limits[list(lengths)] = self._tensor(list(lengths.values()))
        # The owner -1 finds the last limit, which is none.
        kept = (self._positions < limits[self._owners]).nonzero().squeeze(-1)
        self._owners, self._positions = self._owners[kept], self._positions[kept]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys.index_select(-2, kept), layer.values.index_select(-2, kept)

    def _mask(self, owners: Tensor, positions: Tensor, shared: Tensor) -> Tensor:
        """Return what is added to attention scores, (1, 1, tokens, slots): a row sees what it shares and its own past."""
        begins_alike = (self._owners == _EVERYONE) & (self._positions < shared[:, None])
        seen = begins_alike | (self._owners == owners[:, None])
        seen &= self._positions <= positions[:, None]
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=self._device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[None, None]

    def _values(self, inputs: dict[str, Any], places: Tensor, allowed: Sequence[list[int]]) -> np.ndarray:
        """Return the logits of all choices in a row; only these few leave the device."""
        choice_of = self._tensor([choice for choice, tokens in enumerate(allowed) for _ in tokens])
        tokens = self._tensor([token for choices in allowed for token in choices])
        if self._output is None:
            logits = self._model(**inputs, logits_to_keep=places).logits[0]
            values = logits[choice_of, tokens]
        else:
            output = self._model(**inputs, logits_to_keep=self._tensor([]), output_hidden_states=True)
            values = (output.hidden_states[-1][0, places[choice_of]] * self._output[tokens]).sum(-1)
        return np.asarray(values.double().cpu().numpy())

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)


@torch.inference_mode()
def _plain_output_weights(model: PreTrainedModel) -> Tensor | None:
    """Return the rows that score each token, (vocabulary, width), if a score is but their product with the last state.

    Few tokens are allowed at a place, so that scoring these alone saves a good part of the pass. None for a model that
    scales, bends or adapts its scores.
    """
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
        return None
    tried = torch.arange(min(4, len(layer.weight)), device=model.device)[None]
    output = model(input_ids=tried, use_cache=False, output_hidden_states=True)
    expected = output.hidden_states[-1] @ layer.weight.T
    return layer.weight if torch.allclose(output.logits, expected, rtol=1e-3, atol=1e-3) else None


def _places_of_choices(chunks: Sequence[_Chunk]) -> Iterator[int]:
    end = 0
    for chunk in chunks:
        end += len(chunk.ids)
        yield from range(end - len(chunk.allowed), end)


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
