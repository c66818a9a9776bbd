"""Optimizers: their arguments and the clipping of gradients.

The update formulas are tested with the kernels.
"""

import math

import numpy as np
import pytest

from kernels import BACKENDS
from layers import Conv, Dense, Flatten
from tests.networks import digits, small_network
from training import SGD, Adam, AdamW, Model, Momentum, Muon
from training.optimizers import orthogonalize

OPTIMIZERS = [SGD, Momentum, Adam, AdamW, Muon]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("learning_rate", [0, -1, np.nan, np.inf])
def test_rejects_learning_rate_that_is_not_a_positive_number(optimizer, learning_rate):
    with pytest.raises(ValueError, match=r"learning_rate must be (above|at least) 0"):
        optimizer(learning_rate=learning_rate)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rejects_negative_weight_decay(optimizer):
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        optimizer(weight_decay=-1)


@pytest.mark.parametrize(
    ("create", "error", "message"),
    [
        (lambda: Momentum(momentum=1), ValueError, "momentum must be at least 0 and below 1"),
        (lambda: Momentum(nesterov="no"), TypeError, "nesterov must be True or False"),
        (lambda: Adam(beta1=1), ValueError, "beta1 must be"),
        (lambda: Adam(epsilon=0), ValueError, "epsilon must be above 0"),
        (lambda: Muon(momentum=1), ValueError, "momentum must be at least 0 and below 1"),
        (lambda: Muon(iterations=0), ValueError, "iterations must be"),
        (lambda: SGD(clip_norm=0), ValueError, "clip_norm must be above 0"),
    ],
)
def test_rejects_options_out_of_range(create, error, message):
    with pytest.raises(error, match=message):
        create()


def test_gradients_are_clipped_to_a_norm():
    images, labels = digits(20)
    free, clipped = (
        small_network(backend="numpy").compile(SGD(1.0, clip_norm=clip)) for clip in (1e9, 0.25)
    )
    start = free.parameters.values.copy()
    for model in (free, clipped):
        model.train_step(images, labels)
    full, short = (model.parameters.values - start for model in (free, clipped))
    assert np.linalg.norm(full) > 0.3
    assert np.linalg.norm(short) == pytest.approx(0.25, rel=1e-5)
    np.testing.assert_allclose(short, full * (0.25 / np.linalg.norm(full)), rtol=1e-3, atol=1e-6)


def test_weight_decay_applies_to_weights_only():
    images, labels = digits(20)
    plain, decayed = (
        small_network(backend="numpy").compile(SGD(0.5, weight_decay=decay)) for decay in (0, 0.1)
    )
    start = plain.parameters.values.copy()
    for model in (plain, decayed):
        model.train_step(images, labels)
    n_weights = plain.parameters.decayed
    expected = plain.parameters.values - 0.5 * 0.1 * np.where(
        np.arange(len(start)) < n_weights, start, 0
    )
    np.testing.assert_allclose(decayed.parameters.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_vectors_are_checked_in_the_first_step_only(backend, monkeypatch):
    """They are the same arrays in every step, and the check takes 6 us of it."""
    images, labels = digits(20)
    model = small_network(backend).compile(AdamW(weight_decay=0.1))
    calls, may_share_memory = [], np.may_share_memory

    def count(*arrays):
        calls.append(arrays)
        return may_share_memory(*arrays)

    monkeypatch.setattr("numpy.may_share_memory", count)
    for _ in range(2):
        model.optimizer.step()
    checks_of_first_step = len(calls)
    assert checks_of_first_step == 12  # the pairs of p, g, m and v, with and without decay
    model.train_step(images, labels)
    model.optimizer.step()
    vectors = {id(array) for pair in calls[:12] for array in pair}
    assert not any(id(array) in vectors for pair in calls[12:] for array in pair)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_accepted_vectors_are_checked_again_when_they_change(backend):
    step = small_network(backend).backend.sgd_step
    p, g = np.ones(8, np.float32), np.ones(8, np.float32)
    step(p, g, 0.5, 0.0)
    p.flags.writeable = False
    with pytest.raises(ValueError, match="p must be contiguous, aligned and writable"):
        step(p, g, 0.5, 0.0)
    p.flags.writeable = True
    for _ in range(100):  # new arrays, which may have the ids of former ones
        g = np.ones(np.random.default_rng(0).integers(1, 4), np.float32)
        with pytest.raises(ValueError, match="g must have shape"):
            step(p, g, 0.5, 0.0)


def quintic(singular_values, iterations):
    """Return what the iterations make of singular values, which are divided by their norm."""
    s = singular_values / np.linalg.norm(singular_values)
    for _ in range(iterations):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(5, 5), (5, 27), (32, 27), (1, 9), (9, 1)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_orthogonalize_changes_the_singular_values_alone(shape, iterations):
    matrix = np.random.default_rng(0).standard_normal(shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    expected = u * quintic(s, iterations) @ vt
    np.testing.assert_allclose(orthogonalize(matrix, iterations), expected, rtol=0, atol=1e-12)
    result = orthogonalize(matrix.astype(np.float32), iterations)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_orthogonalize_brings_small_singular_values_near_1():
    u, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))
    matrix = u * np.geomspace(1, 1 / 60, 8)
    s = np.linalg.svd(orthogonalize(matrix, 3), compute_uv=False)
    assert s.min() > 0.5
    assert s.max() < 1.3


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_orthogonalize_takes_matrices_of_any_size(scale):
    matrix = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = orthogonalize(matrix, 3) if scale else np.zeros_like(matrix)
    result = orthogonalize(np.float32(scale) * matrix, 3)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_muon_steps_filters_by_orthogonal_matrices_and_all_else_as_adamw():
    images, labels = digits(20)
    muon, adamw = (
        small_network(backend="numpy", dtype="float64").compile(optimizer)
        for optimizer in (Muon(0.05, 0.7, 2, adam_ratio=0.2), AdamW(0.01, weight_decay=0.1))
    )
    expected = muon.parameters.values.copy()
    parts = [
        (slice(start, start + math.prod(shape)), shape[0])
        for start, shape in muon.parameters.filters
    ]
    momenta = [0.0 for _ in parts]
    for _ in range(3):
        muon.compute_gradients(images, labels)
        gradient = muon.parameters.grads.copy()
        adamw.parameters.grads[:] = gradient
        for model in (muon, adamw):
            model.optimizer.step()
        for i, (part, rows) in enumerate(parts):
            momenta[i] = 0.7 * momenta[i] + gradient[part]
            matrix = (gradient[part] + 0.7 * momenta[i]).reshape(rows, -1)
            u, s, vt = np.linalg.svd(matrix, full_matrices=False)
            step = (u * quintic(s, 2) @ vt).ravel()
            share = 0.05 * np.linalg.norm(expected[part]) / np.linalg.norm(step)
            expected[part] = (expected[part] - share * step) / math.sqrt(1 + 0.05**2)
    is_filter = np.zeros(len(expected), bool)
    for part, _ in parts:
        is_filter[part] = True
    actual, others = muon.parameters.values, adamw.parameters.values
    assert 0 < is_filter.sum() < muon.parameters.decayed
    np.testing.assert_allclose(actual[is_filter], expected[is_filter], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(actual[~is_filter], others[~is_filter], rtol=1e-12)
    assert not np.allclose(actual[is_filter], others[is_filter], rtol=1e-3)


def test_muon_leaves_filters_without_gradients_as_they_are():
    model = small_network(backend="numpy").compile(Muon(weight_decay=0))
    start = model.parameters.values.copy()
    model.parameters.grads[:] = 0
    model.optimizer.step()
    np.testing.assert_array_equal(model.parameters.values, start)


def test_muon_steps_filters_of_several_groups_as_adamw():
    model = Model((4, 6, 6), backend="numpy")
    model.add(Conv(4, 3, groups=4)).add(Conv(8, 3)).add(Flatten()).add(Dense(3)).compile(Muon())
    assert model.parameters.filters == [(4 * 9, (8, 4, 3, 3))]
