"""Copies that move whole vectors."""

from kernels.numba_backend.runtime.compiler import inlined, serial
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    load,
    splat,
    store,
    transpose,
)


@inlined
def copy_row(x, x0, out, out0, count):
    """Copy neighboring numbers by whole vectors, of which the last overlaps the one before it.

    The vector loop that LLVM makes of a plain loop takes longer to start.
    """
    L = VECTOR_BYTES // x.itemsize
    if count >= L:
        for p in range(0, count - L, L):
            store(out, out0 + p, load(x, x0 + p))
        store(out, out0 + count - L, load(x, x0 + count - L))
    else:
        for p in range(count):
            out[out0 + p] = x[x0 + p]


@inlined
def copy_padded_rows(x, plane, H, W, top, left, rows, width, L, padded_rows):
    """padded_rows (rows, width, L) = plane (H, W, L) of x from (top, left) on; 0 outside of it."""
    zero = splat(x.dtype.type(0))
    first = min(max(0, -left), width)
    stop = max(first, min(width, W - left))
    for r in range(rows):
        i, dst_offset = top + r, r * width
        is_inside = 0 <= i < H
        for j in range(first if is_inside else width):
            store(padded_rows, (dst_offset + j) * L, zero)
        if is_inside:
            src_offset = (plane * H + i) * W + left
            for j in range(first, stop):
                store(padded_rows, (dst_offset + j) * L, load(x, (src_offset + j) * L))
            for j in range(stop, width):
                store(padded_rows, (dst_offset + j) * L, zero)


@serial
def transpose_padded(x, x0, x_row, rows, columns, out, out0, out_row):
    """Write a matrix (rows, columns) that begins at x[x0] to out as (columns, whole vectors).

    Zeros follow the rows in the last vector.
    """
    L, zero = VECTOR_BYTES // x.itemsize, splat(x.dtype.type(0))
    for r in range(0, rows, L):
        for c in range(0, columns, L):
            if r + L <= rows and c + L <= columns:
                transpose(x, x0 + r * x_row + c, x_row, out, out0 + c * out_row + r, out_row)
            else:
                for k in range(c, min(c + L, columns)):
                    column = gather_strided(x, x0 + r * x_row + k, x_row, 0, rows - r, zero)
                    store(out, out0 + k * out_row + r, column)
