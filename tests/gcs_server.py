"""As much of Google Cloud Storage as a sweep needs, over HTTP on loopback: uploads, reads, listings, tokens."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

SECRET = "refresh-token-of-the-store"


class Bucket(ThreadingHTTPServer):
    """Objects of a bucket named ``bucket``.

    Parameters
    ----------
    every : one request in so many is answered 503; 0: none.
    """

    def __init__(self, every=0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects, self.uploads, self.every, self.requests, self.met = {}, {}, every, 0, 0
        self.lock = threading.Lock()

    def described(self, name):
        data = self.objects[name]
        about = {"kind": "storage#object", "bucket": "bucket", "name": name, "size": str(len(data))}
        return about | {"generation": "1", "metageneration": "1", "updated": "2026-01-01T00:00:00Z"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def _answer(self, code, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket = self.server
        if url.path == "/token":
            return self._answer(200, {"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3600})
        with bucket.lock:
            bucket.requests += 1
            if bucket.every and bucket.requests % bucket.every == 0:
                bucket.met += 1
                return self._answer(503)
            if not url.path.startswith(("/storage/v1/b/bucket/", "/upload/storage/v1/b/bucket/")):
                return self._answer(404)
            if url.path.startswith("/upload/"):
                return self._upload(query, body)
            return self._object(unquote(url.path.removeprefix("/storage/v1/b/bucket/o").lstrip("/")), query)

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def _upload(self, query, body):
        bucket = self.server
        if "upload_id" not in query:
            place = f"http://127.0.0.1:{bucket.server_port}{self.path}&upload_id={quote(query['name'], safe='')}"
            return self._answer(200, Location=place)
        name, (part, _, whole) = query["upload_id"], self.headers.get("Content-Range", "").partition("/")
        so_far = bucket.uploads.get(name, b"") if not part.startswith("bytes 0-") else b""
        bucket.uploads[name] = so_far + body
        if whole == "*":  # pieces of 256 KiB; nobody sees the object before the last
            return self._answer(308, Range=f"bytes=0-{len(bucket.uploads[name]) - 1}")
        bucket.objects[name] = bucket.uploads.pop(name)
        return self._answer(200, bucket.described(name))

    def _object(self, name, query):
        bucket = self.server
        if not name:
            found = [bucket.described(each) for each in sorted(bucket.objects) if each.startswith(query["prefix"])]
            return self._answer(200, {"kind": "storage#objects", "items": found})
        if name not in bucket.objects:
            return self._answer(404)
        if self.command == "DELETE":
            del bucket.objects[name]
            return self._answer(204)
        if query.get("alt") != "media":
            return self._answer(200, bucket.described(name))
        data = bucket.objects[name]
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        spread = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return self._answer(206, part, Content_Range=spread, x_goog_generation="1")


@contextmanager
def gcs_server(directory, every=0):
    """Serve; yields the server and the URI of a sweep there. ``directory`` gets a file of credentials."""
    server = Bucket(every)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    token = f"http://127.0.0.1:{server.server_port}/token"
    who = {"type": "authorized_user", "client_id": "me", "client_secret": "s", "refresh_token": SECRET}
    (directory / "credentials.json").write_text(json.dumps(who | {"token_uri": token}))
    place = f"scheme=http&endpoint_override=127.0.0.1%3A{server.server_port}"
    try:
        yield server, f"gs://bucket/deep/sweep?{place}"
    finally:
        server.shutdown()
        server.server_close()
