"""Calibration: how often an entity of a score is right, and which scores reach a precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaincinv, expit, stdtrit

from lightft.errors import DataError, InvalidSettingError
from lightft.metrics.calibration_error import CalibrationError, bin_of_confidence
from lightft.metrics.metric import gold_and_predicted_spans
from lightft.records import Prediction, Span
from lightft.significance import paired_bootstrap_difference

__all__ = ["Calibration", "CalibrationQuality", "Threshold"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationQuality:
    """How good probabilities are on documents that the map had not seen: each document by a map fitted without it.

    Attributes:
        entities: how many predicted entities all numbers rest on.
        documents: how many documents these stand in.
        folds: into how many parts the documents were split.
        brier_before: mean of (score − right)², right being 1 or 0; 0 is best.
        brier_after: the same of the calibrated probabilities.
        brier_change_low: lower end of the 95 % interval of after − before, from a bootstrap over documents.
        brier_change_high: upper end.
        error_before: expected calibration error of the scores, in the 15 bins of the metric ``calibration_error``. With
            few entities it is above 0 for perfect probabilities, too.
        error_after: the same of the calibrated probabilities.
        unscored: predicted entities without a score, which are left out of all numbers.
    """

    entities: int
    documents: int
    folds: int
    brier_before: float
    brier_after: float
    brier_change_low: float
    brier_change_high: float
    error_before: float
    error_after: float
    unscored: int = 0


@dataclass(frozen=True)
class Threshold:
    """The lowest score at which a precision is reached, and what keeping ``span.score >= score`` means.

    Attributes:
        score: keep entities whose raw score is at least this.
        precision: share of the kept entities that were right on the validation data.
        precision_low: lower bound of the precision, of this threshold alone; at least the target.
        confidence: of the bound.
        entities: how many predicted entities of the validation data are kept.
        documents: how many documents these stand in.
        kept: their share of all predicted entities.
        recall: share of the gold entities that is found and kept; ``nan`` where there are none.
    """

    score: float
    precision: float
    precision_low: float
    confidence: float
    entities: int
    documents: int
    kept: float
    recall: float


@dataclass(frozen=True)
class Calibration:
    """A map from the score of an entity to the probability that it is right, fitted on validation data.

    Beta calibration (Kull, Silva Filho and Flach 2017, "Beta calibration") with an offset per type:
    ``logit q = c + a ln s − b ln(1 − s) + u_type`` with a, b ≥ 0, so that within a type a higher score never means less.
    It holds the identity (a = b = 1) and Platt's logistic map (a = b). Unlike isotonic regression it has no steps of 0
    and 1, and needs dozens of entities, not thousands.

    Small samples are shrunk in three ways. Right and wrong count as (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) (Platt 1999).
    The offsets have a normal prior of variance 1, so that a type with few entities, or none, is treated like all. And no
    probability is closer to 0 or 1 than 1 / (n + 2): n entities cannot show more.

    Attributes:
        of_score: a.
        of_complement: b.
        intercept: c.
        offsets: u of each type that was predicted.
        entities: n, how many predicted entities it was fitted on.
        gold: how many gold entities the documents have.
        steps: thresholds that can be chosen, strictest first, each with what it keeps.
        quality: how good the probabilities are.
    """

    of_score: float
    of_complement: float
    intercept: float
    offsets: Mapping[str, float]
    entities: int
    gold: int
    steps: tuple[_Step, ...]
    quality: CalibrationQuality

    @classmethod
    def fit(cls, predictions: Sequence[Prediction]) -> Calibration:
        """Fit on documents with gold spans, such as the predictions of a run on the validation split.

        A predicted span is right if start, end and label are those of a gold span. The documents must not be those the
        model was trained on.

        Args:
            predictions: one per document; predicted spans without a score are left out and counted.

        Raises:
            DataError: no predicted span has a score, one has a score outside [0, 1], a document has no gold spans, or fewer
                than two documents have predicted entities with a score.
        """
        entities, gold, unscored = _entities_of(predictions)
        if unscored and not len(entities.score):
            raise DataError(
                f"None of the {unscored} predicted entities has a score. Extract with an engine that tells the "
                "probabilities of its tokens."
            )
        if np.unique(entities.document).size < 2:
            raise DataError(
                f"Of {len(predictions)} documents {np.unique(entities.document).size} have predicted entities with a "
                "score; calibration needs at least 2, and some hundred to be of use. Give it more validation data."
            )
        fitted = _fit(entities)
        return cls(
            of_score=fitted.of_score,
            of_complement=fitted.of_complement,
            intercept=fitted.intercept,
            offsets=fitted.offsets,
            entities=len(entities.score),
            gold=gold,
            steps=_steps(entities),
            quality=_quality(entities, unscored),
        )

    def probability(self, span: Span) -> float:
        """Return the probability that an entity is right; one of an unknown type is treated as of an average type.

        Raises:
            DataError: the span has no score, or one outside [0, 1].
        """
        return self.probabilities([span])[0]

    def probabilities(self, spans: Sequence[Span]) -> list[float]:
        """Return the probability of each entity, as ``probability`` does for one.

        Raises:
            DataError: a span has no score, or one outside [0, 1].
        """
        fitted = _Map(self.of_score, self.of_complement, self.intercept, self.offsets, self.entities)
        scores = np.array([_score_of(span) for span in spans], float)
        return [float(value) for value in fitted(scores, [span.label for span in spans])]

    def threshold_for(self, precision: float, confidence: float = 0.95) -> Threshold:
        """Return the lowest threshold on the raw score at which the precision is at least the target.

        Thresholds are tested from the strictest down until the first that cannot be shown to reach the target (fixed
        sequence testing: Angelopoulos et al. 2021, "Learn then Test", arXiv:2110.01052). So the probability that the
        precision on new documents of the same kind is below the target is at most 1 − ``confidence``, although a
        threshold was searched. The thresholds keep 5 %, 10 %, … 100 % of the entities, which depends on the scores but
        not on what was right. The first is the one that keeps enough to pass with half the errors that the target allows,
        or, if none does, without an error.

        Each test is the exact binomial one (Clopper and Pearson 1934). It is exact for independent entities whose
        precision does not fall as the threshold rises. Entities of one document are alike, so that they count as fewer:
        as many as have the same variance (Korn and Graubard 1998, "Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data"). That is an approximation;
        in simulations with two such entities worth one, up to 6 % of the thresholds missed the target, not 5 %.
        Documents are taken to be independent.

        Args:
            precision: the target, between 0 and 1. Choose it before you look at what can be reached.
            confidence: between 0.5 and 1.

        Raises:
            InvalidSettingError: no threshold reaches the target (the message says what is reached), or an argument is out
                of range.
        """
        for name, value, least in (("precision", precision, 0), ("confidence", confidence, 0.5)):
            if not least < value < 1:
                raise InvalidSettingError(
                    f"{name} is {value!r}; it lies between {least} and 1, both excluded, such as 0.95."
                )
        step = _lowest(self.steps, precision, confidence)
        if step is None:
            lower = (percent / 100 for percent in range(math.ceil(100 * precision) - 1, 0, -1))
            reached = next((target for target in lower if _lowest(self.steps, target, confidence)), None)
            best = f"the highest that is reached is about {reached:.2f}" if reached else "nor is any other"
            raise InvalidSettingError(
                f"A precision of {precision} is not reached by any threshold with confidence {confidence} on "
                f"{self.entities} entities of {self.quality.documents} documents; {best}. Set a lower target, or "
                "calibrate on more documents."
            )
        return Threshold(
            score=step.score,
            precision=step.right / step.entities,
            precision_low=step.low(confidence),
            confidence=confidence,
            entities=step.entities,
            documents=step.documents,
            kept=step.entities / self.entities,
            recall=step.right / self.gold if self.gold else math.nan,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; it holds counts and parameters, no text."""
        return {**asdict(self), "offsets": dict(self.offsets), "steps": [asdict(step) for step in self.steps]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Calibration:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: it is something else.
        """
        try:
            steps = tuple(_Step(**step) for step in row["steps"])
            return cls(**{**row, "steps": steps, "quality": CalibrationQuality(**row["quality"])})
        except (KeyError, TypeError) as cause:
            raise DataError(
                f"This is no calibration ({cause}). Read what Calibration.to_json wrote, or fit again."
            ) from cause


# --- what was predicted, and whether it was right


class _Entities(NamedTuple):
    """The predicted entities of all documents, one entry each."""

    score: Array
    right: NDArray[np.bool_]
    document: NDArray[np.int64]
    label: NDArray[np.str_]

    def where(self, chosen: NDArray[np.bool_]) -> _Entities:
        return _Entities(self.score[chosen], self.right[chosen], self.document[chosen], self.label[chosen])


def _entities_of(predictions: Sequence[Prediction]) -> tuple[_Entities, int, int]:
    """Return the predicted entities that have a score, how many gold ones there are, and how many have no score."""
    rows: list[tuple[float, bool, int, str]] = []
    gold_count = unscored_count = 0
    for number, prediction in enumerate(predictions):
        gold, predicted = gold_and_predicted_spans(prediction, "calibration")
        gold_count += len(gold)
        scored = sorted(span for span in predicted if span.score is not None)
        unscored_count += len(predicted) - len(scored)
        rows += [(_score_of(span, prediction.id), span in gold, number, span.label) for span in scored]
    scores, rights, documents, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    entities = _Entities(
        np.array(scores, float), np.array(rights, bool), np.array(documents, np.int64), np.array(labels, np.str_)
    )
    return entities, gold_count, unscored_count


# Probabilities of 32 bits, and scores that were written with six digits, tell no more than this from 0 and 1.
_FINEST = 1e-6


def _score_of(span: Span, document: str = "") -> float:
    where = f" of document {document!r}" if document else ""
    if span.score is None:
        raise DataError(
            f"The {span.label} entity at {span.start}{where} has no score. Extract with an engine that tells the "
            "probabilities of its tokens."
        )
    if not 0 <= span.score <= 1:
        raise DataError(
            f"The {span.label} entity at {span.start}{where} has the score {span.score}; a score is a probability, 0 to 1."
        )
    return min(max(span.score, _FINEST), 1 - _FINEST)


# --- the map


class _Map(NamedTuple):
    of_score: float
    of_complement: float
    intercept: float
    offsets: Mapping[str, float]
    entities: int

    def __call__(self, scores: Array, labels: Iterable[str]) -> Array:
        """Return the probability of each entity."""
        offsets = np.array([self.offsets.get(label, 0.0) for label in labels])
        logits = self.intercept + self.of_score * np.log(scores) - self.of_complement * np.log1p(-scores) + offsets
        least = 1 / (self.entities + 2)
        clipped: Array = np.clip(expit(logits), least, 1 - least)
        return clipped


def _fit(entities: _Entities) -> _Map:
    """Minimise the log loss plus Σ u² / 2; it is convex, and so has one minimum."""
    types = np.unique(entities.label)
    is_type = entities.label[:, np.newaxis] == types
    features = np.column_stack(
        [np.log(entities.score), -np.log1p(-entities.score), np.ones(len(entities.score)), is_type]
    )
    rights = int(entities.right.sum())
    wrongs = len(entities.right) - rights
    wanted = np.where(entities.right, (rights + 1) / (rights + 2), 1 / (wrongs + 2))
    is_offset = np.arange(features.shape[1]) >= 3

    def loss(weights: Array) -> tuple[float, Array]:
        logits = features @ weights
        offsets = weights * is_offset
        value = (np.logaddexp(0, logits) - wanted * logits).sum() + (offsets**2).sum() / 2
        return float(value), features.T @ (expit(logits) - wanted) + offsets

    bounds = [(0, None), (0, None)] + [(None, None)] * (1 + len(types))
    start = np.where(np.arange(features.shape[1]) < 2, 0.5, 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-7})
    of_score, of_complement, intercept, *offsets = (float(weight) for weight in found.x)
    return _Map(
        of_score, of_complement, intercept, dict(zip(types.tolist(), offsets, strict=True)), len(entities.score)
    )


_FOLDS = 10


def _quality(entities: _Entities, unscored: int) -> CalibrationQuality:
    """Cross-fit: every document's probabilities come from a map that was fitted on the other folds."""
    documents, number = np.unique(entities.document, return_inverse=True)
    folds = min(_FOLDS, len(documents))
    fold = np.random.default_rng(0).permutation(len(documents))[number] % folds
    probability = np.empty(len(entities.score))
    for one in range(folds):
        left_out = entities.where(fold == one)
        probability[fold == one] = _fit(entities.where(fold != one))(left_out.score, left_out.label)

    before, after = (
        np.column_stack([np.bincount(number, (values - entities.right) ** 2), np.bincount(number).astype(float)])
        for values in (entities.score, probability)
    )
    change = paired_bootstrap_difference(
        after, before, lambda totals: totals[..., 0] / totals[..., 1], rng=np.random.default_rng(0)
    )
    return CalibrationQuality(
        entities=len(entities.score),
        documents=len(documents),
        folds=folds,
        brier_before=float(before[:, 0].sum() / len(probability)),
        brier_after=float(after[:, 0].sum() / len(probability)),
        brier_change_low=change.interval.low,
        brier_change_high=change.interval.high,
        error_before=_calibration_error(entities.score, entities.right),
        error_after=_calibration_error(probability, entities.right),
        unscored=unscored,
    )


_ERROR_BINS = 15


def _calibration_error(probability: Array, right: NDArray[np.bool_]) -> float:
    counts = np.zeros((3, _ERROR_BINS))
    place = [bin_of_confidence(value, _ERROR_BINS) for value in probability.tolist()]
    for row, values in enumerate((np.ones(len(right)), probability, right)):
        np.add.at(counts[row], place, values)
    return float(CalibrationError().score(counts.ravel()))


# --- thresholds

_STEPS = 20


@dataclass(frozen=True)
class _Step:
    """What a threshold keeps; ``design_effect`` entities are worth one that is independent of all others."""

    score: float
    entities: int
    right: int
    documents: int
    design_effect: float

    def low(self, confidence: float) -> float:
        """Return the lower bound of the precision, from as many independent entities as these are worth."""
        if self.documents < 2:
            return 0.0
        # Few documents tell little about the design effect.
        shrinkage = float(stdtrit(self.entities - 1, confidence) / stdtrit(self.documents - 1, confidence)) ** 2
        return _lower_bound(self.right / self.entities, self.entities / self.design_effect * shrinkage, confidence)


def _steps(entities: _Entities) -> tuple[_Step, ...]:
    """Return the thresholds that keep 5 %, 10 %, … 100 % of the entities, or a few more where scores are equal."""
    descending = np.sort(entities.score)[::-1]
    ranks = {math.ceil(len(descending) * step / _STEPS) - 1 for step in range(1, _STEPS + 1)}
    alikeness = _alikeness(entities)
    scores = sorted({float(descending[rank]) for rank in ranks}, reverse=True)
    return tuple(_step(entities.where(entities.score >= score), score, alikeness) for score in scores)


def _step(kept: _Entities, score: float, alikeness: float) -> _Step:
    size = _mean_neighbours(kept)
    effect = max(1.0, _design_effect(kept), 1 + alikeness * (size - 1))
    return _Step(score, len(kept.score), int(kept.right.sum()), len(np.unique(kept.document)), float(effect))


def _design_effect(entities: _Entities) -> float:
    """Return the variance of the precision, documents being drawn, over that of independent entities; 1 if none is wrong."""
    sizes = np.bincount(entities.document)
    rights = np.bincount(entities.document, entities.right)
    documents, precision = np.count_nonzero(sizes), float(entities.right.mean())
    if documents < 2 or precision in (0.0, 1.0):
        return 1.0
    # Sums of squares over their degrees of freedom, so that documents of one entity each have an effect of 1.
    squares = float(((rights - precision * sizes) ** 2).sum()) / (documents - 1) * documents
    independent = len(entities.right) ** 2 / (len(entities.right) - 1) * precision * (1 - precision)
    return squares / independent


def _alikeness(entities: _Entities) -> float:
    """Return the correlation of being right within a document that explains the design effect of all entities.

    Where few or no kept entities are wrong, their own design effect says nothing; this one then speaks for them.
    """
    size = _mean_neighbours(entities)
    return min(max((_design_effect(entities) - 1) / (size - 1), 0.0), 1.0) if size > 1 else 0.0


def _mean_neighbours(entities: _Entities) -> float:
    """Return how many entities the document of an entity has, itself included, on average over entities."""
    sizes = np.bincount(entities.document)
    return float((sizes**2).sum() / sizes.sum())


def _lowest(steps: Sequence[_Step], precision: float, confidence: float) -> _Step | None:
    """Test downwards from the first threshold that keeps enough; return the last one before the first failure."""
    tested = steps[_first(steps, precision, confidence) :]
    passed = list(takewhile(lambda step: step.low(confidence) >= precision, tested))
    return passed[-1] if passed else None


def _first(steps: Sequence[_Step], precision: float, confidence: float) -> int:
    """Return the number of the strictest threshold that keeps enough to pass; how many there are, if none does."""
    for share_wrong in ((1 - precision) / 2, 0.0):
        for number, step in enumerate(steps):
            if _lower_bound(1 - share_wrong, step.entities, confidence) >= precision:
                return number
    return len(steps)


def _lower_bound(share_right: float, entities: float, confidence: float) -> float:
    """Return the one-sided Clopper-Pearson bound; ``entities`` need not be whole."""
    right = share_right * entities
    return float(betaincinv(right, entities - right + 1, 1 - confidence)) if right > 0 else 0.0
