"""Programs that run kernels in a process of their own, for tests of processes and of the cache."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A program begins with this. Its first argument, 1 or -1, is the order of the dtypes in `check`:
# processes that compile in different orders compete for the same names in the cache.
PREAMBLE = """
import sys
import numpy as np
from kernels import get_backend
fast, plain = get_backend("numba"), get_backend("numpy")
# As many numbers as all threads work on: fewer start no threads.
x64 = np.random.default_rng(0).standard_normal((64, 3, 27, 27))

def check():
    for dtype in [np.float32, np.float64][:: int(sys.argv[1])]:
        x = x64.astype(dtype)
        np.testing.assert_array_equal(fast.leaky_relu(x, 0.1), plain.leaky_relu(x, 0.1))
"""


def start(program, order=1, folder=ROOT, before="", environment=None, **options):
    """Start a program; `folder` holds the package, `before` is code that runs before it."""
    return subprocess.Popen(
        [sys.executable, "-c", before + PREAMBLE + program, str(order)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)} | (environment or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def finish(process, code=0):
    """Wait for a program, check its exit status, and return what it printed."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err[-2000:]
    return out
