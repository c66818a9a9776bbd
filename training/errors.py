"""What run.py turns into exit code 2."""


class InputError(ValueError):
    """The user's file or argument is wrong.

    The message is for the user, as it stands: it names the file, the line where there is one,
    and what would be right.
    """


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""
