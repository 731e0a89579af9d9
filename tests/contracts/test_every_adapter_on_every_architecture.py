"""Every adapter kind on every architecture and head: it trains all it says it trains, or refuses before weights are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightft import LoRATrainer, ModelLoader
from lightft.contracts.adapter_cells import BATCH, STEPS, Bench, rows_of
from lightft.contracts.selection import chosen_plugins
from lightft.contracts.support_matrix import Reasons, plain_reason, write_between
from lightft.contracts.tiny_models import CONFIGS, LABELS, PAIRS, Pair, examples, save_base
from lightft.contracts.watching import Seen, train_and_watch

pytestmark = pytest.mark.slow
WRITE_TO = os.environ.get("LIGHTFT_MATRIX_PAGE")
KINDS = rows_of(chosen_plugins(["lightft"])["adapters"])
SEEN: dict[Pair, dict[str, Seen]] = {}
WRONG: dict[Pair, dict[str, str]] = {}


@pytest.fixture(scope="module", autouse=True)
def matrix_page() -> Iterator[None]:
    """Write the table into the page between its markers, when a page is named."""
    yield
    if WRITE_TO is not None:
        write_between(Path(WRITE_TO), "architectures", table())


def table() -> str:
    """Return a row per architecture: which kinds train on it, and the numbered reasons why others do not."""
    reasons = Reasons()
    lines = ["| architecture | text classification | token classification |", "|---|---|---|"]
    for architecture in CONFIGS:
        cells = [words(Pair(architecture, task), reasons) for task in LABELS]
        lines.append(f"| {architecture} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *reasons.lines(), ""])


def words(pair: Pair, reasons: Reasons) -> str:
    """Return ``"all 20"``, or ``"18 of 20; refused: prefix-tuning (1), …"``."""
    if pair not in SEEN:
        return "–"
    refused = [
        f"{row} ({reasons.number(plain_reason(seen.refusal))})"
        for row, seen in SEEN[pair].items()
        if seen.refusal is not None and row not in WRONG[pair]
    ]
    trained = len(KINDS) - len(refused) - len(WRONG[pair])
    parts = [f"all {len(KINDS)}" if trained == len(KINDS) else f"{trained} of {len(KINDS)}"]
    parts += [f"refused: {', '.join(refused)}"] if refused else []
    parts += [f"**fails**: {', '.join(WRONG[pair])}"] if WRONG[pair] else []
    return "; ".join(parts)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_every_kind_trains_all_it_says_or_refuses_before_weights_are_read(pair: Pair, tmp_path: Path) -> None:
    base = save_base(pair, tmp_path / "base", with_head=False)
    loader = ModelLoader(str(base), task=pair.task, labels=LABELS[pair.task], dtype="float32", device="cpu")
    bench = Bench(tmp_path / "to-fuse", loader)
    SEEN[pair], WRONG[pair] = {}, {}
    rows = examples(pair.task, BATCH)
    for row, kind, params in KINDS:
        trainer = LoRATrainer(
            loader,
            adapter=bench.spec(kind, params, pair.task),
            epochs=STEPS,
            batch_size=BATCH,
            warmup=0.0,
            progress=False,
        )
        seen = SEEN[pair][row] = train_and_watch(trainer, rows, tmp_path / row)
        wrong = what_is_wrong(seen)
        if wrong:
            WRONG[pair][row] = wrong
    assert WRONG[pair] == {}


def what_is_wrong(seen: Seen) -> str:
    if seen.error is not None:
        return f"{type(seen.error).__name__}: {seen.error}"
    if seen.refusal is not None:
        return "refused only after the base had been loaded" if seen.weights_were_read else ""
    left = {"without gradient": seen.without_gradient, "unmoved": seen.unmoved, "base changed": seen.changed_base}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in left.items() if names)
