"""Models as JSON files: they hold data only, and no code."""

import base64
import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kernels import get_backend
from kernels.scalars import check_bool, check_int, check_number
from kernels.validation import standardize_precision
from layers import LAYER_TYPES, Layer, Residual, walk
from training.errors import InputError
from training.input_format import check_resize
from training.input_stats import InputStats, Spread
from training.network import Network
from training.preprocessing.ink_stats import InkStats
from training.saving import atomic_file

FORMAT = "cnn-model"
VERSION = 1
# The entries of a Residual that hold layers, in the order of `walk`.
PATHS = "body", "shortcut"
# The statistics that the first versions saved, in the normalization.
PIXELS = InputStats._fields[:3]
# The other statistics are single numbers.
SPREADS = {"image_min", "image_max", "image_mean", *InkStats._fields[2:]}
# What wrong values in a document raise.
INVALID = (
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
HINT = "; copy the file once more, or train again"

AnyModel = TypeVar("AnyModel", bound=Network)


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Return the shape and dtype of an array, and its little-endian bytes in base64."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "base64": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def decode_array(
    entry: dict[str, Any], shape: tuple[int, ...], target_dtype: Any = None
) -> np.ndarray:
    """Return a saved array.

    Parameters
    ----------
    entry : dict
        What `encode_array` returned.
    shape : tuple of int
        The shape that the array must have.
    target_dtype : dtype, optional
        The dtype to return; None: the one that it was saved with.

    Raises
    ------
    ValueError
        When the entry is not valid, or a number is not finite in the dtype.
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
    with np.errstate(over="ignore"):  # a float64 may be too large for float32
        array = array.astype(target_dtype or dtype, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"holds numbers that are not finite in {array.dtype}")
    return array


def find_non_finite(model: Network) -> str | None:
    """Describe the first array that holds inf or NaN (or a std that is not positive).

    Return None if all are valid.
    """
    for layer in walk(model.layers):
        for name, array in layer.arrays.items():
            if not np.isfinite(array).all():
                return f"{name} of layer {layer} holds numbers that are not finite"
    if not np.isfinite([*model.mean, *model.std]).all() or not (model.std > 0).all():
        return "the normalization holds numbers that are not finite, or a std that is not above 0"
    return None


def check_saveable(model: Network) -> None:
    """Raise ValueError for a model that could not be loaded again.

    That is one with a layer of an unknown type, or with a number that is not finite.
    """
    for layer in walk(model.layers):
        layer_type = type(layer)
        if LAYER_TYPES.get(layer_type.__name__) is not layer_type:
            raise ValueError(
                f"layer {layer} could be saved but not loaded again: add {layer_type.__name__} to "
                "LAYER_TYPES in layers/__init__.py"
            )
    problem = find_non_finite(model)
    if problem:
        raise ValueError(problem)


def encode_layers(layers: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return the arrays of each layer as `encode_array` encodes them."""
    return [{name: encode_array(array) for name, array in arrays.items()} for arrays in layers]


def to_document(model: Network, encoded: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the complete model in JSON's own types.

    Parameters
    ----------
    model : Model
    encoded : list of dict, optional
        The arrays of each layer, in the order of `walk`, if they are encoded already; see
        `encode_layers`.

    Raises
    ------
    ValueError
        When the model could not be loaded again; see `check_saveable`.
    """
    check_saveable(model)
    if encoded is None:
        encoded = encode_layers([layer.arrays for layer in walk(model.layers)])
    arrays = iter(encoded)
    return {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": list(model.input_shape),
        "classes": model.classes,
        "class_names": list(model.class_names),
        "resize": model.resize,
        "test_time_augmentation": model.test_time_augmentation,
        "label_smoothing": model.label_smoothing,
        "dtype": model.compute_dtype,
        "seed": model.seed,
        "normalization": {
            "mean": model.mean.tolist(),
            "std": model.std.tolist(),
            "pixels": list(model.input_stats[: len(PIXELS)]),
        },
        "training_images": _encode_stats(model),
        "layers": [_to_entry(layer, arrays) for layer in model.layers],
        "history": model.history,
    }


def _encode_stats(model: Network) -> dict[str, Any] | None:
    """Return the statistics of the training images; None if they were not measured."""
    stats, ink = model.input_stats, model.ink_stats
    if stats.mean is None:
        return None
    measured = dict(zip(stats._fields, stats, strict=True))
    for name in PIXELS:
        del measured[name]
    return measured | {"ink": ink and ink._asdict()}


def _to_entry(layer: Layer, arrays: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of a layer; the next of ``arrays`` are its own and of the layers inside."""
    entry: dict[str, Any] = {
        "type": type(layer).__name__,
        "name": layer.name,
        "config": layer.config(),
        "arrays": next(arrays),
    }
    if isinstance(layer, Residual):
        for path in PATHS:
            entry[path] = [_to_entry(inner, arrays) for inner in getattr(layer, path)]
    return entry


def save(model: Network, path: str | Path) -> None:
    """Write a model; see `atomic_file.replace`."""
    write(to_document(model), path)


def write(document: dict[str, Any], path: str | Path) -> None:
    """Write a document; see `atomic_file.replace`."""
    atomic_file.replace(path, json.dumps(document, indent=1))


def is_model(path: Path) -> bool:
    """Return whether a file begins as `save` writes models."""
    return begins_with_format(path, FORMAT)


def begins_with_format(path: Path, name: str) -> bool:
    """Return whether a file begins as a JSON document with this "format"."""
    if not path.is_file():  # opening a pipe waits for a writer
        return False
    try:
        with open(path, "rb") as file:
            return f'"format": "{name}"'.encode() in file.read(100)
    except OSError:
        return False


def is_run(path: Path) -> bool:
    """Return whether a file holds an interrupted run beside the model."""
    try:
        return "run" in read(path)
    except InputError:
        return False


def read(path: str | Path) -> dict[str, Any]:
    """Return the document that `write` wrote.

    Raises
    ------
    InputError
        When the file is not a model, or of another version.
    """
    path = Path(path)
    atomic_file.reject_special_files(path)
    try:
        document = json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=_reject_duplicates
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such model; train one first") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a model in JSON: {error}{HINT}") from None
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


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError when two of its entries have the same name."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the entry {max(names, key=names.count)!r} occurs twice")
    return entries


def load(cls: type[AnyModel], path: str | Path, backend: str, dtype: Any) -> AnyModel:
    """Load a model; see `Model.load`."""
    document = read(path)
    get_backend(backend)  # a wrong argument must not be reported as a damaged file
    if dtype is not None:
        _, dtype = standardize_precision(dtype)
    try:
        return _from_document(cls, document, backend, dtype)
    except KeyError as error:
        raise InputError(f"{path}: the entry {error} is missing{HINT}") from None
    except INVALID as error:
        raise InputError(f"{path}: is not a valid model: {error}{HINT}") from None


def _from_document(
    cls: type[AnyModel], document: dict[str, Any], backend: str, dtype: str | None
) -> AnyModel:
    if document["dtype"] not in ("float32", "float64", "bfloat16"):
        raise ValueError(f"its dtype is {document['dtype']!r}, not float32, float64 or bfloat16")
    shape = document["input_shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise ValueError(f"its input_shape must be [C, H, W], got {shape!r}")
    array_dtype, dtype = standardize_precision(document["dtype"] if dtype is None else dtype)
    normalization = {}
    for name in ("mean", "std"):
        entries = [check_number(entry, name) for entry in document["normalization"][name]]
        with np.errstate(over="ignore"):
            numbers = np.array(entries, np.float64).astype(array_dtype)
        if numbers.shape != (shape[0],) or not np.isfinite(numbers).all():
            raise ValueError(f"normalization {name} must be {shape[0]} finite numbers")
        normalization[name] = numbers
    C, H, W = shape
    model = cls((C, H, W), backend, dtype, document["seed"])
    model.mean, model.std = normalization["mean"], normalization["std"]
    for entry in document["layers"]:
        _add(model, entry)
    if model.classes != check_int(document["classes"], "classes", 1):
        raise ValueError(f"its last layer has {model.classes} classes, not {document['classes']}")
    if "class_names" in document:  # older files have none
        model.class_names = document["class_names"]
    model.resize = check_resize(document.get("resize", model.resize))
    # Older files say whether predictions are also those of mirror images.
    is_mirrored = check_bool(document.get("averages_mirrored", False), "averages_mirrored")
    model.test_time_augmentation = document.get(
        "test_time_augmentation", "flip" if is_mirrored else "none"
    )
    model.label_smoothing = document.get("label_smoothing", 0.0)
    if not (model.std > 0).all():
        raise ValueError("normalization std must be above 0")
    stats = document["normalization"].get("pixels")
    if stats is not None:  # older files have none
        low, high, border = _check_numbers(stats, PIXELS, "normalization pixels")
        model.input_stats = InputStats(low, high, border)
    measured = document.get("training_images")
    if measured is not None:  # older files have none
        _set_stats(model, measured)
    history = document["history"]
    for numbers in history.values():
        if not isinstance(numbers, list) or {type(n) for n in numbers} - {int, float}:
            raise ValueError("history must hold lists of numbers")
    model.history = history
    return model


def _set_stats(model: Network, measured: Any) -> None:
    """Set the statistics that `_encode_stats` returned."""
    if not isinstance(measured, dict):
        raise ValueError(f"training_images must be an object, got {reprlib.repr(measured)}")
    fields = InputStats._fields[len(PIXELS) :]
    statistics = {name: _decode_statistic(measured, name) for name in fields}
    model.input_stats = model.input_stats._replace(**statistics)
    ink = measured["ink"]
    if ink is None:
        return
    if not isinstance(ink, dict):
        raise ValueError(f"the ink of training_images must be an object, got {reprlib.repr(ink)}")
    model.ink_stats = InkStats(*(_decode_statistic(ink, name) for name in InkStats._fields))
    if model.ink_stats.background == model.ink_stats.ink:
        raise ValueError("the ink of training_images must differ from its background")


def _decode_statistic(entries: dict[str, Any], name: str) -> Any:
    if name not in SPREADS:
        return check_number(entries[name], f"training_images {name}")
    spread = Spread(*_check_numbers(entries[name], Spread._fields, f"training_images {name}"))
    if list(spread) != sorted(spread):
        raise ValueError(f"training_images {name} must be three numbers in order, got {spread}")
    return spread


def _check_numbers(entry: Any, fields: Sequence[str], name: str) -> list[float]:
    """Return finite numbers, one for each field."""
    if not isinstance(entry, list) or len(entry) != len(fields):
        raise ValueError(f"{name} must be {len(fields)} numbers, got {reprlib.repr(entry)}")
    return [check_number(number, name) for number in entry]


def _add(model: Network, entry: dict[str, Any]) -> None:
    """Append a saved layer."""
    layer = _make_layer(entry)
    arrays = dict(zip(walk([layer]), _walk_arrays(entry), strict=True))

    def load_array(layer: Layer, name: str, shape: tuple[int, ...]) -> np.ndarray:
        entries = arrays[layer]
        if name not in entries:
            raise ValueError(f"its {name} is missing")
        try:
            return decode_array(entries[name], shape, model.dtype)
        except KeyError as error:
            raise ValueError(f"the entry {error} of its {name} is missing") from None
        except ValueError as error:
            raise ValueError(f"its {name} {error}") from None

    model.add(layer, load_array)
    for each, entries in arrays.items():
        if set(entries) != set(each.arrays):
            raise ValueError(
                f"layer {each} has arrays {sorted(each.arrays)}, not {sorted(entries)}"
            )


def _make_layer(entry: dict[str, Any]) -> Layer:
    """Return a saved layer, without its arrays."""
    type_name = entry["type"]
    if type_name not in LAYER_TYPES:
        raise ValueError(f"unknown layer type {type_name!r}; known are {', '.join(LAYER_TYPES)}")
    if not isinstance(entry["name"], str) or not entry["name"].isprintable():
        raise TypeError(f"the name of a layer must be printable text, got {entry['name']!r}")
    if not isinstance(entry["arrays"], dict):
        raise TypeError(f"the arrays of a layer must be an object, got {entry['arrays']!r}")
    layer_type: Any = LAYER_TYPES[type_name]
    if layer_type is not Residual:
        return layer_type(**entry["config"], name=entry["name"])
    paths = []
    for path in PATHS:
        if not isinstance(entry[path], list):
            raise TypeError(f"the {path} of a Residual must be a list, got {entry[path]!r}")
        paths.append([_make_layer(inner) for inner in entry[path]])
    body, shortcut = paths
    return Residual(*body, shortcut=shortcut, **entry["config"], name=entry["name"])


def _walk_arrays(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the saved arrays of a layer and of the layers inside it, in the order of `walk`."""
    yield entry["arrays"]
    for path in PATHS if entry["type"] == "Residual" else ():
        for inner in entry[path]:
            yield from _walk_arrays(inner)
