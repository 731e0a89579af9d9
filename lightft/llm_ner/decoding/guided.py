"""GuidedDecoder: a language model names the entities of texts in JSON that is always whole and always of the text."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lightft.errors import EngineError, InvalidSettingError, suggest
from lightft.extras import package_of_extra
from lightft.llm_ner.decoding.json_grammar import WRITERS, Mentions, Writer, check_labels
from lightft.llm_ner.decoding.model_window import too_long_for
from lightft.llm_ner.decoding.prefixes import common_prefix, shared_beginning
from lightft.llm_ner.decoding.refilled_batch import done_in_order
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
    with the token before it, and counts up to the first token that the model would have written otherwise. The next text
    enters when one is done. What prompts begin with is computed once. Where two tokens are equally likely up to rounding,
    the number of tokens per pass may decide between them.

    Args:
        model: a causal language model with attention.
        vocabulary: of the model's tokenizer.
        labels: the types.
        format: ``"categories"`` or ``"objects"``.
        rows: texts per pass.
        max_length: tokens of prompt and answer together at most; None for no end.

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
        max_length: int | None = None,
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
        self._max_length = max_length or sys.maxsize
        self._engine = _Engine(vocabulary)

    def answers(self, asked: Iterable[tuple[Sequence[int], str, int]]) -> Iterator[GuidedAnswer]:
        """Yield one answer for each ``(prompt, text, max_new_tokens)``, in order; some of them are read ahead.

        A text that leaves no room for an answer, or that llguidance cannot take, has an ``error``.

        Args:
            asked: the token ids before an answer, never empty; the text, whose words with characters that the tokenizer
                cannot write are in no mention; and how many tokens the answer may have.

        Raises:
            InvalidSettingError: a prompt is empty, or a limit below 1.
        """
        coming = iter(asked)
        ahead = list(islice(coming, self._rows))
        waiting = (self._row(*one) for one in chain(ahead, coming))
        was_training = self._model.training
        self._model.eval()
        try:
            batch = _Batch(self._model, shared_beginning([prompt for prompt, _, _ in ahead], self._max_length))
            for row in done_in_order(waiting, batch, most=self._rows):
                yield row.answer()
        finally:
            self._model.train(was_training)

    def _row(self, prompt: Sequence[int], text: str, max_new_tokens: int) -> _Row:
        if not prompt or max_new_tokens < 1:
            raise InvalidSettingError(
                "A prompt is empty, or an answer may have no token. Give each at least one token and max_new_tokens of 1."
            )
        limit = min(max_new_tokens, self._max_length - len(prompt))
        writer = self._writer(Mentions(text, self._vocabulary), self._labels)
        return _Row(self._engine, writer, prompt, limit, error="" if limit > 0 else too_long_for(self._max_length))


class _Batch:
    """The rows that go through the model together.

    Attributes:
        active: those that are not done.
    """

    def __init__(self, model: PreTrainedModel, shared: list[int]) -> None:
        self.active: list[_Row] = []
        self._cached = _CachedModel(model)
        self._shared = shared
        self._beginning = _CachedModel(model, rows=1)
        if shared:
            self._beginning.forward([shared], [1])

    def enter(self, rows: Sequence[_Row]) -> None:
        """Take rows in; they need not compute what they begin with as the shared tokens do."""
        if not rows:
            return
        shared = len(common_prefix([self._shared, *(row.pending[:-1] for row in rows)]))
        for row in rows:
            row.leave_out(shared)
        # Their prompts go alone: beside them, the few tokens of each other row would be padded to a prompt's length.
        newcomers = self._beginning.repeated(shared, rows=len(rows))
        self.active += _advance(newcomers, rows)
        self._cached.join(newcomers)

    def step(self) -> None:
        """Take all rows through the model once; those that are done leave."""
        self.active = _advance(self._cached, self.active)


def _advance(cached: _CachedModel, rows: Sequence[_Row]) -> list[_Row]:
    """Take the rows of a cache through the model once; return those that are not done, which alone it keeps."""
    _accept(rows, cached.forward([row.coming for row in rows], [len(row.draft) + 1 for row in rows]))
    going = [place for place, row in enumerate(rows) if not row.done]
    active = [rows[place] for place in going]
    cached.keep(going, [row.cached for row in active])
    return active


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

    def __init__(self, engine: _Engine, writer: Writer, prompt: Sequence[int], limit: int, *, error: str = "") -> None:
        self.pending = list(prompt)
        self.draft: list[int] = []
        self.cached = 0
        self.allowed = np.empty(0, np.int64)
        self.error = error
        self._engine = engine
        self._writer = writer
        self._limit = limit
        self._prefix = engine.vocabulary.prefix("{")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[tuple[str, float]] = []
        self._last = -1
        self._agreed = 0
        self._finished = False
        if not error:
            self._start()

    def _start(self) -> None:
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

    def __init__(self, model: PreTrainedModel, *, rows: int = 0) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device
        self._lengths = [0] * rows

    @torch.inference_mode()
    def repeated(self, length: int, *, rows: int) -> _CachedModel:
        """Return a cache of so many rows, each with the first ``length`` tokens of this one's only row."""
        copy = _CachedModel(self._model)
        copy._lengths = [length] * rows
        for number, layer in enumerate(self._cache.layers if length else ()):
            begins = [states[:, :, :length].expand(rows, -1, -1, -1) for states in (layer.keys, layer.values)]
            copy._cache.update(*begins, number)
        return copy

    @torch.inference_mode()
    def join(self, other: _CachedModel) -> None:
        """Take over the rows of another, behind one's own; the other is not to be used any more."""
        if not self._lengths:
            self._cache, self._lengths = other._cache, other._lengths
        elif other._lengths:
            slots = max(*self._lengths, *other._lengths)
            for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
                mine.keys = torch.cat([_led_by_padding(mine.keys, slots), _led_by_padding(theirs.keys, slots)])
                mine.values = torch.cat([_led_by_padding(mine.values, slots), _led_by_padding(theirs.values, slots)])
            self._lengths = [*self._lengths, *other._lengths]

    @torch.inference_mode()
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

    @torch.inference_mode()
    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Forget all but these rows, and of each what lies beyond its first so many tokens."""
        if not rows:
            self._cache, self._lengths = DynamicCache(), []
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


def _led_by_padding(states: Tensor, slots: int) -> Tensor:
    """Return keys or values, (rows, heads, tokens, width), as the last of so many slots."""
    return torch.nn.functional.pad(states, (0, 0, slots - states.shape[-2], 0))


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
