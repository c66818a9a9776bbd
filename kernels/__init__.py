"""The arithmetic of convolutional networks, implemented by three backends with the same functions.

The numpy backend is the reference, the scipy backend a second one that uses SciPy's
`correlate2d`, and the numba backend the fast one. `kernels.interface` documents the functions.
"""

from importlib import import_module

from kernels.interface import Backend

BACKENDS = {
    "numba": "kernels.numba_backend",
    "scipy": "kernels.scipy_backend",
    "numpy": "kernels.numpy_backend",
}


def get_backend(name: str) -> Backend:
    """Return the backend called ``name``.

    Only this backend is imported, so the reference backends work without Numba.

    Parameters
    ----------
    name : "numba", "scipy" or "numpy"

    Returns
    -------
    module
        A module with the functions of `kernels.interface.Backend`.

    Raises
    ------
    ValueError
        If there is no such backend.
    ImportError
        If a package that the backend needs is not installed, or does not load.

    Examples
    --------
    >>> import numpy as np
    >>> backend = get_backend("numpy")
    >>> backend.correlate(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    array([[[[4., 4.],
             [4., 4.]]]])
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
    except Exception as error:  # incompatible versions of packages raise errors of any kind
        raise ImportError(f"backend {name!r} cannot be loaded: {error}") from error


__all__ = ["BACKENDS", "Backend", "get_backend"]
