"""The choice between the memory layouts of activations."""

import numpy as np

from kernels.numba_backend.packed.layout import simd_width

# Measured on an AMD EPYC with Zen 3 cores (AVX2: 8 lanes of float32), float32. Each figure is the
# time with packed images, divided by the time without. `python -m bench.layouts` repeats the first
# two rows of the table on another processor.
#
#     images                                     1            2            4      16      64
#     correlate on plain arrays, packed there
#     and unpacked, or channels-last     1.2 - 2.2    1.1 - 1.9    1.0 - 1.3  .6 - 1.0  .6 - .8
#     pooling on plain arrays            2.2 - 3.4    1.8 - 3.1    1.6 - 3.0  .5 - 2.3  .6 - 1.3
#     prediction, small network                  -          1.5          1.2       -       -
#     prediction, wide network                   -          2.4          1.3       -       -
#
# Prediction of 6 images takes 0.9 of the time with packed images. Batch normalization, activations
# and their gradients on plain arrays take 1.1 to 8 times as long when packed there, and so does
# max_pool_grad: they stay plain. The gradients of a correlation have packed kernels only. From 16
# images on these take 0.15 to 0.6 of the time of plain kernels, and 2 to 2.5 times as long for one
# image of few channels.


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
        gradients, `channels_last` has kernels for up to half a block of images.
    """
    return N > 0 and (training or simd_width(dtype) < 2 * N)
