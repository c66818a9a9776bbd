"""The model's door: plain images in, activations out, and a whole step at once."""

from kernels import checks


def from_array(x):
    return checks.activations(x, "x")


def to_array(x, final=False):
    return checks.activations(x, "x")


def load_images(images, mean, std, dtype, predict=False):
    images, mean, std = checks.raw_images(images, mean, std, dtype)
    return (images.astype(dtype) - mean[:, None, None]) * (1 / std)[:, None, None]


def record(function, *inputs):
    return function(*inputs), None
