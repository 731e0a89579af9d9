"""Products of 8-bit numbers, as nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightft.reading.decoding import Array

__all__ = ["RUNTIME_DOMAIN", "Product", "by_block", "by_row", "rounded"]

RUNTIME_DOMAIN = "com.microsoft"
_LARGEST_BYTE = 127
_ONE_NAME = "lightft_one"
# A channel is taken to reach at least this share of what the largest does: those of the rows seen may yet reach more.
_SMALLEST_SHARE = 0.03
# Tensors that reach less far below 0 than this share of what they reach above it, such as those behind a GELU, are rounded
# to whole numbers from 0 on.
_ONE_SIDED = 0.1
_BLOCK = 32
# How MatMulNBits computes: with its input's rows in 8 bits too, block by block.
_ROWS_IN_8_BITS = 4

_Nodes = dict[str, list[Any]]


@dataclass(frozen=True)
class Product:
    """A node that multiplies what it is given, of shape (..., inputs), with a constant factor.

    Attributes:
        node: the node; what a Gemm adds is its third input.
        given: name of the tensor that is multiplied.
        factor: the weights, (inputs, outputs).
    """

    node: Any
    given: str
    factor: Array


def by_row(products: Sequence[Product], ranges: Mapping[str, tuple[Array, Array]]) -> tuple[_Nodes, dict[str, Array]]:
    """Return products whose rows are rounded by one scale each, and weights by one per output.

    Few channels of a transformer hold much larger numbers than the others and would cost these their digits. So each
    channel is divided by a number before, and the weights are multiplied with it, which leaves the product as it was (Xiao
    et al. 2022, SmoothQuant, arXiv:2211.10438).

    Args:
        products: in the order of the graph.
        ranges: the smallest and the largest number of each channel, by name of the tensor.

    Returns:
        The nodes in the place of each product, by the name of its output, and the constants they need.
    """
    from onnx import helper

    factors_of: dict[str, list[Array]] = {}
    for product in products:
        factors_of.setdefault(product.given, []).append(product.factor)
    # Query, key and value are products of the same rows, which are rounded once.
    rows_of = {given: _Rows.of(given, *ranges[given], factors) for given, factors in factors_of.items()}
    nodes_of: _Nodes = {}
    constants: dict[str, Array] = {_ONE_NAME: np.asarray(1, np.float32)}
    for product in products:
        rows, name = rows_of[product.given], product.node.output[0]
        nodes: list[Any] = []
        if rows.zero not in constants:
            nodes += rows.nodes()
            constants |= rows.constants()
        integers, scales = rounded((product.factor * rows.divisors[:, None]).T)
        constants |= {f"{name}_int8": integers.T.copy(), f"{name}_scales": scales.reshape(-1)}
        factors = [rows.integers, f"{name}_int8", _ONE_NAME, f"{name}_scales", rows.zero]
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat", factors, [f"{name}_scaled"], product.node.name, domain=RUNTIME_DOMAIN
            )
        )
        nodes.append(helper.make_node("Div", [f"{name}_scaled", rows.multiplied_with], [f"{name}_divided"]))
        added = list(product.node.input[2:])
        if rows.lowest:
            # By the rounded weights: with the exact ones, what rounding takes from them would be multiplied as well.
            constants[f"{name}_shift"] = (rows.lowest / rows.divisors) @ (integers * scales).T
            added.append(f"{name}_shift")
        nodes_of[name] = nodes + _sum([f"{name}_divided", *added], name)
    return nodes_of, constants


def by_block(products: Sequence[Product]) -> tuple[_Nodes, dict[str, Array]]:
    """Return products whose rows and weights are rounded by one scale for every 32 numbers, as ``by_row`` does by row."""
    from onnx import helper

    nodes_of: _Nodes = {}
    constants: dict[str, Array] = {}
    for product in products:
        name = product.node.output[0]
        integers, scales = _in_blocks(product.factor)
        constants |= {f"{name}_int8": integers, f"{name}_scales": scales}
        inputs, outputs = product.factor.shape
        multiply = helper.make_node(
            "MatMulNBits",
            [product.given, f"{name}_int8", f"{name}_scales"],
            [f"{name}_product"],
            name=product.node.name,
            domain=RUNTIME_DOMAIN,
            K=inputs,
            N=outputs,
            bits=8,
            block_size=_BLOCK,
            accuracy_level=_ROWS_IN_8_BITS,
        )
        nodes_of[name] = [multiply, *_sum([f"{name}_product", *product.node.input[2:]], name)]
    return nodes_of, constants


def rounded(numbers: Array) -> tuple[Array, Array]:
    """Return whole numbers from −127 to 127, and the scale of each row of the last axis that they are multiplied with."""
    largest = np.abs(numbers).max(-1, keepdims=True)
    scales = np.maximum(largest, np.float32(1e-12)) / np.float32(_LARGEST_BYTE)
    # What is no number stays none through its scale, so that the certificate sees it.
    return np.rint(np.nan_to_num(numbers / scales)).astype(np.int8), scales.astype(np.float32)


def _in_blocks(factor: Array) -> tuple[Array, Array]:
    """Return a factor (inputs, outputs) as unsigned bytes, 128 for 0, of shape (outputs, blocks, 32), and their scales."""
    inputs, outputs = factor.shape
    blocks = -(-inputs // _BLOCK)
    padded = np.zeros((outputs, blocks * _BLOCK), dtype=np.float32)
    padded[:, :inputs] = factor.T
    integers, scales = rounded(padded.reshape(outputs, blocks, _BLOCK))
    return (integers.astype(np.int16) + 128).astype(np.uint8), scales.reshape(-1)


def _sum(terms: Sequence[str], name: str) -> list[Any]:
    """Return the nodes that add up one to three tensors; those after the first are constants and small."""
    from onnx import helper

    if len(terms) == 1:
        return [helper.make_node("Identity", terms, [name])]
    if len(terms) == 2:
        return [helper.make_node("Add", terms, [name])]
    constant = f"{name}_constant"
    return [helper.make_node("Add", terms[1:], [constant]), helper.make_node("Add", [terms[0], constant], [name])]


@dataclass(frozen=True)
class _Rows:
    """What products are given, in 8 bits.

    Attributes:
        given: name of the tensor.
        divisors: of each channel, (inputs,).
        lowest: where a tensor is one-sided, the number below which it does not go; 0 elsewhere.
    """

    given: str
    divisors: Array
    lowest: np.float32

    @classmethod
    def of(cls, given: str, low: Array, high: Array, factors: Sequence[Array]) -> _Rows:
        """Share the difficulty between rows and weights: channels of both are to have like ranges."""
        weight = np.max([np.abs(factor).max(1) for factor in factors], axis=0)
        one_sided = -low.min() < _ONE_SIDED * high.max()
        lowest = np.float32(min(low.min(), 0) if one_sided else 0)
        divisors = np.sqrt(_not_too_small(np.maximum(high, -low)) / _not_too_small(weight))
        usable = np.isfinite(divisors).all() and np.isfinite(lowest)
        return cls(given, divisors, lowest) if usable else cls(given, np.ones_like(divisors), np.float32(0))

    @property
    def integers(self) -> str:
        """Whole numbers from 0 to 255: the runtime multiplies unsigned rows with signed weights faster than signed ones."""
        return self._name("int8")

    @property
    def zero(self) -> str:
        """Which of them stands for 0, or for ``lowest``."""
        return self._name("zero")

    @property
    def multiplied_with(self) -> str:
        """What each row was multiplied with: infinite for a row of zeros, whose products are 0 again when divided by it."""
        return self._name("multiplied_with")

    def nodes(self) -> list[Any]:
        """Return the nodes that round the rows."""
        from onnx import helper

        above, even, sizes, largest, scaled = map(self._name, ("above", "even", "sizes", "largest", "scaled"))
        if self.lowest:
            nodes = [
                helper.make_node("Sub", [self.given, self._name("lowest")], [above]),
                helper.make_node("Div", [above, self._name("divisors")], [even]),
                helper.make_node("ReduceMax", [even], [largest], axes=[-1], keepdims=1),
            ]
        else:
            nodes = [
                helper.make_node("Div", [self.given, self._name("divisors")], [even]),
                helper.make_node("Abs", [even], [sizes]),
                helper.make_node("ReduceMax", [sizes], [largest], axes=[-1], keepdims=1),
            ]
        return [
            *nodes,
            helper.make_node("Div", [self._name("most"), largest], [self.multiplied_with]),
            helper.make_node("Mul", [even, self.multiplied_with], [scaled]),
            helper.make_node("QuantizeLinear", [scaled, _ONE_NAME, self.zero], [self.integers]),
        ]

    def constants(self) -> dict[str, Array]:
        """Return what the nodes need beside the rows."""
        most = 2 * _LARGEST_BYTE + 1 if self.lowest else _LARGEST_BYTE
        return {
            self._name("divisors"): self.divisors,
            **({self._name("lowest"): np.asarray(self.lowest)} if self.lowest else {}),
            self._name("most"): np.asarray(most, np.float32),
            self.zero: np.asarray(0 if self.lowest else _LARGEST_BYTE + 1, np.uint8),
        }

    def _name(self, what: str) -> str:
        return f"{self.given}_rows_{what}"


def _not_too_small(numbers: Array) -> Array:
    least = max(float(numbers.max()) * _SMALLEST_SHARE, float(np.finfo(np.float32).tiny))
    return np.clip(numbers, least, None)
