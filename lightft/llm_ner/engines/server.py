"""OpenAIServer: questions are answered by a server that speaks OpenAI's protocol, here or far away."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lightft.errors import EngineError, InvalidSettingError
from lightft.extras import package_of_extra
from lightft.llm_ner.engines.chat_response import error_message, read_answer, writable
from lightft.llm_ner.engines.engine import Answer, Question
from lightft.llm_ner.engines.event_loop import EventLoopThread
from lightft.llm_ner.engines.longest_answer import longest_answer

__all__ = ["OpenAIServer"]

_QUESTIONS_AHEAD = 4  # times the requests at once
_FAILURES_THAT_MEAN_GONE = 5
_CONNECT_SECONDS = 5.0
_NO_KEY = "no-api-key"
_OWN_FIELDS = ("messages", "model", "stream")


class OpenAIServer:
    """Asks a server that speaks OpenAI's chat protocol: vLLM, llama.cpp, Ollama, ``transformers serve`` and others.

    A question that fails after all retries, or whose answer is none, is an ``Answer`` with an error; the others go on. Only
    where nothing further can be answered, ``answers`` raises.

    Args:
        base_url: of the server, such as ``"http://localhost:8000/v1"``.
        model: its name on the server.
        api_key: by default the environment variable OPENAI_API_KEY; servers that want none ignore it.
        concurrency: how many requests run at once.
        retries: of a request that failed: by no connection, in time, or with status 408, 409, 429 or 500 and above. The
            waits between them double from half a second to 8, less a random part, or are as long as the server asks.
        timeout: the longest time of one request, in seconds.
        max_new_tokens: of an answer; None for 64, 1.5 per character of the text, and one for every two characters that an
            answer adds in which every word is an entity.
        log_probabilities: ask for those of the tokens, for ``Answer.pieces``. A server that refuses is asked without.
        options: further fields of the request, such as ``{"seed": 1}``; None leaves a field out. The temperature is 0
            unless it stands here.

    Raises:
        InvalidSettingError: a setting is outside what is accepted.
        MissingExtraError: the package openai is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 60.0,
        max_new_tokens: int | None = None,
        log_probabilities: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        openai_or_error()
        self.base_url = _checked_url(base_url)
        self.model_name = model
        self.concurrency = _checked("concurrency", concurrency, least=1)
        self.retries = _checked("retries", retries, least=0)
        self.max_new_tokens = max_new_tokens
        if max_new_tokens is not None:
            _checked("max_new_tokens", max_new_tokens, least=1)
        if not (math.isfinite(timeout) and timeout > 0):
            raise InvalidSettingError(f"timeout={timeout}, but a request needs some seconds. Try timeout=60.")
        self.timeout = timeout
        self.log_probabilities = log_probabilities
        self.options = _checked_options(options or {})
        self._key = _checked_key(api_key or os.environ.get("OPENAI_API_KEY") or _NO_KEY)
        self._asks_log_probabilities = log_probabilities

    def __repr__(self) -> str:
        return f"OpenAIServer({self.base_url!r}, {self.model_name!r})"

    def settings(self) -> Mapping[str, Any]:
        """Return what decides the answers: the server, and what is asked of it."""
        return {
            "engine": "server",
            "base_url": self.base_url,
            "max_new_tokens": self.max_new_tokens,
            "log_probabilities": self.log_probabilities,
            "options": {"temperature": 0, **self.options},
        }

    def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
        """Yield one answer per question, in order; questions are read at most four times ``concurrency`` ahead.

        Questions to which a server that is gone gave no answer are held back until it answers a later one, and then
        have an error.

        Args:
            questions: any number of them.
            labels: the types that are asked for.
            format: the name of the answer format.

        Raises:
            EngineError: the server refuses the key (401, 403), does not know the model (404), or is gone: five questions in
                a row, or all there were, had no connection or status 429, 502, 503 or 504.
        """
        unanswered: list[_Failure] = []
        has_answered = False
        asked_log_probabilities = self._asks_log_probabilities
        requests = (self._request(question, labels, format) for question in questions)
        with closing(self._outcomes(requests)) as outcomes:
            for outcome in outcomes:
                if asked_log_probabilities and not self._asks_log_probabilities:
                    asked_log_probabilities = False
                    warnings.warn(
                        f"{self.base_url} gives no log-probabilities, so that entities have no confidence.",
                        stacklevel=2,
                    )
                if isinstance(outcome, Answer):
                    yield from _without_answer(unanswered)
                    unanswered.clear()
                    has_answered = True
                    yield outcome
                    continue
                unanswered.append(outcome)
                if outcome.is_final or len(unanswered) == _FAILURES_THAT_MEAN_GONE:
                    raise EngineError(outcome.sentence)
        if unanswered and not has_answered:
            raise EngineError(unanswered[-1].sentence)
        yield from _without_answer(unanswered)

    def _outcomes(self, requests: Iterable[_Request]) -> Generator[Answer | _Failure, None, None]:
        client, slots = self._client(), asyncio.Semaphore(self.concurrency)

        async def ask_in_turn(request: _Request) -> Answer | _Failure:
            async with slots:
                return await self._ask(client, request)

        waiting: deque[Future[Answer | _Failure]] = deque()
        with EventLoopThread(client.close) as background:
            for request in requests:
                waiting.append(background.start(ask_in_turn, request))
                while waiting and (waiting[0].done() or len(waiting) == _QUESTIONS_AHEAD * self.concurrency):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    async def _ask(self, client: Any, request: _Request) -> Answer | _Failure:
        """Return what became of one question, with all its retries; never raises but when it is cancelled."""
        openai = openai_or_error()
        try:
            return read_answer(await self._body(client, request))
        except openai.APIStatusError as error:
            return self._refusal(error.status_code, self._words(error_message(error.response.content)))
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, _http().ReadTimeout):
                return Answer("", error=f"The server took more than {self.timeout:g} seconds, {self._tries}.")
            reason = self._words(str(error.__cause__)) or type(error.__cause__).__name__
            return _Failure(
                f"There is no connection to {self.base_url} ({reason}), {self._tries}. "
                "See that the server runs, and ask again."
            )
        except Exception as error:  # one bad question must not lose the others, whatever is wrong with it
            return Answer("", error=f"The server's answer cannot be read ({type(error).__name__}).")

    async def _body(self, client: Any, request: _Request) -> bytes:
        openai = openai_or_error()
        if not self._asks_log_probabilities:
            return await self._post(client, request)
        try:
            return await self._post(client, request, logprobs=True)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as refusal:
            if b"logprobs" not in refusal.response.content:
                raise
        body = await self._post(client, request)
        self._asks_log_probabilities = False
        return body

    async def _post(self, client: Any, request: _Request, **fields: Any) -> bytes:
        fields = {"temperature": 0, "max_tokens": request.max_tokens, **fields, **self.options}
        # The raw response: what the client makes of an answer without choices differs from version to version.
        response = await client.chat.completions.with_raw_response.create(
            model=self.model_name,
            messages=[{"role": turn.role, "content": writable(turn.content)} for turn in request.question.messages],
            extra_body={name: value for name, value in fields.items() if value is not None},
        )
        return bytes(response.http_response.content)

    def _request(self, question: Question, labels: Sequence[str], format: str) -> _Request:
        return _Request(question, self.max_new_tokens or _limit(question.text, labels, format))

    def _refusal(self, status: int, words: str) -> Answer | _Failure:
        said = f"(status {status}: {words})"
        if status in (401, 403):
            sentence = f"{self.base_url} refuses the API key {said}. Give api_key, or set OPENAI_API_KEY."
            return _Failure(sentence, is_final=True)
        if status == 404:
            return _Failure(
                f"{self.base_url} knows no model {self.model_name!r}, or is no address of this protocol {said}. "
                f"{self.base_url}/models lists the models of a server; most addresses end in /v1.",
                is_final=True,
            )
        if status in (429, 502, 503, 504):
            return _Failure(
                f"{self.base_url} takes no more questions {said}, {self._tries}. "
                "Ask again later, or with a lower concurrency."
            )
        return Answer("", error=f"The server gave no answer {said}.")

    @property
    def _tries(self) -> str:
        return f"in {self.retries + 1} tries" if self.retries else "in a single try"

    def _words(self, said: str) -> str:
        """Return the start of what is said about an error, on one line and without the key."""
        said = " ".join(said.replace(self._key, "***").split())
        return said if len(said) <= 200 else f"{said[:200]}…"

    def _client(self) -> Any:
        """Return openai's client, which is to be used in one event loop only."""
        openai = openai_or_error()
        http, timeout = _http(), self.timeout

        class WholeRequestTimed(openai.DefaultAsyncHttpxClient):  # type: ignore[misc, name-defined]
            """Ends a request after so many seconds, even where the server sends a letter now and then."""

            async def send(self, request: Any, **how: Any) -> Any:
                try:
                    return await asyncio.wait_for(super().send(request, **how), timeout)
                except asyncio.TimeoutError:
                    raise http.ReadTimeout("late", request=request) from None

        limits = openai.Timeout(None, connect=min(_CONNECT_SECONDS, timeout))
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self.base_url,
            max_retries=self.retries,
            timeout=limits,
            http_client=WholeRequestTimed(timeout=limits),
        )


@dataclass(frozen=True)
class _Request:
    """A question, and how many tokens its answer may have."""

    question: Question
    max_tokens: int


def _limit(text: str, labels: Sequence[str], format: str) -> int:
    """Return more tokens than an answer needs; a token of quotes, brackets and types has two letters and more."""
    added = len(longest_answer(text, labels, format)) - len(text)
    return 64 + 3 * len(text) // 2 + max(0, added) // 2


@dataclass(frozen=True)
class _Failure:
    """Why a question has no answer, where the reason lies with the server; ``is_final`` if no later one can have any."""

    sentence: str
    is_final: bool = False


def _without_answer(failures: Iterable[_Failure]) -> Iterator[Answer]:
    return (Answer("", error=failure.sentence) for failure in failures)


def openai_or_error() -> Any:
    """Return the openai package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return package_of_extra("openai", "llm", "Asking a server needs openai")


def _http() -> Any:
    """Return the HTTP library of the installed openai: httpx, or httpx2 from openai 3 on."""
    return sys.modules[openai_or_error().DefaultAsyncHttpxClient.__base__.__module__.partition(".")[0]]


def _checked_url(base_url: str) -> str:
    if set("@?#") & set(base_url):
        raise InvalidSettingError(
            "base_url holds more than an address: '@', '?' or '#'. Give a secret as api_key, never in the address."
        )
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InvalidSettingError(f"base_url={base_url!r} is no web address. Give one like 'http://localhost:8000/v1'.")
    return base_url.rstrip("/")


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidSettingError("The API key holds characters that no key has, such as a space. Copy it again.")
    return key


def _checked(name: str, value: int, *, least: int) -> int:
    if value < least:
        raise InvalidSettingError(f"{name}={value}, but it is at least {least}.")
    return value


def _checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in _OWN_FIELDS:
        if name in options:
            raise InvalidSettingError(f"options holds {name!r}, which the engine itself decides. Leave it out.")
    try:
        return dict(json.loads(json.dumps(dict(options), allow_nan=False)))
    except (TypeError, ValueError) as cause:
        raise InvalidSettingError(f"options={options!r} cannot be sent as JSON. Use plain values.") from cause
