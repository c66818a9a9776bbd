"""The fully connected layer, and the way from images to rows."""

import math

from kernels import checks
from kernels.numpy_backend.activations import activated


def flatten(x):
    x = checks.images(x, "x")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def flatten_grad(dy, image):
    dy, image = checks.rows_gradient(dy, image)
    return dy.reshape(len(dy), *image)


def dense(x, w, b=None, scale=None, slope=1.0):
    x, w = checks.dense(x, w)
    scale, b = checks.scale_and_bias(scale, b, w.shape[1], x.dtype)
    return activated(x @ w, scale, b, slope)


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = checks.dense(x, w)
    dy = checks.matrix(dy, "dy", x.dtype)
    checks.shape_is(dy, "dy", (len(x), w.shape[1]))
    return dy @ w.T if need_dx else None, x.T @ dy, dy.sum(axis=0)
