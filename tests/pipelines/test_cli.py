import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.ncf.errors import InputError
from components.ncf.manifest import write_manifest
from pipelines.neumf import COMPONENTS, step_parameters
from pipelines.parameters import check_champion, check_parameters, resolve_parameters
from pipelines.presets import DEFAULTS, PRESETS

Neumf = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = (
    "run", "download", "generate", "train", "baseline", "evaluate", "gate", "recommend", "publish", "compare",
    "compile", "datasets", "presets", "pools", "preflight",
)  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    check_parameters(resolve_parameters(preset, ()))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_change_only_parameters_that_exist(preset: str) -> None:
    for step, changes in PRESETS[preset].changes.items():
        assert set(changes) <= set(DEFAULTS[step])


@pytest.mark.parametrize("step", COMPONENTS)
def test_every_parameter_of_a_component_has_one_default(step: str) -> None:
    assert set(step_parameters(step)) == set(DEFAULTS[step])


def test_the_published_presets_hold_the_published_numbers() -> None:
    he2017 = PRESETS["he2017"].parameters()["train"]
    assert he2017["num_factors"] == 8
    assert he2017["mlp_layers"] == [64, 32, 16, 8]
    assert (he2017["num_train_negatives"], he2017["num_epochs"], he2017["model_selection"]) == (4, 20, "test")
    mlperf = PRESETS["mlperf"].parameters()["train"]
    assert (mlperf["num_factors"], mlperf["mlp_layers"]) == (64, [256, 256, 128, 64])
    assert (mlperf["learning_rate"], mlperf["beta1"], mlperf["beta2"]) == (0.00382059, 0.783529, 0.909003)
    assert (mlperf["epsilon"], mlperf["global_batch_size"], mlperf["num_train_negatives"]) == (1.45439e-7, 99_000, 4)


def test_set_takes_the_type_of_the_default() -> None:
    parameters = resolve_parameters(
        "default",
        ["train.num_epochs=3", "train.learning_rate=1e-2", "train.mlp_layers=[16,8]", "generate.protocols=loo-99",
         "train.mlp_regularization=0,0.1", "download.dataset=ml-1m"],
    )  # fmt: skip
    assert parameters["train"]["num_epochs"] == 3
    assert parameters["train"]["learning_rate"] == 0.01
    assert parameters["train"]["mlp_layers"] == [16, 8]
    assert parameters["train"]["mlp_regularization"] == [0.0, 0.1]
    assert parameters["generate"]["protocols"] == ["loo-99"]
    assert parameters["download"]["dataset"] == "ml-1m"
    assert DEFAULTS["train"]["num_epochs"] != 3, "the defaults themselves are left alone"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.num_epoch=3", ["no parameter 'num_epoch'", "(did you mean num_epochs?)"]),
        ("tarin.num_epochs=3", ["names no step", "download, generate, train, baseline, evaluate, gate, recommend"]),
        ("num_epochs=3", ["step.parameter=value"]),
        ("train.num_epochs", ["step.parameter=value"]),
        ("train.num_epochs=many", ["'many' is not a whole number"]),
        ("train.learning_rate=fast", ["'fast' is not a number"]),
        ("train.mlp_layers=a,b", ["not a list such as [64, 32, 16, 8]"]),
        ("train.mlp_layers=[64.7,32]", ["not a list such as [64, 32, 16, 8]"]),
        ("train.mlp_layers=[true,2]", ["not a list such as [64, 32, 16, 8]"]),
    ],
)
def test_a_wrong_override_is_one_sentence(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        resolve_parameters("default", [override])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("gate.must_beat=svd", r"gate\.must_beat names 'svd'"),
        ("gate.protocol=fixed-99", r"gate\.protocol 'fixed-99' is not evaluated, only .*loo-full"),
        ("gate.metric=hr@100", r"gate\.metric hr@100 is 1 for every model under loo-99"),
        ("gate.metric=hr@many", r"gate\.metric is 'hr@many'"),
        ("train.checkpoint_dir=gs://bucket/folder", r"train\.checkpoint_dir gs://bucket/folder is no folder"),
    ],
)
def test_what_the_last_steps_would_refuse_is_refused_at_once(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_parameters(resolve_parameters("default", [override]))


def test_a_champion_that_was_selected_otherwise_is_refused_at_once(tmp_path: Path) -> None:
    write_manifest(tmp_path, "model", {"model_selection": "test"})
    with pytest.raises(InputError, match=r"was selected by 'test' and train\.model_selection is 'validation'"):
        check_champion(resolve_parameters("default", [f"evaluate.champion={tmp_path}"]))
    with pytest.raises(InputError, match=r"nowhere holds no manifest\.json"):
        check_champion(resolve_parameters("default", [f"evaluate.champion={tmp_path / 'nowhere'}"]))


def test_a_champion_on_the_platform_is_not_looked_for_here(neumf_here: Neumf, tmp_path: Path) -> None:
    champion = "evaluate.champion=/gcs/bucket/model"
    result = neumf_here("compile", "--target", "kfp", "--set", champion, "--output", tmp_path / "pipeline.yaml")
    assert result.returncode == 0, result.stderr


def test_an_unknown_preset_names_the_nearest(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf("run", "--preset", "he2071", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    assert result.stderr.startswith("error: The preset 'he2071' is unknown (did you mean he2017?)")
    assert result.stderr.count("\n") == 1


def test_an_unknown_data_set_names_the_nearest(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf("download", "--dataset", "ml-2m", "--output", tmp_path / "ratings")
    assert result.returncode == 1
    assert "ml-1m" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "ratings").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_command_and_option_does(neumf_here: Neumf, command: str) -> None:
    import click

    from pipelines.cli import main

    result = neumf_here(command, "--help")
    assert result.returncode == 0
    described = main.commands[command]
    assert described.help
    assert len(described.help) > 20
    for parameter in described.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{command} {parameter.name}"
            assert f"--{parameter.opts[0].removeprefix('--')}" in result.stdout


def test_datasets_and_presets_are_listed(neumf_here: Neumf) -> None:
    listed = neumf_here("datasets").stdout
    for name in (
        "synthetic",
        "ml-100k",
        "ml-latest-small",
        "ml-1m",
        "ml-10m",
        "ml-20m",
        "ml-25m",
        "ml-32m",
        "csv:",
        "ncf:",
    ):
        assert name in listed
    listed = neumf_here("presets").stdout
    for name in PRESETS:
        assert name in listed
    assert "train.learning_rate" in neumf_here("presets", "mlperf").stdout


def test_compile_writes_the_chosen_defaults(neumf_here: Neumf, tmp_path: Path) -> None:
    output = tmp_path / "build/neumf.yaml"
    result = neumf_here(
        "compile", "--target", "local", "--preset", "he2017", "--set", "train.seed=7", "--output", output
    )
    assert result.returncode == 0, result.stderr
    spec = yaml.safe_load(output.read_text())
    defaults = {
        name: parameter["defaultValue"] for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items()
    }
    expected = PRESETS["he2017"].parameters()
    expected["train"]["seed"] = 7
    assert defaults == {f"{step}_{name}": value for step, values in expected.items() for name, value in values.items()}


def test_compile_refuses_a_name_that_is_no_yaml(neumf_here: Neumf, tmp_path: Path) -> None:
    result = neumf_here("compile", "--target", "local", "--output", tmp_path / "pipeline.json")
    assert result.returncode == 1
    assert "must end in .yaml" in result.stderr


def test_relative_paths_of_data_are_completed(
    neumf_here: Neumf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = neumf_here(
        "compile", "--target", "local", "--dataset", "csv:data/events.csv", "--set", "download.titles=titles.csv",
        "--output", "neumf.yaml",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    parameters = yaml.safe_load((tmp_path / "neumf.yaml").read_text())["root"]["inputDefinitions"]["parameters"]
    assert parameters["download_dataset"]["defaultValue"] == f"csv:{tmp_path}/data/events.csv"
    assert parameters["download_titles"]["defaultValue"] == f"{tmp_path}/titles.csv"


def test_a_parameter_of_another_step_is_refused_by_a_step(neumf_here: Neumf, tmp_path: Path) -> None:
    result = neumf_here("train", "--examples", "e", "--output", tmp_path / "m", "--set", "generate.min_ratings=5")
    assert result.returncode == 1
    assert "takes train.PARAMETER=VALUE" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["train", "--examples", "{}"], ["evaluate", "--examples", "{}", "--model", "{}"]]
)
def test_a_wrong_folder_is_one_sentence(neumf: Neumf, tmp_path: Path, arguments: list[str]) -> None:
    result = neumf(*(word.format(tmp_path) for word in arguments), "--output", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "holds no manifest.json" in result.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluate.protocols=loo-9"], "evaluate.protocols ['loo-9'] must be"),
        (["evaluate.protocols=validation"], "evaluate.protocols ['validation'] must be"),
        (
            ["generate.protocols=loo-99", "evaluate.protocols=loo-999-masked"],
            "which generate.protocols ['loo-99'] lacks",
        ),
    ],
)
def test_protocols_are_checked_before_a_run(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        check_parameters(resolve_parameters("default", overrides))
    assert words in str(error.value)
