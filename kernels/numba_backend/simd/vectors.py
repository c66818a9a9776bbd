"""Vector registers as a type of Numba's, so that a kernel on lanes reads as its formula.

    away = load(x, at) - mean        # 16 pixels at once, one of each image
    value = away * scale + beta
    store(y, at, where(value > 0, value, value * slope))

LLVM makes vectors of a plain loop over the lanes only where it can prove that no arrays overlap
and that the loop is long, and takes registers of half the width. Here a vector is a value that
stays in its register. Offsets count numbers from the beginning of a flat array.
"""

import operator

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from kernels.numba_backend.runtime.compiler import FASTMATH


def _vector_bytes() -> int:
    """Return the width of this processor's vectors, or of the one that Numba is told to take."""
    name, features = config.CPU_NAME, config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        try:
            features = "" if name not in (None, "host") else llvm.get_host_cpu_features().flatten()
        except RuntimeError:  # LLVM cannot tell on every processor
            features = ""
    if "+avx512f" in features:
        return 64
    if "+avx2" in features or name == "haswell":
        return 32
    return 16


VECTOR_BYTES = _vector_bytes()


INT = ir.IntType(64)


class Vector(types.Type):
    """The type of a register that holds ``count`` numbers."""

    def __init__(self, element: types.Type, count: int):
        self.element, self.count = element, count
        super().__init__(f"Vector({element}, {count})")

    @property
    def key(self):
        return self.element, self.count


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        if kind.element == types.boolean:
            element = ir.IntType(1)
        else:
            element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.count))


def _full(element) -> Vector:
    return Vector(element, VECTOR_BYTES * 8 // element.bitwidth)


def pointer_to(context, builder, kind, array):
    """Return the address of an array's first number."""
    return context.make_array(kind)(context, builder, array).data


def at(builder, vector, pointer, offset):
    """Return the address of the vector that begins ``offset`` numbers behind a pointer."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def load_vector(builder, vector, pointer, offset):
    value = builder.load(at(builder, vector, pointer, offset))
    value.align = 1
    return value


def store_vector(builder, value, pointer, offset):
    builder.store(value, at(builder, value.type, pointer, offset)).align = 1


def repeat(builder, vector, number):
    """Return a vector with the same number in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, zeros)


def call_llvm(builder, name, vector, result, arguments, **options):
    """Call one of LLVM's functions on vectors of floats."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{vector.count}f{bits}"
    )
    return builder.call(function, arguments, **options)


def add_lanes(builder, value):
    """Return the sum over the lanes of a vector."""
    element = value.type.element
    arguments = [ir.Constant(element, 0.0), value]
    return call_llvm(
        builder, "vector.reduce.fadd", value.type, element, arguments, fastmath=("reassoc",)
    )


def _loads(kind):
    def generate(context, builder, signature, arguments):
        pointer = pointer_to(context, builder, signature.args[0], arguments[0])
        return load_vector(builder, context.get_value_type(kind), pointer, arguments[1])

    return generate


@intrinsic
def load(typing, array, offset):
    """Return the vector at an offset."""
    kind = _full(array.dtype)
    return kind(array, offset), _loads(kind)


@intrinsic
def load_like(typing, array, offset, like):
    """Return as many numbers as another vector has."""
    kind = Vector(array.dtype, like.count)
    return kind(array, offset, like), _loads(kind)


@intrinsic
def store(typing, array, offset, value):
    """Write a vector to an offset."""

    def generate(context, builder, signature, arguments):
        pointer = pointer_to(context, builder, signature.args[0], arguments[0])
        store_vector(builder, arguments[2], pointer, arguments[1])
        return context.get_dummy_value()

    return types.void(array, offset, value), generate


def _lanes(count):
    """Return the vector of the numbers of the lanes."""
    integers = ir.VectorType(INT, count)
    return ir.Constant(integers, list(range(count)))


def _masked(builder, action, places, mask, value):
    """Call LLVM's masked gather, load or store; value is what to store or what else to return.

    places is the address of a vector, or a vector of addresses.
    """
    vector = value.type
    bits = vector.element.width if isinstance(vector.element, ir.IntType) else None
    element = (
        f"i{bits}" if bits else {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[vector.element]
    )
    name = f"v{vector.count}{element}"
    pointers = f"v{vector.count}p0{element}" if action == "gather" else f"p0{name}"
    alignment = ir.Constant(ir.IntType(32), 1)
    if action == "store":
        result, arguments = ir.VoidType(), [value, places, alignment, mask]
    else:
        result, arguments = vector, [places, alignment, mask, value]
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.masked.{action}.{name}.{pointers}"
    )
    return builder.call(function, arguments)


def _first(builder, lanes, count):
    """Return the mask of the first lanes."""
    numbers = _lanes(lanes)
    return builder.icmp_signed("<", numbers, repeat(builder, numbers.type, count))


@intrinsic
def masked_load(typing, array, offset, count):
    """Return the vector at an offset, of which only the first numbers are read; the rest is 0."""
    kind = _full(array.dtype)

    def generate(context, builder, signature, arguments):
        array, offset, count = arguments
        vector = context.get_value_type(kind)
        pointer = at(
            builder, vector, pointer_to(context, builder, signature.args[0], array), offset
        )
        mask = _first(builder, kind.count, count)
        return _masked(builder, "load", pointer, mask, ir.Constant(vector, None))

    return kind(array, offset, count), generate


@intrinsic
def masked_store(typing, array, offset, value, count):
    """Write the first numbers of a vector to an offset."""

    def generate(context, builder, signature, arguments):
        array, offset, value, count = arguments
        pointer = pointer_to(context, builder, signature.args[0], array)
        pointer = at(builder, value.type, pointer, offset)
        _masked(builder, "store", pointer, _first(builder, value.type.count, count), value)
        return context.get_dummy_value()

    return types.void(array, offset, value, count), generate


@intrinsic
def gather_strided(typing, array, offset, step, low, high, otherwise):
    """Return numbers that stand a step apart, of the lanes from low to before high.

    The other lanes are not read and hold another vector's numbers.
    """

    def generate(context, builder, signature, arguments):
        array, offset, step, low, high, otherwise = arguments
        lanes, real = otherwise.type.count, otherwise.type.element
        pointer = pointer_to(context, builder, signature.args[0], array)
        numbers = _lanes(lanes)
        first = builder.ptrtoint(builder.gep(pointer, [offset]), INT)
        bytes_ = builder.mul(step, ir.Constant(INT, signature.args[0].dtype.bitwidth // 8))
        away = builder.mul(numbers, repeat(builder, numbers.type, bytes_))
        away = builder.add(away, repeat(builder, numbers.type, first))
        places = builder.inttoptr(away, ir.VectorType(real.as_pointer(), lanes))
        mask = builder.and_(
            _first(builder, lanes, high),
            builder.icmp_signed(">=", numbers, repeat(builder, numbers.type, low)),
        )
        return _masked(builder, "gather", places, mask, otherwise)

    return otherwise(array, offset, step, low, high, otherwise), generate


def _repeats(kind):
    def generate(context, builder, signature, arguments):
        return repeat(builder, context.get_value_type(kind), arguments[0])

    return generate


@intrinsic
def splat(typing, number):
    """Return a vector with a number in all lanes."""
    kind = _full(number)
    return kind(number), _repeats(kind)


@intrinsic
def splat_like(typing, number, like):
    """Return a vector with a number in as many lanes as another vector has."""
    kind = Vector(number, like.count)
    return kind(number, like), _repeats(kind)


@intrinsic
def where(typing, mask, yes, no):
    """Return, lane by lane, one of two vectors."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return yes(mask, yes, no), generate


@intrinsic
def reduce_sum(typing, vector):
    """Return the sum over the lanes."""

    def generate(context, builder, signature, arguments):
        return add_lanes(builder, arguments[0])

    return vector.element(vector), generate


def _transposed(builder, rows):
    """Swap ever smaller blocks: first the quarters of the square, at last single numbers."""
    lanes = len(rows)
    distance = lanes // 2
    while distance:
        swapped = list(rows)
        for i in range(lanes):
            if i & distance:
                continue
            upper, lower = rows[i], rows[i | distance]
            here = [k if not k & distance else lanes + k - distance for k in range(lanes)]
            there = [k + distance if not k & distance else lanes + k for k in range(lanes)]
            for place, numbers in ((i, here), (i | distance, there)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), numbers)
                swapped[place] = builder.shuffle_vector(upper, lower, mask)
        rows, distance = swapped, distance // 2
    return rows


@intrinsic
def transpose(typing, x, x0, x_step, out, out0, out_step):
    """Write lane k of vector i of a square of x into lane i of vector k of out."""
    kind = _full(x.dtype)

    def generate(context, builder, signature, arguments):
        _, x0, x_step, _, out0, out_step = arguments
        source = pointer_to(context, builder, signature.args[0], arguments[0])
        target = pointer_to(context, builder, signature.args[3], arguments[3])
        vector = context.get_value_type(kind)

        def places(start, step):
            return [
                builder.add(start, builder.mul(step, ir.Constant(step.type, i)))
                for i in range(kind.count)
            ]

        rows = [load_vector(builder, vector, source, place) for place in places(x0, x_step)]
        for row, place in zip(_transposed(builder, rows), places(out0, out_step), strict=True):
            store_vector(builder, row, target, place)
        return context.get_dummy_value()

    return types.void(x, x0, x_step, out, out0, out_step), generate


def _operator(symbol, emit, result=lambda vector: vector):
    """Let an operator of Python's take two vectors of the same type."""

    @intrinsic
    def apply(typing, a, b):
        def generate(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return result(a)(a, b), generate

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


def _mask(vector):
    return Vector(types.boolean, vector.count)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.isub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _arithmetic(_name))
_operator(operator.gt, _comparison(">"), _mask)
_operator(operator.le, _comparison("<="), _mask)
_operator(operator.eq, _comparison("=="), _mask)
_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))


@intrinsic
def logical_not(typing, a):
    """Return the lanes where a mask does not hold."""

    def generate(context, builder, signature, arguments):
        return builder.not_(arguments[0])

    return a(a), generate
