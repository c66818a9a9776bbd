"""The register tiles: small blocks of sums that stay in vector registers while they grow.

A convolution is bound by loads and stores unless every number that is loaded is used several
times. A tile holds rows x columns sums, one vector register each. For each term it loads one
vector a column and one number a row, and multiplies each with each: 8 x 2 sums take 2 + 8 loads
for 16 multiply-adds, which is as fast as the processor can multiply. LLVM does not find this
form in a plain loop, so the functions below write it out as LLVM's own instructions, for
sizes that are known when a kernel is compiled.

Sizes are passed as literal ints: a kernel made by a factory that closes over ints is found
again in Numba's cache, one that closes over an intrinsic never is.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INT = ir.IntType(64)


def _int(number):
    return ir.Constant(INT, number)


def _vector(array_type, lanes):
    return ir.VectorType(
        ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType(), lanes
    )


def _bits(vector):
    return 32 if isinstance(vector.element, ir.FloatType) else 64


def _at(builder, vector, pointer, offset):
    place = builder.gep(pointer, [offset])
    return builder.bitcast(place, vector.as_pointer())


def _load(builder, vector, pointer, offset):
    value = builder.load(_at(builder, vector, pointer, offset))
    value.align = _bits(vector) // 8
    return value


def _store(builder, vector, value, pointer, offset):
    builder.store(value, _at(builder, vector, pointer, offset)).align = _bits(vector) // 8


def _same(builder, vector, number):
    """Return a vector with the same number in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, zeros)


def _repeat(builder, vector, pointer, offset):
    """Load one number into all lanes."""
    return _same(builder, vector, builder.load(builder.gep(pointer, [offset])))


def _call(builder, name, vector, result, arguments, **options):
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{vector.count}f{_bits(vector)}"
    )
    return builder.call(function, arguments, **options)


def _multiply_add(builder, vector, a, b, c):
    return _call(builder, "fma", vector, vector, [a, b, c])


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
        self.index.add_incoming(_int(0), before)
        self.values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            self.values.append(phi)

    def close(self, values):
        builder = self._builder
        following = builder.add(self.index, _int(1))
        self.index.add_incoming(following, builder.block)
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, builder.block)
        more = builder.icmp_signed("<", following, self._count)
        builder.cbranch(more, self._body, self._after)
        builder.position_at_end(self._after)
        return values


def _unwrap(context, builder, signature, arguments):
    """Replace arrays by pointers to their first element."""
    return [
        context.make_array(kind)(context, builder, value).data
        if isinstance(kind, types.Array)
        else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


@intrinsic(prefer_literal=True)
def sum_tile(
    typing, x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, bias, bias0,
    out, out0, out_row, out_column, ROWS, COLUMNS, LANES,
):  # fmt: skip
    """out[r, c] = bias[r] + sum over t of w[r, t] * x[t, c], a vector for each r and c.

    All arrays are flat. Behind the names stand these elements:

        w[r, t]    w[w0 + w_terms[t] + r * w_step], one number
        x[t, c]    x[x0 + x_terms[t] + c * x_step], a vector
        bias[r]    bias[bias0 + r], one number
        out[r, c]  out[out0 + r * out_row + c * out_column], a vector

    ROWS, COLUMNS and LANES are literal. ROWS * COLUMNS sums, ROWS weights and COLUMNS pixels
    should fit into the processor's vector registers (32 with AVX-512, else 16).
    """
    rows, columns, lanes = (kind.literal_value for kind in (ROWS, COLUMNS, LANES))
    signature = types.void(
        x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, bias, bias0,
        out, out0, out_row, out_column, ROWS, COLUMNS, LANES,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        vector = _vector(signature.args[0], lanes)
        (
            x, x0, x_terms, x_step, w, w0, w_terms, w_step, terms, bias, bias0,
            out, out0, out_row, out_column, *_,
        ) = _unwrap(context, builder, signature, arguments)  # fmt: skip

        def moved(pointer, start, step, count):
            return [
                builder.gep(pointer, [builder.add(start, builder.mul(step, _int(i)))])
                for i in range(count)
            ]

        x_columns, w_rows = moved(x, x0, x_step, columns), moved(w, w0, w_step, rows)
        start = []
        for r in range(rows):
            start += [_repeat(builder, vector, bias, builder.add(bias0, _int(r)))] * columns
        loop = _Loop(builder, terms, start)
        x_term = builder.load(builder.gep(x_terms, [loop.index]))
        w_term = builder.load(builder.gep(w_terms, [loop.index]))
        pixels = [_load(builder, vector, column, x_term) for column in x_columns]
        sums = []
        for r in range(rows):
            weight = _repeat(builder, vector, w_rows[r], w_term)
            for c in range(columns):
                total = loop.values[r * columns + c]
                sums.append(_multiply_add(builder, vector, pixels[c], weight, total))
        sums = loop.close(sums)
        for r, row in enumerate(moved(out, out0, out_row, rows)):
            for c in range(columns):
                offset = builder.mul(out_column, _int(c))
                _store(builder, vector, sums[r * columns + c], row, offset)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def product_tile(
    typing, a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
    lines, length, out, out0, out_row, ROWS, COLUMNS, LANES,
):  # fmt: skip
    """out[r, c] = sum over lines k, places j and lanes of a[r, k, j] * b[c, k, j].

    All arrays are flat. Behind the names stand these vectors:

        a[r, k, j]  a[a0 + a_lines[k] + r * a_row + j * a_step]
        b[c, k, j]  b[b0 + b_lines[k] + b_terms[b_term0 + c] + j * b_step]

    and out[r, c], one number, is out[out0 + r * out_row + c]. The sums stay in registers over
    all lines; their lanes are added up at the end.
    """
    rows, columns, lanes = (kind.literal_value for kind in (ROWS, COLUMNS, LANES))
    signature = types.void(
        a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
        lines, length, out, out0, out_row, ROWS, COLUMNS, LANES,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        vector = _vector(signature.args[0], lanes)
        (
            a, a0, a_lines, a_row, a_step, b, b0, b_lines, b_terms, b_term0, b_step,
            lines, length, out, out0, out_row, *_,
        ) = _unwrap(context, builder, signature, arguments)  # fmt: skip
        a_rows = [
            builder.gep(a, [builder.add(a0, builder.mul(a_row, _int(r)))]) for r in range(rows)
        ]
        b_columns = []
        for c in range(columns):
            term = builder.load(builder.gep(b_terms, [builder.add(b_term0, _int(c))]))
            b_columns.append(builder.gep(b, [builder.add(b0, term)]))
        zero = ir.Constant(vector, None)
        outer = _Loop(builder, lines, [zero] * (rows * columns))
        a_at = builder.load(builder.gep(a_lines, [outer.index]))
        b_at = builder.load(builder.gep(b_lines, [outer.index]))
        inner = _Loop(builder, length, [*outer.values, a_at, b_at])
        *sums, a_at, b_at = inner.values
        a_vectors = [_load(builder, vector, row, a_at) for row in a_rows]
        for c in range(columns):
            b_vector = _load(builder, vector, b_columns[c], b_at)
            for r in range(rows):
                place = r * columns + c
                sums[place] = _multiply_add(builder, vector, b_vector, a_vectors[r], sums[place])
        *sums, _, _ = inner.close([*sums, builder.add(a_at, a_step), builder.add(b_at, b_step)])
        sums = outer.close(sums)
        nothing = ir.Constant(vector.element, 0.0)
        for r in range(rows):
            for c in range(columns):
                total = _call(
                    builder, "vector.reduce.fadd", vector, vector.element,
                    [nothing, sums[r * columns + c]], fastmath=("reassoc",),
                )  # fmt: skip
                offset = builder.add(builder.mul(out_row, _int(r)), _int(c))
                builder.store(total, builder.gep(out, [builder.add(out0, offset)]))
        return context.get_dummy_value()

    return signature, generate


class _Window:
    """Two loops over the vectors (r, c) of a window, which carry values and count the taps."""

    def __init__(self, builder, x0, x_row, rows, columns, tap0, tap_row, lanes, carried):
        self._builder, self._x_row, self._tap_row = builder, x_row, tap_row
        self._rows = _Loop(builder, rows, [*carried, x0, tap0])
        self._columns = _Loop(builder, columns, self._rows.values)
        *self.values, self.at, self.tap = self._columns.values
        self._lanes = lanes

    def close(self, values):
        builder = self._builder
        at, tap = builder.add(self.at, _int(self._lanes)), builder.add(self.tap, _int(1))
        *values, _, _ = self._columns.close([*values, at, tap])
        at = builder.add(self._rows.values[-2], self._x_row)
        tap = builder.add(self._rows.values[-1], self._tap_row)
        *values, _, _ = self._rows.close([*values, at, tap])
        return values


@intrinsic(prefer_literal=True)
def max_tile(typing, x, x0, x_row, rows, columns, tap0, tap_row, y, y0, taps, LANES):
    """y[y0] = the largest vector of a window, lane by lane; taps[y0] = which tap that was.

    The window's vectors are x[x0 + r * x_row + c * LANES], their taps tap0 + r * tap_row + c. Of
    equal numbers the first counts, and NaN counts as the largest.
    """
    lanes = LANES.literal_value
    signature = types.void(x, x0, x_row, rows, columns, tap0, tap_row, y, y0, taps, LANES)

    def generate(context, builder, signature, arguments):
        vector = _vector(signature.args[0], lanes)
        numbers = ir.VectorType(ir.IntType(signature.args[9].dtype.bitwidth), lanes)
        x, x0, x_row, rows, columns, tap0, tap_row, y, y0, taps, _ = _unwrap(
            context, builder, signature, arguments
        )

        def in_all_lanes(tap):
            return _same(builder, numbers, builder.trunc(tap, numbers.element))

        first = [_load(builder, vector, x, x0), in_all_lanes(tap0)]
        window = _Window(builder, x0, x_row, rows, columns, tap0, tap_row, lanes, first)
        largest, where = window.values
        pixels = _load(builder, vector, x, window.at)
        larger = builder.and_(
            builder.fcmp_unordered(">", pixels, largest),
            builder.fcmp_ordered("ord", largest, largest),
        )
        largest, where = window.close(
            [
                builder.select(larger, pixels, largest),
                builder.select(larger, in_all_lanes(window.tap), where),
            ]
        )
        _store(builder, vector, largest, y, y0)
        builder.store(where, _at(builder, numbers, taps, y0)).align = 1
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def max_grad_tile(typing, dx, x0, x_row, rows, columns, tap0, tap_row, dy, y0, taps, LANES):
    """Add dy[y0] to that vector of a window in dx which `max_tile` took, lane by lane."""
    lanes = LANES.literal_value
    signature = types.void(dx, x0, x_row, rows, columns, tap0, tap_row, dy, y0, taps, LANES)

    def generate(context, builder, signature, arguments):
        vector = _vector(signature.args[0], lanes)
        numbers = ir.VectorType(ir.IntType(signature.args[9].dtype.bitwidth), lanes)
        dx, x0, x_row, rows, columns, tap0, tap_row, dy, y0, taps, _ = _unwrap(
            context, builder, signature, arguments
        )
        sent = _load(builder, vector, dy, y0)
        where = builder.load(_at(builder, numbers, taps, y0))
        where.align = 1
        window = _Window(builder, x0, x_row, rows, columns, tap0, tap_row, lanes, [])
        tap = _same(builder, numbers, builder.trunc(window.tap, numbers.element))
        chosen = builder.icmp_unsigned("==", where, tap)
        share = builder.select(chosen, sent, ir.Constant(vector, None))
        total = builder.fadd(_load(builder, vector, dx, window.at), share)
        _store(builder, vector, total, dx, window.at)
        window.close([])
        return context.get_dummy_value()

    return signature, generate
