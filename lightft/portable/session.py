"""An ONNX classifier run by onnxruntime, in as little memory as it takes."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path
from typing import Any

from lightft.errors import AdapterError
from lightft.extras import package_of_extra
from lightft.reading.decoding import Array

__all__ = ["MODEL_NAME", "Session"]

MODEL_NAME = "model.onnx"
_INPUTS = ("input_ids", "attention_mask")
_OUTPUT = "logits"
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK = 2**20


class Session:
    """A graph from token ids and an attention mask to logits.

    Args:
        folder: what ``lightft.export(..., to="onnx")`` wrote.
        threads: of one product; None leaves it to onnxruntime, which takes one per core.

    Raises:
        AdapterError: the graph is missing or damaged.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._runtime = package_of_extra("onnxruntime", "onnx", "An ONNX folder is run by onnxruntime")
        self._graph = self._open(folder / MODEL_NAME, threads)
        self.outputs: int = self._graph.get_outputs()[0].shape[-1]
        """How many numbers an answer has."""

    def logits(self, input_ids: Array, attention_mask: Array) -> Array:
        """Return the logits of token ids and their mask, both (rows, tokens), padded on the right.

        Returns:
            float32 of shape (rows, outputs) or (rows, tokens, outputs); what stands on padding has no meaning.

        Raises:
            AdapterError: the graph cannot read rows of this size.
        """
        try:
            logits: Array = self._graph.run([_OUTPUT], {"input_ids": input_ids, "attention_mask": attention_mask})[0]
        except self._failures() as cause:
            rows, tokens = input_ids.shape
            raise AdapterError(
                f"The ONNX model cannot read {rows} rows of {tokens} tokens: {_first_line(cause)} Use the adapter as it is, "
                "with lightft.load, or export to 'merged'."
            ) from cause
        return logits

    def _open(self, path: Path, threads: int | None) -> Any:
        if not path.is_file():
            raise AdapterError(
                f"{path.parent} holds no ONNX model: there is no {path.name} in it. Name a folder that "
                "lightft.export(..., to='onnx') wrote."
            )
        _give_back_large_blocks()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        # An arena keeps the memory of the longest text for good.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        # Threads that wait for work sleep instead of spinning: others use the machine too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            graph = self._runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._failures() as cause:
            raise AdapterError(
                f"{path} is damaged ({_first_line(cause)}). Export the adapter again, or restore the file."
            ) from cause
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


def _give_back_large_blocks() -> None:
    """Have glibc return a freed block of 1 MiB or more to the system at once.

    By itself it comes to keep blocks of up to 32 MiB, so that after a long text a model of base size holds 200 MB more
    than it needs. Another C library, which has no such setting, is left as it is.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _first_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:200].rstrip(".") + "."
