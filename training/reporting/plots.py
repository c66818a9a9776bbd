"""Plots of a training run and of the trained model, drawn with matplotlib."""

import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from layers import Conv
from training.evaluation import confusion_matrix, worst_mistakes
from training.network import Network
from training.reporting.text_table import shorten, text_width

MAX_AXIS_NAME, MAX_TITLE_NAME = 24, 16  # columns of a class name
MAX_LABELED_CLASSES = 30  # up to so many, the confusion matrix shows each class and count
N_EXAMPLES = 10  # images of each class that `examples` shows
MAX_NAME = 60  # characters of a class name; longer ones are cut
INSTALL = "pip install matplotlib"
NAMES = ("curves", "confusion", "mistakes", "filters")


def can_draw() -> bool:
    """Return whether matplotlib, which is optional, is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float, layout: Any = "constrained") -> Any:
    """Return a figure of a size in inches."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    return Figure(figsize=(width, height), layout=layout, dpi=110)


def save_figure(
    figure: Any,
    path: Path,
    metadata: dict[str, str] | None = None,
    instead: str = "say --no_plots",
) -> None:
    """Write a figure as PNG. It is drawn in memory before the file is opened.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path
    metadata : dict of str to str, optional
        Texts for the file.
    instead : str
        What to do if the file cannot be written and there is space, for the error message.
    """
    png = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks, such as Chinese ones, are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(png, format="png", metadata=metadata)
    try:
        path.write_bytes(png.getvalue())
    except OSError as error:
        raise OSError(
            f"{path}: cannot be drawn: {error.strerror}: free some space, or {instead}"
        ) from None


def curves(history: dict[str, list], path: Path) -> None:
    """Plot accuracy and loss by epoch."""
    figure = new_figure(10, 4)
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for key, label in ((name, "training"), (f"validation_{name}", "validation")):
            numbers = history.get(key, [])
            epochs = range(1, len(numbers) + 1)
            axes.plot(epochs, numbers, marker=".", label=label)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
        if name == "accuracy":
            axes.yaxis.set_major_formatter("{x:.1%}")
    save_figure(figure, path)


def rates(rates: np.ndarray, losses: np.ndarray, best: float, path: Path) -> None:
    """Plot the loss by learning rate, and mark the suggested rate."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.semilogx(rates, losses)
    axes.axvline(best, color="tab:orange", linestyle="--", label=f"suggestion: {best:.2g}")
    axes.set(title="loss while the learning rate grows", xlabel="learning rate", ylabel="loss")
    axes.set_ylim(0, 1.2 * losses[0])
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Plot a confusion matrix (classes, classes); only the mistakes are colored."""
    classes = len(matrix)
    is_labeled = classes <= MAX_LABELED_CLASSES
    size = max(5.0, 0.45 * classes) if is_labeled else 8.0
    names = [shorten(name, MAX_AXIS_NAME) for name in class_names]
    longest = max(map(text_width, names))
    is_slanted = longest > 2
    margin = 0.07 * longest if is_labeled and is_slanted else 0.0  # inches for the names
    figure = new_figure(size + 0.6 + margin, size + margin)
    axes = figure.subplots()
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    image = axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(mistakes.max(), 1))
    accuracy = matrix.trace() / max(matrix.sum(), 1)
    axes.set(xlabel="predicted", ylabel="true label", title=f"accuracy {accuracy:.2%}")
    if is_labeled:
        slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_slanted else {}
        # Without parse_math=False, "$" in a name would begin a formula.
        axes.set_xticks(range(classes), names, parse_math=False, **slant)
        axes.set_yticks(range(classes), names, parse_math=False)
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                dark = mistakes[i, j] > mistakes.max() * 0.6
                axes.text(
                    j, i, f"{count:,}", ha="center", va="center", fontsize=7 if classes > 12 else 8,
                    color="white" if dark else "0.5" if i == j else "black",
                )  # fmt: skip
    figure.colorbar(image, ax=axes, label="mistakes", shrink=0.8)
    save_figure(figure, path)


def _show(axes: Any, image: np.ndarray) -> None:
    """Show an image (C, H, W) in color if it has three channels, else its first one in gray."""
    if len(image) == 3:
        low, high = float(image.min()), float(image.max())
        axes.imshow((image.transpose(1, 2, 0) - low) / max(high - low, 1e-30))
    else:
        axes.imshow(image[0], cmap="gray")
    axes.set_axis_off()


def choose_examples(
    labels: np.ndarray, n_classes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the indices of a few random images of each class; of many classes, of the first."""
    return [
        rng.permutation(np.flatnonzero(labels == label))[:N_EXAMPLES]
        for label in range(min(n_classes, MAX_LABELED_CLASSES))
    ]


def examples(
    examples: list[np.ndarray],
    images: np.ndarray,
    augmented: np.ndarray,
    class_names: tuple[str, ...],
    path: Path,
) -> None:
    """Plot images of each class, each above its augmented copy.

    Parameters
    ----------
    examples : list of ndarray
        What `choose_examples` returned.
    images, augmented : (N, C, H, W)
        The images of these indices, one class after the other.
    class_names : tuple of str
    path : path
    """
    rows = 2 * len(examples)
    figure = new_figure(0.8 * N_EXAMPLES, 0.95 * rows)
    grid = figure.subplots(rows, N_EXAMPLES, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    start = 0
    for label, indices in enumerate(examples):
        name = class_names[label]
        shown_name = name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."
        grid[2 * label, 0].set_title(shown_name, loc="left", fontsize=9)
        for column in range(len(indices)):
            for row, shown in enumerate((images, augmented)):
                _show(grid[2 * label + row, column], shown[start + column])
        start += len(indices)
    save_figure(figure, path, instead="name another --to_path")


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    path: Path,
    count: int = 24,
) -> None:
    """Plot the most certain mistakes, each with its true class and the predicted one.

    Parameters
    ----------
    images : (N, C, H, W)
    labels : (N,) of int
    probabilities : (N, classes)
    class_names : sequence of str
    path : path
    count : int
        The number of images to show at most.
    """
    worst = worst_mistakes(probabilities, labels, count)
    columns = 8
    rows = max(1, -(-len(worst) // columns))
    names = [shorten(name, MAX_TITLE_NAME) for name in class_names]
    is_short = max(map(text_width, names)) <= 4
    figure = new_figure(1.35 * columns, (1.6 if is_short else 1.85) * rows + 0.4)
    figure.suptitle(
        "most certain mistakes: true label -> predicted (probability)"
        if len(worst)
        else "no mistakes"
    )
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, i in zip(figure.axes, worst, strict=False):
        _show(axes, images[i])
        predicted = probabilities[i].argmax()
        probability = probabilities[i, predicted]
        title = f"{names[labels[i]]} -> {names[predicted]} ({probability:.0%})"
        if not is_short:
            title = f"{names[labels[i]]}\n-> {names[predicted]}\n({probability:.0%})"
        axes.set_title(title, fontsize=8 if is_short else 7, parse_math=False)
    save_figure(figure, path)


def filters(weights: np.ndarray, path: Path, count: int = 64) -> None:
    """Plot the first filters (F, C, KH, KW) of a convolution: red is positive, blue negative."""
    shown = weights[:count]
    columns = min(len(shown), 16)
    rows = -(-len(shown) // columns)
    figure = new_figure(max(4.0, 0.8 * columns), 0.8 * rows + 0.6)
    figure.suptitle("filters of the first layer")
    limit = float(np.abs(shown).max()) or 1.0
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, kernel in zip(figure.axes, shown, strict=False):
        if len(kernel) == 3:
            axes.imshow(kernel.transpose(1, 2, 0) / (2 * limit) + 0.5)
        else:
            axes.imshow(kernel.mean(axis=0), cmap="RdBu_r", vmin=-limit, vmax=limit)
    save_figure(figure, path)


def draw_all(
    model: Network,
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    pattern: Path,
    history: bool = True,
) -> list[Path]:
    """Draw all plots of a trained model.

    Parameters
    ----------
    model : Model
    images, labels
        Images that the model was not trained on, and their labels.
    logits : (N, classes)
        What `Model.logits` returns for these images.
    pattern : path
        The paths, with {} in place of the plot's name, one of NAMES.
    history : bool
        Whether to plot the curves too.

    Returns
    -------
    list of path
        The plots that were drawn.
    """
    probabilities = model.probabilities(logits)
    paths = {name: pattern.with_name(pattern.name.replace("{}", name)) for name in NAMES}
    drawn = []
    if history and model.history.get("loss"):
        curves(model.history, paths["curves"])
        drawn.append(paths["curves"])
    matrix = confusion_matrix(labels, logits.argmax(axis=1), model.classes)
    confusion(matrix, model.class_names, paths["confusion"])
    mistakes(images, labels, probabilities, model.class_names, paths["mistakes"])
    drawn += [paths["confusion"], paths["mistakes"]]
    if isinstance(model.layers[0], Conv):
        filters(model.layers[0].params["weights"], paths["filters"])
        drawn.append(paths["filters"])
    return drawn
