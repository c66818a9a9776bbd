"""Training speed beside PyTorch, on the same cores in the same minutes.

    .venv/bin/python -m pip install torch==2.13.0   # the CPU build
    .venv/bin/python -m bench.peers

Each figure is a whole training step, forward, loss, backward and Adam, from a NumPy batch in to
a loss out. All take turns, and the table gives the median of the turns. PyTorch runs in eager
mode with two memory layouts, and counts with the better one.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.networks import NETWORKS
from training import Adam

try:
    import torch
except ImportError:
    sys.exit("peers.py: needs PyTorch: pip install torch==2.13.0 (the CPU build)")

SETTINGS = [("small", batch) for batch in (10, 16, 64, 256)] + [("wide", 64), ("wide", 256)]
Step = Callable[[np.ndarray, np.ndarray], float]


def ours(network: str) -> Step:
    model = NETWORKS[network]((1, 28, 28), 10, backend="numba", dtype="float32")
    return model.compile(optimizer=Adam(learning_rate=2e-3)).train_step


def torch_small() -> torch.nn.Sequential:
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(1, 5, 5, padding=2), nn.BatchNorm2d(5), nn.LeakyReLU(0.01), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5), nn.LeakyReLU(0.01), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(245, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.01)),
        *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.01), nn.Linear(256, 10)),
    )


def torch_wide() -> torch.nn.Sequential:
    nn, layers, channels = torch.nn, [], 1
    for filters in (32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters)]
            layers.append(nn.ReLU())
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def theirs(network: str, memory_format: torch.memory_format) -> Step:
    model = {"small": torch_small, "wide": torch_wide}[network]().to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        images = torch.from_numpy(x).contiguous(memory_format=memory_format)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def images_per_second(step: Step, batch: int, seconds: float) -> float:
    """Train on ever new images for about this long."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4 * batch, 1, 28, 28), dtype=np.float32)
    y = rng.integers(0, 10, 4 * batch)
    parts = [slice(at, at + batch) for at in range(0, 4 * batch, batch)]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        part = parts[count % 4]
        step(x[part], y[part])
        count += 1
    return count * batch / (time.perf_counter() - start)


def compare(network: str, batch: int, turns: int, seconds: float) -> dict[str, list[float]]:
    """Return images/s of each competitor, a figure a turn."""
    steps = {
        "ours": ours(network),
        "PyTorch": theirs(network, torch.contiguous_format),
        "PyTorch, channels last": theirs(network, torch.channels_last),
    }
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        images_per_second(step, batch, seconds)
    for _ in range(turns):
        for name, step in steps.items():
            images_per_second(step, batch, seconds / 5)  # the other's threads go to sleep
            rates[name].append(images_per_second(step, batch, seconds))
    return rates


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="for both (default: 2)")
    parser.add_argument("--turns", type=int, default=7, help="of each (default: 7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn (default: 0.5)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    from kernels import get_backend

    get_backend("numba").set_threads(args.threads)
    print("| network | batch | ours, images/s | PyTorch, images/s | ratio (lowest to highest) |")
    print("|---|--:|--:|--:|--:|")
    results = []
    for network, batch in SETTINGS:
        rates = compare(network, batch, args.turns, args.seconds)
        results.append({"network": network, "batch": batch, "images_per_second": rates})
        mine = np.array(rates["ours"])
        best = np.array(max((rates[name] for name in rates if name != "ours"), key=np.median))
        ratios = mine / best
        print(
            f"| {network} | {batch} | {np.median(mine):,.0f} | {np.median(best):,.0f} | "
            f"{np.median(mine) / np.median(best):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) |",
            flush=True,
        )
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
