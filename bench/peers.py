"""Training and inference beside other libraries, on the same cores in the same minutes.

    .venv/bin/python -m pip install 'torch==2.13.0+cpu' jax onnx onnxruntime openvino
    .venv/bin/python -m bench.peers --json peers.json --plot peers.png

What is not installed is left out. A training step is forward, loss, backward and Adam, from a
NumPy batch in to a loss out; inference goes from normalised NumPy images to logits. All compute
the same function of the same weights, which is checked, in float32 on the same number of threads.
They take turns, and a figure is the median of its turns; the slow references take one short turn.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from bench import peers_report
from bench.networks import NETWORKS
from bench.program import machine, make_parser, write_json
from bench.report import describe
from bench.timing import interleave
from kernels import get_backend
from training import Adam, Model
from training.cli.arguments import positive_int

SHAPE, CLASSES = (1, 28, 28), 10
BATCHES: dict[str, dict[str, tuple[int, ...]]] = {
    "training": {"small": (10, 16, 64, 256), "wide": (64, 256)},
    "inference": {"small": (1000, 1), "wide": (1000, 1)},
}
IMAGES = 10_000  # at least, to infer on
# Seconds of calls that do not count, before each turn: the threads of the one before may still
# wait busily. ONNX Runtime's halved the speed of the next for up to 40 ms, the others' for less.
LEAD = 0.1


@dataclass(frozen=True)
class Peer:
    """Another library: `build`, in `module`, makes a function from our model."""

    name: str
    module: str
    build: str
    packages: tuple[str, ...]


PEERS = {
    "training": [
        Peer("PyTorch", "peers_torch", "train", ("torch",)),
        Peer("PyTorch, channels last", "peers_torch", "train_channels_last", ("torch",)),
        Peer("torch.compile", "peers_torch", "train_compiled", ("torch",)),
        Peer("JAX", "peers_jax", "train", ("jax",)),
    ],
    "inference": [
        Peer("PyTorch", "peers_torch", "infer", ("torch",)),
        Peer("PyTorch, channels last", "peers_torch", "infer_channels_last", ("torch",)),
        Peer("ONNX Runtime", "peers_onnx", "infer_onnxruntime", ("onnx", "onnxruntime")),
        Peer("OpenVINO", "peers_onnx", "infer_openvino", ("onnx", "openvino")),
    ],
}
# SciPy needs 13 s for a step of 64 images through the wide network.
REFERENCES = {"small": ("scipy", "numpy"), "wide": ("numpy",)}


def images(kind: str, batch: int) -> list[tuple[np.ndarray, ...]]:
    """Return the arguments of some calls: batches of images, with labels to train."""
    rng = np.random.default_rng(0)
    count = 4 * batch if kind == "training" else max(IMAGES // batch, 1) * batch
    x = rng.standard_normal((count, *SHAPE), dtype=np.float32)
    arrays = (x, rng.integers(0, CLASSES, count)) if kind == "training" else (x,)
    return [
        tuple(array[start : start + batch] for array in arrays) for start in range(0, count, batch)
    ]


def make_model(network: str, kind: str, backend: str = "numba") -> Model:
    """Return a model; to infer, with the weights and statistics of some steps of training."""
    model = NETWORKS[network](SHAPE, CLASSES, backend=backend, dtype="float32")
    model.compile(optimizer=Adam(learning_rate=2e-3))
    if kind == "inference" and backend == "numba":
        for batch in 5 * images("training", 64):
            model.train_step(*batch)
    elif kind == "inference":
        trained = make_model(network, kind)
        for layer, its in zip(model.layers, trained.layers, strict=True):
            layer.set_arrays(its.arrays)
    return model


def ours(network: str, kind: str, backend: str = "numba") -> Callable:
    model = make_model(network, kind, backend)
    return model.train_step if kind == "training" else model.logits


def installed(peer: Peer) -> bool:
    return all(find_spec(package) is not None for package in peer.packages)


def build(peer: Peer, network: str, kind: str, threads: int) -> Callable:
    module = import_module(f"bench.{peer.module}")
    return getattr(module, peer.build)(make_model(network, kind), threads)


def cycled(function: Callable, batches: list[tuple[np.ndarray, ...]]) -> Callable[[], object]:
    """Return a call of the function on ever the next batch."""
    endless = itertools.cycle(batches)
    return lambda: function(*next(endless))


def compare(kind: str, network: str, batch: int, peers: list[Peer], args) -> dict[str, list[float]]:
    """Return images/s of all, a figure a turn."""
    batches = images(kind, batch)
    functions = {"ours": ours(network, kind)}
    expected = functions["ours"](*batches[0])

    def add(name: str, function: Callable) -> None:
        scale = np.abs(expected).max()
        error = np.abs(function(*batches[0]) - expected).max()
        if not error <= 1e-3 * scale:
            raise RuntimeError(f"computes another function: off by {error:.2g} of {scale:.2g}")
        functions[name] = function

    for peer in peers:
        try:
            add(peer.name, build(peer, network, kind, args.threads))
        except Exception as error:  # whatever keeps another library from running
            leave_out(peer.name, str(error).partition("\n")[0])
    calls = {name: cycled(function, batches) for name, function in functions.items()}
    interleave(calls, 1, args.seconds)
    times = interleave(calls, args.turns, args.seconds, lead=LEAD)
    for backend in REFERENCES[network]:
        if backend not in args.without:
            add(backend, ours(network, kind, backend))
            times |= interleave({backend: cycled(functions[backend], batches)}, 1, args.seconds / 5)
    return {name: [batch / time for time in of] for name, of in times.items()}


def leave_out(name: str, why: str) -> None:
    print(f"peers.py: {name} is left out: {why}", file=sys.stderr, flush=True)


def table(kind: str, peers: list[Peer], args: argparse.Namespace) -> list[dict]:
    """Print the rows of a table as they are measured, and return them."""
    networks = [args.network] if args.network else list(NETWORKS)
    references = dict.fromkeys(name for network in networks for name in REFERENCES[network])
    names = ["ours", *(peer.name for peer in peers)]
    names += [name for name in references if name not in args.without]
    print(peers_report.head(kind, names), flush=True)
    results = []
    for network in networks:
        for batch in args.batch or BATCHES[kind][network]:
            rates = compare(kind, network, batch, peers, args)
            result = {"network": network, "batch": batch, "images_per_second": rates}
            print(peers_report.row(kind, result, names), flush=True)
            results.append(result)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", turns=7, seconds=0.5)
    names = list(dict.fromkeys(peer.name for of in PEERS.values() for peer in of))
    parser.add_argument("--only", choices=list(BATCHES), help="default: both")
    parser.add_argument("--network", choices=list(NETWORKS), help="default: both")
    parser.add_argument(
        "--batch", type=positive_int, nargs="+", metavar="N", help="sizes (default: a usual few)"
    )
    parser.add_argument(
        "--without",
        choices=[*names, *REFERENCES["small"]],
        nargs="+",
        default=[],
        metavar="NAME",
        help="leave these out: " + ", ".join(f'"{name}"' for name in [*names, "scipy", "numpy"]),
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    for backend in ("numba", "numpy"):  # scipy has the threads of numpy
        get_backend(backend).set_threads(args.threads)
    print(f"Machine: {describe(machine())}. {args.threads} threads each.")
    results: dict[str, list[dict]] = {}
    for kind in [args.only] if args.only else list(BATCHES):
        peers = []
        for peer in PEERS[kind]:
            if peer.name in args.without:
                continue
            if installed(peer):
                peers.append(peer)
            else:
                leave_out(peer.name, f"pip install {' '.join(peer.packages)}")
        results[kind] = table(kind, peers, args)
    if args.json is not None:
        write_json(args.json, args, **results)
    if args.plot is not None:
        peers_report.plot(results, describe(machine()), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
