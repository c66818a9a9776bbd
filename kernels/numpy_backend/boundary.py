"""The boundary between plain arrays and the activations of a model.

Activations of this backend are plain arrays.
"""

from kernels.validation import check_activations, check_raw_images


def from_array(x):
    return check_activations(x, "x")


def to_array(x, output=False):
    return check_activations(x, "x")


def normalize_images(images, mean, std, dtype, predict=False):
    images, mean, std = check_raw_images(images, mean, std, dtype)
    return (images.astype(dtype) - mean[:, None, None]) * (1 / std)[:, None, None]


def capture(function, *inputs):
    return function(*inputs), None
