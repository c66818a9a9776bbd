"""Tables and shortened names in columns of a terminal."""

import doctest

import pytest

from training.reporting import text_table
from training.reporting.text_table import format_table, shorten, text_width


def test_examples_of_the_documentation():
    failed, attempted = doctest.testmod(text_table)
    assert attempted
    assert not failed


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("cat", 3), ("\u732b\u732b", 4), ("e\u0301", 1), ("\uff21", 2)]
)
def test_width_in_columns(text, width):
    assert text_width(text) == width


@pytest.mark.parametrize("text", ["x" * 300, "\u732b" * 30, "e\u0301" * 100, "a\u732b" * 50])
@pytest.mark.parametrize("width", [5, 10, 11, 24])
def test_shortened_text_has_its_begin_and_end(text, width):
    short = shorten(text, width)
    assert width - 3 <= text_width(short) <= width
    begin, end = short.split("...")
    assert text.startswith(begin)
    assert text.endswith(end)
    assert shorten(text[:2], width) == text[:2]


def test_columns_of_a_table_are_aligned():
    rows = [("name", "n"), ("\u732b", "10"), ("a longer name", "7")]
    lines = format_table(rows, "<>")
    assert [text_width(line) for line in lines] == [17] * 3
    assert lines[1] == "\u732b" + " " * 13 + "10"
