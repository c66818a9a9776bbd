"""Describing the data from the command line."""

from PIL import Image

from training.reporting import plots

pytest_plugins = ["tests.command_line_fixtures"]


def test_describes_and_draws_the_training_images(cli, tmp_path, csv_files):
    done = cli("--show_data", *csv_files, "--backend", "numpy")
    assert done.returncode == 0, done.stderr
    assert "training images: 600 of 8x8 pixels, grey" in done.stdout
    assert "test images: 200 of 8x8 pixels, grey" in done.stdout
    path = tmp_path / "models" / "model-data.png"
    assert "model-data.png" in done.stdout
    with Image.open(path) as picture:
        assert picture.size[1] > picture.size[0] / 2
    assert not (tmp_path / "models" / "model.json").exists()


def test_needs_matplotlib(cli, csv_files, monkeypatch):
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    done = cli("--show_data", *csv_files)
    assert done.returncode == 2
    assert "--show_data needs matplotlib: pip install matplotlib" in done.stderr
