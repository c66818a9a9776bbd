"""What all tests share."""

import pytest
from hypothesis import settings

# No deadline: the first example of a kernel compiles it.
settings.register_profile("cnn", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("cnn")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long modes of some tests: minutes")


@pytest.fixture(scope="session")
def long_mode(request):
    """Return whether to do what takes minutes; tests that ask have the marker `long`."""
    return request.config.getoption("--long")


def pytest_collection_modifyitems(items):
    for item in items:
        if "long_mode" in getattr(item, "fixturenames", ()):
            item.add_marker("long")
