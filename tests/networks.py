"""A network and images for tests."""

import numpy as np

from layers import BatchNorm, Conv, Dense, Dropout, Flatten, LeakyRelu, MaxPool, Softmax
from training import Adam, Model


def digits(N=400, size=8, seed=0):
    """Return simple images (N, 1, size, size) in uint8 and their labels 0 to 3.

    Each class is a bar: horizontal or vertical, bright on a dark background or dark on bright.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, N)
    images = rng.integers(0, 60, (N, 1, size, size))
    for image, label, place in zip(images, labels, rng.integers(1, size - 1, N), strict=True):
        image[(0, place) if label % 2 else (0, slice(None), place)] += 150
        if label >= 2:
            image[0] = 255 - image[0]
    return images.astype(np.uint8), labels


def small_network(backend="numpy", dtype="float64", seed=0, dropout=0.2, use_bias=True, **options):
    """Return a compiled model for `digits`, with one of each kind of layer."""
    model = Model((1, 8, 8), backend=backend, dtype=dtype, seed=seed, **options)
    model.add(Conv(4, kernel_size=3, padding="same", use_bias=use_bias)).add(BatchNorm())
    model.add(LeakyRelu()).add(MaxPool(2)).add(Conv(6, kernel_size=3, use_bias=use_bias))
    model.add(LeakyRelu()).add(Flatten()).add(Dense(16, use_bias=use_bias)).add(BatchNorm())
    model.add(LeakyRelu()).add(Dropout(dropout))
    model.add(Dense(4)).add(Softmax())
    return model.compile(optimizer=Adam(learning_rate=5e-3))
