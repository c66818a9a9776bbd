"""The table and the plot of `bench.competitors`: how many times faster this library is."""

from pathlib import Path

import numpy as np

from bench import bars
from bench.bars import INFERENCE, LABELS, TRAINING, Measured, Row
from bench.common import COLORS, duration, import_pyplot, use_plain_log_ticks

THIS = "this"  # the key of this library in the results
# Each kind of table has a column that compares with the fastest of these.
MAIN_RIVALS = {
    TRAINING: (
        "the fastest PyTorch mode",
        ("PyTorch", "PyTorch, channels last", "torch.compile"),
    ),
    INFERENCE: ("the faster of ONNX Runtime and OpenVINO", ("ONNX Runtime", "OpenVINO")),
}
MARKERS = "osD^vP*X"

Rates = dict[str, list[float]]


def ratio(rates: Rates, name: str) -> tuple[float, float, float]:
    """Return how many times faster this library is: by the medians, the lowest and highest round.

    A ratio below 1 says that this library is slower.
    """
    this, other = np.array(rates[THIS]), np.array(rates[name])
    ratios = this / (other if len(other) == len(this) else np.median(other))
    return float(np.median(this) / np.median(other)), float(ratios.min()), float(ratios.max())


def row_of(kind: str, result: dict) -> Row:
    """Return what a result is of. Earlier versions measured float32 and did not write it."""
    return Row(kind, result["network"], result.get("dtype", "float32"), result["batch"])


def measured(document: dict) -> dict[Row, Measured]:
    """Return the ratio of each row to the fastest other library."""
    found = {}
    for kind in (TRAINING, INFERENCE):
        for result in document.get(kind, []):
            rates = result["images_per_second"]
            best = fastest(rates, others(result))
            if best is not None:
                found[row_of(kind, result)] = Measured(*ratio(rates, best), best)
    return found


def fastest(rates: Rates, names: tuple[str, ...] | list[str]) -> str | None:
    """Return the fastest of the named libraries, or None when none of them was measured."""
    measured = [name for name in names if name in rates]
    return max(measured, key=lambda name: float(np.median(rates[name])), default=None)


def names_of(results: list[dict]) -> list[str]:
    """Return the names of all libraries in the results, this library first."""
    return list(dict.fromkeys(name for row in results for name in row["images_per_second"]))


def others(result: dict) -> list[str]:
    return [name for name in result["images_per_second"] if name != THIS]


def speed(rates: Rates, name: str, batch: int) -> str:
    """Return images/s, or for a single image its time; nothing when it was not measured."""
    if name not in rates:
        return ""
    rate = float(np.median(rates[name]))
    return duration(1 / rate) if batch == 1 else f"{rate:,.0f}"


def emphasize_loss(text: str, ratio: float) -> str:
    return f"**{text}**" if ratio < 1 else text


def ratio_with_spread(rates: Rates, name: str | None) -> str:
    if name is None:
        return ""
    middle, low, high = ratio(rates, name)
    return emphasize_loss(f"{middle:.2f} ({low:.2f} to {high:.2f})", middle)


def head(kind: str, names: list[str]) -> str:
    """Return the first lines of a table with a column for each of the names."""
    columns = ["this library" if name == THIS else name for name in names]
    columns += [f"ratio to {MAIN_RIVALS[kind][0]}", "ratio to the fastest of all others"]
    columns = ["network", "dtype", "batch", *columns, "bar (aim)", "verdict"]
    return f"| {' | '.join(columns)} |\n|---|---|" + "--:|" * (len(columns) - 4) + "---|---|"


def row(kind: str, result: dict, names: list[str]) -> str:
    """Return a line of the table; a cell is empty where a library was left out."""
    rates, key = result["images_per_second"], row_of(kind, result)
    _, network, dtype, batch = key
    cells = [network, dtype, f"{batch:,}", *(speed(rates, name, batch) for name in names)]
    cells.append(ratio_with_spread(rates, fastest(rates, MAIN_RIVALS[kind][1])))
    best = fastest(rates, others(result))
    cells.append(ratio_with_spread(rates, best) + (f", {best}" if best else ""))
    ours = measured({kind: [result]})
    cells += [bars.bar_text(key), bars.verdict(key, ours[key]) if key in ours else ""]
    return f"| {' | '.join(cells)} |"


def table(kind: str, results: list[dict]) -> str:
    names = names_of(results)
    return "\n".join([head(kind, names), *(row(kind, result, names) for result in results)])


def draw_row(axes, y: int, result: dict, names: list[str]) -> None:
    """Draw the ratio to each of the others, one below the other, with the range of the rounds."""
    shown = others(result)
    for place, name in enumerate(shown):
        middle, low, high = ratio(result["images_per_second"], name)
        height = y + 0.75 * ((place + 0.5) / len(shown) - 0.5)
        style = names.index(name)
        axes.plot([low, high], [height, height], color=COLORS[style], linewidth=1.5)
        axes.plot(middle, height, MARKERS[style], color=COLORS[style], markersize=6)


def plot_label(row: Row) -> str:
    return f"{row.network}, {row.dtype}, batch {row.batch:,}"


def plot(results: dict[str, list[dict]], machine: str, path: Path) -> None:
    """Draw how many times faster this library is than each of the others, a panel a kind."""
    pyplot = import_pyplot()
    counts = [len(rows) for rows in results.values()]
    figure, panels = pyplot.subplots(
        len(results),
        figsize=(9, 2.2 + 0.8 * sum(counts)),
        height_ratios=counts,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    names = list(dict.fromkeys(n for rows in results.values() for row in rows for n in others(row)))
    for (kind, rows), axes in zip(results.items(), panels[:, 0], strict=True):
        for y, result in enumerate(rows):
            draw_row(axes, y, result, names)
        labels = [plot_label(row_of(kind, result)) for result in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(1, color="#000000", linewidth=1)
        axes.set_xscale("log")
        use_plain_log_ticks(axes.xaxis)
        axes.grid(axis="x", color="#e5e5e5")
        axes.set_title(LABELS.get(kind, kind), fontsize=10)
    for place, name in enumerate(names):
        panels[0, 0].plot([], [], MARKERS[place], color=COLORS[place], label=name)
    figure.suptitle(f"Compared with other libraries\n{machine}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    panels[-1, 0].set_xlabel(
        "how many times faster this library is (right of 1: faster; left of 1: slower)"
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
