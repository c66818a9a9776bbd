"""Benchmarks of a whole training step, from a batch to its loss, on each backend."""

import numpy as np
import pytest

from bench.networks import CLASSES, NETWORKS
from bench.timing import measure
from kernels import BACKENDS
from training import Adam


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize(("network", "batch"), [("small", 10), ("small", 64), ("wide", 16)])
def test_training_step(benchmark, network, batch, backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *NETWORKS[network]().input_shape), dtype=np.float32)
    y = rng.integers(0, CLASSES, batch)

    def two_losses(backend, dtype):
        """Return the model and the loss of its second step, which depends on all gradients."""
        model = NETWORKS[network](backend=backend, dtype=dtype)
        model.compile(optimizer=Adam())
        model.train_step(x, y)
        return model, model.train_step(x, y)

    model, loss = two_losses(backend, "float32")
    _, exact = two_losses("numpy", "float64")
    benchmark.group = f"training step | {network}, batch {batch}"
    benchmark.extra_info |= {
        "kernel": "training step",
        "shape": network,
        "backend": backend,
        "batch": batch,
        "largest_error": abs(loss - exact) / exact,
    }
    measure(benchmark, lambda: model.train_step(x, y))
    benchmark.extra_info["images_per_second"] = batch / benchmark.stats["median"]
