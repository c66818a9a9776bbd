"""The number of threads of NumPy's matrix products."""

import os

from threadpoolctl import threadpool_limits

from kernels.validation import check_threads


def set_threads(threads):
    threadpool_limits(check_threads(threads, os.cpu_count() or 1), user_api="blas")
