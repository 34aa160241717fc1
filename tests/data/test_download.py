"""Downloads against a real server on loopback that misbehaves as servers do."""

import csv
import dataclasses
import hashlib
import json
import re
import shutil
import socket
import threading
import time
import zipfile
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from medic.data import download as module
from medic.data.download import MIRROR, SOURCES, Patience, download, fetch, sources_table
from medic.data.download.sources import RemoteFile
from medic.data.readers import retinopathy
from medic.errors import MedicError

BODY = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()
CUT = 120_000


class Server:
    """What the next answers are to be, and what was asked."""

    def __init__(self):
        self.body, self.etag = BODY, '"one"'
        self.plan: list = []  # one entry an answer: a status, (status, headers), "cut", "hang"; then good answers
        self.ranges = True
        self.always = None
        self.asked: list[dict] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.npz"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, handler):
        self.asked.append({"path": handler.path, **{key.lower(): value for key, value in handler.headers.items()}})
        step = self.plan.pop(0) if self.plan else self.always
        if step == "hang":
            self.released.wait(10)
            handler.close_connection = True
            return
        if isinstance(step, int | tuple):
            status, headers = step if isinstance(step, tuple) else (step, {})
            handler.send_response(status)
            for key, value in {"Content-Length": "0", **headers}.items():
                handler.send_header(key, value)
            handler.end_headers()
            return
        start, asked = 0, re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if self.ranges and asked and handler.headers.get("If-Range", self.etag) == self.etag:
            start = int(asked[1])
        if start >= len(self.body) and start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        if step == "cut":
            handler.wfile.write(self.body[start : start + CUT])
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        handler.wfile.write(self.body[start:])

    def close(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(MIRROR, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def patience(waits):
    return Patience(attempts=4, sleep=waits.append, timeout=5)


def leftovers(path):
    return sorted(file.name for file in path.parent.iterdir() if file != path)


# One file


def test_a_file_arrives_under_its_name_and_nothing_else_is_left(server, tmp_path, patience, waits):
    path = fetch(server.url, tmp_path / "downloads" / "set.npz", MD5, patience=patience)
    assert path.read_bytes() == BODY
    assert leftovers(path) == []
    assert waits == []


def test_a_cut_connection_goes_on_at_the_right_byte(server, tmp_path, patience, waits):
    server.plan = ["cut", "cut"]
    path = fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    assert path.read_bytes() == BODY
    assert [ask.get("range") for ask in server.asked] == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]
    assert server.asked[1]["if-range"] == '"one"'
    assert waits == [2, 4]


def test_what_arrived_is_kept_for_the_next_call(server, tmp_path, patience):
    server.plan = ["cut", 503]
    path = tmp_path / "set.npz"
    with pytest.raises(MedicError, match=f"{CUT} bytes are kept"):
        fetch(server.url, path, MD5, patience=dataclasses.replace(patience, attempts=2))
    assert not path.exists()
    assert (tmp_path / "set.npz.part").read_bytes() == BODY[:CUT]
    fetch(server.url, path, MD5, patience=patience)
    assert path.read_bytes() == BODY
    assert server.asked[-1]["range"] == f"bytes={CUT}-"
    assert leftovers(path) == []


def test_a_whole_part_file_needs_no_second_download(server, tmp_path, patience):
    (tmp_path / "set.npz.part").write_bytes(BODY)
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY
    assert len(server.asked) == 1  # answered 416: nothing after the last byte


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(server, tmp_path, patience, capsys):
    server.ranges, server.plan = False, ["cut"]
    path = fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    assert path.read_bytes() == BODY
    assert f"the {CUT} bytes kept are dropped" in capsys.readouterr().err


def test_a_server_that_ignores_ranges_and_always_breaks_off_comes_to_an_end(server, tmp_path, patience):
    server.ranges, server.always = False, "cut"
    with pytest.raises(MedicError, match="try 4 of 4"):
        fetch(server.url, tmp_path / "set.npz", MD5, patience=dataclasses.replace(patience, progress=1000))
    assert len(server.asked) == 4  # only the first brought bytes that were new


def test_tries_that_bring_new_bytes_do_not_use_up_the_tries(server, tmp_path, patience, waits):
    server.plan = ["cut", "cut"]
    fetch(server.url, tmp_path / "set.npz", MD5, patience=dataclasses.replace(patience, attempts=2, progress=1000))
    assert waits == [2, 2]


def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path, patience):
    server.body, server.etag, server.plan = b"old " * 50_000, '"old"', ["cut", 503]
    with pytest.raises(MedicError):
        fetch(server.url, tmp_path / "set.npz", MD5, patience=dataclasses.replace(patience, attempts=2))
    server.body, server.etag = BODY, '"one"'
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY
    assert server.asked[-1]["if-range"] == '"old"'


def test_pieces_that_do_not_fit_together_are_fetched_once_more(server, tmp_path, patience, capsys):
    server.etag = None
    (tmp_path / "set.npz.part").write_bytes(b"x" * 1000)
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY
    assert "do not fit together" in capsys.readouterr().err
    assert [ask.get("range") for ask in server.asked] == ["bytes=1000-", None]


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path, patience):
    (tmp_path / "set.npz.part").write_bytes(BODY + b"more")
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY


def test_a_damaged_note_beside_the_part_does_no_harm(server, tmp_path, patience):
    (tmp_path / "set.npz.part").write_bytes(BODY[:1000])
    (tmp_path / "set.npz.part.json").write_text("{half")
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY
    assert leftovers(tmp_path / "set.npz") == []


def test_busy_answers_are_tried_again_with_growing_waits(server, tmp_path, patience, waits, capsys):
    server.plan = [503, 503]
    fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    assert waits == [2, 4]
    assert "answered 503 Service Unavailable; waiting 4 s, then try 3 of 4" in capsys.readouterr().err


def test_retry_after_is_honoured_in_seconds_and_as_a_date(server, tmp_path, patience, waits):
    server.plan = [(429, {"Retry-After": "17"}), (503, {"Retry-After": formatdate(time.time() + 100, usegmt=True)})]
    fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    assert waits[0] == 17
    assert 90 < waits[1] <= 100


def test_a_server_that_wants_to_be_left_alone_for_long_is_left_alone(server, tmp_path, patience, waits):
    server.always = (429, {"Retry-After": "7200"})
    with pytest.raises(MedicError, match="come back in 7200 s"):
        fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    assert len(server.asked) == 1
    assert waits == []


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (404, 1), (403, 1)])
def test_tries_end_and_the_error_says_how_to_do_it_by_hand(server, tmp_path, patience, status, tries):
    server.always = status
    path = tmp_path / "set.npz"
    with pytest.raises(MedicError) as caught:
        fetch(server.url, path, MD5, official="https://example.org/set.npz", patience=patience)
    assert len(server.asked) == tries
    for fact in (str(status), "https://example.org/set.npz", MD5, str(path), "by hand"):
        assert fact in str(caught.value)


def test_a_server_that_hangs_is_given_up(server, tmp_path, patience, waits):
    server.always = "hang"
    with pytest.raises(MedicError, match=r"try 2 of 2.*by hand"):
        fetch(server.url, tmp_path / "set.npz", MD5, patience=dataclasses.replace(patience, attempts=2, timeout=0.2))
    assert len(waits) == 1


def test_a_server_that_is_not_there_is_given_up(tmp_path, patience, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(MedicError, match="by hand"):
        fetch(f"http://127.0.0.1:{port}/set.npz", tmp_path / "set.npz", MD5, patience=patience)


@pytest.mark.parametrize("url", ["data/set.npz", "ftp://example.org/set.npz", "http://example.org:port/set.npz"])
def test_an_address_that_is_none_is_refused_at_once(tmp_path, patience, waits, url):
    with pytest.raises(MedicError, match="by hand"):
        fetch(url, tmp_path / "set.npz", MD5, patience=patience)
    assert waits == []


def test_wrong_bytes_never_get_the_name(server, tmp_path, patience):
    server.body = b"<html>please accept our cookies</html>"
    path = tmp_path / "set.npz"
    with pytest.raises(MedicError) as caught:
        fetch(server.url, path, MD5, patience=patience)
    assert hashlib.md5(server.body).hexdigest() in str(caught.value)
    assert f"instead of {MD5}" in str(caught.value)
    assert "by hand" in str(caught.value)
    assert not path.exists()
    assert not (tmp_path / "set.npz.part").exists()
    assert len(server.asked) == 1


def test_a_file_put_there_by_hand_is_checked_and_used(server, tmp_path, patience):
    path = tmp_path / "set.npz"
    path.write_bytes(BODY)
    assert fetch(server.url, path, MD5, patience=patience) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(MedicError, match=f"instead of {MD5}; delete it"):
        fetch(server.url, path, MD5, patience=patience)
    assert path.read_bytes() == BODY[:-1]  # it is the person's own file
    assert server.asked == []


def test_a_place_that_cannot_be_written_is_said(server, tmp_path, patience):
    (tmp_path / "downloads").write_text("a file, no folder")
    with pytest.raises(MedicError, match="cannot write"):
        fetch(server.url, tmp_path / "downloads" / "set.npz", MD5, patience=patience)


def test_a_full_disk_is_said_and_what_arrived_is_kept(server, tmp_path, patience, monkeypatch):
    resource = pytest.importorskip("resource", reason="file size limits are set with the resource module (Unix)")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MedicError, match="free some space"):
            fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (tmp_path / "set.npz").exists()
    assert 0 < (tmp_path / "set.npz.part").stat().st_size <= 100_000
    assert fetch(server.url, tmp_path / "set.npz", MD5, patience=patience).read_bytes() == BODY


# RetinaMNIST, in small


def arrays(size=64, **changes):
    random = np.random.default_rng(1)
    made = {}
    for split, count in (("train", 7), ("val", 3), ("test", 4)):
        made[f"{split}_images"] = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 5).astype(np.uint8)[:, None]
    return made | changes


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """Put arrays on the server and into the registry as RetinaMNIST."""

    def put(**changes):
        np.savez(tmp_path / "published.npz", **arrays(**changes))
        server.body = (tmp_path / "published.npz").read_bytes()
        md5 = hashlib.md5(server.body).hexdigest()
        files = {size: RemoteFile(f"retinamnist_{size}.npz", server.url, md5) for size in (64, 224)}
        files[224] = dataclasses.replace(files[224], md5="0" * 32)
        images = {"train": 7, "validation": 3, "test": 4}
        monkeypatch.setitem(
            SOURCES, "retinamnist", dataclasses.replace(SOURCES["retinamnist"], files=files, images=images)
        )
        return md5

    return put


def column(path):
    with open(path, newline="") as file:
        return [row[0] for row in csv.reader(file)]


def test_retinamnist_becomes_the_retinopathy_layout(server, publish, tmp_path, patience, capsys):
    md5 = publish()
    target = download("retinamnist", tmp_path / "data", size=64, patience=patience)
    assert target == tmp_path / "data" / "retinopathy"
    made = arrays()
    for split, theirs, count in (("train", "train", 7), ("validation", "val", 3), ("test", "test", 4)):
        names = column(target / f"{split}_img.csv")
        assert names == [f"retinamnist_{split}_{number:04d}" for number in range(1, count + 1)]
        assert column(target / f"{split}_label.csv") == [str(label) for label in made[f"{theirs}_labels"][:, 0]]
        for name, pixels in zip(names, made[f"{theirs}_images"], strict=True):
            written = cv2.cvtColor(cv2.imread(str(target / "images" / f"{name}.png")), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(written, pixels)
    sources = (target / "SOURCES.md").read_text()
    for fact in ("CC BY 4.0", "DeepDRiD", server.url, md5, "counts\nas a patient of its own"):
        assert fact in sources
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["downloads", "retinopathy"]
    assert capsys.readouterr().err.index("Licence: CC BY 4.0") >= 0


def test_the_reader_reads_what_was_fetched(publish, tmp_path, patience):
    publish()
    records, store = retinopathy.read(download("retinamnist", tmp_path, size=64, patience=patience))
    assert records["split"].value_counts().to_dict() == {"train": 7, "validation": 3, "test": 4}
    assert records["patient"].is_unique
    assert all(name in store for name in records["image"])


def test_the_licence_is_shown_before_anything_is_fetched(server, publish, tmp_path, patience, capsys):
    publish()
    server.always = 404
    with pytest.raises(MedicError):
        download("retinamnist", tmp_path, size=64, patience=patience)
    assert "Licence: CC BY 4.0" in capsys.readouterr().err


def test_a_second_call_does_nothing_and_says_so(server, publish, tmp_path, patience, capsys):
    publish()
    target = download("retinamnist", tmp_path, size=64, patience=patience)
    before = {file: file.stat().st_mtime_ns for file in target.rglob("*")}
    asked = len(server.asked)
    shutil.rmtree(tmp_path / "downloads")  # the archive is not needed any more
    assert download("retinamnist", tmp_path, size=64, patience=patience) == target
    assert "nothing to do" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in target.rglob("*")} == before
    assert len(server.asked) == asked


def test_an_archive_put_there_by_hand_is_used(server, publish, tmp_path, patience):
    publish()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "retinamnist_64.npz").write_bytes(server.body)
    assert (download("retinamnist", tmp_path, size=64, patience=patience) / "train_img.csv").exists()
    assert server.asked == []


def test_a_mirror_is_asked_instead_and_the_error_still_names_the_official_home(
    server, publish, tmp_path, patience, monkeypatch
):
    publish()
    monkeypatch.setenv(MIRROR, server.url.replace("/set.npz", "/mirror/"))
    download("retinamnist", tmp_path / "one", size=64, patience=patience)
    assert server.asked[-1]["path"] == "/mirror/retinamnist_64.npz"
    server.always = 404
    with pytest.raises(MedicError, match=re.escape(f"get {server.url} with a browser")):
        download("retinamnist", tmp_path / "two", size=64, patience=patience)


def test_an_empty_target_folder_is_filled(publish, tmp_path, patience):
    publish()
    (tmp_path / "retinopathy").mkdir()
    assert (download("retinamnist", tmp_path, size=64, patience=patience) / "SOURCES.md").exists()


@pytest.mark.parametrize("kind", ["another set", "another size", "a file"])
def test_something_else_at_the_target_is_not_overwritten(server, publish, tmp_path, patience, kind):
    publish()
    target = tmp_path / "retinopathy"
    if kind == "a file":
        target.write_text("mine")
    elif kind == "another set":
        target.mkdir()
        (target / "trainLabels.csv").write_text("image,level\n1_left,0\n")
    else:
        download("retinamnist", tmp_path, size=64, patience=patience)
    asked = len(server.asked)
    with pytest.raises(MedicError, match="is not overwritten; move"):
        download("retinamnist", tmp_path, size=224, patience=patience)
    assert len(server.asked) == asked


def test_a_set_that_lost_images_is_not_called_whole(publish, tmp_path, patience):
    publish()
    target = download("retinamnist", tmp_path, size=64, patience=patience)
    (target / "images" / "retinamnist_validation_0002.png").unlink()
    with pytest.raises(MedicError, match=r"no longer whole .validation: 3 names, 3 labels, 2 images instead of 3"):
        download("retinamnist", tmp_path, size=64, patience=patience)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": np.zeros((2, 64, 64, 3), np.uint8)}, r"val_images has the shape \(2, 64, 64, 3\) instead of"),
        ({"test_images": np.zeros((4, 64, 64), np.uint8)}, "test_images has the shape"),
        ({"train_labels": np.zeros(7, np.uint8)}, r"train_labels has the shape \(7,\) instead of \(7, 1\)"),
        ({"test_labels": np.full((4, 1), 5, np.uint8)}, "test_labels reaches from 5 to 5 instead of 0 to 4"),
        ({"test_labels": np.zeros((4, 1))}, "test_labels float64 instead of uint8 and integers"),
        ({"train_images": np.zeros((7, 64, 64, 3), np.float32)}, "train_images has the type float32"),
        ({"val_labels": np.array([[{}]] * 3, dtype=object)}, "cannot read val_images and val_labels"),
    ],
)
def test_arrays_that_are_not_as_expected_leave_nothing_behind(publish, tmp_path, patience, changes, message):
    publish(**changes)
    with pytest.raises(MedicError, match=message):
        download("retinamnist", tmp_path / "data", size=64, patience=patience)
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["downloads"]


def test_an_archive_that_is_none_is_refused(tmp_path):
    for content in (b"", b"no archive", b"PK\x03\x04 broken"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(MedicError, match="not the archive that was expected"):
            module.convert_retinamnist(tmp_path / "x.npz", tmp_path / "retinopathy", SOURCES["retinamnist"], 64)
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(MedicError, match="not the archive that was expected"):
        module.convert_retinamnist(tmp_path / "x.npy", tmp_path / "retinopathy", SOURCES["retinamnist"], 64)
    assert not (tmp_path / "retinopathy").exists()


def test_an_interrupted_conversion_leaves_no_half_set(publish, tmp_path, patience, monkeypatch):
    publish()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_sources_page", stop)
    with pytest.raises(KeyboardInterrupt):
        download("retinamnist", tmp_path / "data", size=64, patience=patience)
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["downloads"]


# A set that is read as it is published


@pytest.fixture
def publish_parts(server, monkeypatch):
    """Put two files of one body on the server and into the registry as MNIST."""
    md5 = hashlib.md5(BODY).hexdigest()
    parts = tuple(RemoteFile(f"part{number}.gz", f"{server.url}/{number}", md5) for number in (1, 2))
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], as_published=parts))
    return parts


def test_each_file_goes_to_its_place_with_a_page_that_says_where_it_is_from(
    server, publish_parts, tmp_path, patience, capsys
):
    target = download("mnist", tmp_path / "data", patience=patience)
    assert target == tmp_path / "data" / "digits"
    assert sorted(file.name for file in target.iterdir()) == ["SOURCES.md", "part1.gz", "part2.gz"]
    assert {(target / part.name).read_bytes() for part in publish_parts} == {BODY}
    page = (target / "SOURCES.md").read_text()
    for fact in ("CC BY-SA 3.0", "LeCun", "train 60000, test 10000", *(part.url for part in publish_parts), MD5):
        assert fact in page
    assert "Licence: commonly stated as CC BY-SA 3.0" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["digits"]


def test_files_that_are_there_are_checked_and_not_fetched_again(server, publish_parts, tmp_path, patience):
    target = download("mnist", tmp_path, patience=patience)
    (target / "part2.gz").unlink()
    asked = len(server.asked)
    download("mnist", tmp_path, patience=patience)
    assert len(server.asked) == asked + 1
    (target / "part1.gz").write_bytes(BODY[:-1])
    with pytest.raises(MedicError, match=f"instead of {MD5}; delete it"):
        download("mnist", tmp_path, patience=patience)
    assert len(server.asked) == asked + 1


def test_files_that_were_cut_go_on_where_they_stopped(server, publish_parts, tmp_path, patience):
    server.plan = ["cut", 503]
    with pytest.raises(MedicError, match=re.escape(f"get {publish_parts[0].url} with a browser")):
        download("mnist", tmp_path, patience=dataclasses.replace(patience, attempts=2))
    assert not (tmp_path / "digits" / "SOURCES.md").exists()
    target = download("mnist", tmp_path, patience=patience)
    assert server.asked[2]["range"] == f"bytes={CUT}-"
    assert sorted(file.name for file in target.iterdir()) == ["SOURCES.md", "part1.gz", "part2.gz"]


def test_a_mirror_has_the_files_under_their_names(server, publish_parts, tmp_path, patience, monkeypatch):
    monkeypatch.setenv(MIRROR, server.url.replace("/set.npz", "/mirror/"))
    download("mnist", tmp_path, patience=patience)
    assert [asked["path"] for asked in server.asked] == ["/mirror/part1.gz", "/mirror/part2.gz"]


def test_files_of_another_set_are_not_mixed_with_it(server, publish_parts, tmp_path, patience):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "letters.csv").write_text("mine")
    with pytest.raises(MedicError, match=r"something other than mnist \(letters\.csv\).* move .*--folder"):
        download("mnist", tmp_path, patience=patience)
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "digits").write_text("mine")
    with pytest.raises(MedicError, match=r"cannot use .* as a folder"):
        download("mnist", tmp_path / "file", patience=patience)
    assert server.asked == []


@pytest.mark.parametrize("option", [{"size": 28}, {"url": "http://127.0.0.1/x"}])
def test_a_set_of_several_files_takes_no_size_and_no_single_address(option, publish_parts, tmp_path, patience):
    with pytest.raises(MedicError, match=f"one size and in 2 files: .*{MIRROR}"):
        download("mnist", tmp_path, patience=patience, **option)


# The registry


def test_the_registry_states_the_published_facts():
    files = SOURCES["retinamnist"].files
    assert max(files) == 224
    assert files[224].url == "https://zenodo.org/records/10519652/files/retinamnist_224.npz?download=1"
    assert files[224].md5 == "eae7e3b6f3fcbda4ae613ebdcbe35348"
    assert files[64].md5 == "afda852cc34dcda56f86ad2b2457dbcc"
    table = sources_table()
    assert list(table.index) == list(SOURCES)
    assert table.loc["retinamnist", ["train", "validation", "test"]].tolist() == [1080, 120, 400]
    assert table.loc["retinamnist", "login"] == "none"
    assert table.loc["eyepacs", "login"] == "Kaggle"
    assert table.loc["nih_chest_xray14", ["train", "test"]].sum() == 112_120
    assert table.loc["mnist", ["train", "test"]].tolist() == [60_000, 10_000]
    assert {file.name: (file.url, file.md5) for file in SOURCES["mnist"].as_published} == {
        name: (f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", md5)
        for name, md5 in {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        }.items()
    }


@pytest.mark.real_data
@pytest.mark.parametrize("file", SOURCES["mnist"].as_published[1:], ids=lambda file: file.name)
def test_the_checksums_are_those_of_the_well_known_files(file, real_data):
    # The first file was compressed anew where the real data was put together; its content is the same.
    assert hashlib.md5((real_data / "digits" / file.name).read_bytes()).hexdigest() == file.md5


def test_a_size_that_is_not_published_is_refused(tmp_path):
    with pytest.raises(MedicError, match="choose 64 or 224"):
        download("retinamnist", tmp_path, size=128)


@pytest.mark.parametrize("name", ["retinopathy", "messidor", "chest_xray"])
def test_an_unknown_name_tells_the_open_set_and_those_with_a_login(tmp_path, name):
    with pytest.raises(MedicError) as caught:
        download(name, tmp_path)
    assert name in str(caught.value)
    assert ("is not one set" in str(caught.value)) == (name != "messidor")
    assert "without a login there is retinamnist, mnist" in str(caught.value)
    kaggle = "with a Kaggle account eyepacs, eyepacs_resized, aptos2019, dr_f1_score_4, nih_chest_xray14"
    assert kaggle in str(caught.value)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.needs_login])
def test_a_set_behind_a_login_gives_the_recipe(tmp_path, name):
    with pytest.raises(MedicError) as caught:
        download(name, tmp_path / "my data")
    message = str(caught.value)
    commands = {
        "eyepacs": "kaggle competitions download -c diabetic-retinopathy-detection -f train.zip.00$part",
        "eyepacs_resized": "kaggle datasets download -d tanlikesmath/diabetic-retinopathy-resized",
        "aptos2019": "kaggle competitions download -c aptos2019-blindness-detection",
        "dr_f1_score_4": "kaggle competitions download -c diabetic-retinopathy-classification-f1-score-4",
        "nih_chest_xray14": "kaggle datasets download -d nih-chest-xrays/data",
    }
    line = "chest_xray" if name == "nih_chest_xray14" else "retinopathy"
    assert commands[name] in message
    assert ("accept the rules" in message) == ("competitions" in commands[name])
    assert f'-p "{(tmp_path / "my data" / "downloads").as_posix()}"' in message
    assert f'medic.data.readers.{line}.read("{(tmp_path / "my data" / line).as_posix()}")' in message
    assert "{" not in message
    assert list(tmp_path.iterdir()) == []


def test_the_chest_x_rays_can_be_had_without_an_account_too(tmp_path):
    with pytest.raises(MedicError) as caught:
        download("nih_chest_xray14", tmp_path)
    message, target = str(caught.value), (tmp_path / "chest_xray").as_posix()
    assert "needs a Kaggle account" not in message
    for fact in ("without an account", "https://nihcc.app.box.com/v/ChestXray-NIHCC", "no restriction on use"):
        assert fact in message
    assert f"save Data_Entry_2017_v2020.csv, train_val_list.txt and test_list.txt in {target}" in message
    assert f" {target}/images.zip {(tmp_path / 'downloads').as_posix()}/images_*.tar.gz" in message


def png():
    return cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def test_the_recipe_for_split_archives_ends_in_a_layout_that_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for name in ("10_left", "10_right"):
            archive.writestr(f"train/{name}.jpeg", png())
    data, target = (tmp_path / "whole.zip").read_bytes(), tmp_path / "retinopathy"
    pieces = [data[start : start + 100] for start in range(0, len(data), 100)]
    target.mkdir()
    (target / "train.zip").write_bytes(b"".join(pieces))
    (target / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,2\n")
    records, store = retinopathy.read(target)
    assert records["patient"].tolist() == ["10", "10"]
    assert store.read(records["image"][0]) == png()


@pytest.mark.parametrize(
    ("archive", "table", "members", "header"),
    [
        ("aptos2019-blindness-detection.zip", "train.csv", ["train_images/a1.png"], "id_code,diagnosis\na1,4\n"),
        (
            "diabetic-retinopathy-resized.zip",
            "trainLabels.csv",
            ["resized_train/resized_train/10_left.jpeg", "resized_train/resized_train/10_right.jpeg"],
            "image,level\n10_left,0\n10_right,1\n",
        ),
    ],
)
def test_the_recipe_for_one_archive_ends_in_a_layout_that_is_read(tmp_path, archive, table, members, header):
    target = tmp_path / "retinopathy"
    target.mkdir()
    with zipfile.ZipFile(target / archive, "w") as packed:
        packed.writestr(table, header)
        for member in members:
            packed.writestr(member, png())
    with zipfile.ZipFile(target / archive) as packed:
        packed.extract(table, target)
    records, store = retinopathy.read(target)
    assert records["image"].tolist() == members
    assert all(name in store for name in records["image"])


def test_the_note_beside_a_part_tells_where_it_is_from(server, tmp_path, patience):
    server.plan = ["cut", 404]
    with pytest.raises(MedicError):
        fetch(server.url, tmp_path / "set.npz", MD5, patience=patience)
    note = json.loads((tmp_path / "set.npz.part.json").read_text())
    assert note == {"url": server.url, "total": len(BODY), "validator": '"one"'}
