"""What the routes share: models, a worker for each base, and whether work is accepted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal

from lightft.errors import LightFTError, UnknownNameError
from lightft.records import Answer, Classified
from lightft.serving.generation import Writer
from lightft.serving.micro_batch import MicroBatcher
from lightft.serving.models import ServedModels, cannot_compute, first_line
from lightft.serving.observation import Observation
from lightft.serving.problems import RefusedError, queue_full, stopping
from lightft.serving.settings import ServeSettings

__all__ = ["GENERATE", "PREDICT", "Service"]

PREDICT = "/predict"
GENERATE = "/generate"

_WRITING_TASK = "causal-lm"
_WARM_UP_ROUNDS = 3
# Read before the first request, so that it does not pay for what libraries do at first use, and the pace is known.
_WARM_UP = ("Angela Merkel visited Paris in the spring.", "It rained.", "The committee met again on Tuesday. " * 4)


class Service:
    """The models of a service and those who work with them.

    Args:
        models: what is served.
        settings: the limits.
    """

    def __init__(self, models: ServedModels, settings: ServeSettings) -> None:
        self.models = models
        self.settings = settings
        self.key = settings.api_key.encode() if settings.api_key is not None else None
        self.observation = Observation()
        self.status: Literal["starting", "ready", "stopping"] = "ready"
        self._warm = False
        self._workers: list[Executor] = []
        self._batchers: dict[str, MicroBatcher] = {}
        self._writers: dict[str, Writer] = {}
        for base in models.bases:
            worker = ThreadPoolExecutor(1, thread_name_prefix="lightft-model")
            self._workers.append(worker)
            writing = [name for name, facts in base.models.items() if facts.task == _WRITING_TASK]
            answering = [name for name in base.models if name not in writing]
            batcher = MicroBatcher(base.answer, worker, settings, self.observation.batch)
            self._batchers |= dict.fromkeys(answering, batcher)
            self._writers |= dict.fromkeys(writing, Writer(base.predictors, worker, settings))
        self._each_batcher = tuple(dict.fromkeys(self._batchers.values()))
        self._each_writer = tuple(dict.fromkeys(self._writers.values()))
        self.observation.watch_queue(self._waiting, self._computing)

    async def start(self) -> None:
        """Let every model answer a few texts or write a token, unless that is done already.

        Raises:
            ModelLoadError: a model cannot.
        """
        if self._warm:
            return
        self.status = "starting"
        for name in self.models:
            try:
                await self._warm_up(name)
            except LightFTError:
                raise
            except Exception as cause:  # whatever a model may raise, it would raise at every request
                raise cannot_compute(name, f"{type(cause).__name__}: {first_line(cause)}") from cause
        self._warm = True
        self.status = "ready"

    def stop(self) -> None:
        """Accept nothing more; what was accepted is finished."""
        self.status = "stopping"

    def close(self) -> None:
        """Let the workers go."""
        self.stop()
        self.observation.settle_the_door()
        for worker in self._workers:
            worker.shutdown(wait=False, cancel_futures=True)

    def chosen(self, name: str | None, *, can_write: bool) -> str:
        """Return the model that a request names, or the default.

        Raises:
            RefusedError: 404 when there is none of that name, 422 when it does something else.
        """
        try:
            facts = self.models[self.models.default if name is None else name]
        except UnknownNameError as unknown:
            raise RefusedError(404, "no_model", str(unknown), ("body", "model")) from None
        if (facts.task == _WRITING_TASK) != can_write:
            raise RefusedError(
                422,
                "task",
                f"The model {facts.name} is one for {facts.task}: send its requests to "
                f"{'/predict' if can_write else '/generate'}, or name another model",
                ("body", "model"),
            )
        return facts.name

    def batcher_of(self, name: str) -> MicroBatcher:
        """Return who gathers the texts for a model."""
        return self._batchers[name]

    def writer_of(self, name: str) -> Writer:
        """Return who lets a model write."""
        return self._writers[name]

    def retry_after(self, path: str) -> int | None:
        """Return the seconds after which to come back, where no base has room for a request to ``path``; else None.

        Which base it is for stands in its body, which is not read yet. Where no model does such work, the body is read as
        well: the refusal says what the model is for.
        """
        seconds = [one.retry_after() for one in (self._each_batcher if path == PREDICT else self._each_writer)]
        return None if None in seconds else min(filter(None, seconds), default=None)

    def admit(self, path: str) -> None:
        """Refuse a request before it is read, when the service stops or has no room for it.

        Raises:
            RefusedError: 503.
        """
        if self.status == "stopping":
            raise stopping()
        seconds = self.retry_after(path)
        if seconds is not None:
            raise queue_full(seconds)

    async def _warm_up(self, name: str) -> None:
        if self.models[name].task == _WRITING_TASK:
            await self._writers[name].warm_up(name)
            return
        for _ in range(_WARM_UP_ROUNDS):
            answers = await self._batchers[name].warm_up(name, _WARM_UP)
            if not all(map(math.isfinite, _scores(answers))):
                raise cannot_compute(name, "its scores are no finite numbers")

    def _waiting(self) -> int:
        texts = sum(batcher.waiting for batcher in self._each_batcher)
        return texts + sum(writer.waiting for writer in self._each_writer)

    def _computing(self) -> int:
        return sum(batcher.computing for batcher in self._each_batcher)


def _scores(answers: Iterable[Answer]) -> Iterator[float]:
    for answer in answers:
        if isinstance(answer, Classified):
            yield from answer.probabilities.values()
        elif isinstance(answer, list):
            yield from (span.score for span in answer if span.score is not None)
