"""Train and test a convolutional network from the command line: run.py --help."""

import os
import signal
import sys

if __name__ == "__main__":  # until `main` begins: loading what follows takes half a second
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

import math
import time

import filelock

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
    TrainingState,
    split_validation,
)
from training.cli import arguments
from training.cli.arguments import DEFAULT_MODEL, one_line
from training.cli.output_paths import (
    LOG_NAME,
    check_output,
    prepare_folder,
    prepare_training,
    write_table,
)
from training.datasets import DownloadError, load_dataset, load_file, load_predict_inputs
from training.evaluation import class_accuracies, confusion_matrix
from training.lr_finder import find_learning_rate
from training.reporting import plots
from training.saving.atomic_file import remove_leftovers
from training.saving.model_file import to_document

MAX_LISTED_CLASSES = 30  # classes whose accuracies are printed


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
# Few images need more epochs: 1,000 images of 8x8 pixels were learned to 94 % in 240 steps, to 97 %
# in 1,500 and no better in 3,000. MNIST has 844 steps an epoch.
MIN_STEPS = 3000


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
        try:
            return function(shape, classes, **options)
        except ShapeError as error:
            raise InputError(
                f"--arch {function.__name__}: images of {tuple(shape)} (channels, rows, columns) "
                f"do not fit: {error}"
            ) from None
    try:
        model = function(shape, classes, **options)
        if not isinstance(model, Model) or model.input_shape != tuple(shape):
            raise ValueError(f"the function must return a Model for images of {tuple(shape)}")
        if model.classes != classes:
            raise ValueError(f"the model tells {model.classes} classes apart, not {classes}")
        to_document(model)  # what cannot be saved is not trained
    except (Exception, SystemExit) as error:
        raise InputError(f"--arch: {one_line(error)}") from error
    return model


def default_epochs(args, images):
    """Return how many epochs to train for where the user has not said it."""
    steps = math.ceil(images * args.augmenter_ratio / args.batch_size)
    return max(EPOCHS.get(args.build, 15), math.ceil(MIN_STEPS / steps))


def get_model(args, data):
    """Return the model to train: a new one, or a saved one that takes these images."""
    shape = data.images.shape[1:]
    path = arguments.run_path(args.to_path) if args.resume else args.from_path
    if path is None:
        options = {
            "backend": args.backend,
            "dtype": args.dtype or "float32",
            "seed": args.seed or 0,
        }
        return build_model(args.build, shape, data.n_classes, **options)
    model = Model.load(path, args.backend, args.dtype)
    check_shape(data, model.input_shape, path)
    if model.classes < data.n_classes:
        raise InputError(
            f"{data.source}: has {data.n_classes} classes, but {path} tells "
            f"{model.classes} apart: train a new model, without --from_path"
        )
    return model


def prepare(args, data):
    """Return a compiled model on the chosen threads, and its training and validation images."""
    model = get_model(args, data)
    set_threads(model, args)
    try:
        training, validation = split_validation(
            data.images, data.labels, args.validation_split, model.seed
        )
        if args.from_path is None and not args.resume:
            model.fit_normalization(training[0])
    except ValueError as error:
        raise InputError(f"{data.source}: {error}") from None
    optimizer = AdamW(args.learning_rate, weight_decay=args.weight_decay, clip_norm=args.clip_norm)
    return model.compile(optimizer, args.label_smoothing), training, validation


def train(args):
    """Train a model, while no other run writes to the same place."""
    if args.to_path.is_symlink():  # the file that it leads to is replaced, and not the link
        args.to_path = args.to_path.resolve()
    given = [args.train_data, args.test_data, args.from_path]
    prepare_training(args.to_path, given, not args.no_plots)
    run_path = arguments.run_path(args.to_path)
    lock = filelock.FileLock(run_path.parent / f".{run_path.name}.lock", timeout=0)
    try:
        with lock:
            for path in (
                args.to_path,
                run_path,
                arguments.sibling_path(args.to_path, "history.csv"),
            ):
                remove_leftovers(path)
            train_alone(args)
    except filelock.Timeout:
        raise InputError(
            f"--to_path {args.to_path}: another run is writing there: wait for it, or name another"
        ) from None


def train_alone(args):
    start = time.perf_counter()
    run_path = arguments.run_path(args.to_path)
    data, test = load_data(args)
    model, training, validation = prepare(args, data)
    if args.epochs is None:
        args.epochs = default_epochs(args, len(training[0]))
    reporter = Reporter(
        args.to_path.parent / LOG_NAME,
        compiling=args.backend == "numba",
        history_path=arguments.sibling_path(args.to_path, "history.csv"),
        tensorboard=args.tensorboard,
    )
    if args.resume:
        run_file = TrainingState.open(run_path)
        run_file.settings |= arguments.settings(args)
        reporter.line(f"going on with the run of {run_path}")
    else:
        run_file = TrainingState(run_path, arguments.settings(args))
        if run_path.exists():
            reporter.line(f"beginning anew: {run_path} could have been gone on with by --resume")
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
            run_file=run_file,
            save_every=args.save_every,
        )
    except KeyboardInterrupt:
        if len(model.history.get("loss", [])) > epochs_before:
            state = f"the best model so far is {args.to_path}"
        elif model_before:
            state = f"no epoch had ended, so {args.to_path} is as it was"
        else:
            state = f"no epoch had ended; {args.to_path} is the model as it stood"
        reporter.line(f"stopped; {state}" + ("; --resume goes on" if run_file.saved else ""))
        raise
    if test is None:
        name, (images, labels) = "validation", validation
    else:
        name, images, labels = "test", test.images, test.labels
    summarize(model, images, labels, name, args.to_path, args.no_plots, reporter.line)
    reporter.line(f"model: {args.to_path} | {time.perf_counter() - start:.1f} s in all")


def find_lr(args):
    """Print a good learning rate for a new network, and draw how it was found."""
    path = arguments.sibling_path(args.to_path, "find_lr.png")
    if not args.no_plots:
        prepare_folder(path)
    data, _ = load_data(args)
    model, (images, labels), _ = prepare(args, data)
    rates, losses, best = find_learning_rate(
        model, images, labels, args.batch_size, AUGMENTERS[args.augment]()
    )
    print(
        f"tried {len(rates)} steps from {rates[0]:g} to {rates[-1]:.2g}; the loss is lowest, "
        f"{losses.min():.3f}, at {2 * best:.2g}\nsuggestion: --learning_rate {best:.2g}"
    )
    if can_draw(args.no_plots, print):
        plots.rates(rates, losses, best, path)
        print(f"picture: {path}")


def summarize(model, images, labels, name, path, no_plots, line, history=True):
    """Print how good a model is, class by class, and draw it, beside its file."""
    logits = model.logits(images)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), model.classes)
    line(f"{name} accuracy {confusion.trace() / len(images):.2%} on {len(images):,} images")
    if model.classes <= MAX_LISTED_CLASSES:
        shares = class_accuracies(confusion)
        told = ("no images" if math.isnan(share) else f"{share:.1%}" for share in shares)
        line("by class: " + ", ".join(f"{c} {share}" for c, share in enumerate(told)))
    if not can_draw(no_plots, line):
        return
    pattern = arguments.sibling_path(path, "{}.png")
    drawn = plots.draw_all(model, images, labels, logits, pattern, history)
    line("pictures: " + ", ".join(map(str, drawn)))


def can_draw(no_plots, line):
    """Return whether pictures are wanted and can be drawn; say so if it is the latter."""
    if no_plots:
        return False
    if not plots.can_draw():
        line(f"no pictures: they need matplotlib ({plots.INSTALL}), or say --no_plots")
        return False
    return True


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
        data = load_known(args.dataset, args.data_dir)[1]
    check_shape(data, model.input_shape, path)
    if data.n_classes > model.classes:
        raise InputError(
            f"{data.source}: has {data.n_classes} classes, but {path} tells {model.classes} "
            "apart: name its own test images with --test_data or --dataset"
        )
    print(f"{path} on {data.source}")
    # A saved model knows its history up to its best epoch: the curves of the run show more.
    summarize(model, data.images, data.labels, "test", path, args.no_plots, print, history=False)


def predict(args):
    """Label images, as a table or into a CSV file."""
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.output is not None:
        check_output(args.output, [args.predict, path])
    names, images, labels = load_predict_inputs(
        args.predict, model.input_shape, model.pixels, args.image_shape, model.classes
    )
    shares = model.predict_proba(images)
    guesses = shares.argmax(axis=1)
    rows = [
        (name, guess, f"{share[guess]:.4f}")
        for name, guess, share in zip(names, guesses, shares, strict=True)
    ]
    if args.output is None:
        width = max(5, *map(len, names))
        print(f"{'image':<{width}}  label  probability")
        for name, guess, share in rows:
            print(f"{name:<{width}}  {guess:>5}  {share:>11}")
    else:
        write_table([("image", "label", "probability"), *rows], args.output)
        print(f"{len(rows):,} labels by {path} in {args.output}")
    if labels is not None:
        print(f"{(guesses == labels).mean():.2%} are labelled so in {args.predict}")


def set_threads(model, args):
    if args.threads is not None:
        try:
            model.backend.set_threads(args.threads)
        except ValueError as error:
            raise InputError(f"--threads {args.threads}: {error}") from None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def terminate(number, frame):
    raise Terminated


def main(argv=None):
    """Run the command line and return its exit code.

    0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 141 when what it prints is not read.
    """
    prepare_output()
    try:
        args = arguments.parse(argv, ARCHITECTURES)
        if args.test:
            test(args)
        elif args.predict is not None:
            predict(args)
        elif args.find_lr:
            find_lr(args)
        else:
            train(args)
    except KeyboardInterrupt as interrupt:
        return 143 if isinstance(interrupt, Terminated) else 130
    except BrokenPipeError:  # whoever reads what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (InputError, ShapeError, DivergedError, ImportError, OSError) as error:
        message = str(error)
        # Those that are not ours do not say all.
        if isinstance(error, OSError) and error.errno:
            message = f"{error.filename or 'what is printed'}: {error.strerror}"
        elif isinstance(error, ImportError) and error.name:
            message = f"the package {error.name!r} is missing: pip install {error.name}"
        print_error(message)
        return 2
    except MemoryError as error:
        print_error(f"out of memory: {error}; use fewer or smaller images")
        return 2
    return 0


def prepare_output():
    """See that what is printed neither ends the program nor is lost where it need not be."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the program
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_error(message):
    try:
        print(f"run.py: {message}", file=sys.stderr, flush=True)
    except OSError:  # no one can be told; Python would try it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done: a second one changes nothing
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
