"""The roofline plot: operations per second over operations per byte."""

from pathlib import Path

import numpy as np

from bench.common import COLORS, import_pyplot, use_plain_log_ticks

KEY_LINES = 45  # of a column of the key beside a panel
LINES = {"L1": "-", "L2": "--", "L3": "-.", "memory": ":"}


def roofs(axes, peaks: dict, pattern: str, intensities: np.ndarray) -> None:
    """Draw the peak of multiply-adds, and the limit that each memory level's bandwidth sets."""
    top = peaks["gflops"]
    for level, rates in peaks["bandwidth"].items():
        limit = np.minimum(rates[pattern] * intensities, top)
        label = f"{level}: {rates[pattern]:.0f} GB/s"
        axes.plot(intensities, limit, LINES[level], color="#777777", linewidth=1, label=label)
    axes.plot([], [], color="#000000", linewidth=1.5, label=f"FMA: {top:.0f} GFLOP/s")
    axes.plot(intensities[[0, -1]], [top, top], color="#000000", linewidth=1.5)


def clusters(rows: list[dict], height: float) -> list[list[int]]:
    """Group the indices of rows whose points are too close for separate labels."""
    groups: list[list[int]] = []
    for index, row in enumerate(rows):
        for group in groups:
            first = rows[group[0]]
            distance = abs(np.log10(intensity(row) / intensity(first)))
            if distance < 0.07 and abs(np.log10(row["gflops"] / first["gflops"])) < height:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def points(axes, rows: list[dict], numbers: list[int], computes: bool) -> None:
    """Draw a point for each kernel and its number, above a product and to the right of a sweep."""
    style = {"color": COLORS[0], "marker": "o"} if computes else {"color": COLORS[1], "marker": "s"}
    axes.plot(
        [intensity(row) for row in rows],
        [row["gflops"] for row in rows],
        **style,
        linestyle="",
        markersize=5,
        label="products" if computes else "sweeps",
    )
    for group in clusters(rows, 0.25 if computes else 0.05):
        axes.annotate(
            " ".join(str(numbers[index]) for index in group),
            (
                max(intensity(rows[index]) for index in group),
                max(rows[index]["gflops"] for index in group),
            ),
            xytext=(0, 5) if computes else (5, 0),
            textcoords="offset points",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.7},
            rotation=90 if computes else 0,
            ha="center" if computes else "left",
            va="bottom" if computes else "center_baseline",
        )


def intensity(row: dict) -> float:
    return row["operations"] / row["bytes"]


def plot(networks: dict[str, list[dict]], peaks: dict, pattern: str, title: str, path: Path):
    """Draw a panel for each network, with all kernels that do arithmetic."""
    pyplot = import_pyplot()
    columns = max(-(-len(rows) // KEY_LINES) for rows in networks.values())
    longest = max(
        len(f"{row['kernel']} {row['shape']}") for rows in networks.values() for row in rows
    )
    key_width = 4.3 * (longest + 4)  # in points, a 72nd of an inch; a letter is 4.2 wide
    size = 7.5 + columns * key_width / 72, 0.6 + 5.6 * len(networks)
    figure, panels = pyplot.subplots(
        len(networks), figsize=size, squeeze=False, layout="constrained"
    )
    for (network, rows), axes in zip(networks.items(), panels[:, 0], strict=True):
        rows = [row for row in rows if row["operations"]]
        intensities = np.array([intensity(row) for row in rows])
        roofs(axes, peaks, pattern, np.geomspace(intensities.min() / 2, intensities.max() * 2, 500))
        for computes in (True, False):
            chosen = [n for n, row in enumerate(rows) if (row["limit"] == "FMA") == computes]
            points(axes, [rows[n] for n in chosen], [n + 1 for n in chosen], computes)
        key = [f"{n:>2} {row['kernel']} {row['shape']}" for n, row in enumerate(rows, 1)]
        for column, first in enumerate(range(0, len(key), KEY_LINES)):
            axes.annotate(
                "\n".join(key[first : first + KEY_LINES]),
                (1.0, 1.0),
                xycoords="axes fraction",
                xytext=(10 + key_width * column, 0),
                textcoords="offset points",
                fontsize=7,
                va="top",
                family="monospace",
            )
        axes.set(xscale="log", yscale="log", xlabel="FLOP/byte", ylabel="GFLOP/s")
        rates = [row["gflops"] for row in rows]
        axes.set_ylim(min(rates) / 2, 2 * max(*rates, peaks["gflops"]))
        use_plain_log_ticks(axes.xaxis)
        use_plain_log_ticks(axes.yaxis)
        axes.grid(color="#eeeeee")
        axes.legend(loc="lower right", fontsize=7)
        axes.set_title(
            "single layers" if network == "layers" else f"{network} network", fontsize=10
        )
    figure.suptitle(f"Roofline, float32\n{title}", fontsize=10)
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    pyplot.close(figure)
