"""What arrays and tables contribute to a key: numpy's by dtype, shape and content, pandas' column by column.

How an array lies in memory does not count: neither its strides and order, nor what a DataFrame keeps in one block.
Neither numpy nor pandas is imported to look at a value: one can only be theirs if they are loaded.
"""

import hashlib
import sys
from typing import Any

from upwell.core.keys_kinds import (
    DIGEST_BYTES,
    LARGE_BYTES,
    Code,
    Down,
    Kind,
    home_of,
    short,
    walk_fields,
    walk_items,
    walk_one,
)

_CHUNK_BYTES = 1 << 22
"""What is copied at once of an array that is not contiguous."""


def array_kind(cls: type) -> Kind | None:
    """The kind of `cls` if it is numpy's or pandas', or derived from theirs."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "generic"):  # still being imported
        return None
    if issubclass(cls, numpy.ndarray):
        return _ARRAY if cls is numpy.ndarray else _ARRAY_SUBCLASS
    if issubclass(cls, numpy.generic):
        return _NUMPY_SCALAR
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "DataFrame"):
        return None
    for base, kind in ((pandas.DataFrame, _DATA_FRAME), (pandas.Series, _SERIES), (pandas.Index, _INDEX)):
        if issubclass(cls, base):
            return kind
    return _EXTENSION_ARRAY if issubclass(cls, pandas.api.extensions.ExtensionArray) else None


def _name(value: Any) -> list[str]:
    return [home_of(type(value)).partition(".")[0], type(value).__name__]


def _array(value: Any, down: Down) -> object:
    dtype = value.dtype
    if dtype.names is not None:  # field by field: what lies between the fields is anything
        names = list(dtype.names)
        return ["fields", list(value.shape), names, [down(value[name]) for name in names]]
    if dtype.hasobject or dtype.char == "T":  # Python objects, or texts that lie elsewhere
        flat = value.reshape(-1).tolist()
        return [str(dtype), list(value.shape), walk_one(flat, " element ", down)]
    if dtype.char in "gG":  # long doubles are padded with anything
        return [dtype.char, list(value.shape), [repr(item) for item in value.reshape(-1)]]
    return [dtype.str, list(value.shape), _content(value)]


def _content(value: Any) -> bytes:
    """The bytes in the order of the elements, or a digest of them."""
    numpy: Any = sys.modules["numpy"]
    if value.nbytes <= LARGE_BYTES:
        return b"=" + bytes(value.tobytes())
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if value.flags.c_contiguous:
        hasher.update(value.reshape(-1).view("u1").data)
        return b"#" + hasher.digest()
    rows = max(1, _CHUNK_BYTES * len(value) // value.nbytes)
    for start in range(0, len(value), rows):
        hasher.update(numpy.ascontiguousarray(value[start : start + rows]).reshape(-1).view("u1").data)
    return b"#" + hasher.digest()


def _array_subclass(value: Any, down: Down) -> object:
    """A matrix, a masked array: what any array has, and its own attributes."""
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ma.MaskedArray):
        masked: Any = value  # what lies under the mask is anything
        return [_name(value), _array(masked.filled(), down), down(numpy.ma.getmaskarray(masked))]
    attributes: dict[str, Any] = {} if isinstance(value, numpy.memmap) else getattr(value, "__dict__", {})
    return [_name(value), _array(value.view(numpy.ndarray), down), walk_fields(attributes, down)]


def _numpy_scalar(value: Any, down: Down) -> object:
    numpy: Any = sys.modules["numpy"]
    return [type(value).__name__, _array(numpy.asarray(value), down)]


# pandas


def _data_frame(value: Any, down: Down) -> object:
    columns = [walk_one(value.iloc[:, i].array, f"[{short(label)}]", down) for i, label in enumerate(value.columns)]
    labels, index = walk_one(value.columns, ".columns", down), walk_one(value.index, ".index", down)
    return [_name(value), labels, index, columns, _attrs(value, down)]


def _series(value: Any, down: Down) -> object:
    index = walk_one(value.index, ".index", down)
    return [_name(value), down(value.name), index, down(value.array), _attrs(value, down)]


def _attrs(value: Any, down: Down) -> object:
    own = {name: getattr(value, name, None) for name in value._metadata if name not in ("_name", "name")}
    return [walk_one(value.attrs, ".attrs", down), walk_fields(own, down)]


def _index(value: Any, down: Down) -> object:
    pandas: Any = sys.modules["pandas"]
    names = walk_items(value.names, down)
    if isinstance(value, pandas.RangeIndex):
        return [_name(value), names, down(range(value.start, value.stop, value.step))]
    if isinstance(value, pandas.MultiIndex):
        levels = [value.get_level_values(number).array for number in range(value.nlevels)]
        return [_name(value), names, walk_items(levels, down)]
    return [_name(value), names, down(value.array)]


def _extension_array(value: Any, down: Down) -> object:
    """A column: its dtype, and its content as the cheapest array of numpy that holds all of it."""
    numpy: Any = sys.modules["numpy"]
    pandas: Any = sys.modules["pandas"]
    dtype = value.dtype
    if isinstance(dtype, numpy.dtype) or isinstance(value, pandas.arrays.NumpyExtensionArray):
        return [str(dtype), down(numpy.asarray(value))]
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return [str(dtype), down(numpy.asarray(value, dtype=f"M8[{dtype.unit}]"))]
    if isinstance(dtype, pandas.CategoricalDtype):
        ordered = bool(dtype.ordered)
        return ["category", ordered, down(numpy.asarray(value.codes)), down(value.categories.array)]
    return [str(dtype), down(numpy.asarray(value, dtype=object))]


_ARRAY = Kind(Code.ARRAY, _array)
_ARRAY_SUBCLASS = Kind(Code.ARRAY, _array_subclass)
_NUMPY_SCALAR = Kind(Code.NUMPY_SCALAR, _numpy_scalar)
_DATA_FRAME = Kind(Code.DATA_FRAME, _data_frame)
_SERIES = Kind(Code.SERIES, _series)
_INDEX = Kind(Code.INDEX, _index)
_EXTENSION_ARRAY = Kind(Code.EXTENSION_ARRAY, _extension_array)
