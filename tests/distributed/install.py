"""Fetches what tests/distributed needs into a folder: Flink and Beam's job server, with Maven. Standard library only.

    python tests/distributed/install.py .tools/flink

Leaves FOLDER/lib/*.jar and FOLDER/job-server.jar; does nothing when they are there already.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

POM = Path(__file__).parent / "pom.xml"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
MANIFEST_LINE_BYTES = 70


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    stamp = folder / ".installed"
    wanted = hashlib.sha256(POM.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    install_programs()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say(f"fetching Flink and Beam's job server into {folder} (160 MB)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run("mvn", "-B", "-q", "-f", str(POM), PLUGIN, f"-DoutputDirectory={folder / 'lib'}", "-DincludeScope=runtime")
    write_job_server(folder)
    stamp.write_text(wanted)


def install_programs() -> None:
    """Installs a Java runtime and Maven where there are none, with Debian's packages."""
    packages = {"java": "default-jre-headless", "mvn": "maven"}
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"error: install {' and '.join(missing)} (Java 11 or 17, and Maven), then run this again.")
    say(f"installing {' and '.join(missing)} with apt-get")
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def write_job_server(folder: Path) -> None:
    """Writes a jar that starts Beam's job server, for the option flink_job_server_jar: it names the others."""
    names = " ".join(f"lib/{path.name}" for path in sorted((folder / "lib").glob("*.jar")))
    lines = ["Manifest-Version: 1.0", f"Main-Class: {JOB_SERVER}"]
    head, rest = f"Class-Path: {names}"[:MANIFEST_LINE_BYTES], f"Class-Path: {names}"[MANIFEST_LINE_BYTES:]
    lines.append(head)
    step = MANIFEST_LINE_BYTES - 1
    lines += [f" {rest[start : start + step]}" for start in range(0, len(rest), step)]
    with zipfile.ZipFile(folder / "job-server.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "\r\n".join([*lines, "", ""]))


def run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"error: {' '.join(command[:3])} … failed; see above.")


def say(text: str) -> None:
    print(f"distributed: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
