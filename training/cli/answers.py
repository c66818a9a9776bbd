"""The answers of a model: which are unsure, and a sheet that shows them with their pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.datasets.predict_inputs import PredictInputs
from training.evaluation import remove_smoothing
from training.model import Model
from training.preprocessing.preprocess import BLANK
from training.reporting import input_sheet

UNSURE_BELOW = 0.7  # an answer of less probability is marked
UNSURE = "unsure"
REMARKS_FIRST = "those with remarks first"
MAX_PROBABILITY = 0.9999  # no answer is certain


def answer_probabilities(model: Model, logits: np.ndarray) -> np.ndarray:
    """Return the probability (N, classes) of each class, without the smoothing of training.

    It is at most 0.9999: `remove_smoothing` returns 1 where the network is more certain than the
    smoothed labels, as for 617 of MNIST's 10,000 test images with the default network.
    """
    probabilities = remove_smoothing(model.probabilities(logits), model.label_smoothing)
    return np.minimum(probabilities, MAX_PROBABILITY)


def add_unsure(
    remarks: Sequence[tuple[str, ...]], probabilities: np.ndarray
) -> list[tuple[str, ...]]:
    """Return the remarks with "unsure" where the most probable class has less than 0.7.

    Parameters
    ----------
    remarks : sequence of tuple of str
        Of N images. A blank page has no answer that could be unsure.
    probabilities : (N, classes)
    """
    return [
        (*found, UNSURE) if shares.max() < UNSURE_BELOW and BLANK not in found else found
        for found, shares in zip(remarks, probabilities, strict=True)
    ]


def draw_answers(
    path: Path,
    model: Model,
    inputs: PredictInputs,
    probabilities: np.ndarray,
    remarks: Sequence[tuple[str, ...]],
    labels: np.ndarray | None = None,
) -> str:
    """Draw a sheet of images as they came, as the network sees them, and its answers.

    Parameters
    ----------
    path : Path
        Of the PNG file.
    model : Model
    inputs : PredictInputs
        N images. At most 100 are drawn: of more, those with remarks first, or, where there are
        labels, those with wrong answers.
    probabilities : (N, classes)
    remarks : sequence of tuple of str
    labels : (N,) of int, optional
        The true classes.

    Returns
    -------
    str
        A line on what was drawn.
    """
    first, why, title = [bool(found) for found in remarks], REMARKS_FIRST, ""
    if labels is not None:
        first, why = (probabilities.argmax(axis=1) != labels).tolist(), "the wrong answers first"
        title = "red: true class -> answer"
    chosen = input_sheet.choose(first)
    entries = []
    for index in chosen:
        answer = _answer(probabilities[index], model.class_names, BLANK in remarks[index])
        if labels is not None and first[index]:
            answer = f"{model.class_names[labels[index]]} -> {answer}"
        entries.append(
            input_sheet.Entry(
                inputs.read_original(index),
                inputs.images[index],
                f"{inputs.names[index]}\n{answer}",
                "; ".join((inputs.rules[index], *remarks[index])),
                first[index],
            )
        )
    input_sheet.draw(entries, model.input_stats, path, title)
    return describe_sheet(path, len(chosen), len(inputs.names), why)


def describe_sheet(path: Path, n_drawn: int, n: int, why: str) -> str:
    """Return a line on a sheet of images: its path, and which are drawn if not all are."""
    which = "" if n_drawn == n else f", {n_drawn} of {n:,}, {why}"
    return f"images as they came and as the network sees them{which}: {path}"


def _answer(shares: np.ndarray, class_names: Sequence[str], is_blank: bool) -> str:
    """Return the most probable class, and the second one of an answer that is unsure."""
    if is_blank:
        return "no answer"
    best, second = np.argsort(-shares, kind="stable")[:2]
    answer = f"{class_names[best]} ({shares[best]:.0%})"
    if shares[best] < UNSURE_BELOW:
        answer += f", {class_names[second]} ({shares[second]:.0%})"
    return answer
