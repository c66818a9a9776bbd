"""Any call of the public contract ends in a right result, or an error that says what was wrong.

./run.sh pytest tests/test_fuzz.py --long    # 20,000 calls a backend instead of 500
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layers
import training
from kernels import BACKENDS, get_backend
from tests.cases import fits
from tests.packed import ACTIVATIONS, LANES
from training import Model

NUMPY = get_backend("numpy")
CALLED = {**{name: get_backend(name) for name in BACKENDS}, "numba in lanes": LANES}
IN_PLACE = ("average", "sgd_step", "momentum_step", "adam_step")
SHORT, LONG = 500, 20_000

# -- what is put in the place of a right argument --------------------------------------------------
NO_ARRAYS = [
    None, True, np.bool_(True), 0, -1, 2, 7, 2**30, 2**31, 2**63, 10**30, 10**400, 1.5, -0.1,
    float("nan"), float("inf"), 1e308, 1j, np.float32(0.5), np.int8(1), np.uint64(2), "same",
    "x", "", b"1", [], (), {}, [1, 2], (1, 2, 3), (2, 2), ((0, 1), (1, 0)), ((1,), (1,)), [[1], 2],
    object(), int, np.array(1), np.array([1, 2]), np.array("a"), np.datetime64("2020"), range(3),
    slice(1), np.random.default_rng(0),
]  # fmt: skip


def unaligned(a):
    if a.dtype.hasobject or not a.size:
        return a
    raw = np.frombuffer(b"\0" + a.tobytes(), np.uint8)
    return raw[1:].view(a.dtype).reshape(a.shape)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def with_a_number(number):
    def change(a):
        a = a.astype(float) if a.dtype.kind in "iu" else a.copy()
        if a.size and a.dtype.kind == "f":
            a.flat[a.size // 2] = number
        return a

    return change


SAME_NUMBERS = [  # but another place in memory
    lambda a: np.asfortranarray(a),
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    lambda a: np.repeat(a, 3, axis=0)[::3] if a.ndim else a,
    lambda a: a[::-1].copy()[::-1] if a.ndim else a,
    lambda a: a[..., ::-1].copy()[..., ::-1] if a.ndim else a,
    lambda a: a.T.copy().T,
    lambda a: a.astype(a.dtype.newbyteorder()),
    unaligned,
    read_only,
    lambda a: a.view(type("Sub", (np.ndarray,), {})),
]  # fmt: skip


def cast(dtype):
    return lambda a: a.astype(dtype) if a.dtype.kind in "fiu" else a


OTHER_ARRAYS = [
    lambda a: a.tolist(),
    lambda a: np.ma.array(a, mask=a > 1) if a.dtype.kind in "fiu" else a,
    cast(object),
    cast(np.float16),
    cast(np.longdouble),
    cast(complex),
    cast(np.int64),
    cast(bool),
    cast("U8"),
    cast(np.float32),
    cast(np.float64),
    lambda a: cast([("f", a.dtype)])(a),
    lambda a: a[None],
    lambda a: a[0] if a.ndim and len(a) else a,
    lambda a: a[:0] if a.ndim else a,
    lambda a: a[..., :0] if a.ndim else a,
    lambda a: a[..., :-1] if a.ndim else a,
    lambda a: np.concatenate([a, a]) if a.ndim else a,
    lambda a: a.reshape(-1),
    lambda a: a.swapaxes(0, -1) if a.ndim else a,
    lambda a: np.broadcast_to(a.flat[0] if a.size else a.dtype.type(0), a.shape),
    lambda a: a[(0,) * a.ndim] if a.size else a,
    lambda a: np.array(a.flat[0] if a.size else 0),
    with_a_number(np.nan),
    with_a_number(np.inf),
    with_a_number(1e30),
    with_a_number(-1),
]


# -- right calls ----------------------------------------------------------------------------------
@st.composite
def calls(draw, names):
    """Return a function's name, right arguments of it in their order, and how many are needed."""
    name = draw(st.sampled_from(names))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    N, C, H, W, F = (draw(st.integers(1, high)) for high in (20, 3, 9, 9, 5))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride, padding = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, "same"]))
    if fits((H, W), kernel, stride, padding) is None:
        kernel = (1, 1)

    def floats(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, w, vectors = floats(N, C, H, W), floats(F, C, *kernel), [floats(C) for _ in range(4)]
    vectors[3] = vectors[3] ** 2
    rows, b = floats(N, C * H * W), floats(F)
    if name in ("correlate", "correlate_im2col"):
        arguments = [x, w, b, stride, padding, 1, 1]
        arguments += [floats(F), 0.1] if name == "correlate" else []
    elif name == "correlate_grad":
        dy = floats(N, F, *fits((H, W), kernel, stride, padding).output)
        arguments = [dy, x, w, stride, padding, 1, 1, True, None]
    elif name == "im2col":
        arguments = [x, kernel, stride, padding, 1]
    elif name == "col2im":
        cols = NUMPY.im2col(x, kernel, stride, padding)
        arguments = [cols, x.shape, kernel, stride, padding, 1]
    elif "pool" in name and "relu" not in name:
        pool = min(kernel[0], H), min(kernel[1], W)
        if name.endswith("_grad"):
            y, index = NUMPY.max_pool(x, pool, stride)
            arguments = [floats(*y.shape), index, x.shape, pool, stride]
            arguments = arguments if name == "max_pool_grad" else [arguments[0], *arguments[2:]]
        else:
            arguments = [x, pool, stride, 0]
    elif name.startswith("batch_norm"):
        x = rows[:, :C].copy() if draw(st.booleans()) and "pool" not in name else x
        with_statistics = "grad" in name or "inference" in name
        keep = vectors if "relu" in name or "grad" not in name else [vectors[0], *vectors[2:]]
        arguments = [x, *(keep if with_statistics else vectors[:2]), 1e-5]
        arguments += [0.1] if "relu" in name else []
        if "grad" in name:
            arguments = [floats(*x.shape), *arguments]
        if "pool" in name:
            pool = draw(st.integers(1, min(H, W)))
            arguments += [pool]
            if "grad" in name:
                _, index, *_ = NUMPY.batch_norm_relu_pool(x, *vectors[:2], 1e-5, 0.1, pool)
                arguments = [floats(*index.shape), x, index, *arguments[2:]]
    elif name == "average":
        arguments = [*vectors, 0.9]
    elif name == "fold_batch_norm":
        arguments = [vectors[0].copy(), *vectors, 1e-5]
    elif name in ("dense", "dense_grad"):
        arguments = [rows, floats(C * H * W, F), b, b.copy(), 0.1]
        arguments = arguments if name == "dense" else [floats(N, F), *arguments[:2], True, None]
    elif name == "flatten":
        arguments = [x]
    elif name == "flatten_grad":
        arguments = [rows, (C, H, W)]
    elif name == "dropout":
        arguments = [x, 0.3, np.random.default_rng(1)]
    elif name in ("dropout_grad", "leaky_relu", "leaky_relu_grad"):
        arguments = [x, floats(*x.shape), 0.1]
        arguments = {"dropout_grad": arguments[:2], "leaky_relu": [x, 0.1]}.get(name, arguments)
    elif name in ("softmax", "softmax_grad"):
        arguments = [rows, floats(*rows.shape)][: 1 + (name == "softmax_grad")]
    elif name == "softmax_cross_entropy":
        arguments = [rows, rng.integers(0, rows.shape[1], N), 0.1]
    elif name == "warp_images":
        images = draw(st.sampled_from([x, (x * 100).astype(np.uint8)]))
        arguments = [images, floats(N, 2, 3)]
    elif name == "normalize_images":
        images = draw(st.sampled_from([x, (x * 100).astype(np.uint8)]))
        arguments = [images, vectors[0], vectors[3], np.dtype(dtype).name]
    elif name in ("from_array", "to_array"):
        arguments = [x]
    else:
        p = rng.uniform(0, 1, (4, C * H)).astype(dtype)
        numbers = {"sgd_step": [0.1, 0.01], "momentum_step": [0.1, 0.9, True, 0.01]}
        numbers["adam_step"] = [3, 0.1, 0.9, 0.99, 1e-8, 0.01, 0.01]
        taken = {"sgd_step": 2, "momentum_step": 3, "adam_step": 4}[name]
        arguments = [*p[:taken].copy(), *numbers[name]]
    return name, arguments


@st.composite
def changes(draw, arguments):
    """Return arguments of which a few are others; whether all numbers are still the same."""
    arguments, same = list(arguments), True
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(arguments) - 1))
        value = arguments[place]
        kind = draw(st.integers(0, 3))
        if isinstance(value, np.ndarray) and kind < 2:
            arguments[place] = draw(st.sampled_from(SAME_NUMBERS))(value)
        elif isinstance(value, np.ndarray) and kind < 3:
            with np.errstate(all="ignore"):
                arguments[place] = draw(st.sampled_from(OTHER_ARRAYS))(value)
            same = False
        else:
            arguments[place], same = draw(st.sampled_from(NO_ARRAYS)), False
    return arguments, same


def plain(value):
    """Return a copy of an argument with the same numbers in the plainest place."""
    if isinstance(value, np.random.Generator):
        return np.random.default_rng(1)
    if type(value) is np.ndarray and value.dtype.kind in "fiu" and value.dtype.itemsize <= 8:
        return np.array(value, value.dtype.newbyteorder("="), order="C")
    return value


def outcome(function, arguments):
    """Return what a call returns, or the error that it is answered with."""
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except (ValueError, TypeError, training.DivergedError) as error:
        return error


def finite(value):
    if isinstance(value, tuple):
        return all(map(finite, value))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bool(np.isfinite(value).all() and (np.abs(value) < 1e20).all())
    return not isinstance(value, float) or np.isfinite(value)


def alike(got, want):
    """Compare results, whose rounding differs."""
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            alike(one, other)
    elif isinstance(want, np.ndarray):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        if want.size and want.dtype.kind == "f":
            limit = 1e-9 if want.dtype == np.float64 else 2e-3
            assert np.abs(got - want).max() <= limit * max(np.abs(want).max(), 1)
        elif want.dtype == np.uint8:
            assert np.abs(got.astype(int) - want).max(initial=0) <= 1
    elif isinstance(want, float):
        assert got == pytest.approx(want, rel=1e-3, abs=1e-3)
    else:
        assert got == want


@pytest.mark.parametrize("name", CALLED)
def test_any_call_of_a_backend_is_answered(name, long_mode):
    backend = CALLED[name]
    known = set(NUMPY.__all__) - {"record", "set_threads"}
    if backend is LANES:  # what the adapter's arguments are turned into lanes from
        known &= set(ACTIVATIONS)
    answered = {"results": 0, "errors": 0}

    @settings(max_examples=LONG if long_mode else SHORT, database=None)
    @given(data=st.data())
    def check(data):
        function, arguments = data.draw(calls(sorted(known)))
        arguments, _same = data.draw(changes(arguments))
        if backend is LANES:
            for place in ACTIVATIONS[function]:
                value = arguments[place]
                if type(value) is not np.ndarray or value.dtype not in (np.float32, np.float64):
                    return
                if value.ndim not in (2, 4) or 0 in value.shape:
                    return  # no activations
        copies = [plain(value) for value in arguments]
        before = [value.copy() if type(value) is np.ndarray else value for value in arguments]
        given_ = [plain(v) if isinstance(v, np.random.Generator) else v for v in arguments]
        want = outcome(getattr(NUMPY, function), copies)
        got = outcome(getattr(backend, function), given_)
        answered["errors" if isinstance(got, Exception) else "results"] += 1
        if isinstance(got, Exception):
            assert str(got), "an error that says nothing"
            if not isinstance(want, Exception):
                assert function in IN_PLACE, (function, got)  # these take no copy
            return
        if function in IN_PLACE:
            changed = [value for value in given_ if isinstance(value, np.ndarray)]
            wanted = [value for value in copies if isinstance(value, np.ndarray)]
            got, want = tuple(changed), tuple(wanted)
        else:
            for value, was in zip(arguments, before, strict=True):
                if type(value) is np.ndarray and value.dtype.kind in "fiu":
                    np.testing.assert_array_equal(value, was)
        assert not isinstance(want, Exception), (function, want)
        if function in ("from_array", "normalize_images"):
            got = backend.to_array(got)
        if backend is LANES and "pool" in function and "grad" not in function:
            return  # the index is a secret of the lanes
        if finite(want) and finite(tuple(copies)):
            alike(got, want)

    check()
    print(f"{name}: {answered}")


# -- layers and models ----------------------------------------------------------------------------
MADE = {
    layers.Conv: [2, 3, 1, "same", 1, 1, True, "he", None],
    layers.Dense: [3, True, "he", "name"],
    layers.BatchNorm: [0.9, 1e-5, None],
    layers.Dropout: [0.3, None],
    layers.MaxPool: [2, 2, 0, None],
    layers.AvgPool: [2, 2, 0, None],
    layers.GlobalAvgPool: ["name"],
    layers.Flatten: [None],
    layers.Relu: [None],
    training.Cosine: [0.1, 0.04, 0.0],
    training.Steps: [(0.5, 0.75), 0.1],
    training.ReduceOnPlateau: [2, 0.5, 1e-3],
    training.SGD: [0.1, 0.0, None],
    training.Momentum: [0.1, 0.9, True, 0.0, 1.0],
    training.Adam: [1e-3, 0.9, 0.999, 1e-8, 0.0, None],
    training.AdamW: [1e-3, 0.9, 0.999, 1e-8, 0.0, None],
}


NO_SHAPES = [(0, 6, 6), (-1, 6, 6), (1.5, 6, 6), ("a", 6, 6), (2, 3), (1, 2**30, 2**30), (None,)]


@pytest.mark.parametrize("name", BACKENDS)
def test_any_call_of_a_model_is_answered(name, long_mode):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 1, 6, 6)).astype(np.uint8)
    y = rng.integers(0, 3, 20)
    model = Model((1, 6, 6), backend=name)
    model.add(layers.Conv(2, 3)).add(layers.BatchNorm()).add(layers.Relu())
    model.add(layers.MaxPool(2)).add(layers.Flatten()).add(layers.Dense(3))
    model.compile(training.Adam())
    methods = {
        "train_step": [x, y],
        "predict": [x],
        "predict_proba": [x],
        "evaluate": [x, y],
        "fit_normalization": [x],
    }
    answered = {"results": 0, "errors": 0}

    @settings(max_examples=LONG if long_mode else SHORT, database=None)
    @given(data=st.data())
    def check(data):
        what = data.draw(st.sampled_from([*methods, *MADE, "train", "Model"]))
        if what == "Model":
            arguments, same = data.draw(changes([(1, 6, 6), name, "float32", 0]))
            made = outcome(Model, arguments)
        elif what == "train":
            arguments, same = data.draw(changes([x, y, 1, 8, None, 0.2, None, 1, None, None]))
            if isinstance(arguments[2], int) and arguments[2] < 2**31:
                arguments[2] = min(arguments[2], 2)  # as many epochs are a right answer
            made = outcome(training.trainer.train, [model, *arguments])
        elif isinstance(what, str):
            arguments, same = data.draw(changes(methods[what]))
            made = outcome(getattr(model, what), arguments)
        else:
            arguments, same = data.draw(changes(MADE[what]))
            made = outcome(what, arguments)
            if isinstance(made, layers.Layer):
                shape = data.draw(
                    st.sampled_from([(1, 6, 6), (4,), (3, 1, 1), *NO_ARRAYS, *NO_SHAPES])
                )
                if getattr(made, "filters", 1) * getattr(made, "units", 1) < 10**4:
                    made, same = outcome(made.build, [shape, name]), False
            if isinstance(made, layers.Layer) and made.built:
                assert all(isinstance(size, int) and size > 0 for size in made.output_shape)
        answered["errors" if isinstance(made, Exception) else "results"] += 1
        assert not (same and isinstance(made, Exception)), made
        for layer in model.layers:  # images with a NaN or 1e30 in them leave no use of a model
            if not all(np.isfinite(array).all() for array in layer.arrays.values()):
                for array in layer.arrays.values():
                    array[:] = 0.5
                model.compile(training.Adam())
        model.mean[:], model.std[:] = 100, 50

    check()
    print(f"{name}: {answered}")
    assert np.isfinite(model.predict_proba(x)).all()
