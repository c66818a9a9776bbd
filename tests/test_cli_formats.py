"""The same pictures in every format, from the command line."""

import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from training import Model

pytest_plugins = ["tests.command_line_fixtures"]

NAMES = ("bird", "cat", "dog")
N_IMAGES = 60


@pytest.fixture
def pictures():
    """Return noisy pictures (N, H, W, C) and their classes: the brightest channel of each."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.permutation(N_IMAGES) % len(NAMES))
    pixels = rng.integers(0, 100, (N_IMAGES, 8, 8, 3))
    pixels[np.arange(N_IMAGES), :, :, labels] += 100
    return pixels.astype(np.uint8), labels


def encode(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(path, pixels, labels):
    for n, label in enumerate(labels):
        folder = path / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:03}.png").write_bytes(encode(pixels[n]))
    return path


def write_npz(path, pixels, labels):
    np.savez(path, x=pixels, y=labels, class_names=NAMES)
    return path


def write_parquet(path, pixels, labels):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": encode(image), "path": None} for image in pixels]
    pq.write_table(pa.table({"image": images, "label": [NAMES[label] for label in labels]}), path)
    return path


def write_csv(path, pixels, labels, separator=","):
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file, delimiter=separator)
        rows.writerow(["label", *(f"pixel{n}" for n in range(planes.shape[1]))])
        rows.writerows([NAMES[label], *row] for label, row in zip(labels, planes, strict=True))
    return path


def test_trains_to_the_same_losses_from_every_format(cli, tmp_path, pictures):
    sources = [
        write_folder(tmp_path / "pictures", *pictures),
        write_npz(tmp_path / "pictures.npz", *pictures),
        write_parquet(tmp_path / "pictures.parquet", *pictures),
        write_csv(tmp_path / "commas.csv", *pictures),
        write_csv(tmp_path / "semicolons.csv", *pictures, separator=";"),
    ]
    histories = []
    for number, source in enumerate(sources):
        path = tmp_path / f"{number}.json"
        done = cli(
            *("--train_data", source, "--to_path", path, "--epochs", 2, "--batch_size", 8),
            *("--arch", "tiny", "--backend", "numpy", "--no_plots"),
        )
        assert done.returncode == 0, done.stderr
        model = Model.load(path, "numpy")
        assert model.class_names == NAMES
        assert model.input_shape == (3, 8, 8)
        model.history.pop("images_per_second")
        histories.append(model.history)
    assert len(histories[0]["loss"]) == 2
    assert all(history == histories[0] for history in histories)


def test_answers_by_name(cli, tmp_path, pictures):
    source = write_folder(tmp_path / "pictures", *pictures)
    done = cli(
        *("--train_data", source, "--epochs", 30, "--arch", "tiny", "--backend", "numpy"),
        "--no_plots",
    )
    assert done.returncode == 0, done.stderr
    assert "classes: bird (20), cat (20), dog (20)" in done.stdout
    (tmp_path / "unknown.webp").write_bytes(encode(pictures[0][25]))  # the content decides
    done = cli("--predict", "unknown.webp", "--top", 2, "--backend", "numpy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["unknown.webp", "cat"]
    tested = cli("--test", "--test_data", source, "--backend", "numpy", "--no_plots")
    assert float(re.search(r"accuracy ([\d.]+)%", tested.stdout)[1]) > 90
