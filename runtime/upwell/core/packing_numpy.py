"""How numpy arrays and scalars are carried: their bytes, with dtype, shape and order before them.

numpy is never imported to look at a value (a value can only be numpy's if numpy is loaded); it is
imported to read one. Structured, object and other dtypes that a short code does not name are pickled.
"""

import importlib
import sys
from typing import Any

import msgspec

from upwell.core.packing_kinds import CannotCarry, Code, Down, Kind, class_of


def numpy_kind(cls: type) -> Kind | None:
    """The kind of `cls` if it is numpy's array or one of its scalars."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "generic"):  # still being imported
        return None
    if cls is numpy.ndarray:
        return ARRAY
    if issubclass(cls, numpy.generic) and cls.__module__ == "numpy":
        return SCALAR
    return None


def _dtype_code(dtype: Any) -> str:
    """The code that numpy reads back as exactly this dtype; `long` and `longlong` are told apart."""
    numpy: Any = sys.modules["numpy"]
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.metadata:
        raise CannotCarry(f"numpy dtype {dtype}")
    for code in (dtype.str, dtype.char):
        try:
            found = numpy.dtype(code)
        except TypeError:
            continue
        if found == dtype and found.char == dtype.char and type(found) is type(dtype):
            return str(code)
    raise CannotCarry(f"numpy dtype {dtype}")


def _pack_array(value: Any, _down: Down) -> object:
    code = _dtype_code(value.dtype)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    if value.nbytes == 0 or not value.flags.forc:
        content = value.tobytes(order)
    else:
        content = value.reshape(-1, order="A").view("u1").data  # no copy
    return [code, value.shape, order, msgspec.msgpack.Ext(Code.RAW, content)]


def _unpack_array(body: Any) -> object:
    numpy: Any = importlib.import_module("numpy")
    code, shape, order, content = body
    if not len(content):
        return numpy.empty(shape, code, order)
    return numpy.frombuffer(content, code).reshape(shape, order=order).copy(order)


def _pack_scalar(value: Any, down: Down) -> object:
    cls = class_of(value)
    if cls.__name__ in ("str_", "bytes_"):
        return [cls.__name__, down((str if cls.__name__ == "str_" else bytes)(value))]
    code = _dtype_code(value.dtype)
    if value.dtype.type is not cls or not value.nbytes or cls.__name__ == "void":
        raise CannotCarry(f"numpy scalar {cls.__name__}")
    return [code, value.tobytes()]


def _unpack_scalar(body: Any) -> object:
    numpy: Any = importlib.import_module("numpy")
    code, content = body
    if code in ("str_", "bytes_"):
        return getattr(numpy, code)(content)
    return numpy.frombuffer(content, code)[0]


ARRAY = Kind(Code.ARRAY, _pack_array, _unpack_array)
SCALAR = Kind(Code.NUMPY_SCALAR, _pack_scalar, _unpack_scalar)
NUMPY_KINDS = (ARRAY, SCALAR)
