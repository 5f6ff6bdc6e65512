"""A real HTTP server that fails in the ways that servers do, and small archives to put on it."""

import contextlib
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.download import http_transfer
from components.download.config import DownloadConfig
from components.download.http_transfer import RetryPolicy


@dataclass
class Served:
    """One file on the server and how badly it is served.

    Attributes:
        content: Its bytes.
        etag: Sent as a strong entity tag if not empty.
        ranges: Whether the server resumes.
        drops: One entry per coming request: how many bytes to send before the connection is cut; None: all.
        always_drop_at: Every request is cut at this byte of the file.
        statuses: Answered to the first requests instead of the file.
        stalls: How many of the next requests get no answer at all.
        replaced_by: What the file becomes after the first request.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    drops: list[int | None] = field(default_factory=list)
    always_drop_at: int | None = None
    statuses: list[int] = field(default_factory=list)
    stalls: int = 0
    replaced_by: "Served | None" = None


@dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None


class FlakyServer:
    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
                with contextlib.suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def put(self, path: str, content: bytes, **behaviour: Any) -> Served:
        """Serves a file; `behaviour` as in `Served`."""
        self.files[path] = Served(content, **behaviour)
        return self.files[path]

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def ranges_asked(self, path: str) -> list[str | None]:
        return [request.range for request in self.requests if request.path == path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        served = self.files.get(handler.path)
        if served is None:
            handler.send_error(404)
            return
        if served.replaced_by is not None:
            self.files[handler.path] = served.replaced_by
        if served.statuses:
            handler.send_error(served.statuses.pop(0))
            return
        if served.stalls:
            served.stalls -= 1
            self._closing.wait()
            return
        start = self._start(handler, served)
        if start is None:
            return
        body = served.content[start:]
        cut = served.drops.pop(0) if served.drops else None
        if served.always_drop_at is not None:
            cut = max(served.always_drop_at - start, 0)
        handler.wfile.write(body if cut is None else body[:cut])  # and then the connection closes

    def _start(self, handler: BaseHTTPRequestHandler, served: Served) -> int | None:
        """Sends the head of the answer; None if no body follows."""
        total, asked = len(served.content), handler.headers["Range"]
        condition = handler.headers["If-Range"]
        start = 0
        if asked and served.ranges and (condition is None or condition == served.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                handler.send_error(416)
                return None
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(total - start))
        if served.etag:
            handler.send_header("ETag", served.etag)
        handler.end_headers()
        return start


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    flaky = FlakyServer()
    yield flaky
    flaky.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> RetryPolicy:
    """The real policy with the waiting taken out."""
    policy = RetryPolicy(
        max_attempts=4,
        max_unreachable_attempts=2,
        progress_bytes=1 << 20,
        first_wait_s=0.001,
        max_wait_s=0.01,
        connect_timeout_s=2.0,
        read_timeout_s=5.0,
    )
    monkeypatch.setattr(http_transfer, "RETRY_POLICY", policy)
    return policy


@pytest.fixture
def config() -> Callable[..., DownloadConfig]:
    def make(dataset: str, **changes: object) -> DownloadConfig:
        values = {
            "mirror": "",
            "titles": "",
            "columns": "",
            "max_rejected_fraction": 0.0,
            "data_digest": "",
            "seed": 7,
            **changes,
        }
        return DownloadConfig(dataset=dataset, **values)  # type: ignore[arg-type]

    return make


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def make_mirror(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that puts `<name>.zip` and its md5 into a folder and returns the folder's `file://` URI."""

    def make(name: str, archive: dict[str, bytes] | bytes, md5: str = "") -> str:
        folder = tmp_path / "mirror"
        folder.mkdir(exist_ok=True)
        content = archive if isinstance(archive, bytes) else zip_bytes(archive)
        digest = md5 or hashlib.md5(content).hexdigest()
        (folder / f"{name}.zip").write_bytes(content)
        (folder / f"{name}.zip.md5").write_text(f"{digest}  {name}.zip\n")
        return folder.as_uri()

    return make


@pytest.fixture
def small_ml_1m() -> dict[str, bytes]:
    """Five ratings of three users in the layout of ml-1m."""
    ratings = """1::10::5::978300760
1::20::3::978302109
2::10::4::978301968
2::30::1::978300275
3::20::2::978824291
"""
    movies = """10::Am\xe9lie (2001)::Comedy|Romance
20::Heat (1995)::Action
40::Never Rated (1999)::War
"""
    return {"ml-1m/ratings.dat": ratings.encode(), "ml-1m/movies.dat": movies.encode("latin-1")}
