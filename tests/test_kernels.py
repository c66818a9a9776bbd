"""The three backends agree with naive loops and with each other, on random shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import BACKENDS, get_backend
from kernels.activations import Sigmoid, Tanh
from kernels.geometry import make_window
from tests import naive
from tests.cases import (
    ACTIVATIONS,
    FUSED_ACTIVATIONS,
    assert_close,
    correlations,
    dtypes,
    pools,
)
from tests.packed import CAPTURED, LANES

NUMPY = get_backend("numpy")
BACKEND_MODULES = [pytest.param(get_backend(name), id=name) for name in BACKENDS]
PACKED = pytest.param(LANES, id="numba packed")
every_backend = pytest.mark.parametrize("backend", BACKEND_MODULES)
every_layout = pytest.mark.parametrize("backend", [*BACKEND_MODULES, PACKED])
fast_layouts = pytest.mark.parametrize("backend", [*BACKEND_MODULES[:2], PACKED])
small = correlations(max_batch=2, max_kernel=3, max_image=6, max_channels=2)


@every_layout
@given(case=small)
def test_correlate_equals_naive_sum(backend, case):
    want = naive.correlate(case.x, case.w, case.b, case.window, case.groups)
    got = backend.correlate(case.x, case.w, case.b, **case.sliding, groups=case.groups)
    assert_close(got, want)


@every_layout
@given(case=small)
def test_correlate_grad_equals_naive_sum(backend, case):
    dy = case.gradient(len(case.w))
    want = naive.correlate_grad(dy, case.x, case.w, case.window, case.groups)
    got = backend.correlate_grad(dy, case.x, case.w, **case.sliding, groups=case.groups)
    for grad, naive_grad in zip(got, want, strict=True):
        assert_close(grad, naive_grad)


@fast_layouts
@given(case=correlations(large=True))
def test_correlate_agrees_with_numpy(backend, case):
    arguments = {**case.sliding, "groups": case.groups}
    want = NUMPY.correlate(case.x, case.w, case.b, **arguments)
    assert_close(backend.correlate(case.x, case.w, case.b, **arguments), want)
    assert_close(backend.correlate(case.x, case.w, **arguments) + case.b[:, None, None], want)


@fast_layouts
@given(case=correlations(large=True))
def test_correlate_grad_agrees_with_numpy(backend, case):
    arguments = {**case.sliding, "groups": case.groups}
    dy = case.gradient(len(case.w))
    want = NUMPY.correlate_grad(dy, case.x, case.w, **arguments)
    got = backend.correlate_grad(dy, case.x, case.w, **arguments)
    for grad, reference in zip(got, want, strict=True):
        assert_close(grad, reference)
    dx, dw, db = backend.correlate_grad(dy, case.x, case.w, **arguments, need_dx=False)
    assert dx is None
    assert_close(dw, want[1])
    assert_close(db, want[2])


@every_layout
@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding"),
    [(3, 1, 2, 1), (6, 3, 1, ((4, 0), (2, 2))), (6, (2, 1), 1, ((2, 0), (0, 0))), (4, 2, 3, 5)],
)
def test_correlate_grad_where_output_is_as_large_as_padded_input(
    backend, image, kernel, stride, padding
):
    sliding = {"stride": stride, "padding": padding}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, image, image))
    w = rng.standard_normal((4, 2, *np.broadcast_to(kernel, 2)))
    dy = rng.standard_normal(NUMPY.correlate(x, w, **sliding).shape)
    want = NUMPY.correlate_grad(dy, x, w, **sliding)
    for grad, reference in zip(backend.correlate_grad(dy, x, w, **sliding), want, strict=True):
        assert_close(grad, reference)


@every_layout
@given(case=small, activation=st.sampled_from(FUSED_ACTIVATIONS))
def test_correlate_scales_and_activates_its_output(backend, case, activation):
    arguments = {**case.sliding, "groups": case.groups}
    scale = draw_array(len(case.w), case.x.dtype, 3)
    b = case.b - 2  # so that some results are negative
    plain = backend.correlate(case.x, case.w, b, **arguments)
    got = backend.correlate(case.x, case.w, b, **arguments, activation=activation)
    assert_close(got, NUMPY.activate(plain, activation))
    got = backend.correlate(case.x, case.w, b, **arguments, scale=scale)
    want = backend.correlate(case.x, case.w, **arguments) * scale[:, None, None]
    assert_close(got, want + b[:, None, None])


@every_backend
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 6)] * 4)),
    dtype=dtypes,
    with_bias=st.booleans(),
)
def test_fold_batch_norm_equals_layer_and_batch_norm(backend, shape, dtype, with_bias):
    w = draw_array(shape, dtype)
    outputs = shape[1] if len(shape) == 2 else shape[0]
    b, gamma, beta, mean = (draw_array(outputs, dtype, seed) for seed in range(1, 5))
    variance = draw_array(outputs, dtype, 5) ** 2
    b = b if with_bias else None
    scale, folded_b = backend.fold_batch_norm(b, gamma, beta, mean, variance, 1e-5)
    x = draw_array((3, shape[0]) if len(shape) == 2 else (3, shape[1], 8, 8), dtype, 6)
    apply = backend.dense if len(shape) == 2 else backend.correlate
    unnormalized = apply(x, w, b)
    want = NUMPY.batch_norm_inference(unnormalized, gamma, beta, mean, variance, 1e-5)
    error = np.abs(apply(x, w, folded_b, scale=scale) - want).max()
    size = np.abs(gamma / np.sqrt(variance + dtype(1e-5))).max() * max(
        np.abs(unnormalized).max(), 1
    )
    assert error <= (1e-10 if dtype == np.float64 else 1e-4) * size


# Rows of less than a vector, of some vectors, and of more than are copied with masks; steps that
# read neighboring vectors, and that gather; taps that lie in the padding for a part or as a whole.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [3, 15, 16, 17, 40, 70, 130])
@pytest.mark.parametrize(
    "sliding",
    [
        {"padding": "same"},
        {"padding": ((0, 5), (4, 0))},
        {"stride": 2, "padding": 1},
        {"stride": (2, 3), "padding": (3, 2)},
        {"dilation": (1, 2), "padding": 4},
        {"stride": (1, 2), "dilation": 2, "padding": 3},
        {"stride": (2, 1), "padding": 1},
    ],
)
def test_im2col_and_col2im_of_rows_of_any_length(dtype, width, sliding):
    x = draw_array((2, 3, 5, width), dtype)
    cols = NUMPY.im2col(x, (2, 3), **sliding)
    backend = get_backend("numba")
    np.testing.assert_array_equal(backend.im2col(x, (2, 3), **sliding), cols)
    assert_close(
        backend.col2im(cols, x.shape, (2, 3), **sliding),
        NUMPY.col2im(cols, x.shape, (2, 3), **sliding),
    )


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3])
def test_products_of_columns_by_blocks_of_images(monkeypatch, groups, kernel):
    backend = get_backend("numba")
    monkeypatch.setattr("kernels.numba_backend.convolution.BLOCK_BYTES", 1 << 19)
    dtype = np.float32
    x, b = draw_array((5, 32, 28, 28), dtype), draw_array(16, dtype, 1)
    w = draw_array((16, 32 // groups, kernel, kernel), dtype, 2)
    got = backend.correlate_im2col(x, w, b, padding="same", groups=groups)  # an image a block
    assert_close(got, NUMPY.correlate(x, w, b, padding="same", groups=groups))
    got = backend.correlate_im2col(x[:, :, :9, :7], w, b, groups=groups)  # 5 images in a block
    assert_close(got, NUMPY.correlate(x[:, :, :9, :7], w, b, groups=groups))


@pytest.mark.parametrize("need_dx", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("N", [1, 2])
def test_correlate_grad_of_a_few_images_with_many_filters(N, kernel, stride, need_dx):
    dtype = np.float32
    x, w = draw_array((N, 8, 9, 11), dtype), draw_array((32, 8, kernel, kernel), dtype, 1)
    dy = draw_array((N, 32, -(-9 // stride), -(-11 // stride)), dtype, 2)
    arguments = {"stride": stride, "padding": "same", "need_dx": need_dx}
    want = NUMPY.correlate_grad(dy, x, w, **arguments)
    got = get_backend("numba").correlate_grad(dy, x, w, **arguments)
    assert got[0] is None or need_dx
    for grad, reference in zip(got[not need_dx :], want[not need_dx :], strict=True):
        assert_close(grad, reference)


@every_backend
@given(case=correlations(max_batch=3, max_kernel=4, max_image=9))
def test_im2col_and_col2im(backend, case):
    kernel = case.w.shape[2:]
    cols = backend.im2col(case.x, kernel, **case.sliding)
    assert_close(cols, naive.im2col(case.x, case.window))
    product = backend.correlate_im2col(case.x, case.w, case.b, **case.sliding, groups=case.groups)
    want = NUMPY.correlate(case.x, case.w, case.b, **case.sliding, groups=case.groups)
    assert_close(product, want)
    # col2im is the transpose: <im2col(x), c> = <x, col2im(c)> for every c.
    c = np.random.default_rng(1).standard_normal(cols.shape).astype(cols.dtype)
    back = backend.col2im(c, case.x.shape, kernel, **case.sliding)
    assert back.shape == case.x.shape
    left, right = np.vdot(cols, c), np.vdot(case.x, back)
    scale = np.linalg.norm(cols) * np.linalg.norm(c) + 1
    assert abs(left - right) <= (1e-10 if cols.dtype == np.float64 else 1e-4) * scale
    assert_close(back, NUMPY.col2im(c, case.x.shape, kernel, **case.sliding))


@every_layout
@given(case=pools(max_batch=3))
def test_max_pool(backend, case):
    want, want_index = naive.max_pool(case.x, case.window)
    y, index = backend.max_pool(case.x, *case.arguments)
    np.testing.assert_array_equal(y, want)
    if backend is not LANES:  # its index is the tap within the window
        np.testing.assert_array_equal(index, want_index)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    dx = backend.max_pool_grad(dy, index, case.x.shape, *case.arguments)
    want = np.zeros(case.x.shape, y.dtype)
    for n, c, i, j in np.ndindex(*y.shape):
        row, column = divmod(want_index[n, c, i, j], case.x.shape[3])
        want[n, c, row, column] += dy[n, c, i, j]
    assert_close(dx, want)


@every_layout
def test_max_pool_returns_nan_and_infinity(backend):
    x = np.array([[-np.inf, -np.inf, 1.0, np.nan, 2.0, np.nan, 5.0, np.inf]])
    y, index = backend.max_pool(x.reshape(1, 1, 1, 8), (1, 2), padding=((0, 0), (1, 1)))
    np.testing.assert_array_equal(y.ravel(), [-np.inf, 1, np.nan, np.nan, np.inf])
    if backend is not LANES:
        np.testing.assert_array_equal(index.ravel(), [0, 2, 3, 5, 7])
    # No pixel is larger than -inf. The index is the first pixel of the window, not padding.
    negative = np.full((1, 2, 5, 41), -np.inf)
    arguments = (3, 2), (2, 2), ((1, 1), (1, 0))
    _, want = naive.max_pool(negative, make_window((5, 41), *arguments))
    y, index = backend.max_pool(negative, *arguments)
    assert (y == -np.inf).all()
    if backend is not LANES:
        np.testing.assert_array_equal(index, want)


@every_layout
@given(case=pools(max_batch=3))
def test_avg_pool(backend, case):
    y = backend.avg_pool(case.x, *case.arguments)
    assert_close(y, naive.avg_pool(case.x, case.window))
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    dx = backend.avg_pool_grad(dy, case.x.shape, *case.arguments)
    assert_close(dx, naive.avg_pool_grad(dy, case.x, case.window))


shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
)


def draw_array(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@every_layout
@given(shape=shapes, dtype=dtypes, offset=st.sampled_from([0, 100]))
def test_batch_norm(backend, shape, dtype, offset):
    C = shape[1]
    x = draw_array(shape, dtype) * 3 + dtype(offset)
    gamma, beta = draw_array(C, dtype, 1), draw_array(C, dtype, 2)
    dy = draw_array(shape, dtype, 3)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    exact = x.astype(np.float64)
    y, mean, variance = backend.batch_norm(x, gamma, beta, 1e-5)
    assert_close(mean, exact.mean(axis=axes).astype(dtype))
    assert_close(variance, exact.var(axis=axes).astype(dtype))
    # The rest is compared with the reference in float64, given the returned statistics.
    numbers = [v.astype(np.float64) for v in (gamma, beta, mean, variance)]
    assert_close(y, NUMPY.batch_norm_inference(exact, *numbers, 1e-5).astype(dtype))
    got = backend.batch_norm_grad(dy, x, gamma, mean, variance, 1e-5)
    want = NUMPY.batch_norm_grad(
        dy.astype(np.float64), exact, numbers[0], numbers[2], numbers[3], 1e-5
    )
    scale = np.abs(numbers[0] / np.sqrt(numbers[3] + 1e-5)).max() * np.abs(dy).max()
    for grad, reference, size in zip(got, want, (scale, None, None), strict=True):
        assert grad.dtype == dtype
        largest = max(size or 0, np.abs(reference).max(), 1e-30)
        bound = 1e-10 if dtype == np.float64 else 1e-4
        assert np.abs(grad - reference).max() / largest <= bound


@every_layout
@given(shape=shapes, dtype=dtypes, activation=st.sampled_from(FUSED_ACTIVATIONS))
def test_batch_norm_activation_equals_both_functions(backend, shape, dtype, activation):
    C = shape[1]
    x, dy = draw_array(shape, dtype), draw_array(shape, dtype, 3)
    gamma, beta = draw_array(C, dtype, 1), draw_array(C, dtype, 2)
    normalized, mean, variance = backend.batch_norm(x, gamma, beta, 1e-5)
    y, same_mean, same_variance = backend.batch_norm_activation(x, gamma, beta, 1e-5, activation)
    np.testing.assert_array_equal(same_mean, mean)
    np.testing.assert_array_equal(same_variance, variance)
    assert_close(y, backend.activate(normalized, activation))
    got = backend.batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, 1e-5, activation)
    d_normalized = backend.activate_grad(dy, normalized, activation)
    want = backend.batch_norm_grad(d_normalized, x, gamma, mean, variance, 1e-5)
    for grad, separate in zip(got, want, strict=True):
        assert grad.dtype == dtype
        bound = 1e-10 if dtype == np.float64 else 1e-4
        scale = max(np.abs(separate).max(), np.abs(dy).max())
        assert np.abs(grad - separate).max() <= bound * scale


@every_layout
@given(
    N=st.integers(1, 40),
    C=st.integers(1, 40),
    image=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    pool_size=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dtype=dtypes,
    activation=st.sampled_from(FUSED_ACTIVATIONS),
)
def test_batch_norm_activation_pool_equals_all_three_functions(
    backend, N, C, image, pool_size, dtype, activation
):
    if pool_size[0] > image[0]:
        pool_size = image[0], pool_size[1]
    x = draw_array((N, C, *image), dtype)
    gamma, beta = draw_array(C, dtype, 1), draw_array(C, dtype, 2)
    gamma[0] = 0  # all pixels of a window are equal: the first is the maximum
    y, pool_index, *moments = backend.batch_norm_activation_pool(
        x, gamma, beta, 1e-5, activation, pool_size
    )
    activated, *same_moments = backend.batch_norm_activation(x, gamma, beta, 1e-5, activation)
    np.testing.assert_array_equal(moments, same_moments)
    want, index = backend.max_pool(activated, pool_size)
    assert_close(y, want)
    dy = draw_array(y.shape, dtype, 3)
    numbers = gamma, beta, *moments, 1e-5, activation
    got = backend.batch_norm_activation_pool_grad(dy, x, pool_index, *numbers, pool_size)
    d_activated = backend.max_pool_grad(dy, index, x.shape, pool_size)
    want = backend.batch_norm_activation_grad(d_activated, x, *numbers)
    for grad, separate in zip(got, want, strict=True):
        assert grad.dtype == dtype
        bound = 1e-10 if dtype == np.float64 else 1e-4
        scale = max(np.abs(separate).max(), np.abs(dy).max())
        assert np.abs(grad - separate).max() <= bound * scale


@every_layout
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@given(shape=shapes, dtype=dtypes)
def test_activate(backend, activation, shape, dtype):
    x, dy = draw_array(shape, dtype) * 3, draw_array(shape, dtype, 1)
    limits = [0, -0.0, 0.5, 1e-3, 1e4, -1e4, 1e-30]
    x.flat[: len(limits)] = limits[: x.size]
    # In float64: the rounding of the reference is no error of the backend.
    exact = x.astype(np.float64)
    assert_close(backend.activate(x, activation), NUMPY.activate(exact, activation).astype(dtype))
    assert_close(
        backend.activate_grad(dy, x, activation),
        NUMPY.activate_grad(dy.astype(np.float64), exact, activation).astype(dtype),
    )


@every_layout
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:invalid value")  # infinity times 0
def test_activate_infinity_and_nan(backend, activation, dtype):
    x = np.array([[np.inf, -np.inf, np.nan]], dtype)
    dy = np.ones_like(x)
    np.testing.assert_array_equal(backend.activate(x, activation), NUMPY.activate(x, activation))
    np.testing.assert_array_equal(
        backend.activate_grad(dy, x, activation), NUMPY.activate_grad(dy, x, activation)
    )


@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_tanh_are_accurate_to_the_last_places(backend, dtype):
    """Also where they are close to 0, and in subnormal numbers."""
    rng = np.random.default_rng(0)
    largest = 104 if dtype == np.float32 else 745
    x = np.concatenate([-np.geomspace(1e-20, largest, 2000), rng.standard_normal(2000)])
    x = x.astype(dtype)[None]
    exact = x.astype(np.longdouble)
    for activation, want in (
        (Sigmoid(), np.exp(exact) / (1 + np.exp(exact))),
        (Tanh(), np.tanh(exact)),
    ):
        got = backend.activate(x, activation)
        units = np.spacing(np.abs(want).astype(dtype))
        assert (np.abs(got - want) / units).max() < 4, activation


@every_layout
@given(shape=shapes, dtype=dtypes, activation=st.sampled_from([None, *FUSED_ACTIVATIONS]))
def test_add(backend, shape, dtype, activation):
    x, other = draw_array(shape, dtype), draw_array(shape, dtype, 1)
    assert_close(backend.add(x, other, activation), NUMPY.activate(x + other, activation))
    np.testing.assert_array_equal(backend.add(x, other), x + other)


@every_layout
@given(shape=shapes, dtype=dtypes, negative_slope=st.sampled_from([0.0, 0.01]))
def test_leaky_relu(backend, shape, dtype, negative_slope):
    x, dy = draw_array(shape, dtype), draw_array(shape, dtype, 1)
    x.flat[0] = 0
    assert_close(backend.leaky_relu(x, negative_slope), np.maximum(x, dtype(negative_slope) * x))
    assert_close(
        backend.leaky_relu_grad(dy, x, negative_slope),
        np.where(x > 0, dy, dtype(negative_slope) * dy),
    )
    assert np.isnan(backend.leaky_relu(np.full((1, 1), np.nan, dtype), negative_slope)).all()


dense_sizes = given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70)), units=st.integers(1, 300), dtype=dtypes
)


@pytest.mark.parametrize(
    "backend", [*BACKEND_MODULES, PACKED, pytest.param(CAPTURED, id="numba captured")]
)
@dense_sizes
def test_dense(backend, shape, units, dtype):
    x, w = draw_array(shape, dtype), draw_array((shape[1], units), dtype, 1)
    b = draw_array(units, dtype, 2)
    assert_close(backend.dense(x, w, b), x @ w + b)
    assert_close(backend.dense(x, w), x @ w)
    y = backend.dense(x, w, b)
    for activation in FUSED_ACTIVATIONS:
        got = backend.dense(x, w, b, activation=activation)
        assert_close(got, NUMPY.activate(y, activation))


@every_layout
@dense_sizes
def test_dense_grad(backend, shape, units, dtype):
    x, w = draw_array(shape, dtype), draw_array((shape[1], units), dtype, 1)
    dy = draw_array((shape[0], units), dtype, 3)
    dx, dw, db = backend.dense_grad(dy, x, w)
    assert_close(dx, dy @ w.T)
    assert_close(dw, x.T @ dy)
    assert_close(db, dy.sum(axis=0))
    assert backend.dense_grad(dy, x, w, need_dx=False)[0] is None


@every_layout
@given(shape=st.tuples(st.integers(1, 40), st.integers(2, 12)), dtype=dtypes)
def test_softmax_and_cross_entropy(backend, shape, dtype):
    N, K = shape
    logits, dy = draw_array(shape, dtype) * 5, draw_array(shape, dtype, 1)
    labels = np.random.default_rng(2).integers(0, K, N)
    exponentials = np.exp(logits.astype(np.float64))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert_close(backend.softmax(logits), p.astype(dtype))
    y = p.astype(dtype)
    jacobian = np.einsum("ni,ij->nij", p, np.eye(K)) - np.einsum("ni,nj->nij", p, p)
    want = np.einsum("nij,nj->ni", jacobian, dy).astype(dtype)
    assert np.abs(backend.softmax_grad(dy, y) - want).max() <= 1e-5
    loss, n_correct, dlogits = backend.softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(-np.log(p[np.arange(N), labels]).mean(), rel=1e-5)
    assert n_correct == (logits.argmax(axis=1) == labels).sum()
    assert_close(dlogits, ((p - np.eye(K)[labels]) / N).astype(dtype))


@every_layout
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(2, 12)),
    dtype=dtypes,
    smoothing=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_label_smoothing(backend, shape, dtype, smoothing):
    logits = draw_array(shape, dtype) * 3
    labels = np.random.default_rng(1).integers(0, shape[1], shape[0])
    targets = (1 - smoothing) * np.eye(shape[1])[labels] + smoothing / shape[1]
    log_p = np.log(NUMPY.softmax(logits.astype(np.float64)))
    loss, _, gradient = backend.softmax_cross_entropy(logits, labels, smoothing)
    assert loss == pytest.approx(-(targets * log_p).sum(axis=1).mean(), rel=1e-5)
    want = ((np.exp(log_p) - targets) / shape[0]).astype(dtype)
    assert_close(gradient, want)


@every_layout
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(2, 12)),
    dtype=dtypes,
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_weights_of_the_loss(backend, shape, dtype, smoothing):
    """Each image alone, with its weight as a factor: a sum divided by the number of images."""
    N, K = shape
    rng = np.random.default_rng(3)
    logits, labels = draw_array(shape, dtype) * 3, rng.integers(0, K, N)
    weights = rng.integers(0, 3, N) * rng.random(N)
    loss, n_correct, dlogits = backend.softmax_cross_entropy(logits, labels, smoothing, weights)
    want, want_loss = np.empty_like(logits), 0.0
    for n in range(N):
        row, label = logits[n : n + 1], labels[n : n + 1]
        alone, _, want[n] = NUMPY.softmax_cross_entropy(row, label, smoothing)
        want_loss += weights[n] * alone
        want[n] *= weights[n]
    assert loss == pytest.approx(want_loss / N, rel=1e-5)
    assert_close(dlogits, want / dtype(N))
    assert n_correct == (logits.argmax(axis=1) == labels).sum()
    plain = backend.softmax_cross_entropy(logits, labels, smoothing)
    ones = backend.softmax_cross_entropy(logits, labels, smoothing, np.ones(N, np.uint8))
    assert ones[:2] == pytest.approx(plain[:2], rel=1e-6)
    assert_close(ones[2], plain[2])


@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_does_not_overflow(backend, dtype):
    logits = np.array([[1e30, -1e30, 0], [1e30, 1e30, 1e30], [-1e30, 0, 1]], dtype)
    assert_close(
        backend.softmax(logits),
        np.array([[1, 0, 0], [1 / 3] * 3, [0, 1 / (1 + np.e), np.e / (1 + np.e)]], dtype),
    )
    loss, n_correct, dlogits = backend.softmax_cross_entropy(logits, np.array([0, 0, 0]))
    assert loss == pytest.approx(1e30 / 3, rel=1e-5)
    assert n_correct == 2
    assert np.isfinite(dlogits).all()
    nan = backend.softmax_cross_entropy(np.array([[0, np.nan]], dtype), np.array([0]))
    assert np.isnan(nan[0])


@every_layout
@given(shape=shapes, dtype=dtypes)
def test_dropout(backend, shape, dtype):
    x, dy = draw_array(shape, dtype), draw_array(shape, dtype, 1)
    y, mask = backend.dropout(x, 0.25, np.random.default_rng(3))
    assert mask.dtype == dtype
    assert set(np.unique(mask)) <= {dtype(0), dtype(1 / 0.75)}
    np.testing.assert_array_equal(y, x * mask)
    np.testing.assert_array_equal(backend.dropout_grad(dy, mask), dy * mask)
    reference = NUMPY.dropout(x, 0.25, np.random.default_rng(3))
    np.testing.assert_array_equal(mask, reference[1])


@every_backend
@pytest.mark.parametrize("source", [np.uint8, np.int64, np.float32, np.float64, bool])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize_images(backend, source, dtype):
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 5, 4)).astype(source)
    mean, std = np.array([10, 20], dtype), np.array([3, 4], dtype)
    want = (images.astype(np.float64) - mean[:, None, None]) / std[:, None, None]
    for part in (slice(None), slice(1), slice(8, None, -1)):
        got = backend.normalize_images(images[part, :, ::2], mean, std, dtype)
        assert_close(backend.to_array(got), want[part, :, ::2].astype(dtype))


@every_backend
@given(shape=shapes, dtype=dtypes)
def test_to_array_inverts_from_array(backend, shape, dtype):
    x = draw_array(shape, dtype)
    np.testing.assert_array_equal(backend.to_array(backend.from_array(x)), x)


@every_backend
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizer_steps(backend, dtype):
    p, g = draw_array(101, dtype), draw_array(101, dtype, 1)
    m, v = draw_array(101, dtype, 2), np.abs(draw_array(101, dtype, 3))
    l2 = g + 0.1 * p

    got = p.copy()
    backend.sgd_step(got, g, 0.5, 0.1)
    assert_close(got, (p - 0.5 * l2).astype(dtype))

    for nesterov in (False, True):
        got, velocity = p.copy(), m.copy()
        backend.momentum_step(got, g, velocity, 0.5, 0.9, nesterov, 0.1)
        want = 0.9 * m + l2
        assert_close(velocity, want.astype(dtype))
        assert_close(got, (p - 0.5 * (l2 + 0.9 * want if nesterov else want)).astype(dtype))

    got, got_m, got_v = p.copy(), m.copy(), v.copy()
    backend.adam_step(got, g, got_m, got_v, 3, 0.5, 0.9, 0.99, 1e-8, 0.1, 0.2)
    want_m, want_v = 0.9 * m + 0.1 * l2, 0.99 * v + 0.01 * l2**2
    step = want_m / (1 - 0.9**3) / (np.sqrt(want_v / (1 - 0.99**3)) + 1e-8)
    assert_close(got_m, want_m.astype(dtype))
    assert_close(got_v, want_v.astype(dtype))
    assert_close(got, (p - 0.5 * (step + 0.2 * p)).astype(dtype))


@every_backend
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
)
def test_warp_images(backend, shape, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(dtype)
    matrices = rng.uniform(-1.5, 1.5, (shape[0], 2, 3))
    got = backend.warp_images(images, matrices)
    assert got.dtype == dtype
    assert got.shape == shape
    want = NUMPY.warp_images(images, matrices)
    # Positions are float32 but for float64 images; rounding may change a uint8 pixel by 1.
    error = {np.uint8: 1, np.float32: 0.02, np.float64: 1e-9}[dtype]
    assert np.abs(got.astype(float) - want).max(initial=0) <= error
    identity = np.tile(np.eye(2, 3), (shape[0], 1, 1))
    np.testing.assert_array_equal(backend.warp_images(images, identity), images)
    rotated = backend.warp_images(images, -identity)
    np.testing.assert_allclose(rotated, images[:, :, ::-1, ::-1], atol=1e-3)
    # Positions far outside of the image must not read other memory.
    far = backend.warp_images(images.astype(np.float32), np.full_like(matrices, 1e38))
    assert far.shape == shape


@every_backend
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(2, 9), st.integers(2, 9)),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_augment_images_equals_naive_version(backend, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    N, C, H, W = shape
    images = rng.integers(0, 256, shape).astype(dtype)
    # Multiples of 1/256, to which the numbers are rounded for images of uint8.
    colors = rng.integers(-200, 400, (N, C, C + 1)) / 256
    arguments = (
        rng.random(N) < 0.5,
        rng.integers(-3 * max(H, W), 3 * max(H, W), (N, 2)),
        colors * [*[1] * C, 100],
        rng.integers(-3, 12, (N, 4)),
        np.array([-5, 3, 100, 300])[:C],
        *(10.0, 200.0),
    )
    got = backend.augment_images(images, *arguments)
    assert got.dtype == dtype
    want = naive.augment_images(images, *arguments)
    if dtype == np.uint8:
        np.testing.assert_array_equal(got, want)
    else:
        assert_close(got, want.astype(dtype))


@every_backend
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_augment_images_without_changes_returns_the_images(backend, dtype):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 1)).astype(dtype)
    kept = (np.zeros(5, bool), np.zeros((5, 2), int), np.tile(np.eye(3, 4), (5, 1, 1)))
    no_box = np.tile([0, 0, 0, 9], (5, 1))
    got = backend.augment_images(images, *kept, no_box, np.zeros(3), 0, 255)
    np.testing.assert_array_equal(got, images)
    assert not np.shares_memory(got, images)


@every_backend
def test_augment_images_rounds_to_the_nearest_byte(backend):
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    colors = np.tile([0.5, 0.25], (256, 1, 1))
    unchanged = np.zeros(256, bool), np.full((256, 2), 2**31 - 1), colors, np.zeros((256, 4), int)
    got = backend.augment_images(images, *unchanged, np.zeros(1), 0, 255).ravel()
    np.testing.assert_array_equal(got, np.floor(np.arange(256) / 2 + 0.75))


@every_backend
def test_augment_images_is_the_same_for_every_memory_layout(backend):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8).transpose(0, 3, 1, 2)[::2]
    colors = rng.normal(size=(3, 3, 4))
    arguments = (
        np.array([True, True, True, False])[::-1][:3],
        rng.integers(-4, 4, (2, 3)).T,
        np.asfortranarray(colors).astype(">f8"),
        rng.integers(0, 6, (4, 3)).astype(np.int16).T,
        np.array([1.0, 9, 2, 9, 3])[::2],
    )
    contiguous = [np.array(array, array.dtype.newbyteorder("="), order="C") for array in arguments]
    want = NUMPY.augment_images(images.copy(order="C"), *contiguous, 0, 255)
    np.testing.assert_array_equal(backend.augment_images(images, *arguments, 0, 255), want)
