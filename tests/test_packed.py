"""The functions on the packed layout: their arguments, and what their modules import."""

import ast
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels.activations import Silu
from kernels.numba_backend import packed
from kernels.numba_backend.packed import convolution

SILU = Silu()
N, C, H, W, F = 5, 3, 6, 6, 4
VECTOR = np.full(C, 0.5)
FILTERS, WEIGHTS = np.ones((F, C, 3, 3)), np.ones((C, F))
IMAGES, ROWS = (N, C, H, W), (N, C)


def ones(shape, dtype=np.float64):
    return packed.pack(np.ones(shape, dtype))


def pool_gradient(dy, x):
    arguments = VECTOR, VECTOR, 1e-5, SILU, 2
    _, index, mean, variance = packed.batch_norm_activation_pool(ones(IMAGES), *arguments)
    statistics = VECTOR, VECTOR, mean, variance
    return packed.batch_norm_activation_pool_grad(dy, x, index, *statistics, 1e-5, SILU, 2)


# Each gradient as a function of dy and of other activations, and the shapes of both.
GRADIENTS = {
    "correlate_grad": (
        lambda dy, x: packed.correlate_grad(dy, x, FILTERS), (N, F, H - 2, W - 2), IMAGES,
    ),
    "dense_grad": (lambda dy, x: packed.dense_grad(dy, x, WEIGHTS), (N, F), ROWS),
    "batch_norm_activation_grad": (
        lambda dy, x: packed.batch_norm_activation_grad(dy, x, *[VECTOR] * 4, 1e-5, SILU),
        IMAGES, IMAGES,
    ),
    "batch_norm_activation_pool_grad": (pool_gradient, (N, C, H // 2, W // 2), IMAGES),
    "activate_grad": (lambda dy, x: packed.activate_grad(dy, x, SILU), IMAGES, IMAGES),
    "dropout_grad": (packed.dropout_grad, IMAGES, IMAGES),
    "softmax_grad": (packed.softmax_grad, ROWS, ROWS),
}  # fmt: skip
every_gradient = pytest.mark.parametrize(
    ("function", "dy_shape", "x_shape"), GRADIENTS.values(), ids=GRADIENTS
)


@every_gradient
def test_gradient_accepts_activations_of_one_batch(function, dy_shape, x_shape):
    function(ones(dy_shape), ones(x_shape))


@every_gradient
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (np.ones, TypeError, "must be a PackedBatch, got ndarray"),
        (lambda shape: ones(shape, np.float32), TypeError, "is float32 and dy is float64"),
        (lambda shape: ones((13, *shape[1:])), ValueError, "has 13 images and dy has 5"),
    ],
    ids=["plain array", "dtype", "number of images"],
)
def test_gradient_rejects_activations_of_another_batch(
    function, dy_shape, x_shape, make, error, message
):
    with pytest.raises(error, match=message):
        function(ones(dy_shape), make(x_shape))


@every_gradient
def test_gradient_rejects_dy_of_another_shape(function, dy_shape, x_shape):
    with pytest.raises(ValueError, match="must have shape"):
        function(ones((*dy_shape[:-1], dy_shape[-1] + 1)), ones(x_shape))


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_need_dx_must_be_a_bool(value):
    for function, dy_shape, x_shape, w in (
        (packed.correlate_grad, (N, F, H - 2, W - 2), IMAGES, FILTERS),
        (packed.dense_grad, (N, F), ROWS, WEIGHTS),
    ):
        with pytest.raises(TypeError, match=r"need_dx must be (?i:true or false)"):
            function(ones(dy_shape), ones(x_shape), w, need_dx=value)


def test_index_and_image_shape_are_keywords():
    x = ones(IMAGES)
    y, index = packed.max_pool(x=x, pool_size=2)
    assert packed.max_pool_grad(dy=y, index=index, x_shape=IMAGES, pool_size=2).shape == IMAGES
    vectors = {"gamma": VECTOR, "beta": VECTOR}
    settings = {"epsilon": 1e-5, "activation": SILU, "pool_size": 2}
    y, index, mean, variance = packed.batch_norm_activation_pool(x=x, **vectors, **settings)
    dx, _, _ = packed.batch_norm_activation_pool_grad(
        dy=y, x=x, index=index, **vectors, mean=mean, variance=variance, **settings
    )
    assert dx.shape == IMAGES
    rows = packed.flatten(x=x)
    assert packed.flatten_grad(dy=rows, image_shape=(C, H, W)).shape == IMAGES


FOLDER = Path(kernels.__file__).parent / "numba_backend"
PACKAGE = "kernels.numba_backend"
# What the modules of each package may import of the backend.
ALLOWED = {
    "runtime": ("runtime",),
    "simd": ("runtime", "simd"),
    "packed": ("runtime", "simd", "packed"),
}


def imported_names(path):
    """Return the names of the modules and members that a source file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_lower_packages_import_no_module_above_them(package):
    prefixes = tuple(f"{PACKAGE}.{name}." for name in ALLOWED[package])
    for path in sorted((FOLDER / package).glob("*.py")):
        for name in imported_names(path):
            assert not name.startswith(PACKAGE) or f"{name}.".startswith(prefixes), path


@pytest.mark.parametrize("again", ["correlate", "correlate_grad"])
def test_an_interrupted_kernel_leaves_no_padded_copy(monkeypatch, again):
    images, dy = np.arange(N * C * H * W, dtype=float).reshape(IMAGES), np.ones((N, F, H, W))

    def run(x, dy):
        if again == "correlate":
            return [packed.correlate(x, FILTERS, padding=1)]
        return packed.correlate_grad(dy, x, FILTERS, padding=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    x = packed.pack(images)
    want = run(packed.pack(images), packed.pack(dy))
    with monkeypatch.context() as patched:
        patched.setattr(convolution, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
        patched.setattr(convolution, "launch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(x, packed.pack(dy))
    for got, expected in zip(run(x, packed.pack(dy)), want, strict=True):
        got, expected = getattr(got, "data", got), getattr(expected, "data", expected)
        np.testing.assert_array_equal(got, expected)
