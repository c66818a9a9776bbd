"""Optimizers: their arguments and the clipping of gradients.

The update formulas are tested with the kernels.
"""

import numpy as np
import pytest

from kernels import BACKENDS
from tests.networks import digits, small_network
from training import SGD, Adam, AdamW, Momentum

OPTIMIZERS = [SGD, Momentum, Adam, AdamW]


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
