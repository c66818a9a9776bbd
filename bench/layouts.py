"""Measure which memory layout serves plain arrays best, for `use_packed_layout`.

    python -m bench.layouts
    python -m bench.layouts --images 1 8 64 --kernels correlate max_pool --dtype float64

Each row of the printed Markdown table is one kernel on one layer's arrays and one number of
images. The columns are the median times in microseconds of the call on plain arrays, of the same
call with its arrays packed before and unpacked after it, and of the NumPy backend, and the ratio
of the first two. The plain column of `correlate` is the channels-last kernel.

The calls that are compared take turns, except those of NumPy: the threads of its BLAS wait busily
after a product and would slow the kernel that follows. Other programs should be idle.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterator

import numpy as np

from bench.shapes import CONVOLUTIONS, POOLS
from kernels import get_backend, numba_backend
from kernels.numba_backend import channels_last, packed
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.layouts import use_packed_layout

NUMPY = get_backend("numpy")

Row = tuple[str, Callable[[], object], Callable[[], object], Callable[[], object]]


def medians(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the median time in seconds of each call; the calls take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls * 3:
        call()
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or len(times[0]) < 9:
        for call, measured in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            measured.append(time.perf_counter() - begin)
    return [float(np.median(measured)) for measured in times]


def correlate_channels_last(x, w, b) -> np.ndarray:
    """Return `correlate` on images whose channels are moved behind the pixels."""
    behind = ChannelsLast(x.transpose(0, 2, 3, 1), x.shape[1])
    return channels_last.to_array(channels_last.correlate(behind, w, b, padding="same"))


def correlate_packed(x, w, b) -> np.ndarray:
    return packed.unpack(numba_backend.correlate(packed.pack(x), w, b, padding="same"))


def rows(N: int, dtype: np.dtype) -> Iterator[Row]:
    """Yield a name, and the calls on plain arrays, on packed ones, and of NumPy."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    pack, unpack = packed.pack, packed.unpack
    for layer, (C, H, F, K, *_) in CONVOLUTIONS.items():
        x, w, b = draw(N, C, H, H), draw(F, C, K, K), draw(F)
        yield (
            f"correlate, {layer}",
            lambda x=x, w=w, b=b: correlate_channels_last(x, w, b),
            lambda x=x, w=w, b=b: correlate_packed(x, w, b),
            lambda x=x, w=w, b=b: NUMPY.correlate(x, w, b, padding="same"),
        )
    for layer, (C, H) in POOLS.items():
        x, dy = draw(N, C, H, H), draw(N, C, H // 2, H // 2)
        gamma, beta = draw(C), draw(C)
        index, packed_index = NUMPY.max_pool(x, 2)[1], numba_backend.max_pool(pack(x), 2)[1]
        same_size = draw(N, C, H, H)
        calls = {
            "max_pool": (
                lambda be, x=x: be.max_pool(x, 2)[0],
                lambda x=x: numba_backend.max_pool(pack(x), 2)[0],
            ),
            "max_pool_grad": (
                lambda be, dy=dy, index=index, x=x: be.max_pool_grad(dy, index, x.shape, 2),
                lambda dy=dy, index=packed_index, x=x: numba_backend.max_pool_grad(
                    pack(dy), index, x.shape, 2
                ),
            ),
            "avg_pool": (
                lambda be, x=x: be.avg_pool(x, 2),
                lambda x=x: numba_backend.avg_pool(pack(x), 2),
            ),
            "avg_pool_grad": (
                lambda be, dy=dy, x=x: be.avg_pool_grad(dy, x.shape, 2),
                lambda dy=dy, x=x: numba_backend.avg_pool_grad(pack(dy), x.shape, 2),
            ),
            "batch_norm": (
                lambda be, x=x, gamma=gamma, beta=beta: be.batch_norm(x, gamma, beta, 1e-5),
                lambda x=x, gamma=gamma, beta=beta: numba_backend.batch_norm(
                    pack(x), gamma, beta, 1e-5
                )[0],
            ),
            "leaky_relu_grad": (
                lambda be, dy=same_size, x=x: be.leaky_relu_grad(dy, x, 0.01),
                lambda dy=same_size, x=x: numba_backend.leaky_relu_grad(pack(dy), pack(x), 0.01),
            ),
        }
        for name, (on_arrays, on_packed) in calls.items():
            yield (
                f"{name}, {layer}",
                lambda call=on_arrays: call(numba_backend),
                lambda call=on_packed: unpack(call()),
                lambda call=on_arrays: call(NUMPY),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8, 16, 64])
    parser.add_argument("--kernels", nargs="+", help="measure only the rows that begin with these")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each call")
    arguments = parser.parse_args()
    dtype = np.dtype(arguments.dtype)
    chosen = [N for N in arguments.images if use_packed_layout(N, dtype, training=False)]
    print(f"{platform.processor() or platform.machine()}, {packed.simd_width(dtype)} lanes")
    print(f"`correlate` packs these numbers of images: {chosen}")
    print()
    print("| kernel | images | plain | packed | NumPy | packed / plain |")
    print("|---|---|---|---|---|---|")
    for N in arguments.images:
        for name, on_arrays, on_packed, by_numpy in rows(N, dtype):
            if arguments.kernels and not name.startswith(tuple(arguments.kernels)):
                continue
            plain_time, packed_time = medians([on_arrays, on_packed], arguments.seconds)
            (numpy_time,) = medians([by_numpy], arguments.seconds)
            times = " | ".join(f"{t * 1e6:.0f}" for t in (plain_time, packed_time, numpy_time))
            print(f"| {name} | {N} | {times} | {packed_time / plain_time:.2f} |", flush=True)


if __name__ == "__main__":
    main()
