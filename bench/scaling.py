"""How the time of a training step grows with the batch, the pixels, the filters and the threads.

    .venv/bin/python -m bench.scaling

The last column is the time per unit of work, as a multiple of that in the first row. 1.00 means
that the time is proportional to the work; a smaller number is better; a larger one means that
something does not scale.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import bars
from bench.bars import BATCH_64, LARGE_IMAGES, TWO_THREADS, WHOLE_LANES, Measured
from bench.common import (
    COLORS,
    CORES,
    describe,
    duration,
    import_pyplot,
    machine,
    make_parser,
    parse_measurement,
    use_plain_log_ticks,
    write_json,
)
from bench.networks import NETWORKS
from bench.timing import interleave
from kernels import get_backend
from kernels.numba_backend.packed.layout import simd_width
from layers import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool, Relu, fuse
from training import Adam, Model

BATCHES = (64, 128, 256, 512, 1024)
SIDES = (28, 32, 64, 128)
CHANNELS = (16, 32, 64, 128, 256)
PARTLY_FILLED = (10, 50)  # batches that leave SIMD lanes of their last block empty


@dataclass(frozen=True)
class Row:
    """A step to time. Its time should be proportional to ``work``."""

    value: int
    images: int
    work: float
    step: Callable[[], object]


def training_step(model: Model, batch: int) -> Callable[[], float]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *model.input_shape), dtype=np.float32)
    y = rng.integers(0, model.classes, batch)
    model.compile(optimizer=Adam())
    return lambda: model.train_step(x, y)


def conv_network(side: int) -> Model:
    """Return a network of which all layers but the last work on pixels."""
    model = Model((1, side, side))
    for filters in (16, 32):
        model.add(Conv(filters, kernel_size=3, padding="same")).add(BatchNorm()).add(Relu())
        if filters == 16:
            model.add(MaxPool(2))
    return model.add(GlobalAvgPool()).add(Dense(10))


def conv_block(channels: int, batch: int, side: int = 16) -> Callable[[], object]:
    """Return a function that runs a convolution, BatchNorm and ReLU forward and backward."""
    shape = (channels, side, side)
    layers = [Conv(channels, kernel_size=3, padding="same"), BatchNorm(), Relu()]
    steps = fuse([layer.build(shape) for layer in layers])
    backend = get_backend("numba")
    x, dy = (
        backend.from_array(
            np.random.default_rng(seed).standard_normal((batch, *shape), dtype=np.float32)
        )
        for seed in (0, 1)
    )

    def step():
        y, gradient = x, dy
        for layer in steps:
            y = layer.forward(y, training=True)
        for layer in reversed(steps):
            gradient = layer.backward(gradient)

    return step


def by_batch() -> list[Row]:
    small = NETWORKS["small"]
    return [Row(batch, batch, batch, training_step(small(), batch)) for batch in BATCHES]


def whole_lanes(batch: int) -> int:
    """Return the next number of images that fills whole blocks of SIMD lanes."""
    lanes = simd_width(np.dtype(np.float32))
    return -(-batch // lanes) * lanes


def by_lanes() -> list[Row]:
    """Return each batch that fills its blocks in part, and the next one that fills them."""
    small = NETWORKS["small"]
    batches = [size for batch in PARTLY_FILLED for size in (batch, whole_lanes(batch))]
    return [
        Row(batch, batch, whole_lanes(batch), training_step(small(), batch)) for batch in batches
    ]


def by_side(batch: int = 64) -> list[Row]:
    return [
        Row(side, batch, side * side, training_step(conv_network(side), batch)) for side in SIDES
    ]


def by_channels(batch: int = 32) -> list[Row]:
    return [Row(count, batch, count * count, conv_block(count, batch)) for count in CHANNELS]


def on_threads(threads: int, step: Callable[[], object]) -> Callable[[], object]:
    def call():
        get_backend("numba").set_threads(threads)
        step()

    return call


def by_threads(network: str, batch: int) -> list[Row]:
    """Return rows for 1, 2, 4, ... threads up to all cores; ``work`` is the work per thread."""
    counts = sorted({*(2**power for power in range(CORES.bit_length())), CORES})
    step = training_step(NETWORKS[network](), batch)
    return [Row(count, batch, 1 / count, on_threads(count, step)) for count in counts]


# The quantity that grows: a function that makes its rows, and the title of its table.
CURVES: dict[str, tuple[Callable[[], list[Row]], str]] = {
    "batch": (by_batch, "images a batch, small network"),
    "lanes": (by_lanes, "images a batch, small network, work in whole blocks of SIMD lanes"),
    "side": (by_side, "pixels along a side, two convolutions, batch 64"),
    "channels": (by_channels, "channels and as many 3x3 filters, 16x16 pixels, batch 32"),
    "threads": (lambda: by_threads("small", 256), "threads, small network, batch 256"),
    "threads-wide": (lambda: by_threads("wide", 64), "threads, wide network, batch 64"),
}


def measure(rows: list[Row], rounds: int, seconds: float) -> list[dict]:
    """Return the times of each row."""
    steps = {row.value: row.step for row in rows}
    for step in steps.values():
        step()
    times = interleave(steps, rounds, seconds, warmup=seconds / 5)
    results: list[dict] = []
    for row in rows:
        time = float(np.median(times[row.value]))
        results.append(
            {
                "value": row.value,
                "seconds": time,
                "lowest": min(times[row.value]),
                "highest": max(times[row.value]),
                "rounds": times[row.value],
                "images": row.images,
                "images_per_second": row.images / time,
                "seconds_per_unit_of_work": time / row.work,
            }
        )
    for result in results:
        first = results[0]["seconds_per_unit_of_work"]
        result["relative"] = result["seconds_per_unit_of_work"] / first
    return results


def times_of(rows: list[dict], value: int) -> dict | None:
    return next((row for row in rows if row["value"] == value), None)


def share(row: dict | None, other: dict | None, factor: float = 1.0) -> Measured | None:
    """Return how many times the time of ``other`` that of ``row`` is, times a factor.

    The spread is over the rounds; results of earlier versions do not have them.
    """
    if row is None or other is None:
        return None
    middle = factor * row["seconds"] / other["seconds"]
    if "rounds" not in row or "rounds" not in other:
        return Measured(middle)
    ratios = factor * np.array(row["rounds"]) / np.array(other["rounds"])
    return Measured(middle, float(ratios.min()), float(ratios.max()))


def measured(document: dict) -> dict[bars.Row, Measured]:
    """Return the numbers that have a bar, as far as a results document has their curves."""
    curves = {name: document["curves"].get(name, []) for name in CURVES}
    batches, sides, threads = (curves[name] for name in ("batch", "side", "threads"))
    found = {
        bars.Row(TWO_THREADS, "small", "float32", 256): share(
            times_of(threads, 1), times_of(threads, 2)
        ),
        # The time an image at batch 256 as a share of that at batch 64.
        bars.Row(BATCH_64, "small", "float32"): share(
            times_of(batches, 256), times_of(batches, 64), 64 / 256
        ),
        bars.Row(LARGE_IMAGES, "two convolutions", "float32", 64): share(
            times_of(sides, 128), times_of(sides, 28), 28**2 / 128**2
        ),
    }
    lanes = curves["lanes"]
    for part, whole in zip(lanes[::2], lanes[1::2], strict=True):
        found[bars.Row(WHOLE_LANES, "small", "float32", part["value"])] = share(whole, part)
    return {row: value for row, value in found.items() if value is not None}


def table(title: str, rows: list[dict]) -> str:
    lines = [
        f"| {title} | step (lowest to highest) | an image | images/s | time per unit of work |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        spread = " to ".join(duration(row[end]) for end in ("lowest", "highest"))
        lines.append(
            f"| {row['value']:,} | {duration(row['seconds'])} ({spread}) | "
            f"{duration(row['seconds'] / row['images'])} | "
            f"{row['images_per_second']:,.0f} | {row['relative']:.2f} |"
        )
    return "\n".join(lines)


def draw_curve(axes, name: str, rows: list[dict]) -> None:
    """Draw a curve, and a dashed line for a time that is proportional to the work."""
    values = np.array([row["value"] for row in rows], float)
    rates = np.array([row["images_per_second"] for row in rows])
    ratios = values / values[0]
    if name.startswith("threads"):
        shown, expected, label = rates / rates[0], ratios, "times as fast as on one thread"
    elif name == "lanes":
        steps = np.array([row["seconds"] for row in rows])
        work = np.array([row["seconds"] / row["seconds_per_unit_of_work"] for row in rows])
        shown, expected, label = 1e6 * steps, 1e6 * steps[-1] * work / work[-1], "us a step"
    elif name == "batch":
        shown, expected, label = rates, np.full_like(rates, rates[0]), "images/s"
    else:
        shown, expected, label = 1e6 / rates, 1e6 / rates[0] * ratios**2, "us an image"
        axes.set_yscale("log")
        use_plain_log_ticks(axes.yaxis)
    wide = name.endswith("wide")
    axes.plot(values, expected, "--", color="#777777", linewidth=1)
    axes.plot(
        values,
        shown,
        "s-" if wide else "o-",
        color=COLORS[wide],
        markersize=5,
        label="wide network, batch 64" if wide else "small network, batch 256",
    )
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.1 * max(shown.max(), expected.max())))
    axes.set_ylabel(label)
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)
    axes.grid(color="#eeeeee")


def plot(results: dict[str, list[dict]], title: str, path: Path) -> None:
    """Draw a panel for each curve; both networks share the panel of the threads."""
    pyplot = import_pyplot()
    names = list(dict.fromkeys(name.partition("-")[0] for name in results))
    columns = min(len(names), 2)
    lines = -(-len(names) // 2)
    figure, panels = pyplot.subplots(
        lines, columns, figsize=(5 * columns, 3.7 * lines), squeeze=False, layout="constrained"
    )
    panel_of = dict(zip(names, panels.flat, strict=False))
    for name, rows in results.items():
        axes = panel_of[name.partition("-")[0]]
        draw_curve(axes, name, rows)
        axes.set_xlabel("threads" if name.startswith("threads") else CURVES[name][1])
    if "threads" in panel_of:
        panel_of["threads"].legend(loc="lower right", fontsize=8)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    figure.suptitle(f"Scaling of a training step (dashed: proportional)\n{title}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__ or "", rounds=7, seconds=0.2)
    parser.add_argument(
        "--only",
        choices=list(CURVES),
        nargs="+",
        default=list(CURVES),
        metavar="CURVE",
        help=f"any of {', '.join(CURVES)} (default: all)",
    )
    args = parse_measurement(parser, argv, "scaling")
    title = f"{describe(machine())}, {args.threads} threads"
    print(f"Machine: {title}.")
    results = {}
    for name in args.only:
        get_backend("numba").set_threads(args.threads)
        make, heading = CURVES[name]
        results[name] = measure(make(), args.rounds, args.seconds)
        print(f"\n{table(heading, results[name])}", flush=True)
    print(f"\n{bars.summary(measured({'curves': results}))}")
    if args.json is not None:
        write_json(args.json, args, curves=results)
    if args.plot is not None:
        plot(results, title, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
