"""What the tests that call functions with random arguments, or on damaged files, share."""

import numpy as np

import training

SHORT, LONG = 500, 20_000  # calls in the default and in the long mode


def outcome(function, arguments):
    """Return what a call returns, or the error that it raises."""
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except (ValueError, TypeError, training.DivergedError) as error:
        return error
