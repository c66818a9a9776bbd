"""The training loop: batches, validation, augmentation, the best model, schedules."""

import numpy as np
import pytest

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


def test_a_diverging_run_stops_and_keeps_the_best(tmp_path):
    images, labels = digits(200)
    path = tmp_path / "m.json"
    model = small_network()
    model.train(images, labels, epochs=1, to_path=path)
    before = path.read_bytes()
    model.layers[0].params["weights"][0] = np.inf
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: the loss became nan.*smaller"):
        model.train(images, labels, epochs=3, to_path=path)
    assert path.read_bytes() == before
    assert np.isfinite(model.layers[-2].params["weights"]).all()


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
    with pytest.raises(ValueError, match="no images to train on"):
        model.train(images[:0], labels[:0])


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
