"""Archives fetched over real HTTP: resumed, compared with checksums, from one mirror after the other."""

import hashlib
import http.server
import threading
from dataclasses import replace
from typing import ClassVar

import pytest

from sweep.base.errors import UserError
from sweep.data.facts import Archive, sheets
from sweep.data.fetch import describe, fetch

CONTENT = bytes(range(256)) * 8192  # 2 MiB


class Origin(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges; breaks off or lies where the path says so."""

    requests: ClassVar[list] = []

    def do_GET(self):
        self.requests.append((self.path, self.headers.get("Range")))
        kind = self.path.split("/")[1]
        if kind == "gone":
            return self.send_error(404)
        start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") and kind != "noresume" else 0
        body = CONTENT[start:] if kind != "wrong" else bytes(len(CONTENT) - start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "breaks" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def origin():
    Origin.requests = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def sheet(*urls, **facts):
    digest = hashlib.sha256(CONTENT).hexdigest()
    archive = Archive("set.tgz", urls=urls, bytes=len(CONTENT), sha256=digest)
    return replace(sheets()["cub200"], archives=(replace(archive, **facts),))


def silent(text):
    pass


def test_an_archive_is_fetched_once_and_compared(origin, tmp_path):
    (file,) = fetch(sheet(f"{origin}/good/set.tgz"), tmp_path, each=silent)
    assert file.read_bytes() == CONTENT
    assert fetch(sheet(f"{origin}/good/set.tgz"), tmp_path, each=silent) == [file]
    assert len(Origin.requests) == 1
    file.write_bytes(CONTENT[:-1])  # cut by someone: fetched anew
    fetch(sheet(f"{origin}/good/set.tgz"), tmp_path, each=silent)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("second", ["good", "noresume"])
def test_a_download_that_broke_off_goes_on(origin, tmp_path, second):
    with pytest.raises(UserError, match=r"broke off after 1,048,576 bytes|1,048,576 bytes are kept"):
        fetch(sheet(f"{origin}/breaks/set.tgz"), tmp_path, each=silent)
    assert (tmp_path / "set.tgz.part").stat().st_size == len(CONTENT) // 2
    (file,) = fetch(sheet(f"{origin}/{second}/set.tgz"), tmp_path, each=silent)
    assert file.read_bytes() == CONTENT
    assert Origin.requests[-1][1] == f"bytes={len(CONTENT) // 2}-"


def test_mirrors_are_tried_in_turn_and_what_is_wrong_is_thrown_away(origin, tmp_path):
    asked = sheet(f"{origin}/gone/set.tgz", f"{origin}/wrong/set.tgz", f"{origin}/good/set.tgz")
    (file,) = fetch(asked, tmp_path, mirrors=[f"{origin}/gone/"], each=silent)
    assert file.read_bytes() == CONTENT
    assert Origin.requests[0][0] == "/gone/set.tgz"


def test_every_failure_is_told_by_its_cause(origin, tmp_path):
    asked = sheet(f"{origin}/gone/set.tgz", f"{origin}/wrong/set.tgz", "http://127.0.0.1:9/set.tgz")
    with pytest.raises(UserError, match=r"(?s)404.*sha256 is .* the publisher's is .*refused") as caught:
        fetch(asked, tmp_path, each=silent)
    assert "no network" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_set_behind_a_registration_is_not_fetched(tmp_path):
    with pytest.raises(UserError, match=r"register at image-net\.org.*ILSVRC2012_img_train\.tar"):
        fetch(sheets()["imagenet1k"], tmp_path, each=silent)


def test_size_and_licence_are_said_first():
    assert "1 files, 1.15 GB; licence: non-commercial research" in describe(sheets()["cub200"])
    assert "size not published" in describe(sheets()["ninco"])


def test_every_address_of_a_sheet_ends_in_its_file():
    for each in sheets().values():
        for archive in each.archives:
            assert all(url.endswith("/" + archive.file) for url in archive.urls), archive.file
            assert archive.md5 is None or len(archive.md5) == 32
            assert archive.sha256 is None or len(archive.sha256) == 64
