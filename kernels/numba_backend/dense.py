"""Matrix products and the fully connected layer on plain arrays."""

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.packed.dense import scale_and_bias, terms
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, masked_load, store
from kernels.numpy_backend.dense import flatten, flatten_grad
from kernels.scalars import check_bool

MAX_VECTORS = 8  # of columns in a tile
ROW_BLOCK = 64  # rows of a task
# A long sum with few tasks is cut into parts, in which the rows of b are read from beginning to
# end: 1.6 MB of weights that no longer were in the second-level cache took 42 us by columns on 2
# threads, and so 27. The parts do not depend on the number of threads, and so no bit does.
PARTS, MIN_SIZE, MIN_TASKS = 16, 1 << 17, 64

__all__ = ["dense", "dense_grad", "flatten", "flatten_grad", "matmul"]


@parallel
def _matmul(
    a, a_strides, a_offsets, b, b_strides, b_offsets, scale, bias, negative_slope, sizes, parts,
    tile, pack, sums, out,
):  # fmt: skip
    """out[i] (N, M) = leaky ReLU of scale * (a[i % groups] (N, K) @ b[i] (K, M)) + bias.

    A task multiplies a block of rows of a by a panel of columns of b, which is packed first: its
    rows are then neighbours in memory, and zeros fill its last vector. The tasks write to out, or
    to sums (products * parts, N, M or more), which are added up at the end.
    """
    products, groups, N, K, M = sizes
    (ROWS, COLUMNS), L = tile, VECTOR_BYTES // b.itemsize
    width = COLUMNS * L
    blocks, panels = (N + ROW_BLOCK - 1) // ROW_BLOCK, (M + width - 1) // width
    final = sums.size == 0
    target = out.reshape(-1) if final else sums.reshape(-1)
    row_length = max(M, width)
    ones, zeros = np.ones(row_length, b.dtype), np.zeros(row_length, b.dtype)
    factor, shift = (scale, bias) if final else (ones, zeros)
    slope = negative_slope if final else b.dtype.type(1)
    for task in prange(products * parts * blocks * panels):
        m = max(0, min(task % panels * width, M - width))
        block = task // panels % blocks
        part = task // (panels * blocks) % parts
        i = task // (panels * blocks * parts)
        first, last = part * K // parts, (part + 1) * K // parts
        columns, start = b, i * b_strides[0] + first * b_strides[1] + m * b_strides[2]
        if pack:
            columns = np.empty((last - first) * width, b.dtype)
            if b_strides[2] == 1:
                for k in range(last - first):
                    for v in range(0, width, L):
                        numbers = masked_load(b, start + k * b_strides[1] + v, M - m - v)
                        store(columns, k * width + v, numbers)
            else:
                transpose_padded(
                    b, start, b_strides[2], min(width, M - m), last - first, columns, 0, width
                )
            start = 0
        for row in range(block * N // blocks, (block + 1) * N // blocks, ROWS):
            n = min(row, N - ROWS)
            outer_product_tile_of_columns(
                columns, start, b_offsets, L,
                a, i % groups * a_strides[0] + n * a_strides[1] + first * a_strides[2], a_offsets,
                a_strides[1], last - first, factor, shift, m, slope,
                target, ((i * parts + part) * N + n) * row_length + m, row_length, L, ROWS, COLUMNS,
            )  # fmt: skip
    if not final:
        for row in prange(products * N):
            i, n = row // N, row % N
            for m in range(M):
                total = 0.0
                for part in range(parts):
                    total += np.float64(sums[i * parts + part, n, m])
                value = b.dtype.type(total) * scale[m] + bias[m]
                out[i, n, m] = value if value > 0 else value * negative_slope


def _in_memory(x):
    """Return contiguous matrices (or transposed ones) as a flat array, with their strides."""
    flat = x if x.flags.c_contiguous else x.swapaxes(1, 2)
    return flat.reshape(-1), tuple(stride // x.itemsize for stride in x.strides)


def matmul(a, b, out, scale=None, bias=None, negative_slope=1.0):
    """Write leaky ReLU of scale * (a @ b) + bias to out; scale and bias are those of columns.

    a is (groups, N, K), b (products, K, M) and out (products, N, M): product i takes a[i % groups].
    The matrices of a and b may be transposed ones of contiguous arrays.
    """
    (groups, N, K), (products, _, M), dtype = a.shape, b.shape, b.dtype
    scale, bias = scale_and_bias(scale, bias, M, dtype)
    negative_slope = dtype.type(negative_slope)
    if 0 in (products, N, K, M):
        out[:] = np.where(bias > 0, bias, bias * negative_slope)
        return
    L = simd_width(dtype)
    ROWS, COLUMNS = tile = outer_product_tile_shape(N, min(MAX_VECTORS, -(-M // L)))
    width = COLUMNS * L
    tasks = products * -(-N // ROW_BLOCK) * -(-M // width)
    parts = min(PARTS, K) if K * M > MIN_SIZE and tasks < MIN_TASKS else 1
    (a_flat, a_strides), (b_flat, b_strides) = _in_memory(a), _in_memory(b)
    narrow = width > M
    pack = N > ROWS or b_strides[2] != 1 or narrow
    sums = (products * parts, N, max(M, width)) if parts > 1 or narrow else (0, 0, 0)
    launch(
        _matmul, a_flat, a_strides, terms(K, a_strides[2]),
        b_flat, b_strides, terms(K, width if pack else b_strides[1]),
        scale, bias, negative_slope, (products, groups, N, K, M), parts, tile,
        pack, empty(sums, dtype), out,
    )  # fmt: skip


def dense(x, w, b=None, scale=None, negative_slope=1.0):
    x, w = validation.check_dense(x, w)
    scale, b = validation.check_scale_and_bias(scale, b, w.shape[1], x.dtype)
    negative_slope = validation.check_negative_slope(negative_slope, x.dtype)
    y = np.empty((len(x), w.shape[1]), x.dtype)
    matmul(x[None], w[None], y[None], scale, b, negative_slope)
    return y


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = validation.check_dense(x, w)
    dy = validation.check_matrix(dy, "dy", x.dtype)
    validation.check_shape(dy, "dy", (len(x), w.shape[1]))
    need_dx = check_bool(need_dx, "need_dx")
    out = validation.check_out(out, (w.shape, w.shape[1:]), (w,))
    dw, db = allocate_outputs(out, (w.shape, w.shape[1:]), w.dtype)
    matmul(x.T[None], dy[None], dw[None])
    db[:] = dy.sum(axis=0, dtype=np.float64)
    if not need_dx:
        return None, dw, db
    dx = np.empty_like(x)
    matmul(dy[None], w.T[None], dx[None])
    return dx, dw, db
