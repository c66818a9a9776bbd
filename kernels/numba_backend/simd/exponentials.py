"""exp and expm1 on vectors, by additions and multiplications alone.

LLVM calls the C library for the exponential of each lane, where Numba finds no vector library. This
would be ten times slower, and the last bits would depend on the library.

x is split into n * log(2) + r with an integer n and |r| <= log(2) / 2. Then exp(x) = 2**n * exp(r):
the bits of n are those of the exponent of a float, and a few terms of the Taylor series of exp(r)
are as accurate as the dtype. The error is below 2 units in the last place.

References
----------
Muller: Elementary Functions (2016), chapter 11.
"""

import math
from typing import NamedTuple

from llvmlite import ir
from numba.extending import intrinsic

from kernels.numba_backend.simd.codegen import call_llvm


class _Format(NamedTuple):
    """A float format, and constants that depend on it.

    Attributes
    ----------
    bits, mantissa_bits, bias : int
        Of a float; the exponent field of 2**n is n + bias.
    log2, log2_error : float
        log(2) in this format, and what it lacks of log(2).
    terms : int
        Terms of the Taylor series of exp(r) - 1.
    low, high : float
        exp rounds to 0 below ``low`` and to infinity above ``high``.
    """

    bits: int
    mantissa_bits: int
    bias: int
    log2: float
    log2_error: float
    terms: int
    low: float
    high: float


FLOAT = _Format(32, 23, 127, 0.693147182464599609375, -1.904654299957768e-9, 7, -104.0, 89.0)
DOUBLE = _Format(64, 52, 1023, math.log(2), 2.3190468138462996e-17, 13, -746.0, 710.0)
# Numba adds the flags of `compiler.FASTMATH` to instructions that have none. The additions and
# multiplications below must not be fused. None of their results is a zero whose sign matters.
UNFUSED = ("nsz",)


def _format_of(vector) -> _Format:
    return FLOAT if isinstance(vector.element, ir.FloatType) else DOUBLE


def _constant(vector, number):
    return ir.Constant(vector, [number] * vector.count)


def _multiply_add(builder, a, b, c):
    return call_llvm(builder, "fma", a.type, a.type, [a, b, c])


def _round(builder, x):
    return call_llvm(builder, "rint", x.type, x.type, [x])


def _clamp(builder, x, low, high):
    """Return x within two numbers. NaN remains NaN."""
    for symbol, number in ((">", high), ("<", low)):
        limit = _constant(x.type, number)
        x = builder.select(builder.fcmp_ordered(symbol, x, limit), limit, x)
    return x


def _power_of_two(builder, n):
    """Return 2**n of integers n, which are floats; 2**n must be a normal number."""
    vector, fmt = n.type, _format_of(n.type)
    integers = ir.VectorType(ir.IntType(fmt.bits), vector.count)
    # A float of this size has no fraction: n is added to the lowest bits of its mantissa. The upper
    # bits of the sum are shifted out.
    integer_only = _constant(vector, 1.5 * 2.0**fmt.mantissa_bits)
    bits = builder.bitcast(builder.fadd(n, integer_only, flags=UNFUSED), integers)
    exponent = builder.add(bits, _constant(integers, fmt.bias))
    return builder.bitcast(builder.shl(exponent, _constant(integers, fmt.mantissa_bits)), vector)


def _reduce(builder, x):
    """Return n and exp(r) - 1, where x = n * log(2) + r."""
    vector, fmt = x.type, _format_of(x.type)
    n = builder.fmul(x, _constant(vector, 1 / math.log(2)), flags=UNFUSED)
    n = _round(builder, n)
    r = _multiply_add(builder, n, _constant(vector, -fmt.log2), x)
    r = _multiply_add(builder, n, _constant(vector, -fmt.log2_error), r)
    series = _constant(vector, 1 / math.factorial(fmt.terms))
    for k in reversed(range(1, fmt.terms)):
        series = _multiply_add(builder, series, r, _constant(vector, 1 / math.factorial(k)))
    return n, builder.fmul(series, r, flags=UNFUSED)


@intrinsic
def exp(typing, x):
    """Return the exponential of a vector."""

    def codegen(context, builder, signature, args):
        fmt = _format_of(args[0].type)
        n, series = _reduce(builder, _clamp(builder, args[0], fmt.low, fmt.high))
        y = builder.fadd(series, _constant(n.type, 1.0), flags=UNFUSED)
        # 2**n itself may overflow, or be too small for a normal number.
        half = _round(builder, builder.fmul(n, _constant(n.type, 0.5), flags=UNFUSED))
        for part in (half, builder.fsub(n, half, flags=UNFUSED)):
            y = builder.fmul(y, _power_of_two(builder, part), flags=UNFUSED)
        return y

    return x(x), codegen


@intrinsic
def expm1_of_negative(typing, x):
    """Return exp(x) - 1 of a vector without positive numbers, accurate near 0 too."""

    def codegen(context, builder, signature, args):
        n, series = _reduce(builder, _clamp(builder, args[0], -40.0, 0.0))  # -1 below -40
        power = _power_of_two(builder, n)
        power_minus_1 = builder.fadd(power, _constant(n.type, -1.0), flags=UNFUSED)
        return _multiply_add(builder, power, series, power_minus_1)

    return x(x), codegen
