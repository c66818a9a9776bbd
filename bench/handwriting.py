"""Measure how well pictures of handwriting are read, by the style of the picture.

    .venv/bin/python -m bench.handwriting
    .venv/bin/python -m bench.handwriting --model models/mnist.json --styles photo pencil

The digits are MNIST training images that the model was not trained on. The first command therefore
trains a model without them, with the default settings of run.py. `tests/handwriting` makes
pictures of them, and the program labels these as `run.py --predict` does. Rows of digits are read
as with `--digits auto`.
"""

import argparse
import contextlib
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import run
from bench.common import CORES, new_file, new_plot
from bench.tables import BLOCK
from tests.handwriting import N_HELD_OUT, ROWS, STYLES, write, write_row
from training import InputError, Model
from training.cli.answers import answer_probabilities
from training.cli.digit_strings import read_strings, string_rows
from training.cli.flag_types import positive_int
from training.datasets import load_dataset, load_predict_inputs
from training.datasets.predict_inputs import PredictInputs
from training.preprocessing.preprocess import BLANK, MODES
from training.reporting import input_sheet

N_PICTURES = 200  # of a style
SURE = 0.9  # the probability from which an answer counts as sure
N_SHOWN = 5  # pictures of a style on the sheet, wrong answers first
NAMES = [*STYLES, *ROWS]
BLOCK_NAME = "handwriting"
FIRST_LINE = f"<!-- generated: {BLOCK_NAME} -->"
EMPTY_BLOCK = f"{FIRST_LINE}\n<!-- end of generated text -->\n"

Digits = tuple[np.ndarray, np.ndarray]  # images (N, 1, 28, 28) and labels (N,)


class Answers(NamedTuple):
    """What a model reads in the pictures of a style.

    Attributes
    ----------
    style : str
    labels : list of str, length N
        What is written in each picture.
    inputs : PredictInputs
        The pictures.
    images : sequence of ndarray, length N
        What the network sees of each picture.
    read : list of str, length N
        The model's answers, "" for a picture without one.
    probabilities : ndarray, shape (N,)
        Of the answers; of a row, that of its least probable digit.
    """

    style: str
    labels: list[str]
    inputs: PredictInputs
    images: Sequence[np.ndarray]
    read: list[str]
    probabilities: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        pairs = zip(self.labels, self.read, strict=True)
        return np.array([label == answer for label, answer in pairs])

    @property
    def is_sure(self) -> np.ndarray:
        return self.probabilities >= SURE


def split_digits() -> tuple[Digits, Digits]:
    """Return MNIST's training digits in two parts: to train on, and to make pictures of."""
    train, _ = load_dataset("mnist")
    images, labels = train.images, train.labels
    return (
        (images[:-N_HELD_OUT], labels[:-N_HELD_OUT]),
        (images[-N_HELD_OUT:], labels[-N_HELD_OUT:]),
    )


def train_model(digits: Digits, folder: Path) -> Path:
    """Train the default model as run.py does, and return the path of its file."""
    data, path = folder / "train.npz", folder / "model.json"
    np.savez(data, x_train=digits[0], y_train=digits[1])
    with contextlib.redirect_stdout(sys.stderr):
        code = run.main(["--train_data", str(data), "--to_path", str(path), "--no_plots"])
    if code:
        raise InputError(f"the training ended with exit code {code}")
    return path


def write_pictures(style: str, digits: Digits, n: int, folder: Path) -> dict[str, str]:
    """Write pictures of a style into a folder; return their labels by the names of their files."""
    folder.mkdir()
    make = write_row if style in ROWS else write

    def write_one(index: int) -> tuple[str, str]:
        sample = make(style, index, *digits)
        path = folder / f"{index}{sample.suffix}"
        path.write_bytes(sample.content)
        return path.name, sample.label

    with ThreadPoolExecutor(CORES) as executor:
        return dict(executor.map(write_one, range(n)))


def label_pictures(
    model: Model, style: str, folder: Path, labels: dict[str, str], mode: str
) -> Answers:
    """Return what a model reads in the pictures of a folder."""
    inputs = load_predict_inputs(folder, model.input_format, mode=mode)
    if set(inputs.names) != set(labels):
        raise InputError(f"{style}: not every picture was read: {' '.join(inputs.notes)}")
    written = [labels[name] for name in inputs.names]
    if style in ROWS:
        return Answers(style, written, inputs, *read_rows(model, inputs))
    shares = answer_probabilities(model, model.logits(inputs.images))
    is_blank = np.array([BLANK in remarks for remarks in inputs.remarks])
    read = np.where(is_blank, "", np.array(model.class_names)[shares.argmax(axis=1)])
    probabilities = np.where(is_blank, 0, shares.max(axis=1))
    return Answers(style, written, inputs, inputs.images, read.tolist(), probabilities)


def read_rows(
    model: Model, inputs: PredictInputs
) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """Return what the network sees of each row of digits, its answer and the lowest probability."""
    strings = read_strings(inputs, model.input_format)
    answers = string_rows(model, inputs.names, strings)[1:]
    images = [np.concatenate(list(string.images), axis=-1) for string in strings]
    lowest = [min(map(float, shares.split()), default=0.0) for _, _, shares, *_ in answers]
    return images, [text for _, text, *_ in answers], np.array(lowest)


def percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f} %"


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def report(results: Sequence[Answers]) -> str:
    """Return the tables of the single digits and of the rows."""
    parts = (
        [answers for answers in results if (answers.style in ROWS) == are_rows]
        for are_rows in (False, True)
    )
    return "\n\n".join(table(part) for part in parts if part)


def table(results: Sequence[Answers]) -> str:
    """Return a Markdown table with a row for each style, and the mean of the styles."""
    lines = [
        f"| style | pictures | right | probability from {100 * SURE:.0f} % | right of these |",
        "|---|--:|--:|--:|--:|",
    ]
    shares = []
    for answers in results:
        right, sure = answers.is_right, answers.is_sure
        shares.append((mean(right), mean(sure)))
        cells = (percent(share) for share in (*shares[-1], mean(right[sure])))
        lines.append(f"| {answers.style} | {len(right):,} | {' | '.join(cells)} |")
    n_pictures = sum(len(answers.labels) for answers in results)
    right_of_sure = np.concatenate([answers.is_right[answers.is_sure] for answers in results])
    cells = (percent(share) for share in (*np.mean(shares, axis=0), mean(right_of_sure)))
    lines.append(f"| **all, mean of the styles** | {n_pictures:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def entries(answers: Answers) -> list[input_sheet.Entry]:
    """Return pictures of a style for a sheet: those that are read wrong come first."""
    is_right, inputs = answers.is_right, answers.inputs
    return [
        input_sheet.Entry(
            inputs.read_original(index),
            answers.images[index],
            f"{answers.style} {inputs.names[index]}\n{answers.labels[index]} is read as "
            f"{answers.read[index] or 'blank'} ({answers.probabilities[index]:.0%})",
            "; ".join([inputs.rules[index], *inputs.remarks[index]]),
            not is_right[index],
        )
        for index in np.argsort(is_right, kind="stable")[:N_SHOWN].tolist()
    ]


def write_table(text: str, path: Path) -> None:
    """Write a table into the block of a page that is generated, or into a new file."""

    def replace(match: re.Match) -> str:
        return f"{match[1]}{text}\n{match[3]}" if match[2] == BLOCK_NAME else match[0]

    page = path.read_text(encoding="utf-8") if path.exists() else EMPTY_BLOCK
    path.write_text(BLOCK.sub(replace, page), encoding="utf-8")


def page(text: str) -> Path:
    """Return the path of a new file, or of a page with a block for the table."""
    path = new_file(text)
    if path.exists() and FIRST_LINE not in path.read_text(encoding="utf-8"):
        raise argparse.ArgumentTypeError(f"{text} has no line {FIRST_LINE}")
    return path


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        metavar="FILE",
        help="a saved model that was not trained on the last 5,000 training digits of MNIST "
        "(default: one is trained)",
    )
    add(
        "--styles",
        nargs="+",
        choices=NAMES,
        default=NAMES,
        metavar="STYLE",
        help=f"default: all, {', '.join(NAMES)}",
    )
    add(
        "--pictures",
        type=positive_int,
        default=N_PICTURES,
        metavar="N",
        help="pictures of each style (default: %(default)s)",
    )
    add("--preprocess", choices=MODES, default="auto", help="as with run.py (default: auto)")
    add(
        "--sheet",
        type=new_plot,
        metavar="PNG",
        help=f"write {N_SHOWN} pictures of each style as they came and as the network sees them, "
        "wrong answers first",
    )
    add(
        "--output",
        type=page,
        metavar="MD",
        help="write the table into the generated block of this page, or into a new file",
    )
    return parser


def measure(args: argparse.Namespace, folder: Path) -> tuple[Model, list[Answers]]:
    """Return a model and what it reads in every style. The files are written into a folder."""
    others, held_out = split_digits()
    model = Model.load(args.model or train_model(others, folder))
    results = []
    for style in args.styles:
        target = folder / style
        labels = write_pictures(style, held_out, args.pictures, target)
        results.append(label_pictures(model, style, target, labels, args.preprocess))
        print(f"{style}: {mean(results[-1].is_right):.1%}", file=sys.stderr, flush=True)
    return model, results


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model, results = measure(args, Path(folder))
            print(report(results))
            if args.output is not None:
                write_table(report(results), args.output)
            if args.sheet is not None:
                shown = [entry for answers in results for entry in entries(answers)]
                input_sheet.draw(shown, model.input_stats, args.sheet)
    except InputError as error:
        print(f"handwriting.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
