"""Writing: a language model's answer, whole or piece by piece, for as long as someone waits for it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightft.errors import ModelLoadError
from lightft.records import Message
from lightft.serving.problems import RefusedError, queue_full
from lightft.serving.settings import ServeSettings

if TYPE_CHECKING:
    from lightft.inference import Predictor

__all__ = ["Writer", "Written"]


@dataclass(frozen=True)
class Written:
    """What a model wrote, how many tokens it took, and whether the model ended it or the limit did."""

    text: str
    new_tokens: int
    finish: Literal["end", "length"]


class Writer:
    """Lets the language models of one base write, one conversation at a time, in the order in which they were asked.

    Args:
        predictors: the models by name.
        worker: runs one model at a time, outside the event loop.
        settings: of the service.
    """

    def __init__(self, predictors: Mapping[str, Predictor], worker: Executor, settings: ServeSettings) -> None:
        self._predictors = predictors
        self._worker = worker
        self._settings = settings
        self._asked = 0

    @property
    def waiting(self) -> int:
        """How many conversations wait or are being answered."""
        return self._asked

    def retry_after(self) -> int | None:
        """Return the seconds after which to come back, where too many conversations wait now; else None."""
        full = self._asked > self._settings.queue_generations
        return math.ceil(self._settings.generation_seconds / 10) if full else None

    async def warm_up(self, model: str) -> None:
        """Let a model write a token before there are requests, for as long as that takes.

        Raises:
            ModelLoadError: it cannot be asked the simplest question.
        """
        predictor, messages = self._predictors[model], [Message("user", "Say hello.")]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._worker, _write, predictor, messages, 1, lambda piece: None, lambda: False)
        except RefusedError as refusal:
            raise ModelLoadError(
                f"The model {model!r} cannot be asked anything: its chat template makes no prompt of a message, or one "
                f"beyond its window of {predictor.max_length} tokens. Restore the files of its tokenizer."
            ) from refusal

    async def write(self, model: str, messages: Sequence[Message], max_new_tokens: int) -> AsyncIterator[str | Written]:
        """Yield an empty string when the model starts, each piece as it is written, and the whole at the end.

        Whoever stops listening stops the model at its next token.

        Raises:
            RefusedError: 503 when too many wait, 413 or 422 when the model cannot be asked this, 504 when it is too late.
        """
        seconds = self.retry_after()
        if seconds is not None:
            raise queue_full(seconds)
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[str | Written | BaseException] = asyncio.Queue()
        over = threading.Event()
        ends = time.monotonic() + self._settings.generation_seconds

        def tell(event: str | Written | BaseException) -> None:
            if not over.is_set():
                loop.call_soon_threadsafe(told.put_nowait, event)

        def job() -> None:
            if over.is_set():
                return
            try:
                tell(_write(self._predictors[model], messages, max_new_tokens, tell, lambda: over.is_set() or late()))
            except Exception as error:  # whatever a model may raise belongs to the request, not to the worker
                tell(error)

        def late() -> bool:
            return time.monotonic() > ends

        self._asked += 1
        waiting = loop.run_in_executor(self._worker, job)
        try:
            while True:
                try:
                    event = await asyncio.wait_for(told.get(), max(0.0, ends - time.monotonic()))
                except asyncio.TimeoutError:
                    raise _too_late(self._settings.generation_seconds) from None
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Written):
                    return
        finally:
            over.set()
            waiting.cancel()
            self._asked -= 1


def _write(
    predictor: Predictor,
    messages: Sequence[Message],
    max_new_tokens: int,
    tell: Callable[[str], None],
    stop: Callable[[], bool],
) -> Written:
    """Write an answer in the worker's thread; what is written is exactly what ``Predictor.generate`` returns."""
    from lightft.serving.token_stream import StopWhen, TokenStream

    prompt = _prompt_length(messages, predictor)
    if prompt + max_new_tokens > predictor.max_length:
        raise RefusedError(
            413,
            "too_many_tokens",
            f"The prompt has {prompt} tokens and {max_new_tokens} may be written; the model reads "
            f"{predictor.max_length}. Shorten the prompt, or lower max_new_tokens",
        )
    tell("")
    stream = TokenStream(predictor.tokenizer, tell)
    options: dict[str, Any] = {"streamer": stream, "stopping_criteria": [StopWhen(stop)]}
    text = predictor.generate(list(messages), max_new_tokens=max_new_tokens, **options)
    ended = stream.last in _end_tokens(predictor)
    return Written(text, stream.tokens, "end" if ended else "length")


def _prompt_length(messages: Sequence[Message], predictor: Predictor) -> int:
    """Return how many tokens the model is asked with."""
    from lightft.tasks.conversations import prompt_tokens

    refusal = RefusedError(
        422,
        "conversation",
        "The model's chat template makes no prompt of this conversation. Send turns of user and assistant by turns, and a "
        "system message at most at the beginning",
        ("body", "messages"),
    )
    try:
        length = len(prompt_tokens(messages, predictor.tokenizer))
    except Exception as cause:  # a template is a program that came with the model: it may raise anything
        raise refusal from cause
    if not length:
        raise refusal
    return length


def _end_tokens(predictor: Predictor) -> set[int]:
    config: Any = predictor.model.generation_config
    ends = config.eos_token_id if config.eos_token_id is not None else predictor.tokenizer.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _too_late(seconds: float) -> RefusedError:
    return RefusedError(
        504, "too_late", f"The answer was not finished within {seconds:g} seconds. Ask for fewer tokens", ()
    )
