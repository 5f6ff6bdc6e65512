import pytest

from pipelines.parameters import resolve_parameters
from pipelines.places import places_on_this_machine


@pytest.mark.parametrize(
    "setting",
    [
        "download.dataset=csv:/home/me/events.csv",
        "download.dataset=ncf:/home/me/ml-1m",
        "download.mirror=file:///home/me/archives",
        "download.titles=/home/me/titles.csv",
        "train.checkpoint_dir=/home/me/checkpoints",
        "evaluate.champion=/home/me/model",
    ],
)
def test_a_place_on_this_machine_is_named(setting: str) -> None:
    (sentence,) = places_on_this_machine(resolve_parameters("default", [setting]))
    name, _, value = setting.partition("=")
    place = value.partition(":")[2] if value.startswith(("csv:", "ncf:")) else value
    assert sentence.startswith(f"{name} {place} is on this machine")


@pytest.mark.parametrize(
    "setting",
    [
        "download.dataset=ml-1m",
        "download.dataset=synthetic:num_users=200",
        "download.dataset=csv:gs://bucket/events.csv",
        "download.mirror=https://example.com/archives",
        "train.checkpoint_dir=/gcs/bucket/checkpoints",
        "evaluate.champion=/mnt/models/champion",
    ],
)
def test_a_place_that_a_step_elsewhere_finds_is_none(setting: str) -> None:
    assert list(places_on_this_machine(resolve_parameters("default", [setting]))) == []
