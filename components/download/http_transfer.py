"""Downloads over HTTP that survive dropped connections: retries with backoff, resumed by byte ranges."""

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
import tenacity

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16
_PROGRESS_EVERY_S = 5.0
_RETRIED_STATUS_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a download is.

    Attributes:
        max_attempts: Attempts in a row without progress before giving up.
        max_unreachable_attempts: The same for a host that cannot be reached at all.
        progress_bytes: New bytes in one attempt that count as progress and start the count anew.
        first_wait_s: Seconds before the second attempt; each further wait is twice as long.
        max_wait_s: The longest wait in seconds.
        connect_timeout_s: Seconds to wait for a connection.
        read_timeout_s: Seconds to wait for the next bytes.
    """

    max_attempts: int
    max_unreachable_attempts: int
    progress_bytes: int
    first_wait_s: float
    max_wait_s: float
    connect_timeout_s: float
    read_timeout_s: float


RETRY_POLICY = RetryPolicy(
    max_attempts=6,
    max_unreachable_attempts=3,
    progress_bytes=1 << 20,
    first_wait_s=0.5,
    max_wait_s=16.0,
    connect_timeout_s=10.0,
    read_timeout_s=30.0,
)


class TransferError(Exception):
    """A download that failed for good; its text is the reason alone, without the address.

    Attributes:
        status: The HTTP status that ended it, or 0.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class _TransientError(Exception):
    """A failure that another attempt may mend."""

    def __init__(self, reason: str, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def download_http(url: str, target: Path, policy: RetryPolicy) -> None:
    """Streams a URL into a file, in memory that does not depend on its size.

    Args:
        url: An `http://` or `https://` address.
        target: The file to write; it is replaced.
        policy: When to try again and when to give up.

    Raises:
        TransferError: The server refuses, or every attempt failed.
        OSError: The file cannot be written.
    """
    target.unlink(missing_ok=True)
    with requests.Session() as session:
        _Transfer(session, url, target, policy).run()


class _Transfer:
    """One file on its way: what has arrived, from which version of it, and how often that failed."""

    def __init__(self, session: requests.Session, url: str, target: Path, policy: RetryPolicy) -> None:
        self._session = session
        self._url = url
        self._target = target
        self._policy = policy
        self._validator = ""  # a strong ETag or a date that names the version of which we hold the first bytes
        self._total: int | None = None
        self._furthest = 0  # bytes; a server without ranges makes us start over, which must not count as progress
        self._failures = 0
        self._progress = Progress(url.rsplit("/", 1)[-1])

    def run(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=self._gives_up,
            wait=self._wait_s,
            before_sleep=self._log_failure,
            reraise=True,
        )
        try:
            retrying(self._attempt)
        except _TransientError as error:
            attempts = f"{self._failures} attempts" if self._failures > 1 else "1 attempt"
            raise TransferError(f"{error}, {attempts}") from error

    def _gives_up(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        unreachable = isinstance(error, _TransientError) and error.unreachable
        limit = self._policy.max_unreachable_attempts if unreachable else self._policy.max_attempts
        return self._failures >= limit

    def _wait_s(self, _: tenacity.RetryCallState) -> float:
        return min(self._policy.first_wait_s * 2.0 ** (self._failures - 1), self._policy.max_wait_s)

    def _log_failure(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _log.warning(
            "%s: %s; trying again in %.1f s", self._url, error, state.next_action.sleep if state.next_action else 0
        )

    def _attempt(self) -> None:
        try:
            self._request()
        except (_TransientError, requests.RequestException) as error:
            arrived = self._size()
            progressed = arrived >= self._furthest + self._policy.progress_bytes
            self._furthest = max(self._furthest, arrived)
            self._failures = 1 if progressed else self._failures + 1
            if isinstance(error, _TransientError):
                raise
            raise _explain(error) from error

    def _request(self) -> None:
        offset = self._size()
        headers = {"Accept-Encoding": "identity"}  # byte ranges count the bytes that we store
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._validator:
                headers["If-Range"] = self._validator
        timeout = (self._policy.connect_timeout_s, self._policy.read_timeout_s)
        with self._session.get(self._url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code == 416 and offset:
                self._target.unlink()
                raise _TransientError("the file changed on the server")
            self._check_status(response)
            resumed = response.status_code == 206
            if resumed:
                self._check_resumption(response, offset)
            else:
                self._remember_version(response)
            with self._target.open("ab" if resumed else "wb") as stream:
                self._copy(response, stream)
        self._check_length()

    def _copy(self, response: requests.Response, stream: BinaryIO) -> None:
        for chunk in response.iter_content(_CHUNK_BYTES):
            stream.write(chunk)
            self._progress.report(stream.tell(), self._total)

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        reason = f"the server answers {status} {response.reason}".rstrip()
        if status in _RETRIED_STATUS_CODES:
            raise _TransientError(reason)
        raise TransferError(reason, status)

    def _check_resumption(self, response: requests.Response, offset: int) -> None:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        same_total = match is not None and (self._total is None or match[2] in ("*", str(self._total)))
        if match is None or int(match[1]) != offset or not same_total:
            self._target.unlink()
            raise _TransientError("the server resumed at another place than asked")
        _log.info("%s: resumed at byte %d", self._url, offset)

    def _remember_version(self, response: requests.Response) -> None:
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None
        etag = response.headers.get("ETag", "")
        # RFC 9110, section 13.1.5: If-Range takes a strong entity tag or a date.
        self._validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")

    def _check_length(self) -> None:
        arrived = self._size()
        if self._total is not None and arrived < self._total:
            raise _TransientError(f"the connection ended after {arrived} of {self._total} bytes")
        if self._total is not None and arrived > self._total:
            self._target.unlink()
            raise _TransientError(f"the server sent more than the {self._total} bytes it announced")

    def _size(self) -> int:
        return self._target.stat().st_size if self._target.exists() else 0


class Progress:
    """A log line every few seconds, so that a long download does not look stuck."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = self._reported = time.monotonic()

    def report(self, arrived_bytes: int, total_bytes: int | None) -> None:
        """Logs how far it is, if the last time is long enough ago.

        Args:
            arrived_bytes: So far.
            total_bytes: Of the whole file, where that is known.
        """
        now = time.monotonic()
        if now - self._reported < _PROGRESS_EVERY_S:
            return
        self._reported = now
        megabytes = arrived_bytes / 1e6
        share = f" of {total_bytes / 1e6:.1f} MB ({arrived_bytes / total_bytes:.0%})" if total_bytes else " MB"
        _log.info("%s: %.1f%s, %.1f MB/s", self._name, megabytes, share, megabytes / (now - self._started))


def _explain(error: requests.RequestException) -> _TransientError | TransferError:
    """Tells a passing failure from a final one, in plain words."""
    text = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return TransferError("its TLS certificate cannot be verified")
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return _TransientError("its host name cannot be resolved", unreachable=True)
    if isinstance(error, requests.exceptions.ProxyError):
        return _TransientError("the proxy cannot be reached", unreachable=True)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return _TransientError("its host does not answer", unreachable=True)
    if "NewConnectionError" in text:
        return _TransientError("its host refuses the connection or cannot be reached", unreachable=True)
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in text:
        return _TransientError("the server stopped sending")
    if isinstance(
        error,
        requests.exceptions.ConnectionError
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError,
    ):
        return _TransientError("the connection was dropped")
    return TransferError(text)
