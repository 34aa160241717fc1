"""Downloads against a server on loopback that misbehaves as servers do."""

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.data import download as downloading
from medic.data.download import SOURCES, download, sources_table
from medic.data.readers import retinopathy, skin_lesion
from medic.errors import MedicError


@pytest.fixture
def server(monkeypatch):
    """Files by path; the next answers of a path that misbehave (a status, another body, "cut"); and what was asked."""
    web = SimpleNamespace(files={}, plan={}, asked=[], entries=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = self.path.partition("?")
            web.asked.append(path)
            step = web.plan[path].pop(0) if web.plan.get(path) else None
            body = search(web, **dict(parse_qsl(query))) if "search" in path else web.files.get(path, b"")
            body = step if isinstance(step, bytes) else body
            self.send_response(step if isinstance(step, int) else 200)
            self.send_header("Content-Length", len(body))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if step == "cut" else body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,)).start()
        web.url = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr(downloading, "API", web.url)
        yield web
        running.shutdown()


def search(web, query: str, cursor: str = "0", limit: str = "100") -> bytes:
    """A page of two entries of the ISIC Archive."""
    found = [entry for entry in web.entries if query.endswith(entry["metadata"]["clinical"]["diagnosis_1"])]
    shown, rest = found[int(cursor) : int(cursor) + 2], found[int(cursor) + 2 :]
    following = f"{web.url}/images/search/?{urlencode({'query': query, 'cursor': int(cursor) + 2})}"
    return json.dumps({"results": shown, "next": following if rest else None}).encode()


def publish(server, monkeypatch, name: str, *bodies: bytes) -> None:
    """Let the bodies be the files of a known set."""
    files = []
    for file, body in zip(SOURCES[name]["files"], bodies, strict=True):
        files.append(file | {"url": f"{server.url}/{file['name']}", "md5": hashlib.md5(body).hexdigest()})
        server.files[f"/{file['name']}"] = body
    monkeypatch.setitem(SOURCES[name], "files", files)


@pytest.fixture
def third(server, monkeypatch) -> SimpleNamespace:
    """One of the four files of a set, whose content is ``b"three"``."""
    publish(server, monkeypatch, "mnist", b"one", b"two", b"three", b"four")
    return SimpleNamespace(**SOURCES["mnist"]["files"][2])


@pytest.mark.parametrize("plan", [[], [503, 429, 500], [b"another file", 408], ["cut", "cut"]])
def test_files_arrive_whatever_passes_meanwhile_and_are_not_fetched_twice(plan, third, server, tmp_path):
    server.plan[f"/{third.name}"] = list(plan)
    for _ in range(2):
        target = download("mnist", tmp_path)
        assert (target / third.name).read_bytes() == b"three"
        assert len(list(target.iterdir())) == 5
        assert len(server.asked) == 4 + len(plan)
    assert f"| `{third.name}` | {third.url} | {third.md5} |" in (target / "SOURCES.md").read_text()


@pytest.mark.parametrize(("answer", "message"), [(404, "404"), (b"<html>", "does not match"), ("cut", "bytes read")])
def test_a_file_that_cannot_be_had_can_be_laid_there_by_hand(answer, message, third, server, tmp_path):
    server.plan[f"/{third.name}"] = [answer] * 6
    with pytest.raises(MedicError, match=message) as caught:
        download("mnist", tmp_path)
    assert f"save {third.url} as {tmp_path / 'downloads' / third.name} (MD5 {third.md5})" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]
    (tmp_path / "downloads" / third.name).write_bytes(b"three")
    assert download("mnist", tmp_path).is_dir()
    assert server.asked.count(f"/{third.name}") == 6


def test_retinamnist_becomes_the_layout_that_the_reader_reads(server, tmp_path, monkeypatch, capsys):
    arrays, random = {}, np.random.default_rng(1)
    for split, count in {"train": 6, "val": 2, "test": 4}.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 16, 16, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 5
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    publish(server, monkeypatch, "retinamnist", packed.getvalue())
    target = download("retinamnist", tmp_path)
    assert sources_table().loc["retinamnist", ["train", "validation", "test"]].tolist() == [1080, 120, 400]
    records, store = retinopathy.read(target)
    assert records[records["split"] == "test"]["label"].tolist() == [0, 1, 2, 3]
    shown = Image.open(io.BytesIO(store.read("images/retinamnist_test_0003.png")))
    assert (np.asarray(shown) == arrays["test_images"][2]).all()
    assert "CC BY 4.0" in (target / "SOURCES.md").read_text()
    assert "Licence: CC BY 4.0" in capsys.readouterr().err
    (target / "SOURCES.md").write_text("another set")
    with pytest.raises(MedicError, match="holds something other than retinamnist"):
        download("retinamnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {"limit": 5}, "leave the limit away"),
        ("messidor", {}, "no set called 'messidor'; there is retinamnist, .*eyepacs"),
        ("eyepacs", {}, "download -c diabetic-retinopathy-detection -f trainLabels.csv.zip -p '{downloads}'"),
        ("aptos2019", {}, "accept the rules(.|\n)*-c aptos2019-blindness-detection -p '{downloads}'"),
        ("nih_chest_xray14", {}, "without an account: open https://nihcc.app.box.com/v/ChestXray-NIHCC"),
    ],
)
def test_what_cannot_be_fetched_is_refused_with_what_to_do(name, options, message, tmp_path):
    downloads = (tmp_path / "my data" / "downloads").as_posix()
    with pytest.raises(MedicError, match=message.replace("{downloads}", downloads)) as caught:
        download(name, tmp_path / "my data", **options)
    assert "{" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def archive(server, encode) -> SimpleNamespace:
    """20 lesions, benign and malignant in turn, two of a patient."""
    for number in range(20):
        name, label = f"ISIC_{number:07d}", ("Benign", "Malignant")[number % 2]
        server.files[f"/{name}"] = encode(np.full((30, 40, 3), number, np.uint8), "JPEG")
        clinical = {"diagnosis_1": label, "diagnosis_3": "Nevus", "age_approx": 40, "patient_id": f"IP_{number // 2}"}
        acquisition = {"image_type": "dermoscopic", "pixels_x": 40, "pixels_y": 30}
        entry = {"isic_id": name, "copyright_license": ("CC-0", "CC-BY")[number % 2], "attribution": "A\nHospital"}
        entry["metadata"] = {"acquisition": acquisition, "clinical": clinical}
        server.entries.append(entry | {"files": {"full": {"url": f"{server.url}/{name}"}}})
    return server


def fetch(folder, limit: int) -> list[int]:
    """Fetch so many images; give the numbers of those that are there then."""
    table = pd.read_csv(download("skin_lesion", folder, limit=limit) / "metadata.csv")
    return [int(name[5:]) for name in table["isic_id"]]


def test_both_classes_arrive_in_equal_parts_with_whom_to_name(archive, tmp_path):
    assert fetch(tmp_path, 9) == list(range(9))
    records, store = skin_lesion.read(tmp_path / "skin_lesion")
    assert records["class"].value_counts().to_dict() == {"benign": 5, "malignant": 4}
    assert records["patient"].tolist() == [f"IP_{number // 2}" for number in range(9)]
    table = pd.read_csv(tmp_path / "skin_lesion/metadata.csv")
    assert table.loc[0, "sha256"] == hashlib.sha256(store.read("images/ISIC_0000000.jpg")).hexdigest()
    assert table.loc[0, ["attribution", "copyright_license"]].tolist() == ["A Hospital", "CC-0"]
    assert list(table) == downloading.COLUMNS


def test_a_larger_limit_adds_to_what_is_there_and_one_class_makes_up_for_the_other(archive, tmp_path, capsys):
    archive.entries = archive.entries[:2] + archive.entries[2::2]
    assert fetch(tmp_path, 4) == [0, 1, 2, 4]
    archive.asked.clear()
    assert fetch(tmp_path, 6) == [0, 1, 2, 4, 6, 8]
    assert [path for path in archive.asked if path.startswith("/ISIC")] == ["/ISIC_0000006", "/ISIC_0000008"]
    fetch(tmp_path, 30)
    assert "the archive has 11 lesions for the query 'image_type:dermoscopic', not 30" in capsys.readouterr().err


def test_what_cannot_be_had_or_has_no_licence_is_named_and_the_next_one_taken(archive, tmp_path, capsys):
    archive.entries[0]["copyright_license"] = ""
    archive.plan = {"/ISIC_0000002": [b"no image"], "/ISIC_0000003": [404], "/ISIC_0000005": [503, 429, "cut"]}
    assert fetch(tmp_path, 4) == [1, 4, 5, 6]
    said = capsys.readouterr().err
    for number in (0, 2, 3):
        assert f"ISIC_000000{number} is left out: " in said


@pytest.mark.parametrize(
    ("path", "answers", "message"),
    [
        ("/images/search/", [503] * 6, "503"),
        ("/images/search/", [b"{}"], "results"),
        ("/images/search/", [b"<html>"], "JSONDecodeError"),
        ("/ISIC_0000002", [503] * 6, "503"),
    ],
)
def test_where_a_server_keeps_failing_the_same_command_goes_on(path, answers, message, archive, tmp_path):
    archive.plan[path] = list(answers)
    with pytest.raises(MedicError, match=f"not all downloaded .*{message}(.|\n)*same command goes on. By hand: pip"):
        fetch(tmp_path, 4)
    assert fetch(tmp_path, 4) == [0, 1, 2, 3]


def test_an_archive_without_one_of_the_classes_is_refused(archive, tmp_path):
    archive.entries = archive.entries[::2]
    with pytest.raises(MedicError, match="no malignant lesion for the query"):
        fetch(tmp_path, 4)
