"""The table and the plot of `bench.peers`: how many times faster ours is than each."""

from pathlib import Path

import numpy as np

from bench.program import COLORS, drawing, label_plainly
from bench.report import duration

TITLES = {
    "training": "Training, images/s; the ratio is to the best of PyTorch",
    "inference": "Inference, images/s, or for a batch of 1 the time of an image; the ratio is to "
    "ONNX Runtime",
}
# The best of these is what the last column compares ours with.
RIVALS = {
    "training": ("PyTorch", "PyTorch, channels last", "torch.compile"),
    "inference": ("ONNX Runtime",),
}
MARKERS = "osD^vP*X"


def ratio(rates: dict[str, list[float]], name: str) -> tuple[float, float, float]:
    """Return how many times faster ours is: by the medians, and the lowest and highest turn."""
    mine, theirs = np.array(rates["ours"]), np.array(rates[name])
    ratios = mine / (theirs if len(theirs) == len(mine) else np.median(theirs))
    return float(np.median(mine) / np.median(theirs)), float(ratios.min()), float(ratios.max())


def rival(kind: str, rates: dict[str, list[float]]) -> str | None:
    """Return the fastest of those that the last column compares ours with."""
    there = [name for name in RIVALS[kind] if name in rates]
    return max(there, key=lambda name: float(np.median(rates[name])), default=None)


def head(kind: str, names: list[str]) -> str:
    """Return the title and the first lines of a table with a column for each of the names."""
    columns = " | ".join(names)
    return (
        f"\n{TITLES[kind]}:\n\n| network | batch | {columns} | ratio (lowest to highest) |\n"
        "|---|" + "--:|" * (len(names) + 2)
    )


def row(kind: str, result: dict, names: list[str]) -> str:
    """Return a line of the table; a cell is empty where something was left out."""
    rates, batch = result["images_per_second"], result["batch"]
    cells = [result["network"], f"{batch:,}"]
    for name in names:
        rate = float(np.median(rates[name])) if name in rates else 0.0
        shown = duration(1 / rate) if rate and batch == 1 else f"{rate:,.0f}"
        cells.append(shown if rate else "")
    best = rival(kind, rates)
    middle, low, high = ratio(rates, best) if best else (0.0, 0.0, 0.0)
    cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})" if best else "")
    return f"| {' | '.join(cells)} |"


def others(result: dict) -> list[str]:
    return [name for name in result["images_per_second"] if name != "ours"]


def draw_row(axes, at: int, result: dict, names: list[str]) -> None:
    """Draw the ratio to each of the others under each other, with the spread of the turns."""
    for place, name in enumerate(others(result)):
        middle, low, high = ratio(result["images_per_second"], name)
        y = at + 0.75 * ((place + 0.5) / len(others(result)) - 0.5)
        style = names.index(name)
        axes.plot([low, high], [y, y], color=COLORS[style], linewidth=1.5)
        axes.plot(middle, y, MARKERS[style], color=COLORS[style], markersize=6)


def plot(results: dict[str, list[dict]], machine: str, path: Path) -> None:
    """Draw how many times faster ours is than each of the others, a panel a kind."""
    pyplot = drawing()
    counts = [len(rows) for rows in results.values()]
    figure, panels = pyplot.subplots(
        len(results),
        figsize=(9, 2.2 + 0.8 * sum(counts)),
        height_ratios=counts,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    names = list(dict.fromkeys(n for rows in results.values() for r in rows for n in others(r)))
    for (kind, rows), axes in zip(results.items(), panels[:, 0], strict=True):
        for at, result in enumerate(rows):
            draw_row(axes, at, result, names)
        labels = [f"{result['network']}, batch {result['batch']:,}" for result in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(1, color="#000000", linewidth=1)
        axes.set_xscale("log")
        label_plainly(axes.xaxis)
        axes.grid(axis="x", color="#e5e5e5")
        axes.set_title(kind, fontsize=10)
    for place, name in enumerate(names):
        panels[0, 0].plot([], [], MARKERS[place], color=COLORS[place], label=name)
    figure.suptitle(f"Beside other libraries, float32\n{machine}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    panels[-1, 0].set_xlabel("how many times faster ours is (right of 1: faster; left: slower)")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
