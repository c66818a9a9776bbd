"""Packed kernels on bfloat16 activations return what the reference in mixed precision returns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.bfloat16 import round_to_bfloat16
from kernels.numba_backend import packed
from kernels.numba_backend.packed import layout
from kernels.numba_backend.simd import bfloat16, micro_kernels
from kernels.numba_backend.simd.codegen import VECTOR_BYTES
from kernels.numba_backend.simd.pixels import PAIR_DTYPE, load_pixel, store_pixel
from kernels.numba_backend.simd.vectors import load, store
from tests.cases import FUSED_ACTIVATIONS, assert_close, correlations, positive

REFERENCE, MIXED = get_backend("numpy", "bfloat16"), get_backend("numba", "bfloat16")
LANES = VECTOR_BYTES // 4
# One image fewer than a block, and one more; odd numbers of channels have a padding channel.
SHAPES = [(LANES - 1, 3, 5, 4), (LANES + 1, 4, 4, 7), (2 * LANES, 1, 6, 6), (3, 7, 1, 1)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
# Signed zeros, ties to even in both directions, overflow to infinity, infinities and NaN.
SPECIAL_BITS = [
    0x00000000, 0x80000000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808000, 0xBF818000,
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F7FFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF,
]  # fmt: skip


def random(shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return round_to_bfloat16(values)


def pack(x):
    return packed.narrow(packed.pack(np.ascontiguousarray(x)))


def assert_rounded_alike(got, want):
    """Assert that packed activations are the reference's but for the rounding of their last bit.

    A sum in another order may be rounded to the other side.
    """
    assert got.is_bfloat16
    got = packed.unpack(got)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=2**-7, atol=2**-7 * 1e-2 * np.abs(want).max())
    assert np.mean(got == want) > 0.9


@every_shape
def test_activations_are_stored_in_half_the_bytes_and_come_back_rounded(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch = pack(x)
    assert batch.shape == shape
    assert batch.dtype == np.float32
    assert batch.precision == "bfloat16"
    blocks, planes = -(-shape[0] // LANES), -(-shape[1] // 2)
    assert batch.data.nbytes == 4 * blocks * planes * shape[2] * shape[3] * LANES
    np.testing.assert_array_equal(packed.unpack(batch), round_to_bfloat16(x))
    np.testing.assert_array_equal(packed.unpack(packed.widen(batch)), round_to_bfloat16(x))


@every_shape
def test_flatten_keeps_the_order_of_features(shape):
    x = random(shape)
    rows = MIXED.flatten(pack(x))
    np.testing.assert_array_equal(packed.unpack(rows), x.reshape(len(x), -1))
    back = MIXED.flatten_grad(rows, shape[1:])
    assert back.shape == shape
    np.testing.assert_array_equal(packed.unpack(back), x)


@pytest.mark.parametrize("activation", [None, *FUSED_ACTIVATIONS], ids=str)
@every_shape
def test_batch_norm(shape, activation):
    x, dy = random(shape), random(shape, 1)
    gamma, beta = (positive(np.random.default_rng(2), shape[1], np.float32) for _ in range(2))
    arguments = gamma, beta, 1e-5, activation
    y, mean, variance = MIXED.batch_norm_activation(pack(x), *arguments)
    want, *statistics = REFERENCE.batch_norm_activation(x, *arguments)
    assert_rounded_alike(y, want)
    assert_close(mean, statistics[0])
    assert_close(variance, statistics[1])
    arguments = gamma, beta, *statistics, 1e-5, activation
    dx, dgamma, dbeta = MIXED.batch_norm_activation_grad(pack(dy), pack(x), *arguments)
    want, *grads = REFERENCE.batch_norm_activation_grad(dy, x, *arguments)
    assert_rounded_alike(dx, want)
    assert_close(dgamma, grads[0])
    assert_close(dbeta, grads[1])


@pytest.mark.parametrize("activation", FUSED_ACTIVATIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_batch_norm_with_pooling(shape, activation):
    x = random(shape)
    gamma, beta = (
        np.linspace(0.5, 2, shape[1], dtype="f4"),
        np.linspace(-1, 1, shape[1], dtype="f4"),
    )
    y, index, *statistics = MIXED.batch_norm_activation_pool(
        pack(x), gamma, beta, 1e-5, activation, 2
    )
    want, reference_index, *_ = REFERENCE.batch_norm_activation_pool(
        x, gamma, beta, 1e-5, activation, 2
    )
    assert_rounded_alike(y, want)
    dy = random(want.shape, 1)
    arguments = gamma, beta, *statistics, 1e-5, activation, 2
    got = MIXED.batch_norm_activation_pool_grad(pack(dy), pack(x), index, *arguments)
    dx, *grads = REFERENCE.batch_norm_activation_pool_grad(dy, x, reference_index, *arguments)
    assert_rounded_alike(got[0], dx)
    assert_close(got[1], grads[0])
    assert_close(got[2], grads[1])


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_pooling(shape, window):
    x = random(shape)
    y, index = MIXED.max_pool(pack(x), *window)
    want, reference_index = REFERENCE.max_pool(x, *window)
    np.testing.assert_array_equal(packed.unpack(y), want)
    dy = random(want.shape, 1)
    dx = MIXED.max_pool_grad(pack(dy), index, shape, *window)
    assert_gradient_of_pooling(dx, REFERENCE.max_pool_grad(dy, reference_index, shape, *window))
    assert_rounded_alike(MIXED.avg_pool(pack(x), *window), REFERENCE.avg_pool(x, *window))
    dx = MIXED.avg_pool_grad(pack(dy), shape, *window)
    assert_gradient_of_pooling(dx, REFERENCE.avg_pool_grad(dy, shape, *window))


def assert_gradient_of_pooling(dx, want):
    """The gradients of overlapping windows are added up in bfloat16, each sum rounded."""
    got = packed.unpack(dx)
    assert np.linalg.norm(got - want) < 2**-7 * np.linalg.norm(want)


@pytest.mark.parametrize("activation", [None, LeakyRelu(0.1), Silu()], ids=str)
@every_shape
def test_elementwise_functions(shape, activation):
    x, other = random(shape), random(shape, 1)
    for name, arrays in (("activate", [x]), ("activate_grad", [other, x]), ("add", [x, other])):
        got = getattr(MIXED, name)(*map(pack, arrays), activation)
        assert_rounded_alike(got, getattr(REFERENCE, name)(*arrays, activation))


@given(
    case=correlations(
        max_batch=LANES + 4,
        max_kernel=3,
        max_image=8,
        channels_of_group=st.sampled_from([1, 2, 3, 16]),
    )
)
def test_correlation_and_its_gradients(case):
    """With any number of channels, filters and groups, whichever kernels they take."""
    x, w, b = (array.astype(np.float32) for array in (case.x, case.w, case.b))
    x = round_to_bfloat16(x)
    sliding = {**case.sliding, "groups": case.groups}
    y = MIXED.correlate(pack(x), w, b, **sliding, scale=b, activation=LeakyRelu(0.1))
    assert_rounded_alike(
        y, REFERENCE.correlate(x, w, b, **sliding, scale=b, activation=LeakyRelu(0.1))
    )
    dy = round_to_bfloat16(case.gradient(len(w)).astype(np.float32))
    got = MIXED.correlate_grad(pack(dy), pack(x), w, **sliding)
    want = REFERENCE.correlate_grad(dy, x, w, **sliding)
    assert_rounded_alike(got[0], want[0])
    assert_close(got[1], want[1])
    assert_close(got[2], want[2])


@pytest.mark.parametrize(("features", "units"), [(9, 5), (32, 16), (7, 64)])
def test_dense(features, units):
    x, dy, w = random((19, features)), random((19, units), 1), random((features, units), 2) * 1.1
    b = random(units, 3)
    assert_rounded_alike(MIXED.dense(pack(x), w, b), REFERENCE.dense(x, w, b))
    got, want = MIXED.dense_grad(pack(dy), pack(x), w), REFERENCE.dense_grad(dy, x, w)
    assert_rounded_alike(got[0], want[0])
    assert_close(got[1], want[1])
    assert_close(got[2], want[2])


def test_packed_batches_of_two_precisions_are_not_mixed():
    x = random((4, 2, 3, 3))
    with pytest.raises(TypeError, match="x is float32 and dy is bfloat16"):
        packed.activate_grad(pack(x), packed.pack(x), Silu())


# -- with and without the instructions for bfloat16 ---------------------------------------------
@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(
    not bfloat16.HAS_BFLOAT16, reason="the processor has no AVX512_BF16"))],
    ids=["float32 instructions", "bfloat16 instructions"])  # fmt: skip
def instructions(request, monkeypatch):
    """Whether the kernels that a test compiles use AVX512_BF16."""
    monkeypatch.setattr(bfloat16, "HAS_BFLOAT16", request.param)


def test_rounding_of_all_kinds_of_numbers(instructions):
    bits = np.array(SPECIAL_BITS * 2, np.uint32)[: 2 * LANES]
    x, pairs, back = bits.view(np.float32), np.zeros(LANES, PAIR_DTYPE), np.zeros(2 * LANES, "f4")

    @njit
    def round_trip(x, pairs, back):
        store_pixel(pairs, 0, layout.join_channels(load(x, 0), load(x, LANES)))
        pixel = load_pixel(pairs, 0)
        store(back, 0, layout.first_channel(pixel))
        store(back, LANES, layout.second_channel(pixel))

    round_trip(x, pairs, back)
    np.testing.assert_array_equal(back.view(np.uint32), round_to_bfloat16(x).view(np.uint32))


@pytest.mark.parametrize("out_dtype", [np.float32, np.uint32])
def test_tiles_of_pairs(instructions, out_dtype):
    """out = w @ x over pairs, in float32 or rounded to pairs of rows."""
    rows, columns, n_terms = 2, 4, 21
    rng = np.random.default_rng(0)
    x = round_to_bfloat16(rng.standard_normal((n_terms, columns, LANES, 2)).astype(np.float32))
    w = round_to_bfloat16(rng.standard_normal((rows, n_terms, 2)).astype(np.float32))

    def pairs(values):
        return np.ascontiguousarray(values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)

    @njit
    def product(x, w, x_offsets, w_offsets, ones, zeros, out):
        micro_kernels.outer_product_tile(
            x, 0, x_offsets, LANES, w, 0, w_offsets, n_terms, n_terms,
            ones, zeros, 0, np.float32(1), out, 0, columns * LANES, LANES, rows, columns,
        )  # fmt: skip

    out = np.zeros((rows if out_dtype == np.float32 else rows // 2, columns, LANES), out_dtype)
    offsets = np.arange(n_terms)
    product(
        pairs(x).reshape(-1), pairs(w).reshape(-1), offsets * columns * LANES, offsets,
        np.ones(rows, np.float32), np.zeros(rows, np.float32), out.reshape(-1),
    )  # fmt: skip
    want = np.einsum("rtp,tclp->rcl", w, x, dtype=np.float64)
    if out_dtype == np.uint32:
        got = (out.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        got = np.moveaxis(got.reshape(columns, LANES, rows), 2, 0)
        np.testing.assert_allclose(got, want, rtol=2**-7, atol=1e-3)
    else:
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
