"""All parameters of a model in one vector, and their gradients in a second."""

import numpy as np

from layers import Layer, walk


class Parameters:
    """The parameters of many layers, moved into one contiguous vector.

    The arrays in `layer.params`, `layer.grads` and `layer.buffers` become views of the vectors.
    An optimizer's step is then one pass over a vector, and a sum over machines is one message.

    Parameters
    ----------
    layers : list of Layer
        The parameters of layers inside them belong to them, too.
    dtype : dtype

    Attributes
    ----------
    values, grads : (P,)
        First the parameters that weight decay applies to (weights: two dimensions or more), then
        the others (biases, gamma and beta).
    decayed : int
        Length of the first part.
    buffers : (B,)
        Arrays that are not learned by gradients: running averages.
    """

    def __init__(self, layers: list[Layer], dtype: np.dtype):
        layers = list(walk(layers))
        entries = [(layer.params, name, layer.grads) for layer in layers for name in layer.params]
        entries.sort(key=lambda entry: entry[0][entry[1]].ndim < 2)  # stable: weights first
        weights = [params[name] for params, name, _ in entries if params[name].ndim >= 2]
        self.decayed = sum(array.size for array in weights)
        self.values = _flatten([(params, name) for params, name, _ in entries], dtype)
        self.grads = _flatten([(grads, name) for _, name, grads in entries], dtype)
        self.grads[:] = 0
        self.buffers = _flatten(
            [(layer.buffers, name) for layer in layers for name in layer.buffers], dtype
        )


def _flatten(entries: list[tuple[dict[str, np.ndarray], str]], dtype: np.dtype) -> np.ndarray:
    """Copy arrays into one vector, and replace them in their dictionaries by views of it."""
    vector = np.empty(sum(arrays[name].size for arrays, name in entries), dtype)
    start = 0
    for arrays, name in entries:
        array = arrays[name]
        view = vector[start : start + array.size].reshape(array.shape)
        view[...] = array
        arrays[name] = view
        start += array.size
    return vector
