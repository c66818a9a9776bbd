"""Schedules of the learning rate during a training run."""

import math
from abc import ABC, abstractmethod

from kernels.scalars import check_int, check_number


def _check_fraction(value: float, name: str, high: float = 1.0) -> float:
    """Return a number from 0 to ``high``, both included."""
    fraction = check_number(value, name)
    if not 0 <= fraction <= high:
        raise ValueError(f"{name} must be 0 to {high:g}, got {value!r}")
    return fraction


class Schedule(ABC):
    """The base of all schedules: a factor for the optimizer's learning rate in each step.

    A subclass implements `factor`. One whose factor depends on more than the progress also
    implements `state` and `set_state`, so that an interrupted run can be resumed.
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


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "plateau": ReduceOnPlateau,
    "step": Steps,
}
