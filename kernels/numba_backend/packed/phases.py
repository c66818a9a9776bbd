"""The rows and columns of pixels that a correlation or its input gradient reads, by phases.

The kernels copy the padded rows under some rows of windows, a band, into a buffer that stays in a
cache. All outputs of a correlation lie under the same taps. In the input gradient of a stride s,
the pixels of dx whose position has the same remainder modulo s do: they are a phase, and each phase
is a correlation of dy with its taps in reverse order.
"""

from typing import NamedTuple

from kernels.geometry import Window


class Phase(NamedTuple):
    """Some rows or columns of outputs, which lie ``step`` apart, and the taps that reach them.

    Attributes
    ----------
    first, n_outputs : int
        The first of the outputs, and their number.
    taps : list of (offset, tap)
        The row or column of the input under each tap of the first output's window. The next
        output has the next row or column, or in a correlation of stride s the one s further.
    """

    first: int
    n_outputs: int
    taps: list[tuple[int, int]]


class Bands(NamedTuple):
    """Where the padded rows of a plane lie.

    Attributes
    ----------
    top, left : int
        Row and column of the input at the beginning of the padded rows.
    width : int
        Pixels of a padded row.
    extent : int
        Padded rows under one row of outputs.
    row_step, column_step : int
        Distance of the windows of two outputs.
    band_rows, n_rows : int
        Rows of outputs in a band, and of each phase at most.
    """

    top: int
    left: int
    width: int
    extent: int
    row_step: int
    column_step: int
    band_rows: int
    n_rows: int

    @property
    def padded_rows(self) -> int:
        """Number of padded rows of a band."""
        return (self.band_rows - 1) * self.row_step + self.extent


def correlation_phases(window: Window, axis: int) -> list[Phase]:
    """Return the only phase of the rows (axis 0) or columns (axis 1) of a correlation."""
    begin, dilation = window.pad_begin[axis], window.dilation[axis]
    taps = [(k * dilation - begin, k) for k in range(window.size[axis])]
    return [Phase(0, window.output[axis], taps)]


def gradient_phases(window: Window, axis: int) -> list[Phase]:
    """Return the phases of the rows (axis 0) or columns (axis 1) of the input gradient."""
    length, stride, begin = window.image[axis], window.stride[axis], window.pad_begin[axis]
    phases = []
    for first in range(min(stride, length)):
        starts = [
            (first + begin - k * window.dilation[axis], k)
            for k in reversed(range(window.size[axis]))
        ]
        taps = [(start // stride, k) for start, k in starts if start % stride == 0]
        phases.append(Phase(first, -(-(length - first) // stride), taps))
    return phases


def make_bands(
    rows: list[Phase],
    columns: list[Phase],
    step: tuple[int, int],
    max_pixels: int,
    max_rows: int | None = None,
) -> Bands:
    """Return bands of at most ``max_pixels`` padded pixels and ``max_rows`` rows of outputs.

    A band has at least one row of outputs, however many pixels that takes.
    """
    row_offsets = [offset for phase in rows for offset, _ in phase.taps] or [0]
    column_offsets = [offset for phase in columns for offset, _ in phase.taps] or [0]
    top, left = min(row_offsets), min(column_offsets)
    extent = max(row_offsets) - top + 1
    n_rows, n_columns = (max(phase.n_outputs for phase in phases) for phases in (rows, columns))
    width = (n_columns - 1) * step[1] + max(column_offsets) - left + 1
    fitting = (max_pixels // width - extent) // step[0] + 1
    band_rows = max(min(fitting, n_rows if max_rows is None else max_rows, n_rows), 1)
    return Bands(top, left, width, extent, *step, band_rows, n_rows)
