"""Archives of arrays (.npz), good and bad."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training.datasets import load_images
from training.errors import InputError
from training.input_format import InputFormat

N, H, W = 6, 4, 5
GREY = np.arange(N * H * W, dtype=np.uint8).reshape(N, H, W)
COLOR = np.stack([GREY, GREY + 1, GREY + 2], axis=1)  # (N, C, H, W)
LABELS = np.array([0, 1, 2, 1, 0, 2])
NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_CACHE_DIR", str(tmp_path / "cache"))


def write(folder: Path, name: str = "a.npz", compressed: bool = False, **arrays) -> Path:
    (np.savez_compressed if compressed else np.savez)(folder / name, **arrays)
    return folder / name


def assert_is(dataset, images, labels=LABELS, names=("0", "1", "2")) -> None:
    np.testing.assert_array_equal(dataset.images, images)
    assert dataset.images.flags.c_contiguous
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names == tuple(names)


# -- keys -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("x_train", "y_train")])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads(tmp_path, keys, compressed):
    path = write(tmp_path, "any.name", compressed, **dict(zip(keys, (GREY, LABELS), strict=True)))
    path = path if path.is_file() else path.with_name("any.name.npz")
    dataset = load_images(path)
    assert_is(dataset, GREY[:, np.newaxis])
    assert dataset.images.dtype == np.uint8
    assert dataset.source == str(path)
    assert dataset.validation is dataset.test is None


def test_content_decides_the_format_not_the_name(tmp_path):
    path = write(tmp_path, images=GREY, labels=LABELS).rename(tmp_path / "a.csv")
    assert_is(load_images(path), GREY[:, np.newaxis])


def test_keras(tmp_path):
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:3], "y_test": LABELS[:3] // 2}
    dataset = load_images(write(tmp_path, **arrays))
    assert_is(dataset, GREY[:, np.newaxis])
    assert dataset.validation is None
    assert_is(dataset.test, GREY[:3, np.newaxis], [0, 0, 1])


def test_medmnist(tmp_path):
    color = np.moveaxis(COLOR, 1, -1)
    arrays = {
        f"{part}_{content}": array[: N - cut]
        for cut, part in enumerate(("train", "val", "test"))
        for content, array in (("images", color), ("labels", LABELS[:, np.newaxis]))
    }
    dataset = load_images(write(tmp_path, **arrays))
    assert_is(dataset, COLOR)
    assert_is(dataset.validation, COLOR[:-1], LABELS[:-1])
    assert_is(dataset.test, COLOR[:-2], LABELS[:-2])


def test_for_a_model_it_is_the_test_images(tmp_path):
    like = InputFormat((1, H, W), ("0", "1", "2"))
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:2], "y_test": LABELS[:2]}
    assert_is(load_images(write(tmp_path, **arrays), like=like), GREY[:2, np.newaxis], LABELS[:2])
    assert_is(load_images(write(tmp_path, x=GREY, y=LABELS), like=like), GREY[:, np.newaxis])
    only_test = write(tmp_path, x_test=GREY, y_test=LABELS)
    assert_is(load_images(only_test, like=like), GREY[:, np.newaxis])


def test_other_arrays_are_not_read(tmp_path):
    other = np.array([{"a": 1}], object)
    path = write(tmp_path, images=GREY, labels=LABELS, x=GREY, other=other)
    assert_is(load_images(path), GREY[:, np.newaxis])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param(
            {"data": GREY, "target": LABELS},
            "arrays called data, target: .*any of these.*x_train and y_train; .*; x and y",
            id="other keys",
        ),
        pytest.param({}, "arrays called nothing", id="none"),
        pytest.param({f"a{n}": LABELS for n in range(30)}, "a19 and 10 more", id="many"),
        pytest.param({"x": GREY}, "arrays called x:", id="no labels"),
        pytest.param(
            {"x": GREY, "y": LABELS, "images": GREY, "labels": LABELS}, "one of these", id="two"
        ),
        pytest.param(
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY},
            "has an array x_test and no y_test: save both",
            id="half of a part",
        ),
        pytest.param(
            {"x_val": GREY, "y_val": LABELS, "x_test": GREY, "y_test": LABELS},
            "has validation and test images but no train images",
            id="no training images",
        ),
    ],
)
def test_rejects_keys(tmp_path, arrays, message):
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError, match=rf"^{path}: .*{message}"):
        load_images(path)


# -- images ---------------------------------------------------------------------------------------
def as_hwc(images):
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


@pytest.mark.parametrize(
    ("images", "image_shape", "want"),
    [
        pytest.param(GREY, None, GREY[:, None], id="NHW"),
        pytest.param(GREY[..., None], None, GREY[:, None], id="NHW1"),
        pytest.param(GREY[:, None], None, GREY[:, None], id="N1HW"),
        pytest.param(as_hwc(COLOR), None, COLOR, id="NHWC"),
        pytest.param(COLOR, None, COLOR, id="NCHW"),
        pytest.param(np.asfortranarray(COLOR), None, COLOR, id="Fortran's order"),
        pytest.param(COLOR[..., :3], (3, H, 3), COLOR[..., :3], id="either, NCHW said"),
        pytest.param(COLOR[..., :3], (3, 3, H), np.moveaxis(COLOR[..., :3], -1, 1), id="NHWC said"),
        pytest.param(COLOR[:, :2], (2, H, W), COLOR[:, :2], id="two channels, said"),
        pytest.param(as_hwc(COLOR[:, :2]), (2, H, W), COLOR[:, :2], id="two channels last, said"),
        pytest.param(GREY.reshape(N, -1), (1, H, W), GREY[:, None], id="rows of pixels, said"),
        pytest.param(COLOR[:, :1, :1, :1], None, COLOR[:, :1, :1, :1], id="one pixel"),
    ],
)
@pytest.mark.parametrize("by_model", [False, True])
def test_axes(tmp_path, images, image_shape, want, by_model):
    path = write(tmp_path, images=images, labels=LABELS)
    like = InputFormat(want.shape[1:], ("0", "1", "2")) if by_model else None
    assert_is(load_images(path, image_shape=None if by_model else image_shape, like=like), want)


@pytest.mark.parametrize(
    ("images", "image_shape", "message"),
    [
        pytest.param(COLOR[..., :3], None, r"both may be.*--image_shape C,H,W", id="either"),
        pytest.param(COLOR[:, :2], None, r"none has length 1 or 3.*--image_shape", id="none"),
        pytest.param(COLOR[..., :3, :3], None, "both may be", id="all of length 3"),
        pytest.param(COLOR, (3, W, H), r"--image_shape is 3,5,4: it must", id="another shape"),
        pytest.param(GREY, (3, H, W), r"--image_shape is 3,4,5: it must", id="grey and not color"),
        pytest.param(GREY.reshape(N, -1), None, r"pixels in a row.*--image_shape", id="rows"),
        pytest.param(GREY[0], (1, H, W), r"\(4, 5\).*images are", id="one image"),
        pytest.param(GREY[:, None, None], None, "images are", id="five axes"),
        pytest.param(GREY[0, 0], None, r"images are", id="one axis"),
        pytest.param(np.array(1), None, r"images are", id="a number"),
        pytest.param(GREY[:0], None, r"\(0, 4, 5\)", id="no images"),
        pytest.param(GREY[:, :0], None, r"\(6, 0, 5\)", id="no rows"),
    ],
)
def test_rejects_axes(tmp_path, images, image_shape, message):
    path = write(tmp_path, images=images, labels=LABELS)
    with pytest.raises(InputError, match=rf"^{path}, images: has shape .*{message}"):
        load_images(path, image_shape=image_shape)


@pytest.mark.parametrize(
    ("dtype", "factor", "want"),
    [
        (np.uint8, 1, np.uint8),
        (bool, 1, np.uint8),
        (np.int64, 1, np.uint8),
        (">u2", 1, np.uint8),
        (">u2", 256, np.float32),
        (np.int16, -1, np.float32),
        (np.uint64, 2**40, np.float32),
        (np.float64, 1, np.uint8),
        (np.float64, 1 / 255, np.float32),
        (">f8", 1 / 255, np.float32),
        (np.float16, 0.5, np.float32),
        (np.float32, -1, np.float32),
        (np.longdouble, 0.5, np.float32),
    ],
)
def test_dtype(tmp_path, dtype, factor, want):
    images = (GREY.astype(float) * (1 if dtype is bool else factor)).astype(dtype)
    read = load_images(write(tmp_path, images=images, labels=LABELS)).images
    assert read.dtype == want
    np.testing.assert_array_equal(read[:, 0], images.astype(want))


def test_dtype_is_decided_by_all_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("training.datasets.npz_file.BLOCK_BYTES", 1)
    images = GREY.astype(float)
    images[-1, -1, -1] = 0.5
    read = load_images(write(tmp_path, images=images, labels=LABELS)).images
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[:, 0], images)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_rejects_pixel_that_is_not_finite(tmp_path, value, monkeypatch):
    monkeypatch.setattr("training.datasets.npz_file.BLOCK_BYTES", 2 * H * W * 8)
    images = GREY.astype(float)
    images[4, 1, 2] = value
    path = write(tmp_path, images=images, labels=LABELS)
    with pytest.raises(InputError, match=rf"^{path}, images: image 5 has a pixel .*: .*finite"):
        load_images(path)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(GREY.astype(complex), "dtype complex128", id="complex"),
        pytest.param(GREY.astype("U3"), "dtype <U3: pixels must be numbers", id="text"),
        pytest.param(GREY.astype("S3"), r"dtype \|S3", id="bytes"),
        pytest.param(GREY.astype("M8[s]"), "dtype datetime64", id="dates"),
        pytest.param(GREY.astype([("a", "u1")]), "dtype", id="structures"),
        pytest.param(GREY.astype([("\u03b1", "u1")]), "array of numbers", id="version 3"),
        pytest.param(GREY.astype(object), "images is an array of Python objects", id="objects"),
    ],
)
def test_rejects_dtype(tmp_path, images, message):
    path = write(tmp_path, images=images, labels=LABELS)
    with pytest.raises(InputError, match=rf"^{path}.*{message}"):
        load_images(path)


def test_image_size_and_color(tmp_path):
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS}
    dataset = load_images(write(tmp_path, **arrays), image_size=8, color="rgb")
    assert dataset.images.shape == dataset.test.images.shape == (N, 3, 8, 8)


# -- labels ---------------------------------------------------------------------------------------
ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.uint8),
        LABELS.astype(np.uint64),
        LABELS.astype(">i2"),
        LABELS.astype(float),
        LABELS[:, np.newaxis],
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.astype(np.int32),
    ],
)
def test_labels(tmp_path, labels):
    assert_is(load_images(write(tmp_path, images=GREY, labels=labels)), GREY[:, np.newaxis])


def test_labels_with_gaps(tmp_path):
    dataset = load_images(write(tmp_path, images=GREY, labels=LABELS * 2 + 1))
    assert_is(dataset, GREY[:, np.newaxis], names=("1", "3", "5"))


@pytest.mark.parametrize("labels", [LABELS, ONE_HOT, NAMES[LABELS], NAMES[LABELS][:, np.newaxis]])
def test_class_names(tmp_path, labels):
    names = np.array(["ant", "bee", "cat", "dog"])  # of which there is no image
    dataset = load_images(write(tmp_path, images=GREY, labels=labels, class_names=names))
    assert_is(dataset, GREY[:, np.newaxis], names=names)


def test_labels_of_text(tmp_path):
    dataset = load_images(write(tmp_path, images=GREY, labels=np.array(["10", "2", "3"])[LABELS]))
    assert_is(dataset, GREY[:, np.newaxis], [2, 0, 1, 0, 2, 1], ("2", "3", "10"))


def test_classes_are_matched_by_name(tmp_path):
    like = InputFormat((1, H, W), ("cat", "dog", "bee", "ant"))
    for labels, names in ((LABELS, {"class_names": NAMES}), (NAMES[LABELS], {})):
        path = write(tmp_path, images=GREY, labels=labels, **names)
        assert_is(load_images(path, like=like), GREY[:, None], [3, 2, 0, 2, 3, 0], like.class_names)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        pytest.param(LABELS[:5], None, r"has shape \(5,\) for 6 images: give each", id="fewer"),
        pytest.param(np.array(1), None, r"has shape \(\) for 6", id="one number"),
        pytest.param(LABELS - 1, None, "image 1 has label -1: .*whole numbers from 0", id="minus"),
        pytest.param(LABELS / 2, None, r"image 2 has label 0\.5", id="fraction"),
        pytest.param(LABELS * np.nan, None, "image 1 has label nan", id="nan"),
        pytest.param(LABELS + np.inf, None, "image 1 has label inf", id="infinite"),
        pytest.param(
            LABELS.astype("u8") + 2**63, None, "has label 9223372036854775808", id="2**63"
        ),
        pytest.param(np.ones((N, 3)), None, "its row 1 is not a single 1", id="multi-label"),
        pytest.param(ONE_HOT[:, :2], None, "its row 3 is not a single 1", id="no class"),
        pytest.param(ONE_HOT * 0.5, None, "its row 1 is not", id="probabilities"),
        pytest.param(np.zeros((N, 0)), None, "its row 1 is not", id="no columns"),
        pytest.param(np.zeros((N, 1, 1)), None, r"has shape \(6, 1, 1\)", id="three axes"),
        pytest.param(NAMES[LABELS][:, None].repeat(2, 1), None, "has shape", id="two names"),
        pytest.param(LABELS * 0, None, "every label is 0", id="one class"),
        pytest.param(LABELS * 0, NAMES, "every image is of class ant", id="one named class"),
        pytest.param(LABELS, NAMES[:2], "image 3 has label 2, and .* names of 2", id="few names"),
        pytest.param(NAMES[LABELS], NAMES[:2], "image 3 is of class cat", id="no such name"),
        pytest.param(LABELS, NAMES[[0, 1, 1]], "'bee' twice: give each", id="name twice"),
        pytest.param(LABELS, np.array(["a", "b", "c\n"]), "printable", id="not printable"),
        pytest.param(LABELS.astype(complex), None, "dtype complex", id="complex"),
        pytest.param(LABELS.astype(object), None, "labels is an array of Python obj", id="objects"),
    ],
)
def test_rejects_labels(tmp_path, labels, names, message):
    arrays = {} if names is None else {"class_names": names}
    path = write(tmp_path, images=GREY, labels=labels, **arrays)
    with pytest.raises(InputError, match=rf"^{path}.*{message}"):
        load_images(path)


@pytest.mark.parametrize("names", [LABELS[:3], NAMES[None], NAMES.astype("S")])
def test_rejects_class_names(tmp_path, names):
    path = write(tmp_path, images=GREY, labels=LABELS, class_names=names)
    with pytest.raises(InputError, match=rf"^{path}.*class_names.* text"):
        load_images(path)


def test_rejects_class_that_the_model_has_not(tmp_path):
    like = InputFormat((1, H, W), ("ant", "cat"))
    path = write(tmp_path, images=GREY, labels=LABELS, class_names=NAMES)
    with pytest.raises(
        InputError, match=rf"^{path}, labels: image 2 is of class bee.*2 .*ant, cat"
    ):
        load_images(path, like=like)


# -- damaged and hostile files --------------------------------------------------------------------
class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/cnn-npz-trap"),))


def test_unpickles_nothing(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", pickle.dumps(Trap()))
        archive.writestr("labels.npy", pickle.dumps(Trap()))
    with pytest.raises(InputError, match=rf"^{path}: is no .npz file, or damaged.*numpy.savez"):
        load_images(path)
    assert not Path("/tmp/cnn-npz-trap").exists()


def npy(shape: str, descr: str = "'|u1'", data: bytes = b"") -> bytes:
    """Make the content of an array whose header is any text."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def zipped(path: Path, images: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    file = io.BytesIO()
    np.save(file, LABELS)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", file.getvalue())
    return path


def assert_rejected_in_little_memory(path: Path, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"^{path}: .*{message}"):
            load_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(
    "shape", ["(6, 1000000, 1000000)", "(6, 4, 5)", "(6, 2**70)", "(-1, -1)", "6", "(6, 'a')"]
)
def test_header_that_lies_allocates_little(tmp_path, shape):
    path = zipped(tmp_path / "a.npz", npy(shape, data=bytes(99)))
    assert_rejected_in_little_memory(path, "damaged or cut off.*download")


@pytest.mark.parametrize("header", [b"-" * 9000 + b"1", b"(" * 9000, b"[" * 90, b"'\0'", b"\xff"])
def test_header_that_is_no_header(tmp_path, header):
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    assert_rejected_in_little_memory(zipped(tmp_path / "a.npz", data), "damaged or cut off")


def test_header_that_is_long(tmp_path):
    data = b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + b" " * 9
    assert_rejected_in_little_memory(zipped(tmp_path / "a.npz", data), "damaged or cut off")


def test_bomb_is_not_decompressed(tmp_path, monkeypatch):
    monkeypatch.setattr("training.datasets.npz_file.MIN_LIMIT_BYTES", 2**20)
    path = zipped(tmp_path / "a.npz", npy(f"(6, 1, {2**23})", data=bytes(6 * 2**23)))
    assert_rejected_in_little_memory(path, "decompresses to 50,331,776 bytes with images, more")


def test_parts_count_together(tmp_path, monkeypatch):
    monkeypatch.setattr("training.datasets.npz_file.MIN_LIMIT_BYTES", 0)
    monkeypatch.setattr("training.datasets.npz_file.MAX_RATIO", 1)
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS}
    assert load_images(write(tmp_path, **arrays)).test is not None  # uncompressed: it fits
    path = write(tmp_path, compressed=True, **{k: v.repeat(99, 0) for k, v in arrays.items()})
    assert_rejected_in_little_memory(path, "decompresses to .* more than 1 times")


def test_archive_that_claims_terabytes(tmp_path):
    """The central directory says that the member has 2**62 bytes."""
    path = zipped(tmp_path / "a.npz", npy("(4611686018427387904,)"), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    name_end = entry + 46 + len("images.npy")
    data[entry + 24 : entry + 28] = b"\xff" * 4  # its size is in the extra field
    extra = struct.pack("<HHQ", 1, 8, 2**62)
    data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    data[name_end:name_end] = extra
    end = data.index(b"PK\5\6")
    (size,) = struct.unpack("<I", data[end + 12 : end + 16])
    data[end + 12 : end + 16] = struct.pack("<I", size + len(extra))
    path.write_bytes(data)
    assert_rejected_in_little_memory(path, r"decompresses to 4,611,686,018,427,387,904 bytes")


@pytest.mark.parametrize("compressed", [False, True])
def test_rejects_changed_data(tmp_path, compressed):
    path = write(tmp_path, compressed=compressed, images=GREY, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[250] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: .*damaged or cut off.*download"):
        load_images(path)


def test_rejects_cut_file(tmp_path):
    path = write(tmp_path, images=GREY, labels=LABELS)
    complete = path.read_bytes()
    for length in range(0, len(complete), 50):
        path.write_bytes(complete[:length])
        with pytest.raises(InputError, match=rf"^{path}: "):
            load_images(path)


def test_rejects_array_alone(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(InputError, match=r"a\.npy: is no \.npz file.*numpy\.savez"):
        load_images(tmp_path / "a.npy")


def test_rejects_encrypted_array(tmp_path):
    path = write(tmp_path, images=GREY, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: .*encrypted"):
        load_images(path)


def test_rejects_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.npz: no such file"):
        load_images(tmp_path / "a.npz")
