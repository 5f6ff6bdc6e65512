"""Follows CONTRIBUTING.md to the letter: its code blocks are what is run."""

import hashlib
import importlib.util
import io
import json
import re
import textwrap
import zipfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from components.download import catalog
from components.download import download as download_step
from components.download.config import DownloadConfig
from pipelines import presets, run_local
from pipelines.parameters import check_parameters, resolve_parameters

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def code_block(heading: str) -> str:
    section = CONTRIBUTING.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return textwrap.dedent(re.sub(r"^   ", "", block, flags=re.MULTILINE) if block.startswith("from") else block)


def test_a_preset_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = eval(code_block("Add a preset"), {"Preset": presets.Preset})
    monkeypatch.setitem(presets.PRESETS, preset.name, preset)  # type: ignore[arg-type]
    parameters = resolve_parameters("wide", ())
    check_parameters(parameters)
    assert parameters["train"] == {**presets.DEFAULTS["train"], "num_factors": 32}


def test_a_data_set_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = {"Dataset": catalog.Dataset, "Archive": catalog.Archive, "Layout": catalog.Layout}
    dataset = eval(code_block("Add a data set"), names)
    entries: Any = MappingProxyType({**catalog.CATALOG, dataset.name: dataset})
    monkeypatch.setattr(catalog, "CATALOG", entries)
    monkeypatch.setattr(download_step, "CATALOG", entries)

    ratings = "userId,movieId,rating,timestamp\n" + "".join(
        f"{user},{item},{item % 5 + 1},{item}\n" for user in range(3) for item in range(40)
    )
    archive = tmp_path / "shop-2026.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("shop-2026/ratings.csv", ratings)
        stream.writestr("shop-2026/movies.csv", 'movieId,title,genres\n7,"Tea, green",Drinks\n')
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    (tmp_path / "shop-2026.zip.md5").write_text(f"{digest}  shop-2026.zip\n")

    config = DownloadConfig("shop-2026", tmp_path.as_uri(), "", "", 0.0, "", 1)
    download_step.download(config, tmp_path / "ratings")
    manifest = json.loads((tmp_path / "ratings/manifest.json").read_text())
    assert manifest["counts"]["interactions"] == dataset.num_interactions
    assert manifest["counts"]["users"] == dataset.num_users


@pytest.mark.slow
def test_a_step_is_an_interface_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kfp import compiler, dsl

    from components.download.component import download
    from components.generate.component import generate

    path = tmp_path / "component.py"
    path.write_text(code_block("Add a step"))
    spec = importlib.util.spec_from_file_location("count_component", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    count = module.count
    parameters = resolve_parameters("smoke", ())

    @dsl.pipeline(name="with-count")
    def with_count() -> dsl.Artifact:
        ratings = download(**parameters["download"]).outputs["ratings"]
        examples = generate(ratings=ratings, **parameters["generate"]).outputs["examples"]
        return count(examples=examples).outputs["counts"]

    compiler.Compiler().compile(with_count, str(tmp_path / "pipeline.yaml"))
    monkeypatch.setattr(run_local, "FOLDERS", {"Output": "count"})
    started: list[str] = []

    class Observer:
        def step_started(self, step: str) -> None:
            started.append(step)

        def step_logged(self, step: str, line: str) -> None: ...

        def step_ended(self, step: str, duration_s: float, succeeded: bool) -> None: ...

    run = run_local.run_local(tmp_path / "pipeline.yaml", "subprocess", tmp_path / "root", io.StringIO(), Observer())
    assert started == ["download", "generate", "count"]
    (folder,) = run.artifacts.values()
    assert json.loads((folder / "manifest.json").read_text())["num_users"] == 200
