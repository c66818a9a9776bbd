"""Errors whose message is for the user; run.py prints it and exits with code 2."""


class InputError(ValueError):
    """The user's file or argument is wrong.

    The message goes to the user as it is: it names the file, the line where there is one, and
    what would be right.
    """


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""
