"""The transforms of Winograd's minimal filtering F(4x4, 3x3), on vectors.

`packed.winograd` explains the method. Its matrices follow from the points 0, P, -P, Q, -Q and
infinity. The functions of a line below are products with these matrices, in which a pair of
opposite points shares the even and the odd part of its two rows. They take whatever can be added
and multiplied by numbers: NumPy's in the tests, registers in the code that is emitted.

Points of about 1 keep the rounding errors small. The root mean square of the error of a sum over 64
channels of normally distributed numbers, in units of that of the sum, is 4.2e-7 for the direct sum
in float32, 8.1e-7 for the points 0.75 and 1.5, and 1.7e-6 for the common ones, 1 and 2.

References
----------
Lavin, Gray: Fast algorithms for convolutional neural networks (2016).
Barabasz, Anderson, Soodhalter, Gregg: Error analysis and improving the accuracy of Winograd
convolution for deep neural networks (2020).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_backend.runtime.compiler import FASTMATH
from kernels.numba_backend.simd.bfloat16 import emit_widen, pair_vector
from kernels.numba_backend.simd.codegen import (
    INT,
    data_pointer,
    emit_load,
    emit_prefetch,
    emit_store,
    vector_pointer,
)
from kernels.numba_backend.simd.vectors import full_vector

P, Q = 0.75, 1.5
A, B = P * P, Q * Q
# The values of 1 / (the product of a point's differences to the other points).
SCALE_0, SCALE_P, SCALE_Q = 1 / (A * B), 1 / (2 * A * (A - B)), 1 / (2 * B * (B - A))

OUTPUTS = 4  # rows and columns of the outputs of a patch
SIZE = OUTPUTS + 2  # rows and columns of a patch
ELEMENTS = SIZE * SIZE


def input_line(d0, d1, d2, d3, d4, d5):
    """Return B' of a line of a patch."""
    even_p, odd_p = d4 - d2 * B, (d3 - d1 * B) * P
    even_q, odd_q = d4 - d2 * A, (d3 - d1 * A) * Q
    return [
        d4 - d2 * (A + B) + d0 * (A * B),
        even_p + odd_p,
        even_p - odd_p,
        even_q + odd_q,
        even_q - odd_q,
        d5 - d3 * (A + B) + d1 * (A * B),
    ]


def filter_line(g0, g1, g2):
    """Return G of a line of a filter."""
    even_p, odd_p = g0 * SCALE_P + g2 * (A * SCALE_P), g1 * (P * SCALE_P)
    even_q, odd_q = g0 * SCALE_Q + g2 * (B * SCALE_Q), g1 * (Q * SCALE_Q)
    return [
        g0 * SCALE_0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g2
    ]  # fmt: skip


def output_line(m0, m1, m2, m3, m4, m5):
    """Return A' of a line of products."""
    even_p, odd_p = m1 + m2, (m1 - m2) * P
    even_q, odd_q = m3 + m4, (m3 - m4) * Q
    return [
        m0 + even_p + even_q, odd_p + odd_q, even_p * A + even_q * B, m5 + odd_p * A + odd_q * B
    ]  # fmt: skip


def gradient_line(y0, y1, y2, y3):
    """Return A of a line of the gradient of the outputs."""
    even_p, odd_p = y0 + y2 * A, (y1 + y3 * A) * P
    even_q, odd_q = y0 + y2 * B, (y1 + y3 * B) * Q
    return [y0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, y3]


def sum_line(s0, s1, s2, s3, s4, s5):
    """Return G' of a line of the gradient of a transformed filter."""
    even_p, odd_p = (s1 + s2) * SCALE_P, (s1 - s2) * (P * SCALE_P)
    even_q, odd_q = (s3 + s4) * SCALE_Q, (s3 - s4) * (Q * SCALE_Q)
    return [s0 * SCALE_0 + even_p + even_q, odd_p + odd_q, even_p * A + even_q * B + s5]


def transform(line, rows):
    """Return M X M', as a list of rows, where ``line`` is the product with M and X are rows."""
    columns = [line(*column) for column in zip(*[line(*row) for row in rows], strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


class _Register:
    """A vector in the code under construction, with the operators that the lines need."""

    def __init__(self, builder, value):
        self._builder, self.value = builder, value

    def _emit(self, name, value):
        operation = getattr(self._builder, name)
        return _Register(self._builder, operation(self.value, value, flags=tuple(FASTMATH)))

    def __add__(self, other):
        return self._emit("fadd", other.value)

    def __sub__(self, other):
        return self._emit("fsub", other.value)

    def __mul__(self, number):
        vector = self.value.type
        return self._emit("fmul", ir.Constant(vector, [number] * vector.count))


def _strided(builder, start, stride, count):
    """Return the offsets start + i * stride of i < count."""
    return [builder.add(start, builder.mul(stride, ir.Constant(INT, i))) for i in range(count)]


def _emit_transform(builder, line, rows, store):
    """Call ``store`` with the number and the value of each element of a transform."""
    registers = [[_Register(builder, value) for value in row] for row in rows]
    elements = [element for row in transform(line, registers) for element in row]
    for i, element in enumerate(elements):
        store(i, element.value)


def _grid_offsets(builder, start, row_stride, column_stride, size):
    return [
        _strided(builder, row, column_stride, size)
        for row in _strided(builder, start, row_stride, size)
    ]


def _emit_stores(builder, pointer, start, stride):
    """Return a function that stores element i to start + i * stride."""

    def store(i, value):
        offset = builder.add(start, builder.mul(stride, ir.Constant(INT, i)))
        emit_store(builder, value, pointer, offset)

    return store


def _emit_padded_patch(builder, pointer, vector, plane, shape, top, left, next_plane):
    """Return rows of the pixels of a patch of a plane (H, W), with zeros outside of the plane.

    The pixels in the same places are asked for ``next_plane`` elements later.
    """
    H, W = shape
    lanes = ir.Constant(INT, vector.count)
    row_stride = builder.mul(W, lanes)
    zeros = cgutils.global_constant(builder, "zeros", ir.Constant(vector, None))
    columns = _strided(builder, left, ir.Constant(INT, 1), SIZE)
    are_columns = [builder.icmp_unsigned("<", column, W) for column in columns]
    rows = []
    for i in _strided(builder, top, ir.Constant(INT, 1), SIZE):
        is_row = builder.icmp_unsigned("<", i, H)
        # A row outside of the plane is not read. What is asked for instead is near.
        start = builder.mul(builder.select(is_row, i, ir.Constant(INT, 0)), row_stride)
        row = builder.gep(pointer, [builder.add(plane, start)])
        pixels = []
        for j, is_column in zip(columns, are_columns, strict=True):
            offset = builder.mul(j, lanes)
            pixel = vector_pointer(builder, vector, row, offset)
            is_inside = builder.and_(is_row, is_column)
            value = builder.load(builder.select(is_inside, pixel, zeros))
            value.align = 1
            pixels.append(value)
            emit_prefetch(builder, row, builder.add(next_plane, offset), 0, 3)
        rows.append(pixels)
    return rows


@intrinsic
def transform_padded_patch(
    typing, x, plane, shape, top, left, next_plane, out, out_start, out_stride, channel_stride
):
    """Write the 36 elements of B' d B of each channel, where d is a patch of a plane of x.

    The plane begins at offset ``plane`` and has the shape (H, W). The patch begins at (top, left),
    and what lies outside of the plane is 0. Element u of the first channel is the vector at
    ``out_start + u * out_stride`` of out, and that of the second one, in bfloat16, lies
    ``channel_stride`` behind it. The pixels ``next_plane`` elements behind those of the patch are
    prefetched.
    """

    def codegen(context, builder, signature, args):
        (
            x, plane, shape, top, left, next_plane, out, out_start, out_stride, channel_stride
        ) = args  # fmt: skip
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[6], out)
        vector = context.get_value_type(full_vector(signature.args[6].dtype))
        is_paired = signature.args[0].dtype == types.uint32
        rows = _emit_padded_patch(
            builder, x_pointer, pair_vector(vector.count) if is_paired else vector, plane,
            cgutils.unpack_tuple(builder, shape), top, left, next_plane,
        )  # fmt: skip
        channels = [rows]
        if is_paired:
            pixels = [[emit_widen(builder, pairs) for pairs in row] for row in rows]
            channels = [[[pixel[k] for pixel in row] for row in pixels] for k in range(2)]
        for rows in channels:
            store = _emit_stores(builder, out_pointer, out_start, out_stride)
            _emit_transform(builder, input_line, rows, store)
            out_start = builder.add(out_start, channel_stride)
        return context.get_dummy_value()

    arguments = (
        x, plane, shape, top, left, next_plane, out, out_start, out_stride, channel_stride
    )  # fmt: skip
    return types.void(*arguments), codegen


def _transform_vectors(line, size):
    """Return an intrinsic that transforms ``size`` x ``size`` vectors of an array."""

    @intrinsic
    def transform_vectors(typing, x, start, row_stride, column_stride, out, out_start, out_stride):
        def codegen(context, builder, signature, args):
            x, start, row_stride, column_stride, out, out_start, out_stride = args
            x_pointer = data_pointer(context, builder, signature.args[0], x)
            out_pointer = data_pointer(context, builder, signature.args[4], out)
            vector = context.get_value_type(full_vector(signature.args[0].dtype))
            rows = [
                [emit_load(builder, vector, x_pointer, offset) for offset in row]
                for row in _grid_offsets(builder, start, row_stride, column_stride, size)
            ]
            store = _emit_stores(builder, out_pointer, out_start, out_stride)
            _emit_transform(builder, line, rows, store)
            return context.get_dummy_value()

        arguments = x, start, row_stride, column_stride, out, out_start, out_stride
        return types.void(*arguments), codegen

    return transform_vectors


# Each takes (x, start, row_stride, column_stride, out, out_start, out_stride): the vectors of x lie
# at start + i * row_stride + j * column_stride, and element u of the transform is written to
# out_start + u * out_stride.
transform_patch = _transform_vectors(input_line, SIZE)
transform_filter = _transform_vectors(filter_line, 3)
transform_products = _transform_vectors(output_line, SIZE)
transform_gradient = _transform_vectors(gradient_line, OUTPUTS)
transform_sums = _transform_vectors(sum_line, SIZE)
