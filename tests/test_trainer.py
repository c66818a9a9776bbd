"""The training loop: batches, validation, augmentation, the best model, schedules."""

import numpy as np
import pandas
import pytest

from kernels import get_backend
from layers import Dense, Flatten, Relu
from tests.networks import digits, small_network
from training import (
    SGD,
    Adam,
    AdamW,
    AffineAugmenter,
    Augmenter,
    Constant,
    Cosine,
    DivergedError,
    InputError,
    Model,
    Momentum,
    OneCycle,
    ReduceOnPlateau,
    Reporter,
    ShiftAugmenter,
    Steps,
    TrainingState,
    split_validation,
)
from training.trainer import batches


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


def shifts_of(image, shifted, reach):
    """Return the shifts (rows, columns) by which an image (C, H, W) becomes another."""
    (_, H, W), (rows, columns) = image.shape, reach
    padded = np.pad(image, ((0, 0), (rows, rows), (columns, columns)), mode="edge")
    return [
        (i - rows, j - columns)
        for i in range(2 * rows + 1)
        for j in range(2 * columns + 1)
        if np.array_equal(shifted, padded[:, i : i + H, j : j + W])
    ]


@pytest.mark.parametrize("backend", ["numba", "numpy", "scipy"])
def test_shifts_are_by_whole_pixels_and_repeat_the_border(backend):
    images = np.random.default_rng(0).integers(0, 256, (60, 2, 8, 13), dtype=np.uint8)
    moved = ShiftAugmenter(reach=0.25)(images, np.random.default_rng(1), get_backend(backend))
    assert moved.dtype == np.uint8
    shifts = [shifts_of(*pair, reach=(2, 3)) for pair in zip(images, moved, strict=True)]
    assert all(len(found) == 1 for found in shifts)
    assert {found[0][0] for found in shifts} == {-2, -1, 0, 1, 2}
    assert {found[0][1] for found in shifts} == {-3, -2, -1, 0, 1, 2, 3}


def test_affine_turns_and_scales_about_the_middle():
    matrices = AffineAugmenter(degrees=20, scaling=0.2, reach=0.1).matrices(
        500, (20, 30), np.random.default_rng(0)
    )
    turned = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert np.abs(turned).max() == pytest.approx(20, abs=0.5)
    sizes = 1 / np.linalg.norm(matrices[:, :, :2], axis=2)
    assert sizes.min() == pytest.approx(0.8, abs=0.01)
    assert sizes.max() == pytest.approx(1.2, abs=0.01)
    assert set(matrices[:, 0, 2]) == set(range(-2, 3))
    assert set(matrices[:, 1, 2]) == set(range(-3, 4))


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: ShiftAugmenter(0.6), "reach must be 0 to 0.5"),
        (lambda: AffineAugmenter(degrees=-1), "degrees must be 0 to 180"),
        (lambda: AffineAugmenter(scaling=1), "scaling must be"),
    ],
)
def test_augmenters_check_their_numbers(make, wrong):
    with pytest.raises(ValueError, match=wrong):
        make()


class Spy(Augmenter):
    """Remembers what it was shown, and blackens it."""

    def __init__(self):
        self.shown = []

    def matrices(self, N, image, rng):
        raise AssertionError

    def __call__(self, images, rng, backend):
        self.shown.append(images.copy())
        return np.zeros_like(images)


def test_validation_images_are_set_aside_before_augmentation():
    images, labels = digits(100)
    images[:, 0, 0, 0] = np.arange(100)
    spy, model, seen = Spy(), small_network(), []
    step = model.step
    model.step = lambda x, y: seen.append(x) or step(x, y)
    model.train(images, labels, 1, 30, validation_split=0.25, augmenter=spy, augmenter_ratio=4)
    (_, _), (validation_idx, _) = split_validation(images, labels, 0.25, seed=0)
    moved = np.concatenate(spy.shown)
    trained = {int(v) for v in moved[:, 0, 0, 0]}
    assert len(trained) == 75
    assert not trained & {int(v) for v in validation_idx[:, 0, 0, 0]}
    assert len(moved) == 3 * 75  # and each image once as it is
    assert sum(x.any(axis=(1, 2, 3)).sum() for x in seen) == 75
    assert sum(map(len, seen)) == 300


def test_each_epoch_shows_all_images_in_a_new_order():
    images, labels = digits(50)
    images[:, 0, 0, 0] = np.arange(50)
    spy = Spy()
    small_network().train(images, labels, epochs=2, batch_size=50, augmenter=spy)
    first, second = (shown[:, 0, 0, 0] for shown in spy.shown)
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

    class Destroy(Constant):
        def factor(self, progress):
            return 600.0 if progress >= 3 / 5 else 1.0

        def epoch_ended(self, loss):
            seen.append(Model.load(path, backend="numpy").evaluate(*validation))

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


class Script(Constant):
    """A schedule that plays validation results into a model, epoch by epoch."""

    def __init__(self, model, results):
        self.results, self.heard = iter(results), []
        model.loss_and_accuracy = lambda x, y: next(self.results)

    def epoch_ended(self, loss):
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
    history = model.train(images, labels, 1, 16, augmenter=ShiftAugmenter(), augmenter_ratio=4)
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


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (1e300, "the end of epoch 1: .* of layer .* holds numbers that are not finite"),
        (1e25, "epoch 1: the validation loss became (nan|inf)"),
    ],
)
@pytest.mark.parametrize("save_every", [None, 1])
def test_a_last_step_that_diverges_is_not_saved(tmp_path, rate, message, save_every):
    """Its own loss was still finite."""
    images, labels = digits(200)
    path, run_file = tmp_path / "m.json", TrainingState(tmp_path / "run.json")
    model = small_network(dtype="float32")
    model.train(images, labels, epochs=1, to_path=path)
    before = path.read_bytes()
    model.compile(optimizer=SGD(rate))
    with pytest.raises(DivergedError, match=message):
        model.train(
            *(images, labels, 3, 200),
            validation_data=(images, labels),
            to_path=path,
            run_file=run_file,
            save_every=save_every,
        )
    assert path.read_bytes() == before
    assert not run_file.path.exists()
    assert all(
        np.isfinite(array).all() for layer in model.layers for array in layer.arrays.values()
    )


def test_a_run_that_diverges_is_not_kept(tmp_path):
    images, labels = digits(200)
    run_file = TrainingState(tmp_path / "run.json")
    model = small_network(dtype="float32")
    model.compile(optimizer=SGD(1e300))
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: .* not finite"):
        model.train(images, labels, 3, 100, run_file=run_file, save_every=1)
    assert not run_file.path.exists()


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
    schedule = ReduceOnPlateau(patience=1, factor=0.5, minimum=0.15)
    factors = []
    for loss in (3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1):
        schedule.epoch_ended(loss)
        factors.append(schedule.factor(0.5))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.15, 0.15, 0.15]
    other = ReduceOnPlateau(patience=1, factor=0.5, minimum=0.01)
    other.set_state(schedule.state())
    assert other.factor(0) == 0.15
    other.epoch_ended(1)
    other.epoch_ended(1)
    assert other.factor(0) == 0.075


def test_schedules_by_progress():
    assert [Constant().factor(p) for p in (0, 0.5)] == [1, 1]
    one = OneCycle(warm_up=0.2, start=0.1, end=0.01)
    assert [one.factor(p) for p in (0, 0.1, 0.2, 0.6)] == pytest.approx([0.1, 0.55, 1, 0.505])
    assert one.factor(1 - 1e-9) == pytest.approx(0.01)
    assert [Cosine().factor(p) for p in (0, 0.5)] == pytest.approx([1, 0.5])
    assert [Steps((0.5, 0.8), 0.1).factor(p) for p in (0, 0.49, 0.5, 0.8)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )
    for make in (lambda: OneCycle(1.0), lambda: Cosine(start=2), lambda: Steps((1.5,))):
        with pytest.raises(ValueError, match="must be 0 to"):
            make()
    for make in (
        lambda: Cosine(10**400),
        lambda: Steps((10**400,)),
        lambda: ReduceOnPlateau(factor=10**400),
        lambda: ReduceOnPlateau(minimum=10**400),
        lambda: ReduceOnPlateau(minimum=float("nan")),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()
    for make in (lambda: Cosine("0.1"), lambda: Steps((None,)), lambda: ReduceOnPlateau(2, "x")):
        with pytest.raises(TypeError, match="must be a number"):
            make()


def test_the_schedule_sets_each_step_and_gives_the_rate_back():
    images, labels = digits(40)
    model = small_network(backend="numpy").compile(SGD(0.1))
    rates, step = [], model.step

    def record(x, y):
        rates.append(model.optimizer.learning_rate)
        return step(x, y)

    model.step = record
    history = model.train(images, labels, 2, 10, schedule=Steps((0.25, 0.75), 0.1))
    assert rates == pytest.approx([0.1] * 2 + [0.01] * 4 + [0.001] * 2)
    assert history["learning_rate"] == pytest.approx([0.01, 0.001])
    assert model.optimizer.learning_rate == 0.1


def test_early_stopping():
    class Stand(Constant):
        def factor(self, progress):
            return 0.0

    images, labels = digits(60)
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(4)).compile(SGD())
    arguments = {"validation_data": (images[40:], labels[40:]), "schedule": Stand()}
    history = model.train(images[:40], labels[:40], 9, 20, patience=3, **arguments)
    assert len(history["loss"]) == 1 + 3  # the first epoch is the best


def test_gradients_are_clipped_to_a_norm():
    images, labels = digits(20)
    free, clipped = (
        small_network(backend="numpy").compile(SGD(1.0, clip_norm=clip)) for clip in (1e9, 0.25)
    )
    start = free.parameters.values.copy()
    for model in (free, clipped):
        model.train_step(images, labels)
    full, short = (model.parameters.values - start for model in (free, clipped))
    assert np.linalg.norm(full) > 0.3
    assert np.linalg.norm(short) == pytest.approx(0.25, rel=1e-5)
    np.testing.assert_allclose(short, full * (0.25 / np.linalg.norm(full)), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="clip_norm must be above 0"):
        SGD(clip_norm=0)


@pytest.mark.parametrize("make", [SGD, Momentum, Adam, AdamW])
def test_optimizers_check_their_numbers(make):
    for rate in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"learning_rate must be (above|at least) 0"):
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
    with pytest.raises(ValueError, match="one for each of 20 images, got \\(19,\\)"):
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


@pytest.mark.parametrize("name", ["augmenter", "schedule", "reporter", "run_file"])
def test_train_takes_training_s_own(name):
    model = small_network(backend="numpy")
    with pytest.raises(TypeError, match=f"{name} must be one of training's, got 5"):
        model.train(*digits(40), epochs=1, **{name: 5})


def test_an_epoch_has_an_end():
    model = small_network(backend="numpy")
    with pytest.raises(ValueError, match="augmenter_ratio 1073741824 is too large"):
        model.train(*digits(40), epochs=1, augmenter_ratio=2**30)
