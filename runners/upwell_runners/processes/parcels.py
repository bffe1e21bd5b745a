"""Users' values as parcels: pickled, large ones through shared memory, each on its own where one may fail.

Values of builtin kinds are pickled many in one go: they cannot fail, neither here nor at the other side. As
soon as anything else is among them each value gets a pickle of its own, so that one that cannot be pickled, or
read, harms its own run only.
"""

from __future__ import annotations

import pickle
from typing import Any

from upwell.core import packing_pickle
from upwell_runners.processes.shared_memory import MIN_SHARED_BYTES, Borrower, Buffer, Lender
from upwell_runners.processes.wire import Parcel

OUT_OF_BAND_BYTES = 64 * 1024
"""Buffers from this size on travel beside the pickle, so that they are not copied into it."""


class _Sink:
    """Where a pickler writes to. Not the pickler itself: in a cycle it would keep users' values alive."""

    __slots__ = ("buffers", "pieces", "write")

    def __init__(self) -> None:
        self.pieces: list[Buffer] = []
        self.buffers: list[memoryview] = []
        self.write = self.pieces.append  # large bytes come as they are, uncopied

    def keep_inside(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer is to be part of the pickle; else it is kept beside it."""
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        self.buffers.append(view)
        return False


class _Pickler(packing_pickle.Pickler):
    """Knows whether it met anything but builtin values."""

    def __init__(self, sink: _Sink) -> None:
        self.met_objects = False
        super().__init__(sink, buffer_callback=sink.keep_inside)

    def reducer_override(self, obj: Any) -> Any:
        self.met_objects = True
        return super().reducer_override(obj)


class Packer:
    """Packs values for one other process."""

    def __init__(self, lender: Lender) -> None:
        self._lender = lender

    def pack_together(self, values: list[Any]) -> Parcel | None:
        """A list of values in one parcel, if all of them are builtin throughout; else None."""
        sink = _Sink()
        pickler = _Pickler(sink)
        try:
            pickler.dump(values)
        except Exception:
            return None
        return None if pickler.met_objects else self._parcel(sink)

    def pack(self, value: Any, *, check: bool = False) -> Parcel:
        """Any value; raises whatever keeps it from being pickled.

        check: read the pickle once, as the other side will; it raises what that raises.
        """
        sink = _Sink()
        _Pickler(sink).dump(value)
        if check:
            pickle.loads(b"".join(sink.pieces), buffers=sink.buffers)
        return self._parcel(sink)

    def _parcel(self, sink: _Sink) -> Parcel:
        pieces, buffers = sink.pieces, sink.buffers
        if sum(map(len, pieces)) + sum(map(len, buffers)) >= MIN_SHARED_BYTES:
            lent = self._lender.lend(pieces, buffers)
            if lent is not None:
                return Parcel(segment=lent[0], spans=lent[1])
        return Parcel(b"".join(pieces), tuple(map(bytes, buffers)))


def unpack(parcel: Parcel, borrower: Borrower) -> Any:
    """The value of a parcel; large buffers in it stay where they are, in shared memory."""
    if not parcel.segment:
        # As bytearrays, for arrays over them are to be writable.
        return pickle.loads(parcel.data, buffers=map(bytearray, parcel.buffers) if parcel.buffers else None)
    view = borrower.view(parcel.segment)
    head, *buffers = (view[start : start + size] for start, size in zip(*[iter(parcel.spans)] * 2, strict=True))
    return pickle.loads(head, buffers=buffers)
