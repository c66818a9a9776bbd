"""Compile a fixed sequence of kernel calls into one native function.

A call of a kernel from Python takes 3 to 10 us: Numba looks up the types of the arguments and
unpacks every array. Where the same kernels run on the same arrays again and again, all of this is
done once. The function that is made here consists of calls of the compiled kernels, with their
addresses and arguments as constants.

It calls a kernel as Numba's own code does (numba/core/callconv.py): the addresses of the returned
value and of an exception come first, and then all numbers of which the arguments consist. A pointer
is passed like an integer of 64 bits.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import types
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

RESULT_BYTES = 64
# Where a NumPy array keeps the address of its numbers. `NativeCalls` checks that it does. Compiled
# code reads it in no time, and ``x.__array_interface__`` takes 1 us.
DATA_OFFSET = object.__basicsize__
# What a kernel may return: numbers of eight bytes, and tuples of them.
FORMATS: dict[types.Type, str] = {types.float64: "d", types.int64: "q"}

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_SUCCESS = int(RETCODE_OK.constant), int(RETCODE_NONE.constant)


class UnsupportedCallError(Exception):
    """A kernel call that cannot be compiled into a sequence. It can be made from Python."""


class KernelError(Exception):
    """A kernel raised an exception, which is not known here."""


class Input(int):
    """Stands among the arguments for the array with this number, which each run gets anew."""


class NativeCalls:
    """A sequence of kernel calls as one native function.

    Parameters
    ----------
    calls : sequence of (kernel, arguments)
        Kernels of `compiler` that have been called with such arguments before. The arrays must
        stay where they are. An `Input` stands for an array that differs from run to run.
    inputs : sequence of ndarray
        Arrays like those that each run will get: of the same shapes and dtypes, and `fits`.
    value_call : int
        The call whose value a run returns, -1 for none.

    Raises
    ------
    UnsupportedCallError
        If a kernel is an ordinary function, an argument has a type that is unknown here, or
        pointers do not have 64 bits.
    """

    def __init__(
        self,
        calls: Sequence[tuple[Callable, Sequence[Any]]],
        inputs: Sequence[np.ndarray],
        value_call: int = -1,
    ):
        if ctypes.sizeof(ctypes.c_void_p) != 8:
            raise UnsupportedCallError("pointers do not have 64 bits")
        for x in inputs:
            if ctypes.c_int64.from_address(id(x) + DATA_OFFSET).value != x.ctypes.data:
                raise UnsupportedCallError("arrays do not begin with the address of their numbers")
        self._calls = calls  # keeps the arrays alive
        self._inputs = (ctypes.c_int64 * max(1, len(inputs)))()  # the addresses of the objects
        self._result = ctypes.create_string_buffer(RESULT_BYTES)
        self._other_result = ctypes.create_string_buffer(RESULT_BYTES)
        self._exception = ctypes.c_int64()
        self._type: types.Type = types.none
        module = ir.Module("native_calls")
        function = ir.Function(module, ir.FunctionType(_I32, []), "run")
        builder = ir.IRBuilder(function.append_basic_block())
        for index, (kernel, arguments) in enumerate(calls):
            is_value = index == value_call
            compiled = _compiled(kernel, arguments, inputs)
            if is_value:
                self._type = compiled.fndesc.restype
            result = self._result if is_value else self._other_result
            self._add_call(builder, compiled, arguments, inputs, ctypes.addressof(result))
        builder.ret(ir.Constant(_I32, 0))
        self._format = _format(self._type)
        self._engine, self._function = _compile(module)

    def __call__(self, inputs: Sequence[np.ndarray]) -> Any:
        """Run all calls; return the value of one of them, or None.

        Raises
        ------
        KernelError
            If a kernel raised an exception. The calls after it were not made.
        """
        for index, x in enumerate(inputs):
            self._inputs[index] = id(x)
        if self._function():
            raise KernelError
        if not self._format:
            return None
        values = struct.unpack_from(self._format, self._result)
        if isinstance(self._type, types.BaseTuple):
            return values
        return values[0]

    @staticmethod
    def fits(inputs: Sequence[np.ndarray]) -> bool:
        """Return whether arrays lie in memory as a run needs them."""
        for x in inputs:
            flags = x.flags
            if not (flags.c_contiguous and flags.aligned):
                return False
        return True

    def _add_call(self, builder, compiled, arguments, inputs, result: int) -> None:
        """Add the call of a kernel, and the return that follows it if the kernel fails."""
        descriptor, convention = compiled.fndesc, cpu_target.target_context.call_conv
        _check_result(descriptor.restype)
        types_of = convention.get_function_type(descriptor.restype, descriptor.argtypes).args
        numbers: list[Any] = [result, ctypes.addressof(self._exception)]
        for ty, argument in zip(descriptor.argtypes, arguments, strict=True):
            if isinstance(argument, Input):
                cell = ctypes.addressof(self._inputs) + 8 * argument
                pointer = builder.inttoptr(ir.Constant(_I64, cell), _I64.as_pointer())
                field = builder.add(builder.load(pointer), ir.Constant(_I64, DATA_OFFSET))
                data = builder.load(builder.inttoptr(field, _I64.as_pointer()))
                numbers += _flatten(ty, inputs[argument], data)
            else:
                numbers += _flatten(ty, argument)
        plain = [_I64 if isinstance(ty, ir.PointerType) else ty for ty in types_of]
        values = [
            number if isinstance(number, ir.Value) else ir.Constant(ty, number)
            for ty, number in zip(plain, numbers, strict=True)
        ]
        address = compiled.library.get_pointer_to_function(descriptor.llvm_func_name)
        signature = ir.FunctionType(_I32, plain).as_pointer()
        status = builder.call(builder.inttoptr(ir.Constant(_I64, address), signature), values)
        failed = builder.and_(
            *(builder.icmp_signed("!=", status, ir.Constant(_I32, code)) for code in _SUCCESS)
        )
        with builder.if_then(failed, likely=False):
            builder.ret(ir.Constant(_I32, 1))


def is_compiled(kernel: Callable) -> bool:
    """Return whether a function is a kernel of `compiler`."""
    return isinstance(kernel, Dispatcher)


def is_parallel(kernel: Callable) -> bool:
    """Return whether a function may use several threads."""
    return not is_compiled(kernel) or bool(kernel.targetoptions.get("parallel"))  # type: ignore[attr-defined]


def _compiled(kernel: Callable, arguments: Sequence[Any], inputs: Sequence[np.ndarray]):
    """Return a kernel as it was compiled for arguments of these types."""
    if not isinstance(kernel, Dispatcher):
        raise UnsupportedCallError(f"{kernel!r} is no kernel")
    values = (inputs[value] if isinstance(value, Input) else value for value in arguments)
    key = tuple(map(kernel.typeof_pyval, values))
    if key not in kernel.overloads:
        raise UnsupportedCallError(f"{kernel!r} was not compiled for {key}")
    return kernel.overloads[key]


def _flatten(ty: Any, value: Any, address: Any = None) -> list[Any]:
    """Return the numbers of which an argument consists in compiled code.

    Parameters
    ----------
    ty : numba.types.Type
    value : object
    address : llvmlite.ir.Value, optional
        Of an array; by default that of the value.
    """
    if isinstance(ty, types.Array):
        # Without an object that counts references: the sequence keeps the array alive.
        address = value.ctypes.data if address is None else address
        return [0, 0, value.size, value.itemsize, address, *value.shape, *value.strides]
    if isinstance(ty, types.BaseTuple):
        parts = zip(ty.types, value, strict=True)  # type: ignore[attr-defined]
        return [number for part, item in parts for number in _flatten(part, item)]
    if isinstance(ty, types.NoneType):
        return [0]
    if isinstance(ty, (types.Integer, types.Boolean)):
        return [int(value)]
    if isinstance(ty, types.Float):
        return [float(value)]
    raise UnsupportedCallError(f"an argument has the type {ty}")


def _check_result(ty: types.Type) -> None:
    context = cpu_target.target_context
    if context.get_abi_sizeof(context.get_value_type(ty)) > RESULT_BYTES:
        raise UnsupportedCallError(f"a kernel returns {ty}")


def _format(ty: Any) -> str:
    """Return the format by which `struct` reads what a kernel returned."""
    if isinstance(ty, types.NoneType):
        return ""
    scalars = ty.types if isinstance(ty, types.BaseTuple) else (ty,)  # type: ignore[attr-defined]
    if not set(scalars) <= set(FORMATS):
        raise UnsupportedCallError(f"a kernel returns {ty}")
    return "".join(FORMATS[scalar] for scalar in scalars)


def _compile(module: ir.Module) -> tuple[Any, Callable[[], int]]:
    """Return the engine that holds the code of a module, and its function."""
    triple = binding.get_process_triple()
    target = binding.Target.from_triple(triple).create_target_machine(opt=0)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), target)
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(ctypes.c_int)(engine.get_function_address("run"))
