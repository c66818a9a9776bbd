"""Schedules of the learning rate."""

import pytest

from training import Constant, Cosine, OneCycle, ReduceOnPlateau, Steps, TimeLimited


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


class Clock:
    """A clock that stands still until its time is set."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def test_a_time_limit_follows_the_clock_or_the_steps_whichever_is_further():
    clock = Clock()
    schedule = TimeLimited(Steps((0.25, 0.75), 0.1), 100, clock=clock)
    clock.time = 7.0
    schedule.run_started()
    for seconds, progress, factor in ((0, 0, 1), (24, 0, 1), (25, 0, 0.1), (25, 0.8, 0.01)):
        clock.time = 7.0 + seconds
        assert schedule.factor(progress) == pytest.approx(factor)
        assert not schedule.is_over
    clock.time = 107.0
    assert schedule.is_over
    assert schedule.factor(0) == pytest.approx(0.01)


def test_a_time_limit_keeps_time_for_the_last_validation_and_what_follows():
    clock = Clock()
    schedule = TimeLimited(Steps((0.5,), 0.1), 100, validations_after=2, clock=clock)
    schedule.run_started()
    schedule.validation_ended(10.0)
    clock.time = 34.9
    assert schedule.factor(0) == 1
    clock.time = 35.0  # half of 100 - 3 * 10
    assert schedule.factor(0) == pytest.approx(0.1)
    assert schedule.seconds_left == 35
    clock.time = 70.0
    assert schedule.is_over
    schedule.validation_ended(200.0)  # a machine that became slow
    assert schedule.factor(0) == pytest.approx(0.1)


def test_a_time_limit_counts_the_time_of_an_interrupted_run():
    clock = Clock()
    schedule = TimeLimited(ReduceOnPlateau(patience=0), 100, clock=clock)
    schedule.run_started()
    clock.time = 60.0
    for loss in (1, 1):
        schedule.epoch_ended(loss)
    resumed = TimeLimited(ReduceOnPlateau(patience=0), 100, clock=clock)
    resumed.set_state(schedule.state())
    clock.time = 1000.0
    resumed.run_started()
    assert resumed.seconds_left == 40
    assert resumed.factor(0) == 0.5
    assert resumed.name == ReduceOnPlateau().name


@pytest.mark.parametrize(
    ("create", "error"),
    [
        (lambda: TimeLimited(Constant(), 0), ValueError),
        (lambda: TimeLimited(Constant(), "1"), TypeError),
        (lambda: TimeLimited(Constant(), 1, -1), ValueError),
        (lambda: TimeLimited("cosine", 1), TypeError),
        (lambda: TimeLimited(TimeLimited(Constant(), 1), 1), TypeError),
    ],
)
def test_a_time_limit_rejects_wrong_arguments(create, error):
    with pytest.raises(error):
        create()
