"""A report of findings holds its pictures, says what is synthetic, and asks nobody for anything."""

import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from medic.cli import app
from medic.data.check import check
from medic.data.check.report import EXAMPLES, KINDS, LISTED, check_set, sets_in, write_report
from medic.data.readers import DATA_SETS, OWN, retinopathy
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.task import RETINOPATHY, SKIN_LESION


@pytest.fixture(scope="module")
def page(sample, tmp_path_factory) -> str:
    records, store = retinopathy.read(sample)
    findings = check(records, store, RETINOPATHY)
    path = write_report(findings, records, store, RETINOPATHY, tmp_path_factory.mktemp("report") / "findings.html")
    return path.read_text(encoding="utf-8")


def test_the_page_counts_and_explains_each_kind(page):
    assert "<h1>6 findings: 4 to mend, 2 to look at</h1>" in page
    for kind in ("identical", "truncated", "unsupported", "nearly_black", "blurred"):
        assert f'<section id="{kind}"' in page
        assert KINDS[kind].do in page
    assert "near_duplicate" not in page


def test_the_page_says_that_the_set_is_synthetic(page):
    assert "Synthetic set." in page


def test_the_page_asks_nobody_for_anything(page):
    assert "default-src 'none'" in page
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\(|@import|https?://", page)


def test_duplicates_stand_side_by_side_with_their_labels(page):
    (group,) = re.findall(r"<article class=group>.*?</article>", page, re.DOTALL)
    assert group.count("<img ") == 2
    assert "<b>Moderate</b>" in group
    assert "<b>No DR</b>" in group
    assert "<span>labels differ</span><span>two patients</span>" in group


def test_pictures_are_small_jpegs_and_broken_files_have_none(page):
    pictures = re.findall(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", page)
    assert len(pictures) == 4  # two identical, one nearly black, one blurred
    assert max(map(len, pictures)) < 20_000
    assert page.count("no picture") == 2


@pytest.fixture
def many(tmp_path) -> tuple:
    pixels = np.full((20, 30, 3), 120, np.uint8)
    for number in range(30):
        Image.fromarray(pixels).save(tmp_path / f"{number:02} <b>&.png")
    names = open_store(tmp_path).names()
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})
    return records, open_store(tmp_path)


def test_of_many_findings_some_are_shown_others_listed_and_the_rest_counted(many, tmp_path):
    records, store = many
    findings = pd.DataFrame({"image": records["image"], "finding": "blurred", "detail": "soft <i>&", "other": ""})
    findings = pd.concat([findings, findings.iloc[[0] * (LISTED + 10)]], ignore_index=True)
    text = write_report(findings, records, store, SKIN_LESION, tmp_path / "page.html").read_text()
    assert text.count("<figure>") == EXAMPLES
    assert text.count("soft &lt;i&gt;&amp;") == EXAMPLES + LISTED
    assert f"and {30 + 10 - EXAMPLES:,} more, in the table" in text
    assert "<b>&amp;" not in text
    assert "Synthetic set." not in text


def test_a_set_without_findings_says_so(many, tmp_path):
    records, store = many
    none = pd.DataFrame(columns=["image", "finding", "detail", "other"])
    text = write_report(none, records, store, SKIN_LESION, tmp_path / "page.html", "my <lesions>").read_text()
    assert "<h1>Nothing was found</h1>" in text
    assert "check of my &lt;lesions&gt;" in text


def test_suspected_labels_and_kinds_of_ones_own_are_shown_too(many, tmp_path):
    records, store = many
    found = pd.DataFrame(
        {"image": records["image"][:2], "finding": ["mislabelled", "my_kind"], "detail": "look", "quality": [0.1, 0.2]}
    )
    text = write_report(found, records, store, SKIN_LESION, tmp_path / "page.html").read_text()
    assert "Probably labelled wrongly" in text
    assert "My kind" in text


# The command


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def data(tiny, tmp_path):
    """A data folder with one line's set and one folder that is none."""
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder / "retinopathy")
    (folder / "others").mkdir()
    return folder


def test_every_set_in_a_data_folder_is_checked_and_written(data, tmp_path):
    result = CliRunner().invoke(app, ["check", str(data), "--to", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "retinopathy: 80 images" in result.stdout
    assert "not checked, for no line is called so: others" in result.stderr
    table = pd.read_csv(tmp_path / "out" / "retinopathy" / "findings.csv", keep_default_na=False)
    assert list(table) == ["image", "finding", "detail", "other"]
    assert (tmp_path / "out" / "retinopathy" / "findings.html").is_file()


def test_json_gives_the_same_counts_for_a_line_by_name(data, tmp_path):
    said = json.loads(run("retinopathy", "--data", data, "--to", tmp_path / "out", "--json"))["retinopathy"]
    table = pd.read_csv(said["table"])
    assert said["images"] == 80
    assert {kind: found["found"] for kind, found in said["findings"].items()} == table[
        "finding"
    ].value_counts().to_dict()


def test_a_folder_of_ones_own_classes_is_checked(tmp_path):
    random = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.PNG", "dog/c d.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "pets" / name), random.integers(0, 255, (60, 60, 3), dtype=np.uint8))
    (tmp_path / "pets" / "dog" / "a.png").write_bytes((tmp_path / "pets" / "cat" / "a.png").read_bytes())
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("x")
    checked = check_set(OWN, tmp_path / "pets", tmp_path / "out")
    assert sets_in(tmp_path / "pets") == {"own": (OWN, tmp_path / "pets")}
    assert checked.counts().set_index("finding")["found"].to_dict() == {
        "identical": 2,
        "rare_class": 2,
        "not_an_image": 1,
    }
    assert "labels differ (cat and dog)" in str(checked)


def test_a_set_of_the_isic_archive_is_known_by_its_table(tmp_path):
    (tmp_path / "by_hand").mkdir()
    (tmp_path / "by_hand" / "metadata.csv").write_text("isic_id,benign_malignant\n")
    assert sets_in(tmp_path / "by_hand") == {"skin_lesion": (DATA_SETS["skin_lesion"], tmp_path / "by_hand")}


def test_the_level_of_the_classes_can_be_said(tmp_path, data):
    for name in (f"{clinic}/{kind}/{number}.png" for clinic in "ab" for kind in ("cat", "dog") for number in (1, 2)):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "pets" / name), np.full((60, 60, 3), 99, np.uint8))
    assert "8 images" in run(tmp_path / "pets", "--level", 2, "--to", tmp_path / "out")
    result = CliRunner().invoke(app, ["check", str(data), "--level", "2", "--to", str(tmp_path / "out")])
    assert "--level and columns are for images of your own" in str(result.exception)


def test_a_set_is_known_by_its_own_folder(data):
    assert sets_in(data / "retinopathy") == {"retinopathy": (DATA_SETS["retinopathy"], data / "retinopathy")}
    with pytest.raises(MedicError, match="no folder or zip file"):
        sets_in(data / "absent")
