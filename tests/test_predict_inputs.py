"""Pictures and rows of pixels for prediction."""

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from training import InputError, Model
from training.datasets import load_images, load_predict_inputs
from training.input_format import InputFormat, default_class_names
from training.input_stats import InputStats, border_pixels, pixel_moments, sample_images

DARK = InputStats(0, 255, 3)  # white on black, as MNIST
LIGHT = InputStats(0, 1, 0.99)
PHOTOGRAPHS = InputStats(0, 255, 120)
SHAPE = (1, 28, 28)


def drawing(H=28, W=28):
    """Return a light bar, longer than it is wide, on a dark background."""
    image = np.zeros((H, W), np.uint8)
    image[H // 4 : 3 * H // 4, W // 2 - W // 16 : W // 2 + W // 16] = 250
    return image


def save(path, array, mode=None):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def load(path, shape=SHAPE, input_stats=DARK, n_classes=10, **options):
    like = InputFormat(shape, default_class_names(n_classes), stats=input_stats)
    inputs = load_predict_inputs(path, like, **options)
    n = len(inputs.names)
    assert inputs.images.shape == (n, *shape)
    assert len(inputs.rules) == len(inputs.remarks) == n
    return inputs.names, inputs.images, inputs.labels


def test_picture_of_the_right_size_is_unchanged(tmp_path):
    names, images, labels = load(save(tmp_path / "a.png", drawing()))
    assert names == ["a.png"]
    assert labels is None
    np.testing.assert_allclose(images[0, 0], drawing(), atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
@pytest.mark.parametrize("invert", [False, True])
def test_every_picture_mode_gives_the_same_pixels(tmp_path, mode, invert):
    array = 255 - drawing() if invert else drawing()
    _, images, _ = load(save(tmp_path / "a.png", array, mode))
    np.testing.assert_allclose(images[0, 0], drawing(), atol=6)


def test_pixels_have_the_scale_of_the_training_images(tmp_path):
    path = save(tmp_path / "a.png", drawing())
    _, images, _ = load(path, input_stats=LIGHT)
    np.testing.assert_allclose(images[0, 0], 1 - drawing() / 255, atol=1e-6)
    _, images, _ = load(path, input_stats=InputStats(-1, 1, -1))
    np.testing.assert_allclose(images[0, 0], drawing() / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("invert", [False, True])
def test_photographs_are_not_inverted(tmp_path, invert):
    array = 255 - drawing() if invert else drawing()
    _, images, _ = load(save(tmp_path / "a.png", array), input_stats=PHOTOGRAPHS)
    np.testing.assert_allclose(images[0, 0], array, atol=1e-4)


@pytest.mark.parametrize(
    ("H", "W"), [(280, 280), (14, 14), (100, 300), (300, 100), (1, 1), (1, 50)]
)
def test_any_size_is_resized_without_distortion(tmp_path, H, W):
    side = max(H, W)
    square = 255 - drawing(side, side)
    part = square[(side - H) // 2 :][:H, (side - W) // 2 :][:, :W]
    _, images, _ = load(save(tmp_path / "a.png", part))
    assert images.min() >= 0
    assert images.max() <= 255
    if min(H, W) > 90:  # the bar is as long and as wide as in the square picture
        rows, columns = np.nonzero(images[0, 0] > 125)
        height, width = (part < 125).sum(axis=0).max(), (part < 125).sum(axis=1).max()
        assert np.ptp(rows) + 1 == pytest.approx(height * 28 / side, abs=1.5)
        assert np.ptp(columns) + 1 == pytest.approx(width * 28 / side, abs=1.5)


def test_transparent_is_white(tmp_path):
    """Black ink on nothing, as drawing programs save it."""
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = drawing()
    _, images, _ = load(save(tmp_path / "a.png", ink))
    np.testing.assert_allclose(images[0, 0], drawing(), atol=2)


def test_sixteen_bits(tmp_path):
    _, images, _ = load(save(tmp_path / "a.png", drawing().astype(np.uint16) * 257))
    np.testing.assert_allclose(images[0, 0], drawing(), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_more_than_sixteen_bits_are_rejected(tmp_path, dtype):
    path = save(tmp_path / "a.tif", drawing().astype(dtype) * 1000)
    with pytest.raises(InputError, match=r"a\.tif: .* save it with 8 or 16 bits$"):
        load(path)


def test_truncated_tiff_raises_without_a_warning(tmp_path, recwarn):
    path = save(tmp_path / "a.tif", drawing())
    whole = path.read_bytes()
    for n_bytes in range(8, 200, 10):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match=r"a\.tif: cannot be read as a picture: "):
            load(path)
    assert not recwarn.list


def test_colours(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    path = save(tmp_path / "a.png", array)
    _, images, _ = load(path, (3, 8, 12), PHOTOGRAPHS)
    np.testing.assert_allclose(images[0], array.transpose(2, 0, 1), atol=1e-4)
    with pytest.raises(InputError, match=r"a\.png: .* have 2 channels"):
        load(path, (2, 8, 12))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("rule", ["pad", "crop", "stretch"])
def test_a_model_trained_on_pictures_gets_the_pixels_of_a_test(tmp_path, mode, rule):
    """Of the same files in class folders, for every size, rule and color."""
    rng = np.random.default_rng(0)
    for index, (H, W) in enumerate([(20, 30), (31, 17), (300, 200), (20, 20), (64, 64)]):
        array = rng.integers(0, 256, (H, W, 3), np.uint8)
        folder = tmp_path / ("a" if index < 3 else "b")
        folder.mkdir(exist_ok=True)
        kind = ("jpg", "png", "webp")[index % 3]
        save(folder / f"{index}.{kind}", array if mode == "RGB" else array[..., 0])
    train = load_images(tmp_path, resize=rule)
    assert len(train.images) == 5
    like = train.input_format._replace(stats=InputStats.of(train.images))
    inputs = load_predict_inputs(tmp_path, like)
    names, images, notes = inputs.names, inputs.images, inputs.notes
    assert names == ["a/0.jpg", "a/1.png", "a/2.webp", "b/3.jpg", "b/4.png"]
    assert notes == ()
    np.testing.assert_array_equal(images, train.images)
    alone = load_predict_inputs(tmp_path / "a" / "1.png", like)
    assert alone.names == ["1.png"]
    np.testing.assert_array_equal(alone.images[0], train.images[1])


def test_pictures_with_colors_are_not_inverted(tmp_path):
    array = np.full((4, 4, 3), 240, np.uint8)
    _, images, _ = load(save(tmp_path / "a.png", array), (3, 4, 4), DARK)
    assert (images == 240).all()


def test_damaged_pictures_of_a_folder_are_skipped_and_named(tmp_path):
    for name in ("a.png", "c.png"):
        save(tmp_path / name, drawing())
    (tmp_path / "b.png").write_text("no picture")
    inputs = load_predict_inputs(tmp_path, InputFormat(SHAPE, ("a", "b"), stats=DARK))
    assert inputs.names == ["a.png", "c.png"]
    assert inputs.images.shape == (2, *SHAPE)
    assert inputs.notes[0].startswith(f"skipped 1 of 3 pictures: {tmp_path}/b.png cannot be")


def test_files_that_are_no_pictures_are_named(tmp_path):
    save(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "b.heic").write_bytes(b"")
    inputs = load_predict_inputs(tmp_path, InputFormat(SHAPE, ("a", "b")))
    assert inputs.names == ["a.png"]
    assert inputs.notes == ("ignored files whose names are not those of pictures (1): b.heic",)


def test_folder_is_sorted_by_numbers(tmp_path):
    for name in ("10.png", "9.PNG", "1.jpg", "a.bmp", "\u00b2.png"):
        save(tmp_path / name, drawing())
    for name in ("notes.txt", "._1.jpg"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    names, images, _ = load(tmp_path)
    assert names == ["1.jpg", "9.PNG", "10.png", "a.bmp", "\u00b2.png"]
    np.testing.assert_allclose(images[2, 0], drawing(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"no picture", r"a\.png: cannot be read as a picture"),
        ("a.png", None, r"a\.png: no such file"),
        ("a.csv", None, r"a\.csv: no such file"),
        ("a.csv", b"1,2,3\n", r"a\.csv: has 3 cells a line, and an image of 1,28,28 has 784"),
        ("a.csv", b"1,2,3,4\n1,2,x,4\n", r"a\.csv, line 2, column 3: 'x' is not a number"),
        ("a.csv", b"9,1,2,3,4\n", r"a\.csv, line 1, column 1: '9' is not a label: there are 3"),
        ("folder", None, "no such file"),
        (
            "a.psd",
            b"8BPS\0\0\0",
            r"a\.psd: is not a CSV file, and its name is not that of a picture \(\.bmp",
        ),
        ("a.npz", b"PK\3\4", r"a\.npz: is not a CSV file, .* for --test, with --test_data"),
        ("a.npz", None, r"a\.npz: no such file"),
    ],
)
def test_rejects_what_is_not_an_image(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / name, n_classes=3)


def test_a_picture_that_changes_is_named(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    inputs = load_predict_inputs(path, InputFormat(SHAPE, ("a", "b")))
    path.write_bytes(b"")
    for read in (inputs.read_original, inputs.read_gray):
        with pytest.raises(InputError, match=r"a\.png: cannot be read as a picture"):
            read(0)


def test_rejects_empty_folder(tmp_path):
    with pytest.raises(InputError, match=r"contains no picture \(\.bmp, \.gif"):
        load(tmp_path)


def test_rejects_truncated_and_too_large_pictures(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)
    path = save(tmp_path / "a.png", noise)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"a\.png: cannot be read"):
        load(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(InputError, match=r"b\.png: is larger than 6,000 pixels"):
        load(save(tmp_path / "b.png", noise))


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("side", [28, 14])
def test_rows_of_pixels(tmp_path, labelled, side):
    images = np.random.default_rng(0).integers(0, 255, (5, side, side))
    rows = np.c_[np.arange(5) % 3, images.reshape(5, -1)] if labelled else images.reshape(5, -1)
    text = "\n".join(",".join(map(str, row)) for row in rows)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    names, found, labels = load(path, n_classes=3)
    assert names == ["1", "2", "3", "4", "5"]
    assert (labels is None) != labelled
    if labelled:
        assert labels.tolist() == [0, 1, 2, 0, 1]
    if side == 28:
        np.testing.assert_array_equal(found[:, 0], images)
    else:
        np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2)), rtol=0.02)


PIXELS = np.random.default_rng(0).integers(0, 255, (5, 9))
LABELS = np.arange(5) % 3
PIXEL_NAMES = [f"pixel{n}" for n in range(9)]
ORDER = [4, 2, 8, 1, 0, 3, 7, 6, 5]


@pytest.mark.parametrize(
    ("header", "columns", "labelled"),
    [
        pytest.param(PIXEL_NAMES, [PIXELS], False, id="names of pixels"),
        pytest.param(list("abcdefghi"), [PIXELS], False, id="other names"),
        pytest.param(["", *PIXEL_NAMES], [LABELS, PIXELS], False, id="an index"),
        pytest.param(["", *range(9)], [LABELS, PIXELS], False, id="an index and numbers"),
        pytest.param(
            ["", *range(1, 10)], [LABELS, PIXELS], False, id="an index and numbers from 1"
        ),
        pytest.param(["id", *PIXEL_NAMES], [LABELS, PIXELS], False, id="an id"),
        pytest.param(["label", *PIXEL_NAMES], [LABELS, PIXELS], True, id="labels"),
        pytest.param(["digit", *PIXEL_NAMES], [LABELS, PIXELS], True, id="labels of another name"),
        pytest.param([*PIXEL_NAMES, "class"], [PIXELS, LABELS], True, id="labels last"),
        pytest.param(["id", *PIXEL_NAMES, "class"], [LABELS, PIXELS, LABELS], True, id="all"),
        pytest.param(
            [*(PIXEL_NAMES[n] for n in ORDER), "label"],
            [PIXELS[:, ORDER], LABELS],
            True,
            id="order",
        ),
        pytest.param(
            [PIXEL_NAMES[n] for n in ORDER], [PIXELS[:, ORDER]], False, id="order without labels"
        ),
    ],
)
@pytest.mark.parametrize("separator", [",", ";"])
def test_header_decides_whether_there_are_labels(tmp_path, header, columns, labelled, separator):
    table = np.column_stack(columns).tolist()
    text = "\n".join(separator.join(map(str, row)) for row in [header, *table])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test.csv", text)
    _, images, labels = load(tmp_path / "a.zip", (1, 3, 3), n_classes=3)
    np.testing.assert_array_equal(images.reshape(5, 9), PIXELS)
    if labelled:
        np.testing.assert_array_equal(labels, LABELS)
    else:
        assert labels is None


def test_numbers_in_the_header_may_include_that_of_the_labels(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(map(str, range(37))) + "\n2" + ",7" * 36 + "\n")
    _, images, labels = load(path, (1, 6, 6), n_classes=3)
    np.testing.assert_array_equal(images, np.full((1, 1, 6, 6), 7))
    assert labels.tolist() == [2]


def test_header_decides_against_the_number_of_cells(tmp_path):
    """A file without labels has one pixel more than the model expects, not a label."""
    path = tmp_path / "a.csv"
    path.write_text(",".join(PIXEL_NAMES[:7]) + "\n" + ",".join("1234567") + "\n")
    with pytest.raises(InputError, match="has 7 cells a line, and an image of 1,2,3 has 6 pixels"):
        load(path, (1, 2, 3))
    path.write_text("class,a,b,c\n" + "1,7,8,9\n")
    with pytest.raises(InputError, match="has 4 cells a line, and an image of 1,2,2 has 4 pixels"):
        load(path, (1, 2, 2))


def test_text_labels_of_a_model(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2,3,4,label\n9,9,9,9,dog\n8,8,8,8,cat\n")
    inputs = load_predict_inputs(path, InputFormat((1, 2, 2), ("cat", "dog"), stats=DARK))
    assert inputs.names == ["1", "2"]
    np.testing.assert_array_equal(inputs.labels, [1, 0])
    np.testing.assert_array_equal(inputs.images[:, 0, 0, 0], [9, 8])


def test_color_rows_of_another_size(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(["7"] * 48)] * 2))
    _, images, labels = load(path, (3, 8, 8))
    np.testing.assert_allclose(images, 7)
    assert labels is None
    with pytest.raises(InputError, match="has 48 cells a line, and an image of 1,8,8 has 64 pixe"):
        load(path, (1, 8, 8))


def test_rows_of_a_given_shape(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(["7"] * 16))
    _, images, _ = load(tmp_path / "a.csv", image_shape=(1, 2, 8))
    np.testing.assert_allclose(images, 7)
    with pytest.raises(InputError, match="has 16 cells a line, and an image of 1,3,8 has 24"):
        load(tmp_path / "a.csv", image_shape=(1, 3, 8))


def test_statistics_of_the_training_images():
    images = np.zeros((2, 1, 4, 5), np.uint8)
    images[:, :, 1:-1, 1:-1] = 100
    images[0, 0, 0] = 14  # 5 of the 2 * 14 outermost pixels
    assert border_pixels(images).shape == (2, 1, 14)
    assert InputStats.of(images)[:3] == (0, 100, 2.5)
    assert InputStats.of(images).background_level == 2.5 / 100


def test_statistics_of_the_pixels_of_each_image():
    images = np.zeros((300, 2, 3, 4))
    images[:, 1, 1, 1:3] = np.arange(300)[:, None] / 100  # the other 22 pixels are 0
    images[0] = 7
    stats = InputStats.of(images)
    assert stats.mean == pytest.approx(images.mean())
    assert stats.deviation == pytest.approx(images.std())
    assert stats.image_min == (0, 0, 0)
    np.testing.assert_allclose(stats.image_max, np.percentile(images.max((1, 2, 3)), (1, 50, 99)))
    np.testing.assert_allclose(stats.image_mean, np.percentile(images.mean((1, 2, 3)), (1, 50, 99)))
    assert stats.plain_border == pytest.approx(299 / 300)
    assert InputStats.of(np.stack([images[1]] * 9)).image_mean == (pytest.approx(0.01 / 12),) * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64, bool])
def test_moments_are_those_of_numpy(dtype):
    images = (
        np.random.default_rng(0).random((700, 1, 3, 3)) * 200 + 1e3 * (dtype is np.float64)
    ).astype(dtype)
    assert pixel_moments(images) == pytest.approx((images.mean(), images.std()), rel=1e-6)


def test_deviation_of_large_pixels_that_hardly_differ():
    images = 1e12 + np.arange(100.0).reshape(10, 1, 2, 5)
    assert pixel_moments(images) == pytest.approx((1e12 + 49.5, np.arange(100).std()), rel=1e-9)


def test_a_sample_is_spread_over_all_images():
    images = np.arange(4001)
    assert len(sample_images(images)) <= 2000
    assert sample_images(images)[-1] >= 3998
    np.testing.assert_array_equal(sample_images(images[:2000]), images[:2000])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_range_of_pictures_does_not_depend_on_the_pixels_that_they_have(dtype):
    images = np.array([3, 128], dtype).reshape(1, 1, 1, 2)
    assert InputStats.of(images)[:3] == (0, 255, 65.5)
    assert InputStats.of(images - dtype(1))[:3] == (2, 127, 64.5)
    assert InputStats.of(images.astype(float) * 2)[:3] == (6, 256, 131)
    assert InputStats.of(images.astype(float) - 4)[:3] == (-1, 124, 61.5)
    assert InputStats.of(np.full((1, 1, 1, 1), 3.0))[:3] == (3, 3, 3)


def test_model_file_keeps_the_statistics(tmp_path):
    from layers import Dense, Flatten

    model = Model((1, 4, 4), backend="numpy").add(Flatten()).add(Dense(2))
    model.fit_normalization(np.arange(32).reshape(2, 1, 4, 4))
    model.save(tmp_path / "m.json")
    assert Model.load(tmp_path / "m.json", "numpy").input_stats == model.input_stats
    assert model.input_stats[:5] == pytest.approx((0, 31, 15.5, 15.5, np.arange(32).std()))
