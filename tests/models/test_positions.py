"""Rotary, sinusoidal and learned positions."""

from __future__ import annotations

import math

import pytest
import torch

from nas.models.positions import Positions, rotate, rotate_plainly, waves_by_distance
from search_spaces.attention.base import Position
from search_spaces.errors import InvalidInput


def test_rotation_equals_real_arithmetic() -> None:
    x = torch.randn(2, 30, 3, 8, dtype=torch.float64, requires_grad=True)
    turn = Positions("rotary", 24, 30).rotation(8, 0, 30, x)
    assert turn is not None
    torch.testing.assert_close(rotate(x, turn), rotate_plainly(x, turn), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: rotate(x, turn), x, fast_mode=True)


def test_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(2, 1, 40, 1, 8)
    turn = Positions("rotary", 8, 40).rotation(8, 0, 40, q)
    assert turn is not None
    scores = rotate(q, turn)[0, :, 0] @ rotate(k, turn)[0, :, 0].t()
    for distance in (0, 1, 13):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-12)


def test_rotation_starts_anywhere_and_goes_beyond_its_table() -> None:
    positions = Positions("rotary", 8, 10)
    like = torch.zeros(1)
    early, late = positions.rotation(8, 0, 10, like), positions.rotation(8, 5, 20, like)
    assert early is not None
    assert late is not None
    assert torch.equal(early.unit[5:], late.unit[:5])
    angle = torch.angle(late.unit[-1])
    wanted = torch.tensor([math.remainder(24 * 10_000 ** (-i / 4), 2 * math.pi) for i in range(4)])
    torch.testing.assert_close(angle, wanted)


@pytest.mark.parametrize("kind", ["rotary", "sinusoidal"])
def test_tables_made_in_inference_mode_serve_training(kind: Position) -> None:
    positions = Positions(kind, 8, 20)
    x = torch.randn(1, 20, 1, 8, requires_grad=True)
    with torch.inference_mode():
        positions.rotation(8, 0, 20, x)
        positions(torch.zeros(1, 20, 8))
    turn = positions.rotation(8, 0, 20, x)
    y = positions(x.squeeze(2)) if turn is None else rotate(x, turn)
    y.square().sum().backward()
    assert x.grad is not None


def test_half_precision_is_rotated_in_full() -> None:
    x = torch.randn(1, 20, 1, 8).bfloat16()
    turn = Positions("rotary", 8, 20).rotation(8, 0, 20, x)
    assert turn is not None
    turned = rotate(x, turn)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned, rotate(x.float(), turn).bfloat16())


@pytest.mark.parametrize("width", [7, 8])
def test_sinusoids_are_different_everywhere(width: int) -> None:
    positions = Positions("sinusoidal", width, 50)
    rows = positions(torch.zeros(1, 50, width))[0]
    assert rows.shape == (50, width)
    assert torch.cdist(rows, rows).add(torch.eye(50)).min() > 0.01
    torch.testing.assert_close(positions(torch.zeros(1, 3, width), 47)[0], rows[47:])
    assert positions(torch.zeros(1, 60, width)).isfinite().all()


def test_learned_positions_end() -> None:
    positions = Positions("learned", 8, 10)
    assert positions(torch.zeros(2, 3, 8), 7).shape == (2, 3, 8)
    with pytest.raises(InvalidInput, match="11 tokens, but positions were learned for 10"):
        positions(torch.zeros(2, 3, 8), 8)


def test_no_positions_change_nothing() -> None:
    x = torch.randn(2, 3, 8)
    for kind in ("none", "rotary"):
        assert torch.equal(Positions(kind, 8, 10)(x), x)


@pytest.mark.parametrize("width", [7, 8])
def test_waves_of_distances_are_those_of_both_signs(width: int) -> None:
    like = torch.zeros(1, dtype=torch.float64)
    rows = waves_by_distance(5, -3, width, like)
    assert rows.shape == (9, width)
    half = (width + 1) // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=torch.float64) / half)
    for row, distance in zip(rows, range(5, -4, -1), strict=True):
        angle = distance * frequency
        torch.testing.assert_close(row, torch.cat((angle.sin(), angle.cos()))[:width])
    torch.testing.assert_close(waves_by_distance(3, 0, width, like), rows[2:6])
    torch.testing.assert_close(waves_by_distance(500, -3, width, like)[-9:], rows)


def test_waves_made_in_inference_mode_serve_training() -> None:
    like = torch.zeros(1)
    with torch.inference_mode():
        waves_by_distance(11, 0, 6, like)
    weight = torch.ones(6, requires_grad=True)
    (waves_by_distance(11, 0, 6, like) * weight).sum().backward()
    assert weight.grad is not None
