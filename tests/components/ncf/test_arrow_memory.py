"""What Arrow is given to read."""

import re
import sys
from pathlib import Path

import pyarrow as pa

from components.ncf.arrow_memory import arrow_buffer

COMPONENTS = Path(__file__).parents[3] / "components"


def test_the_bytes_are_the_same_and_not_those_of_python():
    data = b"some,bytes\n" * 100
    references = sys.getrefcount(data)
    buffer = arrow_buffer(data)
    assert buffer.to_pybytes() == data
    assert sys.getrefcount(data) == references
    # The check can tell: Arrow's own way of taking bytes keeps hold of the object.
    other = pa.py_buffer(data)
    assert sys.getrefcount(data) > references
    del other


def test_no_step_gives_arrow_an_object_of_python_to_read():
    # One process in seven that ended right after such a reading was aborted.
    found = {
        f"{path.relative_to(COMPONENTS)}: {match}"
        for path in COMPONENTS.rglob("*.py")
        for match in re.findall(
            r"py_buffer\(|PythonFile\(|(?:read_table|read_csv)\((?:stream|io\.|BytesIO)", path.read_text()
        )
        if path.name != "arrow_memory.py"
    }
    assert found == set()
