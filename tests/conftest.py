"""Settings and fixtures that all tests share."""

import pytest
from hypothesis import settings

# No deadline: the first example of a kernel compiles it.
settings.register_profile("cnn", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("cnn")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run tests in their long mode: minutes")


@pytest.fixture(scope="session")
def long_mode(request):
    """Return whether tests run in their long mode; those that ask are marked `long`."""
    return request.config.getoption("--long")


def pytest_collection_modifyitems(items):
    for item in items:
        if "long_mode" in getattr(item, "fixturenames", ()):
            item.add_marker("long")
