"""Which arguments the kernels accept, which they reject, and the limits between the two."""

import numpy as np
import pytest

from kernels import BACKENDS, get_backend, validation
from kernels.activations import ClippedRelu, LeakyRelu
from kernels.geometry import make_window
from kernels.scalars import check_number
from tests.cases import assert_close
from tests.packed import LANES

NUMPY = get_backend("numpy")
every_backend = pytest.mark.parametrize(
    "backend", [pytest.param(get_backend(name), id=name) for name in BACKENDS]
)
every_layout = pytest.mark.parametrize(
    "backend",
    [
        *(pytest.param(get_backend(name), id=name) for name in BACKENDS),
        pytest.param(LANES, id="numba packed"),
    ],
)


def draw_array(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@every_backend
@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: x[:, :, ::-1][:, :, ::-1],
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    ],
    ids=["Fortran order", "strided", "negative strides", "other byte order", "unaligned"],
)
def test_memory_layout_does_not_change_results(backend, change):
    x, w = draw_array((3, 2, 6, 6), np.float64), draw_array((4, 2, 3, 3), np.float64, 1)
    dy = draw_array((3, 4, 4, 4), np.float64, 2)
    assert_close(backend.correlate(change(x), change(w)), NUMPY.correlate(x, w))
    for got, want in zip(
        backend.correlate_grad(change(dy), change(x), change(w)),
        NUMPY.correlate_grad(dy, x, w),
        strict=True,
    ):
        assert_close(got, want)
    y, _ = backend.max_pool(change(x), 2)
    assert_close(y, NUMPY.max_pool(x, 2)[0])
    x.flags.writeable = False
    assert_close(backend.correlate(x, w), NUMPY.correlate(x, w))
    assert_close(backend.leaky_relu(x, 0.01), NUMPY.leaky_relu(x, 0.01))


X, W, V = np.zeros((2, 4, 6, 6)), np.zeros((4, 4, 3, 3)), np.full(4, 0.5)
CHANGES = (  # of the images X, by augment_images
    *(np.zeros(2, bool), np.zeros((2, 2), int), np.zeros((2, 4, 5)), np.zeros((2, 4), int)),
    *(np.zeros(4), 0, 1),
)


@every_backend
@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        ("correlate", (X[0], W), ValueError, "x must have 4 dimensions"),
        ("correlate", (X.tolist(), W), TypeError, "x must be a NumPy array"),
        ("correlate", (np.ma.array(X), W), TypeError, "x must be a NumPy array"),
        ("correlate", (X.astype(int), W), TypeError, "x must be float32 or float64"),
        ("correlate", (X, W.astype("f4")), TypeError, "w is float32 and the other"),
        ("correlate", (X, W[:, :3]), ValueError, "sees 3 channels"),
        ("correlate", (X, W[:, :2], None, 1, 0, 1, 3), ValueError, r"groups \(3\) must divide"),
        ("correlate", (X, W, np.zeros(3)), ValueError, r"b must have shape \(4,\)"),
        ("correlate", (X, W, None, 0), ValueError, "stride must be at least 1"),
        ("correlate", (X, W, None, 1.5), TypeError, "stride must be an integer"),
        ("correlate", (X, W, None, True), TypeError, "stride must be an integer"),
        ("correlate", (X, W, None, (1, 2, 3)), ValueError, "stride must be an integer or a pair"),
        ("correlate", (X, W, None, 1, "some"), ValueError, "padding must be 'same'"),
        ("correlate", (X, W, None, 1, -1), ValueError, "padding must be at least 0"),
        ("correlate", (X, W, None, 1, ((1, 2), 3)), ValueError, "padding must be"),
        ("correlate", (X, W, None, 1, 0, 4), ValueError, "9x9 pixels does not fit"),
        ("correlate", (X[:, :, :0], W), ValueError, "1 or more"),
        ("correlate_grad", (X, X, W), ValueError, r"dy must have shape \(2, 4, 4, 4\)"),
        ("im2col", (X, 7), ValueError, "7x7 pixels does not fit"),
        ("col2im", (X[0], (2, 4, 6, 6), 3), ValueError, r"cols must have shape \(2, 36, 16\)"),
        ("col2im", (X[0], (2, 4, 6), 3), ValueError, r"x_shape must be \(N, C, H, W\)"),
        ("max_pool", (X, 2, 2, 2), ValueError, "smaller than the pool"),
        ("max_pool", (X, 0), ValueError, "pool_size must be at least 1"),
        (
            "max_pool_grad",
            (X[:, :, :3, :3], np.full((2, 4, 3, 3), 36, np.int32), (2, 4, 6, 6), 2),
            ValueError,
            "index must be 0 to 35",
        ),
        (
            "max_pool_grad",
            (X[:, :, :3, :3], np.full((2, 4, 3, 3), -1, np.int32), (2, 4, 6, 6), 2),
            ValueError,
            "index must be 0 to 35",
        ),
        ("avg_pool_grad", (X, (2, 4, 6, 6), 2), ValueError, "dy must have shape"),
        ("dense", (X[0, 0], W[0, 0]), ValueError, "does not fit weights"),
        ("batch_norm", (X, np.zeros(3), np.zeros(4), 1e-5), ValueError, "gamma must have shape"),
        ("batch_norm", (X[0], np.zeros(4), np.zeros(4), 1e-5), ValueError, "4 dimensions"),
        ("softmax", (np.zeros((3, 0)),), ValueError, "at least one column"),
        ("softmax_grad", (X, X), ValueError, "2 dimensions"),
        ("sgd_step", (X[0, 0], X[0, 0], 0.1, 0.0), ValueError, "p must have 1 dim"),
        ("sgd_step", (np.ones(5), np.ones(4), 0.1, 0.0), ValueError, r"g must have shape \(5,\)"),
        ("sgd_step", (np.ones(10)[::2], np.ones(5), 0.1, 0.0), ValueError, "contiguous"),
        ("momentum_step", (*[np.ones(5)] * 2, np.ones(3), 1, 1, True, 0), ValueError, "velocity"),
        ("adam_step", (*[np.ones(5)] * 3, np.ones(5, "f4"), *[1] * 7), TypeError, "v is float32"),
        ("softmax", (X,), ValueError, "x must have 2 dimensions"),
        ("softmax_cross_entropy", (X[0, 0], np.arange(1, 7)), ValueError, "labels must be 0 to 5"),
        ("softmax_cross_entropy", (X[0, 0], np.full(6, -1)), ValueError, "labels must be 0 to 5"),
        ("softmax_cross_entropy", (X[0, 0], np.zeros(6)), TypeError, "labels must be integers"),
        (
            "softmax_cross_entropy",
            (X[0, 0], np.arange(6), 0.0, np.ones(5)),
            ValueError,
            r"weights must have shape \(6,\), one number for each of 6 images, got \(5,\)",
        ),
        *(
            ("softmax_cross_entropy", (X[0, 0], np.arange(6), 0.0, weights), error, message)
            for weights, error, message in [
                (np.array([1, 1, 1, -0.5, 1, 1]), ValueError, "finite and at least 0, got -0.5"),
                (np.array([1, 1, 1, np.nan, 1, 1]), ValueError, "finite and at least 0, got nan"),
                (np.array([1, 1, 1, np.inf, 1, 1]), ValueError, "finite and at least 0, got inf"),
                (np.array(["1"] * 6), TypeError, "weights must be numbers, got ndarray of <U1"),
                (np.ma.array(np.ones(6)), TypeError, "weights must be numbers, got MaskedArray"),
            ]
        ),
        ("leaky_relu", (X, 10**400), ValueError, "negative_slope must be finite"),
        ("activate", (X, "relu"), TypeError, "activation must be None or one of kernels.act"),
        ("activate", (X, (0.1,)), TypeError, "activation must be None or one of kernels.act"),
        ("activate", (X, LeakyRelu(np.nan)), ValueError, "negative_slope must be finite"),
        ("activate", (X.astype("f4"), LeakyRelu(1e300)), ValueError, "must be finite in float32"),
        ("activate", (X, ClippedRelu(0.0)), ValueError, "max_value must be at least"),
        ("activate", (X, ClippedRelu("6")), TypeError, "max_value must be a number"),
        ("dense", (X[0, 0], X[0, 0], None, None, 0.1), TypeError, "activation must be None"),
        ("add", (X, X[:1]), ValueError, "other must have shape"),
        ("add", (X, X.astype("f4")), TypeError, "other is float32"),
        ("dropout_grad", (X, [1]), TypeError, "mask must be a NumPy array"),
        ("normalize_images", (X, V, V, None), TypeError, "dtype must be float32 or float64, got N"),
        (
            "warp_images",
            (X.astype("u1"), np.full((2, 2, 3), 1e300)),
            ValueError,
            "matrices must be finite",
        ),
        ("warp_images", (X, np.full((2, 2, 3), 1e308)), ValueError, "matrices must be finite"),
        ("warp_images", (X, np.full((2, 2, 3), np.nan)), ValueError, "matrices must be finite"),
        ("augment_images", (X, *CHANGES[:5], 2, 1), ValueError, "low and high must be in this"),
        ("augment_images", (X, *CHANGES[:5], 0, np.nan), ValueError, "high must be finite"),
        (
            "augment_images",
            (X.astype("u1"), *CHANGES[:5], 0, 256),
            ValueError,
            "low and high must be from 0 to 255",
        ),
        ("augment_images", (X.astype("i4"), *CHANGES), TypeError, "images must be uint8"),
        ("augment_images", (X, [1, 0], *CHANGES[1:]), TypeError, "mirrored must be bool"),
        (
            "augment_images",
            (X, CHANGES[0], np.zeros((2, 2)), *CHANGES[2:]),
            TypeError,
            "shifts must be integers",
        ),
        (
            "augment_images",
            (X, CHANGES[0], np.full((2, 2), 2**31), *CHANGES[2:]),
            ValueError,
            "shifts must be at least",
        ),
        (
            "augment_images",
            (X, *CHANGES[:2], np.full((2, 4, 5), np.inf), *CHANGES[3:]),
            ValueError,
            "colors must be finite",
        ),
        (
            "augment_images",
            (X, *CHANGES[:3], np.zeros((2, 3), int), *CHANGES[4:]),
            ValueError,
            r"boxes must have shape \(2, 4\)",
        ),
        (
            "augment_images",
            (X, *CHANGES[:4], np.zeros(3), 0, 1),
            ValueError,
            r"fill must have shape \(4,\)",
        ),
        ("set_threads", (0,), ValueError, "threads must be at least 1"),
        ("set_threads", (10**6,), ValueError, "threads must be 1 to"),
    ],
)
def test_kernels_reject_invalid_arguments(backend, function, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(backend, function)(*arguments)


@every_backend
def test_empty_batch_gives_empty_output(backend):
    x, w = np.zeros((0, 4, 6, 6)), np.ones((2, 4, 3, 3))
    assert backend.correlate(x, w).shape == (0, 2, 4, 4)
    assert backend.correlate_im2col(x, w).shape == (0, 2, 4, 4)
    dx, dw, db = backend.correlate_grad(np.zeros((0, 2, 4, 4)), x, w)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()
    y, index = backend.max_pool(x, 2)
    assert backend.max_pool_grad(y, index, x.shape, 2).shape == x.shape
    assert backend.avg_pool(x, 2).shape == y.shape
    vector = np.ones(4)
    assert backend.batch_norm_inference(x, *[vector] * 4, 1e-5).shape == x.shape
    images = np.zeros((0, 4, 6, 6), np.uint8)
    assert backend.normalize_images(images, vector, vector, "float64").shape == x.shape


@every_backend
def test_stride_beyond_image_gives_one_window(backend):
    x, w = draw_array((1, 1, 5, 5), np.float64), draw_array((1, 1, 3, 3), np.float64, 1)
    y = backend.correlate(x, w, stride=2**20)
    assert_close(y, (x[:, :, :3, :3] * w).sum().reshape(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("length", "extent", "stride", "sides"),
    # There are ceil(length / stride) outputs; an odd pixel goes to the end, as in TensorFlow.
    [(5, 3, 1, (1, 1)), (5, 2, 1, (0, 1)), (28, 4, 1, (1, 2)), (7, 3, 2, (1, 1)),
     (8, 3, 2, (0, 1)), (5, 1, 3, (0, 0)), (6, 5, 3, (1, 1)), (7, 5, 3, (2, 2))],
)  # fmt: skip
def test_same_padding(length, extent, stride, sides):
    window = make_window((length, length), extent, stride, "same")
    assert window.padding == (sides, sides)
    assert window.output == (-(-length // stride),) * 2


def test_cached_window_does_not_accept_invalid_padding():
    for wrong in (1.0, True, ((1.0, 1), (1, 1)), None, "half"):
        make_window((5, 5), 3, padding=1)
        with pytest.raises((TypeError, ValueError), match="padding"):
            make_window((5, 5), 3, padding=wrong)
    assert make_window((5, 5), 3, padding=np.int64(1)) == make_window((5, 5), 3, padding=1)
    assert make_window((5, 5), 3, padding=[[1, 1], [1, 1]]) == make_window((5, 5), 3, padding=1)


def test_get_backend_rejects_unknown_name():
    with pytest.raises(ValueError, match="one of numba, scipy, numpy"):
        get_backend("cuda")


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
def test_check_number_rejects_integer_too_large_for_float(value):
    with pytest.raises(ValueError, match="rate must be at least 0 and below 1"):
        check_number(value, "rate", 0, 1)


@every_backend
@pytest.mark.parametrize("shape", [(2**23 + 1, 1), (1, 2**23 + 1)])
def test_warp_images_rejects_side_above_float32_precision(backend, shape):
    images, matrix = np.ones((1, 1, *shape), np.uint8), np.eye(2, 3)[None]
    with pytest.raises(ValueError, match=r"images of .* pixels are too large"):
        backend.warp_images(images, matrix)


def test_check_warp_rejects_more_pixels_than_int32():
    images = np.broadcast_to(np.uint8(1), (1, 1, 2**16, 2**15 - 1))
    with pytest.raises(ValueError, match=r"images of .* pixels are too large"):
        validation.check_warp(images, np.eye(2, 3)[None])


@pytest.mark.parametrize(
    ("image", "size", "sliding"),
    [
        ((8, 8), 1, {"padding": 2**30}),
        ((8, 8), 1, {"padding": 2**30, "stride": 2**30}),
        ((8, 8), (1, 2**29), {"padding": "same"}),
        ((8, 8), 2, {"padding": "same", "dilation": 2**31 - 1}),
        ((2**16, 2**15), 1, {}),
    ],
)
def test_make_window_rejects_more_pixels_than_int32(image, size, sliding):
    with pytest.raises(ValueError, match=r"2\*\*31"):
        make_window(image, size, **sliding)


@every_layout
def test_correlate_rejects_huge_padding(backend):
    for stride in (1, 2**30):
        with pytest.raises(ValueError, match=r"2\*\*31"):
            backend.correlate(X, np.ones((4, 4, 1, 1)), stride=stride, padding=2**30)


@every_layout
@pytest.mark.parametrize("stride", [1, 2, 20])
@pytest.mark.parametrize("padding", ["same", ((9, 3), (8, 8)), ((0, 8), (2, 5))])
def test_pool_larger_than_image(backend, stride, padding):
    x = draw_array((3, 2, 5, 4), np.float64)
    window = make_window((5, 4), (12, 9), stride, padding)

    def pixels(planes, i, j):
        """Return the pixels (..., rows, columns) under the window of output (i, j)."""
        top, left = (p * stride - begin for p, begin in zip((i, j), window.pad_begin, strict=True))
        return planes[..., max(top, 0) : top + 12, max(left, 0) : left + 9]

    y, index = backend.max_pool(x, (12, 9), stride, padding)
    mean = backend.avg_pool(x, (12, 9), stride, padding)
    dy = draw_array(y.shape, np.float64, 1)
    dx_max, dx_mean = np.zeros_like(x), np.zeros_like(x)
    for i, j in np.ndindex(*window.output):
        part = pixels(x, i, j)
        assert_close(y[..., i, j], part.max(axis=(2, 3)))
        assert_close(mean[..., i, j], part.mean(axis=(2, 3)))
        dy_ij = dy[..., i, j, None, None]
        is_max = part == part.max(axis=(2, 3), keepdims=True)
        pixels(dx_max, i, j)[...] += dy_ij * is_max
        pixels(dx_mean, i, j)[...] += dy_ij / (part.shape[2] * part.shape[3])
    assert_close(backend.max_pool_grad(dy, index, x.shape, (12, 9), stride, padding), dx_max)
    assert_close(backend.avg_pool_grad(dy, x.shape, (12, 9), stride, padding), dx_mean)


def test_pool_window_is_trimmed_to_image():
    assert validation.make_pool_window((8, 8), (1, 10**8 + 1), 1, "same").size == (1, 15)
    assert validation.make_pool_window((8, 8), (8, 10**8 + 1), 8, "same").size == (8, 8)
    assert validation.make_pool_window((8, 8), (3, 8), 2, 2).size == (3, 8)  # unchanged


@every_layout
def test_huge_pool_is_fast(backend):
    x = draw_array((1, 1, 8, 8), np.float32)
    y, _ = backend.max_pool(x, (1, 10**8 + 1), 1, "same")
    assert_close(y, np.broadcast_to(x.max(axis=3, keepdims=True), x.shape))


GRADIENTS = {  # the arguments before `out`
    "correlate_grad": (X[:, :, :4, :4], X, W, 1, 0, 1, 1, True),
    "dense_grad": (X[0, 0, :, :4], X[0, 0], np.ones((6, 4)), True),
    "batch_norm_grad": (X, X, V, V, V, 1e-5),
    "batch_norm_activation_grad": (X, X, V, V, V, V, 1e-5, None),
}


@every_layout
@pytest.mark.parametrize("function", GRADIENTS)
def test_out_is_checked(backend, function):
    arguments = GRADIENTS[function]
    parameter = arguments[2]
    memory = np.zeros(2 * parameter.size)
    first, second = memory[: parameter.size], memory[parameter.size :]
    gradient, vector = first.reshape(parameter.shape), second[:4]

    def call(out):
        return getattr(backend, function)(*arguments, out)

    want = call(None)
    for out in ((gradient, vector), (None, vector), (None, None)):
        for got, expected in zip(call(out), want, strict=True):
            assert_close(got, expected)
    for out in ("nonsense", (), (gradient,), [gradient, vector], True, (gradient, vector, None)):
        with pytest.raises(ValueError, match="out must be a tuple of 2 arrays"):
            call(out)
    for out, error, message in (
        ((gradient, vector[:3]), ValueError, r"out\[1\] must have shape \(4,\)"),
        ((gradient.astype("f4"), None), TypeError, r"out\[0\] is float32"),
        ((None, memory[:8:2]), ValueError, r"out\[1\] must be contiguous"),
        ((parameter, None), ValueError, r"out\[0\] shares memory"),
        ((gradient, first[:4]), ValueError, r"out\[1\] shares memory"),
    ):
        with pytest.raises(error, match=message):
            call(out)


@every_backend
@pytest.mark.parametrize(
    ("function", "count", "numbers"),
    [
        ("sgd_step", 2, (0.1, 0.0)),
        ("momentum_step", 3, (0.1, 0.9, True, 0.0)),
        ("adam_step", 4, (1, 0.1, 0.9, 0.99, 1e-8, 0.0, 0.0)),
        ("update_running_stats", 4, (0.9,)),
    ],
)
def test_updates_in_place_reject_shared_memory(backend, function, count, numbers):
    for one, other in [(0, 1), (count - 2, count - 1), (0, count - 1)]:
        for shift in (0, 1):
            memory = np.ones(6)
            vectors = [np.ones(5) for _ in range(count)]
            vectors[one], vectors[other] = memory[:5], memory[shift : shift + 5]
            with pytest.raises(ValueError, match="share memory"):
                getattr(backend, function)(*vectors, *numbers)
    vectors = np.ones((count, 5))  # rows of one array do not overlap
    getattr(backend, function)(*vectors, *numbers)


@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_n_correct_agrees_with_argmax(backend, dtype):
    rows = draw_array((64, 4), dtype)
    for n in range(1, 64):
        # Each subset of the columns is NaN in some row.
        rows[n, [k for k in range(4) if n % 16 >> k & 1]] = np.nan
    for label in range(4):
        labels = np.full(64, label)
        with np.errstate(invalid="ignore"):
            _, n_correct, _ = backend.softmax_cross_entropy(rows, labels)
        assert n_correct == np.count_nonzero(rows.argmax(axis=1) == labels)


@every_layout
@pytest.mark.parametrize("value", [1, "false", None, np.ones(1)], ids=repr)
def test_gradients_reject_need_dx_that_is_no_bool(backend, value):
    with pytest.raises(TypeError, match="need_dx must be True or False"):
        backend.correlate_grad(X[:, :, :4, :4], X, W, need_dx=value)
    with pytest.raises(TypeError, match="need_dx must be True or False"):
        backend.dense_grad(X[0, 0, :, :4], X[0, 0], np.ones((6, 4)), need_dx=value)


@every_backend
@pytest.mark.parametrize("value", [1, "false", None, np.ones(1)], ids=repr)
def test_momentum_step_rejects_nesterov_that_is_no_bool(backend, value):
    p, g, velocity = np.ones((3, 5))
    with pytest.raises(TypeError, match="nesterov must be True or False"):
        backend.momentum_step(p, g, velocity, 0.1, 0.9, value, 0.0)
    assert (p == 1).all()
    backend.momentum_step(p, g, velocity, 0.1, 0.9, np.True_, 0.0)


@every_backend
def test_out_must_not_share_memory_with_activations(backend):
    x = np.ones((4, 4))
    dy, w, memory = np.ones((4, 4)), np.ones((4, 4)), np.ones((4, 4, 1, 1))
    for out in ((x, None), (None, x[0]), (dy, None), (None, dy[0])):
        with pytest.raises(ValueError, match="shares memory"):
            backend.dense_grad(dy, x, w, out=out)
        with pytest.raises(ValueError, match="shares memory"):
            backend.correlate_grad(
                *(array.reshape(memory.shape) for array in (dy, x, w)),
                out=tuple(o if o is None or o.ndim == 1 else o.reshape(memory.shape) for o in out),
            )
    for out in ((x[0], None), (None, dy[0])):
        with pytest.raises(ValueError, match="shares memory"):
            backend.batch_norm_grad(dy, x, V, V.copy(), V.copy(), 1e-5, out)
        with pytest.raises(ValueError, match="shares memory"):
            backend.batch_norm_activation_grad(dy, x, V, V, V, V, 1e-5, None, out)


@every_backend
def test_flatten_of_an_empty_batch_for_prediction(backend):
    images, vector = np.zeros((0, 4, 6, 6), np.uint8), np.ones(4)
    x = backend.normalize_images(images, vector, vector, "float64", predict=True)
    assert backend.to_array(backend.flatten(x)).shape == (0, 144)


@every_backend
def test_rows_without_features_come_back_from_the_backend(backend):
    x = backend.from_array(np.ones((3, 0)))
    assert backend.to_array(x).shape == (3, 0)
