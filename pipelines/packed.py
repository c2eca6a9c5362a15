"""What travels between tasks, small: tables inside are written compressed, however deep they are held.

Rows that are regrouped all pass through Ray's object store, and what does not fit there goes to disk and back. Rows of
silver are 150 bytes each as they are, and some 25 compressed, which takes less time than the disk does.
"""

import io
import pickle
from typing import Any

import pyarrow as pa

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


def packed(value: object) -> bytes:
    """`value`, which may be or hold tables."""
    sink = io.BytesIO()
    _Packer(sink, pickle.HIGHEST_PROTOCOL).dump(value)
    return sink.getvalue()


def unpacked(travelled: bytes) -> Any:
    """What was `packed`."""
    return pickle.loads(travelled)


class _Packer(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        """Pickle asks this of every object: how a table is written; of anything else, that it is left to pickle."""
        if not isinstance(value, pa.Table):
            return NotImplemented
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema, options=_COMPRESSED) as stream:
            stream.write_table(value)
        return _table, (sink.getvalue().to_pybytes(),)


def _table(written: bytes) -> pa.Table:
    return pa.ipc.open_stream(written).read_all()
