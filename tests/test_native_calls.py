"""Kernel calls that are compiled into one function."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu
from kernels.numba_backend.runtime import capture as capture_module
from kernels.numba_backend.runtime.compiler import serial
from kernels.numba_backend.runtime.native_calls import (
    Input,
    KernelError,
    NativeCalls,
    UnsupportedCallError,
)
from tests.networks import digits, small_network

BACKEND = get_backend("numba")


@serial
def scale(x, factors, options, out):
    """out = factor * x + shift, where factor is one of a tuple."""
    offset, is_negative, activation = options
    factor = -factors[1] if is_negative else factors[1]
    rows, columns = x.shape
    for i in range(rows):
        for j in range(columns):
            out[i, j] = factor * x[i, j] + offset + activation.negative_slope


@serial
def total(x, nothing):
    result = 0.0
    for value in x.flat:
        result += value
    return result, x.size


@serial
def fail(x):
    if x[0, 0] < 0:
        raise ValueError("a negative number")
    return x[0, 0] + 1


def arguments(x, out):
    activation = LeakyRelu(np.float32(0.25))
    return [x, (1.0, np.float32(3)), (np.float32(2), True, activation), out]


def test_calls_run_with_new_inputs_and_return_a_value():
    x, out = np.ones((3, 4), np.float32), np.empty((3, 4), np.float32)
    view = np.arange(40.0, dtype=np.float32).reshape(5, 8)[1:4, 1:8:2]  # with strides
    for other in (x, view):
        scale(*arguments(other, out))
    total(out, None)
    calls = [
        (scale, arguments(view, out)),
        (scale, arguments(Input(0), out)),
        (total, [out, None]),
    ]
    run = NativeCalls(calls, [x], value_call=2)
    for value in (1, -2):
        inputs = [np.full((3, 4), value, np.float32)]
        assert run(inputs) == (12 * (2.25 - 3 * value), 12)
        np.testing.assert_array_equal(out, np.full((3, 4), 2.25 - 3 * value, np.float32))
    assert NativeCalls(calls[:1], [])([]) is None
    np.testing.assert_array_equal(out, 2.25 - 3 * view)


def test_a_kernel_that_fails_ends_the_calls():
    x = np.ones((1, 2))
    fail(x)
    out = np.zeros((1, 2))
    total(out, None)
    run = NativeCalls([(fail, [Input(0)])], [x], value_call=0)
    assert run([x]) == 2.0
    with pytest.raises(KernelError):
        run([-x])
    assert run([3 * x]) == 4.0


def test_what_cannot_be_compiled_is_refused():
    x = np.ones((1, 2))
    with pytest.raises(UnsupportedCallError, match="no kernel"):
        NativeCalls([(np.negative, [x, x])], [])
    with pytest.raises(UnsupportedCallError, match="not compiled for"):
        NativeCalls([(fail, [np.ones((1, 2), np.int8)])], [])


def test_inputs_must_lie_in_memory_as_those_of_the_first_run():
    x = np.ones((4, 4))
    assert NativeCalls.fits([x, x[:2]])
    assert not NativeCalls.fits([x, x.T])
    assert not NativeCalls.fits([x[:, :2]])


@pytest.mark.parametrize("batch", [3, 20])
def test_a_model_computes_the_same_bits_when_its_calls_are_compiled(monkeypatch, batch):
    images, labels = digits(batch)
    results = []
    for compile_after in (2, 1000):
        monkeypatch.setattr(capture_module, "COMPILE_AFTER", compile_after)
        model = small_network("numba")
        losses = [model.train_step(images, labels) for _ in range(6)]
        logits = [model.logits(images) for _ in range(6)]
        results.append((losses, logits, model.parameters.values.copy()))
    for compiled, called in zip(*results, strict=True):
        np.testing.assert_array_equal(compiled, called)


def test_the_exception_of_a_kernel_is_raised_in_a_replay(monkeypatch):
    monkeypatch.setattr(capture_module, "COMPILE_AFTER", 1)

    def function(x):
        return capture_module.launch(fail, x)

    x = np.ones((1, 2))
    _, step = BACKEND.capture(function, x)
    assert step(x) == step(x) == 2.0
    with pytest.raises(ValueError, match="a negative number"):
        step(-x)
    assert step(5 * x) == 6.0
