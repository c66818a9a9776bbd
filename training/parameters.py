"""All parameters of a model in one vector, and their gradients in a second."""

import numpy as np

from layers import Conv, Layer, walk


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
    filters : list of (start, shape)
        Where the filters of each convolution of one group begin in the vectors, and their shape
        (filters, channels, rows, columns).
    buffers : (B,)
        Arrays that are not learned by gradients: running averages.
    """

    def __init__(self, layers: list[Layer], dtype: np.dtype):
        layers = list(walk(layers))
        entries = [(layer, name) for layer in layers for name in layer.params]
        entries.sort(key=lambda entry: entry[0].params[entry[1]].ndim < 2)  # stable: weights first
        self.decayed, self.filters = 0, []
        for layer, name in entries:
            weights = layer.params[name]
            if weights.ndim >= 2:
                if isinstance(layer, Conv) and layer.groups == 1:
                    self.filters.append((self.decayed, weights.shape))
                self.decayed += weights.size
        self.values = _flatten([(layer.params, name) for layer, name in entries], dtype)
        self.grads = _flatten([(layer.grads, name) for layer, name in entries], dtype)
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
