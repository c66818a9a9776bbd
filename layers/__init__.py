"""The layers of a network: their shapes and parameters, forward and backward."""

from layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Silu, Softmax, Tanh
from layers.base import Layer, LoadArray, ShapeError, walk
from layers.conv import Conv
from layers.dense import Dense, Flatten
from layers.fusion import fold, fuse
from layers.normalization import BatchNorm, Dropout
from layers.pooling import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from layers.precision import end_in_full_precision, in_full_precision
from layers.residual import Residual

LAYER_TYPES: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Conv,
        Dense,
        BatchNorm,
        Relu,
        LeakyRelu,
        Softmax,
        Dropout,
        Flatten,
        MaxPool,
        AvgPool,
        GlobalAvgPool,
        GlobalMaxPool,
        Sigmoid,
        Tanh,
        Silu,
        Gelu,
        Residual,
    )
}

__all__ = [
    "LAYER_TYPES",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Layer",
    "LeakyRelu",
    "LoadArray",
    "MaxPool",
    "Relu",
    "Residual",
    "ShapeError",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Tanh",
    "end_in_full_precision",
    "fold",
    "fuse",
    "in_full_precision",
    "walk",
]
