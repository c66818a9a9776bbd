"""Trainings that are killed, or cannot save: what is on disk is a whole model, and none too old.

./run.sh pytest tests/test_kill.py --long    # 100 kills instead of 8
"""

import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.networks import digits
from tests.test_cli import write_csv
from training import Model, RunFile

ROOT = Path(__file__).parents[1]


def announced(line):
    """Return the epoch whose model a line says is saved, or None."""
    found = re.match(r"epoch +(\d+)/.*\(best\)", line)
    return found and int(found[1])


def test_a_model_survives_any_kill(tmp_path, request):
    kills = 100 if request.config.getoption("--long") else 8
    train = write_csv(tmp_path / "train.csv", *digits(300))
    # Saves take the longer part of so short an epoch. One thread: another starts up more slowly.
    command = [sys.executable, "-u", ROOT / "run.py", "--train_data", train, "--threads", "1"]
    command += ["--arch", "small", "--epochs", "100000", "--no_plots", "--augment", "none"]
    command += ["--batch_size", "300", "--learning_rate", "1e-4", "--schedule", "constant"]
    rng, kill, while_saving = random.Random(0), 0, 0
    while kill < kills or while_saving < 0.3 * kills:
        kill += 1
        assert kill < 5 * kills, "kills hit no save"
        folder = tmp_path / str(kill)
        process = subprocess.Popen(
            [*map(str, command), "--to_path", str(folder / "m.json")],
            text=True,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        last, end = 0, None
        for line in process.stdout:
            last = announced(line) or last
            if last and end is None:
                end = time.monotonic() + rng.uniform(0, 0.5)
            if end is not None and time.monotonic() > end:
                break
        time.sleep(rng.uniform(0, 0.1))  # lines come right after saves: a kill must not
        process.kill()
        rest, _ = process.communicate(timeout=60)
        last = max([last, *(announced(line) or 0 for line in rest.splitlines())])
        model = Model.load(folder / "m.json", backend="numpy")
        assert len(model.history["loss"]) >= last
        run = Model.load(folder / "m-run.json", backend="numpy")
        assert len(run.history["loss"]) >= last
        RunFile.open(folder / "m-run.json")
        while_saving += bool(list(folder.glob(".*.tmp")))
    print(f"{kill} kills, {while_saving} of them while a save was under way")

    # The next run takes away what was left.
    again = [*command, "--to_path", folder / "m.json", "--epochs", "1"]
    subprocess.run([*map(str, again)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert not list(folder.glob(".*.tmp"))


def test_a_full_disk_leaves_the_earlier_model(tmp_path):
    """A limit on the size of files, which a model exceeds and a log does not."""
    images = write_csv(tmp_path / "train.csv", *digits(300))
    command = [sys.executable, ROOT / "run.py", "--train_data", images, "--no_plots"]
    command += ["--to_path", tmp_path / "m.json", "--epochs", "1", "--arch", "tiny"]
    command += ["--backend", "numpy"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, timeout=120)
    before = (tmp_path / "m.json").read_bytes()
    limit = len(before) // 2
    done = subprocess.run(
        [*map(str, command), "--seed", "1"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.py: {tmp_path / 'm.json'}: cannot be saved: File too large")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "m.json").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_goes_away_is_made_again(tmp_path):
    images = write_csv(tmp_path / "train.csv", *digits(300))
    command = [sys.executable, "-u", ROOT / "run.py", "--train_data", images, "--no_plots"]
    command += ["--to_path", tmp_path / "models" / "m.json", "--epochs", "2000", "--arch", "tiny"]
    process = subprocess.Popen(
        list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch    2/"):
            (tmp_path / "models").rename(tmp_path / "away")
        if line.startswith("epoch   20/"):
            break
    process.terminate()
    _, err = process.communicate(timeout=60)
    if process.returncode == 143:
        assert err == ""
        for name in ("m.json", "m-run.json"):
            Model.load(tmp_path / "models" / name, backend="numpy")
    else:  # it went away in the middle of a save
        assert process.returncode == 2
        assert "cannot be" in err
    Model.load(tmp_path / "away" / "m.json", backend="numpy")
