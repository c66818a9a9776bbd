"""Any file is read correctly, or rejected with a message that names it.

A CSV file is written in one of the forms that are accepted, and then damaged; the slow parser says
what the fast one must return. In files of the other formats and of the cache, bytes are changed,
removed or inserted.

./run.sh pytest tests/test_fuzz_files.py --long    # 20,000 files of each kind instead of 500
"""

import gzip
import io
import random
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import training
from tests.fuzzing import LONG, SHORT, outcome
from training import InputError
from training.datasets import cache, csv_parser, csv_text, load_images
from training.datasets.dataset import Dataset, ReadOptions, sort_class_names
from training.datasets.pictures import decode_pictures
from training.input_format import InputFormat

# -- CSV files ------------------------------------------------------------------------------------
CSV_TOKENS = [
    "", ",", ";", "\t", "\n", "\r", "\r\n", " ", '"', '""', ",,", "\n\n", "0", "-1", "1.5", "1,5",
    ".", "1e3", "1e39", "1e400", "nan", "inf", "1_0", "cat", "label", "id", "Unnamed: 0", "\u0663",
    "\xa0", "\ufeff", "\u2028", "\x1c", "é", "9" * 20, "px0", "1x1",
]  # fmt: skip
CSV_BYTES = [b"\0", b"\xff", b"\x80", b"PK\3\4", b"\x1f\x8b"]


def as_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.csv", content)
    return file.getvalue()


@st.composite
def csv_tables(draw):
    """Return the cells of a table, and the labels and the pixels that it must be read as.

    The label is in any column of a table with a header, and in the first one of another table.
    """
    n_rows, n_pixels = draw(st.integers(2, 8)), draw(st.sampled_from([1, 3, 4, 12]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    pixels = rng.integers(0, 256, (n_rows, n_pixels))
    cells = [[str(pixel) for pixel in row] for row in pixels]
    if draw(st.booleans()):
        pixels = pixels / draw(st.sampled_from([2, 255]))
        cells = [[repr(pixel) for pixel in row] for row in pixels.tolist()]
    classes = draw(st.sampled_from([["0", "1"], ["3", "20", "1"], ["cat", "dog", "7"], ["é", "b"]]))
    labels = [classes[n % len(classes)] for n in range(n_rows)]
    names = draw(st.sampled_from(["px{}", "pixel_{}", None]))
    if names is None:
        return [[label, *row] for label, row in zip(labels, cells, strict=True)], labels, pixels
    order = rng.permutation(n_pixels)
    header = [names.format(n) for n in order]
    table = [header, *([row[n] for n in order] for row in cells)]
    place = draw(st.integers(0, n_pixels))
    for row, cell in zip(table, [draw(st.sampled_from(["label", "Class"])), *labels], strict=True):
        row.insert(place, cell)
    index = draw(st.sampled_from([None, "", "Unnamed: 0"]))
    if index is not None:
        table = [[cell, *row] for cell, row in zip([index, *range(n_rows)], table, strict=True)]
    return table, labels, pixels


@st.composite
def csv_texts(draw, table):
    """Return a table as text, in one of the ways that programs write it."""
    separator = draw(st.sampled_from([",", ";", "\t", ", ", " ;"]))
    quotes = draw(st.sampled_from(["{}", "{}", '"{}"'])) if " " not in separator else "{}"
    lines = [separator.join(quotes.format(cell) for cell in row) for row in table]
    end = draw(st.sampled_from(["\n", "\r\n", "\r", separator.strip(" ") + "\n"]))
    lines = [line + end for line in lines]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), "\n")
    return draw(st.sampled_from(["", "\ufeff"])) + "".join(lines)


@st.composite
def damaged(draw, content):
    """Return bytes of which up to three places are replaced."""
    for _ in range(draw(st.integers(0, 3))):
        place, n_lost = draw(st.integers(0, len(content))), draw(st.integers(0, 3))
        new = draw(st.sampled_from([token.encode() for token in CSV_TOKENS] + CSV_BYTES))
        content = content[:place] + new + content[place + n_lost :]
    return content


def read_csv(path, **options):
    """Return what a CSV file is read as, or the message of the error."""
    try:
        data = load_images(path, **options)
    except InputError as error:
        return str(error)
    return data.images.tolist(), data.images.dtype, data.labels.tolist(), data.class_names


def test_csv_file_is_read_or_rejected_with_a_message(tmp_path, monkeypatch, long_mode):
    path = tmp_path / "images.csv"
    outcomes = {"results": 0, "errors": 0}

    @settings(max_examples=LONG if long_mode else SHORT // 2, database=None)
    @given(data=st.data())
    def check(data):
        table, labels, pixels = data.draw(csv_tables())
        content = data.draw(csv_texts(table)).encode()
        options = {"image_shape": (1, 1, pixels.shape[1])}
        if data.draw(st.booleans()):
            options["like"] = InputFormat(options["image_shape"], sort_class_names(labels))
        monkeypatch.setattr(csv_text, "BLOCK_BYTES", data.draw(st.sampled_from([1, 40, 1 << 18])))
        pack = data.draw(st.sampled_from([bytes, gzip.compress, as_zip]))
        path.write_bytes(pack(content))
        images, dtype, found, class_names = read_csv(path, **options)
        np.testing.assert_array_equal(np.reshape(images, pixels.shape), pixels.astype(dtype))
        assert class_names == sort_class_names(labels)
        assert [class_names[index] for index in found] == labels

        path.write_bytes(data.draw(damaged(pack(content))))
        if data.draw(st.booleans()):
            path.write_bytes(pack(data.draw(damaged(content))))
        fast = read_csv(path, **options)
        with monkeypatch.context() as patch:
            for name in ("_parse_numbers", "_parse_with_text"):
                patch.setattr(csv_parser.BlockParser, name, lambda *_: None)
            assert read_csv(path, **options) == fast
        outcomes["errors" if isinstance(fast, str) else "results"] += 1
        if isinstance(fast, str):
            assert fast.startswith(str(path))
            assert ": " in fast
            assert fast.isprintable()

    check()
    print(f"CSV: {outcomes}")


# -- other files --------------------------------------------------------------------------------
def damage(rng, content):
    """Return bytes of which some are changed, removed, copied to another place, or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 10])):
        change, offset = rng.randrange(4), rng.randrange(len(data) + 1)
        if change == 0 and offset < len(data):
            data[offset] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        elif change == 1:
            del data[offset : offset + rng.choice([1, 5, 300])]
        elif change == 2:
            start = rng.randrange(len(data) + 1)
            data[offset:offset] = data[start : start + rng.choice([1, 5, 300])]
        elif rng.random() < 0.2:
            del data[offset:]
    return bytes(data)


def picture_files():
    """Return files of every format, with their options that change how they are decoded."""
    rng = np.random.default_rng(0)
    colors = Image.fromarray(rng.integers(0, 256, (24, 17, 4), np.uint8))
    large = colors.resize((160, 200)).convert("RGB")
    white = Image.new("RGB", colors.size, "white")
    deep = Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [
        *((colors.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        (deep, "PNG", {}),
        (colors.convert("P"), "PNG", {"transparency": 3}),
        *((large, "JPEG", {"progressive": value, "exif": exif}) for value in (False, True)),
        (colors.convert("CMYK"), "JPEG", {}),
        *((colors, "WEBP", {"lossless": value, "exif": exif}) for value in (False, True)),
        (colors.convert("RGB"), "WEBP", {"save_all": True, "append_images": [white]}),
        (colors.convert("P"), "GIF", {"save_all": True, "append_images": [white]}),
        *((colors.convert(mode), "BMP", {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(
            (colors.convert("RGB"), "TIFF", {"compression": name, "exif": exif})
            for name in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        (deep, "TIFF", {}),
    ]
    for picture, kind, options in pictures:
        file = BytesIO()
        picture.save(file, kind, **options)
        yield file.getvalue()


def test_a_damaged_picture_gives_an_image_or_an_error(monkeypatch, long_mode):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # for the memory and the time
    rng, files = random.Random(0), list(picture_files())
    options = [
        ReadOptions(),
        ReadOptions(image_size=(16, 16), resize="crop", color="grey"),
        ReadOptions(like=InputFormat((3, 11, 40), ("a", "b"))),
    ]
    outcomes = {"results": 0, "errors": 0}
    for content in files:
        assert len(decode_pictures(["a"], lambda _, file=content: file, options[0]).images) == 1
    for number in range(LONG if long_mode else SHORT):
        content, option = damage(rng, files[number % len(files)]), rng.choice(options)
        read = outcome(decode_pictures, (["a.png"], lambda _, file=content: file, option))
        outcomes["errors" if isinstance(read, Exception) else "results"] += 1
        if isinstance(read, Exception):
            assert isinstance(read, training.InputError)
            assert str(read).startswith("a.png: ")
            assert str(read).isprintable()
            continue
        channels, H, W = read.images.shape[1:]
        assert read.images.dtype in (np.uint8, np.float32)
        assert len(read.images) == 1
        assert channels in (1, 3)
        assert read.images.min() >= 0
        assert read.images.max() <= 255
        if option.like:
            assert read.images.shape[1:] == option.like.shape
        elif option.image_size:
            assert (channels, H, W) == (1, 16, 16)
    print(outcomes)
    assert min(outcomes.values()) > SHORT / 10


def test_a_damaged_entry_of_the_cache_is_never_used(tmp_path, monkeypatch, long_mode):
    monkeypatch.setenv("CNN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "MIN_SECONDS", 0)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 9, 9), np.uint8)
    want = Dataset(images, np.arange(5) % 2, ("a", "b"), "a.csv", "crop", ("a note",))
    cache.cached("id", 0, lambda: want)
    (path,) = tmp_path.glob("*.images")
    content, rng, n_built = path.read_bytes(), random.Random(0), 0
    n_files = LONG if long_mode else SHORT
    for _ in range(n_files):
        damaged = damage(rng, content)
        path.write_bytes(damaged)
        built = []
        read = cache.cached("id", 0, lambda built=built: built.append(1) or want)
        assert bool(built) == (damaged != content)
        n_built += len(built)
        np.testing.assert_array_equal(read.images, images)
        np.testing.assert_array_equal(read.labels, want.labels)
        assert read.class_names == want.class_names
        assert (read.resize, read.notes) == (want.resize, want.notes)
    print(f"{n_files} files, {n_built} of them damaged")


FILE_IMAGES = np.arange(12 * 5 * 6 * 3).reshape(12, 5, 6, 3) % 256
FILE_LABELS = np.arange(12) % 3
FILE_NAMES = ["ant", "bee", "cat"]


def write_npz(path, compressed):
    save = np.savez_compressed if compressed else np.savez
    pixels = FILE_IMAGES.astype(np.uint8) if compressed else FILE_IMAGES / 9
    save(path, x_train=pixels, y_train=FILE_LABELS, class_names=np.array(FILE_NAMES))


def write_parquet(path, compression):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = []
    for pixels in FILE_IMAGES.astype(np.uint8):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": "a.png"})
    table = pa.table({"image": encoded, "label": [FILE_NAMES[label] for label in FILE_LABELS]})
    pq.write_table(table, path, compression=compression, row_group_size=5)


@pytest.mark.parametrize(
    ("name", "write", "option"),
    [
        ("a.npz", write_npz, False),
        ("b.npz", write_npz, True),
        ("a.parquet", write_parquet, "none"),
        ("b.parquet", write_parquet, "snappy"),
    ],
)
def test_file_is_read_or_rejected(tmp_path, monkeypatch, long_mode, name, write, option):
    monkeypatch.setenv("CNN_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / name
    write(path, option)
    undamaged = path.read_bytes()
    intact = load_images(path)
    assert intact.class_names == tuple(FILE_NAMES)
    rng = random.Random(name)
    outcomes = {"read": 0, "rejected": 0}
    for _ in range(LONG if long_mode else SHORT):
        path.write_bytes(damage(rng, undamaged))
        read = outcome(load_images, [path])
        if isinstance(read, Exception):
            assert isinstance(read, InputError), read
            assert str(path) in str(read)
            outcomes["rejected"] += 1
            continue
        outcomes["read"] += 1
        images, labels = read.images, read.labels
        assert images.dtype in (np.uint8, np.float32)
        assert images.ndim == 4
        assert np.isfinite(images).all()
        assert len(images) == len(labels) > 0
        assert labels.min() >= 0
        assert labels.max() < read.n_classes
        if write is write_npz:  # which has checksums of everything but the names
            np.testing.assert_array_equal(images, intact.images)
            np.testing.assert_array_equal(labels, intact.labels)
    print(f"{name}: {outcomes}")
    assert outcomes["rejected"]
