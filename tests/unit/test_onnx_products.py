"""Products in 8 bits, as onnxruntime computes them, against the products of the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lightft.exporters.onnx_products import Product, by_block, by_row
from lightft.portable.session import _adds_bytes_exactly

Numbers = NDArray[np.float32]
Multiply = Callable[[Numbers], Numbers]
INPUTS, OUTPUTS = 96, 40


@pytest.fixture
def weights() -> Numbers:
    return np.random.default_rng(0).standard_normal((INPUTS, OUTPUTS)).astype(np.float32)


def normal(rows: int = 64, seed: int = 1) -> Numbers:
    return np.random.default_rng(seed).standard_normal((rows, INPUTS)).astype(np.float32)


def behind_a_gelu(rows: int = 64) -> Numbers:
    return np.maximum(normal(rows), np.float32(-0.17))


def multiplier(
    weights: Numbers,
    seen: Numbers,
    *,
    bias: Numbers | None = None,
    rounded_by: str = "row",
    unsigned: bool | None = None,
) -> Multiply:
    """Return how a graph of one product in 8 bits multiplies."""
    added = [] if bias is None else ["bias"]
    node = helper.make_node("Gemm" if added else "MatMul", ["x", "weights", *added], ["y"], name="/model/product")
    products = [Product(node, "x", weights)]
    nodes_of, constants = (
        by_row(products, {"x": (seen.min(0), seen.max(0))}) if rounded_by == "row" else by_block(products)
    )
    if bias is not None:
        constants["bias"] = bias
    graph = helper.make_graph(
        nodes_of["y"],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    if unsigned is None:
        unsigned = not _adds_bytes_exactly()
    options.add_session_config_entry("session.x64quantprecision", "1" if unsigned else "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda rows: session.run(None, {"x": rows})[0]


def error(found: Numbers, expected: Numbers) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("rounded_by", ["row", "block"])
@pytest.mark.parametrize("rows", [normal(), behind_a_gelu()], ids=["two-sided", "one-sided"])
def test_a_product_is_that_of_the_numbers_up_to_rounding(weights: Numbers, rows: Numbers, rounded_by: str) -> None:
    bias = np.arange(OUTPUTS, dtype=np.float32)
    assert 1e-4 < error(multiplier(weights, rows, rounded_by=rounded_by)(rows), rows @ weights) < 0.02
    with_bias = multiplier(weights, rows, bias=bias, rounded_by=rounded_by)(rows)
    np.testing.assert_allclose(with_bias - bias, multiplier(weights, rows, rounded_by=rounded_by)(rows), atol=1e-4)


def test_numbers_on_one_side_of_0_are_rounded_half_as_much(weights: Numbers) -> None:
    rows = behind_a_gelu()
    two_sided = rows.copy()
    two_sided[0] = -rows.max(0)
    errors = [error(multiplier(weights, seen)(rows), rows @ weights) for seen in (rows, two_sided)]
    assert errors[0] < 0.85 * errors[1]


def test_one_large_channel_does_not_cost_the_others_their_digits(weights: Numbers) -> None:
    rows = normal()
    rows[:, 7] *= 100
    weights[7] /= 100
    unaware = np.tile(np.asarray([[-1.0], [1.0]], np.float32), (1, INPUTS))
    errors = [error(multiplier(weights, seen)(rows), rows @ weights) for seen in (rows, unaware)]
    assert errors[0] < 0.015 < 0.04 < errors[1]


def test_numbers_beyond_those_seen_are_not_cut_off(weights: Numbers) -> None:
    rows = 50 * normal()
    assert error(multiplier(weights, normal(seed=2))(rows), rows @ weights) < 0.02


def test_a_one_sided_tensor_takes_lower_numbers_for_the_lowest(weights: Numbers) -> None:
    seen = behind_a_gelu()
    lower = seen.copy()
    lower[:, :4] = -0.5
    clipped = np.maximum(lower, seen.min())
    np.testing.assert_allclose(multiplier(weights, seen)(lower), multiplier(weights, seen)(clipped), atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it(weights: Numbers) -> None:
    multiply = multiplier(weights, normal())
    rows = normal(5)
    alone = np.concatenate([multiply(rows[place : place + 1]) for place in range(5)])
    rows_beside_large_ones = np.concatenate([rows, 1000 * rows])
    np.testing.assert_array_equal(multiply(rows_beside_large_ones)[:5], alone)


def test_a_row_of_zeros_gives_zeros_and_what_is_no_number_stays_none(weights: Numbers) -> None:
    rows = normal(3)
    rows[0] = 0
    rows[1] = np.nan
    found = multiplier(weights, normal())(rows)
    assert (found[0] == 0).all()
    assert not np.isfinite(found[1]).any()
    assert np.isfinite(found[2]).all()


def test_processors_that_need_unsigned_weights_get_the_same_numbers(weights: Numbers) -> None:
    """The runtime's setting for them changes the graph on any processor of their family."""
    largest = np.full((2, INPUTS), 3, np.float32)
    rows = np.concatenate([normal(), largest, -largest])
    weights[:, 0] = 1
    usual, unsigned = (multiplier(weights, normal(), unsigned=choice)(rows) for choice in (None, True))
    np.testing.assert_allclose(unsigned, usual, rtol=1e-5, atol=1e-4)
    assert error(usual, rows @ weights) < 0.02


def test_products_of_the_same_rows_round_them_once(weights: Numbers) -> None:
    def product(name: str) -> Product:
        return Product(helper.make_node("MatMul", ["x", name], [f"{name}_out"], name=f"/model/{name}"), "x", weights)

    nodes_of, _ = by_row([product("query"), product("key")], {"x": (normal().min(0), normal().max(0))})
    rounding: list[list[Any]] = [
        [node for node in nodes if node.op_type == "QuantizeLinear"] for nodes in nodes_of.values()
    ]
    assert [len(nodes) for nodes in rounding] == [1, 0]
