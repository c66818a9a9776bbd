"""The maths of a convolutional network, three times: numpy and scipy to read, numba to run."""

from importlib import import_module

from kernels.interface import Backend

BACKENDS = {
    "numba": "kernels.numba_backend",
    "scipy": "kernels.scipy_backend",
    "numpy": "kernels.numpy_backend",
}


def get_backend(name: str) -> Backend:
    """Return the backend called ``name``: "numba", "scipy" or "numpy".

    Only the backend asked for is imported, so that the references run without Numba.

    Raises
    ------
    ValueError
        When there is no such backend.
    ImportError
        When the package that it needs is not installed, or Numba must not compile.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    try:
        return import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        raise ImportError(
            f"backend {name!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error
    except ImportError:
        raise
    except Exception as error:  # whatever a package does that does not fit to the others
        raise ImportError(f"backend {name!r} cannot be loaded: {error}") from error


__all__ = ["BACKENDS", "Backend", "get_backend"]
