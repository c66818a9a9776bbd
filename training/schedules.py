"""How the learning rate changes while a model trains."""

from kernels.geometry import integer
from training.optimizers import Optimizer


class ReduceOnPlateau:
    """Cut the learning rate when the loss has stopped falling.

    Parameters
    ----------
    patience : int
        Epochs without a new lowest loss before a cut.
    factor : float
        What the learning rate is multiplied by.
    minimum : float
        The learning rate is not cut below this.
    """

    def __init__(self, patience: int = 2, factor: float = 0.5, minimum: float = 1e-6):
        self.patience = integer(patience, "patience", 0)
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor!r}")
        self.factor, self.minimum = float(factor), float(minimum)
        self._lowest, self._waited = float("inf"), 0

    def epoch_ended(self, optimizer: Optimizer, loss: float) -> None:
        """Take note of an epoch's loss, on the validation images where there are some."""
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            lower = max(optimizer.learning_rate * self.factor, self.minimum)
            optimizer.learning_rate = min(optimizer.learning_rate, lower)
            self._waited = 0
