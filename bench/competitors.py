"""Training and inference speed compared with other libraries, on the same cores.

    .venv/bin/python -m pip install 'torch==2.13.0+cpu' jax onnx onnxruntime openvino
    .venv/bin/python -m bench.competitors

A library that is not installed is left out. A training step is forward, loss, backward and Adam,
from a NumPy batch to a loss; inference goes from normalised NumPy images to logits. All libraries
compute the same function of the same weights, in float32 and on the same number of threads; the
program checks this. The libraries are timed alternately, and the tables show the median of all
rounds. The slow references, scipy and numpy, are timed for one short round.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from bench import competitors_report
from bench.common import describe, machine, make_parser, parse_measurement, write_json
from bench.competitors_report import THIS
from bench.networks import CLASSES, NETWORKS
from bench.timing import interleave
from kernels import get_backend
from layers import walk
from training import Adam, Model
from training.cli.flag_types import positive_int

BATCHES: dict[str, dict[str, tuple[int, ...]]] = {
    "training": {
        "small": (10, 16, 64, 256),
        "wide": (64, 256),
        "resnet9": (64, 256),
        "mobile": (64, 256),
    },
    "inference": {name: (1000, 1) for name in NETWORKS},
}
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


COMPETITORS = {
    "training": [
        Competitor("PyTorch", "competitors_torch", "train", ("torch",)),
        Competitor(
            "PyTorch, channels last", "competitors_torch", "train_channels_last", ("torch",)
        ),
        Competitor("torch.compile", "competitors_torch", "train_compiled", ("torch",)),
        Competitor("JAX", "competitors_jax", "train", ("jax",)),
    ],
    "inference": [
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


def make_batches(network: str, kind: str, batch: int) -> list[tuple[np.ndarray, ...]]:
    """Return the arguments of some calls: batches of images, for training with their labels."""
    rng = np.random.default_rng(0)
    count = 4 * batch if kind == "training" else max(N_IMAGES // batch, 1) * batch
    x = rng.standard_normal((count, *NETWORKS[network]().input_shape), dtype=np.float32)
    arrays = (x, rng.integers(0, CLASSES, count)) if kind == "training" else (x,)
    return [
        tuple(array[start : start + batch] for array in arrays) for start in range(0, count, batch)
    ]


def make_model(network: str, kind: str, backend: str = "numba") -> Model:
    """Return a compiled model; for inference, one that was trained for some steps."""
    model = NETWORKS[network](backend=backend, dtype="float32")
    model.compile(optimizer=Adam(learning_rate=2e-3))
    if kind == "inference" and backend == "numba":
        for batch in 5 * make_batches(network, "training", 64):
            model.train_step(*batch)
    elif kind == "inference":
        trained = make_model(network, kind)
        for layer, trained_layer in zip(walk(model.layers), walk(trained.layers), strict=True):
            layer.set_arrays(trained_layer.arrays)
    return model


def build_this(network: str, kind: str, backend: str = "numba") -> Callable:
    """Return the callable of this library."""
    model = make_model(network, kind, backend)
    return model.train_step if kind == "training" else model.logits


def is_installed(competitor: Competitor) -> bool:
    return all(find_spec(package) is not None for package in competitor.packages)


def build(competitor: Competitor, network: str, kind: str, threads: int) -> Callable:
    """Return the callable of another library, with the same weights."""
    module = import_module(f"bench.{competitor.module}")
    return getattr(module, competitor.build)(make_model(network, kind), threads)


def cycle_batches(
    function: Callable, batches: list[tuple[np.ndarray, ...]]
) -> Callable[[], object]:
    """Return a function without arguments that calls ``function`` on the next batch each time."""
    endless = itertools.cycle(batches)
    return lambda: function(*next(endless))


def compare(
    kind: str, network: str, batch: int, competitors: list[Competitor], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the images/s of each library, one number a round."""
    batches = make_batches(network, kind, batch)
    functions = {THIS: build_this(network, kind)}
    expected = functions[THIS](*batches[0])

    def add(name: str, function: Callable) -> None:
        scale = np.abs(expected).max()
        error = np.abs(function(*batches[0]) - expected).max()
        if not error <= 1e-3 * scale:
            raise RuntimeError(f"computes another function: off by {error:.2g} of {scale:.2g}")
        functions[name] = function

    for competitor in competitors:
        try:
            add(competitor.name, build(competitor, network, kind, args.threads))
        except Exception as error:  # whatever keeps another library from running
            report_left_out(competitor.name, str(error).partition("\n")[0])
    calls = {name: cycle_batches(function, batches) for name, function in functions.items()}
    interleave(calls, 1, args.seconds)
    times = interleave(calls, args.rounds, args.seconds, warmup=WARMUP)
    for backend in REFERENCES[network]:
        if backend not in args.without:
            add(backend, build_this(network, kind, backend))
            call = cycle_batches(functions[backend], batches)
            times |= interleave({backend: call}, 1, args.seconds / 5)
    return {name: [batch / time for time in series] for name, series in times.items()}


def report_left_out(name: str, reason: str) -> None:
    print(f"competitors.py: {name} is left out: {reason}", file=sys.stderr, flush=True)


def measure(kind: str, competitors: list[Competitor], args: argparse.Namespace) -> list[dict]:
    """Print the rows of a table as they are measured, and return the results."""
    networks = [args.network] if args.network else list(NETWORKS)
    references = dict.fromkeys(name for network in networks for name in REFERENCES[network])
    names = [THIS, *(competitor.name for competitor in competitors)]
    names += [name for name in references if name not in args.without]
    print(f"\n{kind.capitalize()}:\n\n{competitors_report.head(kind, names)}", flush=True)
    results = []
    for network in networks:
        for batch in args.batch or BATCHES[kind][network]:
            rates = compare(kind, network, batch, competitors, args)
            result = {"network": network, "batch": batch, "images_per_second": rates}
            print(competitors_report.row(kind, result, names), flush=True)
            results.append(result)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", rounds=7, seconds=0.5)
    names = list(dict.fromkeys(each.name for group in COMPETITORS.values() for each in group))
    parser.add_argument("--only", choices=list(BATCHES), help="default: both")
    parser.add_argument("--network", choices=list(NETWORKS), help="default: all")
    parser.add_argument(
        "--batch",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="batch sizes (default: those of the published tables)",
    )
    parser.add_argument(
        "--without",
        choices=[*names, *REFERENCES["small"]],
        nargs="+",
        default=[],
        metavar="NAME",
        help="leave these out: " + ", ".join(f'"{name}"' for name in [*names, "scipy", "numpy"]),
    )
    return parse_measurement(parser, argv, "competitors")


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    for backend in ("numba", "numpy"):  # scipy runs on numpy's threads
        get_backend(backend).set_threads(args.threads)
    print(f"Machine: {describe(machine())}. {args.threads} threads each.")
    results: dict[str, list[dict]] = {}
    for kind in [args.only] if args.only else list(BATCHES):
        competitors = []
        for competitor in COMPETITORS[kind]:
            if competitor.name in args.without:
                continue
            if is_installed(competitor):
                competitors.append(competitor)
            else:
                report_left_out(competitor.name, f"pip install {' '.join(competitor.packages)}")
        results[kind] = measure(kind, competitors, args)
    if args.json is not None:
        write_json(args.json, args, **results)
    if args.plot is not None:
        competitors_report.plot(results, describe(machine()), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
