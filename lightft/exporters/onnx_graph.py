"""ONNX graphs of classifiers: traced from a model in memory, and held in 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightft.errors import AdapterError
from lightft.extras import package_of_extra
from lightft.reading.decoding import Array

__all__ = ["quantize", "require_packages", "trace"]

_OPSET = 17
_INPUTS = ("input_ids", "attention_mask")
_SMALLEST_TABLE = 2**12
_RUNTIME_DOMAIN = "com.microsoft"
_BLOCK = 32
# How MatMulNBits computes: with its input's rows in 8 bits too, block by block.
_ROWS_IN_8_BITS = 4


class _Logits(nn.Module):
    """A classifier as a function of two tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()


def require_packages() -> None:
    """Refuse to begin an export without the packages it needs.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        package_of_extra(package, "onnx", f"An export to ONNX needs {package}")


def trace(model: PreTrainedModel, path: Path) -> None:
    """Write the graph of a classifier: from token ids and an attention mask, both (rows, tokens), to float32 logits.

    The model runs once, on two rows of which one is padded, and what it computes is written down. A model whose course
    depends on its input, beyond the sizes, gives a graph that answers otherwise; the certificate is there to find that.

    Args:
        model: in float32 and in eval mode, on the CPU.
        path: the file to write.

    Raises:
        AdapterError: the model computes something that ONNX has no operator for.
    """
    rows = torch.arange(18).reshape(2, 9) % (model.get_input_embeddings().weight.shape[0] - 4) + 4
    mask = torch.ones_like(rows)
    mask[1, 6:] = 0
    sizes = {name: {0: "rows", 1: "tokens"} for name in _INPUTS}
    try:
        # torch speaks of its other exporter, which takes many times longer, and of every size it has seen.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(),
                (rows, mask),
                str(path),
                input_names=list(_INPUTS),
                output_names=["logits"],
                dynamic_axes=sizes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError) as cause:
        raise AdapterError(
            f"{type(model).__name__} cannot be written as ONNX: {' '.join(str(cause).split())[:200]}. Export to 'merged'."
        ) from cause


def quantize(graph: Path, out: Path, kept: Collection[str]) -> dict[str, int]:
    """Write a graph with the weights of its products and its embeddings in 8 bits.

    A product's weights get a scale per output and 32 inputs, and so do the rows that it is given, when it runs; an
    embedding gets a scale per row. No row's answer depends on the rows beside it, as with one scale for a whole batch.

    Args:
        graph: what ``trace`` wrote.
        out: the file to write.
        kept: names of modules whose weights stay in float32.

    Returns:
        How many ``products`` and ``embeddings`` are in 8 bits.
    """
    import onnx

    model = onnx.load(str(graph))
    found = {"products": _quantize_products(model, kept), "embeddings": _quantize_embeddings(model)}
    onnx.save(model, str(out))
    return found


def _quantize_products(model: Any, kept: Collection[str]) -> int:
    """Put the constant factor of each product into 8 bits, in place; return how many."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes, quantized = [], 0
    for node in graph.node:
        factor = _constant_factor(node, weights)
        if factor is None or _belongs_to(node.name, kept):
            nodes.append(node)
            continue
        packed, scales = f"{node.output[0]}_int8", f"{node.output[0]}_scale"
        product = f"{node.output[0]}_product" if node.op_type == "Gemm" else node.output[0]
        integers, their_scales = _in_blocks(factor)
        graph.initializer.append(numpy_helper.from_array(integers, packed))
        graph.initializer.append(numpy_helper.from_array(their_scales, scales))
        inputs, outputs = factor.shape
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], packed, scales],
                [product],
                name=node.name,
                domain=_RUNTIME_DOMAIN,
                K=inputs,
                N=outputs,
                bits=8,
                block_size=_BLOCK,
                accuracy_level=_ROWS_IN_8_BITS,
            )
        )
        if node.op_type == "Gemm":
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]]))
        quantized += 1
    _replace_nodes(graph, nodes)
    model.opset_import.append(helper.make_opsetid(_RUNTIME_DOMAIN, 1))
    return quantized


def _constant_factor(node: Any, weights: Mapping[str, Any]) -> Array | None:
    """Return what a node multiplies its input with, of shape (inputs, outputs); None where it does no such thing."""
    from onnx import helper, numpy_helper

    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    factor: Array = numpy_helper.to_array(weights[node.input[1]])
    if node.op_type == "MatMul":
        return factor
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
    if not plain or len(node.input) < 3:
        return None
    return factor.T if settings.get("transB", 0) else factor


def _in_blocks(factor: Array) -> tuple[Array, Array]:
    """Return a factor (inputs, outputs) as unsigned bytes, 128 for 0, of shape (outputs, blocks, 32), and their scales."""
    inputs, outputs = factor.shape
    blocks = -(-inputs // _BLOCK)
    padded = np.zeros((outputs, blocks * _BLOCK), dtype=np.float32)
    padded[:, :inputs] = factor.T
    by_block = padded.reshape(outputs, blocks, _BLOCK)
    integers, scales = _rounded(by_block)
    return (integers.astype(np.int16) + 128).astype(np.uint8), scales.reshape(-1)


def _rounded(numbers: Array) -> tuple[Array, Array]:
    """Return whole numbers from −127 to 127, and the scale of each row of the last axis that they are multiplied with."""
    largest = np.abs(numbers).max(-1, keepdims=True)
    scales = np.maximum(largest, np.float32(1e-12)) / np.float32(127)
    # What is no number stays none through its scale, so that the certificate sees it.
    return np.rint(np.nan_to_num(numbers / scales)).astype(np.int8), scales.astype(np.float32)


def _quantize_embeddings(model: Any) -> int:
    """Put each large table that rows are looked up in, in place, into 8 bits with a scale per row; return how many."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer if _is_large_table(tensor)}
    for name in _names_used([node for node in graph.node if not _looks_rows_up(node)]):
        # What a product uses too, such as an output layer that is tied to the embeddings, stays as it is.
        tables.pop(name, None)
    nodes, replaced = [], set()
    for node in graph.node:
        table = node.input[0] if _looks_rows_up(node) else ""
        if table not in tables:
            nodes.append(node)
            continue
        replaced.add(table)
        rows, scales, rounded = f"{node.output[0]}_int8", f"{node.output[0]}_scale", f"{node.output[0]}_float"
        nodes += [
            helper.make_node("Gather", [f"{table}_int8", node.input[1]], [rows], axis=0),
            helper.make_node("Gather", [f"{table}_scale", node.input[1]], [scales], axis=0),
            helper.make_node("Cast", [rows], [rounded], to=TensorProto.FLOAT),
            helper.make_node("Mul", [rounded, scales], [node.output[0]]),
        ]
    for name in replaced:
        integers, scales_of_rows = _rounded(numpy_helper.to_array(tables[name]))
        graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales_of_rows, f"{name}_scale"))
    _replace_nodes(graph, nodes)
    return len(replaced)


def _replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Give a graph other nodes, and take out the weights that none of them uses."""
    used = _names_used(nodes)
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    for part, kept in ((graph.node, nodes), (graph.initializer, tensors)):
        # What is kept may belong to the list that is emptied.
        copies = [type(one).FromString(one.SerializeToString()) for one in kept]
        del part[:]
        part.extend(copies)


def _names_used(nodes: Iterable[Any]) -> set[str]:
    """Return the names of all that nodes take, those in the branches of a condition or a loop included."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                names |= _names_used(branch.node) | {put_out.name for put_out in branch.output}
    return names


def _looks_rows_up(node: Any) -> bool:
    return node.op_type == "Gather" and all(
        attribute.i == 0 for attribute in node.attribute if attribute.name == "axis"
    )


def _is_large_table(tensor: Any) -> bool:
    from onnx import TensorProto

    return (
        tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] * tensor.dims[1] >= _SMALLEST_TABLE
    )


def _belongs_to(node: str, modules: Collection[str]) -> bool:
    """Whether a node was traced in one of the modules; nodes are named /model/path/of/modules/Operator."""
    return any(node.startswith(f"/model/{module.replace('.', '/')}/") for module in modules)
