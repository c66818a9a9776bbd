"""Folders of pictures with a folder for each class."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unprivileged import drop_rights
from training import InputError
from training.datasets import load_images
from training.datasets.folder import list_pictures
from training.input_format import InputFormat


def save(path, level=0, size=(4, 6), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], level if mode == "L" else (level, 0, 9)).save(path)
    return path


def two_classes(folder, first="cat", second="dog", **options):
    """Make two pictures of a class, of levels 10 and 20, and one of another class, of level 30."""
    save(folder / first / "a.png", 10, **options)
    save(folder / first / "b.png", 20, **options)
    save(folder / second / "a.png", 30, **options)
    return folder


def levels(dataset):
    return dataset.images[:, 0, 0, 0].tolist()


def test_a_folder_is_a_class(tmp_path):
    data = load_images(two_classes(tmp_path))
    assert data.images.shape == (3, 1, 4, 6)
    assert levels(data) == [10, 20, 30]
    assert data.labels.tolist() == [0, 0, 1]
    assert data.labels.dtype == np.int64
    assert data.class_names == ("cat", "dog")
    assert data.source == str(tmp_path)
    assert data.validation is None
    assert data.test is None
    assert data.notes == ("grey: every picture is grey",)


def test_classes_are_in_the_order_of_numbers_and_pictures_in_that_of_paths(tmp_path):
    for level, name in enumerate(("2/a.png", "10/B.png", "10/a.png", "10/a/c.png", "10/a.b/c.png")):
        save(tmp_path / name, level)
    data = load_images(tmp_path)
    assert data.class_names == ("2", "10")
    names = sorted(["B.png", "a.png", "a/c.png", "a.b/c.png"])
    assert names == ["B.png", "a.b/c.png", "a.png", "a/c.png"]
    assert levels(data) == [0, 1, 4, 2, 3]


def test_nested_folders_are_one_class(tmp_path):
    two_classes(tmp_path)
    save(tmp_path / "dog" / "small" / "brown" / "a.png", 40)
    data = load_images(tmp_path)
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert levels(data) == [10, 20, 30, 40]


def test_what_systems_make_is_skipped(tmp_path):
    two_classes(tmp_path)
    for name in (
        ".DS_Store", "Thumbs.db", ".hidden/a.png", "__MACOSX/cat/a.png", "cat/.a.png",
        "cat/Thumbs.db", "cat/desktop.ini", "cat/._a.png", "cat/__MACOSX/a.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("no picture")
    data = load_images(tmp_path)
    assert levels(data) == [10, 20, 30]
    assert data.notes == ("grey: every picture is grey",)


def test_other_files_are_ignored_and_empty_classes_named(tmp_path):
    two_classes(tmp_path)
    for name in ("labels.txt", "README", "index.csv", "cat/b.txt", "fish/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    data = load_images(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.notes[1:] == (
        "ignored files whose names are not those of pictures (2): cat/b.txt, fish/c.json",
        "class folders without pictures: empty, fish",
    )


def test_damaged_pictures_are_skipped_and_named(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "aa.jpg").write_bytes(b"no picture")
    (tmp_path / "dog" / "link.png").symlink_to("nowhere.png")
    data = load_images(tmp_path)
    assert levels(data) == [10, 20, 30]
    assert data.labels.tolist() == [0, 0, 1]
    assert data.notes[-1].startswith(f"skipped 2 of 5 pictures: {tmp_path}/cat/aa.jpg cannot")
    assert f"{tmp_path}/dog/link.png no such file" in data.notes[-1]


def test_a_class_of_damaged_pictures_is_refused(tmp_path):
    two_classes(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "dog" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(
        InputError,
        match=r"dog/a\.png: cannot be read .* any other of the 2 pictures of the class dog",
    ):
        load_images(tmp_path)


def test_options(tmp_path):
    two_classes(tmp_path)
    data = load_images(tmp_path, 8, color="rgb", resize="crop")
    assert data.images.shape == (3, 3, 8, 8)
    assert data.resize == "crop"
    assert load_images(tmp_path, (2, 3)).images.shape == (3, 1, 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be a whole number above 0, or two"),
        ({"image_size": (3, 4, 5)}, "image_size must be"),
        ({"image_size": (3, 4.5)}, "image_size must be"),
        ({"image_size": "big"}, "image_size must be"),
        ({"color": "gray"}, "color must be grey or rgb, got 'gray'"),
        ({"resize": "fit"}, "resize must be one of pad, crop, stretch, got 'fit'"),
    ],
)
def test_rejects_wrong_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_images(two_classes(tmp_path), **options)


# -- test images ----------------------------------------------------------------------------------
def test_a_test_folder_has_some_of_the_classes_by_name(tmp_path):
    model = InputFormat((3, 5, 5), ("dog", "ape", "cat"), "stretch")
    data = load_images(two_classes(tmp_path), like=model)
    assert data.images.shape == (3, 3, 5, 5)
    assert data.labels.tolist() == [2, 2, 0]
    assert data.class_names == model.class_names
    assert data.resize == "stretch"
    save(tmp_path / "Ape" / "a.png")
    with pytest.raises(InputError, match=r"has a folder Ape, .* as the 3 classes, dog, ape, cat"):
        load_images(tmp_path, like=model)


def test_a_test_folder_of_one_class(tmp_path):
    save(tmp_path / "dog" / "a.png", 7)
    data = load_images(tmp_path, like=InputFormat((1, 4, 6), ("cat", "dog")))
    assert data.labels.tolist() == [1]
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Train", "val", "TEST")])
def test_a_split_folder(tmp_path, names):
    train, validation, test = names
    two_classes(tmp_path / train, size=(8, 4), mode="RGB")
    save(tmp_path / validation / "dog" / "a.png", 50)
    two_classes(tmp_path / test, "dog", "cat", size=(3, 3))
    (tmp_path / "README").write_text("about")
    data = load_images(tmp_path, resize="stretch")
    assert data.images.shape == (3, 3, 8, 4)
    assert data.source == str(tmp_path / train)
    assert levels(data.validation) == [50]
    assert data.validation.labels.tolist() == [1]
    assert data.validation.images.shape == (1, 3, 8, 4)
    assert levels(data.test) == [30, 10, 20]
    assert data.test.labels.tolist() == [0, 1, 1]
    assert data.test.resize == "stretch"
    again = load_images(tmp_path, like=data.input_format)
    np.testing.assert_array_equal(again.images, data.test.images)
    assert again.source == str(tmp_path / test)
    assert levels(load_images(tmp_path, part="test")) == levels(data.test)


def test_test_pictures_without_classes_are_not_read(tmp_path):
    two_classes(tmp_path / "train")
    save(tmp_path / "test" / "1.png")
    data = load_images(tmp_path)
    assert data.test is None
    assert "test has no class folders and is not read" in data.notes
    with pytest.raises(InputError, match=r"test: has pictures \(1\) and no folders"):
        load_images(tmp_path, like=data.input_format)


def test_a_class_may_be_called_train(tmp_path):
    assert load_images(two_classes(tmp_path, "bus", "train")).class_names == ("bus", "train")


def test_a_split_folder_is_refused_if_it_is_unclear(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val")
    with pytest.raises(InputError, match="has no folder test: give the folder of the test images"):
        load_images(tmp_path, like=InputFormat((1, 4, 6), ("cat", "dog")))
    (tmp_path / "more").mkdir()
    with pytest.raises(InputError, match="has train, val and other folders, such as more: move"):
        load_images(tmp_path)
    (tmp_path / "more").rename(tmp_path / "valid")
    with pytest.raises(InputError, match="and other folders, such as val"):
        load_images(tmp_path)


# -- bad input ------------------------------------------------------------------------------------
def test_rejects_one_class(tmp_path):
    save(tmp_path / "cat" / "a.png")
    with pytest.raises(InputError, match=r"has pictures of one class, cat, and .* two or more$"):
        load_images(tmp_path)
    two_classes(tmp_path / "cat")
    with pytest.raises(InputError, match=r"one class, cat, .*: give .*/cat if its folders are the"):
        load_images(tmp_path)


def test_rejects_a_folder_without_pictures(tmp_path):
    with pytest.raises(InputError, match="has no pictures: it must have a folder of pictures for"):
        load_images(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match=r"its folders have no pictures: files whose names end in"):
        load_images(tmp_path)


def test_rejects_pictures_beside_the_class_folders(tmp_path):
    save(tmp_path / "x.png")
    with pytest.raises(
        InputError, match=r"has pictures \(1\) and no folders: it must have a folder"
    ):
        load_images(tmp_path)
    two_classes(tmp_path)
    with pytest.raises(InputError, match=r"beside the class folders, such as x\.png \(1 in all\)"):
        load_images(tmp_path)


def test_rejects_folders_that_differ_only_in_case(tmp_path):
    two_classes(tmp_path, "cat", "Cat")
    if len(os.listdir(tmp_path)) == 2:  # the file system tells them apart
        with pytest.raises(InputError, match="the folders Cat and cat differ only in case"):
            load_images(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other file names are text")
def test_a_saved_model_is_trained_further_on_the_training_part(tmp_path):
    two_classes(tmp_path / "train", size=(8, 4))
    two_classes(tmp_path / "test", "dog", "cat", size=(3, 3))
    train = load_images(tmp_path)
    again = load_images(tmp_path, like=train.input_format, part="train", preprocess="none")
    np.testing.assert_array_equal(again.images, train.images)
    np.testing.assert_array_equal(again.test.images, train.test.images)
    tested = load_images(tmp_path, like=train.input_format, preprocess="none")
    np.testing.assert_array_equal(tested.images, train.test.images)
    assert tested.test is None


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"\x1b[31m"])
def test_rejects_class_names_that_are_not_text(tmp_path, name):
    two_classes(tmp_path)
    save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) / "a.png")
    with pytest.raises(InputError, match="is not printable text in UTF-8: rename it") as caught:
        load_images(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="other file names are text")
def test_picture_names_may_be_any_bytes(tmp_path):
    two_classes(tmp_path)
    folder = os.fsencode(tmp_path / "cat")
    save(Path(os.fsdecode(folder + b"/c\xe9\n.png")), 25)
    with open(os.fsdecode(folder + b"/\xff\n.png"), "wb") as file:
        file.write(b"no picture")
    data = load_images(tmp_path)
    assert levels(data) == [10, 20, 25, 30]
    assert all(note.isprintable() for note in data.notes)


def test_accents_are_composed(tmp_path):
    two_classes(tmp_path, "e\N{COMBINING ACUTE ACCENT}t\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert load_images(tmp_path).class_names == ("dog", "\xe9t\xe9")


def test_links_to_folders_are_followed(tmp_path):
    two_classes(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name)
    assert levels(load_images(tmp_path / "linked")) == [10, 20, 30]


@pytest.mark.parametrize("target", [".", "..", "loop"])
def test_rejects_loops_of_links(tmp_path, target):
    two_classes(tmp_path)
    (tmp_path / "cat" / "loop").symlink_to(target)
    with pytest.raises(InputError, match=r"cat/loop(/cat)?: is a link that leads back to a folder"):
        load_images(tmp_path)


def test_rejects_unreadable_folders(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "dog").chmod(0)
    code = f"import training.datasets as d; d.load_images({str(tmp_path)!r})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=drop_rights
    )
    (tmp_path / "dog").chmod(0o700)
    last = run.stderr.splitlines()[-1]
    assert f"InputError: {tmp_path}/dog: cannot be read (Permission denied): check the path" in last


def test_rejects_a_missing_folder_and_a_zip_archive(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_images(tmp_path / "none")
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(save(tmp_path / "a.png"), "cat/a.png")
    with pytest.raises(
        InputError, match=r"is a zip archive of pictures, such as cat/a\.png: unzip"
    ):
        load_images(path)


def test_deeply_nested_folders(tmp_path):
    two_classes(tmp_path)
    folder = tmp_path / "cat"
    for _ in range(150):
        folder /= "x"
    save(folder / "a.png", 40)
    assert levels(load_images(tmp_path)) == [10, 20, 40, 30]


def test_a_listing_has_the_sizes_and_times_in_the_order_of_the_names(tmp_path):
    for index, name in enumerate(("b/z.png", "a.png", "b/c.PNG", "b.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * index)
        os.utime(path, ns=(0, 1000 + index))
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "a.txt").touch()
    listing = list_pictures(tmp_path)
    assert listing.pictures == ["a.png", "b.png", "b/c.PNG", "b/z.png", "link.png"]
    assert listing.stats[:, :2].tolist() == [[1, 1001], [3, 1003], [2, 1002], [0, 1000], [-1, -1]]
    assert listing.others == ["a.txt"]
