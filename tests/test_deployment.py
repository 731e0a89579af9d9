"""What the deployment files say runs: their commands are lightft's, their paths are there, and nobody is root."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.cli import main
from lightft.errors import InvalidSettingError
from lightft.recipe import Recipe
from lightft.serving import ServeSettings
from tests.test_serving_process import KEY, Service
from tests.tiny_models import TYPES, tagged_texts

ROOT = Path(__file__).parent.parent
DEPLOYMENT = ROOT / "examples" / "deployment"
SLURM = DEPLOYMENT / "slurm"
DOCKERFILES = sorted(DEPLOYMENT.glob("*.Dockerfile"))
BATCH_SCRIPTS = sorted(SLURM.glob("*.sbatch"))
SHELL_SCRIPTS = [*BATCH_SCRIPTS, *sorted(DEPLOYMENT.glob("**/*.sh"))]
PAGE = ROOT / "docs" / "deployment.md"
COMPILERS = r"\b(gcc|g\+\+|clang|build-essential|make|cmake|python3-dev|cargo|rustc|nvcc)\b|cuda:\S*-devel"


class Instruction(NamedTuple):
    name: str
    rest: str


class Stage(NamedTuple):
    image: str
    instructions: list[Instruction]


def stages_of(dockerfile: Path) -> list[Stage]:
    """The stages of a Dockerfile, with the defaults of the arguments before the first one in their place."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], rest.split()[0])
            stages.append(Stage(image, []))
        elif name == "ARG" and not stages:
            argument, _, default = rest.partition("=")
            arguments[argument] = default
        elif name:
            stages[-1].instructions.append(Instruction(name, " ".join(rest.split())))
    return stages


def last(stage: Stage, name: str) -> str:
    return [instruction.rest for instruction in stage.instructions if instruction.name == name][-1]


def commands_in(text: str) -> list[list[str]]:
    """The commands that begin with lightft at the start of a line, or behind a launcher."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"(?:^|[\s/])lightft((?: [\w./:\"${}=-]+)+)", re.sub(r"(?m)^\s*#.*$", "", joined))
    return [words for words in map(shlex.split, found) if words[0] in VERBS]


VERBS = ("run", "serve", "export", "predict", "compare", "extract")


def entry_point(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DEPLOYMENT / "entrypoints")
    spec = importlib.util.spec_from_file_location(name, DEPLOYMENT / "entrypoints" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads a command with lightft's own parser, and carries nothing out."""
    for verb in ("lightft.cli._run", "lightft.cli.serve._serve", "lightft.cli.export._export"):
        monkeypatch.setattr(verb, lambda asked: 0)
    return lambda words: main(words) == 0


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: base\n"
        "data: {source: data}\n"
        "adapters:\n"
        "  - head-only\n"
        "  - {kind: lora, r: [2, 4], targets: [[query, value]]}\n"
        "  - {kind: lora, quantization: [nf4], name: small}\n"
        "compare: {baseline: head-only}\n"
        "report: [report.md]\n"
    )
    return path


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_is_in_the_repository(dockerfile: Path) -> None:
    sources = [
        source
        for stage in stages_of(dockerfile)
        for instruction in stage.instructions
        if instruction.name == "COPY" and "--from" not in instruction.rest
        for source in instruction.rest.split()[:-1]
    ]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    sent = (DEPLOYMENT / f"{dockerfile.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line.removeprefix("!") for line in sent if line.startswith("!")]
    assert [source for source in sources if not any(source.startswith(name) for name in kept)] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_and_end_as_a_user_who_is_not_root(dockerfile: Path) -> None:
    stages = stages_of(dockerfile)
    for stage in stages:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", stage.image), stage.image
    user, _, group = last(stages[-1], "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_command_of_an_image_is_one_of_lightft(dockerfile: Path, parses: Any) -> None:
    command = json.loads(last(stages_of(dockerfile)[-1], "CMD"))
    assert command[0] == "lightft"
    assert parses(command[1:])


def test_the_serving_image_has_no_compiler_no_pip_and_a_health_check() -> None:
    build, final = stages_of(DEPLOYMENT / "serving.Dockerfile")
    written = " ".join(instruction.rest for instruction in final.instructions)
    assert not re.search(COMPILERS, written)
    assert "apt-get" not in written
    assert "pip install" not in written
    assert "pip uninstall -y pip" in " ".join(instruction.rest for instruction in build.instructions)
    health = last(final, "HEALTHCHECK")
    assert health.endswith('CMD ["python", "/opt/lightft/entrypoints/healthcheck.py"]')
    assert "examples/deployment/entrypoints/healthcheck.py" in last(build, "COPY")
    assert json.loads(last(final, "ENTRYPOINT")) == ["/opt/lightft/entrypoints/with_api_key.sh"]
    assert os.access(DEPLOYMENT / "entrypoints" / "with_api_key.sh", os.X_OK)


def test_extras_that_images_install_are_declared() -> None:
    asked = {
        extra
        for path in [*DOCKERFILES, DEPLOYMENT / "apptainer.def", PAGE]
        for group in re.findall(r"(?:\.|lightft|whl)\[([\w,]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    declared = re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert asked
    assert asked <= set(declared)


def test_the_apptainer_image_is_made_as_the_docker_image() -> None:
    definition = (DEPLOYMENT / "apptainer.def").read_text(encoding="utf-8")
    (stage,) = stages_of(DEPLOYMENT / "training.Dockerfile")
    assert f"From: {stage.image}\n" in definition
    (files,) = re.findall(r"%files\n(.*?)\n\n", definition, re.DOTALL)
    sources = [line.split()[0] for line in files.splitlines()]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    copied = [
        source
        for instruction in stage.instructions
        if instruction.name == "COPY"
        for source in instruction.rest.split()[:-1]
    ]
    assert sorted(sources) == sorted(copied)
    (installed,) = re.findall(r"pip install (?:--no-cache-dir )?(--use-pep517 -c .*)", definition)
    assert installed in " ".join(instruction.rest for instruction in stage.instructions)
    assert "set -- " + " ".join(json.loads(last(stage, "CMD"))) in definition


def test_compose_gives_the_service_nothing_that_it_does_not_need() -> None:
    text = (DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8")
    composed = yaml.safe_load(text)
    for name, service in composed["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert re.search(r":\d+\.\d+", service["image"]), name
    service = composed["services"]["lightft"]
    context = DEPLOYMENT / service["build"]["context"]
    assert (context / service["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["LIGHTFT_API_KEY_FILE"] == f"/run/secrets/{service['secrets'][0]}"
    assert service["secrets"] == list(composed["secrets"])
    assert service["healthcheck"]["test"][1:] == ["python", "/opt/lightft/entrypoints/healthcheck.py"]
    assert "LIGHTFT_API_KEY:" not in text


def test_whatever_stops_the_service_waits_until_it_has_answered() -> None:
    composed = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    waits = [int(composed["services"]["lightft"]["stop_grace_period"].removesuffix("s"))]
    waits.append(int(of_the_unit("TimeoutStopSec")))
    bundled = ROOT / "lightft" / "exporters" / "bundle_files" / "README.md.jinja"
    for told in (DEPLOYMENT / "serving.Dockerfile", PAGE, ROOT / "docs" / "export.md", bundled):
        joined = re.sub(r"\\\n#? *", "", told.read_text(encoding="utf-8"))
        (serves,) = re.findall(r"docker run .*8000:8000.*", joined)
        (seconds,) = re.findall(r"--stop-timeout (\d+)", serves)
        waits.append(int(seconds))
    assert min(waits) > ServeSettings().stop_seconds


def test_the_unit_leaves_room_for_a_merged_model_and_for_the_rest_of_a_small_machine() -> None:
    slowed, ended = (int(of_the_unit(limit).removesuffix("M")) * 2**20 for limit in ("MemoryHigh", "MemoryMax"))
    # The first is what tests/test_small_machine.py lets a merged model have.
    assert 800e6 < slowed < ended < 1e9


def of_the_unit(setting: str) -> str:
    (value,) = re.findall(rf"(?m)^{setting}=(.*)$", (DEPLOYMENT / "vm" / "lightft.service").read_text(encoding="utf-8"))
    return str(value)


def test_keys_that_the_page_has_written_are_found_by_compose_and_not_committed() -> None:
    written = re.findall(r"openssl rand -hex 32 > (\S+)", PAGE.read_text(encoding="utf-8"))
    composed = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    (by_default,) = re.findall(r":-\./(.*)}", composed["secrets"]["lightft_api_key"]["file"])
    assert f"examples/deployment/{by_default}" in written
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {Path(key).name for key in written} <= set(ignored)


@pytest.mark.parametrize("path", [*BATCH_SCRIPTS, DEPLOYMENT / "compose.yaml"], ids=lambda path: path.name)
def test_variables_of_the_environment_are_told_at_the_top(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    told = "\n".join(line for line in text.splitlines() if line.startswith("# "))
    used = set(re.findall(r"\$\{?(LIGHTFT_\w+|HF_HOME)", "\n".join(set(text.splitlines()) - set(told.splitlines()))))
    assert used
    assert [name for name in sorted(used) if name not in told] == []


@pytest.mark.parametrize("script", BATCH_SCRIPTS, ids=lambda path: path.name)
def test_batch_scripts_go_on_after_a_preemption(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    headers = dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line).groups() for line in lines if "#SBATCH" in line
    )  # type: ignore[union-attr]
    first_command = next(place for place, line in enumerate(lines) if line and not line.startswith("#"))
    assert all("#SBATCH" not in line for line in lines[first_command:])
    known = "array cpus-per-task gres job-name mem nodes ntasks ntasks-per-node open-mode output requeue signal time"
    assert set(headers) <= set(known.split())
    assert {"requeue", "signal", "time", "gres", "mem", "cpus-per-task", "output"} <= set(headers)
    assert headers["open-mode"] == "append"
    assert headers["signal"] == "B:USR1@120"
    assert "trap requeue USR1" in text
    assert text.rstrip().endswith('wait "$!"')
    assert "--nv --bind" in text


@pytest.mark.parametrize("script", BATCH_SCRIPTS, ids=lambda path: path.name)
def test_srun_gets_the_cores_that_sbatch_was_asked_for(script: Path) -> None:
    before, *_ = re.split(r"(?m)^ +srun ", script.read_text(encoding="utf-8"))
    assert "\nexport SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n" in before


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_read_without_a_mistake(script: Path) -> None:
    shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", script], check=False, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    "path", [*BATCH_SCRIPTS, DEPLOYMENT / "vm" / "lightft.service", PAGE], ids=lambda path: path.name
)
def test_commands_of_lightft_are_accepted_by_its_parser(path: Path, parses: Any) -> None:
    text = path.read_text(encoding="utf-8")
    commands = commands_in(text)
    entries = re.findall(r"(train_part|train_together|healthcheck)\.py", text)
    assert commands or entries
    for words in commands:
        assert parses(words), words
    for entry in entries:
        assert (DEPLOYMENT / "entrypoints" / f"{entry}.py").is_file()


def test_each_part_of_an_array_trains_a_method_as_the_whole_recipe_would(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods_of = entry_point("train_part", monkeypatch).methods_of
    whole = Recipe.from_yaml(recipe)
    parts = methods_of(whole)
    assert [part.candidates() for part in parts] == [(candidate,) for candidate in whole.candidates()]
    assert {part.seeds for part in parts} == {whole.seeds}


def test_an_array_that_is_too_long_is_told_how_many_methods_there_are(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_part = entry_point("train_part", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["train_part.py", str(recipe), "--count"])
    assert train_part.main() == 0
    assert capsys.readouterr().out == "4\n"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    monkeypatch.setattr(sys, "argv", ["train_part.py", str(recipe)])
    with pytest.raises(InvalidSettingError, match="no part 4: .* 4 methods. Submit with --array=0-3"):
        train_part.main()
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(InvalidSettingError, match="this is no array job"):
        train_part.main()


def test_trials_are_refused_where_several_processes_train(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8") + "learning_rates: chosen\n")
    monkeypatch.setattr(sys, "argv", ["train_together.py", str(recipe)])
    with pytest.raises(InvalidSettingError, match="Trials need one process"):
        entry_point("train_together", monkeypatch).main()


@pytest.mark.slow
def test_two_processes_train_a_recipe_together_and_one_writes_the_report(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    python = [sys.executable, "-W", "ignore"]
    project = [*python, SLURM / "tiny_project.py", tmp_path, "--epochs", "1", "--seeds", "1"]
    subprocess.run(project, env=environment, check=True, capture_output=True)
    torchrun = [*python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    together = subprocess.run(
        [*torchrun, DEPLOYMENT / "entrypoints" / "train_together.py", "recipe.yaml"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert together.returncode == 0, together.stderr[-3000:]
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 3
    assert (tmp_path / "runs" / "report.md").is_file()
    # Once, by the one that finds every run finished.
    assert together.stdout.count("Wrote runs/report.md") == 1
    assert "3 runs; 3 already finished" in together.stdout


@pytest.fixture
def service() -> Iterator[str]:
    """A server that is alive at /health and nowhere else."""

    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Alive)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_health_check_asks_the_service_itself_and_no_proxy(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    healthcheck = entry_point("healthcheck", monkeypatch)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(sys, "argv", ["healthcheck.py", f"{service}/health"])
    assert healthcheck.main() == 0
    monkeypatch.setattr(sys, "argv", ["healthcheck.py", f"{service}/ready"])
    assert healthcheck.main() == 1
    assert "503" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["healthcheck.py", "http://127.0.0.1:9/health"])
    assert healthcheck.main() == 1


def test_an_api_key_is_read_from_a_file_and_an_empty_one_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"

    def started(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [DEPLOYMENT / "entrypoints" / "with_api_key.sh", "printenv", "LIGHTFT_API_KEY"]
        bare = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(command, env=bare, capture_output=True, text=True, check=False)

    key.write_text("of-a-file\n")
    assert started(LIGHTFT_API_KEY_FILE=str(key)).stdout == "of-a-file\n"
    assert started(LIGHTFT_API_KEY="of-the-environment").stdout == "of-the-environment\n"
    key.write_text("")
    assert "is empty" in started(LIGHTFT_API_KEY_FILE=str(key)).stderr
    assert started(LIGHTFT_API_KEY_FILE=str(tmp_path / "missing")).returncode != 0


@pytest.mark.slow
def test_the_serving_image_runs_outside_of_a_container(tiny_bert: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES, dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, batch_size=8, progress=False)
    adapter = trainer.save(trainer.train(tagged_texts()), tmp_path / "adapter")
    model = lightft.export(adapter, to="onnx", out=tmp_path / "model")
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n", encoding="utf-8")
    final = stages_of(DEPLOYMENT / "serving.Dockerfile")[-1]
    here = {"/opt/lightft/entrypoints": str(DEPLOYMENT / "entrypoints"), '"/model"': json.dumps(str(model))}
    here |= {"0.0.0.0": "127.0.0.1", '"8000"': '"0"'}

    def command(written: str) -> list[str]:
        for in_the_image, outside in here.items():
            written = written.replace(in_the_image, outside)
        return [str(word) for word in json.loads(written)]

    environment = dict(pair.split("=", 1) for pair in shlex.split(last(final, "ENV")))
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment |= {"LIGHTFT_API_KEY_FILE": str(key)}
    health = command(last(final, "HEALTHCHECK").partition(" CMD ")[2])
    with subprocess.Popen(
        [*command(last(final, "ENTRYPOINT")), *command(last(final, "CMD"))],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            running = Service(process)
            health.append(f"http://127.0.0.1:{running.port}/health")
            assert subprocess.run(health, env=environment, check=False).returncode == 0
            asked = {"text": "anna met bert"}
            assert running.ask("POST", "/predict", asked, **{"x-api-key": "another"})[0] == 401
            status, answer = running.ask("POST", "/predict", asked)
            assert (status, answer["model"]) == (200, "model")
            process.send_signal(signal.SIGTERM)
            assert running.end() == 0
        finally:
            process.kill()
    stopped = subprocess.run(health, env=environment, check=False, capture_output=True, text=True)
    assert (stopped.returncode, "does not answer" in stopped.stderr) == (1, True)


def test_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"examples/deployment/[\w./-]*\w", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 5
    made_by_the_reader = {"examples/deployment/api_key.txt"}
    assert [path for path in sorted(named - made_by_the_reader) if not (ROOT / path).exists()] == []
