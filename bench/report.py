"""Turn a JSON file of pytest-benchmark into the README's table and plot.

./run.sh pytest bench --benchmark-json=bench.json
.venv/bin/python -m bench.report bench.json --plot bench.png
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

BACKENDS = ("numba", "scipy", "numpy")
COLORS = {"numba": "#0072b2", "scipy": "#e69f00", "numpy": "#999999"}


def read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, dict]]]:
    """Return the machine, and for each (kernel, shape) the entry of each backend."""
    document = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[tuple[str, str], dict[str, dict]] = defaultdict(dict)
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        groups[info["kernel"], info["shape"]][info["backend"]] = entry
    return document["machine_info"], groups


def duration(seconds: float) -> str:
    """Return a time with three digits and a unit that a reader can compare."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} us"


def table(groups: dict[tuple[str, str], dict[str, dict]]) -> str:
    """Return a Markdown table of medians, with how many times slower the references are."""
    lines = [
        "| kernel | shape | numba | scipy | numpy | largest error (numba) |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for (kernel, shape), entries in groups.items():
        cells = []
        fast = entries["numba"]["stats"]["median"] if "numba" in entries else None
        for backend in BACKENDS:
            if backend not in entries:
                cells.append("as numpy")
                continue
            median = entries[backend]["stats"]["median"]
            ratio = f" ({median / fast:.3g}x)" if fast and backend != "numba" else ""
            cells.append(duration(median) + ratio)
        error = entries["numba"]["extra_info"]["largest_error"] if "numba" in entries else None
        cells.append("" if error is None else f"{error:.0e}")
        lines.append(f"| {kernel} | {shape} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(groups: dict[tuple[str, str], dict[str, dict]], machine: str, path: Path) -> None:
    """Draw every median on a logarithmic axis, one row a kernel and shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(groups)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.22 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        medians = {b: e["stats"]["median"] * 1e3 for b, e in groups[name].items()}
        axes.plot([min(medians.values()), max(medians.values())], [row, row], color="#dddddd")
        for backend, median in medians.items():
            axes.plot(median, row, "o", color=COLORS[backend], markersize=5)
    for backend in BACKENDS:
        axes.plot([], [], "o", color=COLORS[backend], label=backend)
    axes.set_yticks(range(len(names)), [f"{kernel}  |  {shape}" for kernel, shape in names])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlabel("median time of a call in ms (less is better)")
    axes.set_title(f"Three backends, float32\n{machine}", fontsize=10)
    axes.grid(axis="x", color="#eeeeee")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def describe(machine: dict[str, Any]) -> str:
    """Return the processor, its cores and the Python version."""
    cpu = machine.get("cpu", {})
    return (
        f"{cpu.get('brand_raw', machine.get('processor', 'unknown processor'))}, "
        f"{cpu.get('count', '?')} cores, Python {machine.get('python_version', '?')}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("json", type=Path, help="what --benchmark-json wrote")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the medians too")
    args = parser.parse_args(argv)
    try:
        machine, groups = read(args.json)
    except (OSError, ValueError, KeyError) as error:
        print(f"report.py: {args.json}: is no JSON of these benchmarks: {error}", file=sys.stderr)
        return 2
    print(f"Machine: {describe(machine)}. Times are medians; (x) is how many times numba's.\n")
    print(table(groups))
    if args.plot is not None:
        plot(groups, describe(machine), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
