"""The four plug-ins by themselves, and together in a short training."""

import random

import pytest
import torch
from sklearn.metrics import f1_score

import lightft
from lightft import AdapterSpec, Example, LoRATrainer, ModelComparator, ModelLoader, Prediction
from lightft.contracts.made_up_runs import classification_run
from lightft.contracts.tiny_models import Pair, save_base
from lightft.data import TaskData
from lightft.errors import AdapterError, DataError, InvalidSettingError
from lightft.metrics import score_predictions
from lightft.tasks import TASKS

LABELS = ("food", "music", "travel")
WORDS = {"food": "rome", "music": "film", "travel": "paris"}


@pytest.fixture(scope="module")
def data():
    """Texts in which a word of its own tells each label, as a train and a test split."""
    rng = random.Random(0)
    rows = []
    for number in range(96):
        labels = [label for label in LABELS if rng.random() < 0.4]
        words = [WORDS[label] for label in labels] + rng.choices(("the", "was", "and", "it"), k=3)
        rng.shuffle(words)
        rows.append(Example(str(number), " ".join(words), "|".join(labels)))
    return TaskData("text-classification", "made up", LABELS, tuple(rows[:64]), (), tuple(rows[64:]))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small random BERT, with weights spread widely enough to tell its words apart."""
    folder = tmp_path_factory.mktemp("base")
    return save_base(Pair("bert", "text-classification"), folder, with_head=False, initializer_range=0.1)


def test_a_short_training_learns_the_labels_and_writes_a_table(data, base, tmp_path):
    head = TASKS["multi-label"](labels=LABELS)
    loader = ModelLoader(str(base), dtype="float32")
    settings = {"epochs": 20, "batch_size": 8, "learning_rate": 1e-2, "progress": False}
    for adapter in ("head-only", "lokr"):
        LoRATrainer(loader, head=head, adapter=adapter, output_dir=tmp_path / adapter, **settings).fit(data)
    comparison = ModelComparator().compare([tmp_path / "head-only", tmp_path / "lokr"])
    assert comparison.headline == "micro_f1"
    assert comparison.row("lokr").scores["micro_f1"].value > 0.8
    assert comparison.save(tmp_path / "table.rst").read_text(encoding="utf-8").startswith(".. list-table::")
    opened = lightft.load(tmp_path / "lokr" / "adapter")
    assert opened("the film was paris").probabilities.keys() == set(LABELS)


def test_loss_is_that_of_torch_summed():
    head = TASKS["multi-label"](labels=LABELS)
    logits, labels = torch.randn(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [-100, -100, -100]])
    expected = torch.nn.BCEWithLogitsLoss(reduction="sum")(logits[:3], labels[:3].float())
    torch.testing.assert_close(head.loss(logits, labels, None), expected)


def test_unknown_label_is_refused_by_name(base):
    head = TASKS["multi-label"](labels=LABELS)
    tokenizer = ModelLoader(str(base)).load_tokenizer()
    with pytest.raises(DataError, match="'sport'"):
        head.encode([Example("1", "a film", "music|sport")], tokenizer, 48)


def test_threshold_outside_of_probabilities_is_refused():
    with pytest.raises(InvalidSettingError, match="threshold is 1"):
        TASKS["multi-label"](labels=LABELS, threshold=1)


def test_micro_f1_is_that_of_scikit_learn():
    rng = random.Random(1)
    gold = [[rng.random() < 0.4 for _ in LABELS] for _ in range(50)]
    predicted = [[rng.random() < 0.4 for _ in LABELS] for _ in range(50)]
    rows = [
        Prediction(str(n), names(one), names(other)) for n, (one, other) in enumerate(zip(gold, predicted, strict=True))
    ]
    score = score_predictions(rows, ["micro_f1"])["micro_f1"]
    assert score == pytest.approx(f1_score(gold, predicted, average="micro"))


def names(flags):
    return "|".join(label for label, flag in zip(LABELS, flags, strict=True) if flag)


def test_lokr_trains_fewer_parameters_than_lora(base):
    model, _ = ModelLoader(str(base), labels=("a", "b"), dtype="float32").load_model()
    trained = {kind: AdapterSpec(kind, r=8).explain(model).trainable for kind in ("lora", "lokr")}
    assert trained["lokr"] < trained["lora"] / 2


def test_lokr_refuses_a_4_bit_base(base, data):
    loader = ModelLoader(str(base), labels=("a", "b"), quantization="nf4")
    with pytest.raises(AdapterError, match="4-bit weights are packed"):
        LoRATrainer(loader, adapter="lokr").train(data.train)


def test_a_table_shows_names_as_they_are(tmp_path):
    run = classification_run("*lora* `50%`_", skill=0.5, examples=40)
    table = ModelComparator(resamples=50).compare([run]).save(tmp_path / "table.rst").read_text(encoding="utf-8")
    assert r"* - \*lora\* \`50\%\`\_" in table
