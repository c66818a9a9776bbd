"""Which threads run the kernels, and how many."""

import importlib.metadata

import numba
import pytest

from kernels import get_backend
from tests.programs import finish, start

BACKEND = get_backend("numba")


def is_installed(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def threading_layer(**environment):
    """Return the layer that Numba chose in a process with these environment variables."""
    program = "import numba; check(); print(numba.threading_layer())"
    return finish(start(program, environment=environment)).strip()


@pytest.mark.skipif(not is_installed("tbb"), reason="there is no TBB for this platform")
def test_tbb_is_found_where_pip_installed_it():
    assert threading_layer() in ("omp", "tbb")
    assert threading_layer(NUMBA_THREADING_LAYER="tbb") == "tbb"


def test_set_threads_sets_numbas_number_of_threads():
    try:
        BACKEND.set_threads(1)
        assert numba.get_num_threads() == 1
    finally:
        BACKEND.set_threads(numba.config.NUMBA_NUM_THREADS)
