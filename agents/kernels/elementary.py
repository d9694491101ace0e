"""numpy's own exponentials, logarithms and cube roots, called from compiled loops, and room for them.

Elementary functions differ in the last bit from one library to the next, and from one processor to the next.
A loop that is to give numpy's bits calls numpy's own, where numpy keeps them: in the table of a ufunc.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.compiler import AVAILABLE

LANES = 64  # numbers that a loop works on at a time
_UFUNCS = (np.cbrt, np.log, np.exp)


class _UFunc(ctypes.Structure):
    """The head of PyUFuncObject, as numpy/ufuncobject.h publishes it."""

    _fields_ = (
        ("head", ctypes.c_char * object.__basicsize__),
        ("nin", ctypes.c_int),
        ("nout", ctypes.c_int),
        ("nargs", ctypes.c_int),
        ("identity", ctypes.c_int),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
    )


@cache
def addresses() -> NDArray[np.int64]:
    """Addresses of cube root, logarithm and exponential over float64, and of what each is given [3, 2].

    Raises:
        ImportError: if this numpy keeps them elsewhere.

    Example:
        >>> addresses().shape
        (3, 2)
    """
    found = []
    for ufunc in _UFUNCS:
        table, index = _UFunc.from_address(id(ufunc)), ufunc.types.index("d->d")
        if (table.nin, table.nout, table.nargs, table.ntypes) != (1, 1, 2, len(ufunc.types)):
            raise ImportError(f"numpy {np.__version__} keeps its loops elsewhere: set TOKENFIELD_NUMPY=1")
        found.append((table.functions[index], table.data[index] or 0))
    return np.array(found, dtype=np.int64)


if AVAILABLE:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _BYTES, _LONG, _SHORT = ir.IntType(8).as_pointer(), ir.IntType(64), ir.IntType(32)

    def _apply(function: int) -> Any:
        """A function of compiled loops that puts one of numpy's in the place of its arguments."""

        @intrinsic
        def apply(typing: Any, table: Any, numbers: Any, count: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                def array(operand: int) -> Any:
                    return context.make_array(signature.args[operand])(context, builder, arguments[operand])

                zero = ir.Constant(_SHORT, 0)
                where = cgutils.alloca_once(builder, ir.ArrayType(_BYTES, 2))
                strides = cgutils.alloca_once(builder, ir.ArrayType(_LONG, 2))
                length = cgutils.alloca_once_value(builder, arguments[2])
                start = builder.bitcast(array(1).data, _BYTES)
                for operand in range(2):
                    place = [zero, ir.Constant(_SHORT, operand)]
                    builder.store(start, builder.gep(where, place))
                    builder.store(ir.Constant(_LONG, 8), builder.gep(strides, place))
                loop, given = (
                    builder.load(builder.gep(array(0).data, [ir.Constant(_LONG, 2 * function + part)]))
                    for part in range(2)
                )
                longs = _LONG.as_pointer()
                kind = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), longs, longs, _BYTES])
                first, step = (builder.gep(part, [zero, zero]) for part in (where, strides))
                call = builder.inttoptr(loop, kind.as_pointer())
                builder.call(call, [first, length, step, builder.inttoptr(given, _BYTES)])
                return context.get_dummy_value()

            return types.void(table, numbers, types.int64), generate

        return apply

    # Typed as what a loop sees: without the context of the compiler.
    cube_roots: Any = _apply(0)
    logarithms: Any = _apply(1)
    exponentials: Any = _apply(2)

    @intrinsic(prefer_literal=True)
    def _stack(typing: Any, size: Any) -> Any:
        """Room for numbers on the stack: the compiler sees that no other array shares it."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            room = cgutils.alloca_once(builder, ir.ArrayType(ir.DoubleType(), size.literal_value))
            room.align = 64
            return builder.bitcast(room, ir.DoubleType().as_pointer())

        return types.CPointer(types.float64)(size), generate

    stack: Any = _stack
    carray: Any = vars(numba)["carray"]
else:  # the loops are not compiled then, nor called
    cube_roots = logarithms = exponentials = carray = stack = None
