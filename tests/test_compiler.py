"""The compiler may be switched off; the program then says what to do."""

import os
import subprocess
import sys

from tests.programs import ROOT


def test_a_disabled_compiler_is_reported_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", "--dataset", "mnist-5k", "--epochs", "1"],
        cwd=tmp_path,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "run.py: backend 'numba' needs Numba's compiler: unset NUMBA_DISABLE_JIT, "
        "or use backend 'numpy'\n"
    )
