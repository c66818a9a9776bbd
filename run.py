"""Train and test a convolutional network from the command line: run.py --help."""

import argparse
import runpy
import sys
import tempfile
import time
from pathlib import Path

from layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    LeakyRelu,
    MaxPool,
    Relu,
    ShapeError,
    Softmax,
)
from training import (
    AUGMENTERS,
    SCHEDULES,
    AdamW,
    DivergedError,
    InputError,
    Model,
    Reporter,
    pictures,
    split_validation,
)
from training.checkpoint import is_model
from training.datasets import DATASET_NAMES, DownloadError, load_dataset, load_file
from training.evaluation import class_accuracies, confusion_matrix

DEFAULT_MODEL = Path("models") / "model.json"
LOG_NAME = "training.log"
MOST_NAMED = 30  # classes whose accuracies are printed


def tiny(input_shape, classes, **options):
    """A first impression in seconds."""
    model = Model(input_shape, **options)
    model.add(Conv(8, kernel_size=5, stride=2, padding="same"))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(MaxPool(2))
    model.add(Flatten())
    model.add(Dense(64))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(Dense(classes, initializer="glorot"))
    model.add(Softmax())
    return model


def small(input_shape, classes, **options):
    """Few filters and large fully connected layers: good, and fast."""
    model = Model(input_shape, **options)
    model.add(Conv(5, kernel_size=5, padding="same"))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(MaxPool(2))
    model.add(Conv(5, kernel_size=3, padding="same"))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(MaxPool(2))
    model.add(Flatten())
    model.add(Dense(256))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(Dense(256))
    model.add(BatchNorm())
    model.add(LeakyRelu())
    model.add(Dense(classes, initializer="glorot"))
    model.add(Softmax())
    return model


def wide(input_shape, classes, **options):
    """Many filters, twice before each pooling."""
    model = Model(input_shape, **options)
    for filters in (32, 64):
        for _ in range(2):
            model.add(Conv(filters, kernel_size=3, padding="same"))
            model.add(BatchNorm())
            model.add(Relu())
        model.add(MaxPool(2))
    model.add(Flatten())
    model.add(Dense(128))
    model.add(Relu())
    model.add(Dense(classes, initializer="glorot"))
    model.add(Softmax())
    return model


def large(input_shape, classes, **options):
    """For the best accuracy: minutes instead of seconds."""
    model = Model(input_shape, **options)
    for filters in (24, 48, 96):
        for _ in range(2):
            model.add(Conv(filters, kernel_size=3, padding="same"))
            model.add(BatchNorm())
            model.add(LeakyRelu())
        model.add(MaxPool(2))
    model.add(Flatten())
    model.add(Dense(classes, initializer="glorot"))
    model.add(Softmax())
    return model


ARCHITECTURES = {"tiny": tiny, "small": small, "wide": wide, "large": large}
EPOCHS = {tiny: 5, large: 9}  # where it is not 15: what a few seconds and five minutes are for


def positive_int(text):
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be 1 or more and below 2**31, got {text}")
    return number


def seed(text):
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be 0 to 2147483647, got {text}")
    return number


def learning_rate(text):
    number = float(text)
    if not 0 < number <= 10:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 10, got {text}")
    return number


def fraction(text):
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return number


def not_negative(text):
    number = float(text)
    if not 0 <= number <= 10:
        raise argparse.ArgumentTypeError(f"must be 0 to 10, got {text}")
    return number


def below_one(text):
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return number


def architecture(text):
    """Return a function that builds a network: one of ours, or one from the user's own file."""
    if text in ARCHITECTURES:
        return ARCHITECTURES[text]
    file, colon, name = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(ARCHITECTURES)} or path/to/file.py:function, got {text!r}"
        )
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {file!r}")
    try:
        found = runpy.run_path(file)  # which leaves no compiled file beside it, as import would
    except Exception as error:
        raise argparse.ArgumentTypeError(
            f"{file!r} cannot be run: {type(error).__name__}: {error}"
        ) from None
    function = found.get(name)
    if not callable(function):
        raise argparse.ArgumentTypeError(f"{file!r} has no function {name!r}")
    return function


def image_shape(text):
    try:
        C, H, W = (positive_int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be C,H,W such as 3,32,32, got {text!r}") from None
    return C, H, W


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Train a convolutional network that tells images apart, or test one. "
        "Without any argument it trains on MNIST, and saves the best model of the run.",
        epilog="Examples:  run.py --epochs 3   |   run.py --test   |   "
        "run.py --train_data mine.csv --test_data mine_too.csv --to_path models/mine.json",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--train", action="store_true", help="train a model (the default)")
    action.add_argument("--test", action="store_true", help="measure a saved model's accuracy")

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
        type=architecture,
        default="small",
        metavar="NAME",
        help=f"the network: {', '.join(ARCHITECTURES)}, or path/to/file.py:function for your own, "
        "which is called as those in run.py are (default: %(default)s)",
    )
    model.add_argument("--no_plots", action="store_true", help="draw no pictures beside the model")
    model.add_argument(
        "--from_path",
        type=Path,
        metavar="FILE",
        help=f"a saved model to test (default: {DEFAULT_MODEL}) or to go on training",
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="passes over the images (default: 15; 5 for --arch tiny, 9 for large)",
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
        help="move each image anew every time by up to 7 %% of its size, or also turn it by up to "
        "10 degrees and scale it by up to 10 %% (default: %(default)s)",
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

    args = parser.parse_args(argv)
    if args.epochs is None:
        args.epochs = EPOCHS.get(args.arch, 15)
    if args.dataset and args.train_data:
        parser.error("--dataset and --train_data both name the training images: give one")
    if args.from_path and args.seed is not None:
        parser.error("--seed is for a new model: the one in --from_path keeps its own")
    if args.augment == "none" and args.augmenter_ratio > 1:
        parser.error("--augmenter_ratio shows moved copies, and --augment none makes none")
    if args.from_path and args.arch is not ARCHITECTURES["small"]:
        parser.error("--arch is for a new model: the one in --from_path is built already")
    if args.test and args.dataset and args.test_data:
        parser.error("--dataset and --test_data both name the test images: give one")
    if args.test and args.train_data:
        parser.error("--test takes its images from --test_data, not from --train_data")
    return args


def load_known(name, data_dir):
    """Return a data set's training and test images; without a name, MNIST or what is at hand."""
    if name is not None:
        return load_dataset(name, data_dir)
    try:
        return load_dataset("mnist", data_dir)
    except DownloadError:
        print(
            "MNIST is neither on this machine nor to be downloaded now: using the 5,000 images "
            "that come with the program. For all 70,000, connect to the network, or put the four "
            "IDX files into a folder and name it with --data_dir.",
            flush=True,
        )
        return load_dataset("mnist-5k")


def load_data(args):
    """Return the training images and the test images, None where there are none."""
    if args.train_data is None:
        train, test = load_known(args.dataset, args.data_dir)
    else:
        train, test = load_file(args.train_data, args.image_shape), None
    if args.test_data is not None:
        test = load_file(args.test_data, args.image_shape, train.n_classes)
        check_shape(test, train.images.shape[1:], train.source)
    return train, test


def check_shape(data, shape, owner):
    if data.images.shape[1:] != tuple(shape):
        raise InputError(
            f"{data.source}: its images are {data.images.shape[1:]} (channels, rows, columns), "
            f"those of {owner} are {tuple(shape)}: they must be alike"
        )


def build_model(function, shape, classes, **options):
    """Build a network by one of ours, or by a function of the user's, which may go wrong."""
    if function in ARCHITECTURES.values():
        return function(shape, classes, **options)
    try:
        model = function(shape, classes, **options)
    except Exception as error:
        raise InputError(f"--arch: {type(error).__name__}: {error}") from error
    if not isinstance(model, Model) or model.input_shape != tuple(shape):
        raise InputError(f"--arch: the function must return a Model for images of {tuple(shape)}")
    if model.classes != classes:
        raise InputError(f"--arch: the model tells {model.classes} classes apart, not {classes}")
    return model


def train(args):
    start = time.perf_counter()
    prepare_target(args.to_path)
    data, test = load_data(args)
    shape = data.images.shape[1:]
    if args.from_path is not None:
        model = Model.load(args.from_path, args.backend, args.dtype)
        check_shape(data, model.input_shape, args.from_path)
        if model.classes < data.n_classes:
            raise InputError(
                f"{data.source}: has {data.n_classes} classes, but {args.from_path} tells "
                f"{model.classes} apart: train a new model, without --from_path"
            )
    else:
        options = {
            "backend": args.backend,
            "dtype": args.dtype or "float32",
            "seed": args.seed or 0,
        }
        model = build_model(args.arch, shape, data.n_classes, **options)
    set_threads(model, args)
    training, validation = split_validation(
        data.images, data.labels, args.validation_split, model.seed
    )
    if args.from_path is None:
        model.fit_normalization(training[0])
    optimizer = AdamW(args.learning_rate, weight_decay=args.weight_decay, clip_norm=args.clip_norm)
    model.compile(optimizer, args.label_smoothing)

    stem = args.to_path.with_suffix("")
    reporter = Reporter(
        args.to_path.parent / LOG_NAME,
        compiling=args.backend == "numba",
        history_path=stem.with_name(f"{stem.name}-history.csv"),
    )
    epochs_before, model_before = len(model.history.get("loss", [])), args.to_path.exists()
    print(model)
    reporter.line(
        f"training on {len(training[0]):,} images of {data.source}, validating on "
        f"{len(validation[0]):,}; {args.backend} backend, {model.dtype.name}"
    )
    try:
        model.train(
            *training,
            epochs=args.epochs,
            batch_size=args.batch_size,
            validation_data=validation,
            augmenter=AUGMENTERS[args.augment](),
            augmenter_ratio=args.augmenter_ratio,
            schedule=SCHEDULES[args.schedule](),
            patience=args.patience,
            to_path=args.to_path,
            reporter=reporter,
        )
    except KeyboardInterrupt:
        if len(model.history.get("loss", [])) > epochs_before:
            state = f"the best model so far is {args.to_path}"
        elif model_before:
            state = f"no epoch had ended, so {args.to_path} is the earlier model as it was"
        else:
            state = f"no epoch had ended; {args.to_path} is the model as it stood"
        reporter.line(f"stopped; {state}")
        raise
    if test is None:
        name, (images, labels) = "validation", validation
    else:
        name, images, labels = "test", test.images, test.labels
    summarize(model, images, labels, name, stem, args.no_plots, reporter.line)
    reporter.line(f"model: {args.to_path} | {time.perf_counter() - start:.1f} s in all")


def summarize(model, images, labels, name, stem, no_plots, line):
    """Print how good a model is, class by class, and draw it."""
    logits = model.logits(images)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), model.classes)
    line(f"{name} accuracy {confusion.trace() / len(images):.2%} on {len(images):,} images")
    if model.classes <= MOST_NAMED:
        shares = class_accuracies(confusion)
        line("by class: " + ", ".join(f"{c} {share:.1%}" for c, share in enumerate(shares)))
    if no_plots:
        return
    if not pictures.can_draw():
        line(f"no pictures: they need matplotlib ({pictures.INSTALL}), or say --no_plots")
        return
    drawn = pictures.draw_all(model, images, labels, logits, stem)
    line("pictures: " + ", ".join(map(str, drawn)))


def test(args):
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.test_data is not None:
        C, H, W = model.input_shape
        square = C == 1 and H == W
        shape = args.image_shape or (None if square else model.input_shape)
        data = load_file(args.test_data, shape, model.classes)
    else:
        data = load_dataset(args.dataset or "mnist", args.data_dir)[1]
    check_shape(data, model.input_shape, path)
    if data.n_classes > model.classes:
        raise InputError(
            f"{data.source}: has {data.n_classes} classes, but {path} tells {model.classes} "
            "apart: name its own test images with --test_data or --dataset"
        )
    print(f"{path} on {data.source}")
    summarize(model, data.images, data.labels, "test", path.with_suffix(""), args.no_plots, print)


def set_threads(model, args):
    if args.threads is not None:
        try:
            model.backend.set_threads(args.threads)
        except ValueError as error:
            raise InputError(f"--{error}") from None


def prepare_target(path):
    """Find out before the training, not after it, that the model could not be saved."""
    if path.is_dir():
        raise InputError(f"--to_path {path}: is a directory; name a file in it")
    if path.name == LOG_NAME or (path.exists() and not is_model(path)):
        raise InputError(f"--to_path {path}: is no model, and would be overwritten; name another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"--to_path {path}: cannot be written: {error.strerror}; name a path that can"
        ) from None


def main(argv=None):
    """Run the command line and return its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    args = parse_arguments(argv)
    try:
        if args.test:
            test(args)
        else:
            train(args)
    except KeyboardInterrupt:
        return 130
    except (InputError, ShapeError, DivergedError, ImportError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
