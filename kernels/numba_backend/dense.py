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
from kernels.numba_backend.runtime.capture import in_step, launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.activation_kernels import activate_row
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, masked_load, store
from kernels.numpy_backend.activations import evaluate

MAX_VECTORS = 8  # of columns in a tile
ROW_BLOCK = 64  # rows of a task
MIN_PACKED_TILES = 5  # of rows: fewer read the columns of b too rarely for packing to pay
# A long sum of few tasks is divided into parts, each of which reads whole rows of b: on 2 threads,
# 1.6 MB of weights that were no longer in the second-level cache took 27 us, and 42 us when divided
# by columns instead. The parts do not depend on the number of threads, so that no bit of a result
# does.
MAX_PARTS, MIN_SIZE, MIN_TASKS = 8, 1 << 17, 64


@parallel
def _matmul(
    a, a_strides, a_offsets, b, b_strides, b_offsets, scale, bias, activation, tile_activation,
    sizes, parts, tile, pack, final, sums, out,
):  # fmt: skip
    """out[i] (N, M) = the activation of scale * (a[i % groups] (N, K) @ b[i] (K, M)) + bias.

    A task multiplies a block of rows of a by a panel of columns of b. It may pack the panel first:
    the rows of a packed panel are neighbors in memory, and zeros fill the last vector. The last
    panel overlaps the one before it. The tasks write to sums (products * parts, N, M or more).
    These are out (``final``), or else they are added up at the end. ``tile_activation`` is the
    activation where they are final, and else the identity.
    """
    products, groups, N, K, M = sizes
    (ROWS, COLUMNS), L = tile, VECTOR_BYTES // b.itemsize
    width = COLUMNS * L
    blocks, panels = (N + ROW_BLOCK - 1) // ROW_BLOCK, (M + width - 1) // width
    sums_flat, sums_row = sums.reshape(-1), sums.shape[2]
    factor, shift = scale, bias
    if not final:
        factor, shift = np.ones(sums_row, b.dtype), np.zeros(sums_row, b.dtype)
    for task in prange(products * parts * blocks * panels):
        m = max(0, min(task % panels * width, M - width))
        block = task // panels % blocks
        part = task // (panels * blocks) % parts
        i = task // (panels * blocks * parts)
        first, last = part * K // parts, (part + 1) * K // parts
        panel, panel0 = b, i * b_strides[0] + first * b_strides[1] + m * b_strides[2]
        if pack:
            panel = np.empty((last - first) * width, b.dtype)
            if b_strides[2] == 1:
                for k in range(last - first):
                    for v in range(0, width, L):
                        numbers = masked_load(b, panel0 + k * b_strides[1] + v, M - m - v)
                        store(panel, k * width + v, numbers)
            else:
                transpose_padded(
                    b, panel0, b_strides[2], min(width, M - m), last - first, panel, 0, width
                )
            panel0 = 0
        for row in range(block * N // blocks, (block + 1) * N // blocks, ROWS):
            n = min(row, N - ROWS)
            outer_product_tile_of_columns(
                panel, panel0, b_offsets, L,
                a, i % groups * a_strides[0] + n * a_strides[1] + first * a_strides[2], a_offsets,
                a_strides[1], last - first, factor, shift, m, tile_activation,
                sums_flat, ((i * parts + part) * N + n) * sums_row + m, sums_row, L, ROWS, COLUMNS,
            )  # fmt: skip
    if not final:
        for row in prange(products * N):
            i, n = row // N, row % N
            totals = np.zeros(M)
            for part in range(parts):
                for m in range(M):
                    totals[m] += sums[i * parts + part, n, m]
            for m in range(M):
                out[i, n, m] = b.dtype.type(totals[m]) * scale[m] + bias[m]
            activate_row(out[i, n], activation)


def _in_memory(x):
    """Return contiguous matrices (or transposed ones) as a flat array, with their strides."""
    flat = x if x.flags.c_contiguous else x.swapaxes(1, 2)
    return flat.reshape(-1), tuple(stride // x.itemsize for stride in x.strides)


def matmul(a, b, out, scale=None, bias=None, activation=None):
    """Write the activation of scale * (a @ b) + bias to out; scale and bias are those of columns.

    a is (groups, N, K), b (products, K, M) and out (products, N, M): product i takes a[i % groups].
    The matrices of a and b may be transposed ones of contiguous arrays.
    """
    (groups, N, K), (products, _, M), dtype = a.shape, b.shape, b.dtype
    scale, bias = scale_and_bias(scale, bias, M, dtype)
    if 0 in (products, N, K, M):
        out[:] = evaluate(validation.check_activation(activation, dtype), bias)
        return
    activation, identity = activation_argument(activation, dtype), activation_argument(None, dtype)
    L = simd_width(dtype)
    ROWS, COLUMNS = tile = outer_product_tile_shape(N, min(MAX_VECTORS, -(-M // L)))
    width = COLUMNS * L
    tasks = products * -(-N // ROW_BLOCK) * -(-M // width)
    parts = max(1, min(MAX_PARTS, MIN_TASKS // tasks, K)) if K * M > MIN_SIZE else 1
    (a_flat, a_strides), (b_flat, b_strides) = _in_memory(a), _in_memory(b)
    narrow = width > M
    final = parts == 1 and not narrow
    pack = -(-N // ROWS) >= MIN_PACKED_TILES or b_strides[2] != 1 or narrow
    sums = out if final else empty((products * parts, N, max(M, width)), dtype)
    launch(
        _matmul, a_flat, a_strides, strided_offsets(K, a_strides[2]),
        b_flat, b_strides, strided_offsets(K, width if pack else b_strides[1]),
        scale, bias, activation, activation if final else identity,
        (products, groups, N, K, M), parts, tile, pack, final, sums, out,
    )  # fmt: skip


def dense(x, w, b=None, scale=None, activation=None):
    if not in_step():
        return numpy_backend.dense(x, w, b, scale, activation)
    x, checked_w = validation.check_dense(x, w)
    w = checks.check_capturable(checked_w, w)
    scale, b = checks.check_scale_and_bias(scale, b, w.shape[1], x.dtype)
    activation = validation.check_activation(activation, x.dtype)
    y = np.empty((len(x), w.shape[1]), x.dtype)
    matmul(x[None], w[None], y[None], scale, b, activation)
    return y
