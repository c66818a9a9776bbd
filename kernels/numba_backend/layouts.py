"""The choice between the memory layouts of activations."""

import numpy as np

from kernels.numba_backend.packed.layout import simd_width


def use_packed_layout(N: int, dtype: np.dtype, training: bool) -> bool:
    """Return whether N images should be packed: one image in each SIMD lane.

    Parameters
    ----------
    N : int
        The number of images. The packed layout has whole blocks of `simd_width` images, and a
        kernel takes as long for a partly filled block as for a full one.
    dtype : numpy.dtype
    training : bool
        Whether gradients follow. All kernels of a training step exist only for packed
        activations, so that a step can be captured whatever the number of images is. Without
        gradients, `channels_last` has kernels for fewer images than half a block.
    """
    return N > 0 and (training or simd_width(dtype) <= 2 * N)
