"""How many threads NumPy's matrix products use."""

import os

from threadpoolctl import threadpool_limits

from kernels import validation


def set_threads(threads):
    threadpool_limits(validation.check_threads(threads, os.cpu_count() or 1), user_api="blas")
