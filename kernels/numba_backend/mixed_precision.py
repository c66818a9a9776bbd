"""The numba backend in mixed precision: the activations of a model are packed bfloat16 numbers.

The functions of `packed` compute on them in either precision. On plain arrays, which a layer that
is used alone takes and returns, the functions of the float32 backend run between roundings, as
those of the other backends do.
"""

from functools import wraps

import numpy as np

from kernels import numba_backend
from kernels.mixed_precision import ROUNDED, MixedPrecision, check_float32
from kernels.numba_backend import packed
from kernels.numba_backend.packed import PackedBatch
from kernels.numba_backend.packed.checks import check_capturable
from kernels.numba_backend.runtime.capture import invalidate_capture
from kernels.validation import check_activations, check_raw_images


def _dispatch(on_packed, on_arrays):
    """Return a function that calls the one or the other by the layout of its first argument."""

    @wraps(on_arrays)
    def function(*args, **kwargs):
        first = args[0] if args else next(iter(kwargs.values()), None)
        return (on_packed if isinstance(first, PackedBatch) else on_arrays)(*args, **kwargs)

    return function


class _NumbaMixedPrecision(MixedPrecision):
    """`MixedPrecision` with kernels for activations that are stored in bfloat16."""

    def __init__(self) -> None:
        super().__init__(numba_backend)  # type: ignore[arg-type]
        for name in ROUNDED:
            setattr(self, name, _dispatch(getattr(numba_backend, name), getattr(self, name)))
        self.from_array = _from_array
        self.normalize_images = _normalize_images

    def widen(self, x):
        return packed.widen(x) if isinstance(x, PackedBatch) else x

    def narrow(self, x):
        return packed.narrow(x) if isinstance(x, PackedBatch) else super().narrow(x)


def _from_array(x):
    invalidate_capture()  # no kernel made these numbers: a replay would not update them
    x = check_activations(x, "x")
    check_float32(x.dtype, "x")
    return packed.narrow(packed.pack(x)) if len(x) else x


def _normalize_images(images, mean, std, dtype, predict=False):
    images, *checked = check_raw_images(images, mean, std, dtype)
    mean, std = map(check_capturable, checked, (mean, std))
    check_float32(dtype, "dtype")
    if images.dtype != np.uint8:
        images = images.astype(mean.dtype, copy=False)
    images = np.require(images, None, ["C", "A", "W"])  # Numba would compile again for others
    return packed.narrow(packed.pack_normalized(images, mean, std))


BACKEND = _NumbaMixedPrecision()
