"""The fully connected layer on plain arrays.

A call on its own leaves the product to BLAS, through NumPy. In the captured steps of a model it is
a kernel of this module: a call of BLAS cannot be captured, and OpenBLAS threads spin after a
product and compete with Numba's for the cores. On 2 cores the kernel that followed a product took
about 1 ms longer.
"""

import numpy as np
from numba import prange

from kernels import numpy_backend, validation
from kernels.numba_backend.packed import checks
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import in_step, invalidate_capture, launch
from kernels.numba_backend.runtime.compiler import SizedKernel, serial
from kernels.numba_backend.simd.activation_kernels import activate_row
from kernels.numba_backend.simd.activations import activate, activation_argument
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    load,
    masked_load,
    masked_store,
    splat,
    store,
)
from kernels.numpy_backend.dense import MAX_SUM_TERMS

MAX_VECTORS = 8  # of columns in a tile
# A long sum of few tasks is divided into parts, each of which reads whole rows of w: on 2 threads,
# 1.6 MB of weights that were no longer in the second-level cache took 27 us, and 42 us when divided
# by columns instead. The parts do not depend on the number of threads, so that no bit of a result
# does.
MAX_PARTS, MIN_SIZE, MIN_TASKS = 8, 1 << 17, 64


@SizedKernel
def _dense(
    x, x_offsets, w, w_offsets, scale, bias, activation, tile, parts, narrow, sums
):  # fmt: skip
    """sums (parts, N, M or more) = the activation of scale * (x (N, K) @ w (K, M)) + bias.

    A task multiplies all rows of x by a panel of columns of w, over one part of the K terms. A
    narrow w has fewer columns than a panel: it is copied first, with zeros that fill the last
    vector. The last panel overlaps the one before it.
    """
    (N, K), M = x.shape, w.shape[1]
    (ROWS, COLUMNS), L = tile, VECTOR_BYTES // w.itemsize
    width = COLUMNS * L
    panels = (M + width - 1) // width
    x_flat, w_flat, sums_flat, sums_row = (
        x.reshape(-1),
        w.reshape(-1),
        sums.reshape(-1),
        sums.shape[2],
    )
    for task in prange(parts * panels):
        m = max(0, min(task % panels * width, M - width))
        part = task // panels
        first, last = part * K // parts, (part + 1) * K // parts
        panel, panel0 = w_flat, first * M + m
        if narrow:
            panel, panel0 = np.empty((last - first) * width, w.dtype), 0
            for k in range(last - first):
                for v in range(0, width, L):
                    numbers = masked_load(w_flat, (first + k) * M + v, M - v)
                    store(panel, k * width + v, numbers)
        for row in range(0, N, ROWS):
            n = min(row, N - ROWS)
            outer_product_tile_of_columns(
                panel, panel0, w_offsets, L, x_flat, n * K + first, x_offsets, K, last - first,
                scale, bias, m, activation,
                sums_flat, (part * N + n) * sums_row + m, sums_row, L, ROWS, COLUMNS,
            )  # fmt: skip


@SizedKernel
def _add_parts(sums, scale, bias, activation, y):
    """y (N, M) = the activation of scale * (the total of the parts of sums) + bias."""
    N, M = y.shape
    for n in prange(N):
        totals = np.zeros(M)
        for part in range(sums.shape[0]):
            for m in range(M):
                totals[m] += sums[part, n, m]
        for m in range(M):
            y[n, m] = sums.dtype.type(totals[m]) * scale[m] + bias[m]
        activate_row(y[n], activation)


@serial
def _narrow_dense(x, w, scale, bias, activation, y):
    """y (N, M) = the activation of scale * (x (N, K) @ w (K, M)) + bias, M at most a vector.

    A vector holds a row of w and the numbers behind it, which nobody reads. Only the last rows of
    w, behind which its memory may end, are loaded by a mask.
    """
    (N, K), M, L = x.shape, w.shape[1], VECTOR_BYTES // w.itemsize
    w_flat, y_flat = w.reshape(-1), y.reshape(-1)
    safe = max(0, K - (L + M - 1) // M)
    factor, shift = masked_load(scale, 0, M), masked_load(bias, 0, M)
    for n in range(N):
        acc0 = splat(w.dtype.type(0))
        acc1, acc2, acc3 = acc0, acc0, acc0  # one alone would wait for each multiply-add
        for k in range(0, safe - 3, 4):
            acc0 += splat(x[n, k]) * load(w_flat, k * M)
            acc1 += splat(x[n, k + 1]) * load(w_flat, (k + 1) * M)
            acc2 += splat(x[n, k + 2]) * load(w_flat, (k + 2) * M)
            acc3 += splat(x[n, k + 3]) * load(w_flat, (k + 3) * M)
        for k in range(safe // 4 * 4, K):
            acc0 += splat(x[n, k]) * masked_load(w_flat, k * M, M)
        value = (acc0 + acc1 + (acc2 + acc3)) * factor + shift
        masked_store(y_flat, n * M, activate(value, activation), M)


def dense(x, w, b=None, scale=None, activation=None):
    if not in_step():
        return numpy_backend.dense(x, w, b, scale, activation)
    x, checked_w = validation.check_dense(x, w)
    w, dtype = checks.check_capturable(checked_w, w), x.dtype
    (N, K), M = x.shape, w.shape[1]
    if 0 in (N, K, M):
        invalidate_capture()
        return numpy_backend.dense(x, w, b, scale, activation)
    scale, b = scale_and_bias(*checks.check_scale_and_bias(scale, b, M, dtype), M, dtype)
    activation, identity = activation_argument(activation, dtype), activation_argument(None, dtype)
    y = np.empty((N, M), dtype)
    if simd_width(dtype) >= M and K <= MAX_SUM_TERMS:
        launch(_narrow_dense, x, w, scale, b, activation, y)
        return y
    tile = outer_product_tile_shape(N, min(MAX_VECTORS, -(-M // simd_width(dtype))))
    width = tile[1] * simd_width(dtype)
    narrow = width > M
    parts = max(1, min(MAX_PARTS, MIN_TASKS // -(-M // width), K)) if K * M > MIN_SIZE else 1
    work = K * M * max(N, 4)  # a weight from the cache takes as long as four multiply-adds
    arguments = x, strided_offsets(K, 1), w, strided_offsets(K, width if narrow else M)
    if parts == 1 and not narrow:
        launch(
            _dense.for_work(work), *arguments, scale, b, activation, tile, parts, narrow,
            y[np.newaxis],
        )  # fmt: skip
        return y
    sums = empty((parts, N, max(M, width)), dtype)
    launch(
        _dense.for_work(work), *arguments, *scale_and_bias(None, None, sums.shape[2], dtype),
        identity, tile, parts, narrow, sums,
    )  # fmt: skip
    launch(_add_parts.for_work(sums.size), sums, scale, b, activation, y)
    return y
