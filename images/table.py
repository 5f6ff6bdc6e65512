"""The table of images, images.toml. `python -m images.table` names those that CI builds."""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent
ROOT = IMAGES.parent


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: What `components.images.image_uri` and the build argument SET call it.
        extras: The optional dependencies of pyproject.toml that it holds, in the versions of uv.lock.
        packages: What it holds instead, locked on its own.
        without: Packages of those that are left out.
        tests: What its `test` target runs, relative to the repository.
        limit_mb: How many megabytes (10^6 bytes) it may be larger than its base.
        in_ci: Whether CI builds it.
    """

    name: str
    without: tuple[str, ...]
    tests: tuple[str, ...]
    limit_mb: int
    in_ci: bool
    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def requirements(self) -> Path:
        """The lock that its Dockerfile installs, with hashes."""
        return IMAGES / "requirements" / f"{self.name}.txt"


def read_images() -> dict[str, Image]:
    """Returns the images by name, in the table's order."""
    tables = tomllib.loads((IMAGES / "images.toml").read_text(encoding="utf-8"))
    return {name: _image(name, table) for name, table in tables.items()}


def _image(name: str, table: dict[str, Any]) -> Image:
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return Image(**{**table, **lists, "name": name})


def main() -> None:
    """Prints the names of the images that CI builds."""
    sys.stdout.write("".join(f"{image.name}\n" for image in read_images().values() if image.in_ci))


if __name__ == "__main__":
    main()
