"""Measure the peaks of this machine: multiply-adds per second, and bytes per second by cache level.

The loops are written as LLVM instructions on vectors of full width. Where LLVM may choose, it takes
vectors of half the width, which reach only half of the bandwidth of the first-level cache.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from bench.timing import interleave
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.compiler import parallel

FLOAT32 = np.dtype(np.float32)
LANES = simd_width(FLOAT32)
CHAINS = 12  # independent sums: 2 FMA units with a latency of 4 cycles need 8
UNROLL = 12  # vectors of each array per iteration, each with its own sum: fits in 16 registers
# Pattern: number of arrays that are read, number of arrays that are written.
PATTERNS = {"read": (1, 0), "write": (0, 1), "copy": (1, 1), "triad": (2, 1)}
DEFAULT_CACHES = {
    "L1": 32 << 10,
    "L2": 1 << 20,
    "L3": 16 << 20,
}  # if not reported
LARGEST_SET = 512 << 20  # bytes
GAP = 37 * 16  # numbers between two arrays: 4 KiB apart, their accesses would conflict
BYTES_PER_CALL = 20_000_000  # so that the overhead of a call, about 3 us, is negligible


def _make_accumulators(builder, vector, count, first):
    """Return stack slots that hold ``first``; LLVM turns them into registers."""
    slots = [cgutils.alloca_once(builder, vector) for _ in range(count)]
    for slot in slots:
        builder.store(first, slot)
    return slots


def _sum(builder, slots):
    """Return the sum of all slots and lanes, so that LLVM cannot drop the work before it."""
    total = builder.load(slots[0])
    for slot in slots[1:]:
        total = builder.fadd(total, builder.load(slot))
    lanes = [builder.extract_element(total, ir.IntType(32)(i)) for i in range(total.type.count)]
    number = lanes[0]
    for lane in lanes[1:]:
        number = builder.fadd(number, lane)
    return number


def _fma(builder, a, b, c):
    kind = ir.FunctionType(c.type, [c.type] * 3)
    name = f"llvm.fma.v{c.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _splat(builder, vector, number):
    """Return a vector with the number in all lanes."""
    result = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        result = builder.insert_element(result, number, ir.IntType(32)(lane))
    return result


@intrinsic(prefer_literal=True)
def multiply_add(typing, iterations, factor, term, CHAINS, LANES):
    """Return the sum of CHAINS vectors after ``iterations`` times v = v * factor + term."""
    chains, lanes = CHAINS.literal_value, LANES.literal_value

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.FloatType(), lanes)
        iterations, factor, term, *_ = arguments
        factor, term = (_splat(builder, vector, number) for number in (factor, term))
        slots = _make_accumulators(builder, vector, chains, term)
        with cgutils.for_range(builder, iterations):
            for slot in slots:
                builder.store(_fma(builder, builder.load(slot), factor, term), slot)
        return _sum(builder, slots)

    return types.float32(iterations, factor, term, CHAINS, LANES), generate


@intrinsic(prefer_literal=True)
def stream(typing, a, b, out, first, iterations, repeats, factor, READS, WRITES, UNROLL, LANES):
    """Read the first READS arrays of a and b from ``first`` on, UNROLL vectors per iteration.

    Write factor, a * factor or a + b * factor to out, for READS of 0, 1 and 2; with WRITES of 0,
    return the sum instead. All ``iterations`` iterations are made ``repeats`` times.
    """
    reads, writes, unroll, lanes = (
        literal.literal_value for literal in (READS, WRITES, UNROLL, LANES)
    )

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.FloatType(), lanes)
        arrays = [
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(signature.args[:3], arguments[:3], strict=True)
        ]
        first, iterations, repeats, factor = arguments[3:7]
        factor = _splat(builder, vector, factor)
        slots = _make_accumulators(builder, vector, unroll, ir.Constant(vector, None))
        with cgutils.for_range(builder, repeats), cgutils.for_range(builder, iterations) as loop:
            start = builder.add(first, builder.mul(loop.index, first.type(unroll * lanes)))
            for i, slot in enumerate(slots):
                offset = builder.add(start, first.type(i * lanes))
                *sources, to = (
                    builder.bitcast(builder.gep(array, [offset]), vector.as_pointer())
                    for array in arrays
                )
                values = [builder.load(source, align=4 * lanes) for source in sources[:reads]]
                if not writes:
                    sums = _fma(builder, values[0], factor, builder.load(slot))
                    builder.store(sums, slot)
                elif reads == 0:
                    builder.store(factor, to, align=4 * lanes)
                elif reads == 1:
                    builder.store(builder.fmul(values[0], factor), to, align=4 * lanes)
                else:
                    builder.store(_fma(builder, values[1], factor, values[0]), to, align=4 * lanes)
        return _sum(builder, slots)

    signature = types.float32(
        a, b, out, first, iterations, repeats, factor, READS, WRITES, UNROLL, LANES
    )
    return signature, generate


@parallel
def _multiply_adds(tasks, iterations):
    total = np.float32(0)
    for _ in prange(tasks):
        total += multiply_add(  # type: ignore[call-arg]
            iterations, np.float32(0.9), np.float32(0.1), CHAINS, LANES
        )
    return total


def _make_sweep(READS: int, WRITES: int):
    @parallel
    def sweep(a, b, out, tasks, iterations, repeats):
        """Let each task repeatedly process its own part of the arrays."""
        total = np.float32(0)
        for task in prange(tasks):
            total += stream(  # type: ignore[call-arg]
                a,
                b,
                out,
                task * iterations * UNROLL * LANES,
                iterations,
                repeats,
                np.float32(0.5),
                READS,
                WRITES,
                UNROLL,
                LANES,
            )
        return total

    return sweep


SWEEPS = {name: _make_sweep(*counts) for name, counts in PATTERNS.items()}


def cache_sizes() -> dict[str, int]:
    """Return the sizes in bytes of the first processor's data caches: L1, L2 and L3."""
    sizes = dict(DEFAULT_CACHES)
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = (
            (cache / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = int(size[:-1]) * 1024
    return sizes


def capacities(threads: int) -> dict[str, float]:
    """Return the capacity of each level of the memory for this many threads, in bytes."""
    sizes = cache_sizes()
    L1, L2 = sizes["L1"] * threads, sizes["L2"] * threads
    return {"L1": L1, "L2": L2, "L3": max(sizes["L3"], 2 * L2), "memory": math.inf}


def working_sets(threads: int) -> dict[str, int]:
    """Return, for each level, the size in bytes of a data set that is read from that level.

    The third-level cache is shared, on a virtual machine also with programs outside of it. The data
    set for it is therefore far below its size, and far above that of the second level.
    """
    sizes = capacities(threads)
    return {
        "L1": int(sizes["L1"] / 2),
        "L2": int(sizes["L2"] / 2),
        "L3": int(math.sqrt(sizes["L2"] * sizes["L3"])),
        "memory": int(min(4 * sizes["L3"], LARGEST_SET)),
    }


def sweep_calls(threads: int) -> dict[tuple[str, str], tuple[Callable[[], object], int]]:
    """Return, for each level and pattern, a function to call and the bytes that one call moves."""
    sets = working_sets(threads)
    memory = empty((max(sets.values()) // 4 + 3 * GAP,), FLOAT32)
    memory[:] = 1
    calls: dict[tuple[str, str], tuple[Callable[[], object], int]] = {}
    for level, size in sets.items():
        for pattern, (reads, writes) in PATTERNS.items():
            iterations = max(size // (4 * (reads + writes) * UNROLL * LANES * threads), 1)
            n = iterations * UNROLL * LANES * threads
            a, b, out = (memory[i * (n + GAP) :][:n] for i in (0, reads // 2, reads))
            moved = 4 * n * (reads + writes)
            repeats = max(BYTES_PER_CALL // moved, 1)
            sweep = SWEEPS[pattern]
            call = partial(sweep, a, b, out if writes else a, threads, iterations, repeats)
            calls[level, pattern] = call, moved * repeats
    return calls


def measure_peaks(threads: int, rounds: int, seconds: float) -> dict:
    """Return the best GFLOP/s, and the best GB/s of each pattern in each level.

    The caller sets the numba backend to this number of threads before.
    """
    iterations = 100_000
    sweeps = sweep_calls(threads)
    calls: dict = {name: call for name, (call, _) in sweeps.items()}
    calls["multiply-add"] = partial(_multiply_adds, threads, iterations)
    for call in calls.values():
        call()
    best = {name: min(times) for name, times in interleave(calls, rounds, seconds).items()}
    bandwidth: dict = {level: {} for level in working_sets(threads)}
    for (level, pattern), (_, moved) in sweeps.items():
        bandwidth[level][pattern] = moved / best[level, pattern] / 1e9
    operations = 2 * CHAINS * LANES * threads * iterations
    return {"gflops": operations / best["multiply-add"] / 1e9, "bandwidth": bandwidth}
