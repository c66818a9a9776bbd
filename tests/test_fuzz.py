"""Any call of the public contract returns a correct result or raises an error with a message.

Each example is a correct call in which up to two arguments were replaced. NumPy's backend says
whether the call is still correct, and what the result must be.

./run.sh pytest tests/test_fuzz.py --long    # 20,000 calls a backend instead of 500
"""

from functools import cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layers
import training
from kernels import BACKENDS, get_backend
from kernels.activations import LeakyRelu, Silu
from tests.cases import window_or_none
from tests.fuzzing import LONG, SHORT, outcome
from tests.packed import ACTIVATIONS, CAPTURED, LANES
from training import Model

NUMPY = get_backend("numpy")
CALLED = {
    **{name: get_backend(name) for name in BACKENDS},
    "numba in lanes": LANES,
    "numba captured": CAPTURED,
}
IN_PLACE = ("update_running_stats", "sgd_step", "momentum_step", "adam_step")

# -- replacements of a correct argument -----------------------------------------------------------
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


def cast(dtype):
    return lambda a: a.astype(dtype) if a.dtype.kind in "fiu" else a


OTHER_LAYOUTS = [  # of the same numbers in memory
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


@st.composite
def replacements(draw, arguments):
    """Return arguments of which up to two are replaced, and whether all numbers are the same."""
    arguments, same = list(arguments), True
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(arguments) - 1))
        value = arguments[place]
        kind = draw(st.integers(0, 3))
        if isinstance(value, np.ndarray) and kind < 2:
            arguments[place] = draw(st.sampled_from(OTHER_LAYOUTS))(value)
        elif isinstance(value, np.ndarray) and kind < 3:
            with np.errstate(all="ignore"):
                arguments[place] = draw(st.sampled_from(OTHER_ARRAYS))(value)
            same = False
        else:
            arguments[place], same = draw(st.sampled_from(NO_ARRAYS)), False
    return arguments, same


# -- correct arguments ----------------------------------------------------------------------------
class Drawn:
    """Sizes and arrays that fit together, for the functions in ARGUMENTS to choose from."""

    def __init__(self, draw):
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.dtype = draw(st.sampled_from([np.float32, np.float64]))
        self.N, self.C, self.H, self.W, self.F = (
            draw(st.integers(1, high)) for high in (20, 3, 9, 9, 5)
        )
        self.kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        self.stride, self.padding = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, "same"]))
        if window_or_none((self.H, self.W), self.kernel, self.stride, self.padding) is None:
            self.kernel = (1, 1)

    def floats(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    @cached_property
    def x(self):
        """Images."""
        return self.floats(self.N, self.C, self.H, self.W)

    @cached_property
    def rows(self):
        """Images, each flattened into a row."""
        return self.floats(self.N, self.C * self.H * self.W)

    @cached_property
    def x_or_rows(self):
        return self.draw(st.sampled_from([self.x, self.rows[:, : self.C].copy()]))

    @cached_property
    def raw_images(self):
        return self.draw(st.sampled_from([self.x, (self.x * 100).astype(np.uint8)]))

    @cached_property
    def w(self):
        return self.floats(self.F, self.C, *self.kernel)

    @cached_property
    def depthwise_w(self):
        return self.floats(self.C, 1, *self.kernel)

    @cached_property
    def dy(self):
        """The gradient of what a correlation of x with w returns."""
        window = window_or_none((self.H, self.W), self.kernel, self.stride, self.padding)
        return self.floats(self.N, self.F, *window.output)

    @cached_property
    def cols(self):
        return NUMPY.im2col(self.x, self.kernel, self.stride, self.padding)

    @cached_property
    def pool(self):
        return min(self.kernel[0], self.H), min(self.kernel[1], self.W)

    @cached_property
    def pool_index(self):
        return NUMPY.max_pool(self.x, self.pool, self.stride)[1]

    @cached_property
    def fused_pool(self):
        """The size of a pooling whose windows do not overlap."""
        return self.draw(st.integers(1, min(self.H, self.W)))

    @cached_property
    def fused_pool_index(self):
        arguments = self.x, self.gamma, self.beta, 1e-5, self.activation, self.fused_pool
        return NUMPY.batch_norm_activation_pool(*arguments)[1]

    @cached_property
    def activation(self):
        return self.draw(st.sampled_from([None, LeakyRelu(0.1), Silu()]))

    @cached_property
    def gamma(self):
        return self.channel

    @cached_property
    def beta(self):
        return self.channel

    @property
    def channel(self):
        """A number for each channel of x; every use is a new array."""
        return self.floats(self.C)

    @property
    def variance(self):
        return self.floats(self.C) ** 2

    @property
    def unit(self):
        """A number for each filter of w, or for each column of a matrix of F columns."""
        return self.floats(self.F)

    @property
    def parameters(self):
        """A vector as the optimizers work on; without negative numbers, for Adam takes roots."""
        return self.rng.uniform(0, 1, self.C * self.H).astype(self.dtype)


# Correct positional arguments of each function, in the order of kernels/interface.py.
ARGUMENTS = {
    "correlate": lambda d: [d.x, d.w, d.unit, d.stride, d.padding, 1, 1, d.unit, d.activation],
    "separable_correlate": lambda d: [
        d.x, d.depthwise_w, d.floats(d.F, d.C, 1, 1), d.channel, d.unit, d.stride, d.padding, 1,
        d.channel, d.unit, d.activation, d.activation,
    ],
    "correlate_grad": lambda d: [d.dy, d.x, d.w, d.stride, d.padding, 1, 1, True, None],
    "correlate_im2col": lambda d: [d.x, d.w, d.unit, d.stride, d.padding, 1, 1],
    "im2col": lambda d: [d.x, d.kernel, d.stride, d.padding, 1],
    "col2im": lambda d: [d.cols, d.x.shape, d.kernel, d.stride, d.padding, 1],
    "max_pool": lambda d: [d.x, d.pool, d.stride, 0],
    "max_pool_grad": lambda d: [
        d.floats(*d.pool_index.shape), d.pool_index, d.x.shape, d.pool, d.stride,
    ],
    "avg_pool": lambda d: [d.x, d.pool, d.stride, 0],
    "avg_pool_grad": lambda d: [d.floats(*d.pool_index.shape), d.x.shape, d.pool, d.stride],
    "batch_norm": lambda d: [d.x_or_rows, d.gamma, d.beta, 1e-5],
    "batch_norm_grad": lambda d: [
        d.floats(*d.x_or_rows.shape), d.x_or_rows, d.gamma, d.channel, d.variance, 1e-5,
    ],
    "batch_norm_inference": lambda d: [
        d.x_or_rows, d.gamma, d.beta, d.channel, d.variance, 1e-5,
    ],
    "batch_norm_activation": lambda d: [d.x_or_rows, d.gamma, d.beta, 1e-5, d.activation],
    "batch_norm_activation_grad": lambda d: [
        d.floats(*d.x_or_rows.shape), d.x_or_rows,
        d.gamma, d.beta, d.channel, d.variance, 1e-5, d.activation,
    ],
    "batch_norm_activation_pool": lambda d: [
        d.x, d.gamma, d.beta, 1e-5, d.activation, d.fused_pool,
    ],
    "batch_norm_activation_pool_grad": lambda d: [
        d.floats(*d.fused_pool_index.shape), d.x, d.fused_pool_index,
        d.gamma, d.beta, d.channel, d.variance, 1e-5, d.activation, d.fused_pool,
    ],
    "update_running_stats": lambda d: [d.channel, d.channel, d.channel, d.variance, 0.9],
    "fold_batch_norm": lambda d: [d.channel, d.gamma, d.beta, d.channel, d.variance, 1e-5],
    "dense": lambda d: [d.rows, d.floats(d.rows.shape[1], d.F), d.unit, d.unit, d.activation],
    "dense_grad": lambda d: [
        d.floats(d.N, d.F), d.rows, d.floats(d.rows.shape[1], d.F), True, None,
    ],
    "flatten": lambda d: [d.x],
    "flatten_grad": lambda d: [d.rows, (d.C, d.H, d.W)],
    "dropout": lambda d: [d.x, 0.3, np.random.default_rng(1)],
    "dropout_grad": lambda d: [d.x, d.floats(*d.x.shape)],
    "activate": lambda d: [d.x, d.activation],
    "activate_grad": lambda d: [d.floats(*d.x.shape), d.x, d.activation],
    "add": lambda d: [d.x, d.floats(*d.x.shape), d.activation],
    "leaky_relu": lambda d: [d.x, 0.1],
    "leaky_relu_grad": lambda d: [d.x, d.floats(*d.x.shape), 0.1],
    "softmax": lambda d: [d.rows],
    "softmax_grad": lambda d: [d.rows, d.floats(*d.rows.shape)],
    "softmax_cross_entropy": lambda d: [
        d.rows, d.rng.integers(0, d.rows.shape[1], d.N), 0.1, d.rng.random(d.N),
    ],
    "warp_images": lambda d: [d.raw_images, d.floats(d.N, 2, 3)],
    "augment_images": lambda d: [
        d.raw_images, d.rng.random(d.N) < 0.5, d.rng.integers(-20, 20, (d.N, 2)),
        d.floats(d.N, d.C, d.C + 1), d.rng.integers(-5, 15, (d.N, 4)), d.channel, 0.0, 200.0,
    ],
    "normalize_images": lambda d: [d.raw_images, d.channel, d.variance, np.dtype(d.dtype).name],
    "from_array": lambda d: [d.x],
    "to_array": lambda d: [d.x],
    "sgd_step": lambda d: [d.parameters, d.parameters, 0.1, 0.01],
    "momentum_step": lambda d: [d.parameters, d.parameters, d.parameters, 0.1, 0.9, True, 0.01],
    "adam_step": lambda d: [
        d.parameters, d.parameters, d.parameters, d.parameters,
        3, 0.1, 0.9, 0.99, 1e-8, 0.01, 0.01,
    ],
}  # fmt: skip


@st.composite
def calls(draw, names):
    """Return a function's name and correct arguments of it."""
    name = draw(st.sampled_from(names))
    return name, ARGUMENTS[name](Drawn(draw))


# -- how two calls are compared -------------------------------------------------------------------
def plain_copy(value):
    """Return a copy of an argument, with the same numbers in C order."""
    if isinstance(value, np.random.Generator):
        return np.random.default_rng(1)
    if type(value) is np.ndarray and value.dtype.kind in "fiu" and value.dtype.itemsize <= 8:
        return np.array(value, value.dtype.newbyteorder("="), order="C")
    return value


def is_moderate(value):
    """Return whether all numbers are finite and so small that sums of them are, too."""
    if isinstance(value, tuple):
        return all(map(is_moderate, value))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bool(np.isfinite(value).all() and (np.abs(value) < 1e20).all())
    return not isinstance(value, float) or np.isfinite(value)


def assert_alike(got, want):
    """Compare results of two backends, which round differently."""
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_alike(one, other)
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


def can_be_packed(value):
    return (
        type(value) is np.ndarray
        and value.dtype in (np.float32, np.float64)
        and value.ndim in (2, 4)
        and 0 not in value.shape
    )


def test_every_function_is_called():
    of_the_process = {"capture", "set_threads", "kernel_choices", "pin_kernel_choices"}
    assert set(ARGUMENTS) == set(NUMPY.__all__) - of_the_process


@pytest.mark.parametrize("name", CALLED)
def test_backend_returns_the_result_or_raises_an_error(name, long_mode):
    backend = CALLED[name]
    # The adapters do not have all functions. That for packed images packs what ACTIVATIONS names.
    known = ACTIVATIONS if backend is LANES else ARGUMENTS
    names = sorted(name for name in ARGUMENTS if name in known and hasattr(backend, name))
    outcomes = {"results": 0, "errors": 0}

    @settings(max_examples=LONG if long_mode else SHORT, database=None)
    @given(data=st.data())
    def check(data):
        function, arguments = data.draw(calls(names))
        arguments, _same = data.draw(replacements(arguments))
        if backend is LANES and not all(
            can_be_packed(arguments[place]) for place in ACTIVATIONS[function]
        ):
            return
        copies = [plain_copy(value) for value in arguments]
        before = [value.copy() if type(value) is np.ndarray else value for value in arguments]
        passed = [plain_copy(v) if isinstance(v, np.random.Generator) else v for v in arguments]
        want = outcome(getattr(NUMPY, function), copies)
        got = outcome(getattr(backend, function), passed)
        outcomes["errors" if isinstance(got, Exception) else "results"] += 1
        if isinstance(got, Exception):
            assert str(got), "an error without a message"
            if not isinstance(want, Exception):
                assert function in IN_PLACE, (function, got)  # they refuse what must be copied
            return
        if function in IN_PLACE:
            got, want = (
                tuple(value for value in values if isinstance(value, np.ndarray))
                for values in (passed, copies)
            )
        else:
            for value, was in zip(arguments, before, strict=True):
                if type(value) is np.ndarray and value.dtype.kind in "fiu":
                    np.testing.assert_array_equal(value, was)
        assert not isinstance(want, Exception), (function, want)
        if function in ("from_array", "normalize_images"):
            got = backend.to_array(got)
        if is_moderate(want) and is_moderate(tuple(copies)):
            assert_alike(got, want)

    check()
    print(f"{name}: {outcomes}")


# -- layers and models ----------------------------------------------------------------------------
# Correct positional arguments of the classes' constructors.
CONSTRUCTORS = {
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
def test_model_returns_a_result_or_raises_an_error(name, long_mode):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 1, 6, 6)).astype(np.uint8)
    y = rng.integers(0, 3, 20)
    model = Model((1, 6, 6), backend=name)
    model.add(layers.Conv(2, 3)).add(layers.BatchNorm()).add(layers.Relu())
    model.add(layers.MaxPool(2)).add(layers.Flatten()).add(layers.Dense(3))
    model.compile(training.Adam())
    methods = {
        "train_step": [x, y, {0: 2.0, 2: 0.5}, np.linspace(0, 1, 20)],
        "predict": [x],
        "predict_proba": [x],
        "evaluate": [x, y],
        "fit_normalization": [x],
    }
    outcomes = {"results": 0, "errors": 0}

    def call_constructor(data, constructor):
        """Make a layer, optimizer or schedule, and build a layer for some input shape."""
        arguments, same = data.draw(replacements(CONSTRUCTORS[constructor]))
        made = outcome(constructor, arguments)
        if isinstance(made, layers.Layer):
            shapes = [(1, 6, 6), (4,), (3, 1, 1), *NO_ARRAYS, *NO_SHAPES]
            shape = data.draw(st.sampled_from(shapes))
            if getattr(made, "filters", 1) * getattr(made, "units", 1) < 10**4:
                made, same = outcome(made.build, [shape, name]), False
        if isinstance(made, layers.Layer) and made.built:
            assert all(isinstance(size, int) and size > 0 for size in made.output_shape)
        return made, same

    def call_train(data):
        optional = [None, 0.2, None, 1, None, None, None, None, None, None]
        weights = ["balanced", np.linspace(0, 1, 20)]
        arguments, same = data.draw(replacements([x, y, 1, 8, *optional, *weights]))
        if isinstance(arguments[2], int) and arguments[2] < 2**31:
            arguments[2] = min(arguments[2], 2)  # more epochs are correct, and take long
        return outcome(training.trainer.train, [model, *arguments]), same

    def call(data, target):
        if target == "train":
            return call_train(data)
        if target in CONSTRUCTORS:
            return call_constructor(data, target)
        if target == "Model":
            function, arguments = Model, [(1, 6, 6), name, "float32", 0]
        else:
            function, arguments = getattr(model, target), methods[target]
        arguments, same = data.draw(replacements(arguments))
        return outcome(function, arguments), same

    def restore_model():
        """Undo what images with NaN or 1e30 did to the weights and the normalization."""
        for layer in model.layers:
            if not all(np.isfinite(array).all() for array in layer.arrays.values()):
                for array in layer.arrays.values():
                    array[:] = 0.5
                model.compile(training.Adam())
        model.mean[:], model.std[:] = 100, 50

    @settings(max_examples=LONG if long_mode else SHORT, database=None)
    @given(data=st.data())
    def check(data):
        target = data.draw(st.sampled_from([*methods, *CONSTRUCTORS, "train", "Model"]))
        result, same = call(data, target)
        outcomes["errors" if isinstance(result, Exception) else "results"] += 1
        assert not (same and isinstance(result, Exception)), result
        if isinstance(result, Exception):
            assert str(result), "an error without a message"
        restore_model()

    check()
    print(f"{name}: {outcomes}")
    assert np.isfinite(model.predict_proba(x)).all()
