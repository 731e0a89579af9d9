"""How likely a language model finds the gold answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightft.metrics.metric import METRICS, Array, divide
from lightft.records import Prediction


@dataclass(frozen=True)
class LikelihoodCounts:
    """Base of metrics on the summed log-likelihood and the number of tokens.

    A prediction without log-likelihood makes the score of the whole undefined. Numbers of models with different
    tokenizers do not compare, since their tokens differ.
    """

    name: str
    unit: str
    higher_is_better: bool

    def counts(self, prediction: Prediction) -> tuple[float, float]:
        """Return (log-likelihood in nats, tokens) of the gold answer."""
        if prediction.log_likelihood is None or prediction.target_tokens is None:
            return float("nan"), float("nan")
        return prediction.log_likelihood, float(prediction.target_tokens)


@METRICS.register("perplexity")
@dataclass(frozen=True)
class Perplexity(LikelihoodCounts):
    """Perplexity of the gold answers: exp(−log-likelihood / tokens), tokens of all examples together; 1 is best."""

    name: str = "perplexity"
    unit: str = "perplexity"
    higher_is_better: bool = False

    def score(self, totals: Array) -> Array:
        """Perplexity of summed counts; infinite where it is too large for a float."""
        with np.errstate(over="ignore"):
            return np.exp(-divide(totals[..., 0], totals[..., 1]))


@METRICS.register("log_likelihood")
@dataclass(frozen=True)
class LogLikelihood(LikelihoodCounts):
    """Mean log-likelihood of a token of the gold answers, in nats: minus the validation loss; 0 is best."""

    name: str = "log_likelihood"
    unit: str = "nats per token"
    higher_is_better: bool = True

    def score(self, totals: Array) -> Array:
        """Log-likelihood / tokens."""
        return divide(totals[..., 0], totals[..., 1])
