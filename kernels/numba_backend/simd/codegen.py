"""LLVM instructions on vectors, for the code generators of Numba intrinsics.

Every function here takes an llvmlite builder, appends instructions to the code under construction,
and returns the value that they compute. `vectors.py` turns them into functions that a kernel calls,
and `micro_kernels.py` builds whole register tiles of them.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config
from numba.core import cgutils


def _cpu_features() -> str:
    """Return the features of the processor that Numba compiles for, such as "+avx2,-avx512f"."""
    name, features = config.CPU_NAME, config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is not None:
        return features
    try:
        return "" if name not in (None, "host") else llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know the features of every processor
        return ""


def _vector_bytes(features: str) -> int:
    """Return the vector width, in bytes, of a processor with these features."""
    if "+avx512f" in features:
        return 64
    if "+avx2" in features or config.CPU_NAME == "haswell":  # type: ignore[attr-defined]
        return 32
    return 16


_FEATURES = _cpu_features()
VECTOR_BYTES = _vector_bytes(_FEATURES)
# Whether the instructions of `bfloat16.py` may be used: Zen 4 and later, Cooper Lake, Sapphire
# Rapids and later. (AMX multiplies bfloat16 tiles of 16 rows, on Sapphire Rapids and later. It
# would be a second branch of `bfloat16.multiply_add_pairs`.)
HAS_BFLOAT16 = VECTOR_BYTES == 64 and all(
    f"+{name}" in _FEATURES.split(",") for name in ("avx512bf16", "avx512bw")
)
# AVX2 has masked stores as well, but AMD processors up to Zen 3 split each of them into dozens of
# operations: with them, `im2col` took 2 to 4 times as long on a Zen 3.
HAS_FAST_MASKED_STORE = VECTOR_BYTES == 64


INT = ir.IntType(64)


def data_pointer(context, builder, array_type, array):
    """Return the address of an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def vector_pointer(builder, vector, pointer, offset):
    """Return the address of the vector that begins ``offset`` elements after a pointer."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def emit_load(builder, vector, pointer, offset):
    value = builder.load(vector_pointer(builder, vector, pointer, offset))
    value.align = 1
    return value


def emit_store(builder, value, pointer, offset):
    builder.store(value, vector_pointer(builder, value.type, pointer, offset)).align = 1


def emit_prefetch(builder, pointer, offset, is_write, locality):
    """Ask for the cache line that is ``offset`` elements behind a pointer: see `vectors`."""
    byte_pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
    address = builder.bitcast(builder.gep(pointer, [offset]), byte_pointer)
    kind = ir.FunctionType(ir.VoidType(), [byte_pointer, integer, integer, integer])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [address, *map(integer, (is_write, locality, 1))])  # 1: of data


def emit_splat(builder, vector, scalar):
    """Return a vector with the same scalar in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    lane0 = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lane0, undefined, zeros)


def call_llvm(builder, name, vector, result_type, args, **options):
    """Call an LLVM intrinsic that is overloaded on a vector of floats."""
    signature = ir.FunctionType(result_type, [arg.type for arg in args])
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{vector.count}f{bits}"
    )
    return builder.call(function, args, **options)


def emit_reduce_sum(builder, value):
    """Return the sum over the lanes of a vector."""
    element = value.type.element
    args = [ir.Constant(element, 0.0), value]
    return call_llvm(
        builder, "vector.reduce.fadd", value.type, element, args, fastmath=("reassoc",)
    )


def lane_indices(count):
    """Return the constant vector 0, 1, ..., count - 1."""
    return ir.Constant(ir.VectorType(INT, count), list(range(count)))


def call_masked(builder, operation, pointers, mask, value):
    """Call LLVM's masked "gather", "load" or "store".

    ``pointers`` is the address of a vector or, for a gather, a vector of addresses. ``value`` is
    the vector to store or, for a load, the vector whose lanes are returned where the mask is off.
    """
    vector = value.type
    if isinstance(vector.element, ir.IntType):
        element = f"i{vector.element.width}"
    else:
        element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[vector.element]
    vector_name = f"v{vector.count}{element}"
    is_gather = operation == "gather"
    pointers_name = f"v{vector.count}p0{element}" if is_gather else f"p0{vector_name}"
    alignment = ir.Constant(ir.IntType(32), 1)
    if operation == "store":
        result_type, args = ir.VoidType(), [value, pointers, alignment, mask]
    else:
        result_type, args = vector, [pointers, alignment, mask, value]
    signature = ir.FunctionType(result_type, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.masked.{operation}.{vector_name}.{pointers_name}"
    )
    return builder.call(function, args)


def emit_store_first(builder, value, pointer, count):
    """Write the first ``count`` lanes of a vector to an address of such a vector.

    Without a fast masked store, a half, a quarter and so on of the vector are stored, as the binary
    digits of ``count`` tell.
    """
    lanes = value.type.count
    if HAS_FAST_MASKED_STORE:
        call_masked(builder, "store", pointer, first_lanes(builder, lanes, count), value)
        return
    with builder.if_else(builder.icmp_signed(">=", count, INT(lanes))) as (is_full, is_partial):
        with is_full:
            builder.store(value, pointer).align = 1
        with is_partial, builder.if_then(builder.icmp_signed(">", count, INT(0))):
            _emit_store_halves(builder, value, pointer, count)


def _emit_store_halves(builder, value, pointer, count):
    """Write the first lanes of a vector, fewer than all."""
    element = value.type.element
    address = builder.bitcast(pointer, element.as_pointer())
    rest, size = value, value.type.count // 2
    while size:
        low, high = (
            ir.Constant(ir.VectorType(ir.IntType(32), size), list(range(first, first + size)))
            for first in (0, size)
        )
        digit = builder.and_(count, INT(size))
        is_stored = builder.icmp_signed("!=", digit, INT(0))
        undefined = ir.Constant(rest.type, ir.Undefined)
        lower, upper = (builder.shuffle_vector(rest, undefined, half) for half in (low, high))
        with builder.if_then(is_stored):
            emit_store(builder, lower, address, INT(0))
        address = builder.gep(address, [digit])
        rest = builder.select(is_stored, upper, lower)
        size //= 2


def first_lanes(builder, lanes, count):
    """Return the mask of the first ``count`` of ``lanes`` lanes."""
    indices = lane_indices(lanes)
    return builder.icmp_signed("<", indices, emit_splat(builder, indices.type, count))


def lanes_between(builder, lanes, start, stop):
    """Return the mask of the lanes ``start`` to ``stop`` - 1."""
    indices = lane_indices(lanes)
    is_from_start = builder.icmp_signed(">=", indices, emit_splat(builder, indices.type, start))
    return builder.and_(first_lanes(builder, lanes, stop), is_from_start)


def emit_transpose(builder, rows):
    """Return the columns of a square of vectors.

    Each round swaps smaller off-diagonal blocks: first the quarters of the square, at last single
    elements.
    """
    lanes = len(rows)
    block = lanes // 2
    while block:
        swapped = list(rows)
        for i in range(lanes):
            if i & block:
                continue
            upper, lower = rows[i], rows[i | block]
            upper_lanes = [k if not k & block else lanes + k - block for k in range(lanes)]
            lower_lanes = [k + block if not k & block else lanes + k for k in range(lanes)]
            for row, indices in ((i, upper_lanes), (i | block, lower_lanes)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), indices)
                swapped[row] = builder.shuffle_vector(upper, lower, mask)
        rows, block = swapped, block // 2
    return rows
