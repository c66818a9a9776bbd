"""Micro-kernels: small tiles of sums that stay in vector registers while they grow.

A convolution is bound by loads and stores unless every number that is loaded is used several
times. A tile holds rows x columns sums, one vector register each. For each term it loads one
vector for each column and one scalar for each row, and multiplies each vector by each scalar:
8 x 2 sums take 2 + 8 loads for 16 multiply-adds, which is as fast as the processor can multiply.
LLVM does not find this form in a plain loop, so the functions below emit the instructions.

All arrays are flat, so the tiles work on any layout: the caller describes where operands lie by a
base, a stride for each dimension of the tile, and a table of offsets for the summed dimension.

Each call names one of the tile shapes listed below, and runs that branch of the function. All
shapes together take hardly longer to compile than one alone: 1.5 s and 1 s.

References
----------
Goto, van de Geijn: Anatomy of high-performance matrix multiplication (2008).
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.activations import LeakyRelu
from kernels.numba_backend.simd.activations import activate, activation_type
from kernels.numba_backend.simd.bfloat16 import (
    PairOperand,
    emit_narrow,
    multiply_add_pairs,
    pair_vector,
    splat_operand,
)
from kernels.numba_backend.simd.codegen import (
    INT,
    VECTOR_BYTES,
    call_llvm,
    data_pointer,
    emit_load,
    emit_reduce_sum,
    emit_splat,
    emit_store,
)
from kernels.numba_backend.simd.vectors import Vector
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# Rows and columns of the tiles. Measured on 28x28 pixels, 32 channels and 32 filters of 3x3 with
# 32 registers, in GFLOP/s of 400: 8x2 306, 4x4 296, 5x4 300; with 24 sums or more LLVM runs out
# of registers, 6x4 232, 8x3 204. Tiles of one column are for outputs that have only one.
OUTER_PRODUCT_TILES = [
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
# Tiles of pairs of bfloat16 numbers whose rows are stored as pairs.
PAIRED_TILES = [(8, 2), (4, 4), (2, 8), (2, 4), (14, 1), (8, 1), (2, 1)]
# Measured likewise: 4x6 285, 4x5 267, 2x9 244, 4x3 221, 8x3 186; for 5 rows, 5x5 224, 5x4 183.
DOT_TILES = [(5, 5), (4, 6), (1, 6), (1, 1)]
if VECTOR_BYTES < 64:  # 16 registers
    OUTER_PRODUCT_TILES = [(4, 2), (2, 4), (1, 4), (4, 1), (1, 1)]
    PAIRED_TILES = [(4, 2), (2, 4), (4, 1), (2, 1)]
    DOT_TILES = [(3, 3), (1, 3), (1, 1)]

# The bytes of the numbers of a column up to which four columns stay in the first-level cache, and
# 4x4 sums are faster than 8x2. Columns are those of the packed filters of 1x1 convolutions on a
# Cascade Lake: 65 instead of 80 us for 32 channels (64 filters, 32x32 pixels), 59 and 62 for 64
# channels, but 110 and 101 for 128. Or they are images in the weight gradient of 256 x 256 weights:
# 70 and 74 us for 64 of them, 346 and 324 for 256.
MAX_SHORT_BYTES = 4 << 10

# Positions of arguments of both functions of outer products below.
AFFINE, ACTIVATION, OUT = 9, 12, 13


def outer_product_tile_shape(
    rows: int, columns: int, paired: bool = False, in_first_level: bool = False
) -> tuple[int, int]:
    """Return the shape that covers rows x columns in the fewest cycles.

    It is one of OUTER_PRODUCT_TILES or, for pairs of rows, of PAIRED_TILES. ``in_first_level`` says
    that the vectors come from the first-level cache, as otherwise only the scalars do.
    """

    def cycles(shape):
        # A term of a tile takes half a cycle for each multiply-add or scalar, one cycle for each
        # vector from the second-level cache, and at least four cycles, the latency of a fused
        # multiply-add. Where loads are no limit, they still take a little: 4x4 sums reached 114
        # GFLOP/s of 150 on an Intel Xeon, and 8x2 sums 104.
        ROWS, COLUMNS = shape
        tiles = -(-rows // ROWS) * -(-columns // COLUMNS)
        if in_first_level:
            return tiles * (max(ROWS * COLUMNS / 2, 4) + (ROWS + COLUMNS) / 8)
        return tiles * max(ROWS * COLUMNS / 2, ROWS / 2 + COLUMNS, 4)

    shapes = PAIRED_TILES if paired else OUTER_PRODUCT_TILES
    fitting = (s for s in shapes if s[0] <= rows and s[1] <= columns)
    return min(fitting, key=cycles)


def dot_tile_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the shape in DOT_TILES that computes the fewest rows twice.

    Ties go to the first shape.
    """
    low = [shape for shape in DOT_TILES if shape[0] <= rows]
    fitting = [shape for shape in low if 1 < shape[1] <= columns]
    single_column = [shape for shape in low if shape[1] == 1]
    return min(fitting or single_column, key=lambda shape: -(-rows // shape[0]) * shape[0])


def _int64(value):
    return ir.Constant(INT, value)


def _vector_type(array_type):
    """Return the LLVM type of a full vector of an array's elements, or of sums of its pairs."""
    element = ir.DoubleType() if array_type.dtype == types.float64 else ir.FloatType()
    return ir.VectorType(element, VECTOR_BYTES * 8 // array_type.dtype.bitwidth)


def _unwrap_arrays(context, builder, signature, args):
    """Replace arrays by pointers to their first elements."""
    return [
        data_pointer(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def _strided_pointers(builder, pointer, start, stride, count):
    """Return the addresses pointer + start + i * stride for each i < count."""
    return [
        builder.gep(pointer, [builder.add(start, builder.mul(stride, _int64(i)))])
        for i in range(count)
    ]


def _load_splat(builder, vector, pointer, offset):
    """Load one element into all lanes."""
    return emit_splat(builder, vector, builder.load(builder.gep(pointer, [offset])))


def _multiply_add(builder, vector, a, b, c):
    return call_llvm(builder, "fma", vector, vector, [a, b, c])


class _FloatTerms:
    """The terms of a sum: products of float numbers."""

    def __init__(self, builder, vector):
        self._builder, self._vector = builder, vector

    def load(self, pointer, offset):
        """Return a vector of numbers."""
        return emit_load(self._builder, self._vector, pointer, offset)

    def splat(self, pointer, offset):
        """Return one number in all lanes."""
        return _load_splat(self._builder, self._vector, pointer, offset)

    def multiply_add(self, a, b, acc):
        return _multiply_add(self._builder, self._vector, a, b, acc)


class _PairTerms:
    """The terms of a sum: two products each, of pairs of bfloat16 numbers."""

    def __init__(self, builder, vector):
        self._builder, self._count = builder, vector.count

    def load(self, pointer, offset):
        pairs = emit_load(self._builder, pair_vector(self._count), pointer, offset)
        return PairOperand(self._builder, pairs)

    def splat(self, pointer, offset):
        pair = self._builder.load(self._builder.gep(pointer, [offset]))
        return splat_operand(self._builder, pair, self._count)

    def multiply_add(self, a, b, acc):
        return multiply_add_pairs(self._builder, a, b, acc)


class _Loop:
    """A counted loop that carries values in registers.

    The constructor begins the body of the loop, and `close` ends it. In between, ``index`` counts
    from 0 and ``values`` are the carried values at the beginning of a round.
    """

    def __init__(self, builder, count, initial_values):
        entry_block = builder.block
        self._builder, self._count = builder, count
        self._body = builder.append_basic_block("body")
        self._exit = builder.append_basic_block("exit")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.index = builder.phi(INT)
        self.index.add_incoming(_int64(0), entry_block)
        self.values = []
        for value in initial_values:
            phi = builder.phi(value.type)
            phi.add_incoming(value, entry_block)
            self.values.append(phi)

    def close(self, values):
        """End a round, which has made these values of the carried ones; return them."""
        builder = self._builder
        next_index = builder.add(self.index, _int64(1))
        self.index.add_incoming(next_index, builder.block)
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, builder.block)
        has_next = builder.icmp_signed("<", next_index, self._count)
        branch = builder.cbranch(has_next, self._body, self._exit)
        branch.set_metadata("llvm.loop", _no_unrolling(builder.module))
        builder.position_at_end(self._exit)
        return values


def _no_unrolling(module):
    """Return the metadata of a loop that LLVM leaves as it is.

    Of two rounds at once, LLVM moves all loads to the beginning, and runs out of registers.
    """
    option = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = ir.MDValue(module, [option], name=str(len(module.metadata)))
    loop.operands = (loop, option)  # a loop's metadata begins with itself
    return loop


def _stack_slots(builder, vector, count):
    """Return pointers to uninitialized vectors on the stack."""
    slots = cgutils.alloca_once(builder, ir.ArrayType(vector, count))
    return [builder.gep(slots, [ir.IntType(32)(0), ir.IntType(32)(i)]) for i in range(count)]


class _BlockedSum:
    """A loop over blocks of at most MAX_SUM_TERMS terms, which are summed and then added up.

    The constructor begins the body, which sums the terms ``start`` to before ``start + count``.
    `close` ends it. The totals of several blocks lie in memory (``slots``), so that a sum of a
    single block, as almost all are, has all the registers for itself.
    """

    def __init__(self, builder, n_terms, is_single_block, slots):
        entry_block = builder.block
        self._builder, self._n_terms = builder, n_terms
        self._is_single_block, self._slots = is_single_block, slots
        self._body = builder.append_basic_block("sum_block")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.start = builder.phi(INT)
        self.start.add_incoming(_int64(0), entry_block)
        remaining = builder.sub(n_terms, self.start)
        is_last = builder.icmp_signed("<", remaining, _int64(MAX_SUM_TERMS))
        self.count = builder.select(is_last, remaining, _int64(MAX_SUM_TERMS))

    def close(self, sums):
        """Add the sums of a block to the totals; return the totals of all blocks."""
        builder, body_end = self._builder, self._builder.block
        accumulate = builder.append_basic_block("accumulate")
        exit_block = builder.append_basic_block("summed")
        branch = builder.cbranch(self._is_single_block, exit_block, accumulate)
        branch.set_weights([1000, 1])
        builder.position_at_end(accumulate)
        is_first = builder.icmp_signed("==", self.start, _int64(0))
        totals = []
        for value, slot in zip(sums, self._slots, strict=False):
            total = builder.select(is_first, ir.Constant(value.type, None), builder.load(slot))
            totals.append(builder.fadd(total, value))
            builder.store(totals[-1], slot)
        stop = builder.add(self.start, self.count)
        self.start.add_incoming(stop, accumulate)
        has_next = builder.icmp_signed("<", stop, self._n_terms)
        builder.cbranch(has_next, self._body, exit_block)
        builder.position_at_end(exit_block)
        phis = [builder.phi(value.type) for value in sums]
        for phi, value, total in zip(phis, sums, totals, strict=True):
            phi.add_incoming(value, body_end)
            phi.add_incoming(total, accumulate)
        return phis


def _switch_on_shape(builder, shapes, ROWS, COLUMNS):
    """Yield each tile shape, inside a branch that runs when it equals (ROWS, COLUMNS)."""
    exit_block = builder.append_basic_block("tile_end")
    shape_id = builder.add(builder.mul(ROWS, _int64(64)), COLUMNS)
    switch = builder.switch(shape_id, exit_block)
    for rows, columns in shapes:
        block = builder.append_basic_block(f"tile_{rows}x{columns}")
        switch.add_case(_int64(64 * rows + columns), block)
        builder.position_at_end(block)
        yield rows, columns
        builder.branch(exit_block)
    builder.position_at_end(exit_block)


def _load_affine(builder, vector, scale, bias, start, rows, columns, by_row):
    """Return a scale and a bias vector for each sum of a tile, row by row.

    By row, a row has one scale in all lanes; else each lane of each column has its own.
    """
    pairs = []
    for i in range(rows if by_row else columns):
        if by_row:
            offset = builder.add(start, _int64(i))
            pairs.append([_load_splat(builder, vector, array, offset) for array in (scale, bias)])
        else:
            offset = builder.add(start, _int64(i * vector.count))
            pairs.append([emit_load(builder, vector, array, offset) for array in (scale, bias)])
    return [pairs[r if by_row else c] for r in range(rows) for c in range(columns)]


def _activate_and_store(context, builder, vector_type, values, argument_type, activation, store):
    """Call ``store`` with the activations of values.

    ``argument_type`` is the Numba type of ``activation``. A leaky ReLU of slope 1 skips the
    comparison.
    """
    if activation_type(argument_type) is not LeakyRelu:
        signature = vector_type(vector_type, argument_type)
        arguments = ([value, activation] for value in values)
        store([context.compile_internal(builder, _activate, signature, a) for a in arguments])
        return
    vector = values[0].type
    is_linear = builder.fcmp_ordered("==", activation, ir.Constant(activation.type, 1.0))
    with builder.if_else(is_linear) as (identity_branch, leaky_branch):
        with identity_branch:
            store(values)
        with leaky_branch:
            slope, zero = emit_splat(builder, vector, activation), ir.Constant(vector, None)
            are_positive = [builder.fcmp_ordered(">", value, zero) for value in values]
            store(
                [
                    builder.select(is_positive, value, builder.fmul(value, slope))
                    for is_positive, value in zip(are_positive, values, strict=True)
                ]
            )


def _activate(value, activation):
    return activate(value, activation)


def _emit_sums(context, builder, signature, args, out_type, finish, is_continued=None):
    """Emit the sums of a tile of outer products for each shape, as `outer_product_tile` names them.

    ``args`` are x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms, out,
    out_base, out_row_stride, out_column_stride, ROWS and COLUMNS. ``finish`` is called with the
    shape, the sums and a function that stores what it is given. If the bit ``is_continued`` is set,
    the terms are added to what out holds.
    """
    x_type = signature.args[0]
    vector = _vector_type(x_type)
    terms_are_pairs, rows_are_pairs = (kind.dtype == types.uint32 for kind in (x_type, out_type))
    terms = (_PairTerms if terms_are_pairs else _FloatTerms)(builder, vector)
    (
        x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
        out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS,
    ) = args  # fmt: skip
    shapes = PAIRED_TILES if rows_are_pairs else OUTER_PRODUCT_TILES
    is_single_block = builder.icmp_signed("<=", n_terms, _int64(MAX_SUM_TERMS))
    slots = _stack_slots(builder, vector, max(rows * columns for rows, columns in shapes))

    def out_pointers(rows, columns):
        starts = _strided_pointers(builder, out, out_base, out_row_stride, rows)
        offsets = [builder.mul(out_column_stride, _int64(c)) for c in range(columns)]
        return [(start, offset) for start in starts for offset in offsets]

    def first_sums(rows, columns):
        zero = ir.Constant(vector, None)
        if is_continued is None:
            return [zero] * (rows * columns)
        before = builder.block
        with builder.if_then(is_continued):
            values = [emit_load(builder, vector, *place) for place in out_pointers(rows, columns)]
            loaded = builder.block
        sums = []
        for value in values:
            sums.append(builder.phi(vector))
            sums[-1].add_incoming(zero, before)
            sums[-1].add_incoming(value, loaded)
        return sums

    def emit_stores(rows, columns, values):
        if rows_are_pairs:
            upper, lower = ([values[r * columns + c] for r in range(i, rows, 2)
                             for c in range(columns)] for i in (0, 1))  # fmt: skip
            values = [emit_narrow(builder, *pair) for pair in zip(upper, lower, strict=True)]
        places = out_pointers(len(values) // columns, columns)
        for value, place in zip(values, places, strict=True):
            emit_store(builder, value, *place)

    for rows, columns in _switch_on_shape(builder, shapes, ROWS, COLUMNS):
        x_columns = _strided_pointers(builder, x, x_base, x_stride, columns)
        w_rows = _strided_pointers(builder, w, w_base, w_stride, rows)
        initial_sums = first_sums(rows, columns)
        block = _BlockedSum(builder, n_terms, is_single_block, slots)
        loop = _Loop(builder, block.count, initial_sums)
        term = builder.add(block.start, loop.index)
        x_offset = builder.load(builder.gep(x_offsets, [term]))
        w_offset = builder.load(builder.gep(w_offsets, [term]))
        x_vectors = [terms.load(column, x_offset) for column in x_columns]
        sums = []
        for r in range(rows):
            weight = terms.splat(w_rows[r], w_offset)
            for c in range(columns):
                acc = loop.values[r * columns + c]
                sums.append(terms.multiply_add(x_vectors[c], weight, acc))
        sums = block.close(loop.close(sums))
        finish(rows, columns, sums, partial(emit_stores, rows, columns))
    return context.get_dummy_value()


def _emit_outer_product_tile(by_row, context, builder, signature, args):
    """Emit a tile of outer products; scale and bias belong to its rows, or else to its columns."""
    x_type = signature.args[0]
    vector = _vector_type(x_type)
    dtype = types.float32 if x_type.dtype == types.uint32 else x_type.dtype
    vector_type, argument_type = Vector(dtype, vector.count), signature.args[ACTIVATION]
    operands = _unwrap_arrays(context, builder, signature, args)
    scale, bias, affine_start, activation = operands[AFFINE : ACTIVATION + 1]

    def finish(rows, columns, sums, emit_stores):
        affine = _load_affine(builder, vector, scale, bias, affine_start, rows, columns, by_row)
        values = [
            _multiply_add(builder, vector, value, *scale_and_bias)
            for value, scale_and_bias in zip(sums, affine, strict=True)
        ]
        _activate_and_store(
            context, builder, vector_type, values, argument_type, activation, emit_stores
        )

    operands = operands[:AFFINE] + operands[ACTIVATION + 1 :]
    return _emit_sums(context, builder, signature, operands, signature.args[OUT], finish)


@intrinsic
def product_tile(
    typing, x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
    out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS, is_continued,
):  # fmt: skip
    """`outer_product_tile` of at most MAX_SUM_TERMS terms, with no scale, bias and activation.

    If ``is_continued`` is true, the sums are added to what out holds.
    """
    signature = types.void(
        x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
        out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS, types.boolean,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        def finish(rows, columns, sums, emit_stores):
            emit_stores(sums)

        *operands, is_continued = _unwrap_arrays(context, builder, signature, args)
        out_type = signature.args[AFFINE]
        return _emit_sums(context, builder, signature, operands, out_type, finish, is_continued)

    return signature, codegen


@intrinsic
def outer_product_tile(
    typing, x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
    scale, bias, affine_start, activation,
    out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS,
):  # fmt: skip
    """out[r, c] = scale[r] * sum over t of w[r, t] * x[t, c] + bias[r], a vector each.

    The activation, one of `kernels.activations`, is applied to them. Each MAX_SUM_TERMS terms are
    summed on their own and the sums are then added up, as in
    `numpy_backend.dense.blocked_matmul`.

    In the flat arrays,

        w[r, t]    is w[w_base + w_offsets[t] + r * w_stride], a scalar
        x[t, c]    is x[x_base + x_offsets[t] + c * x_stride], a vector
        scale[r]   is scale[affine_start + r], a scalar; bias[r] likewise
        out[r, c]  is out[out_base + r * out_row_stride + c * out_column_stride], a vector

    for t < n_terms, r < ROWS and c < COLUMNS. (ROWS, COLUMNS) is one of OUTER_PRODUCT_TILES.

    Where x and w are arrays of uint32, each of their elements is a pair of bfloat16 numbers, and
    a term is the sum of two products. Where out is one, rows 2 * r and 2 * r + 1 are rounded and
    stored as the pairs out[r, c], and (ROWS, COLUMNS) is one of PAIRED_TILES.
    """
    signature = types.void(
        x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
        scale, bias, affine_start, activation,
        out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS,
    )  # fmt: skip

    return signature, partial(_emit_outer_product_tile, True)


@intrinsic
def outer_product_tile_of_columns(
    typing, x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
    scale, bias, affine_start, activation,
    out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS,
):  # fmt: skip
    """out[r, c] = scale[c] * sum over t of w[r, t] * x[t, c] + bias[c], a vector each.

    `outer_product_tile` with a scale and a bias for each lane of each column: those of column c
    are the vectors at ``affine_start`` plus c vectors.
    """
    signature = types.void(
        x, x_base, x_offsets, x_stride, w, w_base, w_offsets, w_stride, n_terms,
        scale, bias, affine_start, activation,
        out, out_base, out_row_stride, out_column_stride, ROWS, COLUMNS,
    )  # fmt: skip
    return signature, partial(_emit_outer_product_tile, False)


@intrinsic
def dot_tile(
    typing, a, a_base, a_segment_offsets, a_row_stride, a_vector_stride,
    b, b_base, b_segment_offsets, b_column_offsets, first_column, b_vector_stride,
    first_segment, n_segments, segment_length, out, out_base, out_row_stride, ROWS, COLUMNS,
):  # fmt: skip
    """out[r, c] = sum over segments k, positions j and lanes of a[r, k, j] * b[c, k, j].

    In the flat arrays,

        a[r, k, j]  is the vector at a_base + a_segment_offsets[first_segment + k]
                    + r * a_row_stride + j * a_vector_stride
        b[c, k, j]  is the vector at b_base + b_segment_offsets[first_segment + k]
                    + b_column_offsets[first_column + c] + j * b_vector_stride
        out[r, c]   is out[out_base + r * out_row_stride + c], a scalar

    for k < n_segments, j < segment_length, r < ROWS and c < COLUMNS. The sums stay in registers
    over all segments; their lanes are added up at the end. (ROWS, COLUMNS) is one of DOT_TILES.
    """
    signature = types.void(
        a, a_base, a_segment_offsets, a_row_stride, a_vector_stride,
        b, b_base, b_segment_offsets, b_column_offsets, first_column, b_vector_stride,
        first_segment, n_segments, segment_length, out, out_base, out_row_stride, ROWS, COLUMNS,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        vector = _vector_type(signature.args[0])
        (
            a, a_base, a_segment_offsets, a_row_stride, a_vector_stride,
            b, b_base, b_segment_offsets, b_column_offsets, first_column, b_vector_stride,
            first_segment, n_segments, segment_length, out, out_base, out_row_stride,
            ROWS, COLUMNS,
        ) = _unwrap_arrays(context, builder, signature, args)  # fmt: skip
        for rows, columns in _switch_on_shape(builder, DOT_TILES, ROWS, COLUMNS):
            a_rows = _strided_pointers(builder, a, a_base, a_row_stride, rows)
            b_columns = []
            for c in range(columns):
                column = builder.add(first_column, _int64(c))
                column_offset = builder.load(builder.gep(b_column_offsets, [column]))
                b_columns.append(builder.gep(b, [builder.add(b_base, column_offset)]))
            zeros = [ir.Constant(vector, None)] * (rows * columns)
            segments = _Loop(builder, n_segments, zeros)
            segment = builder.add(first_segment, segments.index)
            a_offset = builder.load(builder.gep(a_segment_offsets, [segment]))
            b_offset = builder.load(builder.gep(b_segment_offsets, [segment]))
            vectors = _Loop(builder, segment_length, [*segments.values, a_offset, b_offset])
            *sums, a_offset, b_offset = vectors.values
            a_vectors = [emit_load(builder, vector, row, a_offset) for row in a_rows]
            for c in range(columns):
                b_vector = emit_load(builder, vector, b_columns[c], b_offset)
                for r in range(rows):
                    i = r * columns + c
                    sums[i] = _multiply_add(builder, vector, b_vector, a_vectors[r], sums[i])
            a_offset = builder.add(a_offset, a_vector_stride)
            b_offset = builder.add(b_offset, b_vector_stride)
            *sums, _, _ = vectors.close([*sums, a_offset, b_offset])
            sums = segments.close(sums)
            for r in range(rows):
                for c in range(columns):
                    total = emit_reduce_sum(builder, sums[r * columns + c])
                    offset = builder.add(builder.mul(out_row_stride, _int64(r)), _int64(c))
                    builder.store(total, builder.gep(out, [builder.add(out_base, offset)]))
        return context.get_dummy_value()

    return signature, codegen


# Taps and strides of `sliding_sums` and `sliding_dots`: the taps are neighboring pixels of
# a row, and the stride is the distance in pixels of two windows.
SLIDING_WINDOWS = [(taps, stride) for taps in (1, 2, 3, 5) for stride in (1, 2)]
SLIDING_COLUMNS = [8, 4, 1]
# Positions of arguments of `sliding_sums`.
SLIDING_BIAS, SLIDING_ACTIVATION = 12, 13


def sliding_columns(columns: int) -> int:
    """Return the number in SLIDING_COLUMNS that covers so many windows with the fewest sums."""
    fitting = (count for count in SLIDING_COLUMNS if count <= columns)
    return min(fitting, key=lambda count: -(-columns // count) * (count + 1))


def _window_pairs(taps, stride, columns):
    """Yield (q, [(m, c), ...]): pixel q is at tap m of window c."""
    for q in range((columns - 1) * stride + taps):
        pairs = [(m, *divmod(q - m, stride)) for m in range(taps)]
        yield q, [(m, c) for m, c, rest in pairs if rest == 0 and 0 <= c < columns]


@intrinsic
def sliding_sums(
    typing, x, x_base, x_offsets, pixel_stride, left, width, w, w_base, w_offsets, w_stride,
    first_term, n_terms, bias, activation, out, out_base, out_stride, columns, TAPS, STRIDE,
    COLUMNS,
):  # fmt: skip
    """out[c] = bias + the sum over t and m of w[t, m] * x[t, left + c * STRIDE + m], a vector each.

    The activation, one of `kernels.activations`, is applied to them. The outputs are covered by
    tiles of COLUMNS windows, of which the last overlaps the one before it. Each pixel is loaded
    once for all windows of its tile. In the flat arrays,

        w[t, m]  is at w_base + w_offsets[t] + m * w_stride
        x[t, q]  is the vector at x_base + x_offsets[t] + q * pixel_stride, or 0 outside of
                 0 <= q < width
        out[c]   is the vector at out_base + c * out_stride

    for first_term <= t < first_term + n_terms, m < TAPS and c < columns. The bias is a scalar or a
    vector, and so are the weights: one for each lane, or the same for all. (TAPS, STRIDE) is one of
    SLIDING_WINDOWS, and COLUMNS one of SLIDING_COLUMNS, at most ``columns``.
    """
    signature = types.void(
        x, x_base, x_offsets, pixel_stride, left, width, w, w_base, w_offsets, w_stride,
        first_term, n_terms, bias, activation, out, out_base, out_stride, columns, TAPS, STRIDE,
        COLUMNS,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        vector = _vector_type(signature.args[0])
        vector_type = Vector(signature.args[0].dtype, vector.count)
        argument_type = signature.args[SLIDING_ACTIVATION]
        is_splat = not isinstance(signature.args[SLIDING_BIAS], Vector)
        load_weight = _load_splat if is_splat else emit_load
        (
            x, x_base, x_offsets, pixel_stride, left, width, w, w_base, w_offsets, w_stride,
            first_term, n_terms, bias, activation, out, out_base, out_stride, columns, TAPS, STRIDE,
            COLUMNS,
        ) = _unwrap_arrays(context, builder, signature, args)  # fmt: skip
        window = builder.add(builder.mul(TAPS, _int64(8)), STRIDE)
        shapes = {
            (8 * taps + stride, count): (taps, stride)
            for taps, stride in SLIDING_WINDOWS
            for count in SLIDING_COLUMNS
        }
        slots = _stack_slots(builder, vector, max(SLIDING_COLUMNS))
        padding = builder.bitcast(*_stack_slots(builder, vector, 1), x.type)
        emit_store(builder, ir.Constant(vector, None), padding, _int64(0))
        bias = emit_splat(builder, vector, bias) if is_splat else bias
        w = builder.gep(w, [w_base])
        tiles = builder.sdiv(builder.add(columns, builder.sub(COLUMNS, _int64(1))), COLUMNS)
        last_column = builder.sub(columns, COLUMNS)

        def emit_sums(x_column, taps, stride, count, border):
            """Add up the terms in the slots; x_column is that of the first pixel.

            Of the pixels of the tile, the first and the last ``border`` may be outside of x.
            """
            n_pixels = (count - 1) * stride + taps
            column_offset = builder.mul(x_column, pixel_stride)
            x_tile = builder.gep(x, [builder.add(x_base, column_offset)])
            with cgutils.for_range(builder, n_terms) as loop:
                term = builder.add(first_term, loop.index)
                pixels = builder.gep(x_tile, [builder.load(builder.gep(x_offsets, [term]))])
                w_offset = builder.load(builder.gep(w_offsets, [term]))
                weights = []
                for m in range(taps):
                    offset = builder.add(w_offset, builder.mul(w_stride, _int64(m)))
                    weights.append(load_weight(builder, vector, w, offset))
                for q, pairs in _window_pairs(taps, stride, count):
                    pointer = builder.gep(pixels, [builder.mul(pixel_stride, _int64(q))])
                    if q < border or q >= n_pixels - border:
                        column = builder.add(x_column, _int64(q))
                        is_pixel = builder.icmp_unsigned("<", column, width)
                        pointer = builder.select(is_pixel, pointer, padding)
                    pixel = emit_load(builder, vector, pointer, _int64(0))
                    for m, c in pairs:
                        acc = builder.load(slots[c])
                        acc = _multiply_add(builder, vector, pixel, weights[m], acc)
                        builder.store(acc, slots[c])

        def emit_by_border(x_column, n_pixels, borders, emit):
            """Emit the tile for each border; the first one that suffices runs."""
            if len(borders) == 1:
                return emit(borders[0])
            missing = builder.sub(_int64(0), x_column)
            stop = builder.add(x_column, _int64(n_pixels))
            suffices = builder.and_(
                builder.icmp_signed("<=", missing, _int64(borders[0])),
                builder.icmp_signed("<=", builder.sub(stop, width), _int64(borders[0])),
            )
            with builder.if_else(suffices) as (yes, no):
                with yes:
                    emit(borders[0])
                with no:
                    emit_by_border(x_column, n_pixels, borders[1:], emit)

        def emit_stores(out_tile, values):
            for c, value in enumerate(values):
                emit_store(builder, value, out_tile, builder.mul(out_stride, _int64(c)))

        for window_id, count in _switch_on_shape(builder, shapes, window, COLUMNS):
            taps, stride = shapes[window_id, count]
            with cgutils.for_range(builder, tiles) as tile:
                column = builder.mul(tile.index, _int64(count))
                is_last = builder.icmp_signed(">", column, last_column)
                column = builder.select(is_last, last_column, column)
                for slot in slots[:count]:
                    builder.store(bias, slot)
                x_column = builder.add(left, builder.mul(column, _int64(stride)))
                n_pixels = (count - 1) * stride + taps
                emit_by_border(
                    x_column, n_pixels, [0, taps // 2, n_pixels],
                    partial(emit_sums, x_column, taps, stride, count),
                )  # fmt: skip
                out_start = builder.add(out_base, builder.mul(column, out_stride))
                _activate_and_store(
                    context, builder, vector_type, [builder.load(slot) for slot in slots[:count]],
                    argument_type, activation, partial(emit_stores, builder.gep(out, [out_start])),
                )  # fmt: skip
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def sliding_dots(
    typing, x, x_base, x_row_stride, dy, dy_base, dy_row_stride, rows, columns, out, out_base,
    TAPS, STRIDE,
):  # fmt: skip
    """out[m] += sum over rows r and columns c of dy[r, c] * x[r, c * STRIDE + m], a vector each.

    In the flat arrays,

        x[r, q]   is the vector q vectors after x_base + r * x_row_stride
        dy[r, c]  is the vector c vectors after dy_base + r * dy_row_stride
        out[m]    is the vector m vectors after out_base

    for r < rows, c < columns and m < TAPS. (TAPS, STRIDE) is one of SLIDING_WINDOWS.
    """
    signature = types.void(
        x, x_base, x_row_stride, dy, dy_base, dy_row_stride, rows, columns, out, out_base,
        TAPS, STRIDE,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        vector = _vector_type(signature.args[0])
        (
            x, x_base, x_row_stride, dy, dy_base, dy_row_stride, rows, columns, out, out_base,
            TAPS, STRIDE,
        ) = _unwrap_arrays(context, builder, signature, args)  # fmt: skip
        block_columns, lanes = 4, vector.count
        blocks = builder.sdiv(columns, _int64(block_columns))
        remainder = builder.srem(columns, _int64(block_columns))
        # Independent sums of one tap: one alone would wait four cycles for each multiply-add.
        slots = _stack_slots(builder, vector, 12)
        zero = ir.Constant(vector, None)

        def add_block(taps, stride, n_sums, x_row, dy_row, first_column, count):
            pixels = builder.gep(x_row, [builder.mul(first_column, _int64(stride * lanes))])
            gradients = builder.gep(dy_row, [builder.mul(first_column, _int64(lanes))])
            loaded = {}
            for q, pairs in _window_pairs(taps, stride, count):
                pixel = emit_load(builder, vector, pixels, _int64(q * lanes))
                for m, c in pairs:
                    if c not in loaded:
                        loaded[c] = emit_load(builder, vector, gradients, _int64(c * lanes))
                    slot = slots[m * n_sums + c % n_sums]
                    acc = builder.load(slot)
                    builder.store(_multiply_add(builder, vector, pixel, loaded[c], acc), slot)

        for taps, stride in _switch_on_shape(builder, SLIDING_WINDOWS, TAPS, STRIDE):
            n_sums = min(4, 12 // taps)
            for slot in slots[: taps * n_sums]:
                builder.store(zero, slot)
            with cgutils.for_range(builder, rows) as row:
                x_start = builder.add(x_base, builder.mul(row.index, x_row_stride))
                dy_start = builder.add(dy_base, builder.mul(row.index, dy_row_stride))
                x_row, dy_row = builder.gep(x, [x_start]), builder.gep(dy, [dy_start])
                with cgutils.for_range(builder, blocks) as block:
                    first = builder.mul(block.index, _int64(block_columns))
                    add_block(taps, stride, n_sums, x_row, dy_row, first, block_columns)
                first_single = builder.mul(blocks, _int64(block_columns))
                with cgutils.for_range(builder, remainder) as single:
                    column = builder.add(first_single, single.index)
                    add_block(taps, stride, n_sums, x_row, dy_row, column, 1)
            for m in range(taps):
                offset = builder.add(out_base, _int64(m * lanes))
                total = emit_load(builder, vector, out, offset)
                for i in range(n_sums):
                    total = builder.fadd(total, builder.load(slots[m * n_sums + i]))
                emit_store(builder, total, out, offset)
        return context.get_dummy_value()

    return signature, codegen
