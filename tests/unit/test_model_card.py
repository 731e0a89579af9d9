"""A model card is read by the Hub, tells what was measured and no more, and its code loads the model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from sklearn.metrics import precision_recall_fscore_support

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.data import TaskData
from lightft.errors import AdapterError, DataError
from lightft.exporters import model_card
from lightft.exporters.licence import licence_of_base
from lightft.records import Run
from tests.hub_double import no_hub, serve_hub


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``ner`` and ``classes`` and their base, in ``base``, which states a licence."""
    folder = tmp_path_factory.mktemp("carded")
    save_base(Pair("bert", "token-classification"), folder / "base", with_head=False)
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n", encoding="utf-8")
    for name, task in {"ner": "token-classification", "classes": "text-classification"}.items():
        rows = examples(task, 24)
        data = TaskData(task, "conll-of-ours", LABELS[task], rows[:12], rows[12:16], rows[16:])
        loader = ModelLoader(str(folder / "base"), task=task, labels=LABELS[task], dtype="float32")
        LoRATrainer(loader, epochs=3, learning_rate=1e-2, progress=False, output_dir=folder / name).fit(data)
    return folder


def front_matter(card: str) -> dict[str, Any]:
    """Return the front matter as the Hub's own client reads it; what it does not know stops it."""
    return ModelCard(card, ignore_metadata_errors=False).data.to_dict()


def tables_of(card: str) -> list[list[list[str]]]:
    """Return the tables of the card, each a list of lines of cells, as a Markdown program sees them."""
    tables: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(card.partition("---\n\n")[2]):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level > 3:
            tables[-1][-1].append("".join(child.content for child in token.children or ()))
    return tables


# --- what the Hub reads


def test_front_matter_is_what_the_hub_reads(runs: Path) -> None:
    told = front_matter(model_card(runs / "ner"))
    assert told["license"] == "apache-2.0"
    assert told["library_name"] == "peft"
    assert told["pipeline_tag"] == "token-classification"
    assert told["tags"] == ["lightft", "lora"]
    # A folder of this machine is no model of the Hub, and its path is nobody's business.
    assert "base_model" not in told
    assert str(runs) not in model_card(runs / "ner")


def test_scores_of_the_front_matter_are_those_of_the_run(runs: Path) -> None:
    run = Run.load(runs / "ner")
    results = ModelCard(model_card(run)).data.eval_results
    assert {result.metric_name: result.metric_value for result in results} == {
        name: score["value"] for name, score in run.scores.items()
    }
    headline = next(result for result in results if result.metric_name == "span_f1")
    assert headline.metric_type == "f1"
    assert headline.metric_args == {"interval_95": [run.scores["span_f1"]["low"], run.scores["span_f1"]["high"]]}
    assert headline.dataset_name == "conll-of-ours"
    assert headline.dataset_args == {"fingerprint": run.data["test_fingerprint"]}


def test_a_base_and_data_of_the_hub_are_named_in_the_front_matter(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run.load(runs / "ner")
    of_hub = replace(
        run, model={**run.model, "name": "owner/base", "revision": "abc"}, data={**run.data, "source": "owner/set"}
    )
    no_hub(monkeypatch, tmp_path)
    told = front_matter(model_card(of_hub))
    assert (told["base_model"], told["base_model_relation"]) == ("owner/base", "adapter")
    assert told["datasets"] == ["owner/set"]


@pytest.mark.parametrize(
    ("form", "library", "said"),
    [("adapter", "peft", "An adapter,"), ("checkpoint", "transformers", "A model,"), ("gguf", "gguf", "A GGUF model,")],
)
def test_a_card_says_what_it_lies_beside(runs: Path, form: Any, library: str, said: str) -> None:
    card = model_card(runs / "ner", form=form)
    assert front_matter(card)["library_name"] == library
    assert said in card


# --- what people read


def test_every_metric_is_shown_with_its_interval(runs: Path) -> None:
    run = Run.load(runs / "ner")
    scores = tables_of(model_card(run))[0]
    assert scores[0] == ["metric", "value", "95 % interval"]
    assert [line[0] for line in scores[1:]] == list(run.scores)
    score = run.scores["span_f1"]
    (line,) = [line for line in scores if line[0] == "span_f1"]
    assert line[1:] == [f"{score['value']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}"]


def test_classes_are_shown_as_scikit_learn_counts_them(runs: Path) -> None:
    run = Run.load(runs / "classes")
    by_class = tables_of(model_card(run))[1]
    gold, predicted = ([getattr(row, part) for row in run.predictions] for part in ("gold", "predicted"))
    expected = precision_recall_fscore_support(gold, predicted, labels=LABELS["text-classification"], zero_division=0)
    for place, (label, line) in enumerate(zip(LABELS["text-classification"], by_class[1:], strict=True)):
        assert line[0] == label
        assert line[1] == str(expected[3][place])
        assert line[5] == f"{expected[2][place]:.3f}"


def test_entity_types_are_shown(runs: Path) -> None:
    by_type = tables_of(model_card(runs / "ner"))[1]
    assert by_type[0] == ["entity type", "gold", "predicted", "precision", "recall", "F1"]
    assert [line[0] for line in by_type[1:]] == ["LOC", "PER"]


def test_data_cost_and_settings_are_told(runs: Path) -> None:
    card, run = model_card(runs / "ner"), Run.load(runs / "ner")
    assert run.data["fingerprint"] in card
    assert "train 12, validation 4, test 8" in card
    assert "Trainable parameters: " in card
    assert "Training time: " in card
    assert "learning_rate 0.01" in card


def test_what_only_the_author_knows_is_left_to_be_filled_in_and_marked(runs: Path) -> None:
    card = model_card(runs / "ner")
    assert len(re.findall(r"\*\*Fill in before you share this:\*\* \w", card)) == 3


def test_scores_of_the_split_that_chose_the_epoch_are_called_so(runs: Path) -> None:
    run = Run.load(runs / "ner")
    assert "new texts will score lower" not in model_card(run)
    assert "new texts will score lower" in model_card(replace(run, data={**run.data, "tested_on": "validation"}))


def test_without_a_run_no_evaluation_is_claimed(runs: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(runs / "ner" / "adapter", tmp_path / "alone"))
    card = model_card(alone)
    assert "No evaluation is recorded" in card
    assert "model-index" not in card.partition("\n---\n")[0]
    assert front_matter(card)["pipeline_tag"] == "token-classification"


def test_a_plain_peft_folder_has_a_card(runs: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(runs / "ner" / "adapter", tmp_path / "alone"))
    (alone / "lightft.json").unlink()
    assert front_matter(model_card(alone))["pipeline_tag"] == "token-classification"


def test_a_folder_without_run_and_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="holds neither a run nor an adapter"):
        model_card(tmp_path)


def test_a_damaged_run_is_refused_rather_than_left_out(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "ner", tmp_path / "ner"))
    (run / "predictions.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        model_card(run / "adapter")


def test_names_cannot_forge_markup_or_front_matter(runs: Path) -> None:
    run = Run.load(runs / "ner")
    name = "x\n---\nlicense: mit\n---\n# y | <script>alert(1)</script> [a](http://b.c)"
    forged = replace(run, name=name, data={**run.data, "source": name}, labels=("LOC|<b>", "PER"))
    card = model_card(forged)
    assert front_matter(card)["license"] == "apache-2.0"
    html = MarkdownIt("commonmark").enable("table").render(card.partition("\n---\n\n")[2])
    assert "<script" not in html
    assert "<a href" not in html
    assert html.count("<h1>") == 1


# --- the licence of the base


def test_the_licence_of_a_hub_base_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.add_model("owner/base", tmp_path / "model")
        # The double tells no card data, as the Hub does where the card has none.
        assert licence_of_base("owner/base", commit) == {"license": "unknown"}
        assert licence_of_base("owner/other", None) == {"license": "unknown"}
        from huggingface_hub import hf_hub_download

        hf_hub_download("owner/base", "README.md", revision=commit)
        assert licence_of_base("owner/base", commit) == {"license": "mit"}


def test_a_licence_that_cannot_be_read_is_unknown_and_said_to_be(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_hub(monkeypatch, tmp_path)
    run = Run.load(runs / "ner")
    card = model_card(replace(run, model={**run.model, "name": "owner/base"}))
    assert front_matter(card)["license"] == "unknown"
    assert "unknown: look it up" in card


@pytest.mark.parametrize("content", ["", "# no front matter", "---\nlicense: [\n---\n", "---\nlanguage: en\n---\n"])
def test_a_base_whose_card_states_no_licence_has_an_unknown_one(tiny_bert: Path, tmp_path: Path, content: str) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    (base / "README.md").write_text(content, encoding="utf-8")
    assert licence_of_base(str(base), None) == {"license": "unknown"}


def test_a_named_licence_is_passed_on_with_its_address(tiny_bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    stated = {"license": "other", "license_name": "their-own", "license_link": "LICENSE"}
    (base / "README.md").write_text(f"---\n{yaml.dump(stated)}---\n", encoding="utf-8")
    assert licence_of_base(str(base), None) == stated


# --- the code of the card


def code_of(card: str, program: str) -> str:
    return re.search(rf"With {program}:\n\n```python\n(.*?)```", card, re.DOTALL)[1]


@pytest.mark.parametrize("name", ["ner", "classes"])
def test_the_code_for_peft_alone_loads_the_same_model(runs: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    adapter = f"{name}/adapter"
    found: dict[str, Any] = {"folder": adapter}
    exec(code_of(model_card(adapter), "transformers and peft"), found)
    ids = torch.arange(4, 16).reshape(2, 6)
    with torch.inference_mode():
        logits, expected = (model(input_ids=ids).logits for model in (found["model"], lightft.load(adapter).model))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    labels = found["base"].config.id2label
    assert list(labels.values())[: len(LABELS["text-classification"])] in (["bad", "good"], ["O", "B-LOC"])


def test_the_code_for_lightft_and_for_transformers_runs_on_what_was_exported(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = lightft.export(runs / "ner" / "adapter", to="merged", out=tmp_path / "merged")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert front_matter(card)["library_name"] == "transformers"
    for program in ("lightft", "transformers"):
        exec(code_of(card, program), {"folder": str(out)})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_adapter_is_exported_with_its_card_in_the_place_of_an_empty_one(runs: Path, tmp_path: Path) -> None:
    adapter = runs / "ner" / "adapter"
    out = lightft.export(adapter, to="adapter", out=tmp_path / "shared")
    assert "More Information Needed" in (adapter / "README.md").read_text(encoding="utf-8")
    assert (out / "README.md").read_text(encoding="utf-8") == model_card(runs / "ner")
    assert {path.name for path in out.iterdir()} == {path.name for path in adapter.iterdir()}
    text = "anna met bert in rome"
    assert lightft.load(out)(text) == lightft.load(adapter)(text)
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"
