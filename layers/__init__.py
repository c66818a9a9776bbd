"""The layers of a network: their shapes and parameters, forward and backward."""

from layers.activations import LeakyRelu, Relu, Softmax
from layers.base import Layer, ShapeError
from layers.conv import Conv
from layers.dense import Dense, Flatten
from layers.fusion import fold, fuse
from layers.normalization import BatchNorm, Dropout
from layers.pooling import AvgPool, GlobalAvgPool, MaxPool

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
    "GlobalAvgPool",
    "Layer",
    "LeakyRelu",
    "MaxPool",
    "Relu",
    "ShapeError",
    "Softmax",
    "fold",
    "fuse",
]
