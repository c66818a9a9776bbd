"""Packing writes each image into its lane, and unpacking takes it out again."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend import packed
from kernels.numba_backend.packed.layout import simd_width

NUMPY = get_backend("numpy")
# Images, channels and pixels: less than a square of lanes, one whole square, squares that overlap.
SHAPES = [(1, 1, 2, 2), (3, 2, 4, 4), (17, 1, 28, 28), (16, 3, 5, 7), (33, 2, 3, 3), (9, 40)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@every_shape
@every_dtype
@pytest.mark.parametrize("pixels", [np.uint8, None], ids=["uint8", "same dtype"])
def test_images_are_normalized_into_the_lanes(shape, dtype, pixels):
    rng = np.random.default_rng(0)
    images = (rng.random(shape) * 255).astype(pixels or dtype)
    mean, std = (rng.uniform(1, 100, shape[1]).astype(dtype) for _ in range(2))
    batch = packed.pack_normalized(images, mean, std)
    lanes = np.moveaxis(batch.data, -1, 1).reshape(-1, *shape[1:])
    axes = (slice(None), *[None] * (len(shape) - 2))
    want = (images.astype(dtype) - mean[axes]) * (1 / std)[axes]
    np.testing.assert_allclose(lanes[: len(images)], want, rtol=4 * np.finfo(dtype).eps)
    assert not lanes[len(images) :].any()
    assert len(batch.data) == -(-len(images) // simd_width(np.dtype(dtype)))


@every_shape
@every_dtype
def test_unpack_reverses_pack(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    np.testing.assert_array_equal(packed.unpack(packed.pack(x)), x)
