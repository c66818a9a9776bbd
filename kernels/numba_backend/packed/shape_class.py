"""Classes of correlations for which `runtime.tuning` measures the same choice."""

from typing import NamedTuple

import numpy as np

from kernels.geometry import Window
from kernels.numba_backend.simd.pixels import PAIR_DTYPE


class ShapeClass(NamedTuple):
    """What the times of the candidates depend on. Its text is a key in files of choices.

    ``amount`` and ``unit`` say how many images are meant. In the packed layout, the number of
    blocks is rounded down to 1, 2 or 4, and to what is measured: a last batch of an epoch, which
    is smaller than the others, is rarely measured anew.
    """

    window: Window
    w_shape: tuple[int, ...]
    groups: int
    storage: np.dtype  # of the activations: its name would take longer to find than the choice
    unit: str
    amount: int

    def __str__(self) -> str:
        (F, channels, KH, KW), window = self.w_shape, self.window
        H, W = window.image
        precision = "bfloat16" if self.storage == PAIR_DTYPE else self.storage.name
        return (
            f"{channels * self.groups}x{H}x{W}, {F} filters {KH}x{KW}, stride {window.stride}, "
            f"padding {window.padding}, dilation {window.dilation}, groups {self.groups}, "
            f"{precision}, {self.unit} {self.amount}"
        )
