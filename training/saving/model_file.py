"""Models as JSON files: data only, nothing in them is ever run."""

import base64
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.scalars import check_int, check_number
from layers import LAYER_TYPES
from training.errors import InputError
from training.input_stats import InputStats
from training.saving import atomic_file

if TYPE_CHECKING:
    from training.model import Model

FORMAT = "cnn-model"
VERSION = 1
REMEDY = "; copy the file once more, or train again"


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Return an array as shape, dtype and the base64 of its little-endian bytes: exact."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "base64": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def decode_array(entry: dict[str, Any], shape: tuple[int, ...], into: Any = None) -> np.ndarray:
    """Return a saved array, which must have this shape; its numbers must be finite.

    ``into`` is the dtype that they are to have, None the one that they were saved with.
    """
    if entry["shape"] != list(shape):
        raise ValueError(f"has shape {entry['shape']} where the layer needs {list(shape)}")
    if entry["dtype"] not in ("float32", "float64"):
        raise ValueError(f"has dtype {entry['dtype']!r}, not float32 or float64")
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    data = base64.b64decode(entry["base64"], validate=True)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"has {len(data)} bytes where its shape needs {math.prod(shape)} numbers")
    array = np.frombuffer(data, dtype).reshape(shape)
    # In another precision than it was saved with, a number may be too large.
    with np.errstate(over="ignore"):
        array = array.astype(into or dtype, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"holds numbers that are not finite in {array.dtype}")
    return array


def not_finite(model: "Model") -> str | None:
    """Return in words which numbers of a model are infinite or NaN, or None."""
    for layer in model.layers:
        for name, array in layer.arrays.items():
            if not np.isfinite(array).all():
                return f"{name} of layer {layer} holds numbers that are not finite"
    if not np.isfinite([*model.mean, *model.std]).all() or not (model.std > 0).all():
        return "the normalization holds numbers that are not finite, or a std that is not above 0"
    return None


def to_document(model: "Model") -> dict[str, Any]:
    """Return everything that a model is as JSON's own types.

    Raises
    ------
    ValueError
        When a layer's type is not known to `load`, or a number is not finite.
    """
    for layer in model.layers:
        kind = type(layer)
        if LAYER_TYPES.get(kind.__name__) is not kind:
            raise ValueError(
                f"layer {layer} could be saved but not loaded again: add {kind.__name__} to "
                "LAYER_TYPES in layers/__init__.py"
            )
    found = not_finite(model)
    if found:
        raise ValueError(found)
    return {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": list(model.input_shape),
        "classes": model.classes,
        "dtype": model.dtype.name,
        "seed": model.seed,
        "normalization": {
            "mean": model.mean.tolist(),
            "std": model.std.tolist(),
            "pixels": list(model.pixels),
        },
        "layers": [
            {
                "type": type(layer).__name__,
                "name": layer.name,
                "config": layer.config(),
                "arrays": {name: encode_array(array) for name, array in layer.arrays.items()},
            }
            for layer in model.layers
        ],
        "history": model.history,
    }


def save(model: "Model", path: str | Path) -> None:
    """Write a model; see `atomic_file.replace`."""
    write(to_document(model), path)


def write(document: dict[str, Any], path: str | Path) -> None:
    """Write a document; see `atomic_file.replace`."""
    atomic_file.replace(path, json.dumps(document, indent=1))


def is_model(path: Path) -> bool:
    """Return whether a file begins as `save` writes it."""
    if not path.is_file():  # opening a pipe waits for a writer
        return False
    try:
        with open(path, "rb") as file:
            return f'"format": "{FORMAT}"'.encode() in file.read(100)
    except OSError:
        return False


def is_run(path: Path) -> bool:
    """Return whether a model's file also keeps a run that was interrupted."""
    try:
        return "run" in read(path)
    except InputError:
        return False


def read(path: str | Path) -> dict[str, Any]:
    """Return what `write` wrote; InputError when it is no model or of another version."""
    path = Path(path)
    atomic_file.reject_special_files(path)
    try:
        document = json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such model; train one first") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a model in JSON: {error}{REMEDY}") from None
    except MemoryError:
        raise InputError(f"{path}: is larger than this machine's memory") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f'{path}: is not a model of this program (no "format": "{FORMAT}")')
    if document.get("version") != VERSION or document["version"] is True:
        raise InputError(
            f"{path}: has format version {document.get('version')!r}; this program reads "
            f"version {VERSION}: update the program, or train again"
        )
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; which of two entries of one name is meant cannot be known."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the entry {max(names, key=names.count)!r} is there twice")
    return entries


def load(cls: "type[Model]", path: str | Path, backend: str, dtype: Any) -> "Model":
    """Read a model; see `Model.load`."""
    document = read(path)
    try:
        return _from_document(cls, document, backend, dtype)
    except ImportError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: the entry {error} is missing{REMEDY}") from None
    except (ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: is not a valid model: {error}{REMEDY}") from None


def _from_document(cls, document: dict[str, Any], backend: str, dtype: Any) -> "Model":
    if document["dtype"] not in ("float32", "float64"):
        raise ValueError(f"its dtype is {document['dtype']!r}, not float32 or float64")
    shape = document["input_shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise ValueError(f"its input_shape must be [C, H, W], got {shape!r}")
    dtype = dtype or document["dtype"]
    normalization = {}
    for name in ("mean", "std"):
        entries = [check_number(entry, name) for entry in document["normalization"][name]]
        with np.errstate(over="ignore"):
            numbers = np.array(entries, np.float64).astype(dtype)
        if numbers.shape != (shape[0],) or not np.isfinite(numbers).all():
            raise ValueError(f"normalization {name} must be {shape[0]} finite numbers")
        normalization[name] = numbers
    model = cls(shape, backend, dtype, document["seed"])
    model.mean, model.std = normalization["mean"], normalization["std"]
    for entry in document["layers"]:
        _add(model, entry)
    if model.classes != check_int(document["classes"], "classes", 1):
        raise ValueError(f"it tells {model.classes} classes apart, not {document['classes']}")
    if not (model.std > 0).all():
        raise ValueError("normalization std must be above 0")
    pixels = document["normalization"].get("pixels")
    if pixels is not None:  # older files have none
        if not isinstance(pixels, list) or len(pixels) != len(InputStats._fields):
            raise ValueError("normalization pixels must be 3 numbers")
        model.pixels = InputStats(
            *(check_number(pixel, "normalization pixels") for pixel in pixels)
        )
    history = document["history"]
    for numbers in history.values():
        if not isinstance(numbers, list) or {type(n) for n in numbers} - {int, float}:
            raise ValueError("history must hold lists of numbers")
    model.history = history
    return model


def _add(model: "Model", entry: dict[str, Any]) -> None:
    """Append a saved layer."""
    kind = entry["type"]
    if kind not in LAYER_TYPES:
        raise ValueError(f"unknown layer type {kind!r}; known are {', '.join(LAYER_TYPES)}")
    if not isinstance(entry["name"], str) or not entry["name"].isprintable():
        raise TypeError(f"the name of a layer must be text to print, got {entry['name']!r}")
    entries = entry["arrays"]

    def saved(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in entries:
            raise ValueError(f"its {name} is missing")
        try:
            return decode_array(entries[name], shape, model.dtype)
        except KeyError as error:
            raise ValueError(f"the entry {error} of its {name} is missing") from None
        except ValueError as error:
            raise ValueError(f"its {name} {error}") from None

    model.add(LAYER_TYPES[kind](**entry["config"], name=entry["name"]), saved)
    layer = model.layers[-1]
    if set(entries) != set(layer.arrays):
        raise ValueError(f"layer {layer} has arrays {sorted(layer.arrays)}, not {sorted(entries)}")
