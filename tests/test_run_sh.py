"""run.sh in a clean copy of the project: it installs, repairs, and then only starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ["kernels", "layers", "training", "data", "run.py", "run.sh", "pyproject.toml"]
SOURCES += ["README.md", "LICENSE"]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="run.sh needs bash"
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return a copy of the project without any environment, in a path with a space."""
    target = tmp_path_factory.mktemp("clean copy")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, target / name)
    return target


def start(copy, *arguments, cwd=None, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "CNN_DATA_DIR"}
    environment |= {"PYTHON": sys.executable, **variables}
    return subprocess.run(
        [copy / "run.sh", *arguments],
        cwd=cwd or copy,
        env=environment,
        text=True,
        capture_output=True,
        timeout=900,
    )


def test_installs_repairs_and_starts(copy, tmp_path):
    venv = copy / ".venv"
    # An interrupted install leaves half an environment, and the file that marks it.
    venv.mkdir()
    (venv / ".unfinished").touch()
    (venv / "half a package").touch()
    # The numba backend would compile all its kernels, which .ci/run does in a fresh environment.
    flags = ["--dataset", "mnist-5k", "--epochs", "1", "--arch", "tiny", "--backend", "numpy"]
    first = start(copy, *flags)
    if "Could not find a version" in first.stderr or "No matching distribution" in first.stderr:
        pytest.skip("the package index cannot be reached, so nothing can be installed")
    assert first.returncode == 0, first.stderr
    assert "test accuracy" in first.stdout
    assert "installing" in first.stderr
    assert not (venv / "half a package").exists()
    assert (copy / "models" / "model.json").exists()
    assert (copy / "models" / "model-curves.png").exists()  # matplotlib is installed by default
    subprocess.run([venv / "bin" / "python", "-c", "import numba, scipy, PIL"], check=True)

    # The second start installs nothing, so that it needs no package index.
    broken_pip = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_NO_INDEX": "1"}
    second = start(copy, "--help", cwd=tmp_path, **broken_pip)
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert "--augmenter_ratio" in second.stdout

    # Arguments and exit code are those of run.py. Paths are relative to the working directory.
    bad = start(copy, "--train_data", "none.csv", cwd=tmp_path, **broken_pip)
    assert bad.returncode == 2
    assert "none.csv" in bad.stderr

    # A changed pyproject.toml is installed again, which fails without a package index.
    with open(copy / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    failed = start(copy, "--help", **broken_pip)
    assert failed.returncode != 0
    assert "installing" in failed.stderr
    # The next start builds the environment again, as the first one did with an interrupted install.
    again = start(copy, "--help", **broken_pip)
    assert again.returncode != 0
    assert "setting up .venv" in again.stderr


def test_old_python_is_rejected(copy, tmp_path):
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ["python", "python3", *(f"python3.{minor}" for minor in range(10, 15))]:
        (fake / name).write_text("#!/bin/sh\nexit 1\n")
        (fake / name).chmod(0o755)
    clean = tmp_path / "copy"
    clean.mkdir()
    for name in ("run.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, clean / name)
    done = start(clean, PATH=f"{fake}:{os.environ['PATH']}", PYTHON="python")
    assert done.returncode == 2
    assert "Python 3.10 or newer" in done.stderr
    assert not (clean / ".venv").exists()
