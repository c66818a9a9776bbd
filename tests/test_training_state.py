"""Interrupted runs that are resumed: they end as if they had not been interrupted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kernels import get_backend
from layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Relu, Residual
from tests.networks import digits
from training import (
    SGD,
    AdamW,
    AffineAugmenter,
    InputError,
    Model,
    Momentum,
    Muon,
    OneCycle,
    ReduceOnPlateau,
    Reporter,
    TrainingState,
)
from training.trainer import split_validation

EPOCHS = 5


def network(backend="numba", seed=0):
    """Return a network whose layers use random numbers and running averages."""
    model = Model((1, 8, 8), backend=backend, seed=seed)
    block = Residual(Conv(4, 1), BatchNorm(), Dropout(0.2), shortcut=[Dropout(0.2)])
    layers = Conv(4, 3), BatchNorm(), Relu(), MaxPool(2), block, Flatten(), Dropout(0.3), Dense(4)
    for layer in layers:
        model.add(layer)
    return model


class StopAfter(Reporter):
    """Raises KeyboardInterrupt in the epoch after this one, after so many batches of the run."""

    def __init__(self, epoch, min_batches=2):
        super().__init__(quiet=True)
        self.batches, self.last_epoch, self.min_batches = 0, epoch, min_batches

    def epoch_started(self, epoch, n_images):
        super().epoch_started(epoch, n_images)
        self.epoch = epoch

    def batch_ended(self, n_images, loss, n_correct):
        self.batches += 1
        if self.epoch == self.last_epoch + 1 and self.batches >= self.min_batches:
            raise KeyboardInterrupt


def train(model, optimizer, schedule, tmp_path, **options):
    images, labels = digits(120)
    (x, y), validation = split_validation(images, labels, 0.25, seed=0)
    if not model.history:
        model.fit_normalization(x)
    model.compile(optimizer(), label_smoothing=0.1)
    return model.train(
        *(x, y, EPOCHS, 16),
        validation_data=validation,
        augmenter=AffineAugmenter(),
        augmenter_ratio=4,
        schedule=schedule(),
        to_path=tmp_path / "best.json",
        **options,
    )


def resume(path, optimizer, schedule, tmp_path, **options):
    model = Model.load(path, backend="numba")
    train(model, optimizer, schedule, tmp_path, training_state=TrainingState.open(path), **options)
    return model


def without_speed(history):
    """Return the metrics that two runs must have in common."""
    return {name: values for name, values in history.items() if name != "images_per_second"}


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (lambda: AdamW(5e-3), OneCycle),
        (lambda: Muon(0.05), OneCycle),
        (lambda: Momentum(0.5, nesterov=True), lambda: ReduceOnPlateau(patience=0, factor=0.3)),
        (lambda: SGD(0.05, clip_norm=0.5), OneCycle),
    ],
)
@pytest.mark.parametrize(
    ("stops", "save_every"),
    [((1,), None), ((3,), None), ((1, 2, 4), None), ((0, 0, 0), 1), ((0, 2, 3), 5), ((2, 4), 24)],
)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    tmp_path, optimizer, schedule, stops, save_every
):
    """Also from the middle of an epoch, which has 23 steps."""
    uninterrupted = network()
    (tmp_path / "uninterrupted").mkdir()
    folder = tmp_path / "uninterrupted"
    rates = train(uninterrupted, optimizer, schedule, folder)["learning_rate"]
    assert len(set(rates)) > 1  # the schedule changed the rate

    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        train(
            network(),
            *(optimizer, schedule, tmp_path),
            training_state=TrainingState(path, {"a": "b"}),
            save_every=save_every,
            reporter=StopAfter(stops[0], min_batches=7),
        )
    assert TrainingState.open(path).settings == {"a": "b"}
    for stop in stops[1:]:
        options = {"reporter": StopAfter(stop, min_batches=7), "save_every": save_every}
        with pytest.raises(KeyboardInterrupt):
            resume(path, optimizer, schedule, tmp_path, **options)
    model = resume(path, optimizer, schedule, tmp_path)
    np.testing.assert_array_equal(model.parameters.values, uninterrupted.parameters.values)
    assert without_speed(model.history) == without_speed(uninterrupted.history)
    saved, expected = (json.loads((d / "best.json").read_text()) for d in (tmp_path, folder))
    assert saved["layers"] == expected["layers"]
    assert without_speed(saved["history"]) == without_speed(expected["history"])
    assert not path.exists()  # the run has ended


@pytest.fixture
def pin():
    """Pin the same name for all choices of the numba backend, or nothing."""
    backend = get_backend("numba")

    def pin(name=None):
        backend.pin_kernel_choices({})
        choices = dict.fromkeys(wide_choices(), name) if name else {}
        backend.pin_kernel_choices(choices)
        return choices

    yield pin
    backend.pin_kernel_choices({})


def wide_network():
    """Return a network in which several kernels compete."""
    model = Model((1, 8, 8), backend="numba", seed=0)
    for layer in (Conv(32, 3), Relu(), Conv(32, 3), Relu(), Flatten(), Dense(4)):
        model.add(layer)
    return model


def wide_choices():
    """Return the default choices for batches of `wide_network`."""
    model = wide_network().compile(SGD(1e-3))
    for n_images in (16, 10):
        model.train_step(*digits(n_images))
    return get_backend("numba").kernel_choices()


@pytest.mark.parametrize("has_entry", [True, False])
def test_a_resumed_run_computes_with_the_same_kernels(tmp_path, pin, has_entry):
    """Whatever another process, or another measurement, would choose."""
    weights, path = {}, tmp_path / "run.json"
    for name in (None, "panels"):
        choices = pin(name)
        model = wide_network()
        train(model, lambda: SGD(1e-2), OneCycle, tmp_path)
        weights[name] = model.parameters.values
    assert (weights["panels"] != weights[None]).any()
    with pytest.raises(KeyboardInterrupt):
        train(
            *(wide_network(), lambda: SGD(1e-2), OneCycle, tmp_path),
            training_state=TrainingState(path),
            reporter=StopAfter(2),
        )
    document = json.loads(path.read_text())
    assert document["run"]["kernels"].items() >= choices.items()
    if not has_entry:  # a file of an older version
        del document["run"]["kernels"]
        path.write_text(json.dumps(document))
    pin(None)
    model = resume(path, lambda: SGD(1e-2), OneCycle, tmp_path)
    assert (model.parameters.values == weights["panels"]).all() == has_entry


@pytest.mark.parametrize("epochs_before_the_end", [0, 1])
def test_a_resumed_run_stops_early_after_the_same_epoch(tmp_path, epochs_before_the_end):
    """Also one that was interrupted after its last epoch, before it would have stopped early."""
    stand_still = lambda: SGD(1e-12)  # noqa: E731

    def linear():
        return Model((1, 8, 8)).add(Flatten()).add(Dropout(0.3)).add(Dense(4))

    history = train(linear(), stand_still, OneCycle, tmp_path, patience=2)
    epochs = len(history["loss"])
    assert epochs == 3 < EPOCHS  # the first is the best
    path = tmp_path / "run.json"
    (tmp_path / "best.json").unlink()
    model = linear()

    class Stop(Reporter):
        def epoch_ended(self, metrics, is_best, history):
            if len(history["loss"]) == epochs - epochs_before_the_end:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            *(model, stand_still, OneCycle, tmp_path),
            patience=2,
            training_state=TrainingState(path),
            reporter=Stop(quiet=True),
        )
    model = resume(path, stand_still, OneCycle, tmp_path, patience=2)
    assert len(model.history["loss"]) == epochs


@pytest.fixture
def interrupted(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        train(
            *(network("numpy"), AdamW, OneCycle, tmp_path),
            training_state=TrainingState(path),
            reporter=StopAfter(2),
        )
    return path


@pytest.fixture
def interrupted_within_epoch(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        train(
            *(network("numpy"), AdamW, OneCycle, tmp_path),
            training_state=TrainingState(path),
            save_every=3,
            reporter=StopAfter(0, min_batches=8),
        )
    return path


def test_saves_the_progress_of_an_epoch(interrupted_within_epoch):
    run = json.loads(interrupted_within_epoch.read_text())["run"]
    assert (run["epoch"], run["underway"]["steps"], run["best"]["arrays"]) == (0, 6, [])


def test_rejects_another_batch_size_within_an_epoch(interrupted_within_epoch):
    model = Model.load(interrupted_within_epoch, backend="numba")
    images, labels = digits(90)
    model.compile(AdamW())
    message = "with batch size 16: it can be resumed with that, not with 15"
    with pytest.raises(InputError, match=message):
        model.train(
            *(images, labels, EPOCHS, 15),
            augmenter_ratio=4,
            schedule=OneCycle(),
            training_state=TrainingState.open(interrupted_within_epoch),
        )


def test_save_every_needs_a_run_file():
    with pytest.raises(ValueError, match="save_every needs a training_state"):
        network("numpy").compile(AdamW()).train(*digits(90), save_every=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1.5}, "steps must be an integer"),
        ({"steps": 10**6}, "1000000 steps of an epoch of 23"),
        ({"loss": "a"}, "loss must be a number"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_rejects_damaged_progress(interrupted_within_epoch, tmp_path, change, message):
    document = json.loads(interrupted_within_epoch.read_text())
    document["run"]["underway"].update(change)
    interrupted_within_epoch.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        resume(interrupted_within_epoch, AdamW, OneCycle, tmp_path)


def test_a_run_file_is_a_model_file(interrupted):
    model = Model.load(interrupted, backend="numpy")
    assert len(model.history["loss"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.update(images=7), "it had 7 training images, and these are 90"),
        (lambda run: run["optimizer"].update(type="SGD"), "it used SGD, not AdamW"),
        (lambda run: run["schedule"].update(type="Steps"), "it used Steps, not OneCycle"),
        (lambda run: run["optimizer"]["state"].pop("m"), r"arrays \['v'\] where \['m', 'v'\]"),
        (lambda run: run["optimizer"].update(steps=-1), "steps must be at least 0"),
        (lambda run: run["random"].pop(), "13 random generators"),
        (lambda run: run["random"][0].update(state=3), "cannot be resumed"),
        (lambda run: run["best"]["arrays"].pop(), "another number of layers"),
        (lambda run: run["best"].update(score=["a", 1]), "cannot be resumed"),
        (lambda run: run.pop("epoch"), "the entry 'epoch' is missing"),
        (lambda run: run.update(kernels=["direct"]), "kernel choices must be a dict of str"),
        (lambda run: run.update(kernels={"correlate": 3}), "a kernel choice must be a name"),
        (lambda run: run.update(settings=3), "is a model without an interrupted run"),
        (lambda run: run.update(settings={"a": 3}), "its settings must be text"),
    ],
)
def test_rejects_a_damaged_run_file(interrupted, tmp_path, change, message):
    document = json.loads(interrupted.read_text())
    change(document["run"])
    interrupted.write_text(json.dumps(document))
    before = interrupted.read_bytes()
    with pytest.raises(InputError, match=message) as raised:
        resume(interrupted, AdamW, OneCycle, tmp_path)
    assert str(raised.value).startswith(str(interrupted))
    assert interrupted.read_bytes() == before


def test_rejects_files_without_a_run(tmp_path):
    with pytest.raises(InputError, match="no interrupted run"):
        TrainingState.open(tmp_path / "none.json")
    network("numpy").save(tmp_path / "m.json")
    with pytest.raises(InputError, match=r"m\.json: is a model without an interrupted run"):
        TrainingState.open(tmp_path / "m.json")


def test_a_removed_best_model_is_written_again(tmp_path, interrupted):
    (tmp_path / "best.json").unlink()
    document = json.loads(interrupted.read_text())
    accuracy = document["run"]["best"]["score"][0]
    document["run"]["epoch"] = EPOCHS  # as if it had been stopped after its last one
    interrupted.write_text(json.dumps(document))
    resume(interrupted, AdamW, OneCycle, tmp_path)
    _, validation = split_validation(*digits(120), 0.25, seed=0)
    saved = Model.load(tmp_path / "best.json", backend="numpy")
    assert saved.evaluate(*validation) == accuracy


def test_an_existing_model_is_replaced_only_when_an_epoch_has_ended(tmp_path):
    images, labels = digits(60)
    path = tmp_path / "other.json"
    network("numpy", seed=7).save(path)
    before = path.read_bytes()
    model = network("numpy")
    model.compile(AdamW()).train(images, labels, 1, 20)
    model.compile(SGD(1e-9))
    arguments = {"validation_data": (images, labels), "to_path": path}
    with pytest.raises(KeyboardInterrupt):
        model.train(images, labels, 3, 20, reporter=StopAfter(0), **arguments)
    assert path.read_bytes() == before
    score = model.evaluate(images, labels)
    model.train(images, labels, 1, 20, **arguments)
    assert Model.load(path, backend="numpy").evaluate(images, labels) >= score


def test_resumes_a_version_1_run(tmp_path):
    """It was interrupted within its second epoch; the expected numbers are those of a run of the
    program that wrote the file, which was not interrupted.
    """
    path = tmp_path / "run.json"
    shutil.copy(Path(__file__).parent / "models" / "version-1-run.json", path)
    images, labels = digits(48)
    model = Model.load(path, backend="numpy").compile(AdamW(5e-3), label_smoothing=0.1)
    expected = [
        [0.453201, 0.160654, 0.047615, 0.33853],
        [0.465236, 0.141167, 0.022019, 0.371579],
        [0.384239, 0.2022, 0.069386, 0.344175],
    ]
    np.testing.assert_allclose(model.predict_proba(images[:3]), expected, atol=2e-6)
    state = TrainingState.open(path)
    assert state.settings == {"epochs": "4", "arch": "small"}
    history = model.train(
        *(images[:40], labels[:40], 4, 8),
        validation_data=(images[40:], labels[40:]),
        augmenter=AffineAugmenter(),
        schedule=ReduceOnPlateau(patience=0),
        training_state=state,
    )
    losses = [1.885747499230823, 1.3963733400711136, 1.1634696434512357, 1.2120412782777827]
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-7)
    assert history["accuracy"] == [0.125, 0.45, 0.6, 0.6]
    losses = [1.7812329051638363, 1.2876434779294648, 1.0769346056479634, 0.9690358771425087]
    np.testing.assert_allclose(history["validation_loss"], losses, rtol=1e-7)
    assert history["validation_accuracy"] == [0.5, 0.5, 0.75, 0.875]
