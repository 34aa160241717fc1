"""Downloads against a server on loopback that misbehaves as servers do."""

import hashlib
import io
import json
import re
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data import download as module
from medic.data.download import MIRROR, SOURCES, RemoteFile, download, isic, retrying, sources_table
from medic.data.download.isic import download_isic
from medic.data.readers import retinopathy, skin_lesion
from medic.errors import MedicError

BODY = np.random.default_rng(0).bytes(200_000)


class Server:
    """Files by path, how the next answers misbehave, and what was asked."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.plan: dict[str, list] = {}  # by path: a status, (status, headers), bytes, "cut"; then good answers
        self.asked: list[str] = []
        self.entries: list[dict] = []
        self.signature = "1"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,)).start()

    def answer(self, handler):
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append(parts.path)
        step = self.plan[parts.path].pop(0) if self.plan.get(parts.path) else None
        status, headers, body = 200, {}, self.files.get(parts.path)
        if isinstance(step, int):
            status = step
        elif isinstance(step, tuple):
            status, headers = step
        elif isinstance(step, bytes):
            body = step
        elif parts.path == "/images/search/":
            status, body = self.search(query)
        elif parts.path.startswith("/images/"):
            body = json.dumps(self.shown(parts.path.split("/")[2])).encode()
        elif body is None:
            status = 404
        elif parts.path.startswith("/signed/") and query.get("signature") != self.signature:
            status = 403
        body = body if status == 200 else b""
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if step == "cut" else body)
        if step == "cut":
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True

    # The ISIC Archive

    def add(self, number: int, label: str, **changes) -> None:
        name = f"ISIC_{number:07d}"
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        self.files[f"/signed/{name}"] = cv2.imencode(".jpg", noise)[1].tobytes()
        clinical = {"diagnosis_1": label.capitalize(), "diagnosis_3": "Nevus", "age_approx": 40 + number, "sex": "male"}
        clinical |= {"patient_id": f"IP_{number // 2}"}
        entry = {"isic_id": name, "copyright_license": ("CC-0", "CC-BY")[number % 2], "attribution": "A\nHospital"}
        metadata = {"acquisition": {"image_type": "dermoscopic", "pixels_x": 40, "pixels_y": 30}, "clinical": clinical}
        self.entries.append(entry | {"metadata": metadata} | changes)

    def shown(self, name: str) -> dict:
        entry = next(entry for entry in self.entries if entry["isic_id"] == name)
        address = f"{self.url}/signed/{name}?signature={self.signature}"
        return {"files": {"full": {"url": address, "size": len(self.files[f"/signed/{name}"])}}} | entry

    def search(self, query: dict) -> tuple[int, bytes]:
        field, _, value = query["query"].rpartition(" AND ")[2].partition(":")
        if field != "diagnosis_1":
            return 400, b""
        found = [entry for entry in self.entries if entry["metadata"]["clinical"][field] == value]
        start = int(query.get("cursor", 0))
        following = f"{self.url}/images/search/?query={quote(query['query'])}&cursor={start + 3}"
        results = [self.shown(entry["isic_id"]) for entry in found[start : start + 3]]
        return 200, json.dumps({"results": results, "next": following if start + 3 < len(found) else None}).encode()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(retrying, "TIMEOUT", 5)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def file(server) -> RemoteFile:
    server.files["/set.npz"] = BODY
    return RemoteFile("set.npz", f"{server.url}/set.npz", hashlib.md5(BODY).hexdigest())


# One file


@pytest.mark.parametrize(
    "answers",
    [[], [503, 429, 500], [(503, {"Retry-After": "0"}), 408], ["cut", "cut"], [(429, {"Retry-After": "soon"})]],
)
def test_a_file_arrives_whatever_passes_meanwhile_and_nothing_else_is_left(answers, server, file, tmp_path, capsys):
    server.plan["/set.npz"] = list(answers)
    path = module.fetch(file, tmp_path / "downloads")
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]
    assert len(server.asked) == len(answers) + 1
    assert capsys.readouterr().err.count("of 6") == len(answers)
    assert module.fetch(file, tmp_path / "downloads") == path
    assert len(server.asked) == len(answers) + 1


@pytest.mark.parametrize(
    ("answers", "tries", "message"),
    [
        ([404], 1, "404"),
        ([403], 1, "403"),
        ([503] * 6, 6, "503"),
        ([(503, {"Retry-After": "4000"})], 1, "503"),
        ([b"another file"], 1, "does not match"),
    ],
)
def test_a_file_that_cannot_be_had_is_an_error_with_the_manual_way(answers, tries, message, server, file, tmp_path):
    server.plan["/set.npz"] = list(answers)
    with pytest.raises(MedicError, match=message) as caught:
        module.fetch(file, tmp_path)
    assert f"by hand: save {file.url} as {tmp_path / 'set.npz'} (MD5 {file.md5})" in str(caught.value)
    assert (len(server.asked), list(tmp_path.iterdir())) == (tries, [])


def test_what_is_there_by_hand_is_used_if_right_and_never_overwritten(server, file, tmp_path, unwritable, monkeypatch):
    (tmp_path / "set.npz").write_bytes(BODY)
    module.fetch(file, tmp_path)
    (tmp_path / "set.npz").write_bytes(b"something else")
    with pytest.raises(MedicError, match="is not the published file; delete it, or by hand"):
        module.fetch(file, tmp_path)
    assert (tmp_path / "set.npz").read_bytes() == b"something else"
    assert server.asked == []
    for wrong in (replace(file, url="nothing"), replace(file, url="http://127.0.0.1:9/set.npz")):
        monkeypatch.setattr(retrying, "TRIES", 2)
        with pytest.raises(MedicError, match="was not downloaded"):
            module.fetch(wrong, tmp_path / "elsewhere")
    with pytest.raises(MedicError, match="was not downloaded"):
        module.fetch(file, unwritable)


# Whole sets


@pytest.fixture
def retinamnist(server, monkeypatch) -> Server:
    random, arrays = np.random.default_rng(1), {}
    for split, count in {"train": 6, "val": 2, "test": 4}.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 16, 16, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 5
    server.arrays = arrays

    def publish(**changes):
        packed = io.BytesIO()
        np.savez(packed, **{key: value for key, value in (arrays | changes).items() if value is not None})
        server.files["/small.npz"] = packed.getvalue()
        remote = RemoteFile("small.npz", f"{server.url}/small.npz", hashlib.md5(packed.getvalue()).hexdigest())
        small = replace(SOURCES["retinamnist"], images={"train": 6, "validation": 2, "test": 4}, files={16: remote})
        monkeypatch.setitem(SOURCES, "retinamnist", small)

    server.publish = publish
    publish()
    return server


def test_retinamnist_becomes_the_layout_that_the_reader_reads(retinamnist, tmp_path, capsys):
    target = download("retinamnist", tmp_path)
    records, store = retinopathy.read(target)
    assert records["split"].value_counts().to_dict() == {"train": 6, "validation": 2, "test": 4}
    shown = cv2.imdecode(np.frombuffer(store.read("images/retinamnist_test_0003.png"), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert (shown == retinamnist.arrays["test_images"][2]).all()
    assert "CC BY 4.0" in (target / "SOURCES.md").read_text()
    assert "Licence: CC BY 4.0" in capsys.readouterr().err
    asked = len(retinamnist.asked)
    download("retinamnist", tmp_path)
    assert "already in" in capsys.readouterr().err
    assert len(retinamnist.asked) == asked
    (target / "images/retinamnist_test_0003.png").unlink()
    with pytest.raises(MedicError, match="holds something other than a whole retinamnist"):
        download("retinamnist", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, "cannot be read"),
        ({"test_images": np.zeros((3, 16, 16, 3), np.uint8)}, r"test_images are uint8 \(3, 16"),
        ({"train_images": np.zeros((6, 16, 16, 3))}, "train_images are float64"),
        ({"test_labels": np.full((4, 1), 5)}, "from 5 to 5"),
    ],
)
def test_an_archive_of_other_arrays_leaves_no_set(changes, message, retinamnist, tmp_path):
    retinamnist.publish(**changes)
    with pytest.raises(MedicError, match=message):
        download("retinamnist", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_a_set_is_fetched_as_published_from_a_mirror_too_and_not_mixed_with_another(server, tmp_path, monkeypatch):
    names = [file.name for file in SOURCES["mnist"].as_published]
    server.files = {f"/copy/{name}": name.encode() for name in names}
    files = [replace(f, md5=hashlib.md5(f.name.encode()).hexdigest()) for f in SOURCES["mnist"].as_published]
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], as_published=tuple(files)))
    monkeypatch.setenv(MIRROR, f"{server.url}/copy/")
    server.plan["/copy/" + names[2]] = [404]
    with pytest.raises(MedicError, match=re.escape(files[2].url)):
        download("mnist", tmp_path)
    assert not (tmp_path / "digits").exists()
    target = download("mnist", tmp_path)
    assert sorted(path.name for path in target.iterdir()) == sorted([*names, "SOURCES.md"])
    assert len(server.asked) == len(names) + 1
    assert (target / names[0]).read_bytes() == names[0].encode()
    (tmp_path / "retinopathy").mkdir()
    (tmp_path / "retinopathy" / "mine.csv").write_text("a")
    with pytest.raises(MedicError, match="holds something other"):
        download("retinamnist", tmp_path)


# The registry


def test_the_registry_states_the_published_facts():
    files = SOURCES["retinamnist"].files
    assert files[224].url == "https://zenodo.org/records/10519652/files/retinamnist_224.npz?download=1"
    assert [files[size].md5[:8] for size in (64, 224)] == ["afda852c", "eae7e3b6"]
    assert [file.md5[:8] for file in SOURCES["mnist"].as_published] == ["f68b3c2d", "d53e105e", "9fb629c4", "ec29112d"]
    table = sources_table()
    assert table.loc["retinamnist", ["train", "validation", "test"]].tolist() == [1080, 120, 400]
    assert table["login"].to_dict() | {"eyepacs": "Kaggle", "skin_lesion": "none"} == table["login"].to_dict()
    assert table.loc["nih_chest_xray14", ["train", "test"]].sum() == 112_120


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retinamnist", {"size": 128}, "but at 64 or 224"),
        ("skin_lesion", {"size": 128}, "but at one size only"),
        ("mnist", {"limit": 5}, "leave the limit away"),
        ("skin_lesion", {"limit": 1}, "cannot be of two classes"),
        ("retinopathy", {}, "retinopathy is not one set; without a login there is retinamnist, mnist"),
        ("messidor", {}, "no set called 'messidor'; .* Kaggle account eyepacs, eyepacs_resized, aptos2019"),
        ("eyepacs", {}, "kaggle competitions download -c diabetic-retinopathy-detection -f train.zip"),
        ("aptos2019", {}, "accept the rules(.|\n)*-c aptos2019-blindness-detection"),
        ("nih_chest_xray14", {}, "without an account: open https://nihcc.app.box.com/v/ChestXray-NIHCC"),
    ],
)
def test_what_cannot_be_fetched_is_refused_with_what_to_do(name, options, message, tmp_path):
    with pytest.raises(MedicError, match=message) as caught:
        download(name, tmp_path / "my data", **options)
    assert "{" not in str(caught.value)
    if SOURCES.get(name, SOURCES["mnist"]).needs_login:
        assert f'"{(tmp_path / "my data" / "downloads").as_posix()}"' in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# The ISIC Archive


@pytest.fixture
def archive(server) -> Server:
    for number in range(20):
        server.add(number, ("benign", "malignant")[number % 2])
    return server


@pytest.fixture
def fetch(archive, tmp_path):
    return lambda limit: download_isic(tmp_path / "skin_lesion", limit=limit, url=archive.url)


def test_both_classes_arrive_in_equal_parts_with_their_papers(archive, fetch, repository):
    folder = fetch(9)
    records, store = skin_lesion.read(folder)
    assert records["class"].value_counts().to_dict() == {"benign": 5, "malignant": 4}
    assert records["patient"].tolist() == [f"IP_{number // 2}" for number in range(9)]
    assert all(name in store for name in records["image"])
    table = pd.read_csv(folder / "metadata.csv")
    first = (folder / "images" / "ISIC_0000000.jpg").read_bytes()
    assert table.loc[0, "sha256"] == hashlib.sha256(first).hexdigest()
    assert (folder / "attribution.txt").read_text().splitlines()[0] == "A Hospital (CC-0): 5 images"
    assert sorted(path.name for path in (folder / "licenses").iterdir()) == ["CC-0.txt", "CC-BY.txt"]
    documented = (repository / "docs/data_dictionary.md").read_text().split("### metadata.csv (ISIC")[1].split("###")[0]
    cells = [line.split("|")[1] for line in documented.splitlines() if line.startswith("| `")]
    assert [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)] == list(table)


def test_called_again_it_fetches_only_what_is_new(archive, fetch):
    before = fetch(4)
    kept = (before / "metadata.csv").read_text().splitlines()
    archive.asked.clear()
    fetch(4)
    assert not [path for path in archive.asked if path.startswith("/signed/")]
    (before / "images" / "ISIC_0000001.jpg").write_bytes(b"cut off")
    folder = fetch(6)
    signed = [path for path in archive.asked if path.startswith("/signed/")]
    assert sorted(signed) == [f"/signed/ISIC_000000{number}" for number in (1, 4, 5)]
    assert (folder / "metadata.csv").read_text().splitlines()[: len(kept)] == kept


def test_where_one_class_has_fewer_the_other_makes_up_for_it(archive, fetch, capsys):
    archive.entries = [entry for n, entry in enumerate(archive.entries) if n % 2 == 0 or n == 1]
    assert len(pd.read_csv(fetch(8) / "metadata.csv")) == 8
    fetch(30)
    assert "the archive has 11 lesions for the query 'image_type:dermoscopic', not 30" in capsys.readouterr().err


def test_entries_without_licence_or_diagnosis_and_images_that_stay_bad_are_left_out_and_named(archive, fetch, capsys):
    archive.entries[0]["copyright_license"] = ""
    archive.plan = {"/signed/ISIC_0000002": [b"no image"] * 6, "/signed/ISIC_0000003": [404]}
    table = pd.read_csv(fetch(6) / "metadata.csv")
    assert table["isic_id"].tolist() == [f"ISIC_000000{number}" for number in (1, 4, 5, 6)]
    said = capsys.readouterr().err
    assert "1 entries are left out: found as benign" in said
    assert "ISIC_0000002 is left out: what arrived for ISIC_0000002 cannot be used" in said


@pytest.mark.parametrize(
    "plan",
    [
        {"/images/search/": [503, b"<html>", "cut"]},
        {"/signed/ISIC_0000000": [(429, {"Retry-After": "0"}), "cut", b"<html>"]},
    ],
)
def test_what_passes_is_asked_again(plan, archive, fetch):
    archive.plan = plan
    assert len(pd.read_csv(fetch(4) / "metadata.csv")) == 4


def test_an_address_that_has_expired_is_asked_for_anew(archive, fetch, monkeypatch):
    select = isic._select

    def late(*arguments):
        found = select(*arguments)
        archive.signature = "2"
        return found

    monkeypatch.setattr(isic, "_select", late)
    assert len(pd.read_csv(fetch(4) / "metadata.csv")) == 4


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"/images/search/": [503] * 6}, "503"),
        ({"/images/search/": [400, 400]}, "400"),
        ({"/images/search/": [b"{}"]}, "results"),
        ({"/images/search/": [b'{"results": [], "next": "http://127.0.0.2/x"}']}, "a page of another server"),
        ({f"/signed/ISIC_000000{number}": [503] * 6 for number in range(4)}, "503"),
    ],
)
def test_a_server_that_keeps_failing_ends_the_download_with_the_manual_way(plan, message, archive, fetch):
    archive.plan = plan
    with pytest.raises(
        MedicError, match=f"not all downloaded .*{message}(.|\n)*the same command goes on. By hand: pip"
    ):
        fetch(8)


def test_a_class_that_is_missing_and_a_folder_of_something_else_are_refused(archive, fetch, tmp_path):
    archive.entries = archive.entries[::2]
    with pytest.raises(MedicError, match="no malignant lesion for the query"):
        fetch(4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.csv").write_text("isic_id\n")
    with pytest.raises(MedicError, match="holds something other than a download of the ISIC Archive"):
        download_isic(tmp_path / "other", limit=4, url=archive.url)
