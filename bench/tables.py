"""Write the tables of the documentation from the JSON files in bench/results.

    .venv/bin/python -m bench.tables

A page marks where a table belongs by two comments, `<!-- generated: NAME -->` and
`<!-- end of generated text -->`. The program replaces the text between them. Never edit that text
by hand: change the results or this program, and run it again.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    backends,
    bars,
    competitors_report,
    footprint,
    roofline,
    roofline_plot,
    scaling,
)
from bench.bars import INFERENCE, TRAINING, Measured, Row
from bench.common import RESULTS, describe, short_name
from bench.competitors_report import THIS

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "benchmarks.md")
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated text -->)", re.S)
TASKS = {TRAINING: "training", INFERENCE: "prediction"}
# The results that have bars: each program's numbers by row.
MEASURED: dict[str, Callable[[dict], dict[Row, Measured]]] = {
    "competitors": competitors_report.measured,
    "scaling": scaling.measured,
    "footprint": footprint.measured,
}

Documents = dict[Path, dict]  # a JSON file of results, and its content


def read_results(name: str) -> Documents:
    """Return the results of this name of all machines."""
    paths = sorted(RESULTS.glob(f"*/{name}.json"))
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def section(path: Path, document: dict, page: Path, alt: str) -> list[str]:
    """Return the heading and the plot of a machine's results."""
    parts = [f"**{describe(document['machine'])}**"]
    plot = path.with_suffix(".png")
    if plot.exists():
        parts.append(f"![{alt}]({Path(os.path.relpath(plot, page.parent)).as_posix()})")
    return parts


def folded(summary: str, parts: list[str]) -> list[str]:
    return [f"<details><summary>{summary}</summary>", *parts, "</details>"]


def is_in_readme(row: Row) -> bool:
    """Return whether the README shows a row: of training, one batch size stands for the others."""
    return row in bars.BARS and (row.task != bars.TRAINING or row.batch == 64)


def speed_block(page: Path) -> str:
    """Compare this library with the fastest other library, all machines side by side."""
    documents = list(read_results("competitors").values())
    cells: dict[Row, list[str]] = {}
    for place, document in enumerate(documents):
        for kind in TASKS:
            for result in document.get(kind, []):
                key = competitors_report.row_of(kind, result)
                row = cells.setdefault(key, ["", ""] * len(documents))
                row[2 * place : 2 * place + 2] = speed_cells(result)
    heads = [
        f"{short_name(document['machine'])}, {document['settings']['threads']} threads | ratio"
        for document in documents
    ]
    lines = [f"| task | {' | '.join(heads)} |", "|---|" + "--:|--:|" * len(documents)]
    shown = [row for row in bars.in_order(list(cells)) if is_in_readme(row)]
    lines += [f"| {row} | {' | '.join(cells[row])} |" for row in shown]
    lost = [f"- {lost_kernels(document)}" for document in read_results("backends").values()]
    return "\n".join([*lines, "", *lost]).strip()


def speed_cells(result: dict) -> list[str]:
    """Return the speed of this library, and its ratio to the fastest other library."""
    rates, batch = result["images_per_second"], result["batch"]
    speed = competitors_report.speed(rates, THIS, batch)
    best = competitors_report.fastest(rates, competitors_report.others(result))
    if best is None:
        return [speed, ""]
    ratio, _, _ = competitors_report.ratio(rates, best)
    cell = competitors_report.emphasize_loss(f"{ratio:.2f} ({best})", ratio)
    return [speed if batch == 1 else f"{speed} images/s", cell]


def single_kernels(document: dict) -> list[dict]:
    return [row for row in document["kernels"] if row["kernel"] != backends.STEP]


def lost_kernels(document: dict) -> str:
    """Return a paragraph that names the kernels on which numba is slower than a reference."""
    rows = single_kernels(document)
    lost = [row for row in rows if backends.is_lost(row)]
    name = short_name(document["machine"])
    if not lost:
        return f"Single kernels on plain arrays, {name}: numba is the fastest in all {len(rows)}."
    parts = []
    for kernel in dict.fromkeys(row["kernel"] for row in lost):
        shares = sorted(backends.lowest_ratio(row) for row in lost if row["kernel"] == kernel)
        ends = dict.fromkeys(f"{share:.2f}" for share in (shares[0], shares[-1]))
        parts.append(f"{' to '.join(ends)} in `{kernel}`")
    reached = ", ".join(parts).replace(" in ", " of NumPy's speed in ", 1)
    return (
        f"Single kernels on plain arrays, {name}: numba is slower than NumPy in {len(lost)} of "
        f"{len(rows)} benchmarks. In these it reaches {reached}. Training calls the kernels on the "
        "packed layout instead."
    )


def bars_block(page: Path) -> str:
    """Compare all measurements that have a bar with it, all machines side by side."""
    machines: dict[str, dict[Row, Measured]] = {}
    for name, measured in MEASURED.items():
        for document in read_results(name).values():
            machine = document["machine"]
            heading = f"{short_name(machine)}, {machine['cpu']['count']} cores"
            machines.setdefault(heading, {}).update(measured(document))
    return bars.side_by_side(machines)


def footprint_block(page: Path) -> str:
    parts = []
    for document in read_results("footprint").values():
        parts.append(f"**{describe(document['machine'])}**")
        parts.append(footprint.table(document["processes"]))
    return "\n\n".join(parts) or "Not measured yet."


def competitors_block(page: Path) -> str:
    parts = []
    for path, document in read_results("competitors").items():
        parts += section(path, document, page, "Training and prediction speed by library")
        for kind, task in TASKS.items():
            if document.get(kind):
                parts += [f"{task.capitalize()}:", competitors_report.table(kind, document[kind])]
    return "\n\n".join(parts)


def backends_block(page: Path) -> str:
    parts = []
    for path, document in read_results("backends").items():
        rows = single_kernels(document)
        steps = [row for row in document["kernels"] if row not in rows]
        parts += section(path, document, page, "Median time of each kernel on each backend")
        parts += [document["note"]] if "note" in document else []
        parts += [backends.table(steps)] if steps else []
        parts += [lost_kernels(document)]
        parts += folded(f"All {len(rows)} benchmarks of single kernels", [backends.table(rows)])
    return "\n\n".join(parts)


def roofline_block(page: Path) -> str:
    parts = []
    for path, document in read_results("roofline").items():
        tables = [roofline.peaks_table(document["peaks"])]
        for network, rows in document["kernels"].items():
            tables += [roofline.heading(network, document["batch"]), roofline.table(rows)]
        parts += section(path, document, page, "Roofline")
        parts += folded("All kernels, by number of threads", [*tables, roofline.CAPTION])
    return "\n\n".join(parts)


def scaling_block(page: Path) -> str:
    parts = []
    for path, document in read_results("scaling").items():
        curves = document["curves"].items()
        tables = [scaling.table(scaling.CURVES[name][1], rows) for name, rows in curves]
        parts += section(path, document, page, "Time by batch, pixels, channels and threads")
        parts += folded("The same in numbers", tables)
    return "\n\n".join(parts)


BLOCKS: dict[str, Callable[[Path], str]] = {
    "speed": speed_block,
    "bars": bars_block,
    "footprint": footprint_block,
    "competitors": competitors_block,
    "backends": backends_block,
    "roofline": roofline_block,
    "scaling": scaling_block,
}


def render(page: Path) -> str:
    """Return a page with its tables made from the current results."""

    def replace(match: re.Match) -> str:
        return f"{match[1]}{BLOCKS[match[2]](page)}\n{match[3]}"

    return BLOCK.sub(replace, page.read_text(encoding="utf-8"))


def draw_plots() -> None:
    """Draw the plots of all machines from their results."""
    for path, document in read_results("competitors").items():
        results = {kind: document[kind] for kind in TASKS if document.get(kind)}
        title = describe(document["machine"])
        competitors_report.plot(results, title, path.with_suffix(".png"))
    for path, document in read_results("backends").items():
        title = describe(document["machine"])
        backends.plot(document["kernels"], title, path.with_suffix(".png"))
    for path, document in read_results("roofline").items():
        threads = str(document["settings"]["threads"])
        rows = {network: rows[threads] for network, rows in document["kernels"].items()}
        title = f"{describe(document['machine'])}, {threads} threads"
        peaks = document["peaks"][threads]
        roofline_plot.plot(rows, peaks, roofline.ROOF, title, path.with_suffix(".png"))
    for path, document in read_results("scaling").items():
        title = f"{describe(document['machine'])}, {document['settings']['threads']} threads"
        scaling.plot(document["curves"], title, path.with_suffix(".png"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plots", action="store_true", help="draw the plots again too")
    if parser.parse_args(argv).plots:
        draw_plots()
    for page in PAGES:
        page.write_text(render(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
