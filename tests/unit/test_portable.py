"""Without torch, an exported model gives the answers that ``lightft.load`` gives with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from transformers import pipeline

import lightft
from lightft import Example, LoRATrainer, ModelLoader
from lightft.errors import AdapterError, MissingExtraError
from lightft.inference import Predictor
from lightft.portable import OnnxPredictor, load_onnx
from lightft.records import Classified, Span
from lightft.spans import split_words
from lightft.tasks import TokenClassification
from tests.roberta_size import save_tagger_of_roberta_size
from tests.tiny_models import LABELS, TYPES, classified_texts, save_bert, tagged_texts

Pair = tuple[Predictor, OnnxPredictor]
TOKENS, TEXTS = "token-classification", "text-classification"
# The decodings of entities, each on a tokenizer of another kind, and classes.
KINDS = {"constrained": "wordpiece", "crf": "byte-bpe", "argmax": "unigram", "classes": "wordpiece"}
HARD_TEXTS = (
    "",
    "   ",
    "anna berg met bert in new york .",
    "Anna\tBERG,\n\nrome!",
    "é anna\u0301 東京 ไทย \u200d 🙂 x\u00adyz",
    "anna met bert in new york and then they saw a very boring film in rome . " * 12,
    "annabergbertnewyorkrome" * 20,
)
WORDS = ("anna", "berg", "bert", "new", "york", "rome", "film", "Film", "x1", ",", ".", "é", "東", "\n", "  ")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """The same model with torch and without, trained once per kind; it reads 64 tokens at once."""
    made: dict[str, Pair] = {}

    def pair(kind: str) -> Pair:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            base = save_bert(folder / "base", tokenizer=KINDS[kind])
            adapter = _train(base, folder, kind)
            exported = lightft.export(adapter, to="onnx", out=folder / "onnx")
            made[kind] = lightft.load(adapter), load_onnx(exported)
        return made[kind]

    return pair


@pytest.fixture(scope="module")
def int8(pairs: Callable[[str], Pair]) -> OnnxPredictor:
    """The model with constrained decoding in 8 bits."""
    folder = pairs("constrained")[1].path.parent
    probe = [example.text for example in tagged_texts(16)] * 16
    return load_onnx(lightft.export(folder / "adapter", to="onnx-int8", out=folder / "int8", probe=probe))


def _train(base: Path, folder: Path, kind: str) -> Path:
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2, "progress": False}
    if kind == "classes":
        loader = ModelLoader(str(base), task=TEXTS, labels=LABELS, dtype="float32")
        trainer, rows = LoRATrainer(loader, **settings), classified_texts()
    else:
        loader = ModelLoader(str(base), task=TOKENS, labels=TYPES, dtype="float32")
        head = TokenClassification(labels=TYPES, decoding=kind)
        trainer, rows = LoRATrainer(loader, head=head, **settings), tagged_texts()
    return trainer.save(trainer.train(rows), folder / "adapter")


def _assert_alike(with_torch: Sequence[Any], without: Sequence[Any], within: float = 1e-5) -> None:
    for expected, found in zip(with_torch, without, strict=True):
        if isinstance(expected, Classified):
            assert found.label == expected.label
            assert found.probabilities == pytest.approx(expected.probabilities, abs=within)
            assert found.score == found.probabilities[found.label]
        else:
            assert found == expected
            assert [span.text for span in found] == [span.text for span in expected]
            assert [span.score for span in found] == pytest.approx([span.score for span in expected], abs=within)


# --- the same answers


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_with_torch(pairs: Callable[[str], Pair], kind: str) -> None:
    with_torch, without = pairs(kind)
    rows = tagged_texts() if kind != "classes" else classified_texts()
    texts = [*(example.text for example in rows), *HARD_TEXTS]
    expected = with_torch(texts)
    if kind != "classes":
        assert sum(map(len, expected)) > 20
    _assert_alike(expected, without(texts))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=120).map(" ".join), max_size=4))
def test_texts_of_any_length_are_read_in_the_same_windows(
    pairs: Callable[[str], Pair], kind: str, texts: list[str]
) -> None:
    with_torch, without = pairs(kind)
    _assert_alike(with_torch(texts), without(texts))


def test_predictions_hold_what_metrics_need(pairs: Callable[[str], Pair]) -> None:
    with_torch, without = pairs("constrained")
    examples = [*tagged_texts(8), Example("running", HARD_TEXTS[5], (Span(0, 4, "PER"),))]
    for expected, found in zip(with_torch.predict(examples), without.predict(examples), strict=True):
        assert (found.id, found.gold, found.words, found.tags, found.pieces) == (
            expected.id, expected.gold, expected.words, expected.tags, expected.pieces,
        )  # fmt: skip


def test_classes_are_those_of_a_transformers_pipeline(pairs: Callable[[str], Pair], tmp_path: Path) -> None:
    _, without = pairs("classes")
    merged = lightft.export(without.path.parent / "adapter", to="merged", out=tmp_path / "merged")
    classify = pipeline("text-classification", model=str(merged), top_k=None, truncation=True, device="cpu")
    texts = [example.text for example in classified_texts()] + [HARD_TEXTS[5]]
    for text, found in zip(texts, without(texts), strict=True):
        (classes,) = classify([text])
        expected = {row["label"]: row["score"] for row in classes}
        assert found.probabilities == pytest.approx(expected, abs=1e-5)


def test_tags_and_scores_are_those_of_a_transformers_pipeline(pairs: Callable[[str], Pair], tmp_path: Path) -> None:
    _, without = pairs("argmax")
    merged = lightft.export(without.path.parent / "adapter", to="merged", out=tmp_path / "merged")
    tag = pipeline(
        "token-classification", model=str(merged), aggregation_strategy="none", ignore_labels=[], device="cpu"
    )
    entities = 0
    for example in tagged_texts(8):
        first_of_word: dict[int, Any] = {}
        for token in tag([example.text])[0]:
            for word, (start, end) in enumerate(split_words(example.text)):
                if start < token["end"] <= end:
                    first_of_word.setdefault(word, token)
        (found,) = without.predict([Example(example.id, example.text)])
        assert list(found.tags or ()) == [token["entity"] for token in first_of_word.values()]
        for span in found.predicted:
            assert isinstance(span, Span)
            words = [word for word, (start, end) in enumerate(found.words or ()) if span.start <= start < span.end]
            assert span.score == pytest.approx(
                sum(first_of_word[word]["score"] for word in words) / len(words), abs=1e-5
            )
            entities += 1
    assert entities > 5


def test_one_text_a_list_and_a_stream_are_answered_alike(pairs: Callable[[str], Pair]) -> None:
    _, without = pairs("constrained")
    texts = [example.text for example in tagged_texts(6)]
    answers = without(texts)
    _assert_alike(answers, [without(text) for text in texts])
    stream = without(iter(texts))
    assert iter(stream) is stream
    _assert_alike(answers, list(stream))
    assert without([]) == []


# --- in 8 bits


def test_in_8_bits_an_answer_does_not_depend_on_the_texts_beside_it(int8: OnnxPredictor) -> None:
    texts = [example.text for example in tagged_texts()]
    together = int8(texts)
    assert sum(map(len, together)) > 10
    for text, answer in zip(texts, together, strict=True):
        (alone,) = int8([text])
        _assert_alike([answer], [alone], within=1e-4)


def test_in_8_bits_most_entities_are_found_as_with_torch(pairs: Callable[[str], Pair], int8: OnnxPredictor) -> None:
    texts = [example.text for example in tagged_texts()]
    pairs_of_answers = list(zip(pairs("constrained")[0](texts), int8(texts), strict=True))
    alike = sum(expected == found for expected, found in pairs_of_answers)
    assert alike >= 0.9 * len(texts)


# --- what it says of itself, and what it needs


def test_it_says_what_it_is(pairs: Callable[[str], Pair], int8: OnnxPredictor) -> None:
    base = str(int8.path.parent / "base")
    assert (int8.task, int8.labels, int8.max_length, int8.base) == (TOKENS, TYPES, 64, base)
    assert int8.precision == "int8"
    _, classes = pairs("classes")
    assert (classes.task, classes.labels, classes.precision) == (TEXTS, LABELS, "float32")


def test_no_deep_learning_library_is_imported(int8: OnnxPredictor) -> None:
    program = (
        "import json, sys\n"
        "from lightft.portable import load_onnx\n"
        "spans = load_onnx(sys.argv[1], threads=1)('anna berg met bert in new york')\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'bitsandbytes', 'accelerate', 'onnx'}\n"
        "print(json.dumps([sorted(heavy & set(sys.modules)), [[s.start, s.end, s.label, s.score] for s in spans]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(int8.path)], capture_output=True, text=True, check=True, timeout=120
    )
    imported, spans = json.loads(done.stdout)
    assert imported == []
    assert spans == [[s.start, s.end, s.label, s.score] for s in int8("anna berg met bert in new york")]


def test_without_onnxruntime_it_says_which_extra_to_install(
    int8: OnnxPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"run by onnxruntime\. Install it with: pip install 'lightft\[onnx\]'"):
        load_onnx(int8.path)


# --- damaged folders


def _other_graph(path: Path) -> None:
    names = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("pixels", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["logits"])], "other", names[:1], names[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _changed(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model.onnx", Path.unlink, "holds no ONNX model: there is no model.onnx"),
        ("model.onnx", lambda path: path.write_bytes(path.read_bytes()[:5000]), "model.onnx is damaged"),
        ("model.onnx", lambda path: path.write_bytes(b"no graph"), "model.onnx is damaged"),
        ("model.onnx", _other_graph, "model.onnx takes pixels, where input_ids and attention_mask are given"),
        ("tokenizer.json", Path.unlink, "has no tokenizer.json"),
        ("tokenizer.json", lambda path: path.write_text('{"model": 1}'), "tokenizer.json is damaged"),
        ("onnx.json", Path.unlink, "is no ONNX folder: there is no onnx.json"),
        ("onnx.json", lambda path: path.write_text("{"), "onnx.json is damaged"),
        ("onnx.json", lambda path: path.write_text("[]"), "onnx.json is damaged"),
        ("onnx.json", lambda path: path.write_bytes(b"\xff\xfe"), "onnx.json is damaged"),
        ("onnx.json", _changed("task", "causal-lm"), "task is 'causal-lm', not one of"),
        ("onnx.json", _changed("max_length", "64"), "max_length is '64', not a whole number"),
        ("onnx.json", _changed("decoding", "crf"), "decoding='crf' and chain belong together"),
        ("onnx.json", _changed("surprise", 1), "onnx.json is damaged .*surprise"),
        ("onnx.json", _changed("outputs", ["O"]), "its graph has 5 outputs, and onnx.json names 1"),
        ("onnx.json", _changed("format", 2), "has format 2; this lightft reads up to 1"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    int8: OnnxPredictor, tmp_path: Path, file: str, damage: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(int8.path, tmp_path / "copy")
    damage(folder / file)
    with pytest.raises(AdapterError, match=said) as refused:
        load_onnx(folder)
    assert "\n" not in str(refused.value)


def test_an_adapter_folder_is_no_onnx_folder(int8: OnnxPredictor) -> None:
    with pytest.raises(AdapterError, match="is no ONNX folder"):
        load_onnx(int8.path.parent / "adapter")


# --- memory

MEGABYTE = 10**6
_ANSWER_AND_MEASURE = """
import json, sys, time
from lightft.portable import load_onnx
predictor = load_onnx(sys.argv[1], threads=1)
predictor("anna met bert")
ready = time.time()
for length in (1, 30, 2000):
    predictor(" ".join(["anna"] * length))
predictor(["anna berg met bert in new york ."] * 64)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"ready": ready, "peak": 1024 * int(status["VmHWM"].split()[0])}))
"""


def _in_limited_memory(folder: Path, limit: int) -> dict[str, float]:
    """Answer texts in a process of its own, which gets no more than ``limit`` bytes of its own memory."""
    resource = pytest.importorskip("resource")
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _ANSWER_AND_MEASURE, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout)
    return {"seconds": measured["ready"] - started, "peak": measured["peak"]}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own figures are read")
def test_a_model_of_the_size_of_roberta_base_serves_in_400_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # How alike an untrained model's answers are is beside the point here: none of them is sure.
    monkeypatch.setattr("lightft.exporters.onnx_certificate._SMALLEST_AGREEMENT", 0.5)
    folder = lightft.export(save_tagger_of_roberta_size(tmp_path), to="onnx-int8", out=tmp_path / "int8")
    measured = _in_limited_memory(folder, limit=400 * MEGABYTE)
    with capsys.disabled():
        sys.stdout.write(
            f"\nmodel.onnx {(folder / 'model.onnx').stat().st_size / MEGABYTE:.0f} MB, peak resident "
            f"{measured['peak'] / MEGABYTE:.0f} MB, first answer {measured['seconds']:.1f} s after the start of Python\n"
        )
    assert measured["peak"] <= 400 * MEGABYTE


def test_without_enough_memory_it_does_not_start(int8: OnnxPredictor) -> None:
    """The limit that the test above sets is a limit."""
    with pytest.raises(AssertionError):
        _in_limited_memory(int8.path, limit=20 * MEGABYTE)
