import pytest

from components.train.compilation import are_buffers_small, keeping_buffers_apart

_APART = "--xla_multiheap_size_constraint_per_heap=1"


@pytest.mark.parametrize(
    ("examples", "mlp_layers", "num_weights", "are_small"),
    [
        (8738, (64, 32, 16, 8), 400_000, True),  # 2**20 divided by the layers' 120
        (8739, (64, 32, 16, 8), 400_000, False),
        (1489, (256, 256, 128, 64), 400_000, True),
        (1490, (256, 256, 128, 64), 400_000, False),
        (500, (8, 4), 1_048_576, True),
        (500, (8, 4), 1_048_577, False),
    ],
)
def test_steps_are_small_by_examples_widths_and_weights(
    examples: int, mlp_layers: tuple[int, ...], num_weights: int, are_small: bool
) -> None:
    assert are_buffers_small(examples, mlp_layers, num_weights) == are_small


@pytest.mark.parametrize(
    ("flags", "within"),
    [
        (None, _APART),
        ("", _APART),
        ("--xla_dump_to=here", f"--xla_dump_to=here {_APART}"),
        ("--xla_multiheap_size_constraint_per_heap=7", "--xla_multiheap_size_constraint_per_heap=7"),
        (" --xla_dump_to=here ", f"--xla_dump_to=here {_APART}"),
        ("/a/file/of/flags", "/a/file/of/flags"),
    ],
)
def test_flags_are_added_to_those_that_are_set_and_taken_back(flags: str | None, within: str) -> None:
    before = {"OTHER": "1"} if flags is None else {"OTHER": "1", "XLA_FLAGS": flags}
    environment = dict(before)
    with keeping_buffers_apart(environment):
        assert environment == {"OTHER": "1", "XLA_FLAGS": within}
    assert environment == before


def test_flags_are_taken_back_after_an_error() -> None:
    environment: dict[str, str] = {}

    def fail() -> None:
        with keeping_buffers_apart(environment):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert environment == {}
