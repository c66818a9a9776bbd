"""Publish the benchmarks of the three backends: their medians and a plot of them.

    ./run.sh pytest bench --benchmark-json=bench.json
    .venv/bin/python -m bench.backends bench.json

The first command measures. The second one writes backends.json and backends.png into the results
of the machine that the measurement was made on.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from bench.common import (
    RESULTS,
    add_output_arguments,
    choose_outputs,
    describe,
    duration,
    import_pyplot,
    slug,
    write_document,
)

BACKENDS = ("numba", "scipy", "numpy")
COLORS = {"numba": "#0072b2", "scipy": "#e69f00", "numpy": "#999999"}
TIE = 0.95  # of the faster time: a smaller difference may be noise
PLOTTED_BATCH = 16
STEP = "training step"  # the rows that are not single kernels
SUMMARY = {"cpu", "system", "python_version", "packages", "blas"}  # of the description of a machine


def summarize(measured: dict[str, Any]) -> dict[str, Any]:
    """Return a results document: each backend's median for a kernel, shape and number of images.

    Parameters
    ----------
    measured : dict
        The JSON document of pytest-benchmark.
    """
    rows: dict[tuple, dict] = {}
    for entry in measured["benchmarks"]:
        info = entry["extra_info"]
        key = {name: info[name] for name in ("kernel", "shape", "batch")}
        row = rows.setdefault((*key.values(),), {**key, "seconds": {}, "largest_error": None})
        backend = info["backend"]
        row["seconds"][backend] = entry["stats"]["median"]
        if backend == "numba":
            row["largest_error"] = info["largest_error"]
    machine = {key: value for key, value in measured["machine_info"].items() if key in SUMMARY}
    commit = measured.get("commit_info", {})
    return {
        "machine": machine,
        "date": measured.get("datetime", ""),
        "commit": (commit.get("id") or "")[:12] + ("-dirty" if commit.get("dirty") else ""),
        "kernels": list(rows.values()),
    }


def ratio(row: dict, backend: str = "numpy") -> float | None:
    """Return how many times numba's time a backend takes: below 1, numba is the slower one."""
    seconds = row["seconds"]
    return seconds[backend] / seconds["numba"] if {backend, "numba"} <= set(seconds) else None


def lowest_ratio(row: dict) -> float:
    """Return the ratio to the fastest of the references; infinity where there is none."""
    ratios = (ratio(row, backend) for backend in BACKENDS if backend != "numba")
    return min((value for value in ratios if value is not None), default=math.inf)


def is_lost(row: dict) -> bool:
    """Return whether a reference is faster than numba, by more than noise."""
    return lowest_ratio(row) < TIE


def shape_and_images(row: dict) -> str:
    """Return the shape of a row, and the number of images where it has one."""
    batch = row.get("batch")
    return row["shape"] + ("" if batch is None else f", {batch} image{'s' * (batch > 1)}")


def table(rows: list[dict]) -> str:
    """Return a Markdown table of medians. A reference to which numba loses is bold."""
    lines = [
        "| kernel | shape | numba | scipy | numpy | largest error (numba) |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = []
        for backend in BACKENDS:
            if backend not in row["seconds"]:
                cells.append("as numpy")
                continue
            cell, times = duration(row["seconds"][backend]), ratio(row, backend)
            if backend != "numba" and times is not None:
                cell += f" ({times:.3g}x)"
                cell = f"**{cell}**" if times < TIE else cell
            cells.append(cell)
        error = row["largest_error"]
        cells.append("" if error is None else f"{error:.0e}")
        lines.append(f"| {row['kernel']} | {shape_and_images(row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_to_plot(rows: list[dict]) -> list[dict]:
    """Return the training steps, what has no images, and the kernels on one number of images."""
    batches = {row.get("batch") for row in rows if row["kernel"] != STEP} - {None}
    shown = PLOTTED_BATCH if PLOTTED_BATCH in batches else max(batches, default=None)
    return [row for row in rows if row["kernel"] == STEP or row.get("batch") in (None, shown)]


def plot(rows: list[dict], machine: str, path: Path) -> None:
    """Draw medians on a logarithmic axis, one row a kernel and shape, of one batch size."""
    pyplot = import_pyplot()
    rows = rows_to_plot(rows)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        medians = {backend: 1e3 * seconds for backend, seconds in row["seconds"].items()}
        axes.plot([min(medians.values()), max(medians.values())], [y, y], color="#dddddd")
        for backend, median in medians.items():
            axes.plot(median, y, "o", color=COLORS[backend], markersize=5)
    for backend in BACKENDS:
        axes.plot([], [], "o", color=COLORS[backend], label=backend)
    labels = [f"{row['kernel']}  |  {shape_and_images(row)}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlabel("median time of a call in ms (less is better)")
    axes.set_title(f"Three backends, float32\n{machine}", fontsize=10)
    axes.grid(axis="x", color="#eeeeee")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, help="the JSON file that --benchmark-json wrote")
    add_output_arguments(parser)
    args = parser.parse_args(argv)
    try:
        document = summarize(json.loads(args.measured.read_text(encoding="utf-8")))
        folder = RESULTS / slug(document["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(
            f"backends.py: {args.measured}: not a JSON file of these benchmarks: {error!r}",
            file=sys.stderr,
        )
        return 2
    choose_outputs(args, "backends", folder)
    print(f"Machine: {describe(document['machine'])}.\n\n{table(document['kernels'])}")
    if args.json is not None:
        write_document(args.json, document)
    if args.plot is not None:
        plot(document["kernels"], describe(document["machine"]), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
