"""Pairs of bfloat16 numbers in 32-bit lanes, for the code generators of Numba intrinsics.

A bfloat16 number is the upper half of a float32 number. A lane holds two of them, the first in its
lower half. A vector of pairs is a vector of 32-bit integers here, because llvmlite has no bfloat
type.

Two instructions of processors with AVX512_BF16 do the work: VDPBF16PS adds the products of two
pairs to a float32 lane, at the rate of a float32 multiply-add, and VCVTNE2PS2BF16 rounds two
vectors at once. Other processors compute the same from float32 numbers. Results differ in the last
bits of a sum, because VDPBF16PS rounds otherwise, and below 1.2e-38, which both take for zero.

References
----------
Intel: Architecture instruction set extensions programming reference, AVX512_BF16.
"""

from llvmlite import ir
from numba.core import cgutils

from kernels.numba_backend.simd.codegen import HAS_BFLOAT16, call_llvm, emit_splat

INT32 = ir.IntType(32)
UPPER_HALF = 0xFFFF0000
QUIET_NAN_BIT = 1 << 22
HALF_ULP = 0x7FFF  # half of the last place of a bfloat16 number, minus one


class _BfloatVector(ir.Type):
    """The LLVM type of a vector of bfloat16 numbers."""

    def __init__(self, count: int):
        self.count = count

    def _to_string(self) -> str:
        return f"<{self.count} x bfloat>"

    def __eq__(self, other) -> bool:
        return isinstance(other, _BfloatVector) and other.count == self.count

    def __hash__(self) -> int:
        return hash((type(self), self.count))


def float_vector(count: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), count)


def pair_vector(count: int) -> ir.VectorType:
    return ir.VectorType(INT32, count)


def _constant(vector, number):
    return ir.Constant(vector, [number] * vector.count)


def emit_widen(builder, pairs):
    """Return the first and the second numbers of a vector of pairs, as float32 vectors."""
    floats = float_vector(pairs.type.count)
    first = builder.shl(pairs, _constant(pairs.type, 16))
    second = builder.and_(pairs, _constant(pairs.type, UPPER_HALF))
    return builder.bitcast(first, floats), builder.bitcast(second, floats)


def _round(builder, value):
    """Return a float32 vector rounded to bfloat16, in the upper halves of integers."""
    bits = builder.bitcast(value, pair_vector(value.type.count))
    shift = _constant(bits.type, 16)
    is_odd = builder.and_(builder.lshr(bits, shift), _constant(bits.type, 1))
    rounded = builder.add(bits, builder.add(is_odd, _constant(bits.type, HALF_ULP)))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(is_nan, builder.or_(bits, _constant(bits.type, QUIET_NAN_BIT)), rounded)


def emit_narrow(builder, first, second):
    """Return two float32 vectors as pairs, rounded to nearest, ties to even."""
    count = first.type.count
    if HAS_BFLOAT16 and count == 16:
        bfloats = _BfloatVector(2 * count)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(bfloats, [first.type, first.type]),
            "llvm.x86.avx512bf16.cvtne2ps2bf16.512",
        )
        halves = ir.VectorType(ir.IntType(16), 2 * count)
        value = builder.bitcast(builder.call(function, [second, first]), halves)
        order = [i // 2 + i % 2 * count for i in range(2 * count)]
        mask = ir.Constant(ir.VectorType(INT32, 2 * count), order)
        value = builder.shuffle_vector(value, ir.Constant(halves, ir.Undefined), mask)
        return builder.bitcast(value, pair_vector(count))
    first, second = _round(builder, first), _round(builder, second)
    first = builder.lshr(first, _constant(first.type, 16))
    return builder.or_(first, builder.and_(second, _constant(second.type, UPPER_HALF)))


class PairOperand:
    """A vector of pairs that is multiplied several times.

    Without AVX512_BF16 it is widened once for all products.
    """

    def __init__(self, builder, pairs):
        self.count = pairs.type.count
        self.is_native = HAS_BFLOAT16 and self.count == 16
        if self.is_native:
            self.values = (builder.bitcast(pairs, _BfloatVector(2 * self.count)),)
        else:
            self.values = emit_widen(builder, pairs)


def splat_operand(builder, pair, count) -> PairOperand:
    """Return a pair, a 32-bit integer, in all lanes."""
    return PairOperand(builder, emit_splat(builder, pair_vector(count), pair))


def multiply_add_pairs(builder, a: PairOperand, b: PairOperand, acc):
    """Return acc + a[0] * b[0] + a[1] * b[1], a float32 vector."""
    if a.is_native:
        kinds = [acc.type, a.values[0].type, b.values[0].type]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(acc.type, kinds),
            "llvm.x86.avx512bf16.dpbf16ps.512",
        )
        return builder.call(function, [acc, *a.values, *b.values])
    for x, y in zip(a.values, b.values, strict=True):
        acc = call_llvm(builder, "fma", acc.type, acc.type, [x, y, acc])
    return acc
