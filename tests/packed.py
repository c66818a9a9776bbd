"""The kernels of a model's steps, behind the functions of a backend on plain arrays.

`LANES` packs the activations among the arguments, calls the numba backend, and unpacks the results.
`CAPTURED` calls its functions as a captured step does, where they run other kernels then.
"""

import inspect
from types import SimpleNamespace

import numpy as np

from kernels import numba_backend
from kernels.numba_backend import packed

# The positions of the arguments that are activations.
ACTIVATIONS = {
    "activate": [0],
    "activate_grad": [0, 1],
    "add": [0, 1],
    "avg_pool": [0],
    "avg_pool_grad": [0],
    "batch_norm": [0],
    "batch_norm_grad": [0, 1],
    "batch_norm_inference": [0],
    "batch_norm_activation": [0],
    "batch_norm_activation_grad": [0, 1],
    "correlate": [0],
    "correlate_grad": [0, 1],
    "dense": [0],
    "dense_grad": [0, 1],
    "dropout": [0],
    "dropout_grad": [0, 1],
    "flatten": [0],
    "flatten_grad": [0],
    "leaky_relu": [0],
    "leaky_relu_grad": [0, 1],
    "softmax": [0],
    "softmax_grad": [0, 1],
    "softmax_cross_entropy": [0],
}
# The same of the functions whose index is neither a plain array nor activations: it stays as it is.
WITH_INDEX = {
    "max_pool": [0],
    "max_pool_grad": [0],
    "batch_norm_activation_pool": [0],
    "batch_norm_activation_pool_grad": [0, 1],
}


def _pack(value):
    return packed.pack(np.ascontiguousarray(value))


def _unpack(value):
    return packed.unpack(value) if isinstance(value, packed.PackedBatch) else value


def _on_plain_arrays(name, positions):
    function = getattr(numba_backend, name)
    parameters = list(inspect.signature(function).parameters)
    names = {parameters[position] for position in positions}

    def call(*args, **kwargs):
        args = [_pack(value) if i in positions else value for i, value in enumerate(args)]
        kwargs = {key: _pack(value) if key in names else value for key, value in kwargs.items()}
        result = function(*args, **kwargs)
        return tuple(map(_unpack, result)) if isinstance(result, tuple) else _unpack(result)

    return call


LANES = SimpleNamespace(
    **{
        name: _on_plain_arrays(name, positions)
        for name, positions in (ACTIVATIONS | WITH_INDEX).items()
    }
)


def _captured(name):
    function = getattr(numba_backend, name)
    return lambda *args, **kwargs: numba_backend.capture(lambda: function(*args, **kwargs))[0]


CAPTURED = SimpleNamespace(dense=_captured("dense"))
