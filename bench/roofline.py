"""The speed of each kernel as a share of the machine's peak.

    .venv/bin/python -m bench.roofline

The program first measures the peaks of the machine: float32 multiply-adds per second in registers,
and bytes per second from each level of the memory hierarchy. The speed of a sweep over activations
is given as a share of the bandwidth of the smallest level that holds all its inputs and outputs.
That of a convolution or a matrix product is given as a share of the peak of multiply-adds or, where
that would take longer, of this bandwidth. Kernels run as in a model's step: without Python between
them, and on one thread where that is faster.
"""

import sys
from collections.abc import Callable

import numpy as np

from bench.common import (
    describe,
    duration,
    machine,
    make_parser,
    parse_measurement,
    write_json,
)
from bench.layer_kernels import Kernel, kernels_of
from bench.machine_peak import capacities, measure_peaks
from bench.networks import NETWORKS
from bench.roofline_plot import plot
from bench.timing import interleave
from kernels import get_backend
from kernels.numba_backend.runtime.capture import COMPILE_AFTER, capture
from training.cli.flag_types import positive_int

CAPTION = """\
Times are medians. Each input and output counts once, even when a kernel reads it twice: a sweep
that must read its input twice cannot reach 100 %. The operations of a convolution are those of
the direct sum: an algorithm that needs fewer operations, such as Winograd's, can exceed 100 %.
The bandwidth is that of a triad, a + factor * b. A kernel can exceed the bandwidth of a cache
level when the next smaller cache still holds a part of its data."""
ROOF = "triad"
CHOICES = [*NETWORKS, "layers"]


def as_in_a_step(call: Callable[[], object]) -> Callable[[], object]:
    """Return a function that makes the kernel calls of a call as a captured step does.

    A model's steps have no Python between two kernels. It would take 20 to 35 us a call on a slow
    processor, longer than many kernels of small networks.
    """

    def step() -> None:
        call()

    _, replay = capture(step)
    if replay is None:
        return call
    for _ in range(COMPILE_AFTER + 1):
        replay()
    return replay


def measure(kernels: list[Kernel], peaks: dict, threads: int, args) -> list[dict]:
    """Return the time, the speed and the share of the peak of each kernel."""
    calls = {(kernel.name, kernel.shape): as_in_a_step(kernel.call) for kernel in kernels}
    times = interleave(calls, args.rounds, args.seconds)
    return [
        figures(kernel, float(np.median(times[kernel.name, kernel.shape])), peaks, threads)
        for kernel in kernels
    ]


def figures(kernel: Kernel, seconds: float, peaks: dict, threads: int) -> dict:
    gflops, gigabytes = kernel.operations / seconds / 1e9, kernel.moved / seconds / 1e9
    sizes = capacities(threads)
    limit = next(level for level in sizes if kernel.footprint <= sizes[level])
    share = gigabytes / peaks["bandwidth"][limit][ROOF]
    if kernel.computes and gflops / peaks["gflops"] >= share:
        limit, share = "FMA", gflops / peaks["gflops"]
    return {
        "kernel": kernel.name,
        "shape": kernel.shape,
        "operations": kernel.operations,
        "bytes": kernel.moved,
        "seconds": seconds,
        "gflops": gflops,
        "gigabytes_per_second": gigabytes,
        "limit": limit,
        "percent": 100 * share,
    }


def peaks_table(peaks: dict[str, dict]) -> str:
    patterns = list(next(iter(peaks.values()))["bandwidth"]["L1"])
    lines = [
        f"| threads | GFLOP/s | GB/s from | {' | '.join(patterns)} |",
        "|--:|--:|---|" + "--:|" * len(patterns),
    ]
    for threads, peak in peaks.items():
        for i, (level, rates) in enumerate(peak["bandwidth"].items()):
            first = f"{threads} | {peak['gflops']:.0f}" if i == 0 else " | "
            cells = " | ".join(f"{rates[pattern]:.0f}" for pattern in patterns)
            lines.append(f"| {first} | {level} | {cells} |")
    return "\n".join(lines)


def heading(network: str, batch: int) -> str:
    name = "Single layers" if network == "layers" else f"The {network} network"
    return f"{name}, batch {batch}:"


def table(rows: dict[str, list[dict]]) -> str:
    """Return a Markdown table with the results of each number of threads side by side."""
    heads = [
        f"{threads} thread{'s' * (threads != '1')} | GFLOP/s | GB/s | of peak" for threads in rows
    ]
    lines = [
        f"| kernel | shape | {' | '.join(heads)} |",
        "|---|---|" + "--:|" * 4 * len(rows),
    ]
    for same_kernel in zip(*rows.values(), strict=True):
        cells = [
            f"{duration(row['seconds'])} | {row['gflops']:.3g} | "
            f"{row['gigabytes_per_second']:.3g} | {row['percent']:.0f} % {row['limit']}"
            for row in same_kernel
        ]
        first = same_kernel[0]
        lines.append(f"| {first['kernel']} | {first['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__ or "", rounds=9, seconds=0.02)
    parser.add_argument("--network", choices=CHOICES, help="default: all; layers: single layers")
    parser.add_argument(
        "--batch", type=positive_int, default=64, metavar="N", help="images (default: 64)"
    )
    args = parse_measurement(parser, argv, "roofline")
    backend = get_backend("numba")
    networks = [args.network] if args.network else CHOICES
    kernels = {network: kernels_of(network, args.batch) for network in networks}
    peaks: dict[str, dict] = {}  # by the number of threads, which is text in JSON
    rows: dict[str, dict[str, list[dict]]] = {network: {} for network in networks}
    for threads in sorted({1, args.threads}):
        backend.set_threads(threads)
        peak = peaks[str(threads)] = measure_peaks(threads, args.rounds, args.seconds)
        for network in networks:
            rows[network][str(threads)] = measure(kernels[network], peak, threads, args)
    title = describe(machine())
    print(f"Machine: {title}.\n\n{peaks_table(peaks)}")
    for network in networks:
        print(f"\n{heading(network, args.batch)}\n\n{table(rows[network])}")
    print(f"\n{CAPTION}")
    if args.json is not None:
        write_json(args.json, args, batch=args.batch, peaks=peaks, kernels=rows)
    if args.plot is not None:
        most = str(args.threads)
        shown = {network: rows[network][most] for network in networks}
        plot(shown, peaks[most], ROOF, f"{title}, {most} threads", args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
