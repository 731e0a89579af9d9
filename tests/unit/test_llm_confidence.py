"""Confidence of entities: probabilities that hold, thresholds that keep their promise, and scores from tokens."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lightft.errors import DataError, InvalidSettingError, UnknownNameError
from lightft.llm_ner import FORMATS
from lightft.llm_ner.confidence import Calibration, Threshold, span_scores_of_answer
from lightft.llm_ner.confidence.calibration import _Entities, _lower_bound, _lowest, _steps
from lightft.records import Prediction, Span

LABELS = ("PER", "LOC")
# How much documents differ, how many there are, and the target.
SIMULATED = [(0.0, 100, 0.9), (0.0, 400, 0.9), (1.0, 100, 0.85), (1.0, 400, 0.9), (2.0, 100, 0.8), (2.0, 400, 0.85)]


def document(number: int, entities: list[tuple[float, bool]], label: str = "PER", missed: int = 0) -> Prediction:
    """A document whose predicted entities have these scores and are right or wrong, and some that were missed."""
    predicted = tuple(Span(9 * i, 9 * i + 5, label, score=score) for i, (score, _) in enumerate(entities))
    gold = [span for span, (_, right) in zip(predicted, entities, strict=True) if right]
    gold += [Span(9 * i, 9 * i + 4, label) for i in range(missed)]
    return Prediction(f"d{number}", tuple(gold), predicted)


def simulated(
    documents: int, seed: int = 0, *, alike: float = 0.0, each: int | None = None, labels: tuple[str, ...] = ("PER",)
) -> list[Prediction]:
    """Overconfident scores; ``alike`` is how much documents differ, ``each`` how many entities one has (else 4 or so)."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(documents):
        logits = rng.normal(3, 2, each if each is not None else rng.poisson(4))
        right = rng.random(len(logits)) < expit(0.9 + 0.6 * logits + alike * rng.normal())
        entities = list(zip(expit(logits).tolist(), right.tolist(), strict=True))
        made.append(document(number, entities, labels[number % len(labels)]))
    return made


def expit(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def scored(score: float, label: str = "PER") -> Span:
    return Span(0, 1, label, score=score)


# --- the map


def test_the_map_is_the_logistic_regression_on_both_logarithms_of_the_score() -> None:
    predictions = simulated(400)
    calibration = Calibration.fit(predictions)
    spans = [(span, span in prediction.gold) for prediction in predictions for span in prediction.predicted]
    scores = np.array([span.score for span, _ in spans])
    right = np.array([is_right for _, is_right in spans])
    wanted = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    features = np.column_stack([np.log(scores), -np.log(1 - scores)])
    # A target between 0 and 1 is as much of a 1 and of a 0.
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.vstack([features, features]), np.repeat([1, 0], len(right)), np.concatenate([wanted, 1 - wanted])
    )
    assert (calibration.of_score, calibration.of_complement) == pytest.approx(oracle.coef_[0].tolist(), rel=1e-3)
    for score in (0.2, 0.9, 0.999):
        expected = oracle.predict_proba([[math.log(score), -math.log(1 - score)]])[0, 1]
        assert calibration.probability(scored(score)) == pytest.approx(expected, abs=1e-4)


def test_the_offset_of_a_type_is_what_its_entities_have_left_over() -> None:
    predictions = simulated(60, 0, labels=("PER", "LOC")) + simulated(3, 1, labels=("DATE",))
    calibration = Calibration.fit(predictions)
    spans = [(span, span in prediction.gold) for prediction in predictions for span in prediction.predicted]
    rights = sum(is_right for _, is_right in spans)
    for label, offset in calibration.offsets.items():
        left_over = sum(
            ((rights + 1) / (rights + 2) if is_right else 1 / (len(spans) - rights + 2)) - calibration.probability(span)
            for span, is_right in spans
            if span.label == label
        )
        assert offset == pytest.approx(left_over, abs=1e-3)


def test_a_type_that_is_often_wrong_is_believed_less_and_an_unknown_one_as_an_average() -> None:
    good = [document(number, [(0.9, number % 10 > 0)], "PER") for number in range(200)]
    bad = [document(number, [(0.9, number % 2 > 0)], "LOC") for number in range(200)]
    calibration = Calibration.fit(good + bad)
    assert calibration.probability(scored(0.9, "PER")) == pytest.approx(0.9, abs=0.02)
    assert calibration.probability(scored(0.9, "LOC")) == pytest.approx(0.5, abs=0.02)
    assert 0.6 < calibration.probability(scored(0.9, "DATE")) < 0.85


@settings(max_examples=20, deadline=None)
@given(
    entities=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from(LABELS)), min_size=2, max_size=40),
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=8),
)
def test_few_entities_give_no_certainty_and_a_higher_score_never_means_less(
    entities: list[tuple[float, bool, str]], scores: list[float]
) -> None:
    calibration = Calibration.fit(
        [document(n, [(score, right)], label) for n, (score, right, label) in enumerate(entities)]
    )
    values = [calibration.probability(scored(score)) for score in sorted(scores)]
    assert values == sorted(values)
    least = 1 / (len(entities) + 2)
    assert all(least - 1e-12 <= value <= 1 - least + 1e-12 for value in values)


def test_thirty_entities_that_are_all_right_give_31_of_32() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration.fit([document(number, [(rng.random(), True)]) for number in range(30)])
    for score in (0.0, 0.5, 1.0):
        assert calibration.probability(scored(score)) == pytest.approx(31 / 32, abs=1e-4)


def test_scores_that_say_the_opposite_are_not_turned_round() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    calibration = Calibration.fit([document(n, [(score, rng.random() > score)]) for n, score in enumerate(scores)])
    assert (calibration.of_score, calibration.of_complement) == (0.0, 0.0)


# --- how good the probabilities are


def test_quality_is_better_after_calibration_and_says_on_how_much_it_rests() -> None:
    predictions = simulated(600, labels=LABELS)
    quality = Calibration.fit(predictions).quality
    assert quality.entities == sum(len(prediction.predicted) for prediction in predictions)
    assert quality.documents == sum(bool(prediction.predicted) for prediction in predictions)
    assert quality.brier_after < quality.brier_before
    assert quality.error_after < quality.error_before
    change = quality.brier_after - quality.brier_before
    assert quality.brier_change_low < change < quality.brier_change_high < 0


def test_quality_before_is_that_of_the_raw_scores() -> None:
    quality = Calibration.fit([document(n, [(0.9, n % 2 == 0), (0.2, n % 4 == 0)]) for n in range(100)]).quality
    brier = (0.5 * 0.1**2 + 0.5 * 0.9**2 + 0.25 * 0.8**2 + 0.75 * 0.2**2) / 2
    assert quality.brier_before == pytest.approx(brier)
    assert quality.error_before == pytest.approx((0.4 + 0.05) / 2)


def test_quality_is_measured_on_documents_that_the_map_did_not_see() -> None:
    # Each document is all right or all wrong and has a type of its own: seen, it is known; unseen, it is a coin.
    rng = np.random.default_rng(0)
    predictions = [document(n, [(0.5, bool(rng.random() < 0.5))] * 20, f"T{n}") for n in range(40)]
    calibration = Calibration.fit(predictions)
    seen = [
        (calibration.probability(span) - (span in prediction.gold)) ** 2
        for prediction in predictions
        for span in prediction.predicted
    ]
    assert np.mean(seen) < 0.05
    assert calibration.quality.brier_after > 0.24


# --- thresholds


def binomial_tail(right: int, entities: int, precision: Fraction) -> Fraction:
    """The probability of at least so many right ones, by adding up."""
    return sum(
        (math.comb(entities, k) * precision**k * (1 - precision) ** (entities - k) for k in range(right, entities + 1)),
        Fraction(0),
    )


@settings(max_examples=60, deadline=None)
@given(entities=st.integers(1, 120), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_the_bound_is_clopper_and_pearsons(entities: int, share: float, confidence: float) -> None:
    right = round(share * entities)
    low = _lower_bound(right / entities, entities, confidence)
    expected = (
        scipy.stats.binomtest(right, entities, alternative="greater").proportion_ci(confidence, method="exact").low
    )
    assert low == pytest.approx(expected, abs=1e-9)
    if right:
        assert float(binomial_tail(right, entities, Fraction(low))) == pytest.approx(1 - confidence, rel=1e-6)
        assert scipy.stats.binom.sf(right - 1, entities, low) == pytest.approx(1 - confidence, rel=1e-6)


@given(entities=st.integers(2, 2000), share=st.floats(0.01, 1), effect=st.floats(1, 50))
def test_fewer_entities_never_give_a_higher_bound(entities: int, share: float, effect: float) -> None:
    assert _lower_bound(share, entities / effect, 0.95) <= _lower_bound(share, entities, 0.95) + 1e-12


def brute_force_threshold(entities: list[tuple[float, bool]], precision: float) -> float | None:
    """Walk down the grid with exact p-values; entities are independent."""
    descending = sorted((score for score, _ in entities), reverse=True)
    grid = []
    for step in range(1, 21):
        score = descending[-(-len(entities) * step // 20) - 1]
        if score not in grid:
            grid.append(score)
    kept = {score: [right for other, right in entities if other >= score] for score in grid}
    start: int | None = None
    for wrong in ((1 - precision) / 2, 0.0):
        big = [n for n, score in enumerate(grid) if _lower_bound(1 - wrong, len(kept[score]), 0.95) >= precision]
        if big and start is None:
            start = big[0]
    chosen = None
    for score in grid[start:] if start is not None else ():
        if float(binomial_tail(sum(kept[score]), len(kept[score]), Fraction(precision))) > 0.05:
            break
        chosen = score
    return chosen


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), documents=st.integers(20, 150), precision=st.sampled_from([0.6, 0.7, 0.8, 0.9]))
def test_the_threshold_is_that_of_testing_one_after_another(seed: int, documents: int, precision: float) -> None:
    predictions = simulated(documents, seed, each=1)
    calibration = Calibration.fit(predictions)
    entities = [(p.predicted[0].score, p.predicted[0] in p.gold) for p in predictions]
    expected = brute_force_threshold(entities, precision)
    if expected is None:
        with pytest.raises(InvalidSettingError, match="not reached"):
            calibration.threshold_for(precision)
    else:
        assert calibration.threshold_for(precision).score == pytest.approx(expected)


def test_a_threshold_keeps_what_it_says() -> None:
    predictions = simulated(500)
    predictions = [replace(p, gold=(*p.gold, Span(900, 905, "PER"))) for p in predictions]
    chosen = Calibration.fit(predictions).threshold_for(0.9)
    kept = [
        (span, span in prediction.gold, prediction.id)
        for prediction in predictions
        for span in prediction.predicted
        if span.score >= chosen.score
    ]
    rights = sum(right for _, right, _ in kept)
    assert chosen == Threshold(
        score=chosen.score,
        precision=rights / len(kept),
        precision_low=chosen.precision_low,
        confidence=0.95,
        entities=len(kept),
        documents=len({number for _, _, number in kept}),
        kept=len(kept) / sum(len(prediction.predicted) for prediction in predictions),
        recall=rights / sum(len(prediction.gold) for prediction in predictions),
    )
    assert 0.9 <= chosen.precision_low < chosen.precision


def test_scores_of_one_do_not_ask_for_more_than_can_be_had() -> None:
    chosen = Calibration.fit([document(n, [(1.0, n % 50 > 0)]) for n in range(500)]).threshold_for(0.9)
    assert chosen.kept == 1
    # A probability of 32 bits that is as good as 1 passes as well.
    assert chosen.score <= 0.9999995


def test_without_gold_entities_there_is_no_recall() -> None:
    calibration = Calibration.fit([document(n, [(0.5, False)]) for n in range(50)])
    with pytest.raises(InvalidSettingError, match="nor is any other"):
        calibration.threshold_for(0.9)


def test_a_target_that_is_out_of_reach_says_what_is_reached() -> None:
    calibration = Calibration.fit(simulated(200))
    with pytest.raises(
        InvalidSettingError, match=r"A precision of 0.999 is not reached .* reached is about 0\.\d\d\."
    ) as info:
        calibration.threshold_for(0.999)
    reached = float(str(info.value).split("about ")[1][:4])
    assert calibration.threshold_for(reached).precision_low >= reached
    with pytest.raises(InvalidSettingError, match="not reached"):
        calibration.threshold_for(reached + 0.01)


def test_entities_that_are_right_or_wrong_together_count_as_one() -> None:
    rng = np.random.default_rng(0)
    whole = [document(n, [(0.9, bool(rng.random() < 0.9))] * 10) for n in range(60)]
    (step,) = Calibration.fit(whole).steps
    assert step.design_effect == pytest.approx(10, rel=0.05)
    alone = scipy.stats.binomtest(round(step.right / 10), 60, alternative="greater").proportion_ci(0.95, "exact").low
    assert step.low(0.95) == pytest.approx(alone, abs=0.01)


def test_entities_without_an_error_are_believed_to_be_as_alike_as_all() -> None:
    rng = np.random.default_rng(0)
    sure = [document(n, [(0.99, True)] * 5 + [(0.3, bool(rng.random() < 0.5))] * 5) for n in range(60)]
    steps = Calibration.fit(sure).steps
    assert steps[0].right == steps[0].entities == 300
    assert steps[0].design_effect > 1.5


def test_one_document_shows_nothing() -> None:
    calibration = Calibration.fit([document(0, [(0.9, True)] * 500), document(1, [(0.1, True)])])
    assert calibration.steps[0].documents == 1
    assert calibration.steps[0].low(0.95) == 0


# --- the promise, in simulations


def drawn(rng: np.random.Generator, documents: int, alike: float) -> _Entities:
    """Four entities or so of each document, as in ``simulated``; ``alike`` is how much documents differ."""
    number = np.repeat(np.arange(documents), rng.poisson(4, documents))
    logits = rng.normal(3, 2, len(number))
    right = rng.random(len(number)) < expit(0.9 + 0.6 * logits + alike * rng.normal(size=documents)[number])
    return _Entities(expit(logits), right, number, np.full(len(number), "PER"))


def broken_and_found(target: float, *, documents: int, alike: float, trials: int) -> tuple[float, float]:
    """The share of validation sets whose threshold misses the target on 300,000 documents, and of those that give one."""
    rng = np.random.default_rng(0)
    world = drawn(rng, 300_000, alike)
    chosen = [_lowest(_steps(drawn(rng, documents, alike)), target, 0.95) for _ in range(trials)]
    true = [float(world.right[world.score >= step.score].mean()) for step in chosen if step is not None]
    return sum(precision < target for precision in true) / trials, len(true) / trials


def test_a_precision_just_below_the_target_is_taken_for_it_in_one_set_of_twenty() -> None:
    # The hardest case: no threshold is right, and all of them nearly are.
    rng = np.random.default_rng(0)
    trials, size = 500, 300
    passed = 0
    for _ in range(trials):
        sure = _Entities(rng.random(size), rng.random(size) < 0.899999, np.arange(size), np.full(size, "PER"))
        passed += _lowest(_steps(sure), 0.9, 0.95) is not None
    assert 0.01 * trials <= passed <= 0.05 * trials + 2 * math.sqrt(0.05 * 0.95 * trials)


@pytest.mark.parametrize("alike", [0.0, 2.0])
def test_most_thresholds_keep_the_promise_and_are_found(alike: float) -> None:
    broken, found = broken_and_found(0.85, documents=300, alike=alike, trials=60)
    assert broken <= 0.1
    assert found > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("alike", "documents", "target"), SIMULATED)
def test_no_more_than_one_threshold_in_twenty_breaks_the_promise(alike: float, documents: int, target: float) -> None:
    trials = 1000
    broken, found = broken_and_found(target, documents=documents, alike=alike, trials=trials)
    assert broken <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
    assert found > 0.3


# --- what is refused, and JSON


def test_a_calibration_is_the_same_after_json() -> None:
    calibration = Calibration.fit(simulated(80, labels=LABELS))
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again == calibration
    assert again.threshold_for(0.8) == calibration.threshold_for(0.8)
    assert again.probability(scored(0.7, "LOC")) == calibration.probability(scored(0.7, "LOC"))


@pytest.mark.parametrize("damage", [{"steps": [{"score": 1}]}, {"quality": None}, {"extra": 1}, {"steps": 3}])
def test_something_else_than_a_calibration_is_refused(damage: dict) -> None:
    row = Calibration.fit(simulated(20)).to_json()
    with pytest.raises(DataError, match="no calibration"):
        Calibration.from_json({**row, **damage})
    with pytest.raises(DataError, match="no calibration"):
        Calibration.from_json({})


@pytest.mark.parametrize(("score", "message"), [(1.2, "has the score 1.2"), (math.nan, "has the score nan")])
def test_a_score_that_is_no_probability_is_refused(score: float, message: str) -> None:
    span = Span(3, 7, "PER", score=score)
    with pytest.raises(DataError, match=f"PER entity at 3 of document 'x' {message}"):
        Calibration.fit([Prediction("x", (), (span,))])
    with pytest.raises(DataError, match=message):
        Calibration.fit(simulated(20)).probability(span)


def test_entities_without_a_score_are_left_out_and_counted() -> None:
    predictions = simulated(60)
    unscored = Span(900, 905, "DATE")
    with_some = [replace(p, predicted=(*p.predicted, unscored)) for p in predictions[:7]] + predictions[7:]
    calibration = Calibration.fit(with_some)
    assert calibration.quality.unscored == 7
    assert replace(calibration, quality=replace(calibration.quality, unscored=0)) == Calibration.fit(predictions)
    with pytest.raises(DataError, match="DATE entity at 900 has no score"):
        calibration.probability(unscored)
    with pytest.raises(DataError, match="None of the 7 predicted entities has a score"):
        Calibration.fit([replace(p, predicted=(unscored,)) for p in predictions[:7]])


def test_many_probabilities_are_those_of_each() -> None:
    calibration = Calibration.fit(simulated(60, labels=LABELS))
    spans = [scored(score, label) for score in (0.0, 0.3, 0.99, 1.0) for label in (*LABELS, "DATE")]
    assert calibration.probabilities(spans) == [calibration.probability(span) for span in spans]
    assert calibration.probabilities([]) == []


def test_too_few_documents_and_such_without_gold_are_refused() -> None:
    with pytest.raises(DataError, match="Of 2 documents 1 have predicted entities"):
        Calibration.fit([document(0, [(0.5, True)]), document(1, [])])
    with pytest.raises(DataError, match="Of 0 documents 0"):
        Calibration.fit([])
    with pytest.raises(DataError, match="no gold answer"):
        Calibration.fit([Prediction("x", None, (scored(0.5),))])


@pytest.mark.parametrize(("precision", "confidence"), [(0.0, 0.9), (1.0, 0.9), (0.9, 1.0), (0.9, 0.5), (math.nan, 0.9)])
def test_targets_out_of_range_are_refused(precision: float, confidence: float) -> None:
    with pytest.raises(InvalidSettingError, match="lies between 0"):
        Calibration.fit(simulated(20)).threshold_for(precision, confidence)


# --- scores from tokens

PIECES = [
    "[",
    "]",
    "](PER)",
    "(",
    "<",
    "</",
    "<PER>",
    "</LOC>",
    '"',
    "\\",
    "\n",
    ":",
    ",",
    "{",
    "}",
    "Bert",
    "Bert",
    " ",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=20).map("".join)


@st.composite
def written_answers(draw: st.DrawFn, name: str) -> tuple[str, list[Span], list[list[tuple[int, int]]]]:
    """An answer as the format writes it, its spans in order, and where each is written, counted while writing it."""
    text = draw(TEXTS)
    assume(text)
    drawn = draw(
        st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 6), st.sampled_from(LABELS)), max_size=6)
    )
    spans = {Span(start, min(len(text), start + length), label) for start, length, label in drawn}
    answer, left_out = FORMATS[name].write(text, list(spans))
    kept = sorted(spans - set(left_out), key=lambda span: (span.start, -span.end, span.label))
    spans_with_text = [replace(span, text=text[span.start : span.end]) for span in kept]
    return answer, spans_with_text, WRITERS[name](text, spans_with_text)


def places_inline(name: str, text: str, spans: list[Span]) -> list[list[tuple[int, int]]]:
    places = []
    for number, span in enumerate(spans):
        before = FORMATS[name].write(text, spans[:number])[0]
        after = FORMATS[name].write(text, spans[: number + 1])[0]
        start = span.start + len(before) - len(text)
        places.append([(start, start + len(span.text) + len(after) - len(before))])
    return places


def places_in_categories(text: str, spans: list[Span]) -> list[list[tuple[int, int]]]:
    del text
    places: dict[Span, list[tuple[int, int]]] = {}
    written = "{"
    for label in dict.fromkeys(span.label for span in spans):
        written += (", " if written != "{" else "") + json.dumps(label) + ": ["
        for span in (span for span in spans if span.label == label):
            written += "" if written.endswith("[") and span is first_of(label, spans) else ", "
            value = json.dumps(span.text, ensure_ascii=False)
            places[span] = [(len(written), len(written) + len(value))]
            written += value
        written += "]"
    return [places[span] for span in spans]


def first_of(label: str, spans: list[Span]) -> Span:
    return next(span for span in spans if span.label == label)


def places_in_objects(text: str, spans: list[Span]) -> list[list[tuple[int, int]]]:
    del text
    places = []
    written = "["
    for number, span in enumerate(spans):
        written += (", " if number else "") + '{"entity": '
        value = json.dumps(span.text, ensure_ascii=False)
        label_start = len(written) + len(value) + len(', "type": ')
        places.append([(len(written), len(written) + len(value)), (label_start, label_start + len(span.label) + 2)])
        written += f'{value}, "type": "{span.label}"}}'
    return places


WRITERS = {
    "brackets": lambda text, spans: places_inline("brackets", text, spans),
    "xml": lambda text, spans: places_inline("xml", text, spans),
    "categories": places_in_categories,
    "objects": places_in_objects,
}


def cut(answer: str, data: st.DataObject) -> list[tuple[str, float]]:
    """Random tokens, some of them without text, with random log-probabilities."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=30)))
    edges = [0, *cuts, len(answer)]
    return [(answer[start:end], data.draw(st.floats(-3, 0))) for start, end in pairwise(edges)]


def brute_force_score(pieces: list[tuple[str, float]], place: list[tuple[int, int]]) -> float:
    """Go through all tokens letter by letter."""
    total, position = 0.0, 0
    for piece, log_probability in pieces:
        letters = range(position, position + max(len(piece), 1))
        if any(start <= letter < end for start, end in place for letter in letters):
            total += log_probability
        position += len(piece)
    return math.exp(total)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_span_has_the_probabilities_of_the_tokens_that_wrote_it(name: str, data: st.DataObject) -> None:
    answer, spans, places = data.draw(written_answers(name))
    pieces = cut(answer, data)
    order = data.draw(st.permutations(range(len(spans))))
    scores = span_scores_of_answer(answer, pieces, [spans[number] for number in order], name)
    for number, score in zip(order, scores, strict=True):
        # Of equal mentions the order in a dictionary is that of the text.
        assert score == pytest.approx(brute_force_score(pieces, places[number]))


def score_of(answer: str, pieces: list[tuple[str, float]], span: Span, name: str = "brackets") -> float | None:
    return span_scores_of_answer(answer, pieces, [span], name)[0]


BERT = Span(4, 8, "PER", text="Bert")
SPLIT = [("Saw", -0.1), (" [B", -0.2), ("ert](", -0.3), ("PER", -0.4), (") ", -0.5), ("off", -0.6)]


def test_a_token_that_reaches_into_a_mention_counts_whole() -> None:
    assert score_of("Saw [Bert](PER) off", SPLIT, BERT) == pytest.approx(math.exp(-0.2 - 0.3 - 0.4 - 0.5))


@pytest.mark.parametrize(
    ("more_before", "more_after"), [([], [("</s>", -9.0)]), ([(" \n", -9.0)], []), ([(" ", -9.0)], [("<|end|>", -9.0)])]
)
def test_pieces_may_go_beyond_the_answer(more_before: list, more_after: list) -> None:
    pieces = [*more_before, *SPLIT, *more_after]
    assert score_of("Saw [Bert](PER) off", pieces, BERT) == pytest.approx(math.exp(-1.4))


def test_a_letter_that_the_server_could_not_cut_voids_no_other_place() -> None:
    answer = "[Bert](PER) saw [🦜](PER) and [Bert](PER)"
    pieces = [
        ("[Bert](PER)", -1.0),
        (" saw", -2.0),
        (" [\ufffd\ufffd](PER)", -4.0),
        (" and", -8.0),
        (" [Bert](PER)", -0.5),
    ]
    spans = [Span(0, 4, "PER", text="Bert"), Span(9, 10, "PER", text="🦜"), Span(15, 19, "PER", text="Bert")]
    assert span_scores_of_answer(answer, pieces, spans, "brackets") == pytest.approx(
        (math.exp(-1), None, math.exp(-0.5))
    )


def test_without_pieces_there_are_no_scores() -> None:
    assert score_of("Saw [Bert](PER) off", [], BERT) is None


def test_a_span_that_is_not_in_the_answer_has_no_score() -> None:
    for name in WRITERS:
        assert score_of("nothing", [("nothing", -1.0)], BERT, name) is None


def test_in_a_changed_text_a_mention_has_its_next_place() -> None:
    answer = "So: [Ann](PER), [Bert](PER), [Bert](PER), [Ann](PER)"
    pieces = [
        ("So: ", -9.0),
        ("[Ann](PER), ", -1.0),
        ("[Bert](PER), ", -2.0),
        ("[Bert](PER), ", -3.0),
        ("[Ann](PER)", -4.0),
    ]
    spans = [Span(50, 53, "PER", text="Ann"), Span(60, 64, "PER", text="Bert"), Span(70, 73, "PER", text="Ann")]
    assert span_scores_of_answer(answer, pieces, spans, "brackets") == pytest.approx(tuple(np.exp([-1.0, -2.0, -4.0])))


def test_what_the_text_itself_has_in_brackets_is_no_mention() -> None:
    answer = "[Bert](PER) is written for [Bert](PER)"
    pieces = [("[Bert](PER)", -9.0), (" is written for ", -9.0), ("[Bert](PER)", -1.0)]
    assert score_of(answer, pieces, Span(27, 31, "PER", text="Bert")) == pytest.approx(math.exp(-1))


def test_damaged_dictionaries_and_other_names_of_fields_are_found_as_they_are_read() -> None:
    text = "Bert and O'Neill saw Bert"
    cases = {
        "categories": "Sure: {'PER': ['Bert', 'O'Neill', \"Bert",
        "objects": "[] [{'label': 'PER', 'text': 'Bert'}, {\"mention\": \"O'Neill\", \"type\": \"PER\"}",
    }
    for name, answer in cases.items():
        spans = FORMATS[name].read(text, answer, ["PER"]).spans
        assert spans
        pieces = [(letter, -0.01) for letter in answer]
        for span, score in zip(spans, span_scores_of_answer(answer, pieces, spans, name), strict=True):
            letters = len(span.text or "") + 2 + (5 if name == "objects" else 0)
            assert score == pytest.approx(math.exp(-0.01 * letters))


@given(answer=TEXTS, text=TEXTS)
@settings(deadline=None)
def test_any_span_that_is_read_from_any_answer_has_a_score_or_none(answer: str, text: str) -> None:
    for name in WRITERS:
        spans = FORMATS[name].read(text, answer, LABELS).spans
        scores = span_scores_of_answer(answer, [(letter, -0.5) for letter in answer], spans, name)
        assert all(
            score is None or score == pytest.approx(math.exp(-0.5 * round(-2 * math.log(score)))) for score in scores
        )
        assert len(scores) == len(spans)


@pytest.mark.timeout(30)
def test_a_long_answer_is_scored_in_time() -> None:
    text = "Bert met Ann. " * 5000
    spans = [Span(14 * n + 9, 14 * n + 12, "PER", text="Ann") for n in range(5000)]
    for name in WRITERS:
        answer, _ = FORMATS[name].write(text, spans)
        scores = span_scores_of_answer(answer, [(letter, -0.001) for letter in answer], spans, name)
        assert None not in scores


def test_formats_of_other_packages_are_looked_up_as_they_write() -> None:
    assert score_of("Saw <PER>Bert</PER>", [("Saw <PER>Bert</PER>", -1.0)], BERT, "xml") == pytest.approx(math.exp(-1))
    with pytest.raises(UnknownNameError, match="bracket"):
        score_of("", [], BERT, "bracket")


def test_a_span_without_text_is_refused() -> None:
    with pytest.raises(DataError, match="PER span at 4 has no text"):
        score_of("Saw [Bert](PER)", [], Span(4, 8, "PER"))
