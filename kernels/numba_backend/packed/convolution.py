"""Correlation and its gradients on the packed layout, as matrix products without a copy of windows.

x (B, C, H, W, L) is copied once into zeros of the padded size. Each tap of each channel is then a
constant offset from a window's first pixel, so the register tiles of `simd` read windows where they
lie: rows of a tile are filters, its columns neighboring windows, and the lanes are images.

The input gradient of a stride of 1 is the same product: dy, correlated with the reversed filters.
The weight gradient is a product with the images and pixels as the summed dimension. These are the
"direct" kernels. Many channels take the kernels of `panels`, with 1x1 filters of `pointwise` or,
with 3x3 filters, of `winograd`; a filter for each channel those of `depthwise`. Where several of
them compete, `tuning` measures which one is the fastest.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed import depthwise, panels, pointwise, winograd
from kernels.numba_backend.packed.layout import PackedBatch, narrow, rounded, widen
from kernels.numba_backend.packed.shape_class import ShapeClass
from kernels.numba_backend.runtime import tuning
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import dot_tile_shape, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import (
    channel_sums,
    scale_and_bias,
    tiled_matmul,
    tiled_matmul_nt,
)
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# Each tile of the weight gradient is one task. Where tiles are few, the batch is cut into parts as
# well, so that all threads have work; where pixels are many, so that no sum is too long. The number
# of parts does not depend on the number of threads, so no bit of a result does.
MIN_TASKS = 64
# Channels (in the input gradient, filters) that are summed in panels. Milliseconds for 64 images on
# one thread, direct and in panels, forward: 3x3 filters on 16 channels of 28x28 pixels 1.7 and 1.6,
# on 24 of 14x14 1.3 and 1.5; 3x3 filters of stride 2 on 32 channels of 32x32 10.4 and 4.8. The
# weight gradients of the first and the last: 1.7 and 2.1, 13.2 and 5.2.
MIN_PANEL_CHANNELS = 32
# Filters times channels of a weight gradient by Winograd's method: see
# `_weight_gradient_candidates`.
MIN_WEIGHTS = 1024
# Blocks that a measurement takes, or more for many threads. The weight gradients add up their parts
# at the end, which few images make expensive. 64 channels and filters of 16x16 pixels on 2 threads
# of an AMD EPYC (Zen 4, beside other work), in GFLOP/s by `winograd` and direct: 2 blocks 176 and
# 211, 4 blocks 226 and 202, 16 blocks 301 and 157.
MEASURED_BLOCKS = {"correlate": 2, "input_gradient": 2, "weight_gradient": 4}


@parallel
def copy_zero_padded(x, out, pad_begin):
    """out (planes, padded_h, padded_w, L) = x (planes, H, W, L) with zeros around it.

    The first pixel of x is at ``pad_begin``.
    """
    planes, H, W, L = x.shape
    _, padded_h, padded_w, _ = out.shape
    x_flat, size = x.reshape(-1), padded_h * padded_w * L
    for p in prange(planes):
        copy_padded_rows(
            x_flat, p, H, W, -pad_begin[0], -pad_begin[1], padded_h, padded_w, L,
            out.reshape(-1)[p * size :],
        )  # fmt: skip


@serial
def _correlate(
    needs_copy, x, padded, pad_begin, x_strides, x_offsets, w, w_strides, w_offsets,
    scale, bias, activation, y, y_strides, counts, tile,
):  # fmt: skip
    """y = the matrix product of w and the windows of x; ``needs_copy`` pads x first."""
    if needs_copy:
        copy_zero_padded(x, padded, pad_begin)
    tiled_matmul(
        padded.reshape(-1), x_strides, x_offsets, w.reshape(-1), w_strides, w_offsets, scale, bias,
        activation, y.reshape(-1), y_strides, counts, tile,
    )  # fmt: skip


@serial
def _weight_gradient(
    padded_x, dy, dy_group_stride, dy_filter_stride, dy_vector_stride, dy_row_offsets,
    x_group_stride, x_vector_stride, x_row_offsets, tap_offsets, row_length, groups, tile,
    parts, dw, db,
):  # fmt: skip
    """dw = the sum of dy times the pixels of each tap, and db = the sum of dy.

    The summed segments are the rows of pixels of all blocks of images. ``parts`` receives the sums
    over each part of them.
    """
    tiled_matmul_nt(
        dy.reshape(-1), dy_group_stride, dy_filter_stride, dy_vector_stride, dy_row_offsets,
        padded_x.reshape(-1), x_group_stride, x_vector_stride, x_row_offsets, tap_offsets,
        row_length, groups, tile, parts,
    )  # fmt: skip
    dw_flat, sums = dw.reshape(-1), parts.reshape(len(parts), -1)
    for i in range(dw_flat.size):
        dw_flat[i] = sums[0, i]
        for part in range(1, len(sums)):
            dw_flat[i] += sums[part, i]
    channel_sums(dy, db)


class _Plan:
    """Shapes, strides and offsets of a convolution of one geometry, for the kernels above.

    Attributes
    ----------
    x_padding, dy_padding : (shape, pad_begin)
        Arguments of `_get_padded` for x and, in the input gradient, for dy.
    x, dy : (strides, offsets)
        Of the padded x and dy, in a `tiled_matmul`.
    w, reversed_w : (strides, offsets)
        Of the filters, and of the reversed filters that the input gradient takes.
    y, dx : (strides, counts, tile)
        Of the outputs of these products; the input gradient is that of a stride of 1.
    y_shape, dx_shape : (C, H, W)
        Of one image.
    weight_gradient : tuple
        Arguments of `_weight_gradient`, from ``dy_group_stride`` to ``tile``.
    parts_shape : (parts, F, taps)
    """

    def __init__(self, B: int, groups: int, channels: int, filters: int, window: Window, L: int):
        """channels and filters are those of one group."""
        self._plan_forward(B, groups, channels, filters, window, L)
        self._plan_weight_gradient(B, groups, filters, L)
        self._plan_input_gradient(B, groups, channels, filters, window, L)

    def _plan_forward(self, B, groups, channels, filters, window, L) -> None:
        (KH, KW), (row_dilation, column_dilation) = window.size, window.dilation
        (OH, OW), (padded_h, padded_w) = window.output, window.padded
        row_stride, column_stride = window.stride
        C, F, plane = groups * channels, groups * filters, padded_h * padded_w * L
        c, k, m = np.ogrid[:channels, :KH, :KW]
        tap_offsets = ((c * padded_h + k * row_dilation) * padded_w + m * column_dilation) * L

        self.x_padding = (B * C, padded_h, padded_w, L), window.pad_begin
        self.x = (
            (C * plane, channels * plane, row_stride * padded_w * L, column_stride * L),
            tap_offsets.astype(np.int64).ravel(),
        )
        taps = tap_offsets.size
        self.w = (filters * taps, taps), np.arange(taps, dtype=np.int64)
        self.y_shape = F, OH, OW
        self.y = (
            (F * OH * OW * L, filters * OH * OW * L, OW * L, OH * OW * L, L),
            (B, groups, OH, filters, OW),
            outer_product_tile_shape(filters, OW),
        )

    def _plan_weight_gradient(self, B, groups, filters, L) -> None:
        F, OH, OW = self.y_shape
        (x_block_stride, x_group_stride, x_row_stride, x_vector_stride), tap_offsets = self.x

        def row_offsets(block_stride, row_stride):
            """Return the offset of each of the OH rows of each block."""
            rows = np.arange(OH, dtype=np.int64) * row_stride
            return (np.arange(B, dtype=np.int64)[:, None] * block_stride + rows).ravel()

        ROWS, COLUMNS = tile = dot_tile_shape(filters, tap_offsets.size)
        self.weight_gradient = (
            *(filters * OH * OW * L, OH * OW * L, L, row_offsets(F * OH * OW * L, OW * L)),
            *(x_group_stride, x_vector_stride, row_offsets(x_block_stride, x_row_stride)),
            *(tap_offsets, OW, groups, tile),
        )
        tasks = groups * -(-filters // ROWS) * -(-tap_offsets.size // COLUMNS)
        parts = max(-(-MIN_TASKS // tasks), B * OH * OW // MAX_SUM_TERMS)
        self.parts_shape = min(parts, B * OH), F, tap_offsets.size

    def _plan_input_gradient(self, B, groups, channels, filters, window, L) -> None:
        (KH, KW), (row_dilation, column_dilation) = window.size, window.dilation
        (H, W), (extent_h, extent_w) = window.image, window.kernel_extent
        top, left = window.pad_begin
        C, F = groups * channels, groups * filters
        padded_h, padded_w = H + extent_h - 1, W + extent_w - 1
        plane = padded_h * padded_w * L
        f, k, m = np.ogrid[:filters, :KH, :KW]
        dy_offsets = (f * padded_h + (KH - 1 - k) * row_dilation) * padded_w
        dy_offsets = (dy_offsets + (KW - 1 - m) * column_dilation) * L
        w_offsets = (f * channels * KH + k) * KW + m

        dy_begin = extent_h - 1 - top, extent_w - 1 - left
        self.dy_padding = (B * F, padded_h, padded_w, L), dy_begin
        self.dy = (
            (F * plane, filters * plane, padded_w * L, L),
            dy_offsets.astype(np.int64).ravel(),
        )
        self.reversed_w = (
            (filters * channels * KH * KW, KH * KW),
            w_offsets.astype(np.int64).ravel(),
        )
        self.dx_shape = C, H, W
        self.dx = (
            (C * H * W * L, channels * H * W * L, W * L, H * W * L, L),
            (B, groups, H, channels, W),
            outer_product_tile_shape(channels, W),
        )


@lru_cache(maxsize=256)
def _plan(B: int, w_shape: tuple, window: Window, groups: int, L: int) -> _Plan:
    return _Plan(B, groups, w_shape[1], w_shape[0] // groups, window, L)


def _get_padded(x: PackedBatch, shape, pad_begin):
    """Return (needs_copy, x, padded, pad_begin).

    Without any padding the padded x is x itself. If ``needs_copy`` is true, the caller must fill
    ``padded``. Only then may it keep the copy in ``x.padded``, for the kernels that run later: an
    interrupted kernel must not leave a copy there that is only partly filled.
    """
    if x.images.shape == shape and pad_begin == (0, 0):
        return False, x.images, x.images, pad_begin
    padded = x.padded.get((shape, pad_begin))
    if padded is not None:
        return False, x.images, padded, pad_begin
    return True, x.images, empty(shape, x.dtype), pad_begin


def _padded_input(x: PackedBatch, plan: _Plan) -> np.ndarray:
    """Return the padded x; usually the forward pass has made the copy."""
    needs_copy, images, padded, pad_begin = _get_padded(x, *plan.x_padding)
    if needs_copy:
        launch(copy_zero_padded, images, padded, pad_begin)
        x.padded[plan.x_padding] = padded
    return padded


def _product(
    x: PackedBatch, x_padding, x_layout, w, w_layout, affine, activation, y_shape, y_layout
):
    """Return the product of w and the windows of x, by `_correlate`.

    The layouts are attributes of `_Plan`, and ``affine`` is the scale and the bias.
    """
    y = x.like(*y_shape)
    needs_copy, images, padded, pad_begin = _get_padded(x, *x_padding)
    launch(
        _correlate, needs_copy, images, padded, pad_begin, *x_layout, w, *w_layout,
        *affine, activation, y.data, *y_layout,
    )  # fmt: skip
    if needs_copy:
        x.padded[x_padding] = padded
    return y


def _takes_pairs(w_shape: tuple, groups: int) -> bool:
    """Return whether no pair of channels, and none of filters, belongs to two groups."""
    return groups == 1 or w_shape[1] % 2 == w_shape[0] // groups % 2 == 0


def _can_use_winograd(window: Window, groups: int, w_shape: tuple) -> bool:
    """Return whether fewer multiplications may make up for the time of the transforms.

    GFLOP/s of the direct sum on one thread of a Zen 4 (beside other work), 64 images, forward, by
    Winograd's method and directly: 8 channels and filters of 28x28 pixels 96 and 93, 8 and 32 of
    14x14 63 and 90, 16 of 28x28 105 and 81, 32 of 28x28 240 and 105. The input gradient behaves
    likewise. (Pairs of bfloat16 numbers must be of two channels, and of two filters.)
    """
    F, channels = w_shape[:2]
    is_plain = window.stride == window.dilation == (1, 1) and groups == 1
    takes_pairs = F % 2 == channels % 2 == 0
    return is_plain and takes_pairs and window.size == (3, 3) and min(F, channels) >= 16


def _correlation_candidates(
    x: PackedBatch, w_shape: tuple, window: Window, groups: int, n_summed: int, is_strided: bool
) -> tuple[str, ...]:
    """Return the kernels that may be the fastest, the default first, forward or for dx.

    Parameters
    ----------
    x : PackedBatch
        x, or dy for the input gradient.
    n_summed : int
        Number of channels, or of filters for the input gradient, in each sum.
    is_strided : bool
        Whether the pixels of a window lie apart in a way that only panels can read.
    """
    if not x.is_bfloat16 and depthwise.is_supported(window, groups, w_shape):
        return ("depthwise",)
    # A correlation of 1x1 needs no rows: its panels are those of `pointwise`, or it reads each
    # pixel where it lies, which is faster than panels of rows. Milliseconds on one thread of a Zen
    # 4, 64 images, in panels of rows and in place: 32 to 64 channels of 32x32 pixels 5.3 and 4.4,
    # 128 to 128 of 16x16 7.2 and 6.5, 256 to 256 of 8x8 7.1 and 6.3.
    is_in_place = window.size == (1, 1) and window.padded == window.image
    in_panels = is_strided or (n_summed >= MIN_PANEL_CHANNELS and not is_in_place)
    plain = "panels" if in_panels or x.is_bfloat16 else "direct"
    return ("winograd", plain) if _can_use_winograd(window, groups, w_shape) else (plain,)


def _weight_gradient_candidates(
    x: PackedBatch, w_shape: tuple, window: Window, groups: int
) -> tuple[str, ...]:
    """Return the kernels that may be the fastest, the default first.

    GFLOP/s of the direct sum on one thread of an AMD EPYC (Zen 4), for 64 images, by `winograd`,
    and by the direct kernel in float32 and `panels` in bfloat16:

    ==================================  ========  ======  ========  ======
    channels, filters, rows of pixels    float32          bfloat16
    ----------------------------------  ----------------  ----------------
                                        winograd  direct  winograd  panels
    ==================================  ========  ======  ========  ======
    16, 16, 14                                74      82
    32, 32, 28                               202     111       203     180
    32, 64, 14                               188     113       175     202
    64, 64, 14                               184     110       196     205
    32, 64, 32                               198     106       231     191
    64, 64, 16                               212     112       279     202
    64, 128, 16                              238     109       281     204
    128, 256, 8                              294     109       295     203
    256, 256, 4                              233     102       222     180
    ==================================  ========  ======  ========  ======
    """
    F, channels = w_shape[:2]
    channels_fill_vectors = channels % x.lanes == 0
    plain: tuple[str, ...] = ("direct", "panels") if channels_fill_vectors else ("direct",)
    if x.is_bfloat16:
        plain = ("panels",)
    elif depthwise.is_supported(window, groups, w_shape):
        return ("depthwise",)
    if F % x.lanes == 0 and _can_use_winograd(window, groups, w_shape):
        by_winograd = ("winograd",)
        return by_winograd + plain if F * channels >= MIN_WEIGHTS else plain + by_winograd
    return plain[-1:] if channels >= MIN_PANEL_CHANNELS else plain[:1]


def _first_blocks(x: PackedBatch, n_blocks: int) -> PackedBatch:
    """Return a new batch of the first blocks without padded copies.

    A copy that a measurement has made must not be found by a kernel that is captured: a replay
    would not make it again.
    """
    data = x.data[:n_blocks]
    return PackedBatch(data, min(x.shape[0], len(data) * x.lanes), x.shape[1])


def _run_on_first_blocks(
    kernel: str, function: Callable, batches: tuple[PackedBatch, ...], args: tuple
) -> None:
    n_blocks = max(MEASURED_BLOCKS[kernel], numba.get_num_threads())
    function(*(_first_blocks(x, n_blocks) for x in batches), *args)


def _run_fastest(
    kernel: str,
    implementations: Mapping[str, Callable],
    candidates: tuple[str, ...],
    shapes: tuple[tuple, Window, int],
    batches: tuple[PackedBatch, ...],
    args: tuple,
    **out: Any,
):
    """Call the fastest of the candidates; the first one is the default.

    Parameters
    ----------
    kernel : str
        What the candidates compute, a key of `MEASURED_BLOCKS`.
    implementations : mapping of str to callable
    candidates : tuple of str
        Some of their names.
    shapes : (w_shape, window, groups)
    batches : tuple of PackedBatch
        The first arguments: a measurement takes some of their blocks.
    args : tuple
        The other arguments, which an implementation only reads.
    out : keywords
        What it writes to: a measurement has arrays of its own.
    """
    name = candidates[0]
    if len(candidates) > 1:
        x, (w_shape, window, groups) = batches[0], shapes
        n_blocks = min(len(x.data), MEASURED_BLOCKS[kernel])
        n_blocks = 2 if n_blocks == 3 else n_blocks
        shape_class = ShapeClass(window, w_shape, groups, x.data.dtype, "blocks from", n_blocks)
        runs = {
            name: partial(_run_on_first_blocks, kernel, implementations[name], batches, args)
            for name in candidates
        }
        name = tuning.choose(kernel, shape_class, runs, name)
    return implementations[name](*batches, *args, **out)


def _correlate_by_winograd(x, w, b, window, groups, scale, activation):
    return winograd.correlate(x, w, b, window, scale, activation)


def _correlate_depthwise(x, w, b, window, groups, scale, activation):
    return depthwise.correlate(x, w, b, window, scale, activation)


def _correlate_directly(x, w, b, window, groups, scale, activation):
    if pointwise.is_supported(window, groups, w.shape[1]):
        return pointwise.correlate(x, w, b, window, scale, activation)
    plan = _plan(len(x.data), w.shape, window, groups, x.lanes)
    affine = scale_and_bias(scale, b, len(w), x.dtype)
    return _product(x, plan.x_padding, plan.x, w, plan.w, affine, activation, plan.y_shape, plan.y)


CORRELATE = {
    "winograd": _correlate_by_winograd,
    "panels": panels.correlate,
    "direct": _correlate_directly,
    "depthwise": _correlate_depthwise,
}


def correlate(x: PackedBatch, w, b, window: Window, groups: int, scale, activation) -> PackedBatch:
    if x.is_bfloat16 and not _takes_pairs(w.shape, groups):
        return narrow(correlate(widen(x), rounded(w), b, window, groups, scale, activation))
    candidates = _correlation_candidates(x, w.shape, window, groups, w.shape[1], is_strided=False)
    return _run_fastest(
        "correlate", CORRELATE, candidates, (w.shape, window, groups),
        (x,), (w, b, window, groups, scale, activation),
    )  # fmt: skip


def _input_gradient_by_winograd(dy, w, window, groups):
    return winograd.input_gradient(dy, w, window)


def _input_gradient_depthwise(dy, w, window, groups):
    return depthwise.input_gradient(dy, w, window)


def _input_gradient_directly(dy, w, window, groups):
    if pointwise.is_supported(window, groups, len(w)):
        return pointwise.input_gradient(dy, w, window)
    plan = _plan(len(dy.data), w.shape, window, groups, dy.lanes)
    affine = scale_and_bias(None, None, plan.dx_shape[0], dy.dtype)
    identity = activation_argument(None, dy.dtype)
    return _product(
        dy, plan.dy_padding, plan.dy, w, plan.reversed_w, affine, identity, plan.dx_shape, plan.dx
    )


INPUT_GRADIENT = {
    "winograd": _input_gradient_by_winograd,
    "panels": panels.input_gradient,
    "direct": _input_gradient_directly,
    "depthwise": _input_gradient_depthwise,
}


def input_gradient(dy: PackedBatch, w, window: Window, groups: int) -> PackedBatch:
    """Return dx."""
    if dy.is_bfloat16 and not _takes_pairs(w.shape, groups):
        return narrow(input_gradient(widen(dy), rounded(w), window, groups))
    candidates = _correlation_candidates(
        dy, w.shape, window, groups, len(w) // groups, is_strided=window.stride != (1, 1)
    )
    return _run_fastest(
        "input_gradient", INPUT_GRADIENT, candidates, (w.shape, window, groups),
        (dy,), (w, window, groups),
    )  # fmt: skip


def _weight_gradient_by_winograd(dy, x, w_shape, window, groups, out=None):
    return winograd.weight_gradient(dy, x, w_shape, window, out)


def _weight_gradient_depthwise(dy, x, w_shape, window, groups, out=None):
    return depthwise.weight_gradient(dy, x, w_shape, window, out)


def _weight_gradient_directly(dy, x, w_shape, window, groups, out=None):
    plan = _plan(len(x.data), w_shape, window, groups, x.lanes)
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), x.dtype)
    parts = empty(plan.parts_shape, x.dtype)
    launch(
        _weight_gradient, _padded_input(x, plan), dy.planes, *plan.weight_gradient, parts, dw, db
    )
    return dw, db


WEIGHT_GRADIENT = {
    "winograd": _weight_gradient_by_winograd,
    "panels": panels.weight_gradient,
    "direct": _weight_gradient_directly,
    "depthwise": _weight_gradient_depthwise,
}


def weight_gradient(
    dy: PackedBatch, x: PackedBatch, w_shape, window: Window, groups: int, out=None
):
    """Return dw and db."""
    can_pair = w_shape[1] % x.lanes == 0 and _takes_pairs(w_shape, groups)
    if x.is_bfloat16 and not can_pair:
        return weight_gradient(widen(dy), widen(x), w_shape, window, groups, out)
    candidates = _weight_gradient_candidates(x, w_shape, window, groups)
    return _run_fastest(
        "weight_gradient", WEIGHT_GRADIENT, candidates, (w_shape, window, groups),
        (dy, x), (w_shape, window, groups), out=out,
    )  # fmt: skip
