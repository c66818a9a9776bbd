"""Going on with a run that was interrupted: the model's file, and all else that a run is at."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.scalars import check_bool, check_int, check_number
from training.errors import InputError
from training.saving import model_file

if TYPE_CHECKING:
    from training.model import Model
    from training.schedules import Schedule
    from training.trainer import BestModel


def _encode(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: model_file.encode_array(array) for name, array in arrays.items()}


def _decode(entries: dict[str, Any], like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return saved arrays, which must have the names and shapes of those that there are."""
    if set(entries) != set(like):
        raise ValueError(f"there are arrays {sorted(entries)} where {sorted(like)} are needed")
    return {name: model_file.decode_array(entries[name], like[name].shape) for name in like}


@dataclass
class EpochProgress:
    """How far an epoch has come.

    Attributes
    ----------
    random : dict
        The state of the model's random numbers when the epoch began: its order and its moves are
        drawn from there again.
    batch_size, ratio : int
        Those that the steps were counted with.
    steps, correct : int
    loss : float
        Sum over the images.
    seconds : float
    """

    random: dict[str, Any]
    batch_size: int
    ratio: int
    steps: int = 0
    correct: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    @classmethod
    def read(cls, entry: dict[str, Any], random: dict[str, Any]) -> "EpochProgress":
        """Return what was kept of one, whose numbers are what they must be."""
        return cls(
            random,
            *(check_int(entry[name], name, 1) for name in ("batch_size", "ratio")),
            *(check_int(entry[name], name, 0) for name in ("steps", "correct")),
            *(check_number(entry[name], name) for name in ("loss", "seconds")),
        )

    def entry(self) -> dict[str, Any]:
        """Return what `read` reads; the random numbers are kept with the others."""
        return {name: of for name, of in vars(self).items() if name != "random"}


class TrainingState:
    """Where a run is kept after every epoch, or more often, so that it can go on from there.

    The file is a model's, with an entry "run" more: the optimizer's and the schedule's state,
    those of all random numbers, and the best epoch until then. A run that goes on from it ends
    with the same numbers, bit for bit, as one that was never interrupted, given the same images,
    settings, backend, number of threads and machine.

    Parameters
    ----------
    path : path
    settings : dict of str to str, optional
        Whatever the caller needs to go on, kept as it is.

    Attributes
    ----------
    resumed : bool
        Whether a run goes on from the file; `open` sets it.
    kept : bool
        Whether the run is in the file.
    """

    def __init__(self, path: str | Path, settings: dict[str, str] | None = None):
        self.path = Path(path)
        self.settings = settings or {}
        self.resumed = self.kept = False
        self._run: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> "TrainingState":
        """Read the file of an interrupted run; `Model.load` reads its model.

        Raises
        ------
        InputError
            When there is none, or it is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(
                f"{path}: there is no interrupted run to go on with: a run keeps this file until "
                "it ends"
            )
        run = model_file.read(path).get("run")
        if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
            raise InputError(f"{path}: is a model, and no run that was interrupted")
        if not all(isinstance(text, str) for text in run["settings"].values()):
            raise InputError(f"{path}: is not a valid run: its settings must be text")
        for name in ("epoch", "images", "optimizer", "schedule", "random", "best"):
            if name not in run:
                raise InputError(f"{path}: is not a valid run: the entry {name!r} is missing")
        made = cls(path, run["settings"])
        made._run, made.resumed, made.kept = run, True, True
        return made

    def write(
        self,
        model: "Model",
        schedule: "Schedule",
        best: "BestModel",
        epoch: int,
        images: int,
        underway: EpochProgress | None = None,
    ) -> None:
        """Keep the run as it is at the end of an epoch, or in the next one, which is underway."""
        optimizer = model.optimizer
        assert optimizer is not None, "compile comes first"
        document = model_file.to_document(model)
        random = [rng.bit_generator.state for rng in _generators(model)]
        if underway is not None:
            random[0] = underway.random
        document["run"] = {
            "epoch": epoch,
            "underway": underway and underway.entry(),
            "images": images,
            "settings": self.settings,
            "optimizer": {
                "type": type(optimizer).__name__,
                "steps": optimizer.steps,
                "state": _encode(optimizer.state),
            },
            "schedule": {"type": type(schedule).__name__, "state": schedule.state()},
            "random": random,
            "best": {
                "score": best.score,
                "waited": best.epochs_since_best,
                "saved": best.saved,
                "arrays": [_encode(arrays) for arrays in best.arrays],
            },
        }
        model_file.write(document, self.path)
        self.kept = True

    def restore(
        self, model: "Model", schedule: "Schedule", best: "BestModel", images: int
    ) -> tuple[int, EpochProgress | None]:
        """Put everything back to where the run was.

        Returns
        -------
        epoch : int
            The last that had ended, 0 when none had.
        underway : Underway or None
            How far the next one had come.

        Raises
        ------
        InputError
            When the run was one of another model, optimizer, schedule or number of images.
        """
        try:
            return self._restore(model, schedule, best, images)
        except KeyError as error:
            raise InputError(f"{self.path}: the entry {error} is missing") from None
        except (ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise InputError(f"{self.path}: the run cannot go on: {error}") from None

    def _restore(self, model, schedule, best, images) -> tuple[int, EpochProgress | None]:
        run, optimizer = self._run, model.optimizer
        if run["images"] != images:
            raise ValueError(f"it was on {run['images']} training images, and these are {images}")
        for now, then in ((optimizer, run["optimizer"]), (schedule, run["schedule"])):
            if type(now).__name__ != then["type"]:
                raise ValueError(f"it was with {then['type']}, not with {type(now).__name__}")
        random, generators = run["random"], _generators(model)
        if not isinstance(random, list) or len(random) != len(generators):
            raise ValueError(f"it must have the states of {len(generators)} random generators")
        underway = run.get("underway")  # older files have none
        if underway is not None:
            underway = EpochProgress.read(underway, random[0])
        epoch = check_int(run["epoch"], "epoch", 1 if underway is None else 0)
        steps = check_int(run["optimizer"]["steps"], "steps", 0)
        state = _decode(run["optimizer"]["state"], optimizer.state)
        entries = run["best"]["arrays"]
        if len(entries) != len(model.layers) and (entries or epoch):
            raise ValueError("its best epoch has another number of layers")
        arrays = [
            _decode(entry, layer.arrays)
            for entry, layer in zip(entries, model.layers, strict=False)
        ]
        score = run["best"]["score"]
        if score is not None:
            accuracy, negative_loss = score
            score = check_number(accuracy, "accuracy"), check_number(negative_loss, "loss")
        waited = check_int(run["best"]["waited"], "waited", 0)
        # Older files, which lack the entry, were written at the end of an epoch.
        saved = check_bool(run["best"].get("saved", True), "saved")
        for rng, was in zip(generators, random, strict=True):
            rng.bit_generator.state = was
        schedule.set_state(run["schedule"]["state"])
        for name, array in state.items():
            np.copyto(optimizer.state[name], array)
        optimizer.steps = steps
        best.arrays, best.score, best.epochs_since_best = arrays, score, waited
        best.saved = saved
        return epoch, underway

    def remove(self) -> None:
        """Delete the file: the run has ended."""
        self.path.unlink(missing_ok=True)


def _generators(model: "Model") -> list[np.random.Generator]:
    return [model.rng, *(layer.rng for layer in model.layers)]
