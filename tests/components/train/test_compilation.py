import pytest

from components.train.compilation import keep_buffers_apart

_APART = "--xla_multiheap_size_constraint_per_heap=1"


@pytest.mark.parametrize(
    ("flags", "examples", "expected"),
    [
        (None, 8192, _APART),
        ("", 500, _APART),
        ("--xla_dump_to=here", 8192, f"--xla_dump_to=here {_APART}"),
        ("--xla_multiheap_size_constraint_per_heap=7", 8192, "--xla_multiheap_size_constraint_per_heap=7"),
        (_APART, 500, _APART),
        ("--xla_dump_to=here", 8739, "--xla_dump_to=here"),
        (None, 32768, None),
    ],
)
def test_small_steps_add_to_the_flags_that_are_set(flags: str | None, examples: int, expected: str | None) -> None:
    """2**20 divided by 64 + 32 + 16 + 8 is 8738.1."""
    environment = {} if flags is None else {"XLA_FLAGS": flags}
    keep_buffers_apart(environment, examples, (64, 32, 16, 8))
    assert environment == ({} if expected is None else {"XLA_FLAGS": expected})
