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

_LIST_DEBIAN = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"]


def bill_of_materials(engine: Any, name: str) -> dict[str, Any]:
    """Returns the bill of one image."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _copy_environment(engine, name, Path(folder))
        command = [str(Path(sys.executable).parent / "cyclonedx-py"), "environment", "--output-reproducible"]
        text = subprocess.run([*command, str(environment)], check=True, stdout=subprocess.PIPE, text=True).stdout
    bill: dict[str, Any] = json.loads(text)
    bill["metadata"]["component"] = {"type": "container", "name": name, "version": engine.images.get(name).id}
    listed = engine.containers.run(name, _LIST_DEBIAN, remove=True).decode()
    bill["components"] += [_debian_component(*line.split("\t")) for line in listed.splitlines()]
    return bill


def _copy_environment(engine: Any, name: str, folder: Path) -> Path:
    """Copies what the packages say of themselves out of an image; returns an interpreter that has just those."""
    # As text: engines keep what a container writes as lines.
    script = (
        "import base64, io, pathlib, sys, sysconfig, tarfile\n"
        "root, stream = pathlib.Path(sysconfig.get_paths()['purelib']), io.BytesIO()\n"
        "with tarfile.open(fileobj=stream, mode='w') as archive:\n"
        "    for path in sorted(root.glob('*.dist-info/METADATA')):\n"
        "        archive.add(path, arcname=path.relative_to(root))\n"
        "sys.stdout.write(base64.encodebytes(stream.getvalue()).decode())\n"
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    (packages,) = (folder / "environment").glob("lib/python3.*/site-packages")
    archive = base64.decodebytes(engine.containers.run(name, ["python3", "-c", script], remove=True))
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(packages, filter="data")
    return folder / "environment/bin/python"


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
