"""The learning rate is a pure function of the step."""

from __future__ import annotations

import math

import pytest
import torch

from squeezebert.errors import InputError
from squeezebert.training.schedule import Phase, Schedule, warmup_polynomial

PAPER = Schedule(
    (
        Phase(steps=56_000, learning_rate=2.5e-3, warmup_proportion=0.28),
        Phase(steps=6_000, learning_rate=2.5e-3, warmup_proportion=0.28),
    )
)


def test_peak_of_the_paper_lies_at_28_percent_of_phase_1() -> None:
    rates = [PAPER.learning_rate_at(step) for step in range(56_000)]
    assert max(rates) == 2.5e-3
    assert rates.index(2.5e-3) == 15_680
    assert rates.count(2.5e-3) == 1


def test_second_phase_warms_up_again_from_zero() -> None:
    assert PAPER.total_steps == 62_000
    assert PAPER.learning_rate_at(55_999) > 0
    assert PAPER.learning_rate_at(56_000) == 0
    assert PAPER.learning_rate_at(56_001) == pytest.approx(2.5e-3 / 1680)
    assert PAPER.learning_rate_at(56_000 + 1680) == 2.5e-3
    assert PAPER.learning_rate_at(62_000) == 0


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, (0, 0)), (55_999, (0, 55_999)), (56_000, (1, 0)), (61_999, (1, 5_999)), (70_000, (1, 14_000))],
)
def test_phase_at(step: int, expected: tuple[int, int]) -> None:
    assert PAPER.phase_at(step) == expected


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("warmup_steps", [0, 7, 100])
def test_equals_the_formula(power: float, warmup_steps: int) -> None:
    total = 100
    for step in range(140):
        if step < warmup_steps:
            expected = step / warmup_steps
        elif step >= total:
            expected = 0.1
        else:
            expected = 0.1 + 0.9 * math.pow(1 - (step - warmup_steps) / (total - warmup_steps), power)
        factor = warmup_polynomial(step, total_steps=total, warmup_steps=warmup_steps, power=power, end_factor=0.1)
        assert factor == pytest.approx(expected, abs=1e-12)


def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = transformers.get_polynomial_decay_schedule_with_warmup(
        optimizer, num_warmup_steps=10, num_training_steps=50, lr_end=0.03, power=0.5
    )
    ours = Phase(steps=50, learning_rate=0.3, warmup_proportion=0.2, power=0.5, end_factor=0.1)
    for step in range(60):
        assert ours.learning_rate_at(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert Phase(steps=10, learning_rate=1e-4).learning_rate_at(0) == 1e-4


def test_power_zero_holds_the_peak() -> None:
    phase = Phase(steps=10, learning_rate=1e-4, warmup_proportion=0.2, power=0.0)
    assert [phase.learning_rate_at(step) for step in range(2, 10)] == [1e-4] * 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("warmup_proportion", 1.5),
        ("power", -1.0),
        ("end_factor", 2.0),
    ],
)
def test_bad_values_are_named(field: str, value: float) -> None:
    values = {"steps": 10, "learning_rate": 1e-3} | {field: value}
    with pytest.raises(InputError, match=field):
        Phase(**values)


def test_a_schedule_needs_a_phase() -> None:
    with pytest.raises(InputError, match="phase"):
        Schedule(())
