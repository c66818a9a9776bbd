"""The reference backend in pure NumPy: vectorized, and as simple as possible.

`kernels.interface` documents the functions.
"""

from kernels.interface import FUNCTIONS
from kernels.numpy_backend.activations import (
    activate,
    activate_grad,
    add,
    leaky_relu,
    leaky_relu_grad,
    softmax,
    softmax_cross_entropy,
    softmax_grad,
)
from kernels.numpy_backend.augmentation import augment_images
from kernels.numpy_backend.boundary import capture, from_array, normalize_images, to_array
from kernels.numpy_backend.choices import kernel_choices, pin_kernel_choices
from kernels.numpy_backend.convolution import (
    col2im,
    correlate,
    correlate_grad,
    correlate_im2col,
    im2col,
    separable_correlate,
)
from kernels.numpy_backend.dense import dense, dense_grad, flatten, flatten_grad
from kernels.numpy_backend.normalization import (
    batch_norm,
    batch_norm_activation,
    batch_norm_activation_grad,
    batch_norm_activation_pool,
    batch_norm_activation_pool_grad,
    batch_norm_grad,
    batch_norm_inference,
    dropout,
    dropout_grad,
    fold_batch_norm,
    update_running_stats,
)
from kernels.numpy_backend.optimizers import adam_step, momentum_step, sgd_step
from kernels.numpy_backend.pooling import avg_pool, avg_pool_grad, max_pool, max_pool_grad
from kernels.numpy_backend.threads import set_threads
from kernels.numpy_backend.warping import warp_images

__all__ = FUNCTIONS
