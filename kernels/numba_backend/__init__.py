"""The fast path: kernels compiled by Numba, parallel on all cores.

No matrix product goes to BLAS: its threads and those of these kernels would fight for the
cores (`jit.py` has the figures).
"""

from kernels.numba_backend.activations import (
    leaky_relu,
    leaky_relu_grad,
    softmax,
    softmax_cross_entropy,
    softmax_grad,
)
from kernels.numba_backend.convolution import (
    col2im,
    correlate,
    correlate_grad,
    correlate_im2col,
    im2col,
)
from kernels.numba_backend.dense import dense, dense_grad, flatten, flatten_grad
from kernels.numba_backend.jit import set_threads
from kernels.numba_backend.normalization import (
    batch_norm,
    batch_norm_grad,
    batch_norm_inference,
    dropout,
    dropout_grad,
    load_images,
)
from kernels.numba_backend.optimizers import adam_step, momentum_step, sgd_step
from kernels.numba_backend.pooling import avg_pool, avg_pool_grad, max_pool, max_pool_grad

__all__ = [
    "adam_step",
    "avg_pool",
    "avg_pool_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_inference",
    "col2im",
    "correlate",
    "correlate_grad",
    "correlate_im2col",
    "dense",
    "dense_grad",
    "dropout",
    "dropout_grad",
    "flatten",
    "flatten_grad",
    "im2col",
    "leaky_relu",
    "leaky_relu_grad",
    "load_images",
    "max_pool",
    "max_pool_grad",
    "momentum_step",
    "set_threads",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
]
