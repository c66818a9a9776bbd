"""Schedules of the learning rate."""

import pytest

from training import Constant, Cosine, OneCycle, ReduceOnPlateau, Steps


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {0: 1, 0.5: 1}),
        (Cosine(), {0: 1, 0.5: 0.5}),
        (
            OneCycle(warm_up=0.2, start=0.1, end=0.01),
            {0: 0.1, 0.1: 0.55, 0.2: 1, 0.6: 0.505, 1 - 1e-9: 0.01},
        ),
        (Steps((0.5, 0.8), 0.1), {0: 1, 0.49: 1, 0.5: 0.1, 0.8: 0.01}),
    ],
)
def test_factor_by_progress(schedule, factors):
    for progress, factor in factors.items():
        assert schedule.factor(progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    "create",
    [
        lambda: OneCycle(1.0),
        lambda: Cosine(start=2),
        lambda: Steps((1.5,)),
    ],
)
def test_rejects_fractions_out_of_range(create):
    with pytest.raises(ValueError, match="must be 0 to"):
        create()


@pytest.mark.parametrize(
    "create",
    [
        lambda: Cosine(10**400),
        lambda: Steps((10**400,)),
        lambda: ReduceOnPlateau(factor=10**400),
        lambda: ReduceOnPlateau(minimum=10**400),
        lambda: ReduceOnPlateau(minimum=float("nan")),
    ],
)
def test_rejects_numbers_that_are_not_finite(create):
    with pytest.raises(ValueError, match="must be"):
        create()


@pytest.mark.parametrize(
    "create", [lambda: Cosine("0.1"), lambda: Steps((None,)), lambda: ReduceOnPlateau(2, "x")]
)
def test_rejects_values_that_are_not_numbers(create):
    with pytest.raises(TypeError, match="must be a number"):
        create()


LOSSES = (3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1)


def test_plateau_reduces_the_rate_when_the_loss_stops_falling():
    schedule = ReduceOnPlateau(patience=1, factor=0.5, minimum=0.15)
    factors = []
    for loss in LOSSES:
        schedule.epoch_ended(loss)
        factors.append(schedule.factor(0.5))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.15, 0.15, 0.15]


def test_plateau_continues_from_a_restored_state():
    schedule = ReduceOnPlateau(patience=1, factor=0.5, minimum=0.15)
    for loss in LOSSES:
        schedule.epoch_ended(loss)
    restored = ReduceOnPlateau(patience=1, factor=0.5, minimum=0.01)
    restored.set_state(schedule.state())
    assert restored.factor(0) == 0.15
    restored.epoch_ended(1)
    restored.epoch_ended(1)
    assert restored.factor(0) == 0.075
