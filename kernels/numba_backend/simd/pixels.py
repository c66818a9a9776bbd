"""Loads and stores of activations in either precision, as float vectors.

A plane of float32 or float64 activations is one channel of a block of L images: a vector is one
pixel of them. A plane of bfloat16 activations holds two channels as pairs in 32-bit lanes, an array
of uint32. A pixel of it is a vector of 2 * L float32 numbers: the L images of the first channel,
then those of the second. Kernels that are written with these functions compute either.

Where the number of channels is odd, the last plane has a padding channel. It holds finite numbers
without a meaning, in gradients too, and weights that multiply it are 0.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from kernels.numba_backend.runtime.compiler import inlined
from kernels.numba_backend.simd.bfloat16 import emit_narrow, emit_widen, pair_vector
from kernels.numba_backend.simd.codegen import (
    VECTOR_BYTES,
    call_masked,
    data_pointer,
    emit_load,
    emit_reduce_sum,
    emit_splat,
    emit_store,
    emit_store_first,
    emit_transpose,
    first_lanes,
)
from kernels.numba_backend.simd.vectors import Vector, full_vector

PAIR_DTYPE = np.dtype(np.uint32)  # of arrays that hold pairs of bfloat16 numbers


def _is_paired(array_type) -> bool:
    return array_type.dtype == types.uint32


def pixel_type(array_type) -> Vector:
    """Return the type of a pixel of an array of activations."""
    if _is_paired(array_type):
        return Vector(types.float32, VECTOR_BYTES // 4 * 2)
    return full_vector(array_type.dtype)


def channels_per_plane(x):
    """Return the number of channels in a plane of an array of activations."""
    raise NotImplementedError("only for compiled code")


@overload(channels_per_plane, inline="always")
def _(x):
    count = 2 if _is_paired(x) else 1
    return lambda x: count


def _halves(builder, value):
    """Return the lower and the upper half of a vector's lanes."""
    count = value.type.count // 2
    indices = [list(range(count)), list(range(count, 2 * count))]
    kind = ir.VectorType(ir.IntType(32), count)
    undefined = ir.Constant(value.type, ir.Undefined)
    return [builder.shuffle_vector(value, undefined, ir.Constant(kind, i)) for i in indices]


def _join(builder, first, second):
    """Return the lanes of two vectors in one."""
    kind = ir.VectorType(ir.IntType(32), 2 * first.type.count)
    mask = ir.Constant(kind, list(range(2 * first.type.count)))
    return builder.shuffle_vector(first, second, mask)


@intrinsic
def load_pixel(typing, x, offset):
    """Return the pixel at an offset."""
    kind = pixel_type(x)

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        if not _is_paired(x):
            return emit_load(builder, context.get_value_type(kind), pointer, args[1])
        pairs = emit_load(builder, pair_vector(kind.count // 2), pointer, args[1])
        return _join(builder, *emit_widen(builder, pairs))

    return kind(x, offset), codegen


@intrinsic
def store_pixel(typing, x, offset, value):
    """Write a pixel to an offset, rounded to the precision of the array."""

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        value = args[2]
        if _is_paired(x):
            value = emit_narrow(builder, *_halves(builder, value))
        emit_store(builder, value, pointer, args[1])
        return context.get_dummy_value()

    return types.void(x, offset, value), codegen


@intrinsic
def masked_load_pixel(typing, x, offset, count):
    """Return the pixel at an offset; only ``count`` numbers of the array are read."""
    kind = pixel_type(x)

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        paired = _is_paired(x)
        vector = pair_vector(kind.count // 2) if paired else context.get_value_type(kind)
        pointer = builder.bitcast(builder.gep(pointer, [args[1]]), vector.as_pointer())
        mask = first_lanes(builder, vector.count, args[2])
        value = call_masked(builder, "load", pointer, mask, ir.Constant(vector, None))
        return _join(builder, *emit_widen(builder, value)) if paired else value

    return kind(x, offset, count), codegen


@intrinsic
def masked_store_pixel(typing, x, offset, value, count):
    """Write a pixel to an offset; only ``count`` numbers of the array are written."""

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        value = args[2]
        if _is_paired(x):
            value = emit_narrow(builder, *_halves(builder, value))
        pointer = builder.bitcast(builder.gep(pointer, [args[1]]), value.type.as_pointer())
        emit_store_first(builder, value, pointer, args[3])
        return context.get_dummy_value()

    return types.void(x, offset, value, count), codegen


@intrinsic
def splat_pixel(typing, x, scalar):
    """Return a pixel of the activations x with a scalar in all lanes."""
    kind = pixel_type(x)

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[1], signature.args[1], kind.dtype)
        return emit_splat(builder, context.get_value_type(kind), number)

    return kind(x, scalar), codegen


@intrinsic
def round_to_pixel(typing, x, number):
    """Return a float64 number, rounded to the precision that the activations x are computed in."""
    kind = pixel_type(x).dtype

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[1], types.float64, kind)
        return context.cast(builder, number, kind, types.float64)

    return types.float64(x, types.float64), codegen


@intrinsic
def splat_channels(typing, x, values, plane):
    """Return a pixel of the activations x that holds in each lane the number of its channel.

    ``values`` has one number for each channel. The padding channel gets that of the last one.
    """
    kind = pixel_type(x)
    paired = _is_paired(x)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[1])(context, builder, args[1])
        size = builder.extract_value(array.shape, 0)

        def channel(index):
            number = builder.load(builder.gep(array.data, [index]))
            number = context.cast(builder, number, signature.args[1].dtype, kind.dtype)
            lanes = kind.count // 2 if paired else kind.count
            element = context.get_value_type(kind).element
            return emit_splat(builder, ir.VectorType(element, lanes), number)

        if not paired:
            return channel(args[2])
        first = builder.mul(args[2], ir.Constant(args[2].type, 2))
        second = builder.add(first, ir.Constant(args[2].type, 1))
        has_second = builder.icmp_signed("<", second, size)
        second = builder.select(has_second, second, first)
        return _join(builder, channel(first), channel(second))

    return kind(x, values, plane), codegen


@intrinsic
def load_lane_mask(typing, x, valid_lanes, offset):
    """Return the mask of the lanes of a pixel of x whose image is not padding.

    ``valid_lanes`` is 1 for each image and 0 for each padding lane.
    """
    kind = pixel_type(x)
    paired = _is_paired(x)

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[1], args[1])
        element = context.get_value_type(kind).element
        lanes = ir.VectorType(element, kind.count // 2 if paired else kind.count)
        value = emit_load(builder, lanes, pointer, args[2])
        mask = builder.fcmp_ordered(">", value, ir.Constant(lanes, None))
        return _join(builder, mask, mask) if paired else mask

    return Vector(types.boolean, kind.count)(x, valid_lanes, offset), codegen


@intrinsic
def add_channel_sums(typing, x, value, sums, offset):
    """Add the sum over the images of a pixel of x, for each of its channels, to ``sums``.

    The sums of the channels lie beside each other, in float64.
    """
    paired = _is_paired(x)

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[2], args[2])
        for i, channel in enumerate(_halves(builder, args[1]) if paired else [args[1]]):
            index = builder.add(args[3], ir.Constant(args[3].type, i))
            target = builder.gep(pointer, [index])
            total = emit_reduce_sum(builder, channel)
            if total.type != ir.DoubleType():
                total = builder.fpext(total, ir.DoubleType())
            builder.store(builder.fadd(builder.load(target), total), target)
        return context.get_dummy_value()

    return types.void(x, value, sums, offset), codegen


@intrinsic
def first_channel(typing, pixel):
    """Return the first channel of a pixel of two channels, as a vector."""
    kind = Vector(pixel.dtype, pixel.count // 2)

    def codegen(context, builder, signature, args):
        return _halves(builder, args[0])[0]

    return kind(pixel), codegen


@intrinsic
def second_channel(typing, pixel):
    """Return the second channel of a pixel of two channels, as a vector."""
    kind = Vector(pixel.dtype, pixel.count // 2)

    def codegen(context, builder, signature, args):
        return _halves(builder, args[0])[1]

    return kind(pixel), codegen


@intrinsic
def join_channels(typing, first, second):
    """Return the pixel of two channels."""
    kind = Vector(first.dtype, first.count * 2)

    def codegen(context, builder, signature, args):
        return _join(builder, *args)

    return kind(first, second), codegen


@intrinsic
def load_channels(typing, x, values, offset, stride):
    """Return a pixel of the activations x, of which each channel is a vector of ``values``.

    The second channel, in bfloat16, lies ``stride`` behind the first.
    """
    kind, paired = pixel_type(x), _is_paired(x)

    def codegen(context, builder, signature, args):
        _, values, offset, stride = args
        pointer = data_pointer(context, builder, signature.args[1], values)
        vector = context.get_value_type(full_vector(signature.args[1].dtype))
        first = emit_load(builder, vector, pointer, offset)
        if not paired:
            return first
        return _join(
            builder, first, emit_load(builder, vector, pointer, builder.add(offset, stride))
        )

    return kind(x, values, offset, stride), codegen


@intrinsic
def store_channels(typing, x, pixel, out, offset, stride):
    """Write each channel of a pixel of the activations x as a vector of out.

    The second channel, in bfloat16, is written ``stride`` behind the first.
    """
    paired = _is_paired(x)

    def codegen(context, builder, signature, args):
        _, pixel, out, offset, stride = args
        pointer = data_pointer(context, builder, signature.args[2], out)
        for channel in _halves(builder, pixel) if paired else [pixel]:
            emit_store(builder, channel, pointer, offset)
            offset = builder.add(offset, stride)
        return context.get_dummy_value()

    return types.void(x, pixel, out, offset, stride), codegen


@intrinsic
def transpose_pixel(typing, x, start, plane_stride, out, out_start, out_stride):
    """Write a pixel of as many channels as a vector has lanes, with the channels in the lanes.

    The channels are planes of x, ``plane_stride`` apart. Vector n of out, ``out_start + n *
    out_stride``, holds image n of all channels or, in bfloat16, the pair of images 2 * n and
    2 * n + 1.
    """
    paired = _is_paired(x)
    lanes = VECTOR_BYTES * 8 // x.dtype.bitwidth
    n_vectors = lanes // 2 if paired else lanes

    def codegen(context, builder, signature, args):
        x, start, plane_stride, out, out_start, out_stride = args
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[3], out)
        vector = pair_vector(lanes) if paired else context.get_value_type(full_vector(x_dtype))

        def offset(first, stride, i):
            return builder.add(first, builder.mul(stride, ir.Constant(stride.type, i)))

        rows = [
            emit_load(builder, vector, x_pointer, offset(start, plane_stride, i))
            for i in range(n_vectors)
        ]
        if paired:  # a pair of channels of two images is a unit of 64 bits
            rows = [_exchange_inner_halves(builder, row) for row in rows]
        columns = emit_transpose(builder, rows)
        for i, column in enumerate(columns):
            emit_store(
                builder, builder.bitcast(column, vector), out_pointer,
                offset(out_start, out_stride, i),
            )  # fmt: skip
        return context.get_dummy_value()

    x_dtype = x.dtype
    return types.void(x, start, plane_stride, out, out_start, out_stride), codegen


def _exchange_inner_halves(builder, pairs):
    """Turn pairs of channels into pairs of images, for each two lanes, as a vector of 64 bits."""
    halves = ir.VectorType(ir.IntType(16), 2 * pairs.type.count)
    order = [i // 4 * 4 + (0, 2, 1, 3)[i % 4] for i in range(halves.count)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), halves.count), order)
    value = builder.bitcast(pairs, halves)
    value = builder.shuffle_vector(value, ir.Constant(halves, ir.Undefined), mask)
    return builder.bitcast(value, ir.VectorType(ir.IntType(64), pairs.type.count // 2))


@intrinsic
def store_paired_images(typing, x, offset, out, out_offset, out_stride):
    """Write a pixel of two channels as pairs of images: the first channel's, then the second's.

    The pairs of the second channel begin ``out_stride`` after those of the first.
    """
    lanes = VECTOR_BYTES // 4

    def codegen(context, builder, signature, args):
        x, offset, out, out_offset, out_stride = args
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[2], out)
        halves = ir.VectorType(ir.IntType(16), 2 * lanes)
        value = builder.bitcast(emit_load(builder, pair_vector(lanes), x_pointer, offset), halves)
        for i in range(2):
            order = list(range(i, 2 * lanes, 2))
            mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), order)
            channel = builder.shuffle_vector(value, ir.Constant(halves, ir.Undefined), mask)
            emit_store(builder, builder.bitcast(channel, pair_vector(lanes // 2)), out_pointer,
                       builder.add(out_offset, out_stride) if i else out_offset)  # fmt: skip
        return context.get_dummy_value()

    return types.void(x, offset, out, out_offset, out_stride), codegen


@inlined
def round_bits(bits):
    """Return the upper half of a float32 number, given as an integer, rounded to bfloat16."""
    if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):  # NaN stays NaN
        return np.uint32((bits >> np.uint32(16)) | np.uint32(0x40))
    is_odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint32((bits + np.uint32(0x7FFF) + is_odd) >> np.uint32(16))
