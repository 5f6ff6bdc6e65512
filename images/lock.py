"""Writes images/requirements/: what each image installs, with hashes.

    python -m images.lock

An image of extras takes its versions from uv.lock, so that its file follows from that alone and only changes when its
own packages do: that is what keeps the image's layers in the cache. An image whose packages cannot share uv.lock keeps
the versions of its present file where they still fit.
"""

import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from images.table import IMAGES, ROOT, Image, read_images

UV = ROOT / ".tools" / "uv" / "bin" / "uv"
# What the base image of the Dockerfile has: Debian bookworm and its Python.
_PLATFORM = ("--python-platform", "x86_64-manylinux_2_36", "--python-version", "3.11")
_HEADER = "# Made by `make image-locks`.\n"
# Development tools that tests do not import or can do without, and what every image has anyway.
_NOT_FOR_TESTS = (
    "mypy",
    "numpy",
    "playwright",
    "pre-commit",
    "ruff",
    "types-protobuf",
    "types-psutil",
    "types-pyyaml",
    "types-requests",
)
# What tests import beside them: the command line's, YAML, and another's checksums to compare with.
_TESTS_IMPORT = ("click", "google-crc32c", "markdown-it-py", "mdurl", "psutil", "pygments", "pyyaml", "rich")
_BLOCK = re.compile(r"^(?=\S)", re.MULTILINE)


def lock_of(image: Image) -> str:
    """Returns the text of one image's requirements file."""
    if image.packages:
        return _resolve(image)
    return _HEADER + _in_order([*_blocks(_export(image.extras, (*image.without, "kfp"))), _kfp()])


def lock_of_tests() -> str:
    """Returns what the `test` targets add to an image."""
    development = _uv("export", "--frozen", "--only-group", "dev", *_EXPORT, *_each("--prune", _NOT_FOR_TESTS))
    others = [block for block in _blocks(_export(["beam"], ())) if _name(block) in _TESTS_IMPORT]
    return _HEADER + _in_order({*_blocks(development), *others})


def lock_of_tools() -> str:
    """Returns what builds the images: uv in the version of the Makefile, and the wheel's build backend."""
    version = re.search(r"^UV_VERSION := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert version is not None
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    return _compile([f"uv=={version[1]}", *backend], IMAGES / "requirements" / "tools.txt")


_EXPORT = ("--no-emit-project", "--no-annotate", "--no-header")


def _export(extras: Iterable[str], without: Iterable[str]) -> str:
    return _uv("export", "--frozen", "--no-dev", *_EXPORT, *_each("--extra", extras), *_each("--prune", without))


def _kfp() -> str:
    """Returns kfp's own entry: a component runs without what kfp needs to compile pipelines and to talk to clusters."""
    (block,) = [block for block in _blocks(_export(["local"], [])) if _name(block) == "kfp"]
    return block


def _resolve(image: Image) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = [text for text in project["dependencies"] if re.split(r"[<>=!\[ ]", text)[0] not in image.without]
    text = _compile([*base, *image.packages], image.requirements, without=image.without)
    return _HEADER + _in_order([*_blocks(text), _kfp()])


def _compile(requirements: list[str], existing: Path, without: Iterable[str] = ()) -> str:
    with tempfile.TemporaryDirectory() as folder:
        wanted, output = Path(folder) / "wanted.in", Path(folder) / "locked.txt"
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        if existing.is_file():
            output.write_bytes(existing.read_bytes())
        omitted = [option for name in without for option in ("--no-emit-package", name)]
        _uv(
            "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate", "--no-header", *_PLATFORM, *omitted,
            "--constraint", str(_versions_of_uv_lock(Path(folder), requirements)), "--output-file", str(output),
            str(wanted),
        )  # fmt: skip
        return _HEADER + _in_order(_blocks(output.read_text(encoding="utf-8")))


def _versions_of_uv_lock(folder: Path, requirements: list[str]) -> Path:
    """Writes the versions that the other images have, as far as these packages leave them free."""
    fixed = {re.split(r"[<>=!\[ ]", text)[0] for text in requirements if "==" in text}
    text = _uv("export", "--frozen", "--no-dev", "--no-hashes", "--extra", "train", *_EXPORT)
    lines = [line for line in text.splitlines() if line]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(line for line in lines if _name(line) not in fixed) + "\n", encoding="utf-8")
    return constraints


def _blocks(text: str) -> list[str]:
    """Splits a requirements file into its entries, each with its hashes."""
    return [block for block in _BLOCK.split(text) if block.strip() and not block.startswith("#")]


def _name(block: str) -> str:
    return re.split(r"[=\[ ;]", block, maxsplit=1)[0]


def _in_order(blocks: Iterable[str]) -> str:
    return "".join(sorted(block.rstrip() + "\n" for block in blocks))


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _uv(*arguments: str) -> str:
    command = [str(UV), *arguments]
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Writes every file."""
    folder = IMAGES / "requirements"
    folder.mkdir(exist_ok=True)
    texts = {image.requirements: lock_of(image) for image in read_images().values()}
    texts |= {folder / "tests.txt": lock_of_tests(), folder / "tools.txt": lock_of_tools()}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
