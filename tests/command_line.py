"""Helpers of the tests of the command line; command_line_fixtures.py has their fixtures."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    """What a command line returns and prints."""

    returncode: int
    stdout: str
    stderr: str


def write_csv(path, images, labels, header=True):
    lines = ["label," + ",".join(f"pixel{i}" for i in range(images[0].size))] if header else []
    lines += [
        f"{label}," + ",".join(map(str, image.ravel()))
        for image, label in zip(images, labels, strict=True)
    ]
    text = "\n".join(lines) + "\n"
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.write(text)
    return path


def command(*arguments):
    """Return the command that starts run.py as a process, with unbuffered output."""
    return [sys.executable, "-u", str(ROOT / "run.py"), *map(str, arguments)]


def start(*arguments, **options):
    """Run run.py as a process and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "CNN_DATA_DIR"}
    done = subprocess.run(
        command(*arguments),
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)
