"""Gives Arrow bytes to read that are its own, not Python's."""

import pyarrow as pa


def arrow_buffer(data: bytes) -> pa.Buffer:
    """Copies bytes into memory that Arrow owns.

    What Arrow reads of a Python object (bytes, a stream) it lets go of in whichever thread of its own was the last to
    look at it, and needs the interpreter's lock for that. A process that ends at this moment is aborted: "terminate
    called without an active exception".
    """
    sink = pa.BufferOutputStream()
    sink.write(data)
    return sink.getvalue()
