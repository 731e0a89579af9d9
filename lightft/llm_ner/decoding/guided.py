"""GuidedDecoder: a language model names the entities of texts in JSON that is always whole and always of the text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel

from lightft.errors import EngineError, InvalidSettingError, suggest
from lightft.extras import package_of_extra
from lightft.llm_ner.decoding.json_grammar import WRITERS, Mentions, Writer, check_labels
from lightft.llm_ner.decoding.token_bytes import TokenBytes

__all__ = ["GuidedAnswer", "GuidedDecoder"]


@dataclass(frozen=True)
class GuidedAnswer:
    """What a model wrote for one text.

    Attributes:
        text: the answer, without the end token.
        pieces: each token of the answer as text, with its log-probability among the tokens that the grammar allowed; 0
            where there was no choice. A character that several tokens write belongs to the last of them.
        finished: whether the answer is whole; else ``max_new_tokens`` cut it.
    """

    text: str
    pieces: tuple[tuple[str, float], ...]
    finished: bool


class GuidedDecoder:
    """Lets a model name the entities of texts in JSON; greedy among the tokens that a grammar allows.

    Types are the asked ones, and mentions are runs of whole words of the text in JSON escapes, without white space at the
    ends. Words are what stands between characters that are no letters or digits; in scripts without capitals, many of
    which write no spaces, every letter is a word. A mention is given to a type at most as often as the text holds it, and
    a type has at most as many mentions as the text has words. So every answer ends, and its format reads a whole one as
    ``"ok"``. The masks are those of llguidance (https://github.com/guidance-ai/llguidance); how grammars become masks
    over tokens: Willard and Louf 2023, arXiv 2307.09702.

    Args:
        model: a causal language model with attention.
        vocabulary: of the model's tokenizer.
        labels: the types.
        format: ``"categories"`` or ``"objects"``.
        rows: texts per pass.

    Raises:
        MissingExtraError: llguidance is not installed.
        InvalidSettingError: a setting is outside what is accepted, or the model is of a kind that cannot be used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: TokenBytes,
        labels: Sequence[str],
        *,
        format: str,
        rows: int = 8,
    ) -> None:
        if rows < 1:
            raise InvalidSettingError(f"rows is {rows}. Use at least 1.")
        if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
            raise InvalidSettingError(
                f"Guided decoding keeps its own cache, which {model.active_peft_config.peft_type.value} does not allow. "
                "Use an adapter on weights, such as LoRA."
            )
        if format not in WRITERS:
            raise InvalidSettingError(f"There is no guide for format {format!r}. {suggest(format, WRITERS)}")
        check_labels(labels, vocabulary)
        self._model = model
        self._vocabulary = vocabulary
        self._labels = tuple(labels)
        self._writer = WRITERS[format]
        self._rows = rows
        self._engine = _Engine(vocabulary)

    def answers(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[str], *, max_new_tokens: Sequence[int]
    ) -> list[GuidedAnswer]:
        """Return one answer per text, in order.

        Args:
            prompts: token ids before each answer, never empty.
            texts: one per prompt. Words with characters that the tokenizer cannot write are in no mention.
            max_new_tokens: of each answer.

        Raises:
            InvalidSettingError: a prompt is empty, or a limit below 1.
            EngineError: a text is more than llguidance can take.
        """
        if not all(prompts) or min(max_new_tokens, default=1) < 1:
            raise InvalidSettingError(
                "A prompt is empty, or an answer may have no token. Give each at least one token and max_new_tokens of 1."
            )
        answers: dict[int, GuidedAnswer] = {}
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                # Those that take about as many passes go together.
                order = sorted(range(len(prompts)), key=lambda number: (max_new_tokens[number], len(prompts[number])))
                for first in range(0, len(order), self._rows):
                    numbers = order[first : first + self._rows]
                    batch = [self._row(texts[number], max_new_tokens[number]) for number in numbers]
                    _decode(self._model, batch, [prompts[number] for number in numbers])
                    answers.update((number, row.answer()) for number, row in zip(numbers, batch, strict=True))
        finally:
            self._model.train(was_training)
        return [answers[number] for number in range(len(prompts))]

    def _row(self, text: str, limit: int) -> _Row:
        return _Row(self._engine, self._writer(Mentions(text, self._vocabulary), self._labels), limit)


def _decode(model: PreTrainedModel, rows: Sequence[_Row], prompts: Sequence[Sequence[int]]) -> None:
    """Write all rows to their ends; a row that is done leaves the batch."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    # Padding is never seen, so that any token will do.
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    active = list(rows)
    while True:
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        written = _choose(logits, active)
        kept = [place for place, row in enumerate(active) if not row.done]
        if not kept:
            return
        if len(kept) < len(active):
            active = [active[place] for place in kept]
            places = torch.tensor(kept, device=device)
            cache.batch_select_indices(places)
            mask, positions = mask[places], positions[places]
        ids = torch.tensor([[written[place]] for place in kept], device=device)
        mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=-1)
        positions = positions[:, -1:] + 1


def _choose(logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
    """Give each row the likeliest of its tokens; only the logits of those leave the device."""
    allowed = [row.allowed_tokens() for row in rows]
    sizes = [len(tokens) for tokens in allowed]
    places = torch.from_numpy(np.repeat(np.arange(len(rows)), sizes)).to(logits.device)
    tokens = torch.from_numpy(np.concatenate(allowed)).to(logits.device)
    values = np.split(logits[places, tokens].double().cpu().numpy(), np.cumsum(sizes)[:-1])
    chosen = []
    for row, choices, scores in zip(rows, allowed, values, strict=True):
        best = int(scores.argmax())
        chosen.append(int(choices[best]))
        row.take(chosen[-1], float(scores[best] - np.logaddexp.reduce(scores)))
    return chosen


class _Row:
    """One answer on its way: ``done`` when it is whole or as long as it may be."""

    def __init__(self, engine: _Engine, writer: Writer, limit: int) -> None:
        self._engine = engine
        self._writer = writer
        self._limit = limit
        self._prefix = engine.vocabulary.prefix("{")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[tuple[str, float]] = []
        self._finished = False
        self._begin(self._prefix.decode())

    @property
    def done(self) -> bool:
        return self._finished or len(self._pieces) == self._limit

    def allowed_tokens(self) -> np.ndarray:
        """Return the ids of the tokens that may follow, in order."""
        return self._engine.allowed_tokens(self._matcher)

    def take(self, token: int, log_probability: float) -> None:
        self._engine.take(self._matcher, token)
        self._written += self._engine.vocabulary[token]
        # What a prefix token writes besides the prefix is the answer's.
        piece = self._engine.vocabulary[token].removeprefix(b"" if self._pieces else self._prefix)
        self._pieces.append((self._decoder.decode(piece), log_probability))
        if self._matcher.is_accepting():
            mention, ending = self._segment.read(self._written.decode())
            self._finished = not self._writer.take(mention, ending)
            if not self._finished:
                self._begin("")

    def answer(self) -> GuidedAnswer:
        return GuidedAnswer("".join(piece for piece, _ in self._pieces), tuple(self._pieces), self._finished)

    def _begin(self, prefix: str) -> None:
        """Go on to the next segment; no token crosses from one to the next, so that each has a grammar of its own."""
        self._segment = self._writer.segment(prefix)
        self._matcher = self._engine.matcher(self._segment.grammar())
        self._written = b""


class _Engine:
    """llguidance over a model's vocabulary; only tokens that write text are in it, so no control token can be written."""

    def __init__(self, vocabulary: TokenBytes) -> None:
        llguidance = package_of_extra("llguidance", "llm", "Answers guided by a grammar need llguidance")
        self.vocabulary = vocabulary
        self._llguidance = llguidance
        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_TokenTable(vocabulary)), slices=[])

    def matcher(self, grammar: str) -> Any:
        """Return what follows one segment."""
        matcher = self._llguidance.LLMatcher(
            self._tokenizer, self._llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0
        )
        self._check(matcher)
        return matcher

    def allowed_tokens(self, matcher: Any) -> np.ndarray:
        """Return the ids of the tokens that may follow, in order."""
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        self._check(matcher)
        return np.flatnonzero(bits)

    def take(self, matcher: Any, token: int) -> None:
        """Go on by a token."""
        matcher.consume_token(token)
        self._check(matcher)

    def _check(self, matcher: Any) -> None:
        if matcher.is_error():
            raise EngineError(
                f"llguidance stopped: {matcher.get_error()[:200]} Cut long texts into shorter ones, or ask without guide."
            )


class _TokenTable:
    """What llguidance wants to know of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: TokenBytes) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.end_token
        last = max([vocabulary.end_token, *(token for tokens in vocabulary.ids.values() for token in tokens)])
        self.tokens = [vocabulary[token] for token in range(last + 1)]
        self.special_token_ids = [token for token, piece in enumerate(self.tokens) if not piece]

    def __call__(self, text: str) -> list[int]:
        return self._vocabulary.tokenised(text)
