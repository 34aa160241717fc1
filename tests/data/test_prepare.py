"""The prepared set: made once, gone on with after an interruption, honest about what it left out."""

import errno
import fcntl
import itertools
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.split import split_by_patient
from medic.data.stores import open_store
from medic.errors import MedicError

SETTINGS = Preprocessing(size=64)
PREPARE = """
import sys, time
from medic.data.prepare import prepare
from medic.data.images.preprocess import Preprocessing
from medic.data.readers import retinopathy

slowly, pixels = float(sys.argv[3]), Preprocessing.pixels
Preprocessing.pixels = lambda self, data: (time.sleep(slowly), pixels(self, data))[1]
prepare(*retinopathy.read(sys.argv[1]), sys.argv[2], Preprocessing(size=64), workers=2)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """What a prepared set consists of; the journal's order depends on the run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("journal.jsonl", "manifest.json") and not path.name.endswith(".part")
    }


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory) -> Prepared:
    return prepare(*retinopathy.read(tiny), tmp_path_factory.mktemp("undisturbed") / "set", SETTINGS)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows by one for every image that is decoded."""
    calls, pixels = [], Preprocessing.pixels

    def counting(self: Preprocessing, data: bytes) -> np.ndarray:
        calls.append(len(data))
        return pixels(self, data)

    monkeypatch.setattr(Preprocessing, "pixels", counting)
    return calls


def test_every_readable_image_is_there_at_the_asked_size(tiny, undisturbed):
    records, store = retinopathy.read(tiny)
    assert len(undisturbed.records) + len(undisturbed.skipped) == len(records)
    for row in undisturbed.records.itertuples():
        pixels = undisturbed.pixels(row.file)
        assert pixels.shape == (64, 64, 3)
    first = undisturbed.records.iloc[0]
    from_bytes = SETTINGS.pixels(store.read(first["image"])).astype(int)
    assert np.abs(undisturbed.pixels(first["file"]) - from_bytes).mean() < 3


def test_what_could_not_be_read_is_listed_with_the_reason(tiny, undisturbed):
    faults = pd.read_csv(tiny / "planted_faults.csv").set_index("fault")["image"]
    reasons = undisturbed.skipped.set_index("image")["reason"].to_dict()
    assert reasons == {
        f"images/{faults['truncated']}.jpeg": "truncated",
        f"images/{faults['not an image']}.jpeg": "unsupported",
    }
    assert undisturbed.skipped["detail"].str.len().min() > 20
    assert not set(undisturbed.skipped["image"]) & set(undisturbed.records["image"])


def test_listed_but_absent_images_are_skipped_not_forgotten(tiny, tmp_path):
    records, store = retinopathy.read(tiny)
    records.loc[:2, "image"] = ["gone_left", "0012", "NA"]
    prepared = prepare(records, store, tmp_path / "set", SETTINGS)
    absent = prepared.skipped[prepared.skipped["reason"] == "absent"]
    assert list(absent["image"]) == ["gone_left", "0012", "NA"]


def test_a_link_that_leads_nowhere_is_skipped_with_the_reason(tiny, tmp_path):
    folder = tmp_path / "originals"
    shutil.copytree(tiny, folder)
    records, store = retinopathy.read(folder)
    name = records["image"][0]
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "nowhere")
    prepared = prepare(records, store, tmp_path / "set", SETTINGS)
    assert prepared.skipped.set_index("image")["reason"][name] == "unreadable"


def test_when_nothing_can_be_read_it_is_an_error_with_the_first_reason(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpeg").write_text("no photograph")
    records = pd.DataFrame({"image": ["a.jpeg"], "patient": ["a"], "split": ["train"], "label": [0]})
    with pytest.raises(MedicError, match=r"not one of 1 images .* a\.jpeg, unsupported"):
        prepare(records, open_store(tmp_path / "in"), tmp_path / "set", SETTINGS)
    with pytest.raises(MedicError, match="no complete prepared set"):
        Prepared.load(tmp_path / "set")


def test_a_repeated_call_decodes_nothing_and_changes_nothing(tiny, undisturbed, tmp_path, decoded):
    folder = tmp_path / "set"
    shutil.copytree(undisturbed.folder, folder)
    prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert decoded == []
    assert contents(folder) == contents(undisturbed.folder)


def test_a_changed_original_is_prepared_anew_and_only_that(tiny, tmp_path, decoded):
    originals, folder = tmp_path / "originals", tmp_path / "set"
    shutil.copytree(tiny, originals)
    before = prepare(*retinopathy.read(originals), folder, SETTINGS)
    changed, taken = before.records["image"][0], before.records["image"][1]
    (originals / changed).write_bytes((originals / taken).read_bytes() + b"more")
    decoded.clear()
    after = prepare(*retinopathy.read(originals), folder, SETTINGS)
    assert len(decoded) == 1
    files = [table.set_index("image")["file"] for table in (before.records, after.records)]
    assert files[0][changed] != files[1][changed]
    assert files[0].drop(changed).equals(files[1].drop(changed))


def test_a_mended_original_is_taken_in(tiny, tmp_path):
    originals, folder = tmp_path / "originals", tmp_path / "set"
    shutil.copytree(tiny, originals)
    before = prepare(*retinopathy.read(originals), folder, SETTINGS)
    mended = before.skipped["image"][0]
    (originals / mended).write_bytes((originals / before.records["image"][0]).read_bytes())
    after = prepare(*retinopathy.read(originals), folder, SETTINGS)
    assert mended in set(after.records["image"])
    assert mended not in set(after.skipped["image"])


def test_other_settings_make_another_set_in_the_same_folder(tiny, tmp_path):
    prepare(*retinopathy.read(tiny), tmp_path / "set", SETTINGS)
    square = prepare(*retinopathy.read(tiny), tmp_path / "set", Preprocessing(size=32, crop="square"))
    assert square.preprocessing == Preprocessing(size=32, crop="square")
    assert square.pixels(square.records["file"][0]).shape == (32, 32, 3)


def test_a_prepared_image_that_was_deleted_is_made_again(tiny, undisturbed, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(undisturbed.folder, folder)
    (folder / undisturbed.records["file"][0]).unlink()
    prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert contents(folder) == contents(undisturbed.folder)


def test_preparing_killed_half_way_and_started_again_ends_as_if_undisturbed(tiny, undisturbed, tmp_path):
    folder = tmp_path / "set"
    command = [sys.executable, "-c", PREPARE, str(tiny), str(folder)]
    process = subprocess.Popen([*command, "0.2"])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("images/*/*.jpg"))) < 15:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    made = len(list(folder.glob("images/*/*.jpg")))
    assert 15 <= made < len(undisturbed.records) - 10
    with pytest.raises(MedicError, match=r"no complete prepared set; .* it goes on"):
        Prepared.load(folder)
    subprocess.run([*command, "0"], check=True)
    assert contents(folder) == contents(undisturbed.folder)


def test_a_full_disk_is_an_error_and_with_space_it_goes_on_where_it_stopped(
    tiny, undisturbed, tmp_path, monkeypatch, decoded
):
    folder, numbers, write = tmp_path / "set", itertools.count(), Path.write_bytes

    def until_full(self: Path, data: bytes) -> int:
        if next(numbers) < 20:
            return write(self, data)
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        with pytest.raises(MedicError, match="No space left on device; free some space"):
            prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert not list(folder.rglob("*.part"))
    assert not (folder / "manifest.json").exists()
    assert 0 < len(list(folder.glob("images/*/*.jpg"))) <= 20
    decoded.clear()
    prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert len(decoded) <= len(undisturbed.records) + len(undisturbed.skipped) - 10
    assert contents(folder) == contents(undisturbed.folder)
    assert not list(folder.rglob("*.part"))


def test_a_journal_line_cut_off_by_a_kill_is_passed_over(tiny, undisturbed, tmp_path, decoded):
    folder = tmp_path / "set"
    shutil.copytree(undisturbed.folder, folder)
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:25])
    prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert len(decoded) <= 1
    assert contents(folder) == contents(undisturbed.folder)
    again = journal.read_text().splitlines()
    assert json.loads(again[-1])["image"] == json.loads(lines[-1])["image"]
    decoded.clear()
    prepare(*retinopathy.read(tiny), folder, SETTINGS)
    assert decoded == []


SLOWLY = """
import time
from medic.data.parallel import each

for _ in each(lambda number: time.sleep(0.05), list(range(100)), title="preparing", workers=1):
    pass
"""


def test_progress_shows_the_rate_and_the_time_left_on_a_terminal():
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    subprocess.run([sys.executable, "-c", SLOWLY], stderr=terminal, check=True)
    shown = os.read(controller, 1 << 16).decode()
    os.close(terminal)
    assert re.search(r"preparing: +\d+%.* \d+/100 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+image/s\]", shown)


def test_progress_ends_with_the_rate_in_a_log_and_has_few_lines_there():
    shown = subprocess.run([sys.executable, "-c", SLOWLY], stderr=subprocess.PIPE, text=True, check=True).stderr
    assert re.search(r"preparing: 100%.* 100/100 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+image/s\]", shown)
    assert shown.count("preparing") <= 3


def test_a_place_that_cannot_be_written_is_an_error(tiny, unwritable):
    with pytest.raises(MedicError, match="cannot write"):
        prepare(*retinopathy.read(tiny), unwritable, SETTINGS)


def test_the_set_keeps_the_splits_it_was_given(tiny, tmp_path):
    records, store = retinopathy.read(tiny)
    dealt = split_by_patient(records, validation=0.25)
    prepared = prepare(dealt, store, tmp_path / "set", SETTINGS)
    kept = dealt.set_index("image")["split"]
    assert (prepared.records["split"].to_numpy() == kept[prepared.records["image"]].to_numpy()).all()
    assert set(prepared.split("validation")["split"]) == {"validation"}
    redealt = prepare(split_by_patient(records, validation=0.25, seed=1), store, tmp_path / "set", SETTINGS)
    assert list(redealt.records["split"]) != list(prepared.records["split"])


def test_a_split_without_images_is_refused_with_those_there_are(undisturbed):
    with pytest.raises(MedicError, match="no images in the split 'validation', only in test, train"):
        undisturbed.split("validation")


def test_the_originals_are_found_again_from_another_working_folder(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny, tmp_path / "project" / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    prepare(*retinopathy.read("data"), "outputs/set", SETTINGS)
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.move(tmp_path / "project", tmp_path / "moved")
    prepared = Prepared.load("../moved/outputs/set")
    assert prepared.store.read(prepared.records["image"][0]).startswith(b"\xff\xd8")
    assert str(tmp_path) not in (tmp_path / "moved" / "outputs" / "set" / "manifest.json").read_text()


def test_a_zip_is_prepared_as_its_folder_is(tiny, undisturbed, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny))
    prepared = prepare(*retinopathy.read(archive), tmp_path / "set", SETTINGS)
    assert prepared.records.equals(undisturbed.records)
    assert contents(prepared.folder) == contents(undisturbed.folder)


def test_a_set_of_generated_photographs_says_so(undisturbed, tmp_path, tiny):
    assert undisturbed.synthetic
    records, _ = retinopathy.read(tiny)
    shutil.copytree(tiny / "images", tmp_path / "photographs" / "images")
    prepared = prepare(records, open_store(tmp_path / "photographs"), tmp_path / "set", SETTINGS)
    assert not prepared.synthetic


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", "{", "is damaged"),
        ("manifest.json", "{}", "is damaged"),
        ("manifest.json", '{"format": 0}', "has format 0, not 2"),
        ("records.csv", None, "no complete prepared set"),
    ],
)
def test_a_damaged_or_foreign_set_is_refused(file, content, message, undisturbed, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(undisturbed.folder, folder)
    if content is None:
        (folder / file).unlink()
    else:
        if '"format": 0' in content:
            content = (folder / file).read_text().replace('"format": 2', '"format": 0')
        (folder / file).write_text(content)
    with pytest.raises(MedicError, match=message):
        Prepared.load(folder)
