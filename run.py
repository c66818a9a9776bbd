"""Train and test a convolutional network from the command line: run.py --help."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from layers import BatchNorm, Conv, Dense, Flatten, LeakyRelu, MaxPool, ShapeError, Softmax
from training import (
    Adam,
    DivergedError,
    InputError,
    Model,
    ReduceOnPlateau,
    Reporter,
    ShiftAugmenter,
    split_validation,
)
from training.checkpoint import is_model
from training.datasets import DATASET_NAMES, DownloadError, load_dataset, load_file

DEFAULT_MODEL = Path("models") / "model.json"
LOG_NAME = "training.log"


def build_model(input_shape, classes, **options):
    """Return the network that `--train` trains: edit it here."""
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
        "--from_path",
        type=Path,
        metavar="FILE",
        help=f"a saved model to test (default: {DEFAULT_MODEL}) or to go on training",
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs", type=positive_int, default=10, metavar="N", help="passes (default: %(default)s)"
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
        default=2e-3,
        metavar="X",
        help="size of a step; halved when the validation loss stops falling (default: %(default)s)",
    )
    training.add_argument(
        "--augmenter_ratio",
        type=int,
        choices=[1, 4],
        default=1,
        help="4: each image also in three copies shifted by up to 2 pixels (default: %(default)s)",
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
    if args.dataset and args.train_data:
        parser.error("--dataset and --train_data both name the training images: give one")
    if args.from_path and args.seed is not None:
        parser.error("--seed is for a new model: the one in --from_path keeps its own")
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
        model = build_model(shape, data.n_classes, **options)
    set_threads(model, args)
    images, validation = split_validation(
        data.images, data.labels, args.validation_split, model.seed
    )
    if args.from_path is None:
        model.fit_normalization(images[0])
    model.compile(optimizer=Adam(learning_rate=args.learning_rate))

    reporter = Reporter(args.to_path.parent / LOG_NAME, compiling=args.backend == "numba")
    epochs_before, model_before = len(model.history.get("loss", [])), args.to_path.exists()
    print(model)
    reporter.line(
        f"training on {len(images[0]):,} images of {data.source}, validating on "
        f"{len(validation[0]):,}; {args.backend} backend, {model.dtype.name}"
    )
    try:
        model.train(
            *images,
            epochs=args.epochs,
            batch_size=args.batch_size,
            validation_data=validation,
            augmenter=ShiftAugmenter(args.augmenter_ratio),
            schedule=ReduceOnPlateau(),
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
    if test is not None:
        accuracy = model.evaluate(test.images, test.labels)
        reporter.line(f"test accuracy {accuracy:.2%} on {len(test.images):,} images")
    reporter.line(f"model: {args.to_path} | {time.perf_counter() - start:.1f} s in all")


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
    accuracy = model.evaluate(data.images, data.labels)
    print(f"test accuracy {accuracy:.2%} on {len(data.images):,} images of {data.source}")


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
