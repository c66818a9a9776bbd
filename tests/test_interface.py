"""All backends have the functions of the interface, with the same parameters."""

import doctest
import inspect

import numpy as np
import pytest

import kernels
from kernels import BACKENDS, activations, geometry, get_backend, interface
from kernels.activations import Silu
from kernels.interface import Backend

N = 16  # one whole block of images in the packed layout of the numba backend
FUNCTIONS = [name for name in vars(Backend) if not name.startswith("_")]
every_backend = pytest.mark.parametrize("backend", list(BACKENDS))


def numbers(*shape):
    """Return float32 numbers from 0.5 to 1.5, the same for the same shape."""
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def arguments(backend, function, convert=lambda x: x):
    """Return new values for all parameters of a function, by name and in order.

    ``convert`` converts each array of activations among them.
    """
    x, rows = convert(numbers(N, 4, 6, 6)), convert(numbers(N, 5))
    pooled = convert(numbers(N, 4, 3, 3))
    w, b, w_dense, b_dense = numbers(6, 2, 3, 3), numbers(6), numbers(5, 7), numbers(7)
    dy, dy_dense = convert(numbers(N, 6, 6, 6)), convert(numbers(N, 7))
    window = {"stride": 1, "padding": 1, "dilation": 1}
    kernel = {"kernel_size": 3, **window}
    pool = {"pool_size": 2, "stride": 2, "padding": 0}
    gamma, beta = {"gamma": numbers(4)}, {"beta": numbers(4)}
    stats = {"mean": numbers(4), "variance": numbers(4)}
    epsilon, slope = {"epsilon": 1e-5}, {"negative_slope": 0.1}
    activation = {"activation": Silu()}
    rates = {"learning_rate": 0.1}
    vectors = {"p": numbers(9), "g": numbers(9)}
    labels = np.arange(N) % 5
    images = numbers(N, 4, 6, 6)
    cases = {
        "set_threads": {"threads": 0},
        "kernel_choices": {},
        "pin_kernel_choices": {"choices": {}},
        "correlate": {
            "x": x, "w": w, "b": b, **window, "groups": 2, "scale": numbers(6), **activation,
        },
        "separable_correlate": {
            "x": x, "w": numbers(4, 1, 3, 3), "pointwise_w": numbers(6, 4, 1, 1), "b": numbers(4),
            "pointwise_b": numbers(6), **window, "scale": numbers(4),
            "pointwise_scale": numbers(6), **activation, "pointwise_activation": Silu(),
        },
        "correlate_grad": {
            "dy": dy, "x": x, "w": w, **window, "groups": 2, "need_dx": True,
            "out": (np.zeros_like(w), np.zeros_like(b)),
        },
        "im2col": {"x": x, **kernel},
        "col2im": {"cols": numbers(N, 36, 36), "x_shape": (N, 4, 6, 6), **kernel},
        "correlate_im2col": {"x": x, "w": w, "b": b, **window, "groups": 2},
        "max_pool": {"x": x, **pool},
        "max_pool_grad": {
            "dy": pooled, "index": backend.max_pool(x, 2)[1], "x_shape": (N, 4, 6, 6), **pool,
        },
        "avg_pool": {"x": x, **pool},
        "avg_pool_grad": {"dy": pooled, "x_shape": (N, 4, 6, 6), **pool},
        "flatten": {"x": x},
        "flatten_grad": {"dy": convert(numbers(N, 60)), "image_shape": (3, 4, 5)},
        "dense": {"x": rows, "w": w_dense, "b": b_dense, "scale": numbers(7), **activation},
        "dense_grad": {
            "dy": dy_dense, "x": rows, "w": w_dense, "need_dx": True,
            "out": (np.zeros_like(w_dense), np.zeros_like(b_dense)),
        },
        "batch_norm": {"x": x, **gamma, **beta, **epsilon},
        "batch_norm_grad": {
            "dy": x, "x": x, **gamma, **stats, **epsilon, "out": tuple(np.zeros((2, 4), "f4")),
        },
        "batch_norm_inference": {"x": x, **gamma, **beta, **stats, **epsilon},
        "update_running_stats": {
            "running_mean": numbers(4), "running_variance": numbers(4), **stats, "momentum": 0.9,
        },
        "fold_batch_norm": {"b": numbers(4), **gamma, **beta, **stats, **epsilon},
        "batch_norm_activation": {"x": x, **gamma, **beta, **epsilon, **activation},
        "batch_norm_activation_grad": {
            "dy": x, "x": x, **gamma, **beta, **stats, **epsilon, **activation,
            "out": tuple(np.zeros((2, 4), "f4")),
        },
        "batch_norm_activation_pool": {
            "x": x, **gamma, **beta, **epsilon, **activation, "pool_size": 2,
        },
        "batch_norm_activation_pool_grad": {
            "dy": pooled, "x": x,
            "index": backend.batch_norm_activation_pool(
                x, numbers(4), numbers(4), 1e-5, Silu(), 2
            )[1],
            **gamma, **beta, **stats, **epsilon, **activation, "pool_size": 2,
            "out": tuple(np.zeros((2, 4), "f4")),
        },
        "dropout": {"x": x, "rate": 0.5, "rng": np.random.default_rng(0)},
        "dropout_grad": {"dy": x, "mask": x},
        "activate": {"x": x, **activation},
        "activate_grad": {"dy": x, "x": x, **activation},
        "add": {"x": x, "other": convert(numbers(N, 4, 6, 6)), **activation},
        "leaky_relu": {"x": x, **slope},
        "leaky_relu_grad": {"dy": x, "x": x, **slope},
        "softmax": {"x": rows},
        "softmax_grad": {"dy": rows, "y": rows},
        "softmax_cross_entropy": {
            "logits": rows, "labels": labels, "smoothing": 0.1, "weights": np.ones(N),
        },
        "from_array": {"x": images},
        "to_array": {"x": x, "output": False},
        "normalize_images": {
            "images": images, "mean": numbers(4), "std": numbers(4), "dtype": np.float32,
            "predict": False,
        },
        "capture": {"function": lambda: (0.5, 1)},
        "warp_images": {"images": images, "matrices": np.tile(np.eye(2, 3), (N, 1, 1))},
        "augment_images": {
            "images": images, "mirrored": np.arange(N) % 2 == 0, "shifts": np.ones((N, 2), int),
            "colors": numbers(N, 4, 5), "boxes": np.tile([0, 1, 2, 3], (N, 1)),
            "fill": numbers(4), "low": 0.5, "high": 1.5,
        },
        "sgd_step": {**vectors, **rates, "l2": 0.1},
        "momentum_step": {
            **vectors, "velocity": numbers(9), **rates, "momentum": 0.9, "nesterov": True,
            "l2": 0.1,
        },
        "adam_step": {
            **vectors, "m": numbers(9), "v": numbers(9), "step": 1, **rates, "beta1": 0.9,
            "beta2": 0.99, "epsilon": 1e-8, "l2": 0.1, "decay": 0.1,
        },
    }  # fmt: skip
    return cases[function]


# The functions that a layer calls with activations, by the parameters that hold them.
ON_ACTIVATIONS = [
    name
    for name in FUNCTIONS
    if {"x", "dy", "logits"} & set(inspect.signature(getattr(Backend, name)).parameters)
    and name not in ("im2col", "correlate_im2col", "from_array")
]


def results(backend, function, arguments, by_keyword):
    """Call a function; return its result and its arguments, which it may change, as arrays."""
    call = getattr(backend, function)
    try:
        result = call(**arguments) if by_keyword else call(*arguments.values())
    except ValueError as error:  # set_threads(0), which changes nothing
        return [str(error)]
    return flat(backend, (result, *arguments.values()))


def flat(backend, value):
    if isinstance(value, dict):
        return [str(sorted(value.items()))]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in flat(backend, part)]
    if type(value).__module__.startswith("kernels."):  # activations in a layout of the backend
        return [backend.to_array(value)]
    return [value] if isinstance(value, (np.ndarray, float, int)) else []


def assert_same_by_keyword(backend, function, convert):
    positional, by_keyword = (
        results(backend, function, arguments(backend, function, convert), keyword)
        for keyword in (False, True)
    )
    assert positional
    assert len(by_keyword) == len(positional)
    for got, want in zip(by_keyword, positional, strict=True):
        np.testing.assert_array_equal(got, want)


@every_backend
@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_accepts_all_arguments_by_keyword(backend, function):
    backend = get_backend(backend)
    assert_same_by_keyword(backend, function, lambda x: x)


@every_backend
@pytest.mark.parametrize("function", ON_ACTIVATIONS)
def test_function_accepts_activations_by_keyword(backend, function):
    backend = get_backend(backend)
    assert_same_by_keyword(backend, function, backend.from_array)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arguments_of_these_tests_are_complete(function):
    names = [
        parameter.name
        for parameter in inspect.signature(getattr(Backend, function)).parameters.values()
        if parameter.kind is not parameter.VAR_POSITIONAL
    ]
    assert ["self", *arguments(get_backend("numpy"), function)] == names


@every_backend
@pytest.mark.parametrize("function", FUNCTIONS)
def test_signature_is_that_of_the_interface(backend, function):
    def parameters(signature):
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    want = parameters(inspect.signature(getattr(Backend, function)))[1:]  # without self
    got = inspect.signature(getattr(get_backend(backend), function))
    assert parameters(got) == want


@every_backend
def test_backend_has_the_functions_of_the_interface(backend):
    assert sorted(get_backend(backend).__all__) == sorted(FUNCTIONS)


@pytest.mark.parametrize(
    "module", [kernels, activations, geometry, interface], ids=lambda m: m.__name__
)
def test_examples_of_the_documentation(module):
    names = {"np": np, "backend": get_backend("numpy")}
    failed, attempted = doctest.testmod(module, extraglobs=names)
    assert attempted
    assert not failed
