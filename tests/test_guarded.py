"""Kernels access no memory beyond their arrays: guard pages, and Numba's own bounds checks.

./run.sh pytest tests/test_guarded.py --long    # all tests of kernels
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = (
    "kernels", "channels_last", "channels_last_depthwise", "channels_last_separable",
    "channels_last_winograd", "depthwise", "separable", "panels", "winograd", "numba_backend",
    "numbers",
)  # fmt: skip
ALL_TESTS = [f"tests/test_{name}.py" for name in MODULES]
# Of test_numba_backend.py only the tests of kernels: the others start processes, or need captured
# steps, which cannot be replayed with copied arguments.
ALL_TESTS += ["-k", "not numba_backend or blocked_sums"]


def run_tests(long_mode, selection, *arguments, **environment):
    """Run tests in a process that a wrong kernel may crash, and return what pytest prints."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        [*command, *(ALL_TESTS if long_mode else selection)],
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
def test_kernels_stay_between_guard_pages(end, long_mode):
    names = (
        "kernels", "channels_last", "channels_last_depthwise", "channels_last_separable",
        "depthwise", "panels",
    )  # fmt: skip
    selection = [*(f"tests/test_{name}.py" for name in names), "-k", "correlat or pool or bands"]
    output = run_tests(long_mode, selection, "-p", "tests.guarded", CNN_GUARD=end)
    arrays = int(output.splitlines()[-1].split()[0].replace(",", ""))
    print(f"{arrays:,} guarded arrays")
    assert arrays > 1000


def test_kernels_pass_numbas_bounds_checks(long_mode, tmp_path):
    # Guard pages cannot see the memory that a kernel, such as that of warp_images, allocates for
    # itself. The long mode compiles all kernels once more with the checks.
    selection = ["tests/test_kernels.py", "-k", "(warp or augment or max_pool or im2col) and numba"]
    run_tests(long_mode, selection, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))
