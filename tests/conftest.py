"""What all tests share."""

from hypothesis import settings

# No deadline: the first example of a kernel compiles it.
settings.register_profile("cnn", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("cnn")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long modes of some tests: minutes")
