"""Skin lesions from the ISIC Archive: its API on loopback, which pages, fails, times out, cuts, and signs addresses."""

import csv
import dataclasses
import hashlib
import json
import re
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from medic.cli import app
from medic.data import download as module
from medic.data.download import Patience, download, sources_table
from medic.data.download.isic import download_isic
from medic.data.download.isic_manifest import LICENCES
from medic.data.readers import skin_lesion
from medic.errors import MedicError

COLUMNS = [
    *("isic_id", "benign_malignant", "diagnosis", "diagnosis_confirm_type", "age_approx", "sex", "image_type"),
    *("pixelsX", "pixelsY", "patient_id", "lesion_id", "copyright_license", "attribution", "sha256"),
]


def jpeg(seed: int, ending: str = ".jpg") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.imencode(ending, noise)[1].tobytes()


def lesion(number: int, label: str, **changes) -> dict:
    """An entry of the archive as its API gives it, but for the file's address and size."""
    clinical = {"diagnosis_1": label.capitalize(), "diagnosis_3": "Nevus" if label == "benign" else "Melanoma, NOS"}
    clinical |= {"age_approx": 40 + number, "sex": "female", "patient_id": f"IP_{number // 2}"}
    entry = {
        "isic_id": f"ISIC_{number:07d}",
        "copyright_license": ("CC-0", "CC-BY", "CC-BY-NC")[number % 3],
        "attribution": f"Hospital {number % 2}",
        "metadata": {
            "acquisition": {"image_type": "dermoscopic", "pixels_x": 40, "pixels_y": 30},
            "clinical": clinical,
        },
    }
    return entry | changes


class Archive:
    """What the archive holds, how it is to misbehave, and what it was asked."""

    def __init__(self):
        self.entries = [lesion(number, ("benign", "malignant")[number % 2]) for number in range(20)]
        self.files = {entry["isic_id"]: jpeg(number) for number, entry in enumerate(self.entries)}
        self.stated: dict[str, int] = {}  # sizes that the archive gives where they are not the file's
        self.unknown = {"benign_malignant"}  # fields that the query language does not have
        self.page = 100
        self.signature = "1"
        self.plan: dict[str, list] = {}  # by "search", "entry", "file" or an image's name: what the next answers are
        self.always: dict[str, object] = {}
        self.next = None  # the address named as the next page, instead of the right one
        self.asked: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.home = f"http://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.home}/api/v2"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def add(self, entry: dict) -> None:
        self.entries.append(entry)
        self.files[entry["isic_id"]] = jpeg(1000 + len(self.entries))

    def answer(self, handler):
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        name = parts.path.strip("/").rpartition("/")[2]
        kind = "file" if parts.path.startswith("/files/") else "search" if name == "search" else "entry"
        self.asked.append(f"{kind} {name}" if kind != "search" else f"search {query['query']}")
        for key in (name, kind):
            step = self.plan[key].pop(0) if self.plan.get(key) else self.always.get(key)
            if step is not None:
                break
        if step == "hang":
            self.released.wait(10)
            handler.close_connection = True
        elif step == "html":
            self.send(handler, 200, b"<html><body>Down for maintenance</body></html>", {"Content-Type": "text/html"})
        elif isinstance(step, int | tuple):
            status, headers = step if isinstance(step, tuple) else (step, {})
            self.send(handler, status, b"", headers)
        elif isinstance(step, bytes):
            self.send(handler, 200, step)
        elif kind == "search":
            self.send(handler, *self.search(parts.path, query))
        elif kind == "entry":
            found = [entry for entry in self.entries if entry["isic_id"] == name]
            self.send(handler, 200, json.dumps(self.shown(found[0])).encode()) if found else self.send(handler, 404)
        elif query.get("signature") != self.signature:
            self.send(handler, 403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        else:
            self.send(handler, 200, self.files[name], cut=step == "cut")

    @staticmethod
    def send(handler, status, body=b"", headers=None, cut=False):
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True

    def search(self, path, query):
        for term in query["query"].split(" AND "):
            field, _, value = term.strip("()").partition(":")
            if field in self.unknown:
                return 400, b'{"message": "Could not parse query."}'
        found = [
            entry
            for entry in self.entries
            if str(entry["metadata"]["clinical"].get(field, "")) == value
            and ("image_type:" not in query["query"] or entry["metadata"]["acquisition"]["image_type"] == "dermoscopic")
        ]
        start, size = int(query.get("cursor", 0)), min(self.page, int(query["limit"]))
        following = (
            f"{self.home}{path}?{urlencode(query | {'cursor': start + size})}" if start + size < len(found) else None
        )
        page = {
            "count": len(found),
            "next": self.next or following,
            "previous": None,
            "results": [self.shown(entry) for entry in found[start : start + size]],
        }
        return 200, json.dumps(page).encode()

    def shown(self, entry):
        name = entry["isic_id"]
        size = self.stated.get(name, len(self.files[name]))
        address = f"{self.home}/files/{name}?signature={self.signature}"
        return {"files": {"full": {"url": address, "size": size}}} | entry

    def close(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def archive(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Archive()
    yield running
    running.close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def fetch(archive, tmp_path, waits):
    """The download into ``tmp_path/skin_lesion``, with waits that are written down instead."""

    def call(limit=8, folder=tmp_path / "skin_lesion", **options):
        patience = Patience(attempts=3, sleep=waits.append, timeout=5)
        return download_isic(folder, limit=limit, **{"url": archive.url, "patience": patience} | options)

    return call


def rows(folder):
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Every file with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names(*numbers):
    return [f"ISIC_{number:07d}" for number in numbers]


def files_asked(archive):
    return [asked.split()[1] for asked in archive.asked if asked.startswith("file")]


# What arrives


def test_both_classes_arrive_in_equal_parts_with_their_papers(archive, fetch, waits):
    folder = fetch(8)
    assert sorted(contents(folder)) == [
        "SOURCES.md",
        "attribution.txt",
        *(f"images/{name}.jpg" for name in names(*range(8))),
        "isic.json",
        *(f"licenses/{name}.txt" for name in ("CC-0", "CC-BY-NC", "CC-BY")),
        "metadata.csv",
    ]
    assert [row["benign_malignant"] for row in rows(folder)] == ["benign", "malignant"] * 4
    assert list(rows(folder)[0]) == COLUMNS
    assert rows(folder)[3] == {
        "isic_id": "ISIC_0000003",
        "benign_malignant": "malignant",
        "diagnosis": "Melanoma, NOS",
        "diagnosis_confirm_type": "",
        "age_approx": "43",
        "sex": "female",
        "image_type": "dermoscopic",
        "pixelsX": "40",
        "pixelsY": "30",
        "patient_id": "IP_1",
        "lesion_id": "",
        "copyright_license": "CC-0",
        "attribution": "Hospital 1",
        "sha256": hashlib.sha256(archive.files["ISIC_0000003"]).hexdigest(),
    }
    for name in names(*range(8)):
        assert (folder / "images" / f"{name}.jpg").read_bytes() == archive.files[name]
    assert waits == []


def test_the_papers_say_where_from_under_which_licence_and_whom_to_name(archive, fetch):
    folder = fetch(8)
    page = (folder / "SOURCES.md").read_text()
    for fact in (archive.url, "`image_type:dermoscopic`", "4 benign, 4 malignant", "| CC-0 | 3 |", "no random sample"):
        assert fact in page
    assert re.search(r" on 20\d\d-\d\d-\d\d$", page, re.MULTILINE)
    assert "Not here" not in page
    assert "Hospital 0 (CC-BY; images: 1)" in (folder / "attribution.txt").read_text()
    for name, (_, address, _) in LICENCES.items():
        assert address in (folder / "licenses" / f"{name}.txt").read_text()
    assert "not commercially" in (folder / "licenses" / "CC-BY-NC.txt").read_text()


def test_pages_are_followed_as_far_as_needed_and_no_further(archive, fetch):
    archive.page = 2
    assert len(rows(fetch(8))) == 8
    searches = [asked for asked in archive.asked if asked.startswith("search")]
    assert searches == [
        f"search image_type:dermoscopic AND diagnosis_1:{label}" for label in ("Benign", "Malignant") for _ in range(2)
    ]


def test_an_odd_number_and_the_smallest_one(fetch, tmp_path):
    assert [row["benign_malignant"] for row in rows(fetch(3))] == ["benign", "malignant", "benign"]
    assert [row["benign_malignant"] for row in rows(fetch(2, tmp_path / "two"))] == ["benign", "malignant"]
    with pytest.raises(MedicError, match="1 images cannot be of two classes"):
        fetch(1, tmp_path / "one")


def test_where_one_class_has_fewer_the_other_makes_up_for_it(archive, fetch, capsys):
    archive.entries = [entry for entry in archive.entries if int(entry["isic_id"][5:]) in (0, 1, 2, 4, 6, 8, 10)]
    assert [row["benign_malignant"] for row in rows(fetch(6))].count("benign") == 5
    assert "benign 5, malignant 1" in capsys.readouterr().err


def test_an_archive_with_less_than_asked_for_gives_all_and_says_so(archive, fetch, capsys):
    assert len(rows(fetch(50))) == 20
    assert "no more than 20 lesions" in capsys.readouterr().err


def test_a_missing_class_is_an_error_and_nothing_is_written(archive, fetch, tmp_path):
    archive.entries = archive.entries[::2]
    with pytest.raises(MedicError, match=r"no malignant lesion for the query 'image_type:dermoscopic'.*by hand"):
        fetch()
    archive.entries = []
    with pytest.raises(MedicError, match=r"no benign lesion .* in the collections 5, 62"):
        fetch(collections=[5, 62])
    assert list(tmp_path.iterdir()) == []


def test_entries_of_former_years_are_found_by_their_own_field(archive, fetch):
    archive.unknown = {"diagnosis_1"}
    for entry in archive.entries:
        clinical = entry["metadata"]["clinical"]
        clinical["benign_malignant"] = clinical.pop("diagnosis_1").lower()
        clinical["diagnosis"] = clinical.pop("diagnosis_3").lower()
    table = rows(fetch(8))
    assert [row["benign_malignant"] for row in table] == ["benign", "malignant"] * 4
    assert table[0]["diagnosis"] == "nevus"


def test_both_kinds_of_entries_together_give_each_image_once(archive, fetch):
    archive.unknown = set()
    for entry in archive.entries[:12]:
        entry["metadata"]["clinical"]["benign_malignant"] = entry["metadata"]["clinical"]["diagnosis_1"].lower()
    for entry in archive.entries[:6]:
        del entry["metadata"]["clinical"]["diagnosis_1"]
    table = rows(fetch(20))
    assert len({row["isic_id"] for row in table}) == len(table) == 20
    assert {row["benign_malignant"] for row in table} == {"benign", "malignant"}


def test_entries_without_a_licence_or_with_two_classes_are_left_out_and_counted(archive, fetch, capsys):
    archive.entries[0]["copyright_license"] = None
    archive.entries[1]["metadata"]["clinical"]["benign_malignant"] = "benign"
    assert [row["isic_id"] for row in rows(fetch(4))] == names(2, 3, 4, 5)
    said = capsys.readouterr().err
    assert "left out of the archive's entries: 1 (no licence is stated)" in said
    assert "left out of the archive's entries: 1 (found as malignant, but" in said


def test_a_query_of_ones_own_and_collections_are_passed_on(archive, fetch):
    fetch(2, query="sex:female OR sex:male", collections=(5, 62))
    assert archive.asked[0] == "search (sex:female OR sex:male) AND diagnosis_1:Benign"
    fetch(2, query="sex:female OR sex:male", collections=(5, 62))  # the same selection: nothing to do


def test_a_text_of_several_lines_stays_in_one_row(archive, fetch):
    archive.entries[0]["attribution"] = 'A "Hospital", \n Vienna'
    assert rows(fetch(2))[0]["attribution"] == 'A "Hospital", Vienna'
    archive.entries[2]["copyright_license"] = "../CC/odd"
    assert "named" not in (fetch(4) / "licenses" / ".._CC_odd.txt").read_text()


def test_other_formats_keep_their_ending(archive, fetch):
    archive.files["ISIC_0000000"] = jpeg(0, ".png")
    assert (fetch(2) / "images" / "ISIC_0000000.png").is_file()


def test_the_reader_reads_what_was_fetched(fetch):
    records, store = skin_lesion.read(fetch(8))
    assert records["class"].tolist() == ["benign", "malignant"] * 4
    assert records["patient"].tolist() == [f"IP_{number // 2}" for number in range(8)]
    assert records[["age", "sex", "width", "height"]].to_numpy(object)[3].tolist() == [43, "F", 40, 30]
    assert all(name in store for name in records["image"])


def test_the_columns_of_the_table_are_documented(repository):
    text = (repository / "docs" / "data_dictionary.md").read_text(encoding="utf-8")
    section = text.split("### metadata.csv (ISIC Archive)")[1].split("\n### ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)] == COLUMNS


# Going on


def test_a_second_call_asks_nobody_and_changes_nothing(archive, fetch, capsys):
    folder = fetch()
    before, asked = contents(folder), len(archive.asked)
    assert fetch() == folder
    assert "8 images of the ISIC Archive are already in" in capsys.readouterr().err
    assert contents(folder) == before
    assert len(archive.asked) == asked


def test_an_interrupted_download_goes_on_and_ends_the_same(archive, fetch, tmp_path):
    archive.plan["file"] = [None, None, None, 503]

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(patience=Patience(sleep=stop, timeout=5))
    folder = tmp_path / "skin_lesion"
    kept = names(0, 1, 2)
    assert [row["isic_id"] for row in rows(folder)] == kept
    assert "Not here: 5 of the 8 images asked for" in (folder / "SOURCES.md").read_text()
    (folder / "images" / "ISIC_0000003.jpg.part").write_bytes(b"of a process that was killed")
    archive.asked.clear()
    archive.entries.insert(0, archive.entries.pop())  # the archive has changed: the selection has not
    fetch()
    assert files_asked(archive) == names(*range(3, 8))
    assert not [asked for asked in archive.asked if asked.startswith("search")]
    archive.entries.append(archive.entries.pop(0))
    assert contents(folder) == contents(fetch(folder=tmp_path / "at once"))


def test_a_larger_limit_adds_to_what_is_there(archive, fetch):
    fetch(4)
    archive.asked.clear()
    assert len(rows(fetch(8))) == 8
    assert files_asked(archive) == names(4, 5, 6, 7)


def test_images_that_a_new_search_no_longer_gives_stay_and_are_named(archive, fetch, capsys):
    fetch(4)
    archive.entries = archive.entries[2:]
    folder = fetch(6)
    assert "2 images in" in capsys.readouterr().err
    assert (folder / "images" / "ISIC_0000000.jpg").is_file()
    assert [row["isic_id"] for row in rows(folder)] == names(*range(2, 8))


@pytest.mark.parametrize("options", [{"limit": 6}, {"query": "sex:female"}, {"collections": (7,)}])
def test_another_selection_is_not_mixed_with_it(archive, fetch, options):
    before = contents(fetch(8))
    asked = len(archive.asked)
    with pytest.raises(MedicError, match=r"another selection \(8 images for the query .* move "):
        fetch(**options)
    assert len(archive.asked) == asked
    assert contents(fetch(8)) == before


def test_a_folder_with_something_else_is_left_alone(archive, fetch, tmp_path):
    mine = tmp_path / "skin_lesion"
    mine.mkdir()
    assert len(rows(fetch(2))) == 2  # an empty one is filled
    (mine / "isic.json").write_text("{half")
    with pytest.raises(MedicError, match=r"isic\.json cannot be read .* move "):
        fetch(2)
    (mine / "isic.json").unlink()
    asked = len(archive.asked)
    with pytest.raises(MedicError, match=r"something other than a download from the ISIC Archive \(SOURCES\.md\)"):
        fetch(2)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MedicError, match=r"cannot use .*file as a folder"):
        fetch(2, tmp_path / "file")
    assert len(archive.asked) == asked


@pytest.mark.parametrize("harm", ["shorter", "another", "no image"])
def test_a_file_that_is_not_the_right_one_is_fetched_again_and_it_is_said(archive, fetch, capsys, harm):
    folder = fetch(4)
    whole = contents(folder)
    path = folder / "images" / "ISIC_0000002.jpg"
    length = path.stat().st_size
    path.write_bytes(
        {"shorter": path.read_bytes()[:-9], "another": jpeg(99)[:-2] + b"xx\xff\xd9"}.get(harm, b"x" * length)
    )
    fetch(4)
    assert "ISIC_0000002.jpg is there, but" in capsys.readouterr().err
    assert contents(folder) == whole


def test_the_table_lists_no_image_that_was_deleted(archive, fetch, tmp_path):
    folder = fetch(4)
    for path in (folder / "images").iterdir():
        path.unlink()
    archive.always["file"] = 500
    with pytest.raises(MedicError, match="no images are kept"):
        fetch(4)
    assert not (folder / "metadata.csv").exists()
    archive.always.clear()
    assert len(rows(fetch(4))) == 4


# A server that is busy, slow or broken


def test_busy_answers_are_tried_again_with_the_wait_asked_for(archive, fetch, waits, capsys):
    archive.plan = {"search": [(429, {"Retry-After": "17"}), 500], "file": [503, (429, {"Retry-After": "5"})]}
    assert len(rows(fetch(4))) == 4
    assert waits == [17, 4, 2, 5]
    assert "127.0.0.1 answered 429 Too Many Requests; waiting 17 s" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["search", "file"])
def test_a_server_that_wants_to_be_left_alone_for_long_is_asked_nothing_more(archive, fetch, waits, kind):
    archive.always[kind] = (429, {"Retry-After": "7200"})
    with pytest.raises(MedicError, match=r"come back in 7200 s.*by hand.* no images are kept"):
        fetch()
    assert sum(asked.startswith(kind) for asked in archive.asked) == 1
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "reason"), [(500, "answered 500"), ("html", "sent no JSON but '<html>"), ("hang", "timed out")]
)
def test_a_search_that_keeps_failing_comes_to_an_end(archive, fetch, waits, tmp_path, answer, reason):
    archive.always["search"] = answer
    with pytest.raises(MedicError) as caught:
        fetch(patience=Patience(attempts=3, sleep=waits.append, timeout=0.2))
    for fact in (reason, "try 3 of 3", "run it again later", "isic image download --search", "--limit 8"):
        assert fact in str(caught.value)
    assert waits == [2, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_page_in_html_in_between_is_asked_again(archive, fetch, waits):
    archive.plan["search"] = ["html"]
    assert len(rows(fetch(4))) == 4
    assert waits == [2]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"detail": "use version 3"},
        {"results": None, "next": None},
        {"results": [], "next": 7},
        {"results": ["ISIC_0000001"], "next": None},
        {"results": [lesion(1, "benign")], "next": None},
        {"results": [lesion(1, "benign", files={"full": {"url": "http://127.0.0.1/", "size": None}})], "next": None},
        {"results": [lesion(1, "benign", isic_id="../../evil", files={"full": {"url": "x", "size": 5}})], "next": None},
        {"results": [lesion(1, "benign", metadata=[], files={"full": {"url": "x", "size": 5}})], "next": None},
    ],
)
def test_json_of_another_shape_is_an_error_at_once(archive, fetch, waits, tmp_path, answer):
    archive.always["search"] = json.dumps(answer).encode()
    with pytest.raises(MedicError, match=r"another shape than that of API v2 .* may have changed; by hand"):
        fetch()
    assert waits == []
    assert list(tmp_path.iterdir()) == []


def test_a_query_that_is_not_understood_is_named_with_the_place_to_look(archive, fetch, waits):
    archive.unknown = {"benign_malignant", "diagnosis_1", "colour"}
    with pytest.raises(
        MedicError, match=r"does not understand the query 'colour:blue AND .*Could not parse.*data-diction"
    ):
        fetch(query="colour:blue")
    assert waits == []


@pytest.mark.parametrize(
    ("following", "message"),
    [
        ("https://evil.example/api/v2/images/search/?cursor=1", r"another server as the next one \(evil\.example\)"),
        ("http://127.0.0.1:1/api/v2/images/search/", "another server"),
        ("http://127.0.0.1:port/", "which is no address"),
    ],
)
def test_the_next_page_is_asked_of_the_same_server_only(archive, fetch, following, message):
    archive.next = following
    with pytest.raises(MedicError, match=message):
        fetch(40)
    assert len(archive.asked) == 1


def test_pages_that_go_round_in_circles_come_to_an_end(archive, fetch):
    archive.next = f"{archive.url}/images/search/?query=diagnosis_1%3ABenign&limit=40"
    with pytest.raises(MedicError, match="names itself or an earlier one"):
        fetch(40)
    assert len(archive.asked) <= 3


def test_an_api_that_has_moved_is_not_followed(archive, fetch):
    archive.always["search"] = (301, {"Location": "https://elsewhere.example/api/v3"})
    with pytest.raises(MedicError, match=r"has moved to https://elsewhere\.example/api/v3"):
        fetch()


def test_a_server_that_is_not_there_or_no_address_is_said(fetch, waits):
    with pytest.raises(MedicError, match=r"try 3 of 3.*by hand"):
        fetch(url="http://127.0.0.1:1/api/v2")
    for url in ("isic/api", "ftp://127.0.0.1/api", "http://127.0.0.1:port/api"):
        with pytest.raises(MedicError, match=r"cannot be asked .*by hand"):
            fetch(url=url)
    assert waits == [2, 4]


# Images that do not arrive as they should


def test_an_address_that_has_expired_is_asked_for_anew_without_waiting(archive, fetch, waits):
    archive.plan["ISIC_0000002"] = [403]
    folder = fetch(4)
    assert [asked for asked in archive.asked if "0000002" in asked] == [
        "file ISIC_0000002",
        "entry ISIC_0000002",
        "file ISIC_0000002",
    ]
    assert len(rows(folder)) == 4
    assert waits == []


def test_addresses_that_expire_between_two_calls_do_no_harm(archive, fetch, waits, tmp_path):
    archive.always["file"] = 500
    with pytest.raises(MedicError):
        fetch(4)
    archive.always.clear()
    waits.clear()
    archive.signature = "2"
    assert len(rows(fetch(4))) == 4
    assert waits == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "http://127.0.0.1:port/x", "nothing"])
def test_an_address_of_an_image_that_is_none_is_named(archive, fetch, waits, capsys, url):
    archive.entries[0]["files"] = {"full": {"url": url, "size": 100}}
    assert [row["isic_id"] for row in rows(fetch(4))] == names(1, 2, 3)
    assert "the address that the archive gives for ISIC_0000000 cannot be asked" in capsys.readouterr().err
    assert waits == []


def test_addresses_that_are_never_good_come_to_an_end(archive, fetch):
    archive.always["file"] = 403
    with pytest.raises(MedicError, match=r"3 images in a row cannot be had.*although its address is new.*by hand"):
        fetch()


def test_a_cut_or_wrong_answer_in_place_of_an_image_is_asked_again(archive, fetch, waits, tmp_path):
    whole = contents(fetch(4, tmp_path / "whole"))
    half = archive.files["ISIC_0000003"][:-20]
    archive.plan = {"ISIC_0000000": ["cut"], "ISIC_0000001": ["html"], "ISIC_0000002": ["hang"], "ISIC_0000003": [half]}
    folder = fetch(4, patience=Patience(attempts=3, sleep=waits.append, timeout=2))
    assert contents(folder) == whole
    assert waits == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("answer", "reason"), [("cut", "peer closed"), (b"no image", "no readable image"), (404, "answered 404")]
)
def test_one_image_that_stays_bad_is_named_and_the_others_arrive(archive, fetch, tmp_path, capsys, answer, reason):
    archive.always["ISIC_0000002"] = answer
    folder = fetch(8)
    assert [row["isic_id"] for row in rows(folder)] == names(0, 1, 3, 4, 5, 6, 7)
    said = capsys.readouterr().err
    assert re.search(rf"ISIC_0000002 is left out: .*{reason}", said)
    assert "left out: ISIC_0000002; give the same command again" in said
    page = (folder / "SOURCES.md").read_text()
    assert re.search(rf"^- ISIC_0000002: .*{reason}", page, re.MULTILINE)
    assert not list(folder.rglob("*.part"))
    archive.always.clear()
    archive.asked.clear()
    fetch(8)
    assert files_asked(archive) == names(2)
    assert contents(folder) == contents(fetch(8, tmp_path / "at once"))


def test_images_that_all_fail_end_the_download_and_what_arrived_is_kept(archive, fetch, tmp_path):
    archive.plan["file"] = [None, None, None]
    archive.always["file"] = 500
    with pytest.raises(MedicError) as caught:
        fetch()
    for fact in (
        "3 images in a row",
        "answered 500",
        "try 3 of 3",
        "by hand",
        "3 images are kept in",
        "goes on from there",
    ):
        assert fact in str(caught.value)
    assert len(files_asked(archive)) == 3 + 3 * 3
    assert [row["isic_id"] for row in rows(tmp_path / "skin_lesion")] == names(0, 1, 2)


def test_images_withdrawn_from_the_archive_do_not_end_the_download(archive, fetch):
    for name in names(0, 1, 2, 3):
        archive.always[name] = 404
    assert [row["isic_id"] for row in rows(fetch(8))] == names(4, 5, 6, 7)


def test_images_withdrawn_between_two_calls_do_not_end_the_download_either(archive, fetch, tmp_path):
    archive.always["file"] = (429, {"Retry-After": "9999"})
    with pytest.raises(MedicError):
        fetch(8)
    archive.always.clear()
    archive.entries = archive.entries[4:]
    assert [row["isic_id"] for row in rows(fetch(8))] == names(4, 5, 6, 7)


def test_a_class_of_which_no_image_arrives_is_an_error(archive, fetch):
    for name in names(1, 3):
        archive.always[name] = 410
    with pytest.raises(MedicError, match=r"no malignant lesion could be had.*2 images are kept"):
        fetch(4)


def test_a_size_that_differs_from_the_archives_is_taken_when_the_file_is_whole(archive, fetch, capsys):
    archive.stated["ISIC_0000001"] = 7
    folder = fetch(4)
    length = len(archive.files["ISIC_0000001"])
    assert f"ISIC_0000001 has {length} bytes, the archive says 7; it is whole, and kept" in capsys.readouterr().err
    asked = len(archive.asked)
    fetch(4)
    assert len(archive.asked) == asked  # the size is remembered
    archive.asked.clear()
    fetch(6)
    assert files_asked(archive) == names(4, 5)
    assert (folder / "images" / "ISIC_0000001.jpg").stat().st_size == length


def test_a_full_disk_is_said_and_what_arrived_is_kept(archive, fetch, tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are set with the resource module (Unix)")
    import signal

    large = np.random.default_rng(5).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    archive.files["ISIC_0000002"] = cv2.imencode(".png", large)[1].tobytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MedicError, match=r"cannot write .*free some space.* 2 images are kept"):
            fetch(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    folder = tmp_path / "skin_lesion"
    assert [row["isic_id"] for row in rows(folder)] == names(0, 1)
    assert sorted(path.name for path in (folder / "images").iterdir()) == [f"{name}.jpg" for name in names(0, 1)]
    assert len(rows(fetch(4))) == 4


def test_a_folder_that_cannot_be_written_is_said(fetch, unwritable):
    with pytest.raises(MedicError, match=r"cannot (write|use)"):
        fetch(4, unwritable / "skin_lesion")


# The command


@pytest.fixture
def at_home(archive, monkeypatch, waits):
    """The command asks the archive on loopback."""
    patience = Patience(attempts=3, sleep=waits.append, timeout=5)
    monkeypatch.setattr(module, "download_isic", partial(download_isic, url=archive.url))
    monkeypatch.setattr(module, "PATIENCE", patience)


def test_the_command_fetches_as_many_as_asked_for_and_states_the_licences(at_home, tmp_path):
    ended = CliRunner().invoke(app, ["download", "skin_lesion", "--folder", str(tmp_path), "--limit", "4"])
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.strip() == str(tmp_path / "skin_lesion")
    assert "Licence: one of CC-0, CC-BY and CC-BY-NC for each image" in ended.stderr
    assert "licences: CC-0 2, CC-BY 1, CC-BY-NC 1 (see licenses/)" in ended.stderr
    assert len(rows(tmp_path / "skin_lesion")) == 4


def test_two_hundred_are_fetched_where_no_number_is_given(archive, tmp_path, capsys):
    archive.always["file"] = (429, {"Retry-After": "9999"})
    with pytest.raises(MedicError):
        download("skin_lesion", tmp_path, url=archive.url)
    assert json.loads((tmp_path / "skin_lesion" / "isic.json").read_text())["limit"] == 200


def test_the_progress_reads_well_in_a_log(fetch, capsys):
    fetch(4)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skin lesions:")]
    assert re.fullmatch(r"skin lesions: 100%\|#+\| 4/4 .*", lines[-1])


def test_the_archive_is_among_the_sets_that_need_no_login(tmp_path):
    table = sources_table()
    assert table.loc["skin_lesion", ["login", "home"]].tolist() == ["none", "https://www.isic-archive.com"]
    with pytest.raises(MedicError, match="without a login there is retinamnist, mnist, skin_lesion"):
        download("lesions", tmp_path)


@pytest.mark.parametrize("name", ["retinamnist", "mnist", "eyepacs"])
def test_a_limit_for_a_finished_set_is_refused(name, tmp_path):
    with pytest.raises(MedicError, match=rf"{name} is a finished set.*--limit.*skin_lesion"):
        download(name, tmp_path, limit=10)
    assert list(tmp_path.iterdir()) == []


def test_a_size_for_the_archive_is_refused(tmp_path):
    with pytest.raises(MedicError, match="leave size away"):
        download("skin_lesion", tmp_path, size=224)


def test_the_papers_of_a_selection_survive_being_written_and_read(fetch):
    from medic.data.download.isic_search import Selection

    values = json.loads((fetch(4) / "isic.json").read_text())
    selection = Selection.from_dict(values)
    assert json.loads(json.dumps(selection.to_dict())) == values
    assert all(lesion.url is None for lesion in selection.lesions)
    assert dataclasses.replace(selection, limit=5) != selection
