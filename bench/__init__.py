"""Programs that measure speed and accuracy.

Some machines set variables that choose slower kernels of OpenBLAS, which halve the speed of NumPy.
OpenBLAS reads them when it is loaded. A benchmark removes them before, so that NumPy runs its best.
Tests import this package after NumPy and keep them.
"""

import os
import sys

BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

if "numpy" not in sys.modules:
    for variable in BLAS_VARIABLES:
        os.environ.pop(variable, None)
