"""Parameters on their way from presets and `--set` to the steps."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("download.dataset", "csv:"),
        ("download.dataset", "ncf:"),
        ("download.titles", ""),
        ("train.checkpoint_dir", ""),
        ("evaluate.champion", ""),
    ],
)
def test_a_relative_path_holds_from_any_folder(
    name: str, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, _, parameter = name.partition(".")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")

    def resolved(place: str) -> str:
        return str(resolve_parameters("default", [f" {name} = {before}{place}"])[step][parameter])

    assert resolved("runs/last") == f"{before}{tmp_path}/runs/last"
    assert resolved("~/last") == f"{before}/home/anna/last"
    for place in ("/runs/last", "gs://bucket/last"):
        assert resolved(place) == before + place
