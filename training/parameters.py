"""All parameters of a model in one vector, and their gradients in a second."""

import numpy as np

from layers import Layer


class Parameters:
    """The parameters of many layers, moved into one contiguous vector.

    The arrays in `layer.params` and `layer.grads` become views of the two vectors, so that an
    optimizer is one sweep and a sum over machines is one message.

    Attributes
    ----------
    values, grads : (P,)
        First what weight decay applies to (weights: two dimensions or more), then the rest
        (biases, gamma and beta).
    decayed : int
        Length of that first part.
    """

    def __init__(self, layers: list[Layer], dtype: np.dtype):
        entries = [(layer, name) for layer in layers for name in layer.params]
        entries.sort(key=lambda entry: entry[0].params[entry[1]].ndim < 2)  # stable: weights first
        sizes = [layer.params[name].size for layer, name in entries]
        self.decayed = sum(
            layer.params[name].size for layer, name in entries if layer.params[name].ndim >= 2
        )
        self.values = np.empty(sum(sizes), dtype)
        self.grads = np.zeros_like(self.values)
        start = 0
        for (layer, name), size in zip(entries, sizes, strict=True):
            part = slice(start, start + size)
            shape = layer.params[name].shape
            self.values[part] = layer.params[name].ravel()
            layer.params[name] = self.values[part].reshape(shape)
            layer.grads[name] = self.grads[part].reshape(shape)
            start += size
