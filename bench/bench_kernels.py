"""Benchmarks of each kernel on each backend, on the shapes of both networks' layers.

    ./run.sh pytest bench --benchmark-json=bench.json

Arrays are plain float32 arrays, as a user has them, of 1, 4, 16 and 64 images. `extra_info` holds
the largest difference from the numpy backend in float64, as a share of the largest value. The scipy
backend correlates plane by plane and takes seconds for 64 images, where the numpy backend takes
milliseconds: it is timed up to 16.
"""

import numpy as np
import pytest

from bench.shapes import CONVOLUTIONS, OTHER_CONVOLUTIONS, POOLS
from bench.timing import measure
from kernels import BACKENDS, get_backend
from kernels.activations import LeakyRelu

BATCHES = (1, 4, 16, 64)
MAX_SCIPY_BATCH = 16
EXACT = get_backend("numpy")

DENSE = {"small 1": (245, 256), "small 2": (256, 256), "wide": (3136, 128)}


def each_implementation(names, batches=BATCHES):
    """Parametrize by kernel, images and backend, without what a backend shares with numpy."""
    return pytest.mark.parametrize(
        ("name", "N", "backend"),
        [
            (name, N, backend)
            for name in names
            for N in batches
            for backend in BACKENDS
            if is_implemented(name, backend) and is_timed(backend, N)
        ],
    )


def is_implemented(name, backend):
    """Return whether a backend has a function of its own, other than that of numpy."""
    return backend == "numpy" or getattr(get_backend(backend), name) is not getattr(EXACT, name)


def is_timed(backend, N):
    return backend != "scipy" or N is None or N <= MAX_SCIPY_BATCH


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def error(got, exact):
    """Return the largest difference as a share of the largest value, over all arrays."""
    got, exact = (v if isinstance(v, tuple) else (v,) for v in (got, exact))
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, exact, strict=True)
    )


def run(benchmark, name, shape, N, backend, call):
    """Benchmark ``call(backend, as_)``, where ``as_`` converts an array to float32 or float64.

    N is the number of images, None for what has none.
    """
    benchmark.group = f"{name} | {shape}" + ("" if N is None else f" | {N} images")
    benchmark.extra_info |= {"kernel": name, "shape": shape, "backend": backend, "batch": N}
    exact = call(EXACT, lambda array: array.astype(np.float64))
    got = measure(benchmark, lambda: call(get_backend(backend), lambda array: array))
    benchmark.extra_info["largest_error"] = error(got, exact)


@pytest.mark.parametrize("layer", CONVOLUTIONS)
@each_implementation(["correlate", "correlate_im2col", "correlate_grad", "im2col"])
def test_convolution(benchmark, name, N, layer, backend):
    shape = CONVOLUTIONS[layer]
    C, H, F, K, *_ = shape
    x, w, b = draw(N, C, H, H), draw(F, C, K, K, seed=1), draw(F, seed=2)
    dy = draw(N, F, H, H, seed=3)
    calls = {
        "correlate": lambda be, as_: be.correlate(as_(x), as_(w), as_(b), padding="same"),
        "correlate_im2col": lambda be, as_: be.correlate_im2col(
            as_(x), as_(w), as_(b), padding="same"
        ),
        "correlate_grad": lambda be, as_: be.correlate_grad(
            as_(dy), as_(x), as_(w), padding="same"
        ),
        "im2col": lambda be, as_: be.im2col(as_(x), K, padding="same"),
    }
    run(benchmark, name, f"{layer}: {shape}", N, backend, calls[name])


@pytest.mark.parametrize("layer", OTHER_CONVOLUTIONS)
@each_implementation(["correlate", "correlate_grad"])
def test_other_convolution(benchmark, name, N, layer, backend):
    shape = OTHER_CONVOLUTIONS[layer]
    C, H, F, K, stride, groups = shape
    x, w, b = draw(N, C, H, H), draw(F, C // groups, K, K, seed=1), draw(F, seed=2)
    dy = draw(N, F, H // stride, H // stride, seed=3)
    arguments = {"stride": stride, "padding": "same", "groups": groups}
    calls = {
        "correlate": lambda be, as_: be.correlate(as_(x), as_(w), as_(b), **arguments),
        "correlate_grad": lambda be, as_: be.correlate_grad(as_(dy), as_(x), as_(w), **arguments),
    }
    run(benchmark, name, f"{layer}: {shape}", N, backend, calls[name])


@pytest.mark.parametrize("layer", POOLS)
@each_implementation(["max_pool", "max_pool_grad", "avg_pool", "avg_pool_grad"])
def test_pooling(benchmark, name, N, layer, backend):
    C, H = POOLS[layer]
    x, dy = draw(N, C, H, H), draw(N, C, H // 2, H // 2, seed=1)
    index = EXACT.max_pool(x, 2)[1]
    calls = {
        "max_pool": lambda be, as_: be.max_pool(as_(x), 2)[0],
        "max_pool_grad": lambda be, as_: be.max_pool_grad(as_(dy), index, x.shape, 2),
        "avg_pool": lambda be, as_: be.avg_pool(as_(x), 2),
        "avg_pool_grad": lambda be, as_: be.avg_pool_grad(as_(dy), x.shape, 2),
    }
    run(benchmark, name, f"{layer}: {C}x{H}x{H}", N, backend, calls[name])


@pytest.mark.parametrize("layer", POOLS)
@each_implementation(["batch_norm", "batch_norm_grad", "leaky_relu", "leaky_relu_grad"])
def test_elementwise(benchmark, name, N, layer, backend):
    C, H = POOLS[layer]
    x, dy, gamma, beta = draw(N, C, H, H), draw(N, C, H, H, seed=1), draw(C, seed=2), draw(C)
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    calls = {
        "batch_norm": lambda be, as_: be.batch_norm(as_(x), as_(gamma), as_(beta), 1e-5),
        "batch_norm_grad": lambda be, as_: be.batch_norm_grad(
            as_(dy), as_(x), as_(gamma), as_(mean), as_(variance), 1e-5
        ),
        "leaky_relu": lambda be, as_: be.leaky_relu(as_(x), 0.01),
        "leaky_relu_grad": lambda be, as_: be.leaky_relu_grad(as_(dy), as_(x), 0.01),
    }
    run(benchmark, name, f"{layer}: {C}x{H}x{H}", N, backend, calls[name])


@pytest.mark.parametrize("layer", DENSE)
@each_implementation(["dense", "dense_grad"])
def test_dense(benchmark, name, N, layer, backend):
    features, units = DENSE[layer]
    x, w, b = draw(N, features), draw(features, units, seed=1), draw(units, seed=2)
    dy = draw(N, units, seed=3)
    calls = {
        "dense": lambda be, as_: be.dense(as_(x), as_(w), as_(b)),
        "dense_grad": lambda be, as_: be.dense_grad(as_(dy), as_(x), as_(w)),
    }
    run(benchmark, name, f"{layer}: {features} to {units}", N, backend, calls[name])


@each_implementation(["col2im"])
@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_col2im(benchmark, name, N, layer, backend):
    C, H, _, K, *_ = CONVOLUTIONS[layer]
    cols = draw(N, C * K * K, H * H)
    run(
        benchmark,
        name,
        f"{layer}: {C}x{H}x{H} by {K}x{K}",
        N,
        backend,
        lambda be, as_: be.col2im(as_(cols), (N, C, H, H), K, padding="same"),
    )


@each_implementation(
    [
        "batch_norm_inference",
        "batch_norm_activation",
        "batch_norm_activation_grad",
        "dropout",
        "normalize_images",
    ]
)
def test_other_sweeps(benchmark, name, N, backend):
    C, H = POOLS["wide 2"]
    x, dy = draw(N, C, H, H), draw(N, C, H, H, seed=1)
    gamma, beta, mean, variance = (np.abs(draw(C, seed=seed)) for seed in range(4))
    images = np.random.default_rng(0).integers(0, 256, (N, C, H, H)).astype(np.uint8)
    calls = {
        "batch_norm_inference": lambda be, as_: be.batch_norm_inference(
            as_(x), *map(as_, (gamma, beta, mean, variance)), 1e-5
        ),
        "batch_norm_activation": lambda be, as_: be.batch_norm_activation(
            as_(x), as_(gamma), as_(beta), 1e-5, LeakyRelu(0.01)
        ),
        "batch_norm_activation_grad": lambda be, as_: be.batch_norm_activation_grad(
            as_(dy), as_(x), *map(as_, (gamma, beta, mean, variance)), 1e-5, LeakyRelu(0.01)
        ),
        "dropout": lambda be, as_: be.dropout(as_(x), 0.3, np.random.default_rng(0))[0],
        "normalize_images": lambda be, as_: be.to_array(
            be.normalize_images(images, as_(mean), as_(gamma), as_(mean).dtype)
        ),
    }
    run(benchmark, name, f"wide 2: {C}x{H}x{H}", N, backend, calls[name])


@each_implementation(["softmax", "softmax_grad"])
def test_softmax(benchmark, name, N, backend):
    x, dy = draw(N, 10), draw(N, 10, seed=1)
    calls = {
        "softmax": lambda be, as_: be.softmax(as_(x)),
        "softmax_grad": lambda be, as_: be.softmax_grad(as_(dy), as_(x)),
    }
    run(benchmark, name, "10 classes", N, backend, calls[name])


@each_implementation(["softmax_cross_entropy"])
def test_loss(benchmark, name, N, backend):
    logits, labels = draw(N, 10), np.arange(N) % 10
    run(
        benchmark,
        name,
        "10 classes",
        N,
        backend,
        lambda be, as_: be.softmax_cross_entropy(as_(logits), labels)[2],
    )


@each_implementation(["sgd_step", "momentum_step", "adam_step"], batches=(None,))
def test_optimizer(benchmark, name, N, backend):
    size = 132_742  # the small network
    p, g, m, v = (draw(size, seed=seed) for seed in range(4))
    arguments = {
        "sgd_step": ([p, g], (1e-3, 0.0)),
        "momentum_step": ([p, g, m], (1e-3, 0.9, True, 0.0)),
        "adam_step": ([p, g, m, np.abs(v)], (10, 1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0)),
    }
    vectors, numbers = arguments[name]

    def step(be, as_):
        copies = [as_(vector).copy() for vector in vectors]
        getattr(be, name)(*copies, *numbers)
        return copies[0]

    run(benchmark, name, f"{size} parameters", N, backend, step)
