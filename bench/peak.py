"""What this machine can do at most: multiply-adds a second, and bytes a second from each cache.

The loops are written out as LLVM's instructions on whole vectors. LLVM takes half-width vectors
where it may choose, and so would miss half of what the first-level cache can give.
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
CHAINS = 12  # that do not wait for each other: 2 units of 4 cycles need 8
UNROLL = 12  # vectors of each array a round, with a sum each: fits 16 registers
# Arrays that are read and that are written.
PATTERNS = {"read": (1, 0), "write": (0, 1), "copy": (1, 1), "triad": (2, 1)}
USUAL_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}  # where the system does not tell
LARGEST_SET = 512 << 20  # bytes
GAP = 37 * 16  # numbers between two arrays, which would wait for each other 4 KiB apart
BYTES_A_CALL = 20_000_000  # so that the call itself, some 3 us, does not count


def _chains(builder, vector, count, first):
    """Return places on the stack, which LLVM turns into registers, that hold ``first``."""
    places = [cgutils.alloca_once(builder, vector) for _ in range(count)]
    for place in places:
        builder.store(first, place)
    return places


def _sum(builder, places):
    """Return the sum over all places and lanes, so that nothing before can be left out."""
    total = builder.load(places[0])
    for place in places[1:]:
        total = builder.fadd(total, builder.load(place))
    lanes = [builder.extract_element(total, ir.IntType(32)(i)) for i in range(total.type.count)]
    number = lanes[0]
    for lane in lanes[1:]:
        number = builder.fadd(number, lane)
    return number


def _fma(builder, a, b, c):
    kind = ir.FunctionType(c.type, [c.type] * 3)
    name = f"llvm.fma.v{c.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _dilate(builder, vector, number):
    """Return a vector with the number in all lanes."""
    spread = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        spread = builder.insert_element(spread, number, ir.IntType(32)(lane))
    return spread


@intrinsic(prefer_literal=True)
def multiply_add(typing, rounds, factor, term, CHAINS, LANES):
    """Return the sum of CHAINS vectors after ``rounds`` of v = v * factor + term."""
    chains, lanes = CHAINS.literal_value, LANES.literal_value

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.FloatType(), lanes)
        rounds, factor, term, *_ = arguments
        factor, term = (_dilate(builder, vector, number) for number in (factor, term))
        places = _chains(builder, vector, chains, term)
        with cgutils.for_range(builder, rounds):
            for place in places:
                builder.store(_fma(builder, builder.load(place), factor, term), place)
        return _sum(builder, places)

    return types.float32(rounds, factor, term, CHAINS, LANES), generate


@intrinsic(prefer_literal=True)
def stream(typing, a, b, out, first, rounds, repeats, factor, READS, WRITES, UNROLL, LANES):
    """Go through UNROLL vectors a round of the first READS arrays of a and b, and again.

    Write factor, or a * factor, or a + b * factor to out; without WRITES return their sum.
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
        first, rounds, repeats, factor = arguments[3:7]
        factor = _dilate(builder, vector, factor)
        places = _chains(builder, vector, unroll, ir.Constant(vector, None))
        with cgutils.for_range(builder, repeats), cgutils.for_range(builder, rounds) as loop:
            start = builder.add(first, builder.mul(loop.index, first.type(unroll * lanes)))
            for i, place in enumerate(places):
                offset = builder.add(start, first.type(i * lanes))
                *sources, to = (
                    builder.bitcast(builder.gep(array, [offset]), vector.as_pointer())
                    for array in arrays
                )
                values = [builder.load(source, align=4 * lanes) for source in sources[:reads]]
                if not writes:
                    sums = _fma(builder, values[0], factor, builder.load(place))
                    builder.store(sums, place)
                elif reads == 0:
                    builder.store(factor, to, align=4 * lanes)
                elif reads == 1:
                    builder.store(builder.fmul(values[0], factor), to, align=4 * lanes)
                else:
                    builder.store(_fma(builder, values[1], factor, values[0]), to, align=4 * lanes)
        return _sum(builder, places)

    signature = types.float32(
        a, b, out, first, rounds, repeats, factor, READS, WRITES, UNROLL, LANES
    )
    return signature, generate


@parallel
def _multiply_adds(tasks, rounds):
    total = np.float32(0)
    for _ in prange(tasks):
        total += multiply_add(  # type: ignore[call-arg]
            rounds, np.float32(0.9), np.float32(0.1), CHAINS, LANES
        )
    return total


def _make_sweep(READS: int, WRITES: int):
    @parallel
    def sweep(a, b, out, tasks, rounds, repeats):
        """Let each task go through its own part of the arrays again and again."""
        total = np.float32(0)
        for task in prange(tasks):
            total += stream(  # type: ignore[call-arg]
                a,
                b,
                out,
                task * rounds * UNROLL * LANES,
                rounds,
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
    """Return the bytes of the first processor's caches that hold data: L1, L2 and L3."""
    sizes = dict(USUAL_CACHES)
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = (
            (cache / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = int(size[:-1]) * 1024
    return sizes


def capacities(threads: int) -> dict[str, float]:
    """Return how much each level of the memory holds for this many threads, in bytes."""
    sizes = cache_sizes()
    L1, L2 = sizes["L1"] * threads, sizes["L2"] * threads
    return {"L1": L1, "L2": L2, "L3": max(sizes["L3"], 2 * L2), "memory": math.inf}


def working_sets(threads: int) -> dict[str, int]:
    """Return how many bytes to go through so that they come from each level.

    The third level is shared, on a virtual machine with others' programs too: a set far below
    its size, and far above the second level's, is safe.
    """
    held = capacities(threads)
    return {
        "L1": int(held["L1"] / 2),
        "L2": int(held["L2"] / 2),
        "L3": int(math.sqrt(held["L2"] * held["L3"])),
        "memory": int(min(4 * held["L3"], LARGEST_SET)),
    }


def sweep_calls(threads: int) -> dict[tuple[str, str], tuple[Callable[[], object], int]]:
    """Return, for each level and pattern, a call and the bytes that it moves."""
    sets = working_sets(threads)
    memory = empty((max(sets.values()) // 4 + 3 * GAP,), FLOAT32)
    memory[:] = 1
    calls: dict[tuple[str, str], tuple[Callable[[], object], int]] = {}
    for level, size in sets.items():
        for pattern, (reads, writes) in PATTERNS.items():
            rounds = max(size // (4 * (reads + writes) * UNROLL * LANES * threads), 1)
            n = rounds * UNROLL * LANES * threads
            a, b, out = (memory[place * (n + GAP) :][:n] for place in (0, reads // 2, reads))
            moved = 4 * n * (reads + writes)
            repeats = max(BYTES_A_CALL // moved, 1)
            sweep = SWEEPS[pattern]
            call = partial(sweep, a, b, out if writes else a, threads, rounds, repeats)
            calls[level, pattern] = call, moved * repeats
    return calls


def measure_peaks(threads: int, turns: int, seconds: float) -> dict:
    """Return the best GFLOP/s, and the best GB/s of each pattern in each level.

    The backend must have been told the number of threads.
    """
    rounds = 100_000
    sweeps = sweep_calls(threads)
    calls: dict = {name: call for name, (call, _) in sweeps.items()}
    calls["multiply-add"] = partial(_multiply_adds, threads, rounds)
    for call in calls.values():
        call()
    best = {name: min(times) for name, times in interleave(calls, turns, seconds).items()}
    bandwidth: dict = {level: {} for level in working_sets(threads)}
    for (level, pattern), (_, moved) in sweeps.items():
        bandwidth[level][pattern] = moved / best[level, pattern] / 1e9
    operations = 2 * CHAINS * LANES * threads * rounds
    return {"gflops": operations / best["multiply-add"] / 1e9, "bandwidth": bandwidth}
