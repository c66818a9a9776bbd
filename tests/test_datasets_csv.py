"""CSV files, good and bad."""

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training.datasets import csv_labels, csv_text, gzip_file, load_images
from training.errors import InputError
from training.input_format import InputFormat, default_class_names

ROOT = Path(__file__).parents[1]

ROWS = "0,1,2,3,4\n1,5,6,7,255\n"
PIXELS = [[1, 2, 3, 4], [5, 6, 7, 255]]


def write(tmp_path: Path, content: str | bytes, name: str = "images.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zip_files(contents: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ROWS, id="plain"),
        pytest.param("label,a,b,c,d\n" + ROWS, id="header"),
        pytest.param("\n \n\nlabel,a,b,c,d\n\n" + ROWS, id="blank lines above the header"),
        pytest.param("label,0,1,2,3\n" + ROWS, id="header that counts from 0"),
        pytest.param("label,1,2,3,4\n" + ROWS, id="header that counts from 1"),
        pytest.param('"label, 0-9",a,b,c,d\n' + ROWS, id="comma in the header"),
        pytest.param("\ufeff" + ROWS, id="BOM"),
        pytest.param("\ufefflabel,a,b,c,d\n" + ROWS, id="BOM and header"),
        pytest.param("étiquette,a,b,c,d\n" + ROWS, id="UTF-8 header"),
        pytest.param(ROWS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(ROWS.replace("\n", "\r"), id="CR"),
        pytest.param(ROWS.replace("\n", ",\n"), id="trailing commas"),
        pytest.param(ROWS.replace("\n", ",,,\n"), id="several trailing commas"),
        pytest.param("label,a,b,c,d\n" + ROWS.replace("\n", ",\n"), id="commas under a header"),
        pytest.param(ROWS[:-1] + ", \n", id="trailing comma on the last line only"),
        pytest.param(ROWS.replace("\n", "\n\n  \n"), id="blank lines"),
        pytest.param('"0","1","2","3","4"\n"1","5","6","7","255"\n', id="quoted"),
        pytest.param(ROWS.replace(",", " , "), id="spaces"),
        pytest.param(ROWS.replace(",", ".0,"), id="whole numbers with a decimal point"),
        pytest.param(ROWS.rstrip("\n"), id="no newline at the end"),
        pytest.param(ROWS.replace(",", ".,"), id="a point without decimals"),
        pytest.param(ROWS.replace("2", "0002"), id="leading zeros"),
        pytest.param(ROWS.replace(",", "e0,"), id="exponents"),
        pytest.param(ROWS.replace(",", "\t,\t"), id="tabs"),
        pytest.param(ROWS.replace("\n", "," * 300 + "\n"), id="300 trailing commas"),
        pytest.param(ROWS.replace(",", ";"), id="semicolons"),
        pytest.param(ROWS.replace(",", " ; "), id="spaces around semicolons"),
        pytest.param(ROWS.replace(",", ";").replace("\n", ";;\n"), id="trailing semicolons"),
        pytest.param("label;a;b;c;d\n" + ROWS.replace(",", ";"), id="semicolons and a header"),
        pytest.param('"label, 0-9";a;b;c;d\n' + ROWS.replace(",", ";"), id="comma in a name"),
        pytest.param("label;0-9,a,b,c,d\n" + ROWS, id="semicolon in a name"),
        pytest.param(ROWS.replace(",", "\t"), id="tabs as separators"),
        pytest.param(ROWS.replace(",", "\t").replace("\n", "\t\n"), id="trailing tabs"),
        pytest.param(ROWS.replace(",", " \t "), id="spaces around tabs"),
        pytest.param("label\ta\tb\tc\td\n" + ROWS.replace(",", "\t"), id="tabs and a header"),
        pytest.param(ROWS.replace(",", "\t;"), id="tabs before semicolons"),
        pytest.param('"label"\t"a"\t"b"\t"c"\t"d"\n' + ROWS.replace(",", "\t"), id="quoted names"),
        pytest.param("01,1,2,3,4\n1.0,5,6,7,255\n".replace("01", "00"), id="00 and 1.0"),
        pytest.param(",label,a,b,c,d\n0,0,1,2,3,4\n1,1,5,6,7,255\n", id="index of pandas"),
        pytest.param("Unnamed: 0;label;0;1;2;3\n7;0;1;2;3;4\n;1;5;6;7;255\n", id="Unnamed: 0"),
        pytest.param("id,digit,a,b,c,d\nq,0,1,2,3,4\nr,1,5,6,7,255\n", id="text in the index"),
        pytest.param(',index,label,0,1,2,3\n"0",x,0,1,2,3,4\n,,1,5,6,7,255\n', id="two indices"),
        pytest.param("a,b,c,d,Class\n1,2,3,4,0\n5,6,7,255,1\n", id="labels last"),
        pytest.param("1,2,3,4,target\n1,2,3,4,0\n5,6,7,255,1,\n", id="labels last, numbers"),
        pytest.param("a,b,LABELS,c,d\n1,2,0,3,4\n5,6,1,7,255\n", id="labels in the middle"),
        pytest.param("px3,px1,label,px0,px2\n4,2,0,1,3\n255,6,1,5,7\n", id="pixels in disorder"),
        pytest.param("label,1x2,2x1,2x2,1x1\n0,2,3,4,1\n1,6,7,255,5\n", id="rows and columns"),
        pytest.param(
            "label,p10,p2,p1,p02\n0,1,2,3,4\n1,5,6,7,255\n".replace("p02", "p2"), id="equal names"
        ),
        pytest.param("label,r9,r8,r7,g1\n0,1,2,3,4\n1,5,6,7,255\n", id="several prefixes"),
    ],
)
@pytest.mark.parametrize("packed", ["as it is", "gzip", "zip"])
def test_accepts(tmp_path, content, packed):
    data = content.encode()
    data = {"gzip": gzip.compress(data), "zip": zip_files({"a.csv": data})}.get(packed, data)
    path = write(tmp_path, data)  # the name does not show it
    read = load_images(path)
    assert read.images.dtype == np.uint8
    assert read.images.shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(read.images.reshape(2, 4), PIXELS)
    assert read.labels.dtype == np.int64
    np.testing.assert_array_equal(read.labels, [0, 1])
    assert read.n_classes == 2
    assert read.source == str(path)


@pytest.mark.parametrize(
    "cell",
    ["256", "-1", "3.7", "70000", "4294967296", "9223372036854775808", "1e30", "3" + "0" * 20],
)
def test_pixels_other_than_bytes_become_floats(tmp_path, cell):
    read = load_images(write(tmp_path, ROWS.replace("255", cell)))
    assert read.images.dtype == np.float32
    np.testing.assert_array_equal(
        read.images.reshape(2, 4), np.float32([[1, 2, 3, 4], [5, 6, 7, float(cell)]])
    )


NUMBERS = ["0.1", "0.30000000000000004", "123456789.012345", "99999999999999.9", ".5", "5.", "007"]
NUMBERS += ["0.000000000000001", "1e-3", "-0.25", "+2", "1.5E2", "-0", "3.4028235e38", "0.99607843"]


def test_numbers_are_rounded_as_float_does(tmp_path):
    """Each number stands alone in a block of its kind, and all of them in one."""
    for numbers in (*([number] * 4 for number in NUMBERS), NUMBERS + NUMBERS[:1]):
        text = ",".join(["0", *numbers]) + "\n" + ",".join(["1", *numbers]) + "\n"
        images = load_images(write(tmp_path, text)).images
        expected = np.array([float(number) for number in numbers])
        np.testing.assert_array_equal(images.reshape(2, -1), [expected.astype(np.float32)] * 2)


@pytest.mark.parametrize("fractions", [False, True])
def test_random_tables(tmp_path, monkeypatch, fractions):
    """Some of the lines have peculiarities, and the blocks have several sizes."""
    rng = np.random.default_rng(0)
    for block_bytes in (1, 30, 100, 1000, 1 << 18):
        monkeypatch.setattr(csv_text, "BLOCK_BYTES", block_bytes)
        pixels = rng.integers(0, 256, (60, 4)) / (255 if fractions else 1)
        labels = np.arange(60) % 12
        lines = []
        for label, row in zip(labels, pixels.tolist(), strict=True):
            cells = [f"{x:.{rng.integers(1, 18)}g}" if fractions else f"{x:.0f}" for x in row]
            separator = rng.choice([",", ", ", " ,", "\t,"], p=[0.7, 0.1, 0.1, 0.1])
            end = rng.choice(["\n", ",\n", "\r\n", "\n\n"], p=[0.7, 0.1, 0.1, 0.1])
            lines.append(separator.join([str(label), *cells]) + end)
        data = load_images(write(tmp_path, "".join(lines)))
        expected = [[float(cell) for cell in line.strip("\r\n,").split(",")] for line in lines]
        np.testing.assert_array_equal(data.labels, labels)
        np.testing.assert_array_equal(
            data.images.reshape(60, 4), np.array(expected)[:, 1:].astype(np.float32)
        )
        assert data.images.dtype == (np.float32 if fractions else np.uint8)


def test_two_points_in_one_cell(tmp_path):
    for cell in ("1.2.0", "1..0", ".", "1.2.3.4"):
        with pytest.raises(InputError, match=rf"line 2, column 3: '{cell}' is not a number"):
            load_images(write(tmp_path, f"0,1,2,3,4\n1,5,{cell},7,255\n"))


def test_errors_in_two_lines_that_balance(tmp_path):
    """One line has a cell too many and the next one too few."""
    path = write(tmp_path, ROWS + "0,1,2,3,4,5\n0,1,2,3\n")
    with pytest.raises(InputError, match="line 3: has 6 cells, and the first line has 5"):
        load_images(path)


def test_many_classes(tmp_path):
    read = load_images(write(tmp_path, "".join(f"{n % 300},{n % 256}\n" for n in range(600))))
    assert read.n_classes == 300
    assert read.images.dtype == np.uint8
    np.testing.assert_array_equal(read.labels, np.arange(600) % 300)
    assert read.notes == ()


@pytest.mark.parametrize("commas", [",", ",,", ", ,,,", ',"",'])
def test_trailing_commas_on_one_line_only(tmp_path, commas):
    path = write(tmp_path, (3 * ROWS)[:-1] + commas + "\n")
    assert load_images(path).images.shape == (6, 1, 2, 2)


def test_rejects_endless_commas(tmp_path):
    path = write(tmp_path, 2 * ROWS + "0,1,1,1,1" + "," * 20_000)
    with pytest.raises(InputError, match=r"csv, line 5: has 20000 commas .* end: delete them$"):
        load_images(path)


def test_last_line_without_newline_and_header(tmp_path):
    np.testing.assert_array_equal(load_images(write(tmp_path, "0,1\n1,2")).images.ravel(), [1, 2])


def test_tabs_at_the_end_of_lines_do_not_separate(tmp_path):
    path = write(tmp_path, "0,1\t\n1,2\t\n")
    np.testing.assert_array_equal(load_images(path).images.ravel(), [1, 2])


def test_empty_index(tmp_path):
    """These are the shortest lines that there are."""
    data = load_images(write(tmp_path, ",label,a\n" + ",0,1\n,1,2\n" * 200))
    np.testing.assert_array_equal(data.images.ravel(), [1, 2] * 200)


def test_two_columns_are_a_label_and_a_pixel(tmp_path):
    data = load_images(write(tmp_path, "id,index\n0,1\n1,2\n"))
    np.testing.assert_array_equal(data.labels, [0, 1])
    np.testing.assert_array_equal(data.images.ravel(), [1, 2])


def test_image_shape(tmp_path):
    path = write(tmp_path, "0,1,2,3,4,5,6\n1,6,5,4,3,2,1\n")
    images = load_images(path, image_shape=(3, 1, 2)).images
    np.testing.assert_array_equal(images[0], [[[1, 2]], [[3, 4]], [[5, 6]]])


def test_test_file_need_not_have_every_class(tmp_path):
    read = load_images(
        write(tmp_path, "2,1\n2,5\n"), like=InputFormat((1, 1, 1), default_class_names(4))
    )
    assert read.n_classes == 4


@pytest.mark.parametrize(
    ("labels", "class_names", "classes", "note"),
    [
        (["cat", "dog", "cat"], ("cat", "dog"), [0, 1, 0], "cat, dog are classes 0 to 1"),
        (['"cat"', "dog", " cat"], ("cat", "dog"), [0, 1, 0], "cat, dog are classes 0 to 1"),
        (['"a, b"', '"c"', '"d ""e"""'], ("a, b", "c", 'd "e"'), [0, 1, 2], 'a, b, c, d "e" are'),
        (["TRUE", "FALSE", "FALSE"], ("FALSE", "TRUE"), [1, 0, 0], "FALSE, TRUE are classes"),
        (["10", "2", "3"], ("2", "3", "10"), [2, 0, 1], "2, 3, 10 are classes 0 to 2"),
        (["01", "1", "1.0", "2", "+1", "1e0"], ("1", "2"), [0, 0, 0, 1, 0, 0], "1, 2 are classes"),
        (["b", "01", "a", "1.0", "c"], ("1", "a", "b", "c"), [2, 0, 1, 0, 3], "1, a, b, c are"),
        (["2", "é", "B", "b"], ("2", "B", "b", "é"), [0, 3, 1, 2], "2, B, b, é are classes 0 to 3"),
        (['6"', 'a"b"', "c"], ('6"', 'a"b"', "c"), [0, 1, 2], '6", a"b", c are classes 0 to 2'),
        (["0", "1", "0"], ("0", "1"), [0, 1, 0], None),
        ([str(n) for n in range(5, 20)], tuple(map(str, range(5, 20))), list(range(15)),
         "5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 5 more are classes 0 to 14"),
        (["9007199254740992", "9007199254740991"], ("9007199254740991", "9007199254740992"), [1, 0],
         "9007199254740991, 9007199254740992 are"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("position", ["first", "last", "middle"])
@pytest.mark.parametrize("block_bytes", [1, 30, 1 << 18])
def test_classes_are_the_labels_that_occur(
    tmp_path, monkeypatch, labels, class_names, classes, note, position, block_bytes
):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", block_bytes)
    rows = {
        "first": ["label,a,b,c,d"] + [f"{label},1,2,3,{n}" for n, label in enumerate(labels)],
        "last": ["a,b,c,d,label"] + [f"1,2,3,{n},{label}" for n, label in enumerate(labels)],
        "middle": ["a,b,label,c,d"] + [f"1,2,{label},3,{n}" for n, label in enumerate(labels)],
    }[position]
    data = load_images(write(tmp_path, "\n".join(rows)))
    assert data.class_names == class_names
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.labels, classes)
    expected = [[1, 2, 3, n] for n in range(len(labels))]
    np.testing.assert_array_equal(data.images.reshape(-1, 4), expected)
    if note is None:
        assert data.notes == ()
    else:
        assert len(data.notes) == 1
        assert data.notes[0].startswith(f"labels {note}")


def test_text_labels_without_header(tmp_path):
    data = load_images(write(tmp_path, "cat,12,0,255,7\ndog,1,2,4,3\n"))
    assert data.class_names == ("cat", "dog")
    assert data.images.shape == (2, 1, 2, 2)


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 18])
def test_mistyped_label_among_many_numbers(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", block_bytes)
    lines = as_csv(*random_rows(100)).splitlines(keepends=True)
    lines[70] = "\n" + lines[70].replace(lines[70][0], "cat", 1)
    with pytest.raises(InputError, match=r"csv, line 72, column 1: 'cat' is not .* in digits$"):
        load_images(write(tmp_path, "".join(lines)))


def test_text_labels_below_blank_lines_are_located(tmp_path):
    text = "cat,1\ndog,2\n" + "\n\n" + "cat,3\n , 4\n"
    with pytest.raises(InputError, match=r"csv, line 6, column 1: '' is not a label"):
        load_images(write(tmp_path, text))


@pytest.mark.parametrize("header", ["", "digit,pixel\n"])
@pytest.mark.parametrize("name", ["{}", "image{}.png"])
def test_rejects_labels_that_are_no_classes(tmp_path, header, name):
    rows = "".join(f"{name.format(n)},{n % 7 + 2}\n" for n in range(30))
    with pytest.raises(
        InputError, match=r"csv: its column 1 has 30 labels that occur once.*--label_column$"
    ):
        load_images(write(tmp_path, header + rows))


def test_rejects_too_many_different_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_labels, "MAX_DIFFERENT_LABELS", 50)
    rows = "".join(f"name{n // 2},{n % 7}\n" for n in range(120))
    with pytest.raises(InputError, match=r"column 1 holds more than 50 different labels.*name the"):
        load_images(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("class_names", "labels", "classes"),
    [
        (("2", "10"), ["10", "2.0", "010"], [1, 0, 1]),
        (("cat", "dog"), ["dog", "dog", "cat"], [1, 1, 0]),
        (("cat", "dog"), ["1", "0", "1"], [1, 0, 1]),
        (("cat", "dog"), ["1", "cat", "dog"], [1, 0, 1]),
        (("cat", "dog", "10"), ["10", "cat", "10"], [2, 0, 2]),
        (("cat", "dog"), ["dog", "dog"], [1, 1]),
    ],
)
def test_labels_of_known_classes(tmp_path, class_names, labels, classes):
    path = write(tmp_path, "".join(f"{label},7\n" for label in labels))
    data = load_images(path, like=InputFormat((1, 1, 1), class_names))
    np.testing.assert_array_equal(data.labels, classes)
    assert data.class_names == class_names
    assert data.notes == ()


@pytest.mark.parametrize(
    ("class_names", "label", "message"),
    [
        (("2", "10"), "0", "there are 2 classes, 2, 10$"),
        (("cat", "dog"), "bird", "there are 2 classes, cat, dog$"),
        (("cat", "dog"), "2", "there are 2 classes, cat, dog$"),
        (("cat", "10"), "0", "there are 2 classes, cat, 10$"),
        (tuple("0123456789"), "10", "there are 10 classes, 0 to 9$"),
        (("cat", "dog"), "1.5", "whole numbers from 0, or names$"),
    ],
)
def test_rejects_labels_of_unknown_classes(tmp_path, class_names, label, message):
    path = write(tmp_path, f"id,p,label\n0,7,{class_names[0]}\n0,7,{label}\n")
    with pytest.raises(InputError, match=rf"csv, line 3, column 3: '{label}' is .*{message}"):
        load_images(path, like=InputFormat((1, 1, 1), class_names))


COLUMNS = "first,second,class,px1\n3,4,0,1\n5,4,2,6\n"


@pytest.mark.parametrize(
    ("label_column", "class_names"),
    [
        (None, ("0", "2")),
        ("first", ("3", "5")),
        ("FIRST", ("3", "5")),
        ("1", ("3", "5")),
        ("4", ("1", "6")),
        ("px1", ("1", "6")),
    ],
)
@pytest.mark.parametrize("separator", [",", ";"])
def test_label_column(tmp_path, label_column, class_names, separator):
    path = write(tmp_path, COLUMNS.replace(",", separator))
    data = load_images(path, image_shape=(1, 1, 3), label_column=label_column)
    assert data.class_names == class_names
    if label_column == "4":
        np.testing.assert_array_equal(data.images.reshape(2, 3), [[3, 4, 0], [5, 4, 2]])


def test_label_column_without_header(tmp_path):
    path = write(tmp_path, "7,4,cat\n8,4,dog\n")
    data = load_images(path, image_shape=(1, 1, 2), label_column="3")
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.images.reshape(2, 2), [[7, 4], [8, 4]])


def test_label_column_may_be_the_index_or_a_number(tmp_path):
    path = write(tmp_path, "id,label,a\n3,0,9\n4,0,8\n")
    data = load_images(path, image_shape=(1, 1, 2), label_column="id")
    assert data.class_names == ("3", "4")
    assert data.notes == ("labels 3, 4 are classes 0 to 1, in this order",)
    path = write(tmp_path, "3,2,1\n" + "".join(f"{n % 2},0,{n}\n" for n in range(4)))
    data = load_images(path, image_shape=(1, 1, 2), label_column="2")
    assert data.class_names == ("0", "2")


def test_label_column_is_a_name_before_it_is_a_position(tmp_path):
    path = write(tmp_path, "label,1,2,3,4\n0,5,6,7,8\n1,5,7,9,8\n")
    assert load_images(path, label_column="2").class_names == ("6", "7")
    assert load_images(write(tmp_path, ROWS), label_column="5").class_names == ("4", "255")


@pytest.mark.parametrize("like", [None, InputFormat((1, 2, 2), ("0", "1"))])
def test_rejects_a_header_of_pixels_alone(tmp_path, like):
    path = write(tmp_path, "p0,p1,p2\n0,1,2\n1,2,3\n")
    with pytest.raises(
        InputError, match=r"csv: has 2 pixels .*; the labels are in column 'p0', if"
    ):
        load_images(path, like=like)


@pytest.mark.parametrize(
    ("label_column", "content", "message"),
    [
        ("digit", COLUMNS, "no column called 'digit'.*header is 'first', 'second', 'class', ...$"),
        (
            "digit",
            "0,1\n1,2\n",
            "no header, .*'digit' could be a name: give a position from 1 to 2",
        ),
        ("0", COLUMNS, "has no column 0 for --label_column: its columns are 1 to 4"),
        ("5", COLUMNS, "has no column 5 for --label_column: its columns are 1 to 4"),
        ("9" * 99, COLUMNS, "has no column 9{40} for --label_column: its columns are 1 to 4"),
        ("-1", COLUMNS, "no column called '-1'"),
        ("", COLUMNS, "no column called ''"),
        ("\u0663", COLUMNS, "no column called '\u0663'"),
    ],
)
def test_rejects_label_column(tmp_path, label_column, content, message):
    with pytest.raises(InputError, match=rf"^{tmp_path}/images.csv: .*{message}"):
        load_images(write(tmp_path, content), label_column=label_column)


def test_order_of_columns_is_that_of_their_numbers(tmp_path):
    """The test file has the columns of the training file in another order."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (20, 16)), np.arange(20) % 3
    for names in (
        [f"pixel{n}" for n in range(16)],
        [f"{row}x{column}" for row in range(1, 5) for column in range(1, 5)],
        [str(n) for n in range(16)],
    ):
        read = []
        for order in (np.arange(17), rng.permutation(17), rng.permutation(17)):
            table = np.c_[labels, pixels][:, order]
            rows = [np.array(["label", *names])[order], *table.astype(str)]
            read.append(load_images(write(tmp_path, "\n".join(map(",".join, rows)) + "\n")))
        for data in read:
            np.testing.assert_array_equal(data.images.reshape(20, 16), pixels)
            np.testing.assert_array_equal(data.labels, labels)
        assert read[0].notes == ()
        assert "order of the numbers in the header" in read[1].notes[0]


def test_notes_name_the_index(tmp_path):
    data = load_images(write(tmp_path, ",id,label,a\n0,9,0,9\n1,8,1,8\n"))
    assert data.notes == ("columns skipped as an index of the images: '', 'id'",)


def test_header_that_counts_without_a_name(tmp_path):
    """pandas names the columns of an array by their numbers."""
    rows = "0," + ",".join(["7"] * 36) + "\n1," + ",".join(["8"] * 36) + "\n"
    data = load_images(write(tmp_path, ",".join(map(str, range(37))) + "\n" + rows))
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [7, 8])


def test_color_is_found_by_the_number_of_pixels(tmp_path):
    path = write(tmp_path, "0," + ",".join(map(str, range(12))) + "\n1" + 12 * ",0" + "\n")
    images = load_images(path).images
    np.testing.assert_array_equal(images[0], np.arange(12).reshape(3, 2, 2))
    assert load_images(path, image_shape=(1, 3, 4)).images.shape == (2, 1, 3, 4)
    assert load_images(path, like=InputFormat((2, 3, 2), ("0", "1"))).images.shape == (2, 2, 3, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("names", [None, ("cat", "dog", "bird")])
def test_all_forms_of_a_file_give_the_same_arrays(tmp_path, monkeypatch, dtype, names):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 1000)
    labels, pixels = random_rows(200)
    pixels = pixels / 256 if dtype == np.float32 else pixels
    text = as_csv(labels if names is None else [names[n] for n in labels], pixels)
    read = [
        load_images(write(tmp_path, content))
        for content in (
            text,
            text.replace(",", ";"),
            text.replace(",", "\t"),
            text.replace(",", " ; ").replace("\n", "\r\n"),
            gzip.compress(text.encode()),
            zip_files({"a.csv": text}),
            zip_files({"a.csv": text.replace(",", ";")}),
        )
    ]
    expected = np.array(labels) if names is None else np.array([1, 2, 0])[labels]
    for data in read:
        assert data.images.dtype == dtype
        np.testing.assert_array_equal(data.images.reshape(200, 9), pixels.astype(dtype))
        np.testing.assert_array_equal(data.labels, expected)
        assert data.class_names == read[0].class_names


def random_rows(n):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return labels, rng.integers(0, 256, (n, 9))


def as_csv(labels, pixels):
    return "".join(
        f"{n},{','.join(map(str, row))}\n" for n, row in zip(labels, pixels, strict=True)
    )


@pytest.mark.parametrize("chunk_rows", [1, 7, 20, 50])
def test_chunks(tmp_path, monkeypatch, chunk_rows):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", chunk_rows * 11)
    labels, pixels = random_rows(20)
    read = load_images(write(tmp_path, as_csv(labels, pixels)))
    np.testing.assert_array_equal(read.images.reshape(20, 9), pixels)
    np.testing.assert_array_equal(read.labels, labels)


@pytest.mark.parametrize("chunk_rows", [1, 7, 50])
@pytest.mark.parametrize("header", ["", "label" + ",x" * 9 + "\n\n"])
def test_bad_cell_in_a_later_chunk(tmp_path, monkeypatch, chunk_rows, header):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", chunk_rows * 11)
    lines = as_csv(*random_rows(20)).splitlines(keepends=True)
    lines[15] = "0,1,2,3,4,oops,6,7,8,9\n"
    line = 16 + header.count("\n")
    with pytest.raises(InputError, match=rf"images\.csv, line {line}, column 6: 'oops' .*digits"):
        load_images(write(tmp_path, header + "".join(lines)))


def test_whole_floats_in_one_chunk_and_fractions_in_another(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 2)
    images = load_images(write(tmp_path, "0,1\n1,0.5\n1,2\n")).images
    np.testing.assert_array_equal(images.ravel(), np.float32([1, 0.5, 2]))


HEADER = "label,a,b,c,d\n"


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [
        pytest.param("", "", "is empty: write one image a line", id="empty"),
        pytest.param("\n  \n", "", "is empty: write one image a line", id="blank lines only"),
        pytest.param("\n" + HEADER, ", line 2", "no image follows the header", id="header only"),
        pytest.param("0,1,2,3,4\n\n1,5,6,7\n", ", line 3", "4 cells.*first line has 5", id="short"),
        pytest.param(ROWS + "1,2,3,4,5,6\n", ", line 3", "6 cells.*first line has 5", id="long"),
        pytest.param(ROWS + "1,2\n", ", line 3", "2 cells.*same number of pixels", id="shorter"),
        pytest.param(ROWS + ",,,,\n", ", line 3", "0 cells.*same number of pixels", id="commas"),
        pytest.param(ROWS + "1,2,3,4,\n", ", line 3", "4 cells.*first line has 5", id="last empty"),
        pytest.param(
            "label,a,b\n" + ROWS, ", line 2", "5 cells.*first line has 3", id="header short"
        ),
        pytest.param(ROWS + "1,2,x,4,5\n", ", line 3, column 3", "'x' .*in digits", id="text"),
        pytest.param(ROWS + "1,2,,4,5\n", ", line 3, column 3", "'' .*in digits", id="hole"),
        pytest.param(ROWS + "1,1_0,3,4,5\n", ", line 3, column 2", "'1_0' .*digits", id="1_0"),
        pytest.param(ROWS + "one,2,3,4,5\n", ", line 3, column 1", "'one' .*digits", id="word"),
        pytest.param(ROWS + '1,"2,3,4,5\n' + ROWS, ", line 3", "2 cells", id="open quote"),
        pytest.param(ROWS + "1,2,nan,4,5\n", ", line 3, column 3", "'nan'.*0 to 255", id="NaN"),
        pytest.param(ROWS + "1,-inf,3,4,5\n", ", line 3, column 2", "'-inf'.*0 to 255", id="inf"),
        pytest.param(ROWS + "1,1e39,3,4,5\n", ", line 3, column 2", "'1e39'.*0 to 255", id="1e39"),
        pytest.param("nan,1,2,3,4\n" + ROWS, ", line 1, column 1", "from 0", id="NaN label"),
        pytest.param(ROWS + "1,2,\u0663,4,5\n", ", line 3, column 3", "digits", id="Arabic digit"),
        pytest.param(ROWS + "1,2,\xa03,4,5\n", ", line 3, column 3", "digits", id="U+00A0"),
        pytest.param(ROWS + "1,2,3\x1c,4,5\n", ", line 3, column 3", "digits", id="U+001C"),
        pytest.param(ROWS + "1,2,3,4,5\u2028\n", ", line 3, column 5", "digits", id="U+2028"),
        pytest.param(ROWS + "\xa0\n" + ROWS, ", line 3", "1 cells", id="a line of U+00A0"),
        pytest.param(ROWS + "1,2,True,4,5\n", ", line 3, column 3", "'True'.*digits", id="True"),
        pytest.param("0,True\n1,FALSE\n", ", line 1, column 2", "'True'.*digits", id="Trues"),
        pytest.param("l,r\n0,false\n1,false\n", ", line 2, column 2", "digits", id="falses"),
        pytest.param("cat,12,0,255,7\n" + ROWS, ", line 1, column 1", "'cat'.*digits", id="cat"),
        pytest.param("inf,1,2,3,4\n" + ROWS, ", line 1, column 1", "from 0", id="inf label"),
        pytest.param(ROWS + "1e30,2,3,4,5\n", ", line 3, column 1", "'1e30' is not a l", id="1e30"),
        pytest.param(ROWS + f"{2**63},2,3,4,5\n", ", line 3, column 1", "not a label", id="2**63"),
        pytest.param(ROWS + "1.5,2,3,4,5\n", ", line 3, column 1", "'1.5'.*from 0", id="fraction"),
        pytest.param(ROWS + "-1,2,3,4,5\n", ", line 3, column 1", "'-1'.*from 0", id="negative"),
        pytest.param(
            ROWS + ",2,3,4,5\n", ", line 3, column 1", "'' .*label of every", id="no label"
        ),
        pytest.param("0;1\n1;0,5\n", ", line 2, column 2", "comma.*0.5", id="decimal comma"),
        pytest.param("0\t1,5\n1\t2\n", ", line 1, column 2", "comma.*0.5", id="decimals, tabs"),
        pytest.param('0,"0,5"\n1,"0,25"\n', ", line 1, column 2", "comma.*0.5", id="in quotes"),
        pytest.param("0,5;1\n1;2\n", ", line 1, column 1", "decimal comma", id="comma in a label"),
        pytest.param("0;x\n1;3\n", ", line 1, column 2", "'x' .*digits", id="semicolons, x"),
        pytest.param("0;1\n1;3;4\n", ", line 2", "3 cells.*line has 2", id="semicolons, long"),
        pytest.param(ROWS.replace(",", ";") + ROWS, ", line 3", "1 cells.*has 5", id="both"),
        pytest.param("x\t1\t2\n1\tx\n", ", line 2", "2 cells.*line has 3", id="tabs, short"),
        pytest.param("l,r\ncat,1\ndog,x\n", ", line 3, column 2", "'x'.*in digits", id="cat and x"),
        pytest.param("l,r\ncat,1\ncat,1\n", "", "every label is cat.*two or more", id="one name"),
        pytest.param("l,r\ncat,1\n,1\n", ", line 3, column 1", "'' .*of every image", id="no name"),
        pytest.param("l,r\ncat,1\nnan,1\n", ", line 3, column 1", "'nan' .*names", id="nan, cat"),
        pytest.param("l,r\ncat,1\n1.5,1\n", ", line 3, column 1", "'1.5' .*names", id="1.5, cat"),
        pytest.param("l,r\ncat,1\n-1,1\n", ", line 3, column 1", "'-1' .*names", id="-1, cat"),
        pytest.param("l,r\nc\u200bt,1\ndog,1\n", ", line 2, column 1", "printed", id="zero width"),
        pytest.param(
            "l,r\n" + "c" * 101 + ",1\ndog,1\n", ", line 2, column 1", "at most 100", id="long name"
        ),
        pytest.param(
            "p0,label\n1,0\n3,\n", ", line 3, column 2", "'' is not a label", id="last label"
        ),
        pytest.param(
            "p0,label\n1,0\n\n3,\n",
            ", line 4, column 2",
            "'' is not a label",
            id="blank, last label",
        ),
        pytest.param(
            ",label,a\n0,0,1\n1,1.5,2\n", ", line 3, column 2", "'1.5'.*from 0", id="under an index"
        ),
        pytest.param(
            "id,label,a\n0,0,1\n1,1,\n", ", line 3", "2 cells.*first line has 3", id="index, short"
        ),
        pytest.param(
            "id,label,a,b,c,d\n0,0,1,1,1,1\n1,1,,1,1,1\n",
            ", line 3, column 3",
            "'' is not a n",
            id="index, hole",
        ),
        pytest.param(zip_files({}), "", "zip archive that holds no file", id="empty zip"),
        pytest.param(
            zip_files({"a.csv": ROWS, "b.csv": ROWS}),
            "",
            "zip archive that holds 2 files .'a.csv', 'b.csv'.: unzip it",
            id="two files",
        ),
        pytest.param(
            zip_files({f"{i}\n.csv": ROWS for i in range(9)}),
            "",
            r"holds 9 files .'0\\n.csv', .*, \.\.\..: unzip it",
            id="nine files",
        ),
        pytest.param(zip_files({"a.csv": ROWS})[:-30], "", "zip.*damaged.*download", id="cut zip"),
        pytest.param(
            zip_files({"a.csv": ROWS}, zipfile.ZIP_STORED).replace(b"255", b"254"),
            "",
            "zip data is damaged.*CRC.*download",
            id="bit flip in a zip",
        ),
        pytest.param(
            zip_files({"a.csv": ROWS}, zipfile.ZIP_LZMA), "", "than deflate: unzip it", id="LZMA"
        ),
        pytest.param(
            gzip.compress(zip_files({"a.csv": ROWS})), "", "neither.*CSV in UTF-8", id="gzipped zip"
        ),
        pytest.param(b"PK\3\4 and no zip archive", "", "zip.*damaged.*download", id="fake zip"),
        pytest.param("3,1\n3,2\n", "", "every label is 3.*two or more", id="one class"),
        pytest.param(
            "0,1,2,3,4,5\n1,2,3,4,5,6\n", "", "5 pixels.*--image_shape C,H,W", id="not square"
        ),
        pytest.param("0 1 2\n1 3 4\n", ", line 1", "1 cells.*with commas", id="only spaces"),
        pytest.param("0\n1\n", ", line 1", "1 cells.*with commas", id="labels only"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(99), "", "neither.*CSV in UTF-8", id="PNG"),
        pytest.param(b"\xde\xad\xbe\xef\n" * 99, "", "neither.*CSV in UTF-8", id="junk"),
        pytest.param(b"\0", "", "neither.*CSV in UTF-8", id="a zero byte"),
        pytest.param("étiquette,a\n0,1\n".encode("latin-1"), "", "in UTF-8", id="Latin-1"),
        pytest.param(ROWS.encode() + b"\xc3", "", "in UTF-8", id="half a character"),
        pytest.param(ROWS.encode("utf-16"), "", "UTF-16.*in UTF-8", id="UTF-16"),
        pytest.param(ROWS.encode("utf-16-le"), "", "in UTF-8", id="UTF-16 without BOM"),
        pytest.param("x" * 200_000, "", "no image follows", id="one endless word"),
        pytest.param(gzip.compress(ROWS.encode())[:-12], "", "gzip.*download", id="cut gzip"),
        pytest.param(gzip.compress(b""), "", "is empty", id="empty gzip"),
        pytest.param(b"\x1f\x8bgarbage, and no gzip", "", "gzip.*download", id="fake gzip"),
    ],
)
def test_rejects(tmp_path, content, place, remedy):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=rf"^{path}{place}.*: .*{remedy}") as raised:
        load_images(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("images.csv", b"0,1,0,1,0\n1,0,0,1,0\n"),
        ("images.csv", b"0,1,0,1,0\n" + b" " * 99),
        ("images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 255, 255, 0, 0, 1, 0, 0, 0, 1, 0])),
    ],
)
def test_rejects_a_decompression_bomb(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(gzip_file, "MIN_LIMIT_BYTES", 1 << 20)
    bomb = gzip.compress(content * ((2 << 20) // len(content)))
    if name.startswith("images-idx"):
        bomb = gzip.compress(content + bytes(2 << 20))
        (tmp_path / "labels-idx1-ubyte").touch()
    path = tmp_path / f"{name}.gz"
    path.write_bytes(bomb)
    with pytest.raises(InputError, match=rf"^{path}: decompresses to more than 200 times its size"):
        load_images(path)


def test_rejects_a_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(gzip_file, "MIN_LIMIT_BYTES", 1 << 20)
    path = write(tmp_path, zip_files({"a.csv": b"0,1,0,1,0\n1,0,0,1,0\n" * 100_000}))
    with pytest.raises(InputError, match=rf"^{path}: decompresses to more than 200 times its size"):
        load_images(path)


def test_rejects_an_encrypted_zip(tmp_path):
    data = bytearray(zip_files({"a.csv": ROWS}))
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    with pytest.raises(InputError, match=r"csv: is an encrypted zip archive: unzip it with its p"):
        load_images(write(tmp_path, bytes(data)))


def test_files_that_systems_add_to_a_zip(tmp_path):
    clutter = {
        "__MACOSX/a/._b.csv": b"\0",
        "a/.DS_Store": b"\0",
        "a/Thumbs.db": b"\0",
        "a/": b"",
        "__MACOSX/b.csv": b"\0",
    }
    path = write(tmp_path, zip_files(clutter | {"a/b.csv": ROWS}))
    np.testing.assert_array_equal(load_images(path).images.reshape(2, 4), PIXELS)


def test_rejects_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "MAX_LINE_BYTES", 1 << 20)
    path = write(tmp_path, ROWS + "1," * (1 << 20))
    with pytest.raises(InputError, match="has a line of more than 1 MB: write one image a line"):
        load_images(path)
    for line_end in ("\n", "\r", "\r\n"):
        path = write(tmp_path, ("0,1,2,3,4" + line_end + "1,2,3,4,5" + line_end) * 80_000)
        assert len(load_images(path).images) == 160_000


PEAK = """
import re, sys
from pathlib import Path
from training.datasets import load_images

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

load_images(Path(sys.argv[1]))
before = kilobytes("VmRSS")
data = load_images(Path(sys.argv[2]))
print((kilobytes("VmHWM") - before) * 1024 / (data.images.nbytes + data.labels.nbytes))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("labels", "cell"), [("01", "7"), ("ab", "0.5")])
def test_memory(tmp_path, long_mode, labels, cell):
    rows = 2_000_000 if long_mode else 400_000
    line = ",".join(["{}"] + 63 * ["255"] + [cell]) + "\n"
    lines = line.format(labels[0]) + line.format(labels[1])
    few = write(tmp_path, lines)
    many = tmp_path / "many.csv"
    many.write_text(lines * (rows // 2))
    command = [sys.executable, "-c", PEAK, few, many]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    print(f"{rows} rows: at most {float(done.stdout):.2f} times the arrays")
    assert float(done.stdout) < 2


def test_rejects_label_above_the_last_class(tmp_path):
    path = write(tmp_path, HEADER + ROWS + "2,1,1,1,1\n")
    with pytest.raises(InputError, match=r"csv, line 4, column 1: '2' .* 2 classes, 0, 1"):
        load_images(path, like=InputFormat((1, 2, 2), ("0", "1")))


def test_rejects_image_shape_that_does_not_fit(tmp_path):
    path = write(tmp_path, ROWS)
    with pytest.raises(InputError, match=r"csv: has 4 pixels.*--image_shape 3,2,2 has 12.*must"):
        load_images(path, image_shape=(3, 2, 2))


def test_rejects_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file: give the path"):
        load_images(tmp_path / "none.csv")


def test_rejects_empty_directory(tmp_path):
    with pytest.raises(
        InputError, match="has no pictures: it must have a folder of pictures for each class"
    ):
        load_images(tmp_path)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root and Windows open files of mode 0"
)
def test_rejects_unreadable_file(tmp_path):
    path = write(tmp_path, ROWS)
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        load_images(path)
