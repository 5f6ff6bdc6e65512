"""The little of Google's HTTP APIs that submitting needs: access tokens, and whether a bucket exists."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

MISSING_BUCKET = "missing-bucket"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/upload/"):
            # The first part of a multipart body describes the object.
            metadata = json.loads(body.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0])
            bucket = self.path.split("/b/")[1].split("/")[0]
            self.server.uploads.append(f"gs://{bucket}/{metadata['name']}")  # type: ignore[attr-defined]
            self._answer(200, metadata)
            return
        if self.server.refused:  # type: ignore[attr-defined]
            self._answer(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
            return
        self._answer(200, {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"})

    def do_GET(self) -> None:
        bucket, _, name = self.path.split("/b/")[-1].split("?")[0].partition("/o/")
        if name:
            content = self.server.objects.get(f"gs://{bucket}/{unquote(name)}")  # type: ignore[attr-defined]
            md5 = base64.b64encode(hashlib.md5(content or b"").digest()).decode()
            self._answer(404 if content is None else 200, {"name": unquote(name), "bucket": bucket, "md5Hash": md5})
            return
        if bucket == MISSING_BUCKET:
            self._answer(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        else:
            # People who submit need no right to look at the bucket.
            self._answer(403, {"error": {"code": 403, "message": "does not have storage.buckets.get access"}})

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


class StorageServer:
    """Serves until it is stopped; `url` is its address, `uploads` and `objects` are what it was given and has."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.uploads: list[str] = []
        self.objects: dict[str, bytes] = {}
        # Tokens that people ask for and do not get: set to anything.
        self.refused: list[str] = []
        self._server.uploads = self.uploads  # type: ignore[attr-defined]
        self._server.objects = self.objects  # type: ignore[attr-defined]
        self._server.refused = self.refused  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
