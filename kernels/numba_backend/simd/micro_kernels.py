"""The register tiles: small blocks of sums that stay in vector registers while they grow.

A convolution is bound by loads and stores unless every number that is loaded is used several
times. A tile holds rows x columns sums, one vector register each. For each term it loads one
vector a column and one number a row, and multiplies each with each: 8 x 2 sums take 2 + 8 loads
for 16 multiply-adds, which is as fast as the processor can multiply. LLVM does not find this
form in a plain loop, so the functions below write it out as LLVM's own instructions.

A call takes the one of the shapes below that it names. All of them together take hardly longer
to compile than one alone: 1.5 s and 1 s.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    add_lanes,
    call_llvm,
    load_vector,
    pointer_to,
    repeat,
    store_vector,
)
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# Rows and columns of the tiles. Measured on 28x28 pixels, 32 channels and 32 filters of 3x3 with
# 32 registers, in GFLOP/s of 400: 8x2 306, 4x4 296, 5x4 300; with 24 sums or more LLVM runs out
# of registers, 6x4 232, 8x3 204. Those with one column are for outputs that have no more.
SUM_TILES = [
    (8, 2),
    (7, 2),
    (5, 4),
    (4, 4),
    (2, 4),
    (1, 8),
    (1, 4),
    (14, 1),
    (8, 1),
    (5, 1),
    (1, 1),
]
# The same for products: 4x6 285, 4x5 267, 2x9 244, 4x3 221, 8x3 186; for 5 rows, 5x5 224, 5x4 183.
PRODUCT_TILES = [(5, 5), (4, 6), (1, 6), (1, 1)]
if VECTOR_BYTES < 64:  # 16 registers
    SUM_TILES = [(4, 2), (2, 4), (1, 4), (4, 1), (1, 1)]
    PRODUCT_TILES = [(3, 3), (1, 3), (1, 1)]


def outer_product_tile_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of the sum tile that covers an output of this size soonest."""

    def cycles(shape):
        # A term of a tile takes half a cycle for a multiply-add or a number, one for a vector from
        # the second-level cache, and at least four until its sums can be added to again.
        ROWS, COLUMNS = shape
        tiles = -(-rows // ROWS) * -(-columns // COLUMNS)
        return tiles * max(ROWS * COLUMNS / 2, ROWS / 2 + COLUMNS, 4)

    return min((s for s in SUM_TILES if s[0] <= rows and s[1] <= columns), key=cycles)


def dot_tile_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the product tile that computes the fewest rows twice; of equals, the first."""
    low = [shape for shape in PRODUCT_TILES if shape[0] <= rows]
    fitting = [shape for shape in low if 1 < shape[1] <= columns]
    narrow = [shape for shape in low if shape[1] == 1]
    return min(fitting or narrow, key=lambda shape: -(-rows // shape[0]) * shape[0])


INT = ir.IntType(64)


def _integer(number):
    return ir.Constant(INT, number)


def _vector(array_type):
    """Return a register full of an array's numbers."""
    real = ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(real, VECTOR_BYTES * 8 // array_type.dtype.bitwidth)


def _unwrap(context, builder, signature, arguments):
    """Replace arrays by pointers to their first element."""
    return [
        pointer_to(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _moved(builder, pointer, start, step, count):
    """Return pointers to ``count`` places, ``step`` numbers apart."""
    return [
        builder.gep(pointer, [builder.add(start, builder.mul(step, _integer(i)))])
        for i in range(count)
    ]


def _repeat(builder, vector, pointer, offset):
    """Load one number into all lanes."""
    return repeat(builder, vector, builder.load(builder.gep(pointer, [offset])))


def _multiply_add(builder, vector, a, b, c):
    return call_llvm(builder, "fma", vector, vector, [a, b, c])


class _Loop:
    """A counted loop that carries values in registers; `close` ends it."""

    def __init__(self, builder, count, carried):
        before = builder.block
        self._builder, self._count = builder, count
        self._body = builder.append_basic_block("body")
        self._after = builder.append_basic_block("after")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.index = builder.phi(INT)
        self.index.add_incoming(_integer(0), before)
        self.values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            self.values.append(phi)

    def close(self, values):
        builder = self._builder
        following = builder.add(self.index, _integer(1))
        self.index.add_incoming(following, builder.block)
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, builder.block)
        more = builder.icmp_signed("<", following, self._count)
        builder.cbranch(more, self._body, self._after)
        builder.position_at_end(self._after)
        return values


def _room(builder, vector, count):
    """Return pointers to room on the stack for so many vectors."""
    room = cgutils.alloca_once(builder, ir.ArrayType(vector, count))
    return [builder.gep(room, [ir.IntType(32)(0), ir.IntType(32)(at)]) for at in range(count)]


class _Part:
    """Part of a long sum; `close` goes on with the next one until all are added up.

    The totals of a sum of several parts lie in memory, so that one of a single part, as almost
    all are, has the registers to itself.
    """

    def __init__(self, builder, terms, whole, room):
        before = builder.block
        self._builder, self._terms, self._whole, self._room = builder, terms, whole, room
        self._head = builder.append_basic_block("part")
        builder.branch(self._head)
        builder.position_at_end(self._head)
        self.start = builder.phi(INT)
        self.start.add_incoming(_integer(0), before)
        left = builder.sub(terms, self.start)
        fits = builder.icmp_signed("<", left, _integer(MAX_SUM_TERMS))
        self.count = builder.select(fits, left, _integer(MAX_SUM_TERMS))

    def close(self, sums):
        builder, short = self._builder, self._builder.block
        long, after = builder.append_basic_block("long"), builder.append_basic_block("summed")
        builder.cbranch(self._whole, after, long).set_weights([1000, 1])
        builder.position_at_end(long)
        first = builder.icmp_signed("==", self.start, _integer(0))
        totals = []
        for value, place in zip(sums, self._room, strict=False):
            total = builder.select(first, ir.Constant(value.type, None), builder.load(place))
            totals.append(builder.fadd(total, value))
            builder.store(totals[-1], place)
        end = builder.add(self.start, self.count)
        self.start.add_incoming(end, long)
        builder.cbranch(builder.icmp_signed("<", end, self._terms), self._head, after)
        builder.position_at_end(after)
        phis = [builder.phi(value.type) for value in sums]
        for phi, value, total in zip(phis, sums, totals, strict=True):
            phi.add_incoming(value, short)
            phi.add_incoming(total, long)
        return phis


def _shapes(builder, tiles, ROWS, COLUMNS):
    """Yield each shape, inside a branch that is taken when ROWS and COLUMNS name it."""
    after = builder.append_basic_block("after")
    name = builder.add(builder.mul(ROWS, _integer(64)), COLUMNS)
    branches = builder.switch(name, after)
    for rows, columns in tiles:
        block = builder.append_basic_block(f"tile_{rows}x{columns}")
        branches.add_case(_integer(64 * rows + columns), block)
        builder.position_at_end(block)
        yield rows, columns
        builder.branch(after)
    builder.position_at_end(after)


def _sum_tile(by_row, context, builder, signature, arguments):
    """Emit a sum tile; scale and bias belong to its rows, or else to its columns."""
    vector = _vector(signature.args[0])
    (
        x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, scale, bias, first, negative_slope,
        out, out0, out_row, out_column, ROWS, COLUMNS,
    ) = _unwrap(context, builder, signature, arguments)  # fmt: skip
    whole = builder.icmp_signed("<=", terms, _integer(MAX_SUM_TERMS))
    room = _room(builder, vector, max(rows * columns for rows, columns in SUM_TILES))
    for rows, columns in _shapes(builder, SUM_TILES, ROWS, COLUMNS):
        x_columns = _moved(builder, x, x0, x_step, columns)
        w_rows = _moved(builder, w, w0, w_step, rows)
        part = _Part(builder, terms, whole, room)
        loop = _Loop(builder, part.count, [ir.Constant(vector, None)] * (rows * columns))
        x_term = builder.load(builder.gep(x_terms, [builder.add(part.start, loop.index)]))
        w_term = builder.load(builder.gep(w_terms, [builder.add(part.start, loop.index)]))
        pixels = [load_vector(builder, vector, column, x_term) for column in x_columns]
        sums = []
        for r in range(rows):
            weight = _repeat(builder, vector, w_rows[r], w_term)
            for c in range(columns):
                total = loop.values[r * columns + c]
                sums.append(_multiply_add(builder, vector, pixels[c], weight, total))
        sums = part.close(loop.close(sums))
        affine = []
        for at in range(rows if by_row else columns):
            if by_row:
                place = builder.add(first, _integer(at))
                affine.append([_repeat(builder, vector, given, place) for given in (scale, bias)])
            else:
                place = builder.add(first, _integer(at * vector.count))
                affine.append(
                    [load_vector(builder, vector, given, place) for given in (scale, bias)]
                )
        for at, value in enumerate(sums):
            factor, shift = affine[at // columns if by_row else at % columns]
            sums[at] = _multiply_add(builder, vector, value, factor, shift)
        places = [
            (row, builder.mul(out_column, _integer(c)))
            for row in _moved(builder, out, out0, out_row, rows)
            for c in range(columns)
        ]
        linear = builder.fcmp_ordered("==", negative_slope, ir.Constant(negative_slope.type, 1.0))
        with builder.if_else(linear) as (as_they_are, bent):
            with as_they_are:
                for value, place in zip(sums, places, strict=True):
                    store_vector(builder, value, *place)
            with bent:
                weak, nothing = repeat(builder, vector, negative_slope), ir.Constant(vector, None)
                for value, place in zip(sums, places, strict=True):
                    positive = builder.fcmp_ordered(">", value, nothing)
                    value = builder.select(positive, value, builder.fmul(value, weak))
                    store_vector(builder, value, *place)
    return context.get_dummy_value()


@intrinsic
def outer_product_tile(
    typing, x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, scale, bias, first, negative_slope,
    out, out0, out_row, out_column, ROWS, COLUMNS,
):  # fmt: skip
    """out[r, c] = scale[r] * sum over t of w[r, t] * x[t, c] + bias[r], a vector each.

    What is negative is multiplied by the slope: that of a leaky ReLU, or 1. Parts of MAX_SUM_TERMS
    terms are summed each, and then added up: see `blocked_matmul`.

    All arrays are flat. Behind the names stand these elements:

        w[r, t]    w[w0 + w_terms[t] + r * w_step], one number
        x[t, c]    x[x0 + x_terms[t] + c * x_step], a vector
        scale[r]   scale[first + r], one number; bias[r] alike
        out[r, c]  out[out0 + r * out_row + c * out_column], a vector

    ROWS and COLUMNS are those of a shape in SUM_TILES.
    """
    signature = types.void(
        x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, scale, bias, first, negative_slope,
        out, out0, out_row, out_column, ROWS, COLUMNS,
    )  # fmt: skip

    return signature, partial(_sum_tile, True)


@intrinsic
def outer_product_tile_of_columns(
    typing, x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, scale, bias, first, negative_slope,
    out, out0, out_row, out_column, ROWS, COLUMNS,
):  # fmt: skip
    """The same with a scale and a bias for each number of a row, those from `first` on.

    out[r, c] = scale[c] * sum over t of w[r, t] * x[t, c] + bias[c], a vector each.
    """
    signature = types.void(
        x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, scale, bias, first, negative_slope,
        out, out0, out_row, out_column, ROWS, COLUMNS,
    )  # fmt: skip
    return signature, partial(_sum_tile, False)


@intrinsic
def dot_tile(
    typing, a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
    line0, lines, length, out, out0, out_row, ROWS, COLUMNS,
):  # fmt: skip
    """out[r, c] = sum over lines k, places j and lanes of a[r, k, j] * b[c, k, j].

    All arrays are flat. Behind the names stand these vectors:

        a[r, k, j]  a[a0 + a_lines[line0 + k] + r * a_row + j * a_step]
        b[c, k, j]  b[b0 + b_lines[line0 + k] + b_terms[b_term0 + c] + j * b_step]

    and out[r, c], one number, is out[out0 + r * out_row + c]. The sums stay in registers over
    all lines; their lanes are added up at the end. ROWS and COLUMNS are those of a shape in
    PRODUCT_TILES.
    """
    signature = types.void(
        a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
        line0, lines, length, out, out0, out_row, ROWS, COLUMNS,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        vector = _vector(signature.args[0])
        (
            a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
            line0, lines, length, out, out0, out_row, ROWS, COLUMNS,
        ) = _unwrap(context, builder, signature, arguments)  # fmt: skip
        for rows, columns in _shapes(builder, PRODUCT_TILES, ROWS, COLUMNS):
            a_rows = _moved(builder, a, a0, a_row, rows)
            b_columns = []
            for c in range(columns):
                term = builder.load(builder.gep(b_terms, [builder.add(b_term0, _integer(c))]))
                b_columns.append(builder.gep(b, [builder.add(b0, term)]))
            outer = _Loop(builder, lines, [ir.Constant(vector, None)] * (rows * columns))
            line = builder.add(line0, outer.index)
            a_at = builder.load(builder.gep(a_lines, [line]))
            b_at = builder.load(builder.gep(b_lines, [line]))
            inner = _Loop(builder, length, [*outer.values, a_at, b_at])
            *sums, a_at, b_at = inner.values
            a_vectors = [load_vector(builder, vector, row, a_at) for row in a_rows]
            for c in range(columns):
                b_vector = load_vector(builder, vector, b_columns[c], b_at)
                for r in range(rows):
                    at = r * columns + c
                    sums[at] = _multiply_add(builder, vector, b_vector, a_vectors[r], sums[at])
            a_at, b_at = builder.add(a_at, a_step), builder.add(b_at, b_step)
            *sums, _, _ = inner.close([*sums, a_at, b_at])
            sums = outer.close(sums)
            for r in range(rows):
                for c in range(columns):
                    total = add_lanes(builder, sums[r * columns + c])
                    offset = builder.add(builder.mul(out_row, _integer(r)), _integer(c))
                    builder.store(total, builder.gep(out, [builder.add(out0, offset)]))
        return context.get_dummy_value()

    return signature, generate
