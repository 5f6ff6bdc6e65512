"""Parameters on their way from presets and `--set` to the steps."""

import pytest

from components.ncf.errors import InputError
from pipelines.parameters import resolve_parameters


def test_the_options_of_the_presets_runner_do_not_travel_to_another_one() -> None:
    def options(*overrides: str) -> list[str]:
        return resolve_parameters("default", overrides)["generate"]["beam_options"]

    assert [option.partition("=")[0] for option in options()] == ["direct_running_mode", "direct_num_workers"]
    assert options("generate.beam_runner=in_memory") == options()
    assert options("generate.beam_runner=flink") == []
    assert options("generate.beam_options=parallelism=2", "generate.beam_runner=flink") == ["parallelism=2"]
    assert options("generate.beam_options=") == []


def test_a_switch_is_true_or_false_and_nothing_else() -> None:
    def profile(text: str) -> bool:
        return bool(resolve_parameters("default", [f"train.profile={text}"])["train"]["profile"])

    assert [profile(text) for text in ("true", "False", "TRUE")] == [True, False, True]
    with pytest.raises(InputError, match=r"train\.profile=1: '1' is neither true nor false"):
        profile("1")
