"""Parquet files of encoded images, good and bad."""

import json
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import load_images, parquet_file
from training.errors import InputError
from training.input_format import InputFormat

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N, H, W = 6, 4, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 3, H, W), np.uint8)
LABELS = [0, 1, 2, 1, 0, 2]
NAMES = ["ant", "bee", "cat"]
FEATURES = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_CACHE_DIR", str(tmp_path / "cache"))


def encode(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(file, "PNG")
    return file.getvalue()


ENCODED = [encode(image) for image in IMAGES]
STRUCTS = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(ENCODED)]


def write(folder: Path, columns: dict, features: dict | None = None, name="a.parquet", **options):
    table = pa.table(columns)
    if features is not None:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, folder / name, **options)
    return folder / name


def assert_is(dataset, images=IMAGES, labels=LABELS, names=NAMES) -> None:
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names == tuple(names)


def with_one(values: list, value) -> list:
    return [*values[:3], value, *values[4:]]


def categories(values: list[str]):
    return pa.array(values).dictionary_encode()


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(STRUCTS, id="structs"),
        pytest.param(ENCODED, id="bytes"),
        pytest.param(pa.array(ENCODED, pa.large_binary()), id="large"),
        pytest.param(pa.array(ENCODED, pa.binary_view()), id="view"),
    ],
)
def test_hugging_face(tmp_path, images):
    path = write(tmp_path, {"img": images, "label": LABELS}, FEATURES)
    dataset = load_images(path)
    assert_is(dataset)
    assert dataset.source == str(path)
    assert dataset.validation is dataset.test is None


@pytest.mark.parametrize(
    ("labels", "want", "names"),
    [
        pytest.param(LABELS, LABELS, "012", id="numbers"),
        pytest.param([5, 7, 9, 7, 5, 9], LABELS, "579", id="gaps"),
        pytest.param([0.0, 1.0, 2.0, 1.0, 0.0, 2.0], LABELS, "012", id="whole floats"),
        pytest.param([True, False] * 3, [1, 0] * 3, "01", id="booleans"),
        pytest.param([NAMES[label] for label in LABELS], LABELS, NAMES, id="text"),
        pytest.param(categories([NAMES[label] for label in LABELS]), LABELS, NAMES, id="category"),
        pytest.param(["10", "2"] * 3, [1, 0] * 3, ["2", "10"], id="numbers as text"),
        pytest.param(pa.array(LABELS, pa.uint64()), LABELS, "012", id="uint64"),
    ],
)
def test_without_metadata(tmp_path, labels, want, names):
    assert_is(load_images(write(tmp_path, {"x": STRUCTS, "y": labels})), labels=want, names=names)


@pytest.mark.parametrize(
    "metadata",
    [
        b"{",
        b"\xff",
        b"[" * 99_999,
        b"[]",
        b'{"info": null}',
        b'{"info": {"features": ["label"]}}',
        b'{"info": {"features": {"label": "ClassLabel"}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": {"0": "a"}}}}}',
    ],
)
def test_metadata_of_another_form_are_ignored(tmp_path, metadata):
    table = pa.table({"img": STRUCTS, "label": LABELS})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    assert_is(load_images(tmp_path / "a.parquet"), names="012")


def test_classes_are_matched_by_name(tmp_path):
    like = InputFormat((3, H, W), ("cat", "dog", "bee", "ant"))
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS}, FEATURES)
    assert_is(load_images(path, like=like), labels=[3, 2, 0, 2, 3, 0], names=like.class_names)


def test_class_without_images_keeps_its_place(tmp_path):
    path = write(tmp_path, {"img": STRUCTS, "label": [0, 2] * 3}, FEATURES)
    assert_is(load_images(path), labels=[0, 2] * 3)


def test_size_and_color(tmp_path):
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS})
    assert load_images(path, image_size=8, color="grey").images.shape == (N, 1, 8, 8)


def test_reads_in_batches_of_any_row_groups(tmp_path, monkeypatch):
    for batch_rows, row_group_size in ((1, 6), (4, 1), (2, 3), (5, 4)):
        monkeypatch.setattr(parquet_file, "BATCH_ROWS", batch_rows)
        columns = {"img": STRUCTS, "label": LABELS}
        assert_is(load_images(write(tmp_path, columns, FEATURES, row_group_size=row_group_size)))


def test_is_cached(tmp_path, monkeypatch):
    monkeypatch.setattr("training.datasets.cache.MIN_SECONDS", 0)
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS}, FEATURES)
    assert_is(load_images(path))
    monkeypatch.setattr(parquet_file, "decode_pictures", None)
    assert_is(load_images(path))
    with pytest.raises(TypeError):
        load_images(path, image_size=8)
    path = write(tmp_path, {"img": STRUCTS[:5], "label": LABELS[:5]}, FEATURES)
    with pytest.raises(TypeError):
        load_images(path)


def test_skips_few_images_that_cannot_be_decoded(tmp_path):
    images = with_one(ENCODED, b"no image")
    dataset = load_images(write(tmp_path, {"img": images, "label": LABELS}, FEATURES))
    assert_is(dataset, np.delete(IMAGES, 3, 0), np.delete(LABELS, 3))
    assert any("a.parquet, row 4" in note for note in dataset.notes)


def test_same_as_folder_and_npz(tmp_path):
    order = np.argsort(LABELS, kind="stable")  # that of a folder
    for n, index in enumerate(order):
        folder = tmp_path / "pictures" / NAMES[LABELS[index]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n}.png").write_bytes(ENCODED[index])
    labels = np.array(LABELS)[order]
    np.savez(tmp_path / "a.npz", images=IMAGES[order], labels=labels, class_names=NAMES)
    path = write(tmp_path, {"img": [STRUCTS[n] for n in order], "label": labels}, FEATURES)
    for source in (tmp_path / "pictures", tmp_path / "a.npz", path):
        assert_is(load_images(source), IMAGES[order], labels)


# -- columns --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "features"),
    [
        pytest.param({"image": STRUCTS, "mask": ENCODED[::-1], "label": LABELS}, None, id="image"),
        pytest.param({"IMG": STRUCTS, "mask": STRUCTS[::-1], "Label": LABELS}, None, id="case"),
        pytest.param({"a": STRUCTS, "b": ENCODED[::-1], "label": LABELS}, "a", id="by metadata"),
        pytest.param({"img": ENCODED, "n": range(N), "label": LABELS}, None, id="label"),
        pytest.param({"img": ENCODED, "label": LABELS, "text": ["x"] * N}, None, id="caption"),
        pytest.param({"img": ENCODED, "class": LABELS, "n": range(N)}, None, id="class"),
        pytest.param({"img": ENCODED, "y": LABELS, "boxes": [[1, 2]] * N}, None, id="boxes"),
    ],
)
def test_columns(tmp_path, columns, features):
    features = features and {features: {"_type": "Image"}}
    assert_is(load_images(write(tmp_path, columns, features)), names="012")


@pytest.mark.parametrize("label_column", ["fine", "3"])
def test_label_column(tmp_path, label_column):
    columns = {"img": STRUCTS, "coarse": [0] * N, "fine": LABELS}
    features = {name: {"_type": "ClassLabel", "names": NAMES} for name in ("coarse", "fine")}
    path = write(tmp_path, columns, features)
    assert_is(load_images(path, label_column=label_column))
    with pytest.raises(InputError, match=r"coarse: int64, fine: int64\): name it.*--label_column"):
        load_images(path)


@pytest.mark.parametrize("label_column", ["0", "4", "x", "img", "1", "\u00b2", "9" * 99])
def test_rejects_label_column(tmp_path, label_column):
    path = write(tmp_path, {"img": STRUCTS, "coarse": [0] * N, "fine": LABELS})
    with pytest.raises(InputError, match=rf"^{path}: --label_column is .*img: struct.*fine: int64"):
        load_images(path, label_column=label_column)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"pixels": [[1, 2]] * N, "label": LABELS}, "no column of encoded", id="lists"),
        pytest.param({"image": ["a.png"] * N, "label": LABELS}, "no column of enc", id="paths"),
        pytest.param({"a": STRUCTS, "b": ENCODED, "label": LABELS}, "several columns", id="two"),
        pytest.param({"img": STRUCTS}, "labels is not clear", id="no label"),
        pytest.param({"img": STRUCTS, "label": [[1], [2]] * 3}, "labels is not clear", id="many"),
        pytest.param({f"a{n}": LABELS for n in range(30)}, "a19: int64 and 10 more", id="30"),
    ],
)
def test_rejects_columns(tmp_path, columns, message):
    path = write(tmp_path, columns)
    with pytest.raises(InputError, match=rf"^{path}: .*{message}.*columns are|{message}"):
        load_images(path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(with_one(ENCODED, None), LABELS, "row 4: has no value in .* img", id="null"),
        pytest.param(with_one(STRUCTS, None), LABELS, "row 4: has no value in .* img", id="struct"),
        pytest.param(
            with_one(STRUCTS, {"bytes": None, "path": "cat.png"}),
            LABELS,
            "row 4: has no value in column img",
            id="path alone",
        ),
        pytest.param(
            ENCODED, with_one(LABELS, None), "row 4: has no value in .* label", id="label"
        ),
        pytest.param(ENCODED, with_one(LABELS, 3), "image 4 has label 3, .* names of 3", id="3"),
        pytest.param(ENCODED, with_one(LABELS, -1), "image 4 has label -1", id="no label"),
        pytest.param(ENCODED, with_one([1.0] * N, 0.5), r"image 4 has label 0\.5", id="fraction"),
        pytest.param(ENCODED, with_one([1.0] * N, np.nan), "image 4 has label nan", id="nan"),
        pytest.param(
            ENCODED,
            pa.array(with_one(LABELS, 2**63), pa.uint64()),
            "image 4 has label 9",
            id="2**63",
        ),
        pytest.param(ENCODED, [1] * N, "every image is of class bee", id="one class"),
        pytest.param([b"x"] * N, LABELS, "row 1", id="no images"),
        pytest.param([b""] * N, LABELS, "row 1", id="empty images"),
        pytest.param([], pa.array([], pa.int64()), "it has no rows", id="no rows"),
    ],
)
def test_rejects_rows(tmp_path, images, labels, message):
    images = images or pa.array([], pa.binary())
    path = write(tmp_path, {"img": images, "label": labels}, FEATURES)
    with pytest.raises(InputError, match=rf"^{path}.*{message}"):
        load_images(path)


def test_rejects_label_that_is_not_printable(tmp_path):
    path = write(tmp_path, {"img": STRUCTS, "label": with_one(["a"] * N, "b\n")})
    with pytest.raises(InputError, match=rf"^{path}, column label: .*printable.*'b.n'"):
        load_images(path)


# -- folders --------------------------------------------------------------------------------------
def write_shards(folder: Path, *names: str, rows: int = 2) -> None:
    """Write files of two images each; the first has the first two."""
    for n, name in enumerate(names):
        part = slice(rows * n, rows * n + rows)
        write(folder, {"img": STRUCTS[part], "label": LABELS[part]}, FEATURES, name)


def test_folder_of_shards(tmp_path):
    write_shards(tmp_path, *(f"train-0000{n}-of-00003.parquet" for n in range(3)))
    write(
        tmp_path, {"img": STRUCTS[:3], "label": [2, 2, 2]}, FEATURES, "test-00000-of-00001.parquet"
    )
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "._train-00000-of-00003.parquet").write_bytes(b"of macOS")
    dataset = load_images(tmp_path)
    assert_is(dataset)
    assert dataset.validation is None
    assert_is(dataset.test, IMAGES[:3], [2, 2, 2])
    like = InputFormat((3, H, W), tuple(NAMES))
    assert_is(load_images(tmp_path, like=like), IMAGES[:3], [2, 2, 2])


def test_folder_with_validation(tmp_path):
    write_shards(tmp_path, "train.parquet", "validation.parquet", "test.parquet")
    dataset = load_images(tmp_path)
    assert_is(dataset, IMAGES[:2], LABELS[:2])
    assert_is(dataset.validation, IMAGES[2:4], LABELS[2:4])
    assert_is(dataset.test, IMAGES[4:], LABELS[4:])


def test_test_images_get_the_form_of_the_training_images(tmp_path):
    write(tmp_path, {"img": ENCODED, "label": LABELS}, FEATURES, "train.parquet")
    grey = np.full((3, 8, 8), 7, np.uint8)
    write(tmp_path, {"img": [encode(grey)], "label": [1]}, FEATURES, "test.parquet")
    assert load_images(tmp_path).test.images.shape == (1, 3, H, W)


def test_folder_of_other_names_is_one_part(tmp_path):
    write_shards(tmp_path, "0000.parquet", "0001.parquet", "0002.parquet")
    assert_is(load_images(tmp_path))


def test_folder_of_one_part(tmp_path):
    write_shards(tmp_path, "test-00000-of-00001.parquet", rows=N)
    assert_is(load_images(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.parquet"], "lacks train-00001-of-00002.parquet: download"),
        (["train-00001-of-00002.parquet"], "lacks train-00000-of-00002.parquet: download"),
        (["train-0-of-1.parquet", "train-0-of-2.parquet"], "not of one set"),
        (["train-0-of-1.parquet", "train.parquet"], "not of one set"),
        (["train.parquet", "other.parquet"], "other.parquet: has no name of training or test"),
        (["validation.parquet", "test.parquet"], "no train images"),
        (["train-0-of-99999999999999999999.parquet"], "lacks train-1-of-9"),
    ],
)
def test_rejects_folder(tmp_path, names, message):
    write_shards(tmp_path, *names)
    with pytest.raises(InputError, match=rf"^{tmp_path}.*{message}"):
        load_images(tmp_path)


def test_rejects_files_of_different_sets(tmp_path):
    write(tmp_path, {"img": STRUCTS, "label": LABELS}, FEATURES, "train-0-of-2.parquet")
    other = FEATURES | {"label": {"_type": "ClassLabel", "names": NAMES[::-1]}}
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS}, other, "train-1-of-2.parquet")
    with pytest.raises(InputError, match=rf"^{path}: has other columns or class names than .*0-of"):
        load_images(tmp_path)


# -- damaged and hostile files --------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 9, b"a,b\n1,2\n", b"PAR1" + bytes(99)])
def test_rejects_what_is_no_parquet(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: is no Parquet file, or damaged or cut off"):
        load_images(path)


def test_rejects_cut_file(tmp_path):
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS}, FEATURES)
    complete = path.read_bytes()
    for length in range(0, len(complete), 100):
        path.write_bytes(complete[:length])
        with pytest.raises(InputError, match=rf"^{path}: .*copy or download it again"):
            load_images(path)


def test_rejects_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.parquet: no such file"):
        load_images(tmp_path / "a.parquet")


def test_rejects_text_that_is_not_utf8(tmp_path):
    binary = pa.array([b"\xff", b"a"] * 3)
    labels = pa.Array.from_buffers(pa.string(), N, binary.buffers())
    path = write(tmp_path, {"img": STRUCTS, "label": labels})
    with pytest.raises(InputError, match=rf"^{path}: .*damaged"):
        load_images(path)


def test_rejects_checksum_of_page(tmp_path):
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS}, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(ENCODED[0]) + 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: .*damaged.*CRC"):
        load_images(path)


def test_many_copies_of_an_image_are_not_written_to_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "MIN_LIMIT_BYTES", 2**20)
    data = np.random.default_rng(0).bytes(2**16)
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000), pa.array([data]))
    path = write(tmp_path, {"img": images.cast(pa.binary()), "label": [0, 1] * 1_000})
    assert path.stat().st_size < 2**18
    del images
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"^{path}: decompresses to more than 200 times"):
            load_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24


def test_rejects_full_disk(tmp_path, monkeypatch):
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS})

    class Full(BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_file.tempfile, "TemporaryFile", Full)
    with pytest.raises(InputError, match=r"temporary file.*No space left.*TMPDIR"):
        load_images(path)


def test_says_that_pyarrow_is_missing(tmp_path, monkeypatch):
    path = write(tmp_path, {"img": STRUCTS, "label": LABELS})
    monkeypatch.setattr(parquet_file, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"^{path}: .*needs pyarrow: pip install pyarrow"):
        load_images(path)
