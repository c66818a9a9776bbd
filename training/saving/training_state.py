"""The state of a training run in a file, from which an interrupted run resumes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernels.scalars import check_bool, check_int, check_number
from layers import walk
from training.errors import InputError
from training.network import Network
from training.saving import model_file
from training.saving.best_model import BestModel
from training.schedules import Schedule


def _decode(entries: dict[str, Any], expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return saved arrays, which must have the names and shapes of the expected ones."""
    if not isinstance(entries, dict):
        raise TypeError(f"the arrays of a layer must be an object, got {entries!r}")
    if set(entries) != set(expected):
        raise ValueError(f"there are arrays {sorted(entries)} where {sorted(expected)} are needed")
    return {name: model_file.decode_array(entries[name], expected[name].shape) for name in expected}


@dataclass
class EpochProgress:
    """The progress of an epoch that has not ended.

    Attributes
    ----------
    random : dict
        The state of the model's random generator at the start of the epoch. A resumed run draws
        the order and the augmentation of the epoch from it once more.
    batch_size, ratio : int
        The batch size and the augmenter ratio of the steps.
    steps : int
        The number of steps that are done.
    n_correct : int
        The number of images that were labeled correctly.
    loss : float
        Sum over the images.
    seconds : float
        The time that the steps took.
    """

    random: dict[str, Any]
    batch_size: int
    ratio: int
    steps: int = 0
    n_correct: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    @classmethod
    def from_entry(cls, entry: dict[str, Any], random: dict[str, Any]) -> "EpochProgress":
        """Return the progress that a file holds, and check its numbers."""
        return cls(
            random,
            *(check_int(entry[name], name, 1) for name in ("batch_size", "ratio")),
            *(check_int(entry[name], name, 0) for name in ("steps", "correct")),
            *(check_number(entry[name], name) for name in ("loss", "seconds")),
        )

    def to_entry(self) -> dict[str, Any]:
        """Return what `from_entry` reads; the random state is saved with the others."""
        return {
            "batch_size": self.batch_size,
            "ratio": self.ratio,
            "steps": self.steps,
            "correct": self.n_correct,
            "loss": self.loss,
            "seconds": self.seconds,
        }


class TrainingState:
    """The file that holds the state of a run after every epoch, or more often.

    The file is a model file with one more entry, "run": the state of the optimizer, the schedule
    and all random generators, and the best state of the model so far. A run that is resumed from
    it ends with the same numbers, bit for bit, as one that was never interrupted, given the same
    images, settings, backend, number of threads and machine. The entry holds the backend's choices
    between kernels (`kernels.interface.Backend.kernel_choices`), which a resumed run makes again.

    Parameters
    ----------
    path : path
    settings : dict of str to str, optional
        What the caller needs to resume the run; saved as it is.

    Attributes
    ----------
    resumed : bool
        Whether a run resumes from the file; `open` sets it.
    saved : bool
        Whether the file holds the run.
    """

    def __init__(self, path: str | Path, settings: dict[str, str] | None = None):
        self.path = Path(path)
        self.settings = settings or {}
        self.resumed = self.saved = False
        self._run: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> "TrainingState":
        """Read the file of an interrupted run; `Model.load` reads its model.

        Raises
        ------
        InputError
            When there is no such file, or it is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(
                f"{path}: there is no interrupted run to resume: a run keeps this file until it "
                "ends"
            )
        run = model_file.read(path).get("run")
        if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
            raise InputError(f"{path}: is a model without an interrupted run")
        if not all(isinstance(text, str) for text in run["settings"].values()):
            raise InputError(f"{path}: is not a valid run: its settings must be text")
        for name in ("epoch", "images", "optimizer", "schedule", "random", "best"):
            if name not in run:
                raise InputError(f"{path}: is not a valid run: the entry {name!r} is missing")
        state = cls(path, run["settings"])
        state._run, state.resumed, state.saved = run, True, True
        return state

    def write(
        self,
        model: Network,
        schedule: Schedule,
        best: BestModel,
        epoch: int,
        n_images: int,
        progress: EpochProgress | None = None,
    ) -> None:
        """Save the state of a run.

        Parameters
        ----------
        model : Model
        schedule : Schedule
        best : BestModel
        epoch : int
            The number of epochs that have ended.
        n_images : int
            The number of training images.
        progress : EpochProgress, optional
            The progress of the next epoch; None at the end of an epoch.
        """
        optimizer = model.optimizer
        assert optimizer is not None, "compile comes first"
        # At the end of the best epoch, the model's arrays are the best ones: encode them once.
        is_best = progress is None and best.epochs_since_best == 0
        document = model_file.to_document(model, best.encoded() if is_best else None)
        random = [rng.bit_generator.state for rng in _generators(model)]
        if progress is not None:
            random[0] = progress.random
        (optimizer_state,) = model_file.encode_layers([optimizer.state])
        document["run"] = {
            "epoch": epoch,
            "underway": progress and progress.to_entry(),
            "images": n_images,
            "kernels": model.backend.kernel_choices(),
            "settings": self.settings,
            "optimizer": {
                "type": type(optimizer).__name__,
                "steps": optimizer.steps,
                "state": optimizer_state,
            },
            "schedule": {"type": schedule.name, "state": schedule.state()},
            "random": random,
            "best": {
                "score": best.score,
                "waited": best.epochs_since_best,
                "saved": best.saved,
                "arrays": best.encoded(),
            },
        }
        model_file.write(document, self.path)
        self.saved = True

    def restore(
        self, model: Network, schedule: Schedule, best: BestModel, n_images: int
    ) -> tuple[int, EpochProgress | None]:
        """Restore the state of the run in the file.

        Returns
        -------
        epoch : int
            The number of epochs that have ended.
        progress : EpochProgress or None
            The progress of the next epoch.

        Raises
        ------
        InputError
            When the run had another model, optimizer, schedule or number of images.
        """
        try:
            return self._restore(model, schedule, best, n_images)
        except KeyError as error:
            raise InputError(f"{self.path}: the entry {error} is missing") from None
        except (ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise InputError(f"{self.path}: the run cannot be resumed: {error}") from None

    def _restore(
        self, model: Network, schedule: Schedule, best: BestModel, n_images: int
    ) -> tuple[int, EpochProgress | None]:
        run, optimizer = self._run, model.optimizer
        assert optimizer is not None, "compile comes first"
        if run["images"] != n_images:
            raise ValueError(f"it had {run['images']} training images, and these are {n_images}")
        for current, saved in (
            (type(optimizer).__name__, run["optimizer"]["type"]),
            (schedule.name, run["schedule"]["type"]),
        ):
            if current != saved:
                raise ValueError(f"it used {saved}, not {current}")
        random, generators = run["random"], _generators(model)
        if not isinstance(random, list) or len(random) != len(generators):
            raise ValueError(f"it must have the states of {len(generators)} random generators")
        entry = run.get("underway")  # older files have none
        progress = None if entry is None else EpochProgress.from_entry(entry, random[0])
        epoch = check_int(run["epoch"], "epoch", 1 if progress is None else 0)
        steps = check_int(run["optimizer"]["steps"], "steps", 0)
        state = _decode(run["optimizer"]["state"], optimizer.state)
        entries = run["best"]["arrays"]
        layers = list(walk(model.layers))
        if len(entries) != len(layers) and (entries or epoch):
            raise ValueError("its best epoch has another number of layers")
        arrays = [
            _decode(entry, layer.arrays) for entry, layer in zip(entries, layers, strict=False)
        ]
        score = run["best"]["score"]
        if score is not None:
            accuracy, negative_loss = score
            score = check_number(accuracy, "accuracy"), check_number(negative_loss, "loss")
        epochs_since_best = check_int(run["best"]["waited"], "waited", 0)
        # Older files, which lack the entry, were written at the end of an epoch.
        best_saved = check_bool(run["best"].get("saved", True), "saved")
        if "kernels" in run:  # older files lack the entry
            model.backend.pin_kernel_choices(run["kernels"])
        for rng, rng_state in zip(generators, random, strict=True):
            rng.bit_generator.state = rng_state
        schedule.set_state(run["schedule"]["state"])
        for name, array in state.items():
            np.copyto(optimizer.state[name], array)
        optimizer.steps = steps
        best.set_arrays(arrays, epochs_since_best)
        best.score, best.saved = score, best_saved
        return epoch, progress

    def remove(self) -> None:
        """Delete the file when the run has ended."""
        self.path.unlink(missing_ok=True)


def _generators(model: Network) -> list[np.random.Generator]:
    return [model.rng, *(layer.rng for layer in walk(model.layers))]
