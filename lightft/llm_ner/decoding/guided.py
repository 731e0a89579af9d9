"""GuidedDecoder: a language model names the entities of texts in JSON that is always whole and always of the text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lightft.errors import EngineError, InvalidSettingError, suggest
from lightft.extras import package_of_extra
from lightft.llm_ner.decoding.json_grammar import WRITERS, Mentions, Writer, check_labels
from lightft.llm_ner.decoding.prefixes import common_prefix
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
        error: why there is no answer, as where a text is more than llguidance can take; empty where there is one.
    """

    text: str
    pieces: tuple[tuple[str, float], ...]
    finished: bool
    error: str = ""


class GuidedDecoder:
    """Lets a model name the entities of texts in JSON; greedy among the tokens that a grammar allows.

    Types are the asked ones, and mentions are runs of whole words of the text in JSON escapes, without white space at the
    ends. Words are what stands between characters that are no letters or digits; in scripts without capitals, many of
    which write no spaces, every letter is a word. A mention is given to a type at most as often as the text holds it, and
    a type has at most as many mentions as the text has words. So every answer ends, and its format reads a whole one as
    ``"ok"``. The masks are those of llguidance (https://github.com/guidance-ai/llguidance); how grammars become masks
    over tokens: Willard and Louf 2023, arXiv 2307.09702.

    An answer is that of decoding token by token, in fewer passes. A token without alternative needs none of its own. Nor
    does what is likely to follow, such as the rest of a word or of the JSON between two mentions: it goes through the model
    with the token before it, and counts up to the first token that the model would have written otherwise. What the prompts
    of a batch begin with is computed once. Where two tokens are equally likely up to rounding, the number of tokens per pass
    may decide between them.

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
                    batch = [self._row(prompts[number], texts[number], max_new_tokens[number]) for number in numbers]
                    _write(self._model, batch)
                    answers.update((number, row.answer()) for number, row in zip(numbers, batch, strict=True))
        finally:
            self._model.train(was_training)
        return [answers[number] for number in range(len(prompts))]

    def _row(self, prompt: Sequence[int], text: str, limit: int) -> _Row:
        return _Row(self._engine, self._writer(Mentions(text, self._vocabulary), self._labels), prompt, limit)


def _write(model: PreTrainedModel, rows: Sequence[_Row]) -> None:
    """Write all rows to their ends; a row that is done leaves the batch."""
    active = [row for row in rows if not row.done]
    cached = _CachedModel(model, len(active))
    if len(active) > 1:
        shared = common_prefix([row.pending[:-1] for row in active])
        cached.share(shared)
        for row in active:
            row.leave_out(len(shared))
    while active:
        logits = cached.forward([row.coming for row in active], [len(row.draft) + 1 for row in active])
        _accept(active, logits)
        going = [place for place, row in enumerate(active) if not row.done]
        active = [active[place] for place in going]
        cached.keep(going, [row.cached for row in active])


def _accept(rows: Sequence[_Row], logits: Sequence[Tensor]) -> None:
    """Let each row take the model's tokens up to the first that its draft has not."""
    agreeing = list(zip(rows, logits, strict=True))
    step = 0
    while agreeing:
        agrees = _choose(torch.stack([scores[step] for _, scores in agreeing]), [row for row, _ in agreeing])
        agreeing = [pair for pair, goes_on in zip(agreeing, agrees, strict=True) if goes_on]
        step += 1
    for row in rows:
        row.go_on()


def _choose(logits: Tensor, rows: Sequence[_Row]) -> list[bool]:
    """Give each row the likeliest of its tokens, and say which drafts have it; only the logits of those leave the device."""
    sizes = [len(row.allowed) for row in rows]
    places = torch.from_numpy(np.repeat(np.arange(len(rows)), sizes)).to(logits.device)
    tokens = torch.from_numpy(np.concatenate([row.allowed for row in rows])).to(logits.device)
    values = np.split(logits[places, tokens].double().cpu().numpy(), np.cumsum(sizes)[:-1])
    agrees = []
    for row, scores in zip(rows, values, strict=True):
        best = int(scores.argmax())
        agrees.append(row.accept(int(row.allowed[best]), float(scores[best] - np.logaddexp.reduce(scores))))
    return agrees


class _Row:
    """One answer on its way.

    Attributes:
        pending: tokens that are decided but not yet in the model's cache; at first the prompt.
        draft: tokens that are likely to follow them, which go through the model in the same pass.
        cached: how many of its tokens are in the model's cache.
        allowed: the ids of the tokens that may follow, in order.
        error: why there is no answer; empty where there is one.
    """

    def __init__(self, engine: _Engine, writer: Writer, prompt: Sequence[int], limit: int) -> None:
        self.pending = list(prompt)
        self.draft: list[int] = []
        self.cached = 0
        self.allowed = np.empty(0, np.int64)
        self.error = ""
        self._engine = engine
        self._writer = writer
        self._limit = limit
        self._prefix = engine.vocabulary.prefix("{")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[tuple[str, float]] = []
        self._last = -1
        self._agreed = 0
        self._finished = False
        try:
            self._begin(self._prefix.decode())
        except EngineError as error:
            self.error = str(error)
        self._look_ahead()

    @property
    def done(self) -> bool:
        """Whether the answer is whole, as long as it may be, or cannot go on."""
        return self._finished or len(self._pieces) == self._limit or bool(self.error)

    @property
    def coming(self) -> list[int]:
        """The tokens that go through the model next."""
        return [*self.pending, *self.draft]

    def leave_out(self, shared: int) -> None:
        """Take the first so many tokens as cached."""
        self.pending = self.pending[shared:]
        self.cached = shared

    def take(self, token: int, log_probability: float) -> None:
        """Write a token."""
        self._last = token
        written = self._engine.vocabulary[token]
        # What a prefix token writes besides the prefix is the answer's.
        piece = written.removeprefix(b"" if self._pieces else self._prefix)
        self._pieces.append((self._decoder.decode(piece), log_probability))
        self._written += written
        try:
            self._follow(token)
        except EngineError as error:
            self.error = str(error)

    def accept(self, token: int, log_probability: float) -> bool:
        """Write the model's token; return whether the draft has it too, so that what follows it is known already."""
        self.take(token, log_probability)
        if self.done or self._agreed == len(self.draft) or self.draft[self._agreed] != token:
            return False
        self._agreed += 1
        return True

    def go_on(self) -> None:
        """Prepare the next pass."""
        self.cached += len(self.pending) + self._agreed
        self.pending = [self._last]
        self._look_ahead()

    def answer(self) -> GuidedAnswer:
        if self.error:
            return GuidedAnswer("", (), False, self.error)
        return GuidedAnswer("".join(piece for piece, _ in self._pieces), tuple(self._pieces), self._finished)

    def _look_ahead(self) -> None:
        """Take tokens that have no alternative, which need no logits, and draft what is likely to follow."""
        self._agreed = 0
        self.draft = []
        while not self.done and len(self.allowed) == 1:
            self.take(int(self.allowed[0]), 0.0)
            self.pending.append(self._last)
        if not self.done:
            likely = self._engine.tokens_of(self._segment.likely(self._written))
            self.draft = likely[: self._limit - len(self._pieces)]

    def _begin(self, prefix: str) -> None:
        """Go on to the next segment; no token crosses from one to the next, so that each has a grammar of its own."""
        self._segment = self._writer.segment(prefix)
        self._matcher = self._engine.matcher(self._segment.grammar())
        self._written = b""
        self.allowed = self._engine.allowed_tokens(self._matcher)

    def _follow(self, token: int) -> None:
        """Find out what may follow a token."""
        self._engine.take(self._matcher, token)
        if not self._matcher.is_accepting():
            self.allowed = self._engine.allowed_tokens(self._matcher)
            return
        self._finished = not self._writer.take(*self._segment.read(self._written.decode()))
        if not self._finished:
            self._begin("")


class _CachedModel:
    """A model and its cache, in which the tokens of all rows end at the same slot; the padding before them is masked.

    The cache keeps every layer whole: one that knows of the model's attention window would drop tokens for those of a draft
    that was wrong. The model's own mask still has the window.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device
        self._lengths = [0] * rows

    def share(self, shared: Sequence[int]) -> None:
        """Compute what all rows begin with, once."""
        if not shared:
            return
        rows, self._lengths = len(self._lengths), [0]
        self.forward([shared], [1])
        self._cache.batch_repeat_interleave(rows)
        self._lengths = [len(shared)] * rows

    def forward(self, coming: Sequence[Sequence[int]], scored: Sequence[int]) -> list[Tensor]:
        """Take each row's tokens through the model.

        Returns:
            For each row the logits after the last ``scored`` of its tokens, of shape (scored, vocabulary).
        """
        width, slots = max(map(len, coming)), max(self._lengths)
        rows = [(length, len(tokens)) for length, tokens in zip(self._lengths, coming, strict=True)]
        # Padding is never seen, so that any token will do, at any position that the model knows.
        ids = [[*tokens, *[0] * (width - len(tokens))] for tokens in coming]
        positions = [[length + min(place, new - 1) for place in range(width)] for length, new in rows]
        mask = [[0] * (slots - length) + [1] * (length + new) + [0] * (width - new) for length, new in rows]
        begins = [new - count for (_, new), count in zip(rows, scored, strict=True)]
        places = sorted({begin + step for begin, count in zip(begins, scored, strict=True) for step in range(count)})
        logits = self._model(
            input_ids=self._tensor(ids),
            attention_mask=self._tensor(mask),
            position_ids=self._tensor(positions),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=self._tensor(places),
        ).logits
        firsts = [places.index(begin) for begin in begins]
        return [logits[row, first : first + scored[row]] for row, first in enumerate(firsts)]

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Forget all but these rows, and of each what lies beyond its first so many tokens."""
        if not rows:
            return
        slots, longest = max(self._lengths), max(lengths)
        firsts = [slots - self._lengths[row] - (longest - length) for row, length in zip(rows, lengths, strict=True)]
        # Where padding goes, any slot will do.
        kept = (self._tensor(firsts)[:, None] + torch.arange(longest, device=self._device)).clamp(min=0)
        places = self._tensor(rows)
        for layer in self._cache.layers:
            layer.keys = torch.take_along_dim(layer.keys[places], kept[:, None, :, None], dim=-2)
            layer.values = torch.take_along_dim(layer.values[places], kept[:, None, :, None], dim=-2)
        self._lengths = list(lengths)

    def _tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)


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

    def tokens_of(self, written: bytes) -> list[int]:
        """Return tokens that write this, each as long as can be; none from where no token goes on."""
        tokens: list[int] = []
        place = 0
        while piece := self.vocabulary.longest(written, place):
            # The last, for the bytes of SentencePiece stand before the tokens that models use.
            tokens.append(self.vocabulary.ids[piece][-1])
            place += len(piece)
        return tokens

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
