"""Vector registers as a Numba type, so that a kernel on lanes reads like its formula.

    deviation = load(x, offset) - mean    # 16 pixels at once, one of each image
    value = deviation * scale + beta
    store(y, offset, activate(value, activation))

LLVM vectorizes a plain loop over the lanes only where it can prove that no arrays overlap and
that the loop is long, and it then uses registers of half the width. Here a vector is a value that
stays in its register. All offsets count elements from the beginning of a flat array.
"""

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from kernels.numba_backend.runtime.compiler import FASTMATH
from kernels.numba_backend.simd.codegen import (
    INT,
    VECTOR_BYTES,
    call_masked,
    data_pointer,
    emit_load,
    emit_prefetch,
    emit_reduce_sum,
    emit_splat,
    emit_store,
    emit_store_first,
    emit_transpose,
    first_lanes,
    lane_indices,
    lanes_between,
    vector_pointer,
)


class Vector(types.Type):
    """The Numba type of a vector register that holds ``count`` elements of a scalar type."""

    def __init__(self, dtype: types.Type, count: int):
        self.dtype, self.count = dtype, count
        super().__init__(f"Vector({dtype}, {count})")

    @property
    def key(self):
        return self.dtype, self.count


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector_type):
        if vector_type.dtype == types.boolean:
            element = ir.IntType(1)
        else:
            element = manager.lookup(vector_type.dtype).get_value_type()
        super().__init__(manager, vector_type, ir.VectorType(element, vector_type.count))


def full_vector(dtype) -> Vector:
    """Return the type of a vector that fills a whole register."""
    return Vector(dtype, VECTOR_BYTES * 8 // dtype.bitwidth)


def _load_codegen(vector_type):
    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        return emit_load(builder, context.get_value_type(vector_type), pointer, args[1])

    return codegen


@intrinsic
def load(typing, array, offset):
    """Return the vector at an offset."""
    vector_type = full_vector(array.dtype)
    return vector_type(array, offset), _load_codegen(vector_type)


@intrinsic
def load_like(typing, array, offset, like):
    """Return the vector at an offset, with as many lanes as the vector ``like`` has."""
    vector_type = Vector(array.dtype, like.count)
    return vector_type(array, offset, like), _load_codegen(vector_type)


@intrinsic
def store(typing, array, offset, value):
    """Write a vector to an offset."""

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[0], args[0])
        emit_store(builder, args[2], pointer, args[1])
        return context.get_dummy_value()

    return types.void(array, offset, value), codegen


def _make_prefetch(is_write, locality):
    """Return an intrinsic that asks for the cache line at an offset.

    A locality of 3 brings it into all caches, and of 2 into all but the first.
    """

    @intrinsic
    def prefetch(typing, array, offset):
        def codegen(context, builder, signature, args):
            pointer = data_pointer(context, builder, signature.args[0], args[0])
            emit_prefetch(builder, pointer, args[1], is_write, locality)
            return context.get_dummy_value()

        return types.void(array, offset), codegen

    return prefetch


# Functions (array, offset). The line may lie outside of the array.
prefetch_to_read = _make_prefetch(0, 3)
prefetch_to_write = _make_prefetch(1, 3)
prefetch_to_second_level = _make_prefetch(0, 2)


@intrinsic
def masked_load(typing, array, offset, count):
    """Return the vector at an offset; only its first ``count`` lanes are read, the rest are 0."""
    vector_type = full_vector(array.dtype)

    def codegen(context, builder, signature, args):
        array, offset, count = args
        vector = context.get_value_type(vector_type)
        pointer = data_pointer(context, builder, signature.args[0], array)
        pointer = vector_pointer(builder, vector, pointer, offset)
        mask = first_lanes(builder, vector_type.count, count)
        return call_masked(builder, "load", pointer, mask, ir.Constant(vector, None))

    return vector_type(array, offset, count), codegen


@intrinsic
def masked_store(typing, array, offset, value, count):
    """Write the first ``count`` lanes of a vector to an offset."""

    def codegen(context, builder, signature, args):
        array, offset, value, count = args
        pointer = data_pointer(context, builder, signature.args[0], array)
        pointer = vector_pointer(builder, value.type, pointer, offset)
        emit_store_first(builder, value, pointer, count)
        return context.get_dummy_value()

    return types.void(array, offset, value, count), codegen


@intrinsic
def load_between(typing, array, offset, start, stop):
    """Return the vector at an offset; only lanes ``start`` to ``stop`` - 1 are read, others are 0.

    The vector may begin before the array or end behind it.
    """
    vector_type = full_vector(array.dtype)

    def codegen(context, builder, signature, args):
        array, offset, start, stop = args
        vector = context.get_value_type(vector_type)
        pointer = data_pointer(context, builder, signature.args[0], array)
        pointer = vector_pointer(builder, vector, pointer, offset)
        mask = lanes_between(builder, vector_type.count, start, stop)
        return call_masked(builder, "load", pointer, mask, ir.Constant(vector, None))

    return vector_type(array, offset, start, stop), codegen


@intrinsic
def even_lanes(typing, first, second):
    """Return lanes 0, 2, 4, ... of two vectors that follow each other."""

    def codegen(context, builder, signature, args):
        lanes = ir.VectorType(ir.IntType(32), first.count)
        indices = ir.Constant(lanes, list(range(0, 2 * first.count, 2)))
        return builder.shuffle_vector(*args, indices)

    return first(first, second), codegen


@intrinsic
def gather_strided(typing, array, offset, stride, start, stop, fill):
    """Return the vector of the elements at offset, offset + stride, offset + 2 * stride, ...

    Only the lanes from ``start`` to before ``stop`` are read. The other lanes hold those of the
    vector ``fill``.
    """

    def codegen(context, builder, signature, args):
        array, offset, stride, start, stop, fill = args
        lanes, element = fill.type.count, fill.type.element
        pointer = data_pointer(context, builder, signature.args[0], array)
        indices = lane_indices(lanes)
        address0 = builder.ptrtoint(builder.gep(pointer, [offset]), INT)
        itemsize = ir.Constant(INT, signature.args[0].dtype.bitwidth // 8)
        byte_stride = emit_splat(builder, indices.type, builder.mul(stride, itemsize))
        addresses = builder.add(
            builder.mul(indices, byte_stride), emit_splat(builder, indices.type, address0)
        )
        pointers = builder.inttoptr(addresses, ir.VectorType(element.as_pointer(), lanes))
        mask = lanes_between(builder, lanes, start, stop)
        return call_masked(builder, "gather", pointers, mask, fill)

    return fill(array, offset, stride, start, stop, fill), codegen


def _splat_codegen(vector_type):
    def codegen(context, builder, signature, args):
        return emit_splat(builder, context.get_value_type(vector_type), args[0])

    return codegen


@intrinsic
def splat(typing, scalar):
    """Return a vector with a scalar in all lanes."""
    vector_type = full_vector(scalar)
    return vector_type(scalar), _splat_codegen(vector_type)


@intrinsic
def splat_like(typing, scalar, like):
    """Return a vector with a scalar in as many lanes as the vector ``like`` has."""
    vector_type = Vector(scalar, like.count)
    return vector_type(scalar, like), _splat_codegen(vector_type)


@intrinsic
def constant_like(typing, number, like):
    """Return a vector of the type of ``like`` with a number, such as 0.5, in all lanes."""

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[0], signature.args[0], like.dtype)
        return emit_splat(builder, args[1].type, number)

    return like(number, like), codegen


@intrinsic
def where(typing, condition, x, y):
    """Return, lane by lane, x where the condition holds and else y."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return x(condition, x, y), codegen


@intrinsic
def reduce_sum(typing, vector):
    """Return the sum over the lanes."""

    def codegen(context, builder, signature, args):
        return emit_reduce_sum(builder, args[0])

    return vector.dtype(vector), codegen


@intrinsic
def add_lanes(typing, vector, sums, offset):
    """Add each lane of a vector to one of the float64 numbers ``sums`` from an offset on."""

    def codegen(context, builder, signature, args):
        pointer = data_pointer(context, builder, signature.args[1], args[1])
        doubles = ir.VectorType(ir.DoubleType(), args[0].type.count)
        value = _convert(builder, args[0], doubles, signature.args[0].dtype)
        total = builder.fadd(emit_load(builder, doubles, pointer, args[2]), value)
        emit_store(builder, total, pointer, args[2])
        return context.get_dummy_value()

    return types.void(vector, sums, offset), codegen


@intrinsic
def transpose(typing, x, x_start, x_stride, out, out_start, out_stride):
    """Write lane k of vector i of a square of x into lane i of vector k of out.

    Vector i of x begins at x_start + i * x_stride; ``out_start`` and ``out_stride`` alike.
    """
    vector_type = full_vector(x.dtype)

    def codegen(context, builder, signature, args):
        x, x_start, x_stride, out, out_start, out_stride = args
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[3], out)
        vector = context.get_value_type(vector_type)

        def offsets(start, stride):
            return [
                builder.add(start, builder.mul(stride, ir.Constant(stride.type, i)))
                for i in range(vector_type.count)
            ]

        rows = [emit_load(builder, vector, x_pointer, o) for o in offsets(x_start, x_stride)]
        columns = emit_transpose(builder, rows)
        for column, offset in zip(columns, offsets(out_start, out_stride), strict=True):
            emit_store(builder, column, out_pointer, offset)
        return context.get_dummy_value()

    return types.void(x, x_start, x_stride, out, out_start, out_stride), codegen


@intrinsic
def transpose_rows(typing, x, x_start, x_stride, count, out, out_start):
    """Write a square of numbers of any dtype, transposed and converted, to vectors of out.

    Row i begins at x_start + i * x_stride of x. Rows from ``count`` on, at least 1, are the last
    one before them. Lane i of vector k, at out_start + k * (number of lanes), is number k of row i.
    """
    vector_type = full_vector(out.dtype)

    def codegen(context, builder, signature, args):
        x, x_start, x_stride, count, out, out_start = args
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[4], out)
        vector = context.get_value_type(vector_type)
        source = ir.VectorType(context.get_data_type(signature.args[0].dtype), vector.count)
        last = builder.sub(count, ir.Constant(count.type, 1))
        rows = []
        for i in range(vector.count):
            row = ir.Constant(count.type, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            offset = builder.add(x_start, builder.mul(x_stride, row))
            value = emit_load(builder, source, x_pointer, offset)
            rows.append(_convert(builder, value, vector, signature.args[0].dtype))
        for i, column in enumerate(emit_transpose(builder, rows)):
            offset = builder.add(out_start, ir.Constant(out_start.type, i * vector.count))
            emit_store(builder, column, out_pointer, offset)
        return context.get_dummy_value()

    return types.void(x, x_start, x_stride, count, out, out_start), codegen


@intrinsic
def transpose_to_rows(typing, x, x_start, out, out_start, out_stride, count):
    """Write the first ``count`` lanes, at least 1, of a square of vectors to rows of out.

    Vector k begins at x_start + k * (number of lanes), and row i at out_start + i * out_stride.
    """
    vector_type = full_vector(x.dtype)

    def codegen(context, builder, signature, args):
        x, x_start, out, out_start, out_stride, count = args
        x_pointer = data_pointer(context, builder, signature.args[0], x)
        out_pointer = data_pointer(context, builder, signature.args[2], out)
        vector = context.get_value_type(vector_type)
        vectors = []
        for k in range(vector.count):
            offset = builder.add(x_start, ir.Constant(x_start.type, k * vector.count))
            vectors.append(emit_load(builder, vector, x_pointer, offset))
        last = builder.sub(count, ir.Constant(count.type, 1))
        rows = emit_transpose(builder, vectors)
        # From the last one on: what the lanes that are left out write is written over.
        for i in reversed(range(vector.count)):
            row = ir.Constant(count.type, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            offset = builder.add(out_start, builder.mul(out_stride, row))
            emit_store(builder, rows[i], out_pointer, offset)
        return context.get_dummy_value()

    return types.void(x, x_start, out, out_start, out_stride, count), codegen


def _convert(builder, value, vector, dtype):
    """Return a vector of numbers of a Numba dtype as a vector of floats."""
    if isinstance(dtype, types.Integer):
        return (builder.sitofp if dtype.signed else builder.uitofp)(value, vector)  # type: ignore[attr-defined]
    if value.type == vector:
        return value
    is_wider = isinstance(vector.element, ir.DoubleType)
    return (builder.fpext if is_wider else builder.fptrunc)(value, vector)


@intrinsic
def first_lanes_of(typing, like, count):
    """Return the mask of the first ``count`` lanes of a vector like this one."""

    def codegen(context, builder, signature, args):
        return first_lanes(builder, like.count, args[1])

    return Vector(types.boolean, like.count)(like, count), codegen


def _register_operator(symbol, emit, result_type=lambda vector: vector):
    """Let a Python operator take two vectors of the same type."""

    @intrinsic
    def apply(typing, a, b):
        def codegen(context, builder, signature, args):
            return emit(builder, *args)

        return result_type(a)(a, b), codegen

    @overload(symbol)
    def _(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: apply(a, b)


def _arithmetic(name):
    return lambda builder, a, b: getattr(builder, name)(a, b, flags=tuple(FASTMATH))


def _comparison(symbol):
    def emit(builder, a, b):
        if isinstance(a.type.element, ir.IntType):
            return builder.icmp_unsigned(symbol, a, b)
        return builder.fcmp_ordered(symbol, a, b)

    return emit


def _mask_type(vector):
    return Vector(types.boolean, vector.count)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.isub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register_operator(_symbol, _arithmetic(_name))
_register_operator(operator.gt, _comparison(">"), _mask_type)
_register_operator(operator.le, _comparison("<="), _mask_type)
_register_operator(operator.eq, _comparison("=="), _mask_type)
_register_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))


@intrinsic
def logical_not(typing, mask):
    """Return the mask of the lanes where another mask is off."""

    def codegen(context, builder, signature, args):
        return builder.not_(args[0])

    return mask(mask), codegen
