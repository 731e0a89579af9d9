"""ONNX graphs of classifiers, traced from a model in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightft.errors import AdapterError
from lightft.extras import package_of_extra

__all__ = ["require_packages", "trace"]

_OPSET = 17
_INPUTS = ("input_ids", "attention_mask")


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
