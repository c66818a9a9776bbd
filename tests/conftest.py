"""Settings and fixtures that all tests share."""

import os

import pytest
from hypothesis import settings

# The tests run the default kernels, and programs that they start do: what is the fastest at the
# moment must not decide what is tested. The backend reads this when it is imported.
os.environ["CNN_TUNING"] = "off"

# No deadline: the first example of a kernel compiles it.
settings.register_profile("cnn", deadline=None, max_examples=30, derandomize=True)
# All tests: ./run.sh pytest --long
settings.register_profile("cnn-long", settings.get_profile("cnn"), max_examples=200)
settings.load_profile("cnn")


# Most of the suite's time is spent in code of one thread: compiling kernels, and starting Python.
# With more than two workers the kernels' own threads and the memory of test_numbers.py get scarce.
MAX_WORKERS = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Distribute the whole suite over worker processes, if pytest-xdist is installed.

    A run of named files or folders, such as the benchmarks, stays in one process; so does each
    run with `-n 0`.
    """
    if "PYTEST_XDIST_WORKER" in os.environ or config.option.usepdb:
        return  # a worker must not start workers
    whole_suite = config.args_source is config.ArgsSource.TESTPATHS
    if whole_suite and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = min(os.cpu_count() or 1, MAX_WORKERS)
        config.option.dist = "worksteal"


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run tests in their long mode: minutes")


def pytest_configure(config):
    if config.getoption("--long"):  # in this process, and in each worker
        settings.load_profile("cnn-long")


@pytest.fixture(scope="session", autouse=True)
def _own_image_cache(tmp_path_factory):
    """Keep decoded images in a folder of the tests, and those of the programs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNN_CACHE_DIR", str(tmp_path_factory.mktemp("image_cache")))
        yield


@pytest.fixture(scope="session")
def long_mode(request):
    """Return whether tests run in their long mode; those that ask are marked `long`."""
    return request.config.getoption("--long")


def pytest_collection_modifyitems(items):
    for item in items:
        if "long_mode" in getattr(item, "fixturenames", ()):
            item.add_marker("long")
