"""Residual blocks, alone and in models of every backend."""

import json

import numpy as np
import pytest

from kernels import BACKENDS
from layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gelu,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Relu,
    Residual,
    ShapeError,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    walk,
)
from tests.networks import digits
from training import SGD, Adam, InputError, Model, TrainingState

every_backend = pytest.mark.parametrize("backend", list(BACKENDS))
IMAGE = (3, 8, 8)


def residual_network(backend="numpy", dropout=0.0, **options):
    """Return a network of blocks, the first of which is its first layer."""
    model = Model((1, 8, 8), backend=backend, **{"dtype": "float64", **options})
    model.add(Residual(Conv(1, 3, padding="same"), BatchNorm(), Relu(max_value=6)))
    model.add(Conv(6, 3, padding="same", use_bias=False)).add(BatchNorm()).add(Silu())
    model.add(
        Residual(
            *(Conv(8, 3, stride=2, padding="same"), BatchNorm(), Silu()),
            Residual(Conv(8, 3, padding="same"), BatchNorm(), Dropout(dropout)),
            shortcut=[AvgPool(2), Conv(8, 1), BatchNorm()],
        )
    )
    model.add(Relu()).add(Residual(BatchNorm(), Gelu(), Conv(8, 1, groups=8))).add(Tanh())
    model.add(Residual(BatchNorm(), Sigmoid(), MaxPool(2), shortcut=[MaxPool(2)]))
    model.add(GlobalMaxPool()).add(Residual(Dense(8), Gelu(), Dense(8))).add(Dense(4))
    return model.add(Softmax())


def losses(model, sizes):
    model.compile(Adam(5e-3))
    images, labels = digits(40)
    return [model.train_step(images[:size], labels[:size]) for size in sizes]


# Each size is captured and then replayed.
SIZES = (20, 20, 5, 20, 5, 33, 33)


@pytest.mark.parametrize("options", [{"backend": "scipy"}, {"backend": "numba"}, {"fused": False}])
def test_all_backends_train_alike(options):
    np.testing.assert_allclose(
        losses(residual_network(**options), SIZES), losses(residual_network(), SIZES), rtol=1e-6
    )


def test_steps_and_predictions_are_captured():
    model = residual_network("numba", dropout=0.3)
    losses(model, (20, 20))
    model.logits(digits(20)[0])
    assert len(model._captured) == 2
    assert all(step is not None for step in model._captured.values())
    # A captured step has its own buffers: the layers keep no activations beside them.
    assert not any(layer._has_context for layer in walk(model._training_plan))


@pytest.mark.parametrize("N", [1, 20])
def test_predictions_with_every_new_layer_are_captured(N):
    model = Model((1, 8, 8)).add(Conv(6, 3)).add(BatchNorm()).add(Silu())
    model.add(Residual(Conv(6, 3, padding="same"), BatchNorm(), Gelu(), Conv(6, 1, groups=2)))
    model.add(Relu(max_value=6)).add(Residual(Conv(8, 1), Tanh(), shortcut=[Conv(8, 1)]))
    model.add(Sigmoid()).add(GlobalMaxPool()).add(Residual(Dense(8), Silu())).add(Dense(4))
    images = digits(N)[0]
    want = [model.logits(images) for _ in range(3)]
    assert list(model._captured.values()) != [None]
    np.testing.assert_allclose(want[1:], want[:1] * 2)


@pytest.mark.parametrize("N", [1, 2, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_predicts_as_with_numpy(N, dtype):
    """Few images have their channels last, and many are packed."""
    images = digits(N)[0]
    reference = residual_network()
    losses(reference, (20, 20))  # running statistics and weights that are not those of a new model
    model = residual_network("numba", dtype=dtype)
    for layer, other in zip(walk(model.layers), walk(reference.layers), strict=True):
        layer.set_arrays({name: array.astype(dtype) for name, array in other.arrays.items()})
    want = reference.logits(images)
    for _ in range(3):
        error = np.abs(model.logits(images) - want).max() / np.abs(want).max()
        assert error < (1e-4 if dtype == "float32" else 1e-10)


@every_backend
def test_the_gradient_of_the_input_is_computed_only_if_needed(backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *IMAGE))
    block = Residual(Residual(Conv(3, 1)), Relu(), shortcut=[Conv(3, 3, padding=1)])
    block.build(IMAGE, backend, "float64", 0)
    dy = rng.standard_normal(block.forward(x).shape)
    block.forward(x)
    assert block.backward(dy).shape == x.shape
    want = [grad.copy() for layer in walk([block]) for grad in layer.grads.values()]
    block.need_dx = False
    block.forward(x)
    assert block.backward(dy) is None
    assert not any(layer.need_dx for layer in walk([block]) if isinstance(layer, Conv))
    got = [grad for layer in walk([block]) for grad in layer.grads.values()]
    assert len(got) == 4
    for grad, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(grad, expected)
    assert Residual(Relu()).build(IMAGE, backend, "float64").need_dx


def test_an_identity_adds_the_input_and_its_gradient():
    block = Residual(Relu()).build((2,), "numpy", "float64")
    x = np.array([[3.0, -3.0]])
    np.testing.assert_array_equal(block.forward(x), [[6, -3]])
    np.testing.assert_array_equal(block.backward(np.ones((1, 2))), [[2, 1]])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            Residual(Conv(4, 3, stride=2, padding=1)),
            r"its body returns \(4, 4, 4\) and its shortcut \(3, 8, 8\), but both must have .*same",
        ),
        (
            Residual(Relu(), shortcut=[Conv(4, 1)]),
            r"its body returns \(3, 8, 8\) and its shortcut \(4, 8, 8\)",
        ),
        (Residual(Relu(), Dense(3)), "'Residual' cannot take .*'Dense' cannot take .*Flatten"),
        (Residual(Relu(), shortcut=[Residual(Dense(3))]), "'Dense' cannot take .*Flatten"),
    ],
)
def test_build_rejects_shapes(block, message):
    with pytest.raises(ShapeError, match=message):
        block.build(IMAGE, "numpy")


def twice(layer):
    return Residual(layer, layer)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Residual(), ValueError, "needs at least one layer in its body"),
        (lambda: Residual(shortcut=[Relu()]), ValueError, "needs at least one layer in its body"),
        (lambda: Residual([Relu()]), TypeError, r"takes layers such as Relu\(\), got \[Relu"),
        (lambda: Residual(Relu), TypeError, "takes layers such as"),
        (lambda: Residual(Relu(), shortcut=Relu()), TypeError, "must be None or a list of layers"),
        (lambda: Residual(Relu(), shortcut="identity"), TypeError, "None or a list of layers"),
        (lambda: Residual(Relu(), shortcut=[None]), TypeError, "takes layers such as"),
        (lambda: Residual(Relu(), name=3), TypeError, "name must be a string"),
        (lambda: twice(Conv(3, 1)), ValueError, "'Conv' occurs twice in a Residual"),
        (lambda: twice(Residual(Relu())), ValueError, "'Residual' occurs twice"),
        (
            lambda: (lambda relu: Residual(relu, Residual(Tanh(), shortcut=[relu])))(Relu()),
            ValueError,
            "'Relu' occurs twice",
        ),
    ],
)
def test_rejects_wrong_layers(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_empty_shortcut_is_the_identity():
    assert repr(Residual(Relu(), shortcut=[])) == "Residual(Relu())"
    assert repr(Residual(Tanh(), shortcut=[Relu()])) == "Residual(Tanh(), shortcut=[Relu()])"


def test_a_layer_belongs_to_one_place():
    relu = Relu()
    model = Model(IMAGE, backend="numpy").add(Residual(relu))
    for again in (relu, Residual(relu), Residual(Tanh(), shortcut=[Residual(relu)])):
        with pytest.raises(ValueError, match=r"'residual_1.relu_1' is in a model already"):
            model.add(again)
    assert len(model.layers) == 1
    with pytest.raises(ValueError, match="is in a model already"):
        relu.build(IMAGE, "numpy")


def test_names_and_summary_show_the_nesting():
    model = Model(IMAGE, backend="numpy").add(Conv(4, 1))
    model.add(Residual(Conv(4, 1), Residual(Conv(4, 1), Relu(name="mine")), shortcut=[Conv(4, 1)]))
    with pytest.raises(ShapeError):
        model.add(Residual(Dense(3)))
    dense = Dense(3)
    with pytest.raises(ShapeError):
        model.add(Residual(dense))
    assert dense.name is None
    lines = [line.split("  ")[0] if line[0] != " " else line for line in str(model).splitlines()]
    names = [line[: len(line) - len(line.lstrip())] + line.split()[0] for line in lines]
    assert names[2:-2] == [
        *("input", "conv_1", "residual_1", "  residual_1.conv_1", "  residual_1.residual_1"),
        *("    residual_1.residual_1.conv_1", "    mine", "  residual_1.shortcut.conv_1"),
    ]
    assert model.layers[1].size == 3 * (4 * 4 + 4)
    assert f"{16 + 3 * 20}" == str(model).split()[-1]
    assert repr(model).endswith("2 layers, 76 parameters>")


@every_backend
def test_batch_norm_in_a_block_needs_more_than_one_row(backend):
    model = Model((1, 2, 2), backend=backend).add(Flatten())
    model.add(Residual(Dense(4), Residual(BatchNorm()))).add(Dense(2)).compile(SGD(0.1))
    with pytest.raises(InputError, match=r"layer 'residual_1.residual_1.batchnorm_1' normalizes"):
        model.train_step(np.ones((1, 1, 2, 2)), np.array([0]))


def test_parameters_of_blocks_are_views_of_those_of_the_model():
    model = residual_network().compile(SGD(0.1))
    sizes = [value.size for layer in walk(model.layers) for value in layer.params.values()]
    assert len(sizes) == 31
    assert model.parameters.values.size == sum(sizes) == sum(layer.size for layer in model.layers)
    for layer in walk(model.layers):
        for arrays, vector in (
            (layer.params, model.parameters.values),
            (layer.grads, model.parameters.grads),
            (layer.buffers, model.parameters.buffers),
        ):
            assert all(np.shares_memory(array, vector) for array in arrays.values())
    arrays = [value for layer in walk(model.layers) for value in layer.params.values()]
    assert model.parameters.decayed == sum(value.size for value in arrays if value.ndim > 1)


@every_backend
def test_layers_in_blocks_draw_their_own_random_numbers(backend):
    """Which depend on the seed alone."""
    x = np.ones((1, 400))

    def outputs(seed):
        block = Residual(Dropout(0.5), Dropout(0.5), shortcut=[Dropout(0.5), Dropout(0.5)])
        block.build((400,), backend, "float64", seed)
        block.forward(x)
        return [layer.forward(x) for layer in (*block.body, *block.shortcut)]

    first = outputs(0)
    for position, mask in enumerate(first):
        assert not any(np.array_equal(mask, other) for other in first[:position])
    np.testing.assert_array_equal(first, outputs(0))
    assert not np.array_equal(first, outputs(1))


@every_backend
@pytest.mark.parametrize("other", list(BACKENDS))
def test_a_saved_model_predicts_the_same(backend, other, tmp_path):
    model = residual_network(backend, dropout=0.2)
    losses(model, (20, 20))
    model.save(tmp_path / "m.json")
    loaded = Model.load(tmp_path / "m.json", other)
    images = digits(20)[0]
    np.testing.assert_allclose(loaded.logits(images), model.logits(images), rtol=1e-9)
    assert str(loaded) == str(model)
    assert [repr(layer) for layer in loaded.layers] == [repr(layer) for layer in model.layers]
    loaded.save(tmp_path / "again.json")
    first, second = (json.loads((tmp_path / n).read_text()) for n in ("m.json", "again.json"))
    assert first == second


def test_training_keeps_and_restores_the_best_state_of_blocks(tmp_path):
    images, labels = digits(60)
    model = residual_network("numba", dtype="float32").compile(Adam(5e-3))
    data = images[40:], labels[40:]
    run = TrainingState(tmp_path / "run.json")
    model.train(
        *(images[:40], labels[:40], 6, 10),
        validation_data=data, to_path=tmp_path / "best.json", training_state=run,
    )  # fmt: skip
    best = max(model.history["validation_accuracy"])
    assert model.evaluate(*data) == best
    assert Model.load(tmp_path / "best.json").evaluate(*data) == best


def test_numbers_of_blocks_that_are_not_finite_are_found(tmp_path):
    model = residual_network()
    model.layers[4].body[3].body[1].buffers["running_mean"][0] = np.nan
    with pytest.raises(ValueError, match=r"of layer 'residual_2.residual_1.batchnorm_1' holds"):
        model.save(tmp_path / "m.json")


class Own(Layer):
    """A layer that is not one of the library's."""

    def _forward(self, x, training):
        return self.backend.from_array(self.backend.to_array(x) * 2), ()

    def _backward(self, dy, context):
        return self.backend.from_array(self.backend.to_array(dy) * 2)


@every_backend
def test_a_user_s_layer_in_a_block_works_and_cannot_be_saved(backend, tmp_path):
    """It converts its activations to plain arrays, whatever the layout beside it is."""
    images, labels = digits(20)
    seen = []
    for own in (backend, "numpy"):
        model = Model((1, 8, 8), backend=own, dtype="float64").add(Conv(3, 3))
        model.add(Residual(Own())).add(Flatten()).add(Dense(4)).compile(SGD(1e-5))
        seen.append([model.train_step(images, labels) for _ in range(3)])
        seen[-1] += [*model.logits(images[:1]).ravel()]
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-9)
    with pytest.raises(ValueError, match="add Own to LAYER_TYPES"):
        model.save(tmp_path / "m.json")


def test_a_class_that_derives_from_a_layer_is_not_fused():
    class Doubled(Silu):
        def _forward(self, x, training):
            y, context = super()._forward(x, training)
            return self.backend.add(y, y), context

        def _backward(self, dy, context):
            return super()._backward(self.backend.add(dy, dy), context)

    images, labels = digits(20)
    seen = []
    for fused in (True, False):
        model = Model((1, 8, 8), dtype="float64", fused=fused)
        model.add(Residual(Conv(1, 1), BatchNorm(), Doubled())).add(Doubled())
        model.add(Flatten()).add(Dense(4)).add(Doubled()).compile(SGD(0.01))
        seen.append([model.train_step(images, labels) for _ in range(2)])
        seen[-1] += [*model.logits(images[:1]).ravel()]
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-9)
