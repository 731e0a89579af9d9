"""Every error lightft raises on purpose.

::

    LightFTError
    ├── UnknownNameError        a plug-in, label or option that does not exist (also a KeyError)
    ├── InvalidPluginError      a plug-in that does not keep its contract (also a TypeError)
    ├── InvalidSettingError     a setting outside what is accepted (also a ValueError)
    ├── DataError               a row, file or data set that cannot be read as asked (also a ValueError)
    ├── ModelLoadError          a base model that cannot be found or opened (also an OSError)
    ├── AdapterError            an adapter that does not fit its base model (also a ValueError)
    ├── TrainingError           training that cannot go on, e.g. a loss that is not finite (also a RuntimeError)
    ├── TrackingError           a tracker that did not take all of a run (also a RuntimeError)
    ├── EngineError             a language model that cannot be asked any further (also a RuntimeError)
    ├── IncomparableRunsError   runs that were scored on different examples (also a ValueError)
    └── MissingExtraError       an optional dependency that is not installed (also an ImportError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AdapterError",
    "DataError",
    "EngineError",
    "IncomparableRunsError",
    "InvalidPluginError",
    "InvalidSettingError",
    "LightFTError",
    "MissingExtraError",
    "ModelLoadError",
    "TrackingError",
    "TrainingError",
    "UnknownNameError",
    "suggest",
]


class LightFTError(Exception):
    """Base class: ``except LightFTError`` catches everything lightft raises on purpose."""


class UnknownNameError(LightFTError, KeyError):
    """A name that is not registered or not present."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message, quotes and escapes included.
        return str(self.args[0])


class InvalidPluginError(LightFTError, TypeError):
    """A plug-in that cannot be registered because it does not keep its contract."""


class InvalidSettingError(LightFTError, ValueError):
    """A setting outside what is accepted."""


class DataError(LightFTError, ValueError):
    """A row, file or data set that cannot be read as asked."""


class ModelLoadError(LightFTError, OSError):
    """A base model or tokenizer that cannot be found or opened."""


class AdapterError(LightFTError, ValueError):
    """An adapter that does not fit its base model."""


class TrainingError(LightFTError, RuntimeError):
    """Training that cannot go on."""


class TrackingError(LightFTError, RuntimeError):
    """A tracker, such as an MLflow server, that did not take all of a run; the run itself is on disk."""


class EngineError(LightFTError, RuntimeError):
    """A language model that cannot be asked any further, such as a server that does not answer."""


class IncomparableRunsError(LightFTError, ValueError):
    """Runs that were not scored on the same examples."""


class MissingExtraError(LightFTError, ImportError):
    """An optional dependency that is not installed."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'lora'? Known: ia3, lora."``; without a near name only the second sentence."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}Known: {', '.join(names) or 'none'}."
