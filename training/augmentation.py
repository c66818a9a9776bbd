"""More training images out of those that there are."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kernels.geometry import integer


class ShiftAugmenter:
    """Each epoch shows every image as it is and ``ratio - 1`` shifted copies of it.

    The shifts are drawn anew for each copy, up to ``max_shift`` pixels in both directions;
    the border's pixels are repeated into the gap, so that a white page stays white.

    Parameters
    ----------
    ratio : int
        How many times an epoch passes over the images.
    max_shift : int
        In pixels.
    """

    def __init__(self, ratio: int = 4, max_shift: int = 2):
        self.ratio = integer(ratio, "ratio", 1)
        self.max_shift = integer(max_shift, "max_shift", 0)

    def take(self, images: np.ndarray, entries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a batch.

        Parameters
        ----------
        images : (N, C, H, W)
        entries : (B,) of int below ratio * N
            Entry e is image e % N; from N on, it is shifted.
        """
        N, _, H, W = images.shape
        batch = images[entries % N]
        shifted = np.flatnonzero(entries >= N)
        reach = self.max_shift
        padded = np.pad(
            batch[shifted], ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge"
        )
        places = sliding_window_view(padded, (H, W), axis=(2, 3))
        row, column = rng.integers(0, 2 * reach + 1, (2, len(shifted)))
        batch[shifted] = places[np.arange(len(shifted)), :, row, column]
        return batch
