"""An ONNX classifier run by onnxruntime, in as little memory as it takes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightft.errors import AdapterError
from lightft.extras import package_of_extra
from lightft.portable.heap import give_freed_memory_back, keep_freed_memory
from lightft.reading.decoding import Array

__all__ = ["MODEL_NAME", "Session"]

MODEL_NAME = "model.onnx"
_INPUTS = ("input_ids", "attention_mask")
_OUTPUT = "logits"
# As large as the states of a batch of short texts; after a long text little is left to wait for the next. What cannot be
# used again grows with the width of a model: a large one keeps less.
_LARGEST_BLOCK_KEPT = 4 * 2**20
_LARGEST_BLOCK_KEPT_OF_LARGE_GRAPH = 2**20
_LARGE_GRAPH_BYTES = 64 * 2**20
_MOST_KEPT = 16 * 2**20


class Session:
    """A graph from token ids and an attention mask to logits.

    Args:
        folder: what ``lightft.export(..., to="onnx")`` wrote.
        threads: of one product; None leaves it to onnxruntime, which takes one per core.
        graph_name: the file in it.

    Raises:
        AdapterError: the graph is missing or damaged.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, graph_name: str = MODEL_NAME) -> None:
        self._runtime = package_of_extra("onnxruntime", "onnx", "An ONNX folder is run by onnxruntime")
        self._graph = self._open(folder / graph_name, threads)
        self.outputs: int = self._graph.get_outputs()[0].shape[-1]
        """How many numbers an answer has."""

    def logits(self, input_ids: Array, attention_mask: Array) -> Array:
        """Return the logits of token ids and their mask, both (rows, tokens), padded on the right.

        Returns:
            float32 of shape (rows, outputs) or (rows, tokens, outputs); what stands on padding has no meaning.

        Raises:
            AdapterError: the graph cannot read rows of this size.
        """
        return self.tensors([_OUTPUT], input_ids, attention_mask)[_OUTPUT]

    def tensors(self, names: Sequence[str], input_ids: Array, attention_mask: Array) -> dict[str, Array]:
        """Return several outputs of the graph by name, as ``logits`` does the one; it raises what that does."""
        try:
            found = self._graph.run(names, {"input_ids": input_ids, "attention_mask": attention_mask})
        except self._failures() as cause:
            rows, tokens = input_ids.shape
            raise AdapterError(
                f"The ONNX model cannot read {rows} rows of {tokens} tokens: {_first_line(cause)} Use the adapter as it is, "
                "with lightft.load, or export to 'merged'."
            ) from cause
        return dict(zip(names, found, strict=True))

    def _open(self, path: Path, threads: int | None) -> Any:
        if not path.is_file():
            raise AdapterError(
                f"{path.parent} holds no ONNX model: there is no {path.name} in it. Name a folder that "
                "lightft.export(..., to='onnx') wrote."
            )
        give_freed_memory_back()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        # An arena keeps the memory of the longest text for good.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        # Threads that wait for work sleep instead of spinning: others use the machine too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.x64quantprecision", "0" if _adds_bytes_exactly() else "1")
        try:
            graph = self._runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._failures() as cause:
            raise AdapterError(
                f"{path} is damaged ({_first_line(cause)}). Export the adapter again, or restore the file."
            ) from cause
        is_large = path.stat().st_size > _LARGE_GRAPH_BYTES
        keep_freed_memory(_LARGEST_BLOCK_KEPT_OF_LARGE_GRAPH if is_large else _LARGEST_BLOCK_KEPT, _MOST_KEPT)
        inputs = {put_in.name for put_in in graph.get_inputs()}
        if inputs != set(_INPUTS) or graph.get_outputs()[0].name != _OUTPUT:
            raise AdapterError(
                f"{path} takes {', '.join(sorted(inputs))}, where {' and '.join(_INPUTS)} are given. It is not what "
                "lightft.export(..., to='onnx') wrote. Export the adapter again."
            )
        return graph

    def _failures(self) -> tuple[type[Exception], ...]:
        """Return what onnxruntime raises; its errors have no common base."""
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        return (
            states.Fail,
            states.InvalidArgument,
            states.InvalidGraph,
            states.InvalidProtobuf,
            states.NoSuchFile,
            states.NotImplemented,
            states.RuntimeException,
        )


def _adds_bytes_exactly() -> bool:
    """Whether the processor is known to add up products of signed and unsigned bytes in 32 bits.

    Older ones of the x86 family add two of them in 16 bits, which may not hold the sum. There the weights have to be taken
    as unsigned, for which the runtime has an exact way of half the speed.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(facts.split())


def _first_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:200].rstrip(".") + "."
