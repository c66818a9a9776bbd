"""The time from a program's start to its first finished step, and the peak of its memory.

    .venv/bin/python -m bench.footprint

Each number is that of a new process, which imports the library, builds a network and trains it.
"Cached" is a start with the kernels that an earlier process compiled, "not cached" one with an
empty folder of kernels. The memory is the largest resident memory over all steps, with the kernels
cached. PyTorch runs eagerly, in its default layout and with channels last, not with torch.compile,
whose compiler takes time and memory of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench import bars
from bench.bars import MEMORY, START_COLD, START_WARM, Measured, Row
from bench.common import describe, duration, machine, make_parser, parse_measurement, write_json
from bench.competitors import BATCHES, DTYPES
from bench.competitors_report import THIS
from bench.first_step import FIRST_STEP
from bench.networks import NETWORKS
from training.cli.flag_types import positive_int

ROOT = Path(__file__).parents[1]
BATCH = 256
STEPS = 10  # of each process, so that memory that steps keep would show
TORCH_MODES = {"PyTorch": [], "PyTorch, channels last": ["channels_last"]}
NETWORKS_AND_DTYPES = list(BATCHES[bars.TRAINING])


def run_process(
    arguments: list[str], settings: list[str], environment: dict[str, str] | None = None
) -> tuple[float, int]:
    """Return the seconds from the start of a process to its first step, and its peak in bytes.

    Raises
    ------
    RuntimeError
        If the process fails.
    """
    command = [sys.executable, "-m", "bench.first_step", *arguments[:2], *settings, *arguments[2:]]
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == FIRST_STEP:  # a library may print before
                    break
            seconds = time.perf_counter() - start
            rest = process.stdout.read().split()
        if process.returncode != 0 or not rest:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"{' '.join(command[2:])} failed: {last}")
    return seconds, int(rest[-1])


def save_torch_module(network: str, folder: Path) -> Path:
    """Write the network as a PyTorch module and the shape of its images; return the path."""
    from bench import competitors_torch

    model = NETWORKS[network](backend="numpy")
    path = folder / f"{network}.pt"
    competitors_torch.torch.save((competitors_torch.network(model), model.input_shape), path)
    return path


def measure(network: str, dtype: str, args: argparse.Namespace, folder: Path) -> dict:
    """Return the times and peaks of all processes on a network, by library."""
    processes = {THIS: ["this", network]}
    if "PyTorch" not in args.without:
        path = str(save_torch_module(network, folder))
        processes |= {name: ["torch", path, *extra] for name, extra in TORCH_MODES.items()}
    settings = [dtype, str(args.batch), str(STEPS), str(args.threads)]
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    peaks: dict[str, list[int]] = {name: [] for name in processes}
    for arguments in processes.values():  # compiles the kernels, and reads the files once
        run_process(arguments, settings)
    for _ in range(args.rounds):
        for name, arguments in processes.items():
            time_to_step, peak = run_process(arguments, settings)
            seconds[name].append(time_to_step)
            peaks[name].append(peak)
    result = {"network": network, "dtype": dtype, "batch": args.batch, "cached": seconds}
    if all(min(each) > 0 for each in peaks.values()):
        result["peak_bytes"] = peaks
    result["not_cached"] = []
    for _ in range(args.cold):
        with tempfile.TemporaryDirectory() as empty:
            cold, _ = run_process(processes[THIS], settings, {"NUMBA_CACHE_DIR": empty})
            result["not_cached"].append(cold)
    return result


def spread(series: list[float]) -> Measured:
    return Measured(float(np.median(series)), min(series), max(series))


def measured(document: dict) -> dict[Row, Measured]:
    """Return the numbers that have a bar, and those of the other networks."""
    found = {}
    for result in document["processes"]:
        key = (result["network"], result["dtype"], result["batch"])
        found[Row(START_WARM, *key)] = spread(result["cached"][THIS])
        if result["not_cached"]:
            found[Row(START_COLD, *key)] = spread(result["not_cached"])
        peaks = {name: np.array(each) for name, each in result.get("peak_bytes", {}).items()}
        if len(peaks) > 1:
            others = [name for name in peaks if name != THIS]
            least = min(others, key=lambda name: float(np.median(peaks[name])))
            ratios = peaks[least] / peaks[THIS]
            middle = float(np.median(peaks[least]) / np.median(peaks[THIS]))
            low, high = float(ratios.min()), float(ratios.max())
            found[Row(MEMORY, *key)] = Measured(middle, low, high, least)
    return found


def seconds_cell(series: list[float]) -> str:
    """Return the median, and the lowest and highest of some times."""
    if not series:
        return ""
    low, high = (duration(each) for each in (min(series), max(series)))
    return f"{duration(float(np.median(series)))} ({low} to {high})"


def table(results: list[dict]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result["cached"]))
    shown = ["this library" if name == THIS else name for name in names]
    heads = ["network", "dtype", "batch", *(f"first step, {name}" for name in shown)]
    heads += ["first step, kernels not cached", *(f"peak MB, {name}" for name in shown)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for result in results:
        cells = [result["network"], result["dtype"], str(result["batch"])]
        cells += [seconds_cell(result["cached"].get(name, [])) for name in names]
        cells.append(seconds_cell(result["not_cached"]))
        for name in names:
            peaks = result.get("peak_bytes", {}).get(name)
            cells.append(f"{np.median(peaks) / 1e6:,.0f}" if peaks else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", rounds=5, seconds=None, has_plot=False)
    add = parser.add_argument
    add("--network", choices=list(NETWORKS), nargs="+", help="default: all")
    add("--dtype", choices=DTYPES, nargs="+", help="default: both")
    add(
        "--batch",
        type=positive_int,
        default=BATCH,
        metavar="N",
        help=f"images a step (default: {BATCH}, which the bars are for)",
    )
    add(
        "--cold",
        type=int,
        choices=range(11),
        default=2,
        metavar="N",
        help="starts without cached kernels, 0 to 10 (default: 2); each takes up to a minute",
    )
    add("--without", choices=["PyTorch"], nargs="+", default=[], help="leave this out")
    return parse_measurement(parser, argv, "footprint")


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    print(f"Machine: {describe(machine())}. {args.threads} threads each.", flush=True)
    if "PyTorch" not in args.without and find_spec("torch") is None:
        print("footprint.py: PyTorch is left out: pip install torch", file=sys.stderr)
        args.without = ["PyTorch"]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for network, dtype in NETWORKS_AND_DTYPES:
            if network in (args.network or NETWORKS) and dtype in (args.dtype or DTYPES):
                results.append(measure(network, dtype, args, Path(folder)))
                print(f"\n{table(results[-1:])}", flush=True)
    print(f"\n{bars.summary(measured({'processes': results}))}")
    if args.json is not None:
        write_json(args.json, args, processes=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
