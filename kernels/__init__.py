"""The arithmetic of convolutional networks, implemented by three backends with the same functions.

The numpy backend is the reference, the scipy backend a second one that uses SciPy's
`correlate2d`, and the numba backend the fast one. `kernels.interface` documents the functions, and
`kernels.mixed_precision` what is rounded in mixed precision.
"""

from importlib import import_module
from typing import Any, cast

from kernels.interface import Backend, MixedBackend
from kernels.mixed_precision import in_mixed_precision
from kernels.validation import BFLOAT16, standardize_precision

BACKENDS = {
    "numba": "kernels.numba_backend",
    "scipy": "kernels.scipy_backend",
    "numpy": "kernels.numpy_backend",
}


def get_backend(name: str, dtype: Any = "float32") -> Backend:
    """Return the backend called ``name``.

    Only this backend is imported, so the reference backends work without Numba.

    Parameters
    ----------
    name : "numba", "scipy" or "numpy"
    dtype : "float32", "float64" or "bfloat16"
        "bfloat16": the backend in mixed precision (`kernels.mixed_precision`). The same backend
        computes in float32 and float64.

    Returns
    -------
    module or object
        It has the functions of `kernels.interface.Backend`, and in mixed precision those of
        `kernels.interface.MixedBackend`.

    Raises
    ------
    ValueError
        If there is no such backend.
    TypeError
        If the dtype is another one.
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
    _, precision = standardize_precision(dtype)
    try:
        if precision != BFLOAT16:
            return import_module(BACKENDS[name])
        if name == "numba":  # with kernels of its own
            return import_module("kernels.numba_backend.mixed_precision").BACKEND
        return cast(MixedBackend, in_mixed_precision(import_module(BACKENDS[name])))
    except ModuleNotFoundError as error:
        raise ImportError(
            f"backend {name!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error
    except ImportError:
        raise
    except Exception as error:  # incompatible versions of packages raise errors of any kind
        raise ImportError(f"backend {name!r} cannot be loaded: {error}") from error


__all__ = ["BACKENDS", "BFLOAT16", "Backend", "MixedBackend", "get_backend"]
