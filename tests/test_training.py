"""The training loop: batches, validation, augmentation, the best model, schedules."""

import numpy as np
import pandas
import pytest

from layers import Dense, Flatten, Relu
from tests.networks import digits, small_network
from training import (
    SGD,
    Adam,
    AdamW,
    DivergedError,
    InputError,
    Model,
    Momentum,
    ReduceOnPlateau,
    Reporter,
    ShiftAugmenter,
    split_validation,
)
from training.loop import batches


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (9, 4, [4, 5]), (3, 4, [3]), (1, 4, [1]), (3, 1, [1] * 3)],
)
def test_batches(count, size, lengths):
    parts = list(batches(np.arange(count), size))
    assert [len(part) for part in parts] == lengths
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(count))


def test_validation_split_takes_each_image_once():
    x, y = np.arange(50)[:, None], np.arange(50) * 10
    (x1, y1), (x2, y2) = split_validation(x, y, 0.2, seed=3)
    assert (len(x1), len(x2)) == (40, 10)
    np.testing.assert_array_equal(np.sort(np.concatenate([x1, x2]), axis=0), x)
    np.testing.assert_array_equal(y1, x1[:, 0] * 10)
    np.testing.assert_array_equal(y2, x2[:, 0] * 10)
    assert not np.array_equal(x2[:, 0], np.arange(10))
    assert not np.array_equal(x2, split_validation(x, y, 0.2, seed=4)[1][0])
    again = split_validation(x, y, 0.2, seed=3)[1][0]
    np.testing.assert_array_equal(x2, again)
    with pytest.raises(InputError, match="too few"):
        split_validation(x[:3], y[:3], 0.1, seed=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_validation(x, y, 1, seed=0)


def test_augmenter_shows_each_image_and_its_shifted_copies():
    images = digits(5)[0]
    augmenter = ShiftAugmenter(ratio=4, max_shift=2)
    batch = augmenter.take(images, np.arange(20), np.random.default_rng(0))
    np.testing.assert_array_equal(batch[:5], images)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    places = set()
    for entry in range(5, 20):
        fits = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(batch[entry], padded[entry % 5, :, i : i + 8, j : j + 8])
        ]
        assert fits, f"entry {entry} is no shifted copy of image {entry % 5}"
        places.update(fits)
    assert len(places) > 5


class Spy(ShiftAugmenter):
    """Remembers what it was shown."""

    def __init__(self, ratio):
        super().__init__(ratio)
        self.shown = []

    def take(self, images, entries, rng):
        self.shown.append((images, entries))
        return super().take(images, entries, rng)


def test_validation_images_are_set_aside_before_augmentation():
    images, labels = digits(100)
    images[:, 0, 0, 0] = np.arange(100)
    spy = Spy(ratio=4)
    small_network().train(
        images, labels, epochs=1, batch_size=30, validation_split=0.25, augmenter=spy
    )
    (_, _), (held, _) = split_validation(images, labels, 0.25, seed=0)
    trained = {int(v) for shown, _ in spy.shown for v in shown[:, 0, 0, 0]}
    assert len(trained) == 75
    assert not trained & {int(v) for v in held[:, 0, 0, 0]}
    entries = np.concatenate([entries for _, entries in spy.shown])
    np.testing.assert_array_equal(np.sort(entries), np.arange(300))


def test_each_epoch_shows_all_images_in_a_new_order():
    images, labels = digits(50)
    spy = Spy(ratio=1)
    small_network().train(images, labels, epochs=2, batch_size=50, augmenter=spy)
    first, second = (entries for _, entries in spy.shown)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    np.testing.assert_array_equal(np.sort(second), np.arange(50))
    assert not np.array_equal(first, second)


def test_history_holds_what_was_measured(tmp_path):
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


def test_the_best_epoch_is_kept_and_saved(tmp_path):
    """A learning rate that grows until it destroys the model."""
    images, labels = digits(400)
    validation = images[300:], labels[300:]
    path = tmp_path / "m.json"
    seen = []

    class Destroy:
        def epoch_ended(self, optimizer, loss):
            seen.append(Model.load(path, backend="numpy").evaluate(*validation))
            if len(seen) == 3:
                optimizer.learning_rate = 3.0

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
    # What was on disk after each epoch is the best until then.
    np.testing.assert_array_equal(seen, np.maximum.accumulate(history["validation_accuracy"]))


class Script:
    """A schedule that plays validation results into a model, epoch by epoch."""

    def __init__(self, model, results):
        self.results, self.heard = iter(results), []
        model.loss_and_accuracy = lambda x, y: next(self.results)

    def epoch_ended(self, optimizer, loss):
        self.heard.append(loss)


def test_of_equal_accuracies_the_lower_loss_is_the_best(tmp_path):
    images, labels = digits(40)
    results = [(0.5, 0.8), (0.4, 0.8), (0.6, 0.8), (0.4, 0.8), (0.3, 0.7)]
    model = small_network()
    script = Script(model, results)
    path = tmp_path / "m.json"
    model.train(images, labels, 5, validation_data=(images, labels), schedule=script, to_path=path)
    assert len(Model.load(path, backend="numpy").history["loss"]) == 2
    assert script.heard == [loss for loss, _ in results]  # of the validation, not the training


def test_going_on_from_a_model_keeps_it_until_a_better_one(tmp_path):
    images, labels = digits(300)
    path = tmp_path / "m.json"
    model = small_network()
    model.train(images, labels, 12, 32, validation_split=0.3, to_path=path)
    best = model.evaluate(images, labels)
    assert best > 0.8
    again = Model.load(path, backend="numpy").compile(optimizer=SGD(5.0))
    again.train(images, labels, 1, 32, validation_split=0.3, to_path=path)
    assert Model.load(path, backend="numpy").evaluate(images, labels) == best


def test_a_model_that_is_not_finite_is_not_the_best(tmp_path):
    images, labels = digits(40)
    path = tmp_path / "m.json"
    model = small_network()
    Script(model, [(0.5, 0.8), (np.nan, 0.9)])
    with pytest.raises(DivergedError, match="validation loss became nan"):
        model.train(images, labels, 3, validation_data=(images, labels), to_path=path)
    assert len(Model.load(path, backend="numpy").history["loss"]) == 1


def test_history_is_the_mean_over_the_images(tmp_path):
    images, labels = digits(50)
    model = small_network()
    steps = []
    step = model.step

    def record(x, y):
        loss, correct = step(x, y)
        steps.append((len(x), loss, correct))
        return loss, correct

    model.step = record
    history = model.train(images, labels, 1, 16, augmenter=ShiftAugmenter(4))
    sizes, losses, correct = map(np.array, zip(*steps, strict=True))
    assert sizes.tolist() == [16] * 12 + [8]
    assert history["loss"] == [pytest.approx((sizes * losses).sum() / 200)]
    assert history["accuracy"] == [correct.sum() / 200]


def test_a_model_that_cannot_be_saved_is_not_trained_first(tmp_path):
    class Mine(Relu):
        pass

    images, labels = digits(20)
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Mine()).add(Dense(4))
    model.compile(optimizer=Adam())
    with pytest.raises(ValueError, match="add Mine to LAYER_TYPES"):
        model.train(images, labels, to_path=tmp_path / "m.json")
    assert not model.history


def test_a_diverging_run_stops_and_keeps_the_best(tmp_path):
    images, labels = digits(200)
    path = tmp_path / "m.json"
    model = small_network()
    model.train(images, labels, epochs=1, to_path=path)
    before = path.read_bytes()
    model.compile(optimizer=SGD(1e300))
    with pytest.raises(DivergedError, match=r"epoch 1, step 2: the loss became nan.*smaller"):
        model.train(images, labels, epochs=3, batch_size=50, to_path=path)
    assert path.read_bytes() == before


def test_a_step_that_diverges_applies_nothing():
    images, labels = digits(20)
    model = small_network()
    model.layers[0].params["weights"][0] = np.inf
    before = model.parameters.values.copy()
    with pytest.raises(DivergedError, match="smaller learning rate"):
        model.train_step(images, labels)
    np.testing.assert_array_equal(model.parameters.values, before)


class Interrupt(Reporter):
    """Ctrl-C at a batch."""

    def __init__(self, batch):
        super().__init__(quiet=True)
        self.left = batch

    def batch_ended(self, images, loss, correct):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_leaves_the_best_model(tmp_path):
    images, labels = digits(100)
    path = tmp_path / "m.json"
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(2))
    first = path.read_bytes()  # nothing was there: better half an epoch than nothing
    Model.load(path, backend="numpy")
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(2))
    assert path.read_bytes() == first  # an earlier model is not lost for half an epoch
    with pytest.raises(KeyboardInterrupt):
        small_network().train(images, labels, 2, 25, to_path=path, reporter=Interrupt(6))
    assert path.read_bytes() != first
    assert len(Model.load(path, backend="numpy").history["loss"]) == 1


def test_reduce_on_plateau():
    optimizer, schedule = SGD(0.8), ReduceOnPlateau(patience=1, factor=0.5, minimum=0.15)
    rates = []
    for loss in (3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1):
        schedule.epoch_ended(optimizer, loss)
        rates.append(optimizer.learning_rate)
    assert rates == [0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2, 0.15, 0.15, 0.15]


@pytest.mark.parametrize("make", [SGD, Momentum, Adam, AdamW])
def test_optimizers_check_their_numbers(make):
    for rate in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="learning_rate must be above 0"):
            make(learning_rate=rate)
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        make(weight_decay=-1)


def test_optimizers_check_their_shares():
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
        Momentum(momentum=1)
    with pytest.raises(ValueError, match="beta1 must be"):
        Adam(beta1=1)
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        Adam(epsilon=0)


def test_training_checks_its_arguments():
    images, labels = digits(20)
    model = small_network()
    with pytest.raises(ValueError, match="20 images and 19 labels"):
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


def test_labels_may_be_anything_like_an_array():
    images, labels = digits(40)
    order = np.random.default_rng(0).permutation(40)
    series = pandas.Series(labels, index=order)  # whose y[3] is not the fourth label
    results = []
    for given in (labels, labels.tolist(), series, labels.astype(np.uint8)):
        model = small_network()
        model.train(images, given, epochs=1, batch_size=10)
        results.append(model.parameters.values)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_reporter_writes_lines_and_a_log(tmp_path, capsys):
    images, labels = digits(100)
    reporter = Reporter(tmp_path / "training.log")
    small_network().train(images, labels, epochs=2, validation_split=0.2, reporter=reporter)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["epoch 1/2", "epoch 2/2"]
    for word in ("loss", "accuracy", "validation", "images/s", "(best)"):
        assert word in printed[0]
    logged = (tmp_path / "training.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in logged] == printed
