"""ONNX graphs of classifiers in 8 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightft.exporters.onnx_products import RUNTIME_DOMAIN, Product, by_block, by_row, rounded
from lightft.portable.session import Session
from lightft.reading.decoding import Array

__all__ = ["quantize"]

_SMALLEST_TABLE = 2**12


def quantize(
    graph: Path, out: Path, kept: Collection[str], *, rounded_by: str, seen: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Write a graph with the weights of its products and its embeddings in 8 bits.

    What products are given is rounded as well, when it comes. No row's answer depends on the rows beside it, as it would
    with one scale for a whole batch. An embedding gets a scale per row.

    Args:
        graph: what ``trace`` wrote.
        out: the file to write.
        kept: names of modules whose weights stay in float32.
        rounded_by: ``"row"`` rounds each row that a product is given by one scale, and its weights by one per output;
            ``"block"`` both by one for every 32 numbers, which is closer and slower.
        seen: rows of token ids, from which ``"row"`` takes the ranges of channels. Larger numbers are not cut off; in a
            tensor that hardly goes below 0, numbers below the lowest are taken for the lowest.

    Returns:
        How many ``products`` and ``embeddings`` are in 8 bits.
    """
    import onnx

    model = onnx.load(str(graph))
    products = _find_products(model.graph, kept)
    if rounded_by == "row":
        nodes_of, constants = by_row(products, _ranges(graph, {product.given for product in products}, seen))
    else:
        nodes_of, constants = by_block(products)
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes += nodes_of.get(node.output[0], [node])
    _add_constants(model.graph, constants)
    _replace_nodes(model.graph, nodes)
    model.opset_import.append(onnx.helper.make_opsetid(RUNTIME_DOMAIN, 1))
    embeddings = _quantize_embeddings(model.graph)
    onnx.save(model, str(out))
    return {"products": len(products), "embeddings": embeddings}


def _find_products(graph: Any, kept: Collection[str]) -> list[Product]:
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    found = []
    for node in graph.node:
        factor = _constant_factor(node, weights)
        if factor is not None and not _belongs_to(node.name, kept):
            found.append(Product(node, node.input[0], factor))
    return found


def _ranges(graph: Path, names: Collection[str], seen: Sequence[Sequence[int]]) -> dict[str, tuple[Array, Array]]:
    """Return the smallest and the largest number of each channel of the tensors ``names`` while ``seen`` is read."""
    import onnx

    observed = graph.with_name("observed.onnx")
    # Weights in files of their own are found beside it.
    model = onnx.load(str(graph), load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    onnx.save(model, str(observed))
    session = Session(observed.parent, graph_name=observed.name)
    ranges: dict[str, tuple[Array, Array]] = {}
    for row in seen:
        ids = np.asarray([row], dtype=np.int64)
        for name, values in session.tensors(sorted(names), ids, np.ones_like(ids)).items():
            rows = values.reshape(-1, values.shape[-1])
            low, high = ranges.get(name, (rows[0], rows[0]))
            ranges[name] = (np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0)))
    observed.unlink()
    return ranges


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


def _quantize_embeddings(graph: Any) -> int:
    """Put each large table that rows are looked up in, in place, into 8 bits with a scale per row; return how many."""
    from onnx import TensorProto, helper, numpy_helper

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
        rows, scales, floats = (f"{node.output[0]}_{what}" for what in ("int8", "scale", "float"))
        nodes += [
            helper.make_node("Gather", [f"{table}_int8", node.input[1]], [rows], axis=0),
            helper.make_node("Gather", [f"{table}_scale", node.input[1]], [scales], axis=0),
            helper.make_node("Cast", [rows], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [floats, scales], [node.output[0]]),
        ]
    for name in replaced:
        integers, scales_of_rows = rounded(numpy_helper.to_array(tables[name]))
        _add_constants(graph, {f"{name}_int8": integers, f"{name}_scale": scales_of_rows})
    _replace_nodes(graph, nodes)
    return len(replaced)


def _add_constants(graph: Any, constants: Mapping[str, Array]) -> None:
    from onnx import numpy_helper

    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())


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
