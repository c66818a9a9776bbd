"""The flags of run.py, and the settings that a resumed run keeps."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from training.cli.architectures import find_architecture
from training.cli.flag_conflicts import check_conflicts
from training.cli.flag_types import (
    AUTO,
    augmentation,
    duration,
    fraction,
    image_shape,
    image_size,
    non_negative_float,
    pixel_scale,
    positive_float,
    positive_int,
    seed,
    smoothing,
)
from training.cli.output_paths import run_path
from training.datasets import COLORS, DATASET_NAMES
from training.input_format import RESIZE_RULES
from training.optimizers import OPTIMIZERS
from training.preprocessing.preprocess import MODES
from training.saving.training_state import TrainingState
from training.schedules import SCHEDULES
from training.test_time_augmentation import NAMES as TTA_NAMES

DEFAULT_MODEL = Path("models") / "model.json"
CLASS_WEIGHTS = {"none": None, "balanced": "balanced"}  # the argument of `Model.train`
CHECK_ARCHITECTURE = "tiny"  # the network that shows whether images may be mirrored
MAX_MESSAGE = 300  # characters; a longer message repeats what was typed, and is cut


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        if len(message) > MAX_MESSAGE:
            message = f"{message[: MAX_MESSAGE // 2]} ... {message[-MAX_MESSAGE // 3 :]}"
        self.exit(2, f"{self.prog}: {message} (--help explains all flags)\n")


def make_parser(architectures: Iterable[str]) -> Parser:
    """Return the parser of all flags.

    Parameters
    ----------
    architectures : iterable of str
        Names of the networks that `--arch` offers.
    """
    parser = Parser(
        prog="run.py",
        description="Train a convolutional network that classifies images, test it, or predict the "
        "labels of images with it. Without any flag, train on MNIST and save the best model.",
        epilog="Examples:  run.py --epochs 3   |   run.py --test   |   "
        "run.py --train_data mine.csv --test_data more.csv --to_path models/mine.json   |   "
        "run.py --predict digit.png",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--train", action="store_true", help="train a model (the default)")
    action.add_argument("--test", action="store_true", help="measure the accuracy of a saved model")
    action.add_argument(
        "--predict",
        type=Path,
        metavar="FILE",
        help="predict the labels of images with a saved model. FILE is a picture such as a PNG, a "
        "folder of pictures, or a CSV file of pixels, with or without labels",
    )
    action.add_argument(
        "--find_lr",
        action="store_true",
        help="suggest a learning rate for a new model: train it with increasing learning rates and "
        "plot the loss",
    )
    action.add_argument(
        "--resume",
        action="store_true",
        help="continue the interrupted run that writes --to_path, with the settings that it was "
        "started with",
    )

    action.add_argument(
        "--show_data",
        action="store_true",
        help="describe the training images and draw some of each class, as they are and augmented",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        choices=DATASET_NAMES,
        help="a known data set, downloaded once if it is not on this machine; mnist-5k needs no "
        "network (default: mnist, or mnist-5k if mnist can be neither found nor downloaded)",
    )
    data.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="folder in which to look first for the files of --dataset",
    )
    data.add_argument(
        "--train_data",
        type=Path,
        metavar="PATH",
        help="your own training images: a folder with a subfolder of pictures for each class; a "
        ".npz file of arrays; a Parquet file of pictures; a CSV file with a label and then the "
        "pixels on each line; or the images file of an IDX pair",
    )
    data.add_argument(
        "--test_data",
        type=Path,
        metavar="PATH",
        help="your own test images, in any of the forms of --train_data",
    )
    data.add_argument(
        "--image_shape",
        type=image_shape,
        metavar="C,H,W",
        help="channels, rows and columns of the images in a CSV file (default: one channel, "
        "square)",
    )
    data.add_argument(
        "--image_size",
        type=image_size,
        metavar="N or H,W",
        help="bring all images to this size (default: as they are if all are alike, else a square "
        "of at most 64 pixels a side)",
    )
    data.add_argument(
        "--color",
        choices=COLORS,
        help="make all images grey, or give all three channels (default: grey if all are)",
    )
    data.add_argument(
        "--resize",
        choices=RESIZE_RULES,
        help="how an image of other proportions is brought to the size: pad it with the color of "
        "its border, crop its center, or stretch it (default: pad)",
    )
    data.add_argument(
        "--label_column",
        metavar="NAME",
        help="name, or position from 1, of the column of labels in a CSV file (default: the one "
        "called label or class, else the first)",
    )
    data.add_argument(
        "--scale",
        type=pixel_scale,
        metavar="A,B",
        help="for a saved model: the pixels A and B in a CSV, .npz or IDX file are what the "
        "smallest and the largest pixel were in training, such as 0,1 or, of inverted images, 1,0; "
        "none: the scale is that of training (default: found from the pixels, and reported if it "
        "is another one)",
    )
    data.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="with --predict: write the labels to this CSV file instead of printing them",
    )
    data.add_argument(
        "--top",
        type=positive_int,
        default=2,
        metavar="K",
        help="with --predict: the K most probable classes of each image, or all if the model has "
        "fewer (default: %(default)s)",
    )
    data.add_argument(
        "--digits",
        choices=("1", AUTO),
        default="1",
        help="with --predict: how many digits a picture shows. 1: one, the largest; auto: as many "
        "as stand in its row, read from left to right (default: %(default)s)",
    )
    data.add_argument(
        "--preprocess",
        choices=MODES,
        default=AUTO,
        help="with --predict, and for the pictures of --test: how an image is brought to the form "
        "of the training images. auto: it stays as it is if it looks like them; else it is read as "
        "ink on paper, if they are ink on a plain ground; else only its size and its channels are "
        "adapted. ink: always as ink on paper; none: only size and channels (default: %(default)s)",
    )
    data.add_argument(
        "--show_input",
        type=Path,
        metavar="FILE",
        help="with --predict, and with --test on a folder of pictures: also draw the images as "
        "they came, as the network sees them, and the answers to this PNG file (at most 100: those "
        "with remarks first, or, of --test, the wrong answers)",
    )
    data.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="with --test: also write all measures, in total and by class, to this JSON file",
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--to_path",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="FILE",
        help="file for the best model, as JSON (default: %(default)s)",
    )
    model.add_argument(
        "--arch",
        metavar="NAME",
        help=f"the network: {', '.join(architectures)}, or path/to/file.py:function for your own "
        "function with the parameters of those in run.py "
        "(default: chosen by the size and the channels of the images)",
    )
    model.add_argument("--no_plots", action="store_true", help="save no plots beside the model")
    model.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="folder to which the metrics of each epoch are also written for TensorBoard "
        "(pip install tensorboardX)",
    )
    model.add_argument(
        "--from_path",
        type=Path,
        metavar="FILE",
        help=f"a saved model to test or to predict with (default: {DEFAULT_MODEL}), or to train "
        "further",
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="passes over the training images (default: 8 for --arch compact and resnet, 5 for "
        "tiny, 9 for large, else 15; 16 for compact if mirrored images mean the same; more if the "
        "images are few)",
    )
    training.add_argument(
        "--time_limit",
        type=duration,
        metavar="SECONDS",
        help="end after so many seconds, from reading the images to the last line: the learning "
        "rate follows the clock, and the last epoch may be a part of one (default: none). With "
        "--epochs too, the run ends by whichever comes first",
    )
    training.add_argument(
        "--batch_size",
        type=positive_int,
        metavar="N",
        help="images per step (default: 64; 256 for --arch resnet on 25,600 images or more)",
    )
    training.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="adamw; or muon: momentum whose steps are orthogonal matrices for the filters of "
        "convolutions, and AdamW for all else (default: muon for --arch resnet, else adamw)",
    )
    training.add_argument(
        "--learning_rate",
        type=positive_float,
        metavar="X",
        help="largest learning rate of the schedule; of muon, the share of its norm by which a "
        "convolution's filters change in a step (default: 0.006 for adamw, 0.1 for muon)",
    )
    training.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="one_cycle",
        help="how the learning rate changes: constant; one_cycle: up and down once; cosine: down "
        "along a cosine; step: reduced after a half and three quarters of the run; plateau: "
        "reduced when the validation loss stops falling (default: %(default)s)",
    )
    training.add_argument(
        "--weight_decay",
        type=non_negative_float,
        metavar="X",
        help="weight decay of AdamW (default: 0.001; 0.01 for --arch compact, 0.1 for resnet)",
    )
    training.add_argument(
        "--label_smoothing",
        type=smoothing,
        metavar="X",
        help="share of each label that is distributed over all classes (default: 0.1; 0.2 for "
        "--arch resnet)",
    )
    training.add_argument(
        "--class_weight",
        choices=CLASS_WEIGHTS,
        default="none",
        help="how much an image counts in the loss: none: all the same; balanced: so that all "
        "classes count the same, however many images each has (default: %(default)s)",
    )
    training.add_argument(
        "--clip_norm",
        type=positive_float,
        metavar="X",
        help="largest norm of a gradient; longer gradients are scaled down to it (default: none)",
    )
    training.add_argument(
        "--augment",
        type=augmentation,
        metavar="NAMES",
        default=AUTO,
        help="random changes of each training image in every epoch: none, or some of these, "
        "separated by commas. shift: move it by up to a fourteenth of its size; affine: also "
        "rotate it by up to 10 degrees and scale it by up to 10 %%; flip: mirror it left to right; "
        "photo: mirror and shift it, cover a box, and change brightness, contrast and saturation; "
        "photo_no_flip: the same without mirroring (default: auto: shift, and flip if a quick "
        "check shows that mirrored images mean the same)",
    )
    model.add_argument(
        "--tta",
        choices=(AUTO, *TTA_NAMES),
        default=AUTO,
        help="test-time augmentation: the answer to an image is the mean of those to it and to "
        "views of it. shift: it is also moved by up to a pixel of 28, in two directions; flip: it "
        "is also mirrored (default: auto: in training, what the images are changed by; with "
        "--test and --predict, what the model has)",
    )
    training.add_argument(
        "--augmenter_ratio",
        type=int,
        choices=[1, 4],
        default=1,
        help="4: an epoch shows each image once unchanged and three times augmented "
        "(default: %(default)s)",
    )
    training.add_argument(
        "--patience",
        type=positive_int,
        metavar="N",
        help="stop after N epochs without an improvement (default: never)",
    )
    training.add_argument(
        "--validation_split",
        type=fraction,
        default=0.1,
        metavar="X",
        help="share of the training images that is not trained on, but used to choose the "
        "best epoch (default: %(default)s)",
    )
    training.add_argument(
        "--save_every",
        type=positive_int,
        metavar="N",
        help="save the state for --resume every N steps, as well as after each epoch",
    )
    training.add_argument(
        "--seed",
        type=seed,
        metavar="N",
        help="seed of all random numbers (default: 0, or that of the model in --from_path)",
    )

    machine = parser.add_argument_group("arithmetic")
    machine.add_argument(
        "--backend",
        choices=["numba", "scipy", "numpy"],
        default="numba",
        help="numba is fast; scipy and numpy are slow references (default: %(default)s)",
    )
    machine.add_argument(
        "--dtype",
        choices=["float32", "float64", "bfloat16"],
        help="precision (default: float32, or that of the model in --from_path). bfloat16 is mixed "
        "precision: activations are rounded to bfloat16, and parameters and sums are float32. It "
        "pays for networks of many filters on processors with instructions for bfloat16 (AMD from "
        "Zen 4 on, Intel Xeon from Sapphire Rapids on); others compute the same at lower speed",
    )
    machine.add_argument(
        "--threads",
        type=positive_int,
        metavar="N",
        help="number of threads (default: one per core)",
    )

    return parser


def parse(argv: list[str] | None, architectures: Mapping[str, Callable]) -> argparse.Namespace:
    """Return the arguments; those of a resumed run include the settings that it was started with.

    Parameters
    ----------
    argv : list of str or None
        The arguments of the command line; None for those of this process.
    architectures : dict of str to callable
        The networks that `--arch` offers, by name.

    Returns
    -------
    argparse.Namespace
        One attribute per flag; `architecture`, an `Architecture`, or None without `--arch`; and
        `build_check_network`, the function that builds the network for `choose_augmentation`.

    Raises
    ------
    InputError
        There is no run to resume.
    SystemExit
        Of code 2, after a message on stderr: the command line is wrong.
    """
    parser = make_parser(architectures)
    flags = [action.dest for action in parser._actions if action.dest != "help"]
    defaults = {flag: parser.get_default(flag) for flag in flags}
    typed = _parse_flags(parser, flags, sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace(**defaults | typed)
    check_conflicts(parser, args, typed)
    if args.resume:
        # Files of an earlier version, which had no other optimizer, do not name it.
        saved = {"optimizer": "adamw"} | TrainingState.open(run_path(args.to_path)).settings
        for flag in IMMUTABLE_FLAGS:
            text = _as_text(getattr(args, flag))
            if text not in (None, saved.get(flag)):
                parser.error(
                    f"--{flag}: the run to resume has {saved.get(flag) or 'that of its model'}, "
                    f"not {text}"
                )
        saved_argv = [f"--{flag}={saved[flag]}" for flag in RESUMED_FLAGS if flag in saved]
        args = argparse.Namespace(**defaults | _parse_flags(parser, flags, saved_argv) | typed)
        check_conflicts(parser, args, typed)
    args.build_check_network = architectures[CHECK_ARCHITECTURE]
    try:
        args.architecture = (
            None if args.arch is None else find_architecture(args.arch, architectures)
        )
    except ValueError as error:
        parser.error(f"argument --arch: {error}")
    return args


def _parse_flags(parser: Parser, flags: Iterable[str], argv: list[str]) -> dict[str, Any]:
    """Return the values of the flags in `argv`, without any default."""
    # argparse sets a default only where the namespace has no attribute of that name.
    argv = _join_scale(argv)
    namespace = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(flags)))
    return {flag: value for flag, value in vars(namespace).items() if value is not None}


def _join_scale(argv: list[str]) -> list[str]:
    """Join --scale and its value, which argparse takes for a flag if it begins with a minus."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] == "--scale" and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


# A resumed run reads these flags from its file unless they are typed again. The values are parsed
# as if they had been typed. None of them names code to run.
RESUMED_FLAGS = (
    "dataset",
    "data_dir",
    "train_data",
    "test_data",
    "image_shape",
    "image_size",
    "color",
    "resize",
    "label_column",
    "scale",
    "epochs",
    "time_limit",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "weight_decay",
    "label_smoothing",
    "class_weight",
    "clip_norm",
    "augment",
    "tta",
    "augmenter_ratio",
    "patience",
    "validation_split",
    "save_every",
    "backend",
    "threads",
)
# What a resumed run cannot change, because it is part of the saved model.
IMMUTABLE_FLAGS = ("arch", "from_path", "seed", "dtype")


def _as_text(value: Any) -> str | None:
    """Return a value as it could be typed in any folder; None for None."""
    if isinstance(value, Path):
        value = value.absolute()
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return None if value is None else str(value)


def settings(args: argparse.Namespace) -> dict[str, str]:
    """Return what a run is resumed with: the text of each flag that has a value."""
    texts = {flag: _as_text(getattr(args, flag)) for flag in RESUMED_FLAGS + IMMUTABLE_FLAGS}
    set_texts = {flag: text for flag, text in texts.items() if text is not None}
    if args.from_path is None and not args.resume:
        return {"seed": "0", "dtype": "float32"} | set_texts
    return set_texts
