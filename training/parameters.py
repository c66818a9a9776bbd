"""All parameters of a model in one vector, and their gradients in a second."""

import numpy as np

from layers import Layer


class Parameters:
    """The parameters of many layers, moved into one contiguous vector.

    The arrays in `layer.params`, `layer.grads` and `layer.buffers` become views of the vectors, so
    that an optimizer is one sweep, and a sum over machines is one message.

    Attributes
    ----------
    values, grads : (P,)
        First what weight decay applies to (weights: two dimensions or more), then the rest
        (biases, gamma and beta).
    decayed : int
        Length of that first part.
    buffers : (B,)
        What is not learned by gradients: running averages.
    """

    def __init__(self, layers: list[Layer], dtype: np.dtype):
        places = [(layer.params, name, layer.grads) for layer in layers for name in layer.params]
        places.sort(key=lambda place: place[0][place[1]].ndim < 2)  # stable: weights first
        weights = [params[name] for params, name, _ in places if params[name].ndim >= 2]
        self.decayed = sum(array.size for array in weights)
        self.values = _in_one([(params, name) for params, name, _ in places], dtype)
        self.grads = _in_one([(grads, name) for _, name, grads in places], dtype)
        self.grads[:] = 0
        self.buffers = _in_one(
            [(layer.buffers, n) for layer in layers for n in layer.buffers], dtype
        )


def _in_one(places: list[tuple[dict[str, np.ndarray], str]], dtype: np.dtype) -> np.ndarray:
    """Return a vector of arrays, in whose place in their dictionaries views of it come."""
    vector = np.empty(sum(arrays[name].size for arrays, name in places), dtype)
    start = 0
    for arrays, name in places:
        array = arrays[name]
        part = vector[start : start + array.size].reshape(array.shape)
        part[...] = array
        arrays[name] = part
        start += array.size
    return vector
