"""How near each kernel comes to what this machine can do at most.

    .venv/bin/python -m bench.roofline --json roofline.json --plot roofline.png

The machine's peaks are measured first: float32 multiply-adds in registers, and bytes from each
level of the memory. Convolutions and matrix products count as a share of the first; sweeps over
activations as a share of the bandwidth of that level which holds all that they read and write.
"""

import sys

import numpy as np

from bench.layer_kernels import Kernel, kernels_of
from bench.networks import NETWORKS
from bench.peak import capacities, measure_peaks
from bench.program import machine, make_parser, write_json
from bench.report import describe, duration
from bench.roofline_plot import plot
from bench.timing import interleave
from kernels import get_backend
from training.cli.arguments import positive_int

CAPTION = """
Times are medians. Bytes count each input and output once, whatever a kernel reads again, and so
a sweep that must go twice over its input cannot reach 100 %. Operations of a convolution are
those of the direct sum: an algorithm that needs fewer, such as Winograd's, can exceed 100 %.
The bandwidth is that of a triad, a + factor * b; what a smaller cache still holds of a set that
is larger than itself can exceed it."""
ROOF = "triad"


def measure(kernels: list[Kernel], peaks: dict, threads: int, args) -> list[dict]:
    """Return the figures of each kernel."""
    calls = {(kernel.name, kernel.shape): kernel.call for kernel in kernels}
    for call in calls.values():
        call()
    times = interleave(calls, args.turns, args.seconds)
    return [
        figures(kernel, float(np.median(times[kernel.name, kernel.shape])), peaks, threads)
        for kernel in kernels
    ]


def figures(kernel: Kernel, seconds: float, peaks: dict, threads: int) -> dict:
    gflops, gigabytes = kernel.operations / seconds / 1e9, kernel.moved / seconds / 1e9
    held = capacities(threads)
    limit = next(level for level in held if kernel.held <= held[level])
    share = gigabytes / peaks["bandwidth"][limit][ROOF]
    if kernel.computes:
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


def peaks_table(peaks: dict[int, dict]) -> str:
    patterns = list(next(iter(peaks.values()))["bandwidth"]["L1"])
    lines = [
        f"| threads | GFLOP/s | GB/s from | {' | '.join(patterns)} |",
        "|--:|--:|---|" + "--:|" * len(patterns),
    ]
    for threads, of in peaks.items():
        for place, (level, rates) in enumerate(of["bandwidth"].items()):
            first = f"{threads} | {of['gflops']:.0f}" if place == 0 else " | "
            cells = " | ".join(f"{rates[pattern]:.0f}" for pattern in patterns)
            lines.append(f"| {first} | {level} | {cells} |")
    return "\n".join(lines)


def table(rows: dict[int, list[dict]]) -> str:
    """Return a Markdown table with the figures for each number of threads side by side."""
    heads = [
        f"{threads} thread{'s' * (threads > 1)} | GFLOP/s | GB/s | of peak" for threads in rows
    ]
    lines = [
        f"| kernel | shape | {' | '.join(heads)} |",
        "|---|---|" + "--:|" * 4 * len(rows),
    ]
    for together in zip(*rows.values(), strict=True):
        cells = [
            f"{duration(row['seconds'])} | {row['gflops']:.3g} | "
            f"{row['gigabytes_per_second']:.3g} | {row['percent']:.0f} % {row['limit']}"
            for row in together
        ]
        first = together[0]
        lines.append(f"| {first['kernel']} | {first['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__ or "", turns=9, seconds=0.02)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: both")
    parser.add_argument(
        "--batch", type=positive_int, default=64, metavar="N", help="images (default: 64)"
    )
    args = parser.parse_args(argv)
    backend = get_backend("numba")
    networks = [args.network] if args.network else list(NETWORKS)
    kernels = {network: kernels_of(network, args.batch) for network in networks}
    peaks: dict[int, dict] = {}
    rows: dict[str, dict[int, list[dict]]] = {network: {} for network in networks}
    for threads in sorted({1, args.threads}):
        backend.set_threads(threads)
        peaks[threads] = measure_peaks(threads, args.turns, args.seconds)
        for network in networks:
            rows[network][threads] = measure(kernels[network], peaks[threads], threads, args)
    title = describe(machine())
    print(f"Machine: {title}.\n\n{peaks_table(peaks)}")
    for network in networks:
        print(f"\nThe {network} network, batch {args.batch}:\n\n{table(rows[network])}")
    print(CAPTION)
    if args.json is not None:
        write_json(args.json, args, batch=args.batch, peaks=peaks, kernels=rows)
    if args.plot is not None:
        last = {network: rows[network][args.threads] for network in networks}
        plot(last, peaks[args.threads], ROOF, f"{title}, {args.threads} threads", args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
