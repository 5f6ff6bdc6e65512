"""Writes the bill of materials of images as CycloneDX: python -m images.sbom FOLDER IMAGE…

Each FOLDER/<image>.json lists the Python packages as cyclonedx-py finds them installed in the image, and the Debian
packages of its base as dpkg has them.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from images.engine import ended_container, log_of

# Writes below /tmp/bill, in a container: what each Python package says of itself, and the packages that dpkg has.
_LIST = r"""
import pathlib, shutil, subprocess, sysconfig
installed, bill = pathlib.Path(sysconfig.get_paths()["purelib"]), pathlib.Path("/tmp/bill")
(bill / "python").mkdir(parents=True)
for path in installed.glob("*.dist-info/METADATA"):
    (bill / "python" / path.parent.name).mkdir()
    shutil.copyfile(path, bill / "python" / path.relative_to(installed))
shown = r"${Package}\t${Version}\t${Architecture}\n"
with open(bill / "debian.tsv", "wb") as listed:
    subprocess.run(["dpkg-query", "--show", "--showformat", shown], check=True, stdout=listed)
"""


def bill_of_materials(engine: Any, name: str) -> dict[str, Any]:
    """Returns the bill of one image."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _list_packages(engine, name, root)
        environment = _environment_of(root / "bill/python", root / "environment")
        command = [str(Path(sys.executable).parent / "cyclonedx-py"), "environment", "--output-reproducible"]
        text = subprocess.run([*command, str(environment)], check=True, stdout=subprocess.PIPE, text=True).stdout
        listed = (root / "bill/debian.tsv").read_text(encoding="utf-8")
    bill: dict[str, Any] = json.loads(text)
    bill["metadata"]["component"] = {"type": "container", "name": name, "version": engine.images.get(name).id}
    bill["components"] += [_debian_component(*line.split("\t")) for line in listed.splitlines()]
    return bill


def _list_packages(engine: Any, name: str, folder: Path) -> None:
    """Lists an image's packages in a container; copies the lists to `folder`/bill."""
    with ended_container(engine, name, ["python3", "-c", _LIST]) as (container, status):
        if status != 0:
            raise RuntimeError(f"{name} could not list its packages:\n{log_of(container)}")
        chunks, _ = container.get_archive("/tmp/bill")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as files:
            files.extractall(folder, filter="data")


def _environment_of(packages: Path, folder: Path) -> Path:
    """Makes an environment that has just these packages' metadata; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (installed,) = folder.glob("lib/python3.*/site-packages")
    shutil.copytree(packages, installed, dirs_exist_ok=True)
    return folder / "bin/python"


def _debian_component(name: str, version: str, architecture: str) -> dict[str, str]:
    return {
        "type": "library",
        "bom-ref": f"deb-{name}-{architecture}",
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}",
    }


def main() -> None:
    """Runs the command line."""
    import docker

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        path = folder / f"{name.rsplit('/', 1)[-1].partition(':')[0]}.json"
        bill = bill_of_materials(docker.from_env(timeout=600), name)
        path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{path}: {len(bill['components'])} components\n")


if __name__ == "__main__":
    main()
