"""Prompts and instruction data: what is taught is what is asked, token by token."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import lightft
from lightft import Example, LLMNERExtractor, ModelLoader, Span
from lightft.errors import DataError, InvalidSettingError, UnknownNameError
from lightft.llm_ner import FORMATS, Prompt, build_instruction_data, write_instruction_data, x_ray
from lightft.tasks import CausalLM
from lightft.tasks.conversations import prompt_tokens
from tests.test_docs import write_entities
from tests.tiny_models import tagged_texts

LABELS = {"PER": "a person", "LOC": ""}
POOL = (
    Example("0", "anna met bert", (Span(0, 4, "PER"), Span(9, 13, "PER"))),
    Example("1", "the film was bad", ()),
    Example("2", "bert went to rome", (Span(0, 4, "PER"), Span(13, 17, "LOC"))),
    Example("3", "we saw new york", (Span(7, 15, "LOC"),)),
    Example("4", "the film was good", ()),
)


def asked(prompt: Prompt, text: str) -> str:
    (message,) = prompt.messages(text)
    assert message.role == "user"
    return message.content


# --- prompts


def test_a_basic_prompt_names_the_types_the_format_and_ends_with_the_text() -> None:
    said = asked(Prompt("basic", LABELS), "anna met bert")
    assert "\n- PER: a person\n- LOC\n" in said
    assert "[mention](TYPE)" in said
    assert said.endswith("\n\nanna met bert")
    assert "TYPE>mention" in asked(Prompt("basic", ["PER"], "xml"), "anna")


def test_a_few_shot_prompt_is_a_basic_one_with_answers_of_the_format() -> None:
    for name, written in [("brackets", "[anna](PER) met [bert](PER)"), ("categories", '{"PER": ["anna", "bert"]}')]:
        said = asked(Prompt("few-shot", LABELS, name, examples=POOL, shots=1), "anna met carl")
        assert f"Text:\n\nanna met bert\n\nAnswer:\n\n{written}\n\nText:\n\nanna met carl" in said
        assert said.count("Answer:") == 1


def test_examples_that_are_most_similar_are_shown_those_with_entities_first() -> None:
    prompt = Prompt("few-shot", LABELS, examples=POOL, shots=2)
    nearest = [one.id for one in prompt.worked_examples("bert went to paris")]
    assert nearest[-1] == "2", "the most similar stands next to the text"
    assert set(nearest) <= {"0", "2", "3"}
    more = Prompt("few-shot", LABELS, examples=POOL, shots=4).worked_examples("the film was long")
    assert [one.id for one in more][:1] in (["1"], ["4"]), "without entities only when there are no others"
    assert {one.id for one in more[1:]} == {"0", "2", "3"}


def test_the_neighbours_are_those_of_a_search_by_hand() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    pool = [example for example in tagged_texts(40) if example.target]
    pool = list({example.text: example for example in pool}.values())
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit([one.text for one in pool])
    for text in ("anna met bert in rome", "saw a boring film with anna", "xyz"):
        similar = cosine_similarity(vectorizer.transform([text]), vectorizer.transform([one.text for one in pool]))[0]
        ranked = sorted(
            (place for place in range(len(pool)) if pool[place].text != text),
            key=lambda place: (-round(similar[place], 6), place),
        )
        chosen = Prompt("few-shot", ["PER", "LOC"], examples=pool, shots=3).worked_examples(text)
        assert [one.id for one in chosen] == [pool[place].id for place in ranked[:3]][::-1]


def test_a_text_is_never_its_own_example() -> None:
    twice = (*POOL, Example("again", " anna met bert\n", POOL[0].target))
    for text in (*(one.text for one in POOL), " anna met bert "):
        shown = Prompt("few-shot", LABELS, examples=twice, shots=9).worked_examples(text)
        assert text.strip() not in {one.text.strip() for one in shown}
        assert len(shown) == 4


def test_a_template_of_ones_own_is_filled_in_once() -> None:
    prompt = Prompt('{"find": {types}} {text} {format} {examples}', ["PER"], examples=POOL, shots=1)
    said = asked(prompt, "{types} {text}")
    assert said.startswith('{"find": - PER} {types} {text} Answer with the text again')
    assert said.count("Answer:") == 1
    assert asked(Prompt("<{text}>", ["PER"]), "anna") == "<anna>"


def test_prompts_with_other_examples_have_other_settings() -> None:
    def settings(examples: tuple[Example, ...], style: str = "few-shot", **chosen: Any) -> dict[str, object]:
        return Prompt(style, LABELS, examples=examples, **chosen).settings()

    assert settings(POOL) == settings(POOL)
    assert settings(POOL) != settings(POOL[:4])
    relabelled = (Example("0", "anna met bert", (Span(0, 4, "LOC"),)), *POOL[1:])
    assert settings(POOL) != settings(relabelled)
    fixed = {"choice": "fixed", "shots": 1}
    assert settings(POOL, **fixed) != settings(relabelled, **fixed)
    assert settings(POOL, "basic") == settings(relabelled, "basic"), "no example is shown"
    again = Prompt.from_json(json.loads(json.dumps(Prompt("few-shot", LABELS, examples=POOL, **fixed).to_json())))
    assert again.settings() == settings(POOL, **fixed)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"has no \{text\}"):
        Prompt("Find {types}.", ["PER"])
    with pytest.raises(UnknownNameError, match="Did you mean 'few-shot'"):
        Prompt("few-shots", ["PER"])
    with pytest.raises(UnknownNameError, match="Did you mean 'brackets'"):
        Prompt("basic", ["PER"], "bracket")
    with pytest.raises(InvalidSettingError, match="no types"):
        Prompt("basic", [])
    with pytest.raises(InvalidSettingError, match="cannot write the type 'a]'"):
        Prompt("basic", ["a]"])
    with pytest.raises(InvalidSettingError, match="none to choose from"):
        Prompt("few-shot", ["PER"])
    with pytest.raises(InvalidSettingError, match="shots=0"):
        Prompt("few-shot", ["PER"], examples=POOL, shots=0)
    with pytest.raises(DataError, match="Example 'x' has no gold spans"):
        Prompt("few-shot", ["PER"], examples=[Example("x", "anna", "PER")])


# --- instruction data


@pytest.mark.parametrize("style", ["basic", "few-shot", "{types}: {text} ({format})"])
@pytest.mark.parametrize("name", ["brackets", "xml", "categories", "objects"])
def test_what_is_taught_is_what_is_asked_and_what_is_read(name: str, style: str) -> None:
    rows, counts = build_instruction_data(POOL, name, style, labels=LABELS)
    prompt = Prompt(style, LABELS, name, examples=POOL)
    assert [row.text for row in rows] == [asked(prompt, one.text) for one in POOL]
    for row, one in zip(rows, POOL, strict=True):
        reading = FORMATS[name].read(one.text, str(row.target), tuple(LABELS))
        assert (row.id, reading.spans, reading.outcome) == (one.id, one.target, "ok")
    assert counts == {"rows": 5, "entities": 5}


def test_what_is_left_out_is_counted() -> None:
    examples = [
        Example("a", "new york times", (Span(0, 8, "LOC"), Span(0, 14, "ORG"), Span(9, 14, "DATE"))),
        Example("b", " ", ()),
        Example("c", "rome", (Span(0, 4, "LOC"),)),
    ]
    rows, counts = build_instruction_data(examples, labels=["LOC", "ORG"])
    assert [row.target for row in rows] == ["[new york times](ORG)", "[rome](LOC)"]
    assert counts == {
        "rows": 2,
        "entities": 2,
        "entities_left_out": 1,
        "entities_of_other_types": 1,
        "blank_texts": 1,
    }
    assert "- DATE\n- LOC\n- ORG\n" in build_instruction_data(examples)[0][0].text
    with pytest.raises(DataError, match="Example 'x' has no gold spans"):
        build_instruction_data([Example("x", "anna", "PER")], labels=["PER"])
    with pytest.raises(DataError, match="None of the 1 examples has a text"):
        build_instruction_data(examples[1:2], labels=["LOC"])


@pytest.mark.parametrize("style", ["basic", "few-shot", "{types}: {text} ({format})"])
def test_a_file_of_instruction_data_is_read_back_as_it_was_built(style: str, tmp_path: Path) -> None:
    odd = (*POOL, Example("5", '  anna\'s\n\n🦜\u2028 "film" ', (Span(2, 6, "PER"),)))
    path = tmp_path / "ner_instruct_data.json"
    counts = write_instruction_data(path, odd, "categories", style, labels=LABELS)
    rows, built_counts = build_instruction_data(odd, "categories", style, labels=LABELS)
    assert counts == built_counts
    written = json.loads(path.read_text(encoding="utf-8"))
    assert all(set(row) == {"instruction", "input", "output"} for row in written)
    data = lightft.load_data({"train": path}, validation=0)
    assert data.task == "causal-lm"
    assert [(row.text, row.target) for row in data.train] == [(row.text, row.target) for row in rows]
    if style == "basic":
        assert [row["input"] for row in written] == [one.text for one in odd]
        assert len({row["instruction"] for row in written}) == 1


@pytest.fixture(params=["chat-template", "no-template"])
def tuned(request: pytest.FixtureRequest, tiny_llama: Path, plain_llama: Path) -> Any:
    folder = tiny_llama if request.param == "chat-template" else plain_llama
    return ModelLoader(str(folder), task="causal-lm", dtype="float32").load_model()


@pytest.mark.parametrize("style", ["basic", "few-shot"])
def test_training_and_asking_see_the_same_tokens(tuned: Any, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tuned
    head = CausalLM()
    rows, _ = build_instruction_data(POOL, prompt=style, labels=LABELS)
    encodings, _ = head.encode(rows, tokenizer, 10_000)
    seen: list[list[int]] = []

    def noting(**inputs: Any) -> Any:
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        seen.extend(row[kept].tolist() for row, kept in zip(ids, mask, strict=True))
        return ids

    monkeypatch.setattr(model, "generate", noting)
    # Three worked examples are more than the tiny model says it reads at once.
    monkeypatch.setattr(model.config, "max_position_embeddings", 1024)
    monkeypatch.setattr(tokenizer, "model_max_length", 1024)
    predictor = lightft.inference.Predictor(model, tokenizer, head, 10_000)
    extractor = LLMNERExtractor(
        predictor, LABELS, prompt=style, examples=POOL, decoding="free", max_new_tokens=1, window=1000
    )
    for one in POOL:
        list(extractor.extract([one.text]))
    for encoding, ids, row in zip(encodings, seen, rows, strict=True):
        prompt_length = encoding.labels.index(next(label for label in encoding.labels if label >= 0))
        assert encoding.input_ids[:prompt_length] == ids
        # What a constrained answer begins with.
        assert prompt_tokens(extractor.prompt.messages(POOL[encoding.example].text), tokenizer) == ids
        trained = [label for label in encoding.labels if label >= 0]
        assert tokenizer.decode(trained) == f"{row.target}</s>"
        assert ids.count(tokenizer.bos_token_id) == 1


def test_an_x_ray_shows_every_token_and_which_are_trained(tuned: Any) -> None:
    _, tokenizer = tuned
    (row, *_), _ = build_instruction_data(POOL, labels=LABELS)
    shown = x_ray(row, tokenizer, CausalLM())
    (encoding,), _ = CausalLM().encode([row], tokenizer, 10_000)
    trained = [tokenizer.decode([label]) for label in encoding.labels if label >= 0]
    (line,) = [line for line in shown.splitlines() if line.startswith("trained")]
    assert line == f"trained, {len(trained)} tokens: {' '.join(map(repr, trained))}"
    assert line.endswith("'</s>'")
    assert sum(map(int, re.findall(r"^.*?, (\d+) tokens:", shown, re.MULTILINE))) == len(encoding.input_ids)
    cut = x_ray(row, tokenizer, CausalLM(), max_length=20)
    assert cut.endswith("cut after 20 tokens: the end of the answer is not taught")
    assert "trained, " not in cut


# --- the page


def test_code_of_the_page_runs(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_llama, tmp_path / "HuggingFaceTB/SmolLM2-135M-Instruct")
    write_entities(tmp_path / "conll")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "llm-ner.md").read_text(encoding="utf-8")
    # What needs a server, a trained model or a file of its own is marked.
    blocks = re.findall(r"(?<!<!-- not run -->\n)```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 4
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/llm-ner.md", "exec", dont_inherit=True), namespace)


def test_the_page_names_every_format_prompt_and_outcome() -> None:
    from lightft.llm_ner import OUTCOMES, PROMPTS

    page = (Path(__file__).parents[2] / "docs" / "llm-ner.md").read_text(encoding="utf-8")
    assert {name for name in (*FORMATS, *PROMPTS, *OUTCOMES) if f"`{name}`" not in page} == set()
    text = "Antonio Kandir visited Minas"
    spans = [Span(0, 14, "PER"), Span(23, 28, "LOC")]
    for name in FORMATS:
        assert f"`{FORMATS[name].write(text, spans)[0]}`" in page, name
