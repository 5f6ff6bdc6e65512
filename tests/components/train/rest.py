"""What TensorFlow Serving does with a request to its REST API, for tests: JSON to tensors, a session, tensors to JSON.

The server itself is not here. Its rules: the types are the signature's; `inputs` has a value of the tensor's own shape
for each input; `instances` has an object for each row with exactly the inputs as its keys, and every input gets an axis
of rows; the answer is `outputs` or, row by row, `predictions`. Like the server, this runs the graph in a session after
its initializer, and not the functions that Python finds in a SavedModel.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_IS_INSTANCE = {
    tf.int64: lambda value: type(value) is int and -(2**63) <= value < 2**63,
    tf.int32: lambda value: type(value) is int and -(2**31) <= value < 2**31,
    tf.string: lambda value: type(value) is str,
}


def answer(model: Path, request: str) -> dict[str, Any]:
    """Returns the body of the answer to the body of a `:predict` request.

    Raises:
        ValueError: The server would refuse it.
    """
    body = json.loads(request)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        signature = meta_graph.signature_def[body["signature_name"]]
        values = {
            name: _tensor(_given(body, name, set(signature.inputs)), info) for name, info in signature.inputs.items()
        }
        outputs = session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {info.name: values[name] for name, info in signature.inputs.items()},
        )
    columns = {name: _as_text(value).tolist() for name, value in outputs.items()}
    if "inputs" in body:
        result: dict[str, Any] = {"outputs": columns}
    else:
        if {len(column) for column in columns.values()} != {len(body["instances"])}:
            raise ValueError("an output has not one row for each instance")
        result = {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    # Neither NaN nor an infinity is JSON.
    parsed: dict[str, Any] = json.loads(json.dumps(result, allow_nan=False))
    return parsed


def _given(body: dict[str, Any], name: str, names: set[str]) -> Any:
    if ("inputs" in body) == ("instances" in body):
        raise ValueError("neither or both of inputs and instances")
    if "inputs" in body:
        return body["inputs"][name]
    if any(set(row) != names for row in body["instances"]):
        raise ValueError(f"an instance has other keys than {sorted(names)}")
    return [row[name] for row in body["instances"]]


def _tensor(value: Any, info: Any) -> np.ndarray:
    dtype, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    array = np.array(value, dtype=object)
    if not all(_IS_INSTANCE[dtype](element) for element in array.ravel()):
        raise ValueError(f"{value} is not of type {dtype.name}")
    if not shape.is_compatible_with(array.shape):
        raise ValueError(f"{value} has not the shape {shape}")
    return array if dtype == tf.string else array.astype(dtype.as_numpy_dtype)


def _as_text(value: np.ndarray) -> np.ndarray:
    # Only names that end in _bytes are encoded.
    return np.vectorize(bytes.decode, otypes=[object])(value) if value.dtype == object else value
