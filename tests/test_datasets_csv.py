"""CSV files, good and bad."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.datasets import csv_file, gzip_file, load_images
from training.errors import InputError
from training.input_format import InputFormat, default_class_names

ROOT = Path(__file__).parents[1]

ROWS = "0,1,2,3,4\n1,5,6,7,255\n"
PIXELS = [[1, 2, 3, 4], [5, 6, 7, 255]]


def write(tmp_path: Path, content: str | bytes, name: str = "images.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


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
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_accepts(tmp_path, content, packed):
    data = content.encode()
    path = write(tmp_path, gzip.compress(data) if packed else data)  # the name does not show it
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
        monkeypatch.setattr(csv_file, "BLOCK_BYTES", block_bytes)
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
    read = load_images(write(tmp_path, "".join(f"{n},{n % 256}\n" for n in range(300))))
    assert read.n_classes == 300
    assert read.images.dtype == np.uint8
    np.testing.assert_array_equal(read.labels, np.arange(300))


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


def test_image_shape(tmp_path):
    path = write(tmp_path, "0,1,2,3,4,5,6\n1,6,5,4,3,2,1\n")
    images = load_images(path, image_shape=(3, 1, 2)).images
    np.testing.assert_array_equal(images[0], [[[1, 2]], [[3, 4]], [[5, 6]]])


def test_test_file_need_not_have_every_class(tmp_path):
    read = load_images(
        write(tmp_path, "2,1\n2,5\n"), like=InputFormat((1, 1, 1), default_class_names(4))
    )
    assert read.n_classes == 4


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
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", chunk_rows * 11)
    labels, pixels = random_rows(20)
    read = load_images(write(tmp_path, as_csv(labels, pixels)))
    np.testing.assert_array_equal(read.images.reshape(20, 9), pixels)
    np.testing.assert_array_equal(read.labels, labels)


@pytest.mark.parametrize("chunk_rows", [1, 7, 50])
@pytest.mark.parametrize("header", ["", "label" + ",x" * 9 + "\n\n"])
def test_bad_cell_in_a_later_chunk(tmp_path, monkeypatch, chunk_rows, header):
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", chunk_rows * 11)
    lines = as_csv(*random_rows(20)).splitlines(keepends=True)
    lines[15] = "0,1,2,3,4,oops,6,7,8,9\n"
    line = 16 + header.count("\n")
    with pytest.raises(InputError, match=rf"images\.csv, line {line}, column 6: 'oops' .*digits"):
        load_images(write(tmp_path, header + "".join(lines)))


def test_whole_floats_in_one_chunk_and_fractions_in_another(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 2)
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
        pytest.param("l,r\nTRUE,1\nFALSE,2\n", ", line 2, column 1", "digits", id="labels"),
        pytest.param("cat,12,0,255,7\n" + ROWS, ", line 1, column 1", "'cat'.*digits", id="cat"),
        pytest.param("inf,1,2,3,4\n" + ROWS, ", line 1, column 1", "from 0", id="inf label"),
        pytest.param(ROWS + "1e30,2,3,4,5\n", ", line 3, column 1", "'1e30' is not a l", id="1e30"),
        pytest.param(ROWS + f"{2**63},2,3,4,5\n", ", line 3, column 1", "not a label", id="2**63"),
        pytest.param(ROWS + "1.5,2,3,4,5\n", ", line 3, column 1", "'1.5'.*from 0", id="fraction"),
        pytest.param(ROWS + "-1,2,3,4,5\n", ", line 3, column 1", "'-1'.*from 0", id="negative"),
        pytest.param("3,1\n3,2\n", "", "every label is 3.*two or more", id="one class"),
        pytest.param("0,1,2,3\n1,2,3,4\n", "", "3 pixels.*--image_shape C,H,W", id="not square"),
        pytest.param("0;1;2\n1;3;4\n", ", line 1", "1 cells.*with commas", id="semicolons"),
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
    path = tmp_path / f"{name}.gz"
    path.write_bytes(bomb)
    with pytest.raises(InputError, match=rf"^{path}: decompresses to more than 200 times its size"):
        load_images(path)


def test_rejects_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "MAX_LINE_BYTES", 1 << 20)
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
@pytest.mark.parametrize("cell", ["7", "0.5"])
def test_memory(tmp_path, long_mode, cell):
    rows = 2_000_000 if long_mode else 400_000
    line = ",".join(["{}"] + 63 * ["255"] + [cell]) + "\n"
    few = write(tmp_path, line.format(0) + line.format(1))
    many = tmp_path / "many.csv"
    many.write_text((line.format(0) + line.format(1)) * (rows // 2))
    command = [sys.executable, "-c", PEAK, few, many]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    print(f"{rows} rows: at most {float(done.stdout):.2f} times the arrays")
    assert float(done.stdout) < 2


def test_rejects_label_above_the_last_class(tmp_path):
    path = write(tmp_path, HEADER + ROWS + "2,1,1,1,1\n")
    with pytest.raises(InputError, match=r"csv, line 4, column 1: '2' .* 2 classes, 0 to 1"):
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
