"""FastDropout does what torch's dropout does, and takes its place in a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightft.cpu_training.dropout import FastDropout, use_fast_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_p_is_dropped_and_the_rest_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = FastDropout(p)(torch.ones(400, 1000, dtype=dtype))
    assert dropped.dtype == dtype
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / 400_000) ** 0.5 + 2**-16)
    (kept,) = dropped[dropped != 0].unique().tolist()
    assert kept == pytest.approx(1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 5)])
def test_any_shape_is_taken(shape: tuple[int, ...]) -> None:
    assert FastDropout(0.5)(torch.ones(shape)).shape == shape
    assert FastDropout(0.5)(torch.ones(6, 4).T).shape == (4, 6)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (FastDropout(0.5)(torch.ones(400_000)) == 0).double()
    for distance in (1, 2, 3, 4, 8):
        together = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert together == pytest.approx(0.25, abs=0.005)


def test_the_gradient_goes_where_the_value_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    y = FastDropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad * x, y)
    assert set((x.grad != 0).tolist()) == {True, False}


def test_it_is_the_identity_in_eval_mode_and_at_rate_zero() -> None:
    x = torch.randn(100)
    assert FastDropout(0.5).eval()(x) is x
    assert FastDropout(0.0)(x) is x
    assert FastDropout(1e-9)(x) is x
    assert not FastDropout(1.0)(x).any()


def test_the_same_seed_drops_the_same() -> None:
    x = torch.ones(1000)
    torch.manual_seed(7)
    first, second = FastDropout(0.5)(x), FastDropout(0.5)(x)
    torch.manual_seed(7)
    assert torch.equal(FastDropout(0.5)(x), first)
    assert not torch.equal(first, second)


def test_it_takes_the_place_of_torchs_own_and_of_nothing_else() -> None:
    class Special(nn.Dropout):
        pass

    model = nn.Sequential(
        nn.Dropout(0.1), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2).eval()), Special(0.3), nn.Dropout1d(0.4)
    )
    assert use_fast_dropout(model) == 2
    assert [type(module) for module in model] == [FastDropout, nn.Sequential, Special, nn.Dropout1d]
    assert (model[0].p, model[1][1].p) == (0.1, 0.2)
    assert (model[0].training, model[1][1].training) == (True, False)
    assert use_fast_dropout(model) == 0
