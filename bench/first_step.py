"""Train for some steps and print the peak of the process's memory: what `bench.footprint` starts.

    python -m bench.first_step this NETWORK DTYPE BATCH STEPS THREADS
    python -m bench.first_step torch FILE DTYPE BATCH STEPS THREADS [channels_last]

The process prints a line as soon as the first step has finished, and at the end the largest number
of resident bytes, 0 where the system does not tell. PyTorch's process reads a pickled module and
the shape of its images from FILE; it imports nothing of this library, and this library's process
nothing of PyTorch.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLASSES = 10
STATUS = Path("/proc/self/status")
N_BATCHES = 4
FIRST_STEP = "first step"  # the line that is printed after it


def this_step(network: str, dtype: str, threads: int) -> tuple[Callable, tuple[int, ...]]:
    """Return a training step of this library, and the shape of its images."""
    from bench.networks import NETWORKS
    from kernels import get_backend
    from training import Adam

    get_backend("numba").set_threads(threads)
    model = NETWORKS[network](dtype=dtype)
    model.compile(optimizer=Adam(learning_rate=2e-3))
    return model.train_step, model.input_shape


def torch_step(
    path: str, dtype: str, threads: int, memory_format: str = "contiguous_format"
) -> tuple[Callable, tuple[int, ...]]:
    """Return a training step of PyTorch, and the shape of its images."""
    from bench.torch_steps import make_step, torch

    net, shape = torch.load(path, weights_only=False)
    return make_step(net, threads, dtype, getattr(torch, memory_format)), shape


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had, 0 where it is not known."""
    if STATUS.exists():
        # The peak in getrusage is not that of this process alone: Linux keeps that of the parent
        # over exec.
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
        return 1024 * int(found[1]) if found else 0
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def main(argv: list[str] | None = None) -> int:
    library, source, dtype, batch, steps, threads, *options = argv or sys.argv[1:]
    make: Callable = {"this": this_step, "torch": torch_step}[library]
    step, shape = make(source, dtype, int(threads), *options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_BATCHES * int(batch), *shape), dtype=np.float32)
    y = rng.integers(0, CLASSES, len(x))
    for count in range(int(steps)):
        start = int(batch) * (count % N_BATCHES)
        part = slice(start, start + int(batch))
        step(x[part], y[part])
        if count == 0:
            print(FIRST_STEP, flush=True)
    print(peak_bytes(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
