"""The images of `--runner docker`, asked of a server that answers as a Docker engine does."""

import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from components.ncf.errors import InputError
from images.table import ROOT
from pipelines.containers import Containers, code_digest, connect, require_images

LABELS: dict[str, dict[str, str] | None] = {}
OTHER_CODE = "0" * 64


class Engine(http.server.BaseHTTPRequestHandler):
    """Knows the images of `LABELS`."""

    def do_HEAD(self) -> None:
        self._answer(200, None)

    def do_GET(self) -> None:
        inspected = re.fullmatch(r"/v[\d.]+/images/(.+)/json", self.path)
        if self.path.endswith("/version"):
            self._answer(200, {"ApiVersion": "1.43", "Version": "24.0.0"})
        elif self.path.endswith("/_ping"):
            self._answer(200, "OK")
        elif inspected and inspected[1] in LABELS:
            self._answer(
                200, {"Id": "sha256:1", "RepoTags": [inspected[1]], "Config": {"Labels": LABELS[inspected[1]]}}
            )
        else:
            self._answer(404, {"message": "No such image"})

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
        yield connect()
        server.shutdown()
    LABELS.clear()


def asked_by_build(tmp_path: Path, **variables: str) -> list[str]:
    """What images/build.sh asks of the docker client, for which a stand-in takes notes."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir(parents=True)
    client.write_text('#!/bin/sh\necho "$@" >>"$NOTES"\n')
    client.chmod(0o755)
    environment = {"PATH": f"{client.parent}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes"), **variables}
    subprocess.run([str(ROOT / "images/build.sh"), "download"], env=environment, check=True)
    return (tmp_path / "notes").read_text().splitlines()


def test_an_image_of_this_code_is_taken(engine: docker.DockerClient, tmp_path: Path) -> None:
    (code,) = re.findall(r"--build-arg CODE=(\w+) ", "\n".join(asked_by_build(tmp_path)))
    LABELS["neumf-python/train:latest"] = {"neumf.code": code}
    require_images(engine, ["neumf-python/train:latest"])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("labels", [None, {}, {"neumf.code": OTHER_CODE}], ids=["none", "older build", "other code"])
def test_an_image_of_other_code_is_one_sentence(neumf: Any, tmp_path: Path, labels: dict[str, str] | None) -> None:
    for name in ("download", "generate", "baseline", "train"):
        LABELS[f"neumf-python/{name}:latest"] = {"neumf.code": code_digest()}
    LABELS["neumf-python/train:latest"] = labels
    result = neumf("run", "--preset", "smoke", "--runner", "docker", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(
        "error: The image neumf-python/train:latest was not made from the components as they are"
    )
    assert "`make images`" in sentence


def test_an_image_that_is_not_there_is_named(engine: docker.DockerClient) -> None:
    with pytest.raises(InputError, match="the image neumf-python/gone:latest, which this machine does not have"):
        require_images(engine, ["neumf-python/gone:latest"])


def test_every_file_of_the_steps_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what Python and editors leave there."""
    package = tmp_path / "components"
    (package / "evaluate/templates").mkdir(parents=True)
    (package / "evaluate/templates/report.css").write_text("p {}")
    monkeypatch.setattr("components.__path__", [str(package)])
    before = code_digest()
    for name in ("__pycache__/a.pyc", ".hidden/x.py", "evaluate/.swap"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x")
    assert code_digest() == before
    (package / "evaluate/templates/report.css").write_text("p { }")
    assert code_digest() != before


def test_an_image_is_built_after_its_tests_or_without_them(tmp_path: Path) -> None:
    tested, untested = (asked_by_build(tmp_path / tests, TESTS=tests) for tests in ("true", "false"))
    assert [" --target test " in command for command in tested] == [True, False]
    assert untested == tested[1:]


class Followed:
    """A container whose followed log ends early; the whole one is there once it was waited for."""

    id = "1"

    def __init__(self, whole: bytes, num_followed: int, unreadable: Exception | None = None) -> None:
        self._whole, self._num_followed, self._unreadable = whole, num_followed, unreadable
        self._has_ended = self.removed = False

    def logs(self, follow: bool = False, **_: bool) -> Any:
        if not follow and self._unreadable:
            raise self._unreadable
        if not follow and self._has_ended:
            return self._whole
        followed = self._whole[: self._num_followed]
        return (followed[n : n + 3] for n in range(0, len(followed), 3)) if follow else followed

    def wait(self) -> dict[str, int]:
        self._has_ended = True
        return {"StatusCode": 7}

    def remove(self, force: bool) -> None:
        self.removed = force


class Runner:
    def __init__(self, container: Followed) -> None:
        self.containers = self
        self._container = container

    def run(self, **_: Any) -> Followed:
        return self._container


def printed_of(container: Followed, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert Containers().run(Runner(container), "image", ["step"], {}) == 7
    assert container.removed
    return capsys.readouterr().out.splitlines()


WHOLE = "one\ntwo\n\nété\nValueError: the cause".encode()


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize(
    ("num_followed", "again"), [(0, []), (4, []), (6, ["tw"]), (8, []), (10, []), (30, ["ValueError: the"])]
)
def test_a_step_s_last_lines_are_printed_though_the_engine_left_them_out(
    capsys: pytest.CaptureFixture[str], num_followed: int, again: list[str], ending: bytes
) -> None:
    printed = printed_of(Followed(WHOLE + ending, num_followed), capsys)
    for line in again:
        printed.remove(line)
    assert printed == ["one", "two", "", "été", "ValueError: the cause"]


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_nothing_is_printed_twice_of_a_log_that_was_followed_to_its_end(
    capsys: pytest.CaptureFixture[str], ending: bytes
) -> None:
    whole = WHOLE + ending
    assert printed_of(Followed(whole, len(whole)), capsys) == whole.decode().splitlines()


@pytest.mark.parametrize("error", [docker.errors.APIError("no such log"), requests.ReadTimeout("busy")])
def test_a_log_that_cannot_be_read_again_does_not_change_the_status(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert printed_of(Followed(WHOLE, 8, error), capsys) == ["one", "two"]
