"""The training loop: batches, validation, augmentation, the best model, the history."""

import numpy as np
import pandas
import pytest

import run
from kernels import BACKENDS
from layers import BatchNorm, Dense, Flatten, Relu
from tests.networks import digits, small_network
from training import (
    SGD,
    Adam,
    Augmenter,
    Constant,
    DivergedError,
    InputError,
    Model,
    Reporter,
    ShiftAugmenter,
    Steps,
    TimeLimited,
    TrainingState,
    split_validation,
)
from training.lr_finder import find_learning_rate
from training.saving import model_file
from training.trainer import batches


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (9, 4, [4, 5]), (3, 4, [3]), (1, 4, [1]), (3, 1, [1] * 3)],
)
def test_batch_sizes(count, size, lengths):
    parts = list(batches(np.arange(count), size))
    assert [len(part) for part in parts] == lengths
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(count))


def test_validation_split_uses_each_image_once():
    x, y = np.arange(50)[:, None], np.arange(50) % 4
    (x1, y1), (x2, y2) = split_validation(x, y, 0.2, seed=3)
    assert (len(x1), len(x2)) == (40, 10)
    np.testing.assert_array_equal(np.sort(np.concatenate([x1, x2]), axis=0), x)
    np.testing.assert_array_equal(y1, x1[:, 0] % 4)
    np.testing.assert_array_equal(y2, x2[:, 0] % 4)
    for part in (x1, x2):  # the order of the images stays
        assert (np.diff(part[:, 0]) > 0).all()
    assert not np.array_equal(x2[:, 0], np.arange(10))
    assert not np.array_equal(x2, split_validation(x, y, 0.2, seed=4)[1][0])
    np.testing.assert_array_equal(x2, split_validation(x, y, 0.2, seed=3)[1][0])


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ([100, 10, 50], 0.1, [10, 1, 5]),
        ([95, 5], 0.1, [9, 1]),  # 9.5 and 0.5: the smaller class is rounded up
        ([14, 7, 7, 7], 0.25, [3, 2, 2, 2]),  # 3.5 and three times 1.75
        ([1, 19], 0.5, [0, 10]),  # 9.5, rounded to the even number as 0.5 * 19 always was
        ([1, 1, 1, 40], 0.1, [0, 0, 0, 4]),
        ([2, 2], 0.9, [1, 1]),  # each class keeps an image to train on
        ([100, 200], 0.29, [29, 58]),  # 28.999999999999996 in float64
    ],
)
def test_validation_split_keeps_the_share_of_each_class(sizes, fraction, expected):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)) * 7 - 3, sizes))
    x = np.arange(len(labels))
    (x1, y1), (x2, y2) = split_validation(x, labels, fraction, seed=0)
    assert [np.sum(y2 == label) for label in np.unique(labels)] == expected
    np.testing.assert_array_equal(np.sort(np.r_[x1, x2]), x)
    np.testing.assert_array_equal(y1, labels[x1])
    assert set(y1) == set(labels)


def test_validation_split_rejects_fractions_without_images():
    x, y = np.arange(50)[:, None], np.arange(50) % 5
    with pytest.raises(InputError, match="too few"):
        split_validation(x[:3], y[:3] % 2, 0.1, seed=0)
    with pytest.raises(InputError, match="5 images of 5 classes are too few"):
        split_validation(x[:5], y[:5], 0.5, seed=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_validation(x, y, 1, seed=0)


class Spy(Augmenter):
    """Keeps the images that it received, and returns black ones."""

    def __init__(self):
        self.received = []

    def matrices(self, N, image, rng):
        raise AssertionError

    def __call__(self, images, rng, backend):
        self.received.append(images.copy())
        return np.zeros_like(images)


def test_validation_images_are_set_aside_before_augmentation():
    images, labels = digits(100)
    images[:, 0, 0, 0] = np.arange(100)
    spy, model, batches_seen = Spy(), small_network(), []
    train_batch = model.train_batch
    model.train_batch = lambda x, y: batches_seen.append(x) or train_batch(x, y)
    model.train(images, labels, 1, 30, validation_split=0.25, augmenter=spy, augmenter_ratio=4)
    (_, _), (validation_images, _) = split_validation(images, labels, 0.25, seed=0)
    augmented = np.concatenate(spy.received)
    trained = {int(v) for v in augmented[:, 0, 0, 0]}
    assert len(trained) == 75
    assert not trained & {int(v) for v in validation_images[:, 0, 0, 0]}
    assert len(augmented) == 3 * 75  # and each image once without augmentation
    assert sum(x.any(axis=(1, 2, 3)).sum() for x in batches_seen) == 75
    assert sum(map(len, batches_seen)) == 300


def test_each_epoch_shows_all_images_in_a_new_order():
    images, labels = digits(50)
    images[:, 0, 0, 0] = np.arange(50)
    spy = Spy()
    small_network().train(images, labels, epochs=2, batch_size=50, augmenter=spy)
    first, second = (received[:, 0, 0, 0] for received in spy.received)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    np.testing.assert_array_equal(np.sort(second), np.arange(50))
    assert not np.array_equal(first, second)


def test_history_has_all_metrics_of_each_epoch():
    images, labels = digits(200)
    model = small_network()
    history = model.train(
        images[:150], labels[:150], epochs=2, validation_data=(images[150:], labels[150:])
    )
    assert history is model.history
    assert set(history) == {
        "loss",
        "accuracy",
        "learning_rate",
        "images_per_second",
        "validation_loss",
        "validation_accuracy",
    }
    assert all(len(numbers) == 2 for numbers in history.values())
    model.train(images, labels, epochs=1)
    assert len(history["loss"]) == 3


def test_the_best_epoch_is_restored_and_saved(tmp_path):
    """The learning rate grows until it destroys the model."""
    images, labels = digits(400)
    validation = images[300:], labels[300:]
    path = tmp_path / "m.json"
    saved_accuracies = []

    class Destroy(Constant):
        def factor(self, progress):
            return 600.0 if progress >= 3 / 5 else 1.0

        def epoch_ended(self, loss):
            saved_accuracies.append(Model.load(path, backend="numpy").evaluate(*validation))

    model = small_network()
    history = model.train(
        images[:300],
        labels[:300],
        epochs=5,
        batch_size=32,
        validation_data=validation,
        schedule=Destroy(),
        to_path=path,
    )
    best = max(history["validation_accuracy"])
    assert history["validation_accuracy"][-1] < best
    assert model.evaluate(*validation) == best
    assert Model.load(path, backend="numpy").evaluate(*validation) == best
    # After each epoch, the best model so far was on disk.
    np.testing.assert_array_equal(
        saved_accuracies, np.maximum.accumulate(history["validation_accuracy"])
    )


class Script(Constant):
    """A schedule that makes a model return given validation results, one for each epoch."""

    def __init__(self, model, results):
        self.results, self.losses = iter(results), []
        model.loss_and_accuracy = lambda x, y: next(self.results)

    def epoch_ended(self, loss):
        self.losses.append(loss)


def test_of_equal_accuracies_the_lower_loss_is_the_best(tmp_path):
    images, labels = digits(40)
    results = [(0.5, 0.8), (0.4, 0.8), (0.6, 0.8), (0.4, 0.8), (0.3, 0.7)]
    model = small_network()
    script = Script(model, results)
    path = tmp_path / "m.json"
    model.train(images, labels, 5, validation_data=(images, labels), schedule=script, to_path=path)
    assert len(Model.load(path, backend="numpy").history["loss"]) == 2
    assert script.losses == [loss for loss, _ in results]  # of the validation, not the training


def test_training_a_saved_model_replaces_it_only_by_a_better_one(tmp_path):
    images, labels = digits(300)
    path = tmp_path / "m.json"
    model = small_network()
    model.train(images, labels, 12, 32, validation_split=0.3, to_path=path)
    best = model.evaluate(images, labels)
    assert best > 0.8
    loaded = Model.load(path, backend="numpy").compile(optimizer=SGD(5.0))
    loaded.train(images, labels, 1, 32, validation_split=0.3, to_path=path)
    assert Model.load(path, backend="numpy").evaluate(images, labels) == best


def test_a_model_that_is_not_finite_is_not_the_best(tmp_path):
    images, labels = digits(40)
    path = tmp_path / "m.json"
    model = small_network()
    Script(model, [(0.5, 0.8), (np.nan, 0.9)])
    with pytest.raises(DivergedError, match="validation loss became nan"):
        model.train(images, labels, 3, validation_data=(images, labels), to_path=path)
    assert len(Model.load(path, backend="numpy").history["loss"]) == 1


def test_history_is_the_mean_over_the_images():
    images, labels = digits(50)
    model = small_network()
    steps = []
    train_batch = model.train_batch

    def record(x, y):
        loss, n_correct = train_batch(x, y)
        steps.append((len(x), loss, n_correct))
        return loss, n_correct

    model.train_batch = record
    history = model.train(images, labels, 1, 16, augmenter=ShiftAugmenter(), augmenter_ratio=4)
    sizes, losses, n_correct = map(np.array, zip(*steps, strict=True))
    assert sizes.tolist() == [16] * 12 + [8]
    assert history["loss"] == [pytest.approx((sizes * losses).sum() / 200)]
    assert history["accuracy"] == [n_correct.sum() / 200]


def test_a_model_that_cannot_be_saved_is_rejected_before_training(tmp_path):
    class UserLayer(Relu):
        pass

    images, labels = digits(20)
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(UserLayer()).add(Dense(4))
    model.compile(optimizer=Adam())
    with pytest.raises(ValueError, match="add UserLayer to LAYER_TYPES"):
        model.train(images, labels, to_path=tmp_path / "m.json")
    assert not model.history


def test_a_diverging_run_stops_and_leaves_the_best_model(tmp_path):
    images, labels = digits(200)
    path = tmp_path / "m.json"
    model = small_network()
    model.train(images, labels, epochs=1, to_path=path)
    before = path.read_bytes()
    model.compile(optimizer=SGD(1e300))
    with pytest.raises(DivergedError, match=r"epoch 1, step 2: the loss became nan.*smaller"):
        model.train(images, labels, epochs=3, batch_size=50, to_path=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (1e300, "the end of epoch 1: .* of layer .* holds numbers that are not finite"),
        (1e25, "epoch 1: the validation loss became (nan|inf)"),
    ],
)
@pytest.mark.parametrize("save_every", [None, 1])
def test_a_model_whose_last_step_diverged_is_not_saved(tmp_path, rate, message, save_every):
    """The loss before that step was still finite."""
    images, labels = digits(200)
    path, training_state = tmp_path / "m.json", TrainingState(tmp_path / "run.json")
    model = small_network(dtype="float32")
    model.train(images, labels, epochs=1, to_path=path)
    before = path.read_bytes()
    model.compile(optimizer=SGD(rate))
    with pytest.raises(DivergedError, match=message):
        model.train(
            *(images, labels, 3, 200),
            validation_data=(images, labels),
            to_path=path,
            training_state=training_state,
            save_every=save_every,
        )
    assert path.read_bytes() == before
    assert not training_state.path.exists()
    assert all(
        np.isfinite(array).all() for layer in model.layers for array in layer.arrays.values()
    )


def test_the_state_of_a_diverged_run_is_not_saved(tmp_path):
    images, labels = digits(200)
    training_state = TrainingState(tmp_path / "run.json")
    model = small_network(dtype="float32")
    model.compile(optimizer=SGD(1e300))
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: .* not finite"):
        model.train(images, labels, 3, 100, training_state=training_state, save_every=1)
    assert not training_state.path.exists()


def test_a_diverging_step_leaves_the_parameters_unchanged():
    images, labels = digits(20)
    model = small_network()
    model.layers[0].params["weights"][0] = np.inf
    before = model.parameters.values.copy()
    with pytest.raises(DivergedError, match="smaller learning rate"):
        model.train_step(images, labels)
    np.testing.assert_array_equal(model.parameters.values, before)


class Interrupt(Reporter):
    """Raises KeyboardInterrupt after a number of batches."""

    def __init__(self, batches):
        super().__init__(quiet=True)
        self.batches_left = batches

    def batch_ended(self, n_images, loss, n_correct):
        self.batches_left -= 1
        if self.batches_left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_leaves_the_best_model(tmp_path):
    images, labels = digits(100)
    path = tmp_path / "m.json"
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(2))
    first = path.read_bytes()  # there was no file: half an epoch is better than nothing
    Model.load(path, backend="numpy")
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(2))
    assert path.read_bytes() == first  # half an epoch does not replace an earlier model
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(6))
    assert path.read_bytes() != first
    assert len(Model.load(path, backend="numpy").history["loss"]) == 1


def test_the_schedule_sets_the_rate_of_each_step_and_restores_it():
    images, labels = digits(40)
    model = small_network(backend="numpy").compile(SGD(0.1))
    rates, train_batch = [], model.train_batch

    def record(x, y):
        rates.append(model.optimizer.learning_rate)
        return train_batch(x, y)

    model.train_batch = record
    history = model.train(images, labels, 2, 10, schedule=Steps((0.25, 0.75), 0.1))
    assert rates == pytest.approx([0.1] * 2 + [0.01] * 4 + [0.001] * 2)
    assert history["learning_rate"] == pytest.approx([0.01, 0.001])
    assert model.optimizer.learning_rate == 0.1


class SteppingClock:
    """A clock on which each training step of a model takes a second, and nothing else any time."""

    def __init__(self, model):
        self.time, self._train_batch = 0.0, model.train_batch
        model.train_batch = self.train_batch

    def train_batch(self, x, y):
        self.time += 1.0
        return self._train_batch(x, y)

    def __call__(self):
        return self.time


def test_a_time_limit_ends_a_run_in_the_middle_of_an_epoch(tmp_path):
    images, labels = digits(100)
    model = small_network(backend="numpy").compile(SGD(0.1))
    clock = SteppingClock(model)
    schedule = TimeLimited(Steps((0.5,), 0.1), 15, clock=clock)
    state = TrainingState(tmp_path / "run.json")
    history = model.train(images, labels, None, 10, schedule=schedule, training_state=state)
    assert clock.time == 15
    assert len(history["loss"]) == 2  # ten steps, and five
    assert history["learning_rate"] == pytest.approx([0.01, 0.01])
    assert not state.path.exists()


def test_the_metrics_of_a_part_of_an_epoch_are_means_over_its_images():
    images, labels = digits(100)
    model = small_network(backend="numpy").compile(SGD(0.1))
    schedule = TimeLimited(Constant(), 4, clock=SteppingClock(model))
    steps, train_batch = [], model.train_batch

    def record(x, y):
        steps.append(train_batch(x, y))
        return steps[-1]

    model.train_batch = record
    history = model.train(images, labels, None, 10, schedule=schedule)
    losses, correct = zip(*steps, strict=True)
    assert len(steps) == 4
    assert history["loss"] == [pytest.approx(np.mean(losses))]
    assert history["accuracy"] == [pytest.approx(np.mean(correct) / 10)]


def test_a_run_with_a_time_limit_resumes(tmp_path):
    images, labels = digits(100)
    path = tmp_path / "run.json"

    def train(model, state, reporter=None):
        clock = SteppingClock(model.compile(SGD(0.1)))
        schedule = TimeLimited(Steps((0.6,), 0.1), 25, clock=clock)
        options = {"training_state": state, "reporter": reporter, "save_every": 1}
        return model.train(images, labels, None, 10, schedule=schedule, **options), clock.time

    expected, seconds = train(small_network(backend="numpy"), TrainingState(path))
    assert seconds == 25
    with pytest.raises(KeyboardInterrupt):
        train(small_network(backend="numpy"), TrainingState(path), Interrupt(13))
    history, seconds = train(Model.load(path, backend="numpy"), TrainingState.open(path))
    assert seconds == 25 - 12  # the step of the interruption is done again
    for name in ("loss", "accuracy", "learning_rate"):
        assert history[name] == expected[name]


def test_epochs_are_needed_without_a_time_limit():
    with pytest.raises(ValueError, match="only a TimeLimited schedule"):
        small_network().train(*digits(20), epochs=None, schedule=Constant())


def test_stops_after_epochs_without_improvement():
    class StandStill(Constant):
        def factor(self, progress):
            return 0.0

    images, labels = digits(60)
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(4)).compile(SGD())
    arguments = {"validation_data": (images[40:], labels[40:]), "schedule": StandStill()}
    history = model.train(images[:40], labels[:40], 9, 20, patience=3, **arguments)
    assert len(history["loss"]) == 1 + 3  # the first epoch is the best


def test_rejects_wrong_arguments():
    images, labels = digits(20)
    model = small_network()
    with pytest.raises(ValueError, match="one label for each of 20 images, got \\(19,\\)"):
        model.train(images, labels[:19])
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        model.train(images, labels, epochs=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        model.train(images, labels, batch_size=0)
    with pytest.raises(ValueError, match="not both"):
        model.train(images, labels, validation_split=0.5, validation_data=(images, labels))
    with pytest.raises(ValueError, match="there are no images"):
        model.train(images[:0], labels[:0])
    with pytest.raises(ValueError, match="labels must be 0 to 3"):
        model.train(images, labels, validation_data=(images, labels + 4))
    with pytest.raises(TypeError, match="labels must be integers"):
        model.train(images, labels + 0.5)
    assert not model.history


def test_accepts_labels_as_any_array_like():
    images, labels = digits(40)
    order = np.random.default_rng(0).permutation(40)
    series = pandas.Series(labels, index=order)  # whose y[3] is not the fourth label
    results = []
    for array_like in (labels, labels.tolist(), series, labels.astype(np.uint8)):
        model = small_network()
        model.train(images, array_like, epochs=1, batch_size=10)
        results.append(model.parameters.values)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("augmenter", "Augmenter"),
        ("schedule", "Schedule"),
        ("reporter", "Reporter"),
        ("training_state", "TrainingState"),
    ],
)
def test_rejects_options_of_another_type(name, type_name):
    model = small_network(backend="numpy")
    with pytest.raises(TypeError, match=f"{name} must be of type {type_name}, got 5"):
        model.train(*digits(40), epochs=1, **{name: 5})


def test_rejects_an_augmenter_ratio_that_makes_an_epoch_too_long():
    model = small_network(backend="numpy")
    with pytest.raises(
        ValueError, match="too large: an epoch would have 42949672960 images, and at"
    ):
        model.train(*digits(40), epochs=1, augmenter_ratio=2**30)


def with_pixel(images, index, value):
    """Return images as float64 with one pixel replaced."""
    images = images.astype(np.float64)
    images[index] = value
    return images


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e300, "1e\\+300")]
)
def test_a_step_names_the_pixel_that_is_not_finite(value, shown):
    images, labels = digits(20)
    model, unchanged = (small_network(dtype="float32") for _ in range(2))
    bad = with_pixel(images, (3, 0, 5, 7), value)
    message = rf"^x\[3, 0, 5, 7\] is {shown}: pixels must be finite numbers in float32$"
    with pytest.raises(InputError, match=message):
        model.train_step(bad, labels)
    for layer, other in zip(model.layers, unchanged.layers, strict=True):
        for name, array in layer.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])


@pytest.mark.parametrize("split", [0, 0.25])
def test_training_names_the_pixel_that_is_not_finite(split):
    images, labels = digits(2000)
    bad = with_pixel(images, (1999, 0, 5, 7), np.nan)
    with pytest.raises(InputError, match=r"^x\[1999, 0, 5, 7\] is nan: pixels must be finite"):
        small_network().train(bad, labels, 1, validation_split=split, augmenter=ShiftAugmenter())


def test_training_names_the_validation_pixel_that_is_not_finite():
    images, labels = digits(40)
    validation = with_pixel(images, (7, 0, 1, 2), np.inf), labels
    message = r"^validation_data\[0\]\[7, 0, 1, 2\] is inf: pixels must be finite"
    with pytest.raises(InputError, match=message):
        small_network().train(images, labels, 1, validation_data=validation)


def test_the_lr_finder_names_the_pixel_that_is_not_finite():
    images, labels = digits(400)
    bad = with_pixel(images, (399, 0, 5, 7), np.nan)
    with pytest.raises(InputError, match=r"^x\[399, 0, 5, 7\] is nan: pixels must be finite"):
        find_learning_rate(small_network(), bad, labels)


def state_of(model):
    """Return everything that a step may change."""
    arrays = [array.copy() for layer in model.layers for array in layer.arrays.values()]
    return arrays, [rng.bit_generator.state for rng in (model.rng, model.layers[-3].rng)]


@pytest.mark.parametrize(
    "train",
    [
        lambda model, x, y: model.train_step(x[:1], y[:1]),
        lambda model, x, y: model.compute_gradients(x[:1], y[:1]),
        lambda model, x, y: model.train(x, y, epochs=1, batch_size=1),
        lambda model, x, y: model.train(x[:1], y[:1], epochs=1),
        lambda model, x, y: model.train(x[:2], 0 * y[:2], epochs=1, validation_split=0.5),
        lambda model, x, y: find_learning_rate(model, x, y, batch_size=1),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_rejects_one_image_alone_where_batch_norm_has_one_value_per_channel(train, fused):
    """The second BatchNorm of the network, behind a Dense; the first one has 64 pixels."""
    model = small_network(fused=fused)
    before = state_of(model)
    message = (
        r"layer 'batchnorm_2' normalizes over the batch, and a batch of one image has a single "
        r"value per channel there: train on batches of at least two images"
    )
    with pytest.raises(InputError, match=message):
        train(model, *digits(20))
    np.testing.assert_equal(state_of(model), before)
    assert not model.history
    assert model.optimizer.steps == 0


def test_rejects_batches_of_one_image_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, labels = digits(40)
    rows = np.column_stack([labels, images.reshape(40, -1)])
    np.savetxt("train.csv", rows, fmt="%d", delimiter=",")
    arguments = "--train_data train.csv --to_path m.json --batch_size 1 --backend numpy --epochs 1"
    assert run.main([*arguments.split(), "--arch", "ancestor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("run.py: layer 'batchnorm_")
    assert error.endswith("train on batches of at least two images\n")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("m*"))


def test_accepts_one_image_where_batch_norm_has_several_pixels():
    images, labels = digits(3)
    model = Model((1, 8, 8), backend="numpy").add(BatchNorm()).add(Flatten()).add(Dense(4))
    model.compile(SGD(0.1)).train(images, labels, epochs=1, batch_size=1)
    model.train(images[:1], labels[:1], epochs=1)
    assert np.isfinite(model.train_step(images[:1], labels[:1]))


def test_a_new_best_model_is_encoded_once(tmp_path, monkeypatch):
    """Into the model file, and into the run file as the current and as the best state."""
    images, labels = digits(40)
    encoded, encode_array = [], model_file.encode_array

    def record(array):
        encoded.append(array.size)
        return encode_array(array)

    model = small_network().compile(SGD(1e-3))  # without state
    Script(model, [(0.5, 0.7), (0.6, 0.6), (0.4, 0.8)])
    per_epoch, all_arrays = [], sum(len(layer.arrays) for layer in model.layers)

    class Count(Reporter):
        def epoch_ended(self, metrics, is_best, history):
            per_epoch.append(len(encoded))
            encoded.clear()
            state = model_file.read(tmp_path / "run.json")
            now = [layer["arrays"] for layer in state["layers"]]
            assert (state["run"]["best"]["arrays"] == now) == is_best
            if is_best:
                best = model_file.read(tmp_path / "m.json")
                assert [layer["arrays"] for layer in best["layers"]] == now

    monkeypatch.setattr(model_file, "encode_array", record)
    model.train(
        *(images, labels, 3),
        validation_data=(images, labels),
        to_path=tmp_path / "m.json",
        training_state=TrainingState(tmp_path / "run.json"),
        reporter=Count(quiet=True),
    )
    assert per_epoch == [all_arrays] * 3  # in the second, that of the current state


def test_patience_needs_validation_data():
    model = small_network(backend="numpy")
    with pytest.raises(ValueError, match=r"^patience needs validation data"):
        model.train(*digits(40), epochs=1, patience=2)


def weighted_run(backend="numpy", **options):
    """Train for two epochs; return the history without times, and the weights."""
    images, labels = digits(100)
    model = small_network(backend, dropout=0)
    model.compile(SGD(0.05), label_smoothing=0.1)
    history = model.train(images, labels, epochs=2, batch_size=16, **options)
    history.pop("images_per_second")
    return history, model.parameters.values.copy()


def assert_same_run(run, other, rtol=0.0):
    for key in run[0]:
        np.testing.assert_allclose(run[0][key], other[0][key], rtol=rtol)
    np.testing.assert_allclose(run[1], other[1], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_ratios_of_weights_matter(backend):
    labels = digits(100)[1]
    plain = weighted_run(backend)
    assert_same_run(plain, weighted_run(backend, class_weight=[1e-3] * 4), rtol=1e-12)
    weighted = weighted_run(backend, class_weight={0: 3})
    assert np.abs(weighted[1] - plain[1]).max() > 1e-3
    numbers = np.array([3e200, 1e200, 1e200, 1e200])
    assert_same_run(weighted, weighted_run(backend, sample_weight=numbers[labels]), rtol=1e-9)
    counts = np.bincount(labels)
    balanced = weighted_run(backend, class_weight="balanced")
    assert_same_run(balanced, weighted_run(backend, class_weight=1 / counts), rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_weight_of_2_counts_as_two_images(backend):
    images, labels = digits(30)
    twice = np.r_[np.arange(30), np.arange(10)]
    weights = np.where(np.arange(30) < 10, 2, 1)

    def train(images, labels, **options):
        model = Model((1, 8, 8), backend, "float64").add(Flatten()).add(Dense(6)).add(Relu())
        model.add(Dense(4)).compile(SGD(0.1), label_smoothing=0.1)
        model.mean[:], model.std[:] = 100, 50
        history = model.train(images, labels, 3, 64, **options)
        return {"loss": history["loss"]}, model.parameters.values

    expected = train(images[twice], labels[twice])
    assert_same_run(train(images, labels, sample_weight=weights), expected, rtol=1e-9)


@pytest.mark.parametrize("ratio", [1, 4])
def test_loss_of_an_epoch_is_the_weighted_mean(ratio):
    images, labels = digits(50)
    model = small_network(dropout=0)
    losses = []
    train_batch = model.train_batch

    def spy(x, y, weights):
        losses.append((train_batch(x, y, weights)[0], len(x), weights))
        return losses[-1][0], 0

    model.train_batch = spy
    options = {"augmenter": ShiftAugmenter(), "augmenter_ratio": ratio}
    history = model.train(images, labels, 1, 16, class_weight={1: 4}, **options)
    weights = np.concatenate([weights for *_, weights in losses])
    assert len(weights) == ratio * 50
    assert weights.mean() == pytest.approx(1)
    assert weights.max() / weights.min() == pytest.approx(4)
    total = sum(loss * n_images for loss, n_images, _ in losses)
    assert history["loss"][0] == pytest.approx(total / len(weights))


def test_weights_of_validation_images_are_not_used():
    """They are set aside with their images, which the first rows show."""
    images, labels = digits(80)
    images[:, 0, 0, 0] = np.arange(80)
    (training, _), _ = split_validation(images, labels, 0.25, seed=0)
    model, seen = small_network(), {}
    train_batch = model.train_batch

    def spy(x, y, weights):
        seen.update(zip(x[:, 0, 0, 0].tolist(), weights.tolist(), strict=True))
        return train_batch(x, y, weights)

    model.train_batch = spy
    model.train(images, labels, 1, 16, validation_split=0.25, sample_weight=np.arange(80))
    assert sorted(seen) == sorted(training[:, 0, 0, 0].tolist())
    mean = np.mean(list(seen))
    assert all(weight == pytest.approx(image / mean) for image, weight in seen.items())


def test_rejects_wrong_weights():
    images, labels = digits(40)
    model = small_network()
    before = model.parameters.values.copy()
    for options, message in (
        ({"class_weight": [1, 1]}, "class_weight has 2 numbers for 4 classes"),
        ({"sample_weight": np.ones(39)}, r"sample_weight must have shape \(40,\)"),
        ({"sample_weight": np.zeros(40)}, "the weights of all images are 0"),
        ({"sample_weight": np.full(40, np.nan)}, "sample_weight must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.train(images, labels, 1, **options)
        with pytest.raises(ValueError, match=message):
            model.train_step(images, labels, **options)
    np.testing.assert_array_equal(model.parameters.values, before)
