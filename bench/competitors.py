"""Training and inference speed compared with other libraries, on the same cores.

    .venv/bin/python -m pip install 'torch==2.13.0+cpu' jax onnx onnxruntime openvino
    .venv/bin/python -m bench.competitors

A library that is not installed is left out. A training step is forward, loss, backward and Adam,
from a NumPy batch to a loss; inference goes from normalised NumPy images to logits. All libraries
compute the same function of the same weights, in the same precision and on the same number of
threads; the program checks this. bfloat16 is mixed precision: `dtype="bfloat16"` of this library
against PyTorch's autocast. The libraries are timed alternately, and the tables show the median of
all rounds. The slow references, scipy and numpy, are timed for one short round.

A row alone takes less than a minute:

    .venv/bin/python -m bench.competitors --only training --network wide --dtype bfloat16 \
        --batch 64 --rounds 3 --without torch.compile

The bars that the ratios are to reach are in bench/bars.py.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from bench import bars, competitors_report
from bench.bars import INFERENCE, TRAINING, Row
from bench.common import describe, machine, make_parser, parse_measurement, write_json
from bench.competitors_report import THIS
from bench.networks import CLASSES, NETWORKS
from bench.timing import interleave
from kernels import get_backend
from layers import walk
from training import Adam, Model
from training.cli.flag_types import positive_int

BATCHES: dict[str, dict[tuple[str, str], tuple[int, ...]]] = {
    TRAINING: {
        ("small", "float32"): (10, 16, 64, 256),
        ("wide", "float32"): (64, 256),
        ("wide", "bfloat16"): (64, 256),
        ("resnet9", "float32"): (64, 256),
        ("resnet9", "bfloat16"): (64, 256),
        ("mobile", "float32"): (64, 256),
    },
    INFERENCE: {(name, "float32"): (1000, 1) for name in NETWORKS},
}
DTYPES = ("float32", "bfloat16")
# The largest difference from this library, as a share of the largest number. bfloat16 has 8 bits,
# and libraries round at different places.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}
N_IMAGES = 10_000  # for inference, at least
# Seconds of untimed calls before each round: the threads of the library timed before may still
# spin. Those of ONNX Runtime halved the speed of the next library for up to 40 ms, the other
# libraries' for less.
WARMUP = 0.1


@dataclass(frozen=True)
class Competitor:
    """Another library: the function `build` in `module` makes a callable from one of our models."""

    name: str
    module: str
    build: str
    packages: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32",)


COMPETITORS = {
    TRAINING: [
        Competitor("PyTorch", "competitors_torch", "train", ("torch",), DTYPES),
        Competitor(
            "PyTorch, channels last", "competitors_torch", "train_channels_last", ("torch",), DTYPES
        ),
        Competitor("torch.compile", "competitors_torch", "train_compiled", ("torch",), DTYPES),
        Competitor("JAX", "competitors_jax", "train", ("jax",)),
    ],
    INFERENCE: [
        Competitor("PyTorch", "competitors_torch", "infer", ("torch",)),
        Competitor(
            "PyTorch, channels last", "competitors_torch", "infer_channels_last", ("torch",)
        ),
        Competitor(
            "ONNX Runtime", "competitors_onnx", "infer_onnxruntime", ("onnx", "onnxruntime")
        ),
        Competitor("OpenVINO", "competitors_onnx", "infer_openvino", ("onnx", "openvino")),
    ],
}
# SciPy needs 13 s for a step of 64 images through the wide network, NumPy as long for `resnet9`.
REFERENCES = {"small": ("scipy", "numpy"), "wide": ("numpy",), "mobile": ("numpy",), "resnet9": ()}


def references(row: Row) -> tuple[str, ...]:
    """Return this library's own slow backends that a row shows; in float32 only."""
    return REFERENCES[row.network] if row.dtype == "float32" else ()


def make_batches(network: str, kind: str, batch: int) -> list[tuple[np.ndarray, ...]]:
    """Return the arguments of some calls: batches of images, for training with their labels."""
    rng = np.random.default_rng(0)
    count = 4 * batch if kind == "training" else max(N_IMAGES // batch, 1) * batch
    x = rng.standard_normal((count, *NETWORKS[network]().input_shape), dtype=np.float32)
    arrays = (x, rng.integers(0, CLASSES, count)) if kind == "training" else (x,)
    return [
        tuple(array[start : start + batch] for array in arrays) for start in range(0, count, batch)
    ]


def make_model(network: str, kind: str, backend: str = "numba", dtype: str = "float32") -> Model:
    """Return a compiled model; for inference, one that was trained for some steps."""
    model = NETWORKS[network](backend=backend, dtype=dtype)
    model.compile(optimizer=Adam(learning_rate=2e-3))
    if kind == INFERENCE and backend == "numba":
        for batch in 5 * make_batches(network, TRAINING, 64):
            model.train_step(*batch)
    elif kind == INFERENCE:
        trained = make_model(network, kind)
        for layer, trained_layer in zip(walk(model.layers), walk(trained.layers), strict=True):
            layer.set_arrays(trained_layer.arrays)
    return model


def build_this(row: Row, backend: str = "numba") -> Callable:
    """Return the callable of this library."""
    model = make_model(row.network, row.task, backend, row.dtype)
    return model.train_step if row.task == TRAINING else model.logits


def is_installed(competitor: Competitor) -> bool:
    return all(find_spec(package) is not None for package in competitor.packages)


def build(competitor: Competitor, row: Row, threads: int) -> Callable:
    """Return the callable of another library, with the same weights, which are float32."""
    builder = getattr(import_module(f"bench.{competitor.module}"), competitor.build)
    model = make_model(row.network, row.task)
    return builder(model, threads, row.dtype if row.task == TRAINING else row.batch)


def cycle_batches(
    function: Callable, batches: list[tuple[np.ndarray, ...]]
) -> Callable[[], object]:
    """Return a function without arguments that calls ``function`` on the next batch each time."""
    endless = itertools.cycle(batches)
    return lambda: function(*next(endless))


def compare(
    row: Row, competitors: list[Competitor], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the images/s of each library, one number a round."""
    batches = make_batches(row.network, row.task, row.batch)
    functions = {THIS: build_this(row)}
    expected = functions[THIS](*batches[0])

    def add(name: str, function: Callable) -> None:
        scale = np.abs(expected).max()
        error = np.abs(function(*batches[0]) - expected).max()
        if not error <= TOLERANCES[row.dtype] * scale:
            raise RuntimeError(f"computes another function: off by {error:.2g} of {scale:.2g}")
        functions[name] = function

    for competitor in competitors:
        if row.dtype not in competitor.dtypes:
            continue
        try:
            add(competitor.name, build(competitor, row, args.threads))
        except Exception as error:  # whatever keeps another library from running
            report_left_out(competitor.name, str(error).partition("\n")[0])
    calls = {name: cycle_batches(function, batches) for name, function in functions.items()}
    interleave(calls, 1, args.seconds)
    times = interleave(calls, args.rounds, args.seconds, warmup=WARMUP)
    for backend in references(row):
        if backend not in args.without:
            add(backend, build_this(row, backend))
            call = cycle_batches(functions[backend], batches)
            times |= interleave({backend: call}, 1, args.seconds / 5)
    return {name: [row.batch / time for time in series] for name, series in times.items()}


def report_left_out(name: str, reason: str) -> None:
    print(f"competitors.py: {name} is left out: {reason}", file=sys.stderr, flush=True)


def rows_to_measure(kind: str, args: argparse.Namespace) -> list[Row]:
    """Return the rows of a table that the arguments choose, all by default."""
    return [
        Row(kind, network, dtype, batch)
        for (network, dtype), batches in BATCHES[kind].items()
        if network in (args.network or NETWORKS) and dtype in (args.dtype or DTYPES)
        for batch in args.batch or batches
    ]


def available(competitors: list[Competitor], without: list[str]) -> list[Competitor]:
    """Return the libraries that are installed and wanted, and report the missing ones."""
    wanted = [competitor for competitor in competitors if competitor.name not in without]
    for competitor in wanted:
        if not is_installed(competitor):
            report_left_out(competitor.name, f"pip install {' '.join(competitor.packages)}")
    return [competitor for competitor in wanted if is_installed(competitor)]


def measure(rows: list[Row], competitors: list[Competitor], args: argparse.Namespace) -> list[dict]:
    """Print the rows of a table as they are measured, and return the results."""
    kind = rows[0].task
    dtypes = {row.dtype for row in rows}
    names = [THIS, *(each.name for each in competitors if dtypes & set(each.dtypes))]
    own = dict.fromkeys(name for row in rows for name in references(row))
    names += [name for name in own if name not in args.without]
    print(f"\n{kind.capitalize()}:\n\n{competitors_report.head(kind, names)}", flush=True)
    results = []
    for row in rows:
        rates = compare(row, competitors, args)
        result = {
            "network": row.network,
            "dtype": row.dtype,
            "batch": row.batch,
            "images_per_second": rates,
        }
        print(competitors_report.row(kind, result, names), flush=True)
        results.append(result)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", rounds=7, seconds=0.5)
    names = list(dict.fromkeys(each.name for group in COMPETITORS.values() for each in group))
    add = parser.add_argument
    add("--only", choices=list(BATCHES), help="default: both")
    add("--network", choices=list(NETWORKS), nargs="+", help="default: all")
    add("--dtype", choices=DTYPES, nargs="+", help="precision of the rows (default: both)")
    add(
        "--batch",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="batch sizes (default: those of the published tables)",
    )
    add(
        "--without",
        choices=[*names, *REFERENCES["small"]],
        nargs="+",
        default=[],
        metavar="NAME",
        help="leave these out: " + ", ".join(f'"{name}"' for name in [*names, "scipy", "numpy"]),
    )
    args = parse_measurement(parser, argv, "competitors")
    if not any(rows_to_measure(kind, args) for kind in chosen_kinds(args)):
        parser.error("no row of the tables is of this network and dtype")
    return args


def chosen_kinds(args: argparse.Namespace) -> list[str]:
    return [args.only] if args.only else list(BATCHES)


def not_measured(results: dict[str, list[dict]]) -> list[str]:
    """Return the other libraries that some row should have and has not."""
    absent: dict[str, None] = {}
    for kind, rows in results.items():
        for result in rows:
            expected = [each.name for each in COMPETITORS[kind] if result["dtype"] in each.dtypes]
            absent |= dict.fromkeys(
                name for name in expected if name not in result["images_per_second"]
            )
    return list(absent)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    for backend in ("numba", "numpy"):  # scipy runs on numpy's threads
        get_backend(backend).set_threads(args.threads)
    print(f"Machine: {describe(machine())}. {args.threads} threads each.")
    results: dict[str, list[dict]] = {}
    for kind in chosen_kinds(args):
        rows = rows_to_measure(kind, args)
        if rows:
            results[kind] = measure(rows, available(COMPETITORS[kind], args.without), args)
    print(f"\n{bars.summary(competitors_report.measured(results))}")
    absent = not_measured(results)
    if absent:
        print(f"The ratios do not count what was not measured: {', '.join(absent)}.")
    if args.json is not None:
        write_json(args.json, args, **results)
    if args.plot is not None:
        competitors_report.plot(results, describe(machine()), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
