"""Reading tables back."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from components.generate import tables


def test_arrow_reads_nothing_that_is_pythons(examples, monkeypatch):
    # One small process in seven that ended right after reading a table through a Python stream was aborted.
    read, sources = [], []

    class Stream(io.BytesIO):
        def read(self, *arguments):
            read.append(super().read(*arguments))
            return read[-1]

    def read_table(source, **options):
        sources.append(source)
        return pq_read_table(source, **options)

    pq_read_table, open_reading = pq.read_table, tables.open_reading
    monkeypatch.setattr(tables.pq, "read_table", read_table)
    monkeypatch.setattr(tables, "open_reading", lambda place: Stream(open_reading(place).read()))
    assert sum(tables.count_users(str(examples)).values()) > 0
    assert sources
    for source, data in zip(sources, read, strict=True):
        assert type(source) is pa.BufferReader
        source.seek(0)
        assert source.read_buffer().address != pa.py_buffer(data).address
