"""Writes the bill of materials of images as CycloneDX: python -m images.sbom FOLDER IMAGE…

Each FOLDER/<image>.json lists the Python packages as cyclonedx-py finds them installed in the image, and the Debian
packages of its base as dpkg has them.
"""

import base64
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

# What the packages of an image say of themselves, and what dpkg has.
_PYTHON_PACKAGES = """
import io, pathlib, sysconfig, tarfile
root, stream = pathlib.Path(sysconfig.get_paths()["purelib"]), io.BytesIO()
with tarfile.open(fileobj=stream, mode="w") as archive:
    for path in sorted(root.glob("*.dist-info/METADATA")):
        archive.add(path, arcname=path.relative_to(root))
result = stream.getvalue()
"""
_DEBIAN_PACKAGES = r"""
import subprocess
shown = r"${Package}\t${Version}\t${Architecture}\n"
result = subprocess.run(["dpkg-query", "--show", "--showformat", shown], check=True, stdout=subprocess.PIPE).stdout
"""


def bill_of_materials(engine: Any, name: str) -> dict[str, Any]:
    """Returns the bill of one image."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _copy_environment(engine, name, Path(folder))
        command = [str(Path(sys.executable).parent / "cyclonedx-py"), "environment", "--output-reproducible"]
        text = subprocess.run([*command, str(environment)], check=True, stdout=subprocess.PIPE, text=True).stdout
    bill: dict[str, Any] = json.loads(text)
    bill["metadata"]["component"] = {"type": "container", "name": name, "version": engine.images.get(name).id}
    listed = _result_of(engine, name, _DEBIAN_PACKAGES).decode()
    bill["components"] += [_debian_component(*line.split("\t")) for line in listed.splitlines()]
    return bill


def _copy_environment(engine: Any, name: str, folder: Path) -> Path:
    """Copies what the packages say of themselves out of an image; returns an interpreter that has just those."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    (packages,) = (folder / "environment").glob("lib/python3.*/site-packages")
    with tarfile.open(fileobj=io.BytesIO(_result_of(engine, name, _PYTHON_PACKAGES))) as files:
        files.extractall(packages, filter="data")
    return folder / "environment/bin/python"


def _result_of(engine: Any, name: str, script: str) -> bytes:
    """Runs Python in an image; returns what the script leaves in `result`.

    As base64: engines keep what a container writes as lines, and may break one where a write ended.
    """
    script += "\nimport base64, sys\nsys.stdout.write(base64.encodebytes(result).decode())\n"
    return base64.decodebytes(engine.containers.run(name, ["python3", "-c", script], remove=True))


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
