"""The flags of run.py, and what is a right value for each."""

import argparse
import runpy
import sys
from pathlib import Path

from training.augmentation import AUGMENTERS
from training.datasets import DATASET_NAMES
from training.saving.training_state import TrainingState
from training.schedules import SCHEDULES

DEFAULT_MODEL = Path("models") / "model.json"


def _number(convert, is_right, wanted):
    """Return what reads a flag's number."""

    def read(text):
        try:
            number = convert(text)
        except ValueError:
            number = None
        if number is None or not is_right(number):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text[:40]!r}")
        return number

    return read


positive_int = _number(int, lambda n: 1 <= n < 2**31, "a whole number from 1 to 2147483647")
seed = _number(int, lambda n: 0 <= n < 2**31, "a whole number from 0 to 2147483647")
learning_rate = _number(float, lambda x: 0 < x <= 10, "a number above 0 and at most 10")
fraction = _number(float, lambda x: 0 < x < 1, "a number between 0 and 1")
not_negative = _number(float, lambda x: 0 <= x <= 10, "a number from 0 to 10")
below_one = _number(float, lambda x: 0 <= x < 1, "a number of at least 0 and below 1")


def one_line(error):
    """Return the type and the message of an error of the user's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def find_architecture(name, architectures):
    """Return a function that builds a network: one of ours, or one from the user's own file.

    Raises
    ------
    ValueError
        With what is wrong.
    """
    if name in architectures:
        return architectures[name]
    file, colon, function_name = name.rpartition(":")
    if not colon:
        raise ValueError(
            f"must be {', '.join(architectures)} or path/to/file.py:function, got {name!r}"
        )
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file!r}")
    try:
        found = runpy.run_path(file)  # leaves no compiled file beside it, as import would
    except (Exception, SystemExit) as error:
        raise ValueError(f"{file!r} cannot be run: {one_line(error)}") from None
    function = found.get(function_name)
    if not callable(function):
        raise ValueError(f"{file!r} has no function {function_name!r}")
    return function


def image_shape(text):
    try:
        C, H, W = (positive_int(size) for size in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"must be C,H,W such as 3,32,32, got {text[:40]!r}"
        ) from None
    return C, H, W


class Parser(argparse.ArgumentParser):
    """One that answers a wrong argument in a line, without all the flags before it."""

    def error(self, message):
        if len(message) > 300:  # it repeats what was typed
            message = f"{message[:150]} ... {message[-100:]}"
        self.exit(2, f"{self.prog}: {message} (--help explains all flags)\n")


def make_parser(architectures):
    """Return the parser of all flags.

    Parameters
    ----------
    architectures : dict of str to callable
        What `--arch` chooses from.
    """
    parser = Parser(
        prog="run.py",
        description="Train a convolutional network that tells images apart, test one, or let it "
        "label images. Without any argument it trains on MNIST, and saves the best model of the "
        "run.",
        epilog="Examples:  run.py --epochs 3   |   run.py --test   |   "
        "run.py --train_data mine.csv --test_data mine_too.csv --to_path models/mine.json   |   "
        "run.py --predict digit.png",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--train", action="store_true", help="train a model (the default)")
    action.add_argument("--test", action="store_true", help="measure a saved model's accuracy")
    action.add_argument(
        "--predict",
        type=Path,
        metavar="FILE",
        help="label images with a saved model: a picture such as a PNG, a folder of them, or a CSV "
        "of pixels, with or without labels",
    )
    action.add_argument(
        "--find_lr",
        action="store_true",
        help="try ever larger learning rates on a new model, draw the loss, and name a good one",
    )
    action.add_argument(
        "--resume",
        action="store_true",
        help="go on with the interrupted run of --to_path, with all its settings, where it was",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        choices=DATASET_NAMES,
        help="a known data set, downloaded once if it is not on this machine; mnist-5k needs no "
        "network (default: mnist, or mnist-5k where mnist cannot be had)",
    )
    data.add_argument(
        "--data_dir", type=Path, metavar="DIR", help="where to look for the data set's files first"
    )
    data.add_argument(
        "--train_data",
        type=Path,
        metavar="FILE",
        help="your own training images: CSV with the label first and then the pixels, or the "
        "images file of an IDX pair; may be gzipped",
    )
    data.add_argument("--test_data", type=Path, metavar="FILE", help="your own test images, alike")
    data.add_argument(
        "--image_shape",
        type=image_shape,
        metavar="C,H,W",
        help="channels, rows and columns of a CSV's images (default: one channel, square)",
    )

    data.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="with --predict: a CSV file for the labels, in place of the table",
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--to_path",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="FILE",
        help="where the best model is saved, as JSON (default: %(default)s)",
    )
    model.add_argument(
        "--arch",
        metavar="NAME",
        help=f"the network: {', '.join(architectures)}, or path/to/file.py:function for your own, "
        "which is called as those in run.py are (default: small)",
    )
    model.add_argument("--no_plots", action="store_true", help="draw no pictures beside the model")
    model.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write each epoch's figures there for TensorBoard (pip install tensorboardX)",
    )
    model.add_argument(
        "--from_path",
        type=Path,
        metavar="FILE",
        help=f"a saved model to test, to label with (default: {DEFAULT_MODEL}), or to train on",
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="passes over the images (default: 15; 5 for --arch tiny, 9 for large; more where the "
        "images are so few that it would be under 3,000 steps)",
    )
    training.add_argument(
        "--batch_size",
        type=positive_int,
        default=64,
        metavar="N",
        help="images a step (default: %(default)s)",
    )
    training.add_argument(
        "--learning_rate",
        type=learning_rate,
        default=6e-3,
        metavar="X",
        help="size of the largest steps (default: %(default)s)",
    )
    training.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="one_cycle",
        help="how the learning rate changes: up and down once, down along a cosine, cut at a half "
        "and three quarters of the run, or cut when the validation loss stops falling "
        "(default: %(default)s)",
    )
    training.add_argument(
        "--weight_decay",
        type=not_negative,
        default=1e-3,
        metavar="X",
        help="pull of the weights towards 0 (default: %(default)s)",
    )
    training.add_argument(
        "--label_smoothing",
        type=below_one,
        default=0.1,
        metavar="X",
        help="share of each label that is spread over all classes (default: %(default)s)",
    )
    training.add_argument(
        "--clip_norm",
        type=learning_rate,
        metavar="X",
        help="shorten gradients that are longer than this (default: not)",
    )
    training.add_argument(
        "--augment",
        choices=AUGMENTERS,
        default="shift",
        help="move each image anew every time by up to a fourteenth of its size, or also turn it "
        "by up to 10 degrees and scale it by up to 10 %% (default: %(default)s)",
    )
    training.add_argument(
        "--augmenter_ratio",
        type=int,
        choices=[1, 4],
        default=1,
        help="4: an epoch shows each image as it is and in three moved copies "
        "(default: %(default)s)",
    )
    training.add_argument(
        "--patience",
        type=positive_int,
        metavar="N",
        help="stop after so many epochs in a row without a better one (default: never)",
    )
    training.add_argument(
        "--validation_split",
        type=fraction,
        default=0.1,
        metavar="X",
        help="share of the training images kept back to choose the best epoch by "
        "(default: %(default)s)",
    )
    training.add_argument(
        "--save_every",
        type=positive_int,
        metavar="N",
        help="keep the run for --resume also every so many steps (default: after each epoch)",
    )
    training.add_argument(
        "--seed",
        type=seed,
        metavar="N",
        help="of all that is random (default: 0, or that of the model in --from_path)",
    )

    machine = parser.add_argument_group("arithmetic")
    machine.add_argument(
        "--backend",
        choices=["numba", "scipy", "numpy"],
        default="numba",
        help="numba is fast; scipy and numpy are references, slow (default: %(default)s)",
    )
    machine.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        help="precision (default: float32, or what --from_path was saved with)",
    )
    machine.add_argument(
        "--threads", type=positive_int, metavar="N", help="cores to use (default: all)"
    )

    return parser


def parse(argv, architectures):
    """Return the arguments; of a run that is gone on with, those that it was started with.

    Raises
    ------
    InputError
        When there is no run to go on with.
    """
    parser = make_parser(architectures)
    args = parser.parse_args(argv)
    _check_conflicts(parser, args, _given(parser, argv))
    if args.resume:
        run = TrainingState.open(run_path(args.to_path)).settings
        for name in IMMUTABLE_FLAGS:
            given, was = _as_text(getattr(args, name)), run.get(name)
            if given not in (None, was):
                parser.error(
                    f"--{name}: the run to go on with has {was or 'that of its model'}, not {given}"
                )
        words = [f"--{name}={run[name]}" for name in RESUMED_FLAGS if name in run]
        argv = [*words, *(sys.argv[1:] if argv is None else argv)]
        args = parser.parse_args(argv)
        _check_conflicts(parser, args, _given(parser, argv))
    try:
        args.build = find_architecture("small" if args.arch is None else args.arch, architectures)
    except ValueError as error:
        parser.error(f"argument --arch: {error}")
    return args


# What these actions take; any other flag would be ignored.
ALLOWED_FLAGS = {
    "test": {"dataset", "data_dir", "test_data", "image_shape", "no_plots"},
    "predict": {"image_shape", "output"},
    "find_lr": {
        *("dataset", "data_dir", "train_data", "image_shape", "to_path", "arch", "no_plots"),
        *("batch_size", "weight_decay", "label_smoothing", "clip_norm", "augment"),
        *("validation_split", "seed"),
    },
}
for _flags in ALLOWED_FLAGS.values():
    _flags |= {"from_path", "backend", "dtype", "threads"}


def _given(parser, argv):
    """Return the names of the flags that were typed."""
    absent = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([]))))
    return {
        name for name, value in vars(parser.parse_args(argv, absent)).items() if value is not None
    }


def _check_conflicts(parser, args, given):
    if args.dataset and args.train_data:
        parser.error("--dataset and --train_data both name the training images: give one")
    if args.from_path and args.seed is not None:
        parser.error("--seed is for a new model: the one in --from_path keeps its own")
    if args.from_path and args.arch is not None:
        parser.error("--arch is for a new model: the one in --from_path is built already")
    if args.augment == "none" and args.augmenter_ratio > 1:
        parser.error("--augmenter_ratio shows moved copies, and --augment none makes none")
    if args.test and args.dataset and args.test_data:
        parser.error("--dataset and --test_data both name the test images: give one")
    if args.test and args.train_data:
        parser.error("--test takes its images from --test_data, not from --train_data")
    if args.predict and (args.train_data or args.test_data or args.dataset):
        parser.error("--predict names the images itself, without --train_data or --dataset")
    if args.find_lr and args.from_path:
        parser.error("--find_lr tries the rates on a new model, not on that in --from_path")
    if args.output and not args.predict:
        parser.error("--output is for the labels of --predict")
    if args.image_shape and not (args.train_data or args.test_data or args.predict):
        parser.error("--image_shape is for a CSV file, of --train_data, --test_data or --predict")
    if args.data_dir and args.dataset == "mnist-5k":
        parser.error("--data_dir is where a data set is looked for, and mnist-5k is always here")
    if args.data_dir and (args.train_data or (args.test and args.test_data)):
        parser.error("--data_dir is where a --dataset is looked for, and your own files are named")
    for action, flags in ALLOWED_FLAGS.items():
        if action in given and (ignored := sorted(given - flags - {action})):
            hint = ": name the model with --from_path" if "to_path" in ignored else ""
            parser.error(f"--{ignored[0]} is for training, and --{action} does not use it{hint}")


# What a run that is gone on with takes from its file where the command line is silent. They are
# read as if they had been typed; none of them names code.
RESUMED_FLAGS = (
    "dataset",
    "data_dir",
    "train_data",
    "test_data",
    "image_shape",
    "epochs",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
    "label_smoothing",
    "clip_norm",
    "augment",
    "augmenter_ratio",
    "patience",
    "validation_split",
    "save_every",
    "backend",
    "threads",
)
# What it cannot change; the model in the file has it.
IMMUTABLE_FLAGS = ("arch", "from_path", "seed", "dtype")


def _as_text(value):
    """Return an argument as it could have been typed, in any folder; None for None."""
    if isinstance(value, Path):
        value = value.absolute()
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return None if value is None else str(value)


def settings(args):
    """Return what a run must be gone on with."""
    texts = {name: _as_text(getattr(args, name)) for name in RESUMED_FLAGS + IMMUTABLE_FLAGS}
    if args.from_path is None and not args.resume:
        texts = {"arch": "small", "seed": "0", "dtype": "float32"} | {
            name: text for name, text in texts.items() if text is not None
        }
    return {name: text for name, text in texts.items() if text is not None}


def sibling_path(to_path, what):
    """Return the path of what belongs to a model, such as model-run.json to model.json."""
    name = to_path.stem if to_path.suffix == ".json" else to_path.name
    return to_path.parent / f"{name}-{what}"


def run_path(to_path):
    """Return where the run that writes a model is kept until it ends."""
    return sibling_path(to_path, "run.json")
