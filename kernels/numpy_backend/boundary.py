"""The model's door: plain images in, activations out, and a whole step at once."""

from kernels import validation


def from_array(x):
    return validation.check_activations(x, "x")


def to_array(x, output=False):
    return validation.check_activations(x, "x")


def normalize_images(images, mean, std, dtype, predict=False):
    images, mean, std = validation.check_raw_images(images, mean, std, dtype)
    return (images.astype(dtype) - mean[:, None, None]) * (1 / std)[:, None, None]


def capture(function, *inputs):
    return function(*inputs), None
