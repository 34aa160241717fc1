"""The report of findings, and the command that writes it: pictures, counts, and no harm to the data folder."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from medic.cli import app
from medic.data.check.report import EXAMPLES, KINDS, check_set, sets_in, write_report
from medic.data.readers import DATA_SETS, OWN
from medic.data.stores import PRODUCT_MARK, open_store
from medic.errors import MedicError
from medic.task import SKIN_LESION


@pytest.fixture
def pets(tmp_path):
    """Own images in two classes, with a copy under another label, a broken file and a strange one."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pets"
    for name in ("cat/a.png", "cat/b.PNG", "dog/c d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), random.integers(0, 255, (60, 60, 3), dtype=np.uint8))
    (folder / "dog" / "a.png").write_bytes((folder / "cat" / "a.png").read_bytes())
    (folder / "dog" / "e.png").write_bytes((folder / "cat" / "b.PNG").read_bytes()[:900])
    (folder / "dog" / "notes.txt").write_text("x")
    return folder


def medic(*arguments: str) -> str:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def test_a_set_is_checked_and_its_page_explains_what_was_found(pets, tmp_path):
    checked = json.loads(medic("check", str(pets), "--to", str(tmp_path / "out"), "--json"))["own"]
    assert checked["images"] == 5
    counts = {"identical": 2, "truncated": 1, "rare_class": 2, "not_an_image": 1}
    assert {kind: said["found"] for kind, said in checked["findings"].items()} == counts
    table = pd.read_csv(checked["table"], keep_default_na=False)
    assert list(table) == ["image", "finding", "detail", "other"]
    assert table["finding"].value_counts().to_dict() == counts
    assert "labels differ (cat and dog)" in checked["findings"]["identical"]["first"]
    page = Path(checked["table"]).with_name("findings.html").read_text(encoding="utf-8")
    assert "<h1>6 findings: 3 to mend, 3 to look at</h1>" in page
    for kind in counts:
        assert f'<section id="{kind}"' in page
        assert KINDS[kind].do in page
    (group,) = re.findall(r"<article class=group>.*?</article>", page, re.DOTALL)
    assert group.count("<img ") == 2
    assert all(said in group for said in ("<b>cat</b>", "<b>dog</b>", "<span>labels differ</span>"))
    assert "<li><code>dog/e.png</code> " in page, "what has no picture is listed"
    assert all(source.startswith(("data:", "#")) for source in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert not re.search(r"<script|url\(|@import|https?://|Synthetic set", page), "it asks the network for nothing"
    (pets / "SYNTHETIC.md").write_text("drawn")
    check_set(OWN, pets, tmp_path / "out")
    assert "Synthetic set." in (tmp_path / "out" / "findings.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [None, "labels.csv"])
def test_check_run_inside_a_data_folder_does_no_harm(table, pets, monkeypatch):
    monkeypatch.chdir(pets)
    if table:
        names = ["cat/a.png", "cat/b.PNG", "dog/c d.png"]
        (pets / table).write_text("image,label\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    before = {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()}
    described = medic("describe", "own", "--data", ".")
    first = medic("check", ".")
    assert first.startswith(f"own: {3 if table else 5} images, ")
    made = {path for path in pets.rglob("*") if path.is_file()} - set(before)
    assert {path.name for path in made} == {PRODUCT_MARK, "findings.csv", "findings.html"}
    assert medic("check", ".") == first, "the table of findings is not taken for labels"
    assert medic("describe", "own", "--data", ".") == described
    assert {path: path.read_bytes() for path in before} == before


def test_of_many_findings_some_are_shown_others_listed_and_the_rest_counted(tmp_path):
    names = [f"{number:02} <b>&.png" for number in range(30)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((20, 30, 3), 120, np.uint8))
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})
    found = pd.DataFrame({"image": names, "finding": "blurred", "detail": "soft <i>&", "other": ""})
    found = pd.concat([found, found.iloc[[0] * 510]], ignore_index=True)
    own = pd.DataFrame({"image": names[:2], "finding": ["mislabelled", "my_kind"], "detail": "look", "other": ""})
    many, few, none = (
        write_report(table, records, open_store(tmp_path), SKIN_LESION, tmp_path / "page.html", "my <set>").read_text()
        for table in (found, own, own.head(0))
    )
    assert (many.count("<figure>"), many.count("soft &lt;i&gt;&amp;")) == (EXAMPLES, EXAMPLES + 500)
    assert f"and {30 + 10 - EXAMPLES:,} more, in the table" in many
    assert all(title in few for title in ("Probably labelled wrongly", "My kind", "check of my &lt;set&gt;"))
    assert "<h1>Nothing was found</h1>" in none


def test_the_sets_in_a_folder_are_known_by_name_by_table_or_taken_for_ones_own(tmp_path, pets, lay):
    files = ("retinopathy/1.png", "others/cat/1.png", "others/dog/2.png", "more.zip")
    eyes, lesions = lay(*files) / "retinopathy", tmp_path / "by_hand"
    lesions.mkdir()
    (lesions / "metadata.csv").write_text("isic_id,benign_malignant\n")
    found = {"retinopathy": (DATA_SETS["retinopathy"], eyes)}
    assert sets_in(eyes.parent) == sets_in(eyes) == sets_in(eyes.parent, "retinopathy") == found
    assert sets_in(lesions) == {"skin_lesion": (DATA_SETS["skin_lesion"], lesions)}
    assert sets_in(pets) == {"own": (OWN, pets)}
    with pytest.raises(MedicError, match="no folder or zip file"):
        sets_in(tmp_path / "absent")
    with pytest.raises(MedicError, match="no data set is called 'nothing'"):
        sets_in(pets, "nothing")
