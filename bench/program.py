"""What the benchmark programs share: arguments, the machine they ran on, JSON and plots."""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from numba import config

from training.cli.arguments import positive_int

# Okabe and Ito's colours, which colour-blind people tell apart as well.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
CORES: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "jax", "onnxruntime", "openvino")


def positive_seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 3600:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 3600 seconds, got {text}")
    return number


def thread_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= CORES:
        raise argparse.ArgumentTypeError(f"must be 1 to {CORES} on this machine, got {text}")
    return number


def new_file(text: str) -> Path:
    """Return a path to write to: a wrong one is better found before the measurement."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return path


def new_plot(text: str) -> Path:
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("needs matplotlib: pip install matplotlib")
    return new_file(text)


def make_parser(doc: str, turns: int, seconds: float) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all programs take, with these defaults."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=thread_count, default=CORES, metavar="N", help=f"default: all, {CORES}")
    add("--turns", type=positive_int, default=turns, metavar="N", help=f"default: {turns}")
    add(
        "--seconds",
        type=positive_seconds,
        default=seconds,
        metavar="S",
        help=f"a turn of one row takes, about (default: {seconds})",
    )
    add("--json", type=new_file, metavar="FILE", help="write all figures here")
    add("--plot", type=new_plot, metavar="PNG", help="draw them here")
    return parser


def processor() -> str:
    """Return the processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Describe this machine in the form of pytest-benchmark, and the packages on it."""
    versions = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": {"brand_raw": processor(), "count": CORES},
        "system": platform.system(),
        "python_version": platform.python_version(),
        "packages": versions,
    }


def write_json(path: Path, args: argparse.Namespace, **results: Any) -> None:
    """Write the machine, the settings and the results."""
    settings = {"threads": args.threads, "turns": args.turns, "seconds": args.seconds}
    document = {"machine": machine(), "settings": settings, **results}
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def drawing():
    """Return matplotlib's pyplot, set up to draw into files only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def label_plainly(axis) -> None:
    """Label a logarithmic axis 1, 2, 5, 10 and not with powers."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
