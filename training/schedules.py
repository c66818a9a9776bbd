"""Schedules of the learning rate during a training run."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from kernels.scalars import check_int, check_number


def _check_fraction(value: float, name: str, high: float = 1.0) -> float:
    """Return a number from 0 to ``high``, both included."""
    fraction = check_number(value, name)
    if not 0 <= fraction <= high:
        raise ValueError(f"{name} must be 0 to {high:g}, got {value!r}")
    return fraction


BEFORE_END = 1 - 2**-20  # a progress


class Schedule(ABC):
    """The base of all schedules: a factor for the optimizer's learning rate in each step.

    A subclass implements `factor`. One whose factor depends on more than the progress also
    implements `state` and `set_state`, so that an interrupted run can be resumed. One that ends
    runs implements `is_over`.
    """

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the factor for the next step.

        Parameters
        ----------
        progress : float
            Share of the run's steps that are done, from 0 to below 1.
        """

    def epoch_ended(self, loss: float) -> None:  # noqa: B027
        """Receive an epoch's loss: on the validation images, or else on the training images."""

    def state(self) -> dict[str, float]:
        """Return the numbers that `factor` depends on beside the progress."""
        return {}

    def set_state(self, state: dict[str, float]) -> None:  # noqa: B027
        """Restore what `state` returned."""

    @property
    def name(self) -> str:
        """The name under which an interrupted run is saved."""
        return type(self).__name__

    @property
    def is_over(self) -> bool:
        """Whether the run must end now, and not after its last epoch."""
        return False

    def run_started(self) -> None:  # noqa: B027
        """Receive the start of a run, or of the rest of an interrupted one."""

    def validation_ended(self, seconds: float) -> None:  # noqa: B027
        """Receive the time that a validation took, or will take."""


class Constant(Schedule):
    """A constant learning rate."""

    def factor(self, progress):
        return 1.0


class Cosine(Schedule):
    """A linear warm-up, then a decrease along half a cosine.

    Parameters
    ----------
    warm_up : float
        Share of the steps that belong to the warm-up.
    start, end : float
        Factors of the first step, if there is a warm-up, and of the last step.

    References
    ----------
    Loshchilov, Hutter: SGDR (2017).
    """

    def __init__(self, warm_up: float = 0.0, start: float = 0.04, end: float = 0.0):
        self.warm_up = _check_fraction(warm_up, "warm_up", high=0.99)
        self.start, self.end = _check_fraction(start, "start"), _check_fraction(end, "end")

    def factor(self, progress):
        if progress < self.warm_up:
            return self.start + (1 - self.start) * progress / self.warm_up
        decrease = (progress - self.warm_up) / (1 - self.warm_up)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * decrease)) / 2


class OneCycle(Cosine):
    """A learning rate that rises to a high maximum first, and then falls to almost 0.

    The large steps in the middle keep the network out of narrow minima. Parameters as in `Cosine`.

    References
    ----------
    Smith: A disciplined approach to neural network hyper-parameters (2018).
    """

    def __init__(self, warm_up: float = 0.2, start: float = 0.04, end: float = 1e-4):
        super().__init__(warm_up, start, end)


class Steps(Schedule):
    """A learning rate that is reduced at given points of the run.

    Parameters
    ----------
    at : tuple of float
        Shares of the steps after which the learning rate is reduced.
    factor : float
        Factor of each reduction, 0 to 1.
    """

    def __init__(self, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1):
        self.at = tuple(_check_fraction(share, "at") for share in at)
        self.reduction = _check_fraction(factor, "factor")

    def factor(self, progress):
        return self.reduction ** sum(progress >= share for share in self.at)


class ReduceOnPlateau(Schedule):
    """A learning rate that is reduced whenever the loss has stopped falling.

    Parameters
    ----------
    patience : int
        The number of epochs without a new lowest loss that are tolerated before a reduction.
    factor : float
        Factor of each reduction, between 0 and 1.
    minimum : float
        The product of all reductions does not fall below this.
    """

    def __init__(self, patience: int = 2, factor: float = 0.5, minimum: float = 1e-3):
        self.patience = check_int(patience, "patience", 0)
        self.reduction = check_number(factor, "factor")
        self.minimum = check_number(minimum, "minimum")
        if not 0 < self.reduction < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor!r}")
        self._factor, self._lowest_loss, self._epochs_since_lowest = 1.0, math.inf, 0

    def factor(self, progress):
        return self._factor

    def epoch_ended(self, loss):
        if loss < self._lowest_loss:
            self._lowest_loss, self._epochs_since_lowest = loss, 0
            return
        self._epochs_since_lowest += 1
        if self._epochs_since_lowest > self.patience:
            self._factor = max(self._factor * self.reduction, min(self.minimum, self._factor))
            self._epochs_since_lowest = 0

    def state(self):  # the keys are those of saved files
        return {
            "factor": self._factor,
            "lowest": self._lowest_loss,
            "waited": self._epochs_since_lowest,
        }

    def set_state(self, state):
        self._factor, self._lowest_loss = float(state["factor"]), float(state["lowest"])
        self._epochs_since_lowest = int(state["waited"])


class TimeLimited(Schedule):
    """Another schedule, fitted to the time that a run may take.

    The progress of a run is the share of its time that has passed, or that of its steps if that is
    more. A run ends in the middle of an epoch when only the time to validate is left.

    Parameters
    ----------
    schedule : Schedule
    seconds : float
        Time for the run, its validations included.
    validations_after : float
        The time that must be left after the run's last validation, in validations.
    clock : callable
        Returns the time in seconds.

    Examples
    --------
    >>> seconds = iter([0.0, 15.0, 30.0])
    >>> schedule = TimeLimited(Cosine(), 30.0, clock=lambda: next(seconds))
    >>> schedule.run_started()
    >>> round(schedule.factor(progress=0.1), 3), schedule.is_over
    (0.5, True)
    """

    def __init__(
        self,
        schedule: Schedule,
        seconds: float,
        validations_after: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        if not isinstance(schedule, Schedule) or isinstance(schedule, TimeLimited):
            raise TypeError(f"schedule must be one without a time limit, got {schedule!r}")
        self.schedule = schedule
        self.seconds = check_number(seconds, "seconds")
        if self.seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {seconds!r}")
        self.validations_after = check_number(validations_after, "validations_after", 0)
        self._clock = clock
        self._start: float | None = None
        self._elapsed_before = self._reserve = 0.0

    @property
    def name(self):
        return self.schedule.name

    @property
    def elapsed(self) -> float:
        """The seconds that the run has taken."""
        running = 0.0 if self._start is None else self._clock() - self._start
        return self._elapsed_before + running

    @property
    def seconds_left(self) -> float:
        """The time that is left for training and validation; below 0 when it is exceeded."""
        return self.seconds - self._reserve - self.elapsed

    @property
    def is_over(self):
        return self.seconds_left <= 0

    def run_started(self):
        self._start = self._clock()

    def validation_ended(self, seconds):
        # As much time is kept for the run's last validation, and for what follows the run.
        self._reserve = seconds * (1 + self.validations_after)

    def factor(self, progress):
        available = self.seconds - self._reserve
        share = self.elapsed / available if available > 0 else 1.0
        return self.schedule.factor(min(max(progress, share), BEFORE_END))

    def epoch_ended(self, loss):
        self.schedule.epoch_ended(loss)

    def state(self):
        return self.schedule.state() | {"elapsed": self.elapsed}

    def set_state(self, state):
        self.schedule.set_state(state)
        self._elapsed_before = float(state.get("elapsed", 0.0))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "plateau": ReduceOnPlateau,
    "step": Steps,
}
