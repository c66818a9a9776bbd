"""Tables and names as text, in columns of a terminal."""

import unicodedata
from collections.abc import Iterable, Sequence


def text_width(text: str) -> int:
    """Return how many columns a terminal uses for a printable text.

    Characters of East Asian scripts take two columns, and combining marks take none.

    Examples
    --------
    >>> text_width("cat"), text_width("\u732b")
    (3, 2)
    """
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """Return a text of at most so many columns: of a longer one, the begin and the end.

    Parameters
    ----------
    text : str
    width : int
        At least 5.

    Examples
    --------
    >>> shorten("a long name of a class", 11)
    'a lo...lass'
    """
    if text_width(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{_prefix(text, half)}...{_prefix(text[::-1], half)[::-1]}"


def _prefix(text: str, width: int) -> str:
    """Return the longest prefix of at most so many columns."""
    for index, char in enumerate(text):
        width -= _char_width(char)
        if width < 0:
            return text[:index]
    return text


def format_table(rows: Iterable[Sequence[str]], alignment: str) -> list[str]:
    """Return the lines of a table, whose columns are as wide as their widest cells.

    Parameters
    ----------
    rows : iterable of sequence of str
    alignment : str
        One character for each column: "<" or ">".

    Examples
    --------
    >>> format_table([("class", "images"), ("cat", "5")], "<>")
    ['class  images', 'cat         5']
    """
    rows = list(rows)
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_pad, row, widths, alignment)).rstrip() for row in rows]


def _pad(cell: str, width: int, side: str) -> str:
    spaces = " " * (width - text_width(cell))
    return cell + spaces if side == "<" else spaces + cell
