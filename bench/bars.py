"""The bars: what each measurement of this project must reach, and whether it does.

`BARS` is the only place where they are written. The measuring programs make a `Measured` of each
`Row`; `verdict` compares it with the bar, and `side_by_side` writes the table of all processors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

TRAINING, INFERENCE = "training", "inference"
LABELS = {INFERENCE: "prediction"}
# How many times the speed of one thread two threads reach.
TWO_THREADS = "two threads against one"
BATCH_64 = "images/s of batch 64 against batch 256"
# How long a batch takes that fills whole blocks of SIMD lanes, against one that fills them in part.
WHOLE_LANES = "time of full SIMD blocks against partly filled ones"
LARGE_IMAGES = "time a pixel, 128x128 against 28x28"
START_WARM = "start to first step, kernels cached"
START_COLD = "start to first step, no kernels cached"
MEMORY = "peak memory of PyTorch against ours"
# Tasks in which a number below 1 says that another library is the better one.
RIVALRIES = (TRAINING, INFERENCE, MEMORY)
SECONDS = (START_WARM, START_COLD)


class Row(NamedTuple):
    """What is measured: a task, on a network, in a precision, on batches of this size.

    ``batch`` is 0 where the task is not of one size.
    """

    task: str
    network: str
    dtype: str
    batch: int = 0

    def __str__(self) -> str:
        parts = [LABELS.get(self.task, self.task), f"`{self.network}`", self.dtype]
        if self.batch:
            parts.append("one image" if self.batch == 1 else f"batch {self.batch:,}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Bar:
    """A number to reach, at least or at most, and one to aim for."""

    limit: float
    aim: float | None = None
    at_most: bool = False

    def admits(self, value: float, limit: float) -> bool:
        return value <= limit if self.at_most else value >= limit

    def __str__(self) -> str:
        """Return such as "at least 5.5 (8)"."""
        aim = "" if self.aim is None else f" ({self.aim:g})"
        return f"at {'most' if self.at_most else 'least'} {self.limit:g}{aim}"


class Measured(NamedTuple):
    """A measured number, the lowest and highest of its rounds, and the rival of a ratio.

    ``low`` and ``high`` are None where the rounds were not kept.
    """

    value: float
    low: float | None = None
    high: float | None = None
    rival: str = ""


def _rows(task: str, network: str, dtype: str, bars: dict[int, Bar]) -> dict[Row, Bar]:
    return {Row(task, network, dtype, batch): bar for batch, bar in bars.items()}


# Training: images/s as a multiple of those of the fastest other library, in its best mode, in the
# same precision. Prediction by thousands: likewise. One image: its time in that of this library.
BARS: dict[Row, Bar] = {
    **_rows(
        TRAINING,
        "small",
        "float32",
        {10: Bar(5.5, 8), 16: Bar(7, 9), 64: Bar(7, 9), 256: Bar(6.5, 8)},
    ),
    **_rows(TRAINING, "wide", "float32", dict.fromkeys((64, 256), Bar(1.9, 2.3))),
    **_rows(TRAINING, "wide", "bfloat16", dict.fromkeys((64, 256), Bar(1.4, 1.7))),
    **_rows(TRAINING, "resnet9", "float32", dict.fromkeys((64, 256), Bar(1.5, 2))),
    **_rows(TRAINING, "resnet9", "bfloat16", dict.fromkeys((64, 256), Bar(1.2, 1.5))),
    **_rows(TRAINING, "mobile", "float32", dict.fromkeys((64, 256), Bar(2.5, 4))),
    **_rows(INFERENCE, "small", "float32", {1000: Bar(2), 1: Bar(1)}),
    **_rows(INFERENCE, "wide", "float32", {1000: Bar(1.3), 1: Bar(1)}),
    **_rows(INFERENCE, "resnet9", "float32", {1000: Bar(1.3)}),
    **_rows(INFERENCE, "mobile", "float32", {1000: Bar(1.3)}),
    Row(TWO_THREADS, "small", "float32", 256): Bar(1.85),
    Row(BATCH_64, "small", "float32"): Bar(0.85),
    # The work is equal, so that noise decides which is faster: 5 %, as in `bench.backends`.
    **_rows(WHOLE_LANES, "small", "float32", dict.fromkeys((10, 50), Bar(0.95))),
    Row(LARGE_IMAGES, "two convolutions", "float32", 64): Bar(1.25, at_most=True),
    Row(START_WARM, "small", "float32", 256): Bar(1, at_most=True),
    Row(START_COLD, "small", "float32", 256): Bar(20, at_most=True),
    **{
        Row(MEMORY, network, dtype, 256): Bar(1)
        for network, dtype in (
            ("small", "float32"),
            ("wide", "float32"),
            ("wide", "bfloat16"),
            ("resnet9", "float32"),
            ("resnet9", "bfloat16"),
            ("mobile", "float32"),
        )
    },
}


def verdict(row: Row, measured: Measured) -> str:
    """Return "lost", "missed", "reached" or "aim reached", or "" for a row without a bar."""
    bar = BARS.get(row)
    if row.task in RIVALRIES and measured.value < 1:
        return "lost"
    if bar is None:
        return ""
    if not bar.admits(measured.value, bar.limit):
        return "missed"
    return "aim reached" if bar.aim and bar.admits(measured.value, bar.aim) else "reached"


def bar_text(row: Row) -> str:
    """Return such as "at least 5.5 (8)", with the unit; "" for a row without a bar."""
    return f"{BARS[row]}{unit(row)}" if row in BARS else ""


def unit(row: Row) -> str:
    return " s" if row.task in SECONDS else ""


def number(row: Row, measured: Measured) -> str:
    """Return the number with its spread."""
    spread = ""
    if measured.low is not None and measured.high is not None:
        spread = f" ({measured.low:.2f} to {measured.high:.2f})"
    return f"{measured.value:.2f}{unit(row)}{spread}"


def cell(row: Row, measured: Measured) -> str:
    """Return the number, its spread, the rival and the verdict. A lost row is bold."""
    found = verdict(row, measured)
    text = number(row, measured)
    text = f"**{text}**" if found == "lost" else text
    text += f", {measured.rival}" if measured.rival else ""
    return f"{text}: {found}" if found else text


def in_order(rows: list[Row]) -> list[Row]:
    """Return the rows in the order of BARS, those without a bar behind their task."""
    tasks = list(dict.fromkeys(row.task for row in [*BARS, *rows]))
    places = {row: place for place, row in enumerate(dict.fromkeys([*BARS, *rows]))}
    return sorted(rows, key=lambda row: (tasks.index(row.task), places[row]))


def below(measured: Mapping[Row, Measured]) -> dict[str, list[str]]:
    """Return the lost and the missed rows, each with its number and its bar."""
    lists: dict[str, list[str]] = {"lost": [], "missed": []}
    for row in in_order(list(measured)):
        found = verdict(row, measured[row])
        if found in lists:
            against = f" ({bar_text(row)})" if row in BARS else ""
            lists[found].append(f"{row}: {measured[row].value:.2f}{unit(row)}{against}")
    return lists


def summary(measured: Mapping[Row, Measured]) -> str:
    """Return the lists of the lost and the missed rows, a line each."""
    with_bar = [row for row in measured if row in BARS]
    reached = [row for row in with_bar if "reached" in verdict(row, measured[row])]
    lines = [f"{len(reached)} of {len(with_bar)} bars reached."]
    lines += [
        f"{name.capitalize()}: {'; '.join(rows) or 'none'}."
        for name, rows in below(measured).items()
    ]
    return "\n".join(lines)


def side_by_side(machines: Mapping[str, Mapping[Row, Measured]]) -> str:
    """Return a table with a column for each machine, and below it the rows that fall short.

    Parameters
    ----------
    machines : dict of str to dict of Row to Measured
        The results by the name of the machine. A cell is empty where a row was not measured.
    """
    rows = in_order(
        list(dict.fromkeys([*BARS, *(row for each in machines.values() for row in each)]))
    )
    lines = [
        f"| row | bar (aim) | {' | '.join(machines)} |",
        "|---|---|" + "---|" * len(machines),
    ]
    for row in rows:
        cells = [cell(row, each[row]) if row in each else "" for each in machines.values()]
        lines.append(f"| {row} | {bar_text(row)} | {' | '.join(cells)} |")
    for name, measured in machines.items():
        first, *lists = summary(measured).splitlines()
        lines += ["", f"{name}: {first}", "", *(f"- {line}" for line in lists)]
    return "\n".join(lines)
