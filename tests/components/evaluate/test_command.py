"""The command that repeats a run is read by a shell and by `neumf` as what it was made from."""

import subprocess

import pytest

from components.evaluate.command import repeating_command

NOT_HERE = "no pipelines here, as in an image: nothing reads the command"
resolve_parameters = pytest.importorskip("pipelines.parameters", reason=NOT_HERE).resolve_parameters
PRESETS = pytest.importorskip("pipelines.presets", reason=NOT_HERE).PRESETS


def parsed(command):
    """What the program gets when a shell runs the command."""
    script = """neumf() { for argument; do printf '%s\\0' "$argument"; done; }\n""" + command
    verb, *arguments = subprocess.check_output(["sh", "-euc", script], text=True).split("\0")[:-1]
    assert verb == "run"
    assert arguments[:2] == ["--preset", "default"]
    assert arguments[2::2] == ["--set"] * (len(arguments) // 2 - 1)
    return resolve_parameters("default", arguments[3::2])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_command_with_every_parameter_gives_every_preset(preset):
    parameters = PRESETS[preset].parameters()
    assert parsed(repeating_command(parameters)) == parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "csv:/a folder/it's $HOME.csv"),
        ("columns", "user=u, item=i"),
        ("mirror", "https://example.org/?a=1&b=2;rm"),
    ],
)
def test_a_shell_leaves_texts_as_they_are(name, value):
    assert parsed(repeating_command({"download": {name: value}}))["download"][name] == value


@pytest.mark.parametrize("users", [["1", "2"], ["a,b", "c"], [" x", ""], ["[1"], ['quo"te\\'], []])
def test_texts_in_lists_survive(users):
    assert parsed(repeating_command({"recommend": {"users": users}}))["recommend"]["users"] == users


def test_numbers_are_exact():
    values = {"learning_rate": 0.1 + 0.2, "epsilon": 1.45439e-7, "profile": True, "mlp_layers": (64, 8)}
    found = parsed(repeating_command({"train": values}))["train"]
    assert {name: found[name] for name in values} == {**values, "mlp_layers": [64, 8]}


def test_lines_fit_a_terminal():
    lines = repeating_command(PRESETS["default"].parameters()).splitlines()
    assert len(lines) > 10
    assert max(map(len, lines)) <= 92
