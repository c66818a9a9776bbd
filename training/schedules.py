"""How the learning rate changes while a model trains."""

import math
from abc import ABC, abstractmethod

from kernels.scalars import check_int, check_number


def _share(name: str, value: float, low: float = 0.0, high: float = 1.0) -> float:
    share = check_number(value, name)
    if not low <= share <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value!r}")
    return share


class Schedule(ABC):
    """What the optimizer's learning rate is multiplied by, step by step."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the factor for the next step.

        Parameters
        ----------
        progress : float
            Share of all steps of the run that lie behind, from 0 to below 1.
        """

    def epoch_ended(self, loss: float) -> None:  # noqa: B027
        """Take note of an epoch's loss, on the validation images where there are some."""

    def state(self) -> dict[str, float]:
        """Return what `factor` depends on besides the progress."""
        return {}

    def set_state(self, state: dict[str, float]) -> None:  # noqa: B027
        """Go on from such a state."""


class Constant(Schedule):
    """The same learning rate throughout."""

    def factor(self, progress):
        return 1.0


class Cosine(Schedule):
    """Up in a straight line, and down along half a cosine.

    Parameters
    ----------
    warm_up : float
        Share of the steps on the way up.
    start, end : float
        Factors of the first step, if there is a warm-up, and of the last one.

    References
    ----------
    Loshchilov, Hutter: SGDR (2017).
    """

    def __init__(self, warm_up: float = 0.0, start: float = 0.04, end: float = 0.0):
        self.warm_up = _share("warm_up", warm_up, high=0.99)
        self.start, self.end = _share("start", start), _share("end", end)

    def factor(self, progress):
        if progress < self.warm_up:
            return self.start + (1 - self.start) * progress / self.warm_up
        down = (progress - self.warm_up) / (1 - self.warm_up)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * down)) / 2


class OneCycle(Cosine):
    """A learning rate that first rises far above what would do for a start, then falls to 0.

    The large steps in the middle keep the network out of narrow minima.

    References
    ----------
    Smith: A disciplined approach to neural network hyper-parameters (2018).
    """

    def __init__(self, warm_up: float = 0.2, start: float = 0.04, end: float = 1e-4):
        super().__init__(warm_up, start, end)


class Steps(Schedule):
    """A cut of the learning rate after each of some shares of the run.

    Parameters
    ----------
    at : tuple of float
        Shares of the steps after which the rate is cut.
    factor : float
        What it is multiplied by.
    """

    def __init__(self, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1):
        self.at = tuple(_share("at", share) for share in at)
        self.cut = _share("factor", factor)

    def factor(self, progress):
        return self.cut ** sum(progress >= share for share in self.at)


class ReduceOnPlateau(Schedule):
    """A cut of the learning rate whenever the loss has stopped falling.

    Parameters
    ----------
    patience : int
        Epochs without a new lowest loss before a cut.
    factor : float
        What the learning rate is multiplied by.
    minimum : float
        The factor does not fall below this.
    """

    def __init__(self, patience: int = 2, factor: float = 0.5, minimum: float = 1e-3):
        self.patience = check_int(patience, "patience", 0)
        self.cut, self.minimum = check_number(factor, "factor"), check_number(minimum, "minimum")
        if not 0 < self.cut < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor!r}")
        self._factor, self._lowest, self._waited = 1.0, math.inf, 0

    def factor(self, progress):
        return self._factor

    def epoch_ended(self, loss):
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self._factor = max(self._factor * self.cut, min(self.minimum, self._factor))
            self._waited = 0

    def state(self):
        return {"factor": self._factor, "lowest": self._lowest, "waited": self._waited}

    def set_state(self, state):
        self._factor, self._lowest = float(state["factor"]), float(state["lowest"])
        self._waited = int(state["waited"])


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "plateau": ReduceOnPlateau,
    "step": Steps,
}
