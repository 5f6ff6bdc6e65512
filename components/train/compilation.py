"""What XLA is told before it compiles."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_FLAG = "--xla_multiheap_size_constraint_per_heap"
# Examples of a step times the widths of the layers, and weights. Measured with layers 64-32-16-8 and 390,000 weights:
# with buffers of their own, 500 to 8,192 examples train 1.1 to 1.4 times as fast, 12,000 as fast, 16,384 0.92 times.
# Seventeen times the weights gain less than the noise, and each pass over them would take memory of its own.
_MAX_VALUES = 1 << 20


def are_buffers_small(examples_per_step: int, mlp_layers: tuple[int, ...], num_weights: int) -> bool:
    """Says whether the intermediate results of a step are few enough that sharing memory among them saves little."""
    return max(examples_per_step * sum(mlp_layers), num_weights) <= _MAX_VALUES


@contextmanager
def keeping_buffers_apart(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Has XLA give each intermediate result memory of its own in a process that first compiles within the block.

    The two parts of a step on a processor wait for each other where their results share memory. What is computed stays
    the same. XLA reads its flags when a process first compiles, and never again.

    Args:
        environment: Its XLA_FLAGS is added to while the block runs, unless it says something of this or names a file
            of flags.
    """
    flags = environment.get("XLA_FLAGS")
    given = (flags or "").strip()
    names_a_file = given != "" and not given.startswith("-")
    if names_a_file or _FLAG in given:
        yield
        return
    # No heap may grow beyond a byte, but for its first buffer.
    environment["XLA_FLAGS"] = f"{given} {_FLAG}=1".strip()
    try:
        yield
    finally:
        if flags is None:
            del environment["XLA_FLAGS"]
        else:
            environment["XLA_FLAGS"] = flags
