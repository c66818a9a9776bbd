"""Train and test a convolutional network from the command line: run.py --help."""

import os
import signal
import sys

if __name__ == "__main__":  # until `main` runs, because the imports below take half a second
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

from layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    ShapeError,
    Softmax,
)
from training import DivergedError, InputError, Model
from training.cli import arguments
from training.cli.architectures import Networks, Recipe
from training.cli.evaluate import evaluate
from training.cli.find_lr import find_lr
from training.cli.predict import predict
from training.cli.show_data import show_data
from training.cli.train import train


def conv_norm_relu(filters, kernel_size=3, **options):
    """Return the layers of a convolution with batch normalization and a ReLU."""
    conv = Conv(filters, kernel_size, padding="same", use_bias=False, **options)
    return conv, BatchNorm(), Relu()


def compact(input_shape, classes, **options):
    """Return the network for digits and other small images in gray.

    Its first convolution keeps every second row and column, so that the others take a quarter of
    the time; images of less than 20 pixels a side have none to spare.
    """
    model = Model(input_shape, **options)
    stride = 2 if min(input_shape[1:]) >= 20 else 1
    layers = [*conv_norm_relu(16, kernel_size=5, stride=stride)]
    layers += [*conv_norm_relu(32), MaxPool(2), *conv_norm_relu(48), *conv_norm_relu(48)]
    layers += [GlobalMaxPool(), Dense(classes, initializer="glorot"), Softmax()]
    for layer in layers:
        model.add(layer)
    return model


def tiny(input_shape, classes, **options):
    """Return a network for a first impression, in seconds."""
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


def ancestor(input_shape, classes, **options):
    """Return the network of this program's ancestor: few filters, large fully connected layers."""
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
    """Return a network of many filters, with two convolutions before each pooling."""
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
    """Return the network of the best accuracy, which trains in minutes."""
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


def resnet(input_shape, classes, **options):
    """Return a residual network for color images, after the ResNet-9 of David Page (2018).

    Of images of 48 pixels a side or more, its first convolution keeps every second row and column:
    the few that can be shown in a minute are then four times as many.
    """
    model = Model(input_shape, **options)
    stride = 2 if min(input_shape[1:]) >= 48 else 1
    layers = [*conv_norm_relu(32, stride=stride), *conv_norm_relu(64), MaxPool(2)]
    layers += [Residual(*conv_norm_relu(64), *conv_norm_relu(64))]
    layers += [*conv_norm_relu(128), MaxPool(2), *conv_norm_relu(256), MaxPool(2)]
    layers += [Residual(*conv_norm_relu(256), *conv_norm_relu(256))]
    layers += [GlobalMaxPool(), Dense(classes, initializer="glorot"), Softmax()]
    for layer in layers:
        model.add(layer)
    return model


def mobile(input_shape, classes, **options):
    """Return a network of depthwise separable convolutions, after MobileNet (Howard 2017).

    It has about a twelfth of the parameters of `resnet`.
    """
    model = Model(input_shape, **options)
    for layer in conv_norm_relu(32):
        model.add(layer)
    channels = 32
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        for layer in (
            *conv_norm_relu(channels, stride=stride, groups=channels),
            *conv_norm_relu(filters, kernel_size=1),
        ):
            model.add(layer)
        channels = filters
    model.add(GlobalAvgPool())
    model.add(Dense(classes, initializer="glorot"))
    model.add(Softmax())
    return model


ARCHITECTURES = {
    "tiny": tiny,
    "compact": compact,
    "ancestor": ancestor,
    "wide": wide,
    "large": large,
    "resnet": resnet,
    "mobile": mobile,
}


def default_network(input_shape):
    """Return the function that builds the default network for images (C, H, W)."""
    C, H, W = input_shape
    return resnet if C > 1 and min(H, W) >= 16 else compact


# `tiny` takes a few seconds on MNIST, `compact` about twenty, `large` four minutes; `resnet` takes
# about ten minutes on CIFAR-10.
NETWORKS = Networks(
    choose=default_network,
    recipes={
        tiny: Recipe(epochs=5),
        compact: Recipe(epochs=8, photo_epochs=16, weight_decay=1e-2),
        large: Recipe(epochs=9),
        resnet: Recipe(
            epochs=8,
            optimizer="muon",
            learning_rate=0.1,
            weight_decay=0.1,
            batch_size=256,
            label_smoothing=0.2,
        ),
    },
)


class TerminatedError(KeyboardInterrupt):
    """Raised by SIGTERM, which ends a run as Ctrl-C does."""


def raise_terminated(number, frame):
    raise TerminatedError


def main(argv=None):
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments of the command line; by default, those of this process.

    Returns
    -------
    int
        0 after success, 2 for wrong arguments or input, 130 after Ctrl-C, 143 after SIGTERM, 141
        if the reader of the output has closed it.
    """
    prepare_streams()
    try:
        args = arguments.parse(argv, ARCHITECTURES)
        if args.test:
            evaluate(args)
        elif args.predict is not None:
            predict(args)
        elif args.find_lr:
            find_lr(args, NETWORKS)
        elif args.show_data:
            show_data(args, NETWORKS)
        else:
            train(args, NETWORKS)
    except KeyboardInterrupt as interrupt:
        return 143 if isinstance(interrupt, TerminatedError) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (InputError, ShapeError, DivergedError, ImportError, OSError) as error:
        message = str(error)
        # The messages of other packages and of the system do not say everything.
        if isinstance(error, OSError) and error.errno:
            message = f"{error.filename or 'standard output'}: {error.strerror}"
        elif isinstance(error, ImportError) and error.name:
            message = f"the package {error.name!r} is missing: pip install {error.name}"
        print_error(message)
        return 2
    except MemoryError as error:
        print_error(f"out of memory: {error}; use fewer or smaller images")
        return 2
    return 0


def prepare_streams():
    """Make printing safe if a stream is closed, or cannot encode a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the process that started this one
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_error(message):
    try:
        print(f"run.py: {message}", file=sys.stderr, flush=True)
    except OSError:  # the message is lost, and Python must not try to write it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, raise_terminated)
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # the work is done, and the exit code known
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
