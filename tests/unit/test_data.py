"""Data of every layout becomes the same examples; whatever is doubtful is counted or refused by file and line."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lightft.data
from lightft.data import TaskData, count_duplicates, load_data, read_examples
from lightft.data.splits import cut
from lightft.errors import DataError, InvalidSettingError, UnknownNameError
from lightft.records import Example, Message, Span
from lightft.spans import spans_to_tags

SENTENCES = [
    {"tokens": ["Ada", "Lovelace", "lives", "in", "London"], "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC"]},
    {"tokens": ["Nobody", "here"], "ner_tags": ["O", "O"]},
    {"tokens": ["A", "creative", "work"], "ner_tags": ["O", "B-creative-work", "I-creative-work"]},
]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def text_file(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def meaning(examples: Any) -> list[tuple[Any, ...]]:
    return [(example.text, example.target, example.words, example.context) for example in examples]


def classified(count: int, prefix: str = "text") -> list[dict[str, str]]:
    return [{"text": f"{prefix} number {n}", "label": "odd" if n % 2 else "even"} for n in range(count)]


# --- one corpus in every format


CONLL = """-DOCSTART- -X- O O

Ada NNP B-PER
Lovelace NNP I-PER
lives VBZ O
in IN O
London NNP B-LOC

Nobody NN O
here RB O


A DT O
creative JJ B-creative-work
work NN I-creative-work
"""

NUMBERED = """# newdoc id = 1
# sent_id = 1
# text = Ada Lovelace lives in London
1\tAda\tB-PER\t-\t-
2\tLovelace\tI-PER\t-\t-
3\tlives\tO\t-\t-
4\tin\tO\t-\t-
5\tLondon\tB-LOC\t-\t-

# sent_id = 2
1\tNobody\tO\t-\t-
2\there\tO\t-\t-

# sent_id = 3
1\tA\tO\t-\t-
2\tcreative\tB-creative-work\t-\t-
3\twork\tI-creative-work\t-\t-
"""


def in_tabs(rows: list[dict[str, list[str]]], separator: str) -> str:
    return separator.join(
        "".join(f"{token}\t{tag}\n" for token, tag in zip(row["tokens"], row["ner_tags"], strict=True)) for row in rows
    )


def corpus_files(folder: Path) -> dict[str, Path]:
    jsonl(folder / "a.jsonl", SENTENCES)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    text_file(folder / "c.json", json.dumps(SENTENCES))
    text_file(folder / "d.json", (folder / "a.jsonl").read_text())
    text_file(folder / "e.conll", CONLL)
    text_file(folder / "f.iob2", NUMBERED)
    text_file(folder / "g.txt", in_tabs(SENTENCES, "\t\n"))
    text_file(folder / "h.tsv", in_tabs(SENTENCES, "\n"))
    text_file(folder / "i.conll", "\ufeff" + CONLL.replace("\n", "\r\n"))
    text_file(folder / "j.jsonl", "\ufeff" + (folder / "a.jsonl").read_text().replace("\n", "\r\n\r\n"))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(SENTENCES), folder / "k.parquet")
    return {path.name: path for path in folder.iterdir()}


def test_every_format_holds_the_same_examples(tmp_path):
    expected = [
        ("Ada Lovelace lives in London", (Span(0, 12, "PER"), Span(22, 28, "LOC"))),
        ("Nobody here", ()),
        ("A creative work", (Span(2, 15, "creative-work"),)),
    ]
    files = corpus_files(tmp_path)
    assert len(files) == 11
    for name, path in files.items():
        examples = read_examples(path)
        assert [(example.text, example.target) for example in examples] == expected, name
        assert examples[0].words == ((0, 3), (4, 12), (13, 18), (19, 21), (22, 28)), name


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["B-PER", "I-PER", "B-PER", "O", "B-LOC"], "BIO"),
        (["B-PER", "E-PER", "S-PER", "O", "S-LOC"], "BIOES"),
        (["B-PER", "L-PER", "U-PER", "O", "U-LOC"], "BIOES"),
        (["I-PER", "I-PER", "B-PER", "O", "I-LOC"], "IOB1"),
    ],
)
def test_every_tagging_scheme_becomes_the_same_spans(tmp_path, tags, scheme):
    rows = [{"tokens": ["Ada", "Lovelace", "Emmy", "saw", "Rome"], "ner_tags": tags}]
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", rows)}, validation=0)
    assert data.train[0].target == (Span(0, 12, "PER"), Span(13, 17, "PER"), Span(22, 26, "LOC"))
    assert data.notes["tagging_scheme"] == scheme
    assert data.notes["repaired_tags"] == 0


def test_types_without_prefix_are_read_as_io(tmp_path):
    rows = [{"tokens": ["Ada", "Lovelace", "sang"], "tags": ["person-actor", "person-actor", "O"]}]
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", rows)}, validation=0)
    assert (data.labels, data.notes["tagging_scheme"]) == (("person-actor",), "IO")
    assert data.train[0].target == (Span(0, 12, "person-actor"),)


def test_invalid_gold_tags_are_repaired_and_counted(tmp_path):
    rows = [{"tokens": ["in", "New", "York", "Ada"], "ner_tags": ["O", "I-LOC", "I-LOC", "I-PER"]}, SENTENCES[0]]
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", rows)}, validation=0)
    assert data.train[0].target == (Span(3, 11, "LOC"), Span(12, 15, "PER"))
    assert data.notes["repaired_tags"] == 2
    assert "BIO, 2 tags repaired" in str(data)


def test_words_keep_spaces_and_empty_ones_their_place(tmp_path):
    rows = [{"tokens": ["New York", "", "3\u00a01/2"], "ner_tags": ["B-LOC", "O", "O"]}]
    (example,) = read_examples(jsonl(tmp_path / "a.jsonl", rows))
    assert [example.text[start:end] for start, end in example.words] == rows[0]["tokens"]
    assert example.target == (Span(0, 8, "LOC"),)


def test_docstart_lines_and_comments_are_counted(tmp_path):
    assert load_data({"train": text_file(tmp_path / "a.conll", CONLL)}, validation=0).notes["skipped_lines"] == {
        "train": {"-DOCSTART-": 1}
    }
    assert load_data({"train": text_file(tmp_path / "a.iob2", NUMBERED)}, validation=0).notes["skipped_lines"] == {
        "train": {"comments": 5}
    }


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_hash_sign_is_a_word_where_a_tag_follows(tmp_path, separator):
    lines = [f"#{separator}O", f"win{separator}O", "", f"Ada{separator}B-PER"]
    examples = read_examples(text_file(tmp_path / "a.conll", "\n".join(lines)))
    assert [example.text for example in examples] == ["# win", "Ada"]


def test_second_tag_column_of_a_numbered_corpus_is_not_taken_for_the_first(tmp_path):
    lines = ["# id abc domain=en", "1\tUniversity\tB-ORG\tO", "2\tof\tI-ORG\tO", "3\tOslo\tI-ORG\tB-LOC"]
    (example,) = read_examples(text_file(tmp_path / "a.conll", "\n".join(lines)))
    assert example.target == (Span(0, 18, "ORG"),)


# --- shapes of rows


def test_entities_with_character_offsets_are_kept_with_running_text(tmp_path):
    text = "Ada's ma\u0301chine – München"
    rows = [
        {"text": text, "entities": [{"start": 17, "end": 24, "label": "LOC", "text": "München"}, [0, 3, "PER"]]},
        {"text": text, "entities": [{"start": 1, "end": 3, "type": "PER"}]},
    ]
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", rows)}, validation=0)
    assert data.task == "token-classification"
    assert data.train[0].target == (Span(0, 3, "PER"), Span(17, 24, "LOC"))
    assert [span.text for span in data.train[0].target] == ["Ada", "München"]
    assert data.train[0].words is None
    assert data.notes["spans_between_words"] == 1
    assert "1 spans that start or end inside a word" in str(data)


@pytest.mark.parametrize(
    ("row", "example"),
    [
        (
            {"instruction": "Add.", "input": "2 and 3", "output": "5"},
            Example("train-0", "Add.\n\n2 and 3", "5"),
        ),
        ({"instruction": "Say hi.", "input": " ", "output": "hi"}, Example("train-0", "Say hi.", "hi")),
        ({"instruction": "Sum.", "output": {"PER": ["Åsa"]}}, Example("train-0", "Sum.", '{"PER": ["Åsa"]}')),
        ({"prompt": "2+2", "completion": "4"}, Example("train-0", "2+2", "4")),
        (
            {"system_prompt": "Be brief.", "question": "2+2?", "response": "4"},
            Example("train-0", "2+2?", "4", context=(Message("system", "Be brief."),)),
        ),
        ({"question": "2+2?", "answer": 4}, Example("train-0", "2+2?", "4")),
        ({"text": "<s>[INST] hi [/INST] hello</s>"}, Example("train-0", "", "<s>[INST] hi [/INST] hello</s>")),
        (
            {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yo"}]},
            Example("train-0", "hi", "yo"),
        ),
    ],
)
def test_instruction_rows_become_prompt_and_answer(tmp_path, row, example):
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", [row])}, validation=0)
    assert (data.task, data.labels, data.train) == ("causal-lm", (), (example,))


@pytest.mark.parametrize(
    "names",
    [("messages", "role", "content", "user", "assistant"), ("conversations", "from", "value", "human", "gpt")],
)
def test_conversation_keeps_all_earlier_turns_as_context(tmp_path, names):
    column, role, content, user, assistant = names
    turns = [("system", "Be kind."), (user, "hi"), (assistant, "hello"), (user, "2+2?"), (assistant, "4")]
    row = {column: [{role: who, content: what} for who, what in turns]}
    unfinished = {column: [{role: user, content: "hi"}]}
    data = load_data({"train": jsonl(tmp_path / "a.jsonl", [row, unfinished])}, validation=0)
    context = (Message("system", "Be kind."), Message("user", "hi"), Message("assistant", "hello"))
    assert data.train == (Example("train-0", "2+2?", "4", context=context),)
    assert data.notes["dropped_rows"] == {"train": {"without a final answer": 1}}


def test_optional_input_is_read_even_where_the_first_row_lacks_it(tmp_path):
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "input": "more", "output": "b"}]
    assert [example.text for example in read_examples(jsonl(tmp_path / "a.jsonl", rows))] == ["a", "a\n\nmore"]


def test_csv_and_tsv_hold_quotes_and_line_breaks_as_each_format_means_them(tmp_path):
    csv_file = text_file(tmp_path / "a.csv", '\ufefftext,label\r\n"one, ""two""\nthree",x\r\nplain,y\r\n')
    assert meaning(read_examples(csv_file)) == [('one, "two"\nthree', "x", None, ()), ("plain", "y", None, ())]
    tsv_file = text_file(tmp_path / "a.tsv", 'sentence\tlabel\n"a lone quotation mark\t0\nnext line\t1\n')
    assert meaning(read_examples(tsv_file)) == [('"a lone quotation mark', "0", None, ()), ("next line", "1", None, ())]


def test_columns_with_unusual_names_can_be_named(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"utterance": "play jazz", "goal": "music", "text": "no"}])
    (example,) = read_examples(path, text_column="utterance", label_column="goal")
    assert (example.text, example.target) == ("play jazz", "music")
    with pytest.raises(DataError, match="no column 'gaol'. The columns are utterance, goal, text"):
        read_examples(path, label_column="gaol")


def test_task_decides_how_ambiguous_rows_are_read(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "fine", "label": "good"}])
    assert read_examples(path)[0].target == "good"
    assert read_examples(path, task="causal-lm")[0] == Example("row-0", "", "fine")
    with pytest.raises(DataError, match="text, label do not tell how to read a row for token-classification"):
        read_examples(path, task="token-classification")
    with pytest.raises(InvalidSettingError, match="'token-clasification'. Did you mean 'token-classification'"):
        load_data(path, task="token-clasification")


def test_numbered_classes_without_names_are_ordered_as_numbers(tmp_path):
    rows = [{"text": f"t{n}", "label": n} for n in (10, 9, 2)]
    assert load_data({"train": jsonl(tmp_path / "a.jsonl", rows)}, validation=0).labels == ("2", "9", "10")


# --- rows that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "a.jsonl, line 2: no valid JSON"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', "a.jsonl, line 2: the field 'label' is missing"),
        (
            "a.jsonl",
            '["a", "x"]\n',
            "a.jsonl, line 1: a JSON object with named fields is expected, this is of type list",
        ),
        ("a.jsonl", '{"colour": "red"}\n', "the columns colour do not tell how to read a row. Understood are messages"),
        ("a.jsonl", '{"text": "a", "label": true}\n', "line 1: 'label' is of type bool"),
        (
            "a.jsonl",
            '{"text": "a", "label": "x"}\n{"text": 3, "label": "x"}\n',
            "line 2: 'text' is of type int, where a text",
        ),
        ("a.jsonl", '\n\n{"tokens": ["a", "b"], "tags": ["O"]}\n', "line 3: 2 words but 1 tags in 'tags'"),
        ("a.jsonl", '{"tokens": ["a"], "tags": [1]}\n', "line 1: 'tags' holds numbers, and nothing tells the tags"),
        ("a.jsonl", '{"tokens": ["a", 1], "tags": ["O", "O"]}\n', "line 1: 'tokens' holds something that is no string"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["B-PER", "place"]}\n', "tags mix schemes: 'B-PER' and 'place'"),
        (
            "a.jsonl",
            '{"text": "abc", "spans": [[0, 4, "X"]]}\n',
            r"entity 1: characters \[0, 4\) do not lie in the text",
        ),
        ("a.jsonl", '{"text": "abc", "spans": [[2, 2, "X"]]}\n', r"characters \[2, 2\) do not lie"),
        ("a.jsonl", '{"text": "abc", "spans": [[0, "1", "X"]]}\n', "entity 1: start and end are characters"),
        (
            "a.jsonl",
            '{"text": "abc", "spans": [{"start": 0, "end": 1, "label": "X", "text": "ab"}]}\n',
            "its text is not what stands at characters .*end is one past the last",
        ),
        ("a.jsonl", '{"messages": [{"role": "tool", "content": "x"}]}\n', "message 1: the role is 'tool'"),
        ("a.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}\n', "follows no user message"),
        ("a.json", '{"text": "a",\n\n "label" "x"}', "a.json, line 3: no valid JSON"),
        ("a.json", '"text"', "holds JSON of type str; a list of objects"),
        ("a.csv", "text,label\na,x\nb\n", "a.csv, line 3: 1 cells where the header names 2 columns"),
        ("a.csv", 'text,label\n"a,x\n', "a.csv, line 2: unexpected end of data"),
        ("a.csv", "text,text\na,x\n", "two columns have the same name"),
        ("a.conll", "Ada B-PER\n\nLovelace\n", "a.conll, line 3: one column, where a word and its tag"),
        ("a.conll", "Ada B-PER\nNew York B-LOC\n", "line 2: 3 columns, where line 1 has 2. A word with a space"),
        ("a.jsonl", "", "no rows in .*a.jsonl"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "No row can be used .*1 without a gold label"),
    ],
)
def test_malformed_row_is_refused_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        load_data(text_file(tmp_path / name, content))


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a", "label": "x"}\n{"text": "caf\xe9", "label": "x"}\n')
    with pytest.raises(DataError, match=r"a.jsonl, line 2: byte 0xe9 is not UTF-8"):
        load_data(tmp_path / "a.jsonl")


@given(st.integers(0, 19), st.integers(0, 19))
def test_row_that_breaks_the_tagging_scheme_is_found(tmp_path_factory, first, other):
    rows = [{"tokens": ["a"], "ner_tags": ["O"]} for _ in range(20)]
    rows[first] = {"tokens": ["a"], "ner_tags": ["B-PER"]}
    rows[other] = {"tokens": ["a", "b"], "ner_tags": ["person", "person" if first != other else "I-PER"]}
    path = jsonl(tmp_path_factory.mktemp("mixed") / "a.jsonl", rows)
    with pytest.raises(DataError, match=f"line {max(first, other) + 1}: The tags mix schemes"):
        read_examples(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_damaged_file_is_refused(tmp_path, name):
    text_file(tmp_path / name, "not what the name says")
    with pytest.raises(DataError, match=f"{name} .*ownload it again"):
        load_data(tmp_path / name)


def test_errors_do_not_repeat_the_text_of_rows(tmp_path):
    rows = [{"text": "secret words", "entities": [{"start": 0, "end": 99, "label": "X", "text": "secret"}]}]
    with pytest.raises(DataError) as caught:
        load_data(jsonl(tmp_path / "a.jsonl", rows))
    assert "secret" not in str(caught.value)


# --- where data is


def test_importing_the_data_package_loads_no_deep_learning_stack():
    heavy = {"torch", "transformers", "datasets", "huggingface_hub", "pyarrow"}
    code = f"import sys, lightft.data; print(*{heavy} & {{*sys.modules}})"
    root = Path(lightft.data.__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_folder_splits_are_found_under_their_usual_names(tmp_path):
    jsonl(tmp_path / "train-00000-of-00002.jsonl", classified(6))
    jsonl(tmp_path / "train-00001-of-00002.jsonl", classified(4, "more"))
    jsonl(tmp_path / "dev.jsonl", classified(3, "dev"))
    jsonl(tmp_path / "test.jsonl", classified(2, "test"))
    text_file(tmp_path / "README.md", "not data")
    data = load_data(tmp_path)
    assert data.notes["rows"] == {"train": 10, "validation": 3, "test": 2}
    assert data.train[6].text == "more number 0"
    assert "validation_from" not in data.notes


def test_folder_with_two_files_for_a_split_is_refused(tmp_path):
    jsonl(tmp_path / "dev.jsonl", classified(3))
    jsonl(tmp_path / "valid.jsonl", classified(3))
    with pytest.raises(DataError, match="more than one validation file: dev.jsonl, valid.jsonl"):
        load_data(tmp_path)


def test_folder_with_a_missing_part_is_refused(tmp_path):
    jsonl(tmp_path / "train-00000-of-00002.jsonl", classified(6))
    with pytest.raises(DataError, match="is one of 2 parts, but there are 1 here"):
        load_data(tmp_path)


def test_folder_without_splits_lists_what_it_holds(tmp_path):
    text_file(tmp_path / "notes.md", "")
    with pytest.raises(DataError, match="no data splits: notes.md. Files are called train"):
        load_data(tmp_path)


def test_mapping_names_files_of_any_name(tmp_path):
    files = {"train": jsonl(tmp_path / "x.jsonl", classified(9)), "dev": jsonl(tmp_path / "y.jsonl", classified(2))}
    data = load_data(files)
    assert data.notes["rows"] == {"train": 9, "validation": 2, "test": 0}
    assert data.notes["test_from"] == "no test split: the source has none"
    with pytest.raises(DataError, match="'eval' names no split"):
        load_data({"eval": files["train"]})


def test_file_inside_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "site" / "corpus_pkg"
    jsonl(package / "data" / "all.jsonl", classified(20))
    text_file(package / "__init__.py", "raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    data = load_data("package:corpus_pkg/data/all.jsonl")
    assert sum(data.notes["rows"].values()) == 20
    assert "corpus_pkg" not in sys.modules
    jsonl(tmp_path / "site" / "outside.jsonl", classified(20))
    for wrong, said in {
        "package:corpus_pkg/data/none.jsonl": "there is no 'data/none.jsonl' inside",
        "package:corpus_pkg/../outside.jsonl": "there is no '../outside.jsonl' inside",
        "package:no_such_pkg/data.jsonl": "no package 'no_such_pkg' is installed. Install it",
        "package:corpus_pkg.data/all.jsonl": "no package 'corpus_pkg.data' is installed",
    }.items():
        with pytest.raises(DataError, match=said):
            load_data(wrong)
    assert "corpus_pkg" not in sys.modules


def test_source_that_is_nothing_is_refused_with_a_guess():
    with pytest.raises(DataError, match="no file or folder 'few_nerd'.* Did you mean 'few-nerd'"):
        load_data("few_nerd")


def test_revision_of_a_local_file_is_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match="revision='v1' is for Hub data sets"):
        load_data(jsonl(tmp_path / "a.jsonl", classified(9)), revision="v1")


# --- splits made here


def test_single_file_is_split_seventy_ten_twenty_and_says_so(tmp_path):
    data = load_data(jsonl(tmp_path / "a.jsonl", classified(100)))
    assert data.notes["rows"] == {"train": 70, "validation": 10, "test": 20}
    assert data.notes["test_from"] == "test split made here: 20 of 100 rows, seed 0, equal texts kept together"
    ids = [example.id for split in (data.train, data.validation, data.test) for example in split]
    assert sorted(ids) == sorted(f"row-{number}" for number in range(100))


def test_missing_validation_split_comes_from_train_and_never_from_test(tmp_path):
    jsonl(tmp_path / "train.jsonl", classified(50))
    jsonl(tmp_path / "test.jsonl", classified(50, "test"))
    for validation, rows in {0.1: 5, 7: 7, 0: 0}.items():
        data = load_data(tmp_path, validation=validation)
        assert data.notes["rows"] == {"train": 50 - rows, "validation": rows, "test": 50}
        assert all(example.id.startswith("train-") for example in data.validation)
    assert "validation split made here: 7 of 50 rows, seed 0" in str(load_data(tmp_path, validation=7))


@pytest.mark.parametrize("validation", [-0.1, 1.0, -1, 50])
def test_impossible_validation_size_is_refused(tmp_path, validation):
    jsonl(tmp_path / "train.jsonl", classified(50))
    with pytest.raises(InvalidSettingError, match=f"validation={validation}"):
        load_data(tmp_path, validation=validation)


def test_same_seed_gives_the_same_splits_and_another_seed_others(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", classified(100))
    assert load_data(path).fingerprint == load_data(path).fingerprint
    assert load_data(path).fingerprint != load_data(path, seed=1).fingerprint


def test_order_of_rows_does_not_decide_which_side_a_text_is_on():
    examples = [Example(str(n), f"text {n}", "x") for n in range(60)]
    shuffled = random.Random(1).sample(examples, k=60)
    assert {example.id for example in cut(examples, 20, seed=0)[1]} == {
        example.id for example in cut(shuffled, 20, 0)[1]
    }


@given(st.lists(st.sampled_from(["a", "A ", "a!", "b", "c", "d", "!", "?"]), max_size=30), st.integers(0, 30))
def test_equal_texts_never_stand_on_both_sides(texts, wanted):
    examples = [Example(str(n), text, "x") for n, text in enumerate(texts)]
    rest, aside = cut(examples, wanted, seed=0)
    assert sorted(rest + aside, key=lambda example: int(example.id)) == examples
    assert len(aside) <= wanted
    assert count_duplicates(rest, aside)["normalised"] == 0


# --- labels


def ner_folder(folder: Path) -> Path:
    rows = [{"tokens": ["Ada", "saw", "Rome", "1843"], "ner_tags": ["B-PERSON", "O", "B-GPE", "B-DATE"]}]
    jsonl(folder / "train.jsonl", rows)
    jsonl(folder / "validation.jsonl", rows)
    jsonl(folder / "test.jsonl", [*rows, {"tokens": ["NASA"], "ner_tags": ["B-ORG"]}])
    return folder


def test_chosen_types_are_kept_in_their_order_and_the_others_counted(tmp_path):
    data = load_data(ner_folder(tmp_path), labels=["PERSON", "GPE"])
    assert data.labels == ("PERSON", "GPE")
    assert data.train[0].target == (Span(0, 3, "PERSON"), Span(8, 12, "GPE"))
    assert data.test[1].target == ()
    assert data.notes["spans_set_to_outside"] == 4


def test_types_are_renamed_by_a_mapping_and_none_drops(tmp_path):
    data = load_data(ner_folder(tmp_path), labels={"PERSON": "PER", "GPE": "LOC", "DATE": None})
    assert data.labels == ("LOC", "ORG", "PER")
    assert data.train[0].target == (Span(0, 3, "PER"), Span(8, 12, "LOC"))
    assert data.notes["spans_set_to_outside"] == 3
    assert data.notes["label_counts"]["test"] == {"LOC": 1, "ORG": 1, "PER": 1}


def test_neighbours_renamed_to_one_type_stay_two_entities(tmp_path):
    rows = [{"tokens": ["Oslo", "Norway"], "ner_tags": ["B-CITY", "B-COUNTRY"]}]
    (example,) = read_examples(jsonl(tmp_path / "a.jsonl", rows), labels={"CITY": "LOC", "COUNTRY": "LOC"})
    assert spans_to_tags(example.target, example.words) == (("B-LOC", "B-LOC"), ())


def test_label_that_train_never_shows_is_noted(tmp_path):
    data = load_data(ner_folder(tmp_path))
    assert data.notes["labels_not_in_train"] == {"test": ["ORG"]}
    assert "labels of test that train never shows: ORG" in str(data)


def test_rows_of_other_classes_are_left_out_and_counted(tmp_path):
    rows = [*classified(4), {"text": "zero", "label": "none"}]
    path = jsonl(tmp_path / "train.jsonl", rows)
    data = load_data(tmp_path, labels=["odd", "even"], validation=0)
    assert (data.labels, len(data.train)) == (("odd", "even"), 4)
    assert data.notes["dropped_rows"] == {"train": {"class not among the labels asked for": 1}}
    renamed = read_examples(path, labels={"odd": "uneven", "none": None})
    assert [example.target for example in renamed] == ["even", "uneven"] * 2


def test_label_that_does_not_occur_is_refused_with_a_guess(tmp_path):
    with pytest.raises(UnknownNameError, match="no label 'PRESON'. Did you mean 'PERSON'"):
        load_data(ner_folder(tmp_path), labels=["PRESON"])


# --- ids, duplicates, fingerprints, summaries


def test_own_ids_are_used_only_where_none_occurs_twice(tmp_path):
    rows = [{"id": f"doc{n}", **row} for n, row in enumerate(classified(3))]
    jsonl(tmp_path / "train.jsonl", rows)
    jsonl(tmp_path / "test.jsonl", [{**rows[0], "id": 7}])
    data = load_data(tmp_path, validation=0)
    assert [example.id for example in data.train + data.test] == ["doc0", "doc1", "doc2", "7"]
    jsonl(tmp_path / "test.jsonl", rows[:1])
    data = load_data(tmp_path, validation=0)
    assert [example.id for example in data.train + data.test] == ["train-0", "train-1", "train-2", "test-0"]


def test_planted_duplicates_are_all_found_and_nothing_else():
    train = [Example(f"a{n}", f"The {n}th cat sat, quietly.", "x") for n in range(200)]
    exact = [Example(f"b{n}", train[n].text, "y") for n in range(30)]
    changed = [Example(f"c{n}", train[n].text.upper().replace(",", "").replace(" ", "  "), "y") for n in range(30, 50)]
    fresh = [Example(f"d{n}", f"Another {n} dog", "y") for n in range(100)]
    found = count_duplicates(train, [*exact, *changed, *fresh])
    assert found == {"exact": 30, "normalised": 50, "first": [[f"b{n}", f"a{n}"] for n in range(5)]}


def test_duplicates_of_instructions_are_told_by_the_prompt_and_of_ready_texts_by_the_text():
    asked = [Example("a", "2+2?", "4"), Example("b", "", "once upon a time")]
    assert count_duplicates(asked, [Example("c", "2+2?", "four")])["exact"] == 1
    assert count_duplicates(asked, [Example("c", "", "once upon a time"), Example("d", "", "other")])["exact"] == 1
    other_context = Example("c", "2+2?", "4", context=(Message("system", "Lie."),))
    assert count_duplicates(asked, [other_context])["exact"] == 0


def test_duplicates_are_counted_on_every_load_and_warned_of(tmp_path):
    jsonl(tmp_path / "train.jsonl", classified(10))
    jsonl(tmp_path / "validation.jsonl", classified(3, "new"))
    jsonl(tmp_path / "test.jsonl", [*classified(2), {"text": "TEXT number: 4", "label": "even"}])
    data = load_data(tmp_path)
    assert data.notes["duplicates"]["validation"]["normalised"] == 0
    assert data.notes["duplicates"]["test"] == {
        "exact": 2,
        "normalised": 3,
        "first": [["test-0", "train-0"], ["test-1", "train-1"], ["test-2", "train-4"]],
    }
    assert "warning: texts of test that also stand in train: 2 (3 apart from case" in str(data)


def test_fingerprint_changes_with_any_text_target_or_id_and_with_nothing_else(tmp_path):
    data = load_data(jsonl(tmp_path / "a.jsonl", SENTENCES * 5), validation=2)
    fingerprint, test = data.fingerprint, data.split_fingerprint("test")
    assert dataclasses.replace(data, notes={}, source="elsewhere").fingerprint == fingerprint
    first = data.train[0]
    for change in ({"id": "other"}, {"text": first.text + " "}, {"target": (Span(0, 1, "PER"),)}):
        changed = dataclasses.replace(data, train=(dataclasses.replace(first, **change), *data.train[1:]))
        assert changed.fingerprint != fingerprint
        assert changed.split_fingerprint("test") == test
    moved = dataclasses.replace(data, train=data.train[1:], validation=(data.train[0], *data.validation))
    assert moved.fingerprint != fingerprint


def test_fingerprint_is_the_same_in_every_format(tmp_path):
    prints = {load_data({"train": path}, validation=0).fingerprint for path in corpus_files(tmp_path).values()}
    assert len(prints) == 1


def test_head_is_smaller_and_says_so(tmp_path):
    jsonl(tmp_path / "train.jsonl", classified(10))
    jsonl(tmp_path / "test.jsonl", classified(10))
    data = load_data(tmp_path, validation=2)
    small = data.head(train=3, test=4)
    assert (small.train, small.validation, small.test) == (data.train[:3], data.validation, data.test[:4])
    assert small.notes["head"] == {"train": 3, "test": 4}
    assert small.notes["rows"] == {"train": 3, "validation": 2, "test": 4}
    assert small.notes["duplicates"]["test"]["exact"] < data.notes["duplicates"]["test"]["exact"]
    assert small.fingerprint != data.fingerprint
    assert "only the first rows: train 3, test 4" in str(small)
    with pytest.raises(InvalidSettingError, match=r"head\(train=-1\)"):
        data.head(train=-1)
    with pytest.raises(InvalidSettingError, match="no split 'dev'"):
        data.split("dev")


def test_notes_are_plain_json(tmp_path):
    data = load_data(jsonl(tmp_path / "a.jsonl", SENTENCES * 5), labels=["PER"])
    assert json.loads(json.dumps(data.notes)) == data.notes


def test_seventy_thousand_rows_load_in_seconds(tmp_path):
    jsonl(tmp_path / "train.jsonl", classified(70_000))
    start = time.perf_counter()
    data: TaskData = load_data(tmp_path)
    assert len(data.train) == 63_000
    # About 1.5 s on one core; the bound only catches work that grows faster than the rows.
    assert time.perf_counter() - start < 15
