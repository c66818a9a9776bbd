"""Kernels touch no memory but their arrays': guard pages, and Numba's own checks of bounds.

./run.sh pytest tests/test_guarded.py --long    # all tests of kernels, both ends of the arrays
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ("kernels", "channels_last", "winograd", "numba_backend", "numbers")
KERNELS = [f"tests/test_{name}.py" for name in MODULES]


def run_tests(long_mode, short, *arguments, **environment):
    """Run tests of kernels in a process of their own, which they may end; return what it said."""
    # Of numba_backend's own tests those of kernels: copies are not recorded, and start no process.
    kernels = [*KERNELS, "-k", "not numba_backend or blocked_sums"]
    what = kernels if long_mode else short
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *what],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=3600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mprotect")
@pytest.mark.parametrize("end", ["end", "start"])
def test_no_kernel_reaches_beyond_an_array(end, long_mode):
    short = ["tests/test_kernels.py", "tests/test_channels_last.py", "-k", "correlate or pool"]
    said = run_tests(long_mode, short, "-p", "tests.guarded", CNN_GUARD=end)
    arrays = int(said.splitlines()[-1].split()[0].replace(",", ""))
    print(f"{arrays:,} guarded arrays")
    assert arrays > 1000


def test_no_kernel_indexes_beyond_an_array(long_mode, tmp_path):
    short = ["tests/test_kernels.py", "-k", "(warp or max_pool or im2col) and numba"]
    run_tests(long_mode, short, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))
