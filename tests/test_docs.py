"""Holds the documentation to the program: commands parse, links lead somewhere, targets exist.

The commands themselves are run elsewhere: the demo, a MovieLens set, a CSV file and every single step in
tests/pipelines and tests/components.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from images.table import read_images
from pipelines.cli import main
from pipelines.parameters import check_parameters, resolve_parameters
from pipelines.placement import IMAGES
from pipelines.worker_pools import POOLS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def documented_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield page.name, line.removeprefix("$ ")


def targets_of_makefile() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), list(documented_commands()))
def test_a_documented_command_is_one_that_exists(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert words[1] in targets_of_makefile()
        return
    assert words[0].endswith("neumf"), f"{page}: {command}"
    context = click.Context(main)
    name, subcommand, arguments = main.resolve_command(context, words[1:])
    assert subcommand is not None
    parsed = subcommand.make_context(name, list(arguments), parent=context)
    if "overrides" in parsed.params:
        dataset = parsed.params.get("dataset")
        overrides = [f"download.dataset={dataset}"] if dataset else []
        check_parameters(resolve_parameters(parsed.params["preset"], [*overrides, *parsed.params["overrides"]]))


def documented_scripts() -> Iterator[tuple[str, str]]:
    """Lines of shell blocks that run a script of images/, wherever in the line it stands."""
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.search(r"images/\w+\.sh[^;]*", line):
                    yield page.name, found[0]


@pytest.mark.parametrize(("page", "command"), list(documented_scripts()))
def test_a_documented_script_is_there_and_takes_images_that_exist(page: str, command: str) -> None:
    script, *words = shlex.split(command)
    assert os.access(ROOT / script, os.X_OK), f"{page}: {command}"
    if script == "images/push.sh":
        digests, *words = words
        assert digests.endswith(".json")
    assert words
    # A loop names them where it begins.
    assert set(words) <= {*read_images(), "$name"}


def test_what_is_pushed_for_an_accelerator_is_all_that_its_targets_run_in() -> None:
    (pushed,) = (command for page, command in documented_scripts() if "push.sh" in command and page == "images.md")
    assert set(shlex.split(pushed)[2:]) == set(IMAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_pool_has_its_costs() -> None:
    (costs,) = re.findall(r"\n## Costs\n(.*?)\n## ", (ROOT / "docs/vertex.md").read_text(), flags=re.DOTALL)
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (\d+\.\d\d) \| (\d+\.\d\d) \|$", costs, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == list(POOLS)
    for name, machines, on_demand, spot in rows:
        assert POOLS[name].chief.machine_type in machines or POOLS[name].chief.is_tpu
        assert float(spot) < float(on_demand)


def test_help_lists_every_target_that_make_has() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == targets_of_makefile()


def test_the_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
