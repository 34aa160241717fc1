"""The three widgets in JupyterLab, worked with mouse and keys; the files on disk say what was done."""

import csv
import re
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

# No classes: xdist deals tests out by class, and all of these share one JupyterLab and one page, in their order.
pytestmark = pytest.mark.browser

CELLS = (
    """
import numpy as np
import pandas as pd

from medic.data.corrections import Corrections
from medic.data.check import check
from medic.data.stores import open_store
from medic.task import SKIN_LESION, Prediction
from medic.widgets import LabelEditor, ResultsViewer, ThresholdExplorer

store = open_store("images")
records = pd.read_csv("records.csv", dtype={"patient": str})
""",
    """
corrections = Corrections("corrections.csv", records, SKIN_LESION, who="tester")
editor = LabelEditor(records, store, SKIN_LESION, corrections, check(records, store))
editor
""",
    """
from types import SimpleNamespace

malignant = np.random.default_rng(1).normal(0.35 + 0.3 * records["label"], 0.17).clip(0.01, 0.99).astype(np.float32)
prediction = Prediction(SKIN_LESION, np.stack([1 - malignant, malignant], axis=1), thresholds=(0.45,))
# All that the widgets ask of an Evaluation, whose module would load torch for seconds.
evaluation = SimpleNamespace(
    title="made-up scores, test split", task=SKIN_LESION, prediction=prediction, records=records,
    truth=records["label"].to_numpy(), synthetic=True,
)
explorer = ThresholdExplorer(evaluation)
explorer
""",
    """
from traitlets import link

viewer = ResultsViewer(evaluation, store)
link((explorer, "threshold"), (viewer, "threshold"))
viewer
""",
)


def drawn(number: int, malignant: bool) -> np.ndarray:
    """A lesion on skin, uint8 (240, 320, 3), larger and more ragged where it is called malignant."""
    random = np.random.default_rng(number)
    skin = np.full((240, 320, 3), (215, 172, 150), np.float32) + random.normal(0, 4, (240, 320, 1))
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = (62 if malignant else 44) + random.normal(0, 7 if malignant else 1.5, 60)
    edge = np.stack([160 + radius * np.cos(angles), 120 + radius * np.sin(angles)], axis=1).astype(np.int32)
    mask = cv2.GaussianBlur(cv2.fillPoly(np.zeros((240, 320), np.float32), [edge], 1.0), (0, 0), 3)[..., None]
    lesion = np.array((92, 52, 40) if malignant else (142, 88, 62), np.float32) + random.normal(0, 9, (240, 320, 1))
    return np.clip(skin * (1 - mask) + lesion * mask, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def notebook(lab, open_notebook) -> SimpleNamespace:
    """A notebook with the three widgets on 30 generated images, one of them no image, run in a real JupyterLab."""
    folder = lab.folder / "lesions"
    images = folder / "images"
    images.mkdir(parents=True)
    (images / "SYNTHETIC.md").write_text("Drawn by a test.")
    rows = []
    for number in range(30):
        malignant = number % 3 == 0
        name = f"mole näher {number:02d}.jpg" if number == 1 else f"lesion_{number:02d}.jpg"
        encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn(number, malignant), cv2.COLOR_RGB2BGR))[1].tobytes()
        (images / name).write_bytes(b"no image" if number == 4 else encoded)
        rows.append((name, f"P{number // 2:02d}", "test", int(malignant), 30 + number))
    with (folder / "records.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "patient", "split", "label", "age"), *rows])
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(
        new_notebook(cells=[new_code_cell(one.strip()) for one in CELLS], metadata={"kernelspec": kernel}),
        folder / "widgets.ipynb",
    )
    page, seen = open_notebook("lesions/widgets.ipynb", ".medic-results-viewer .medic-grid img >> nth=0")
    return SimpleNamespace(
        page=page,
        seen=seen,
        folder=folder,
        editor=page.locator(".medic-label-editor"),
        explorer=page.locator(".medic-threshold-explorer"),
        viewer=page.locator(".medic-results-viewer"),
    )


def journal(folder: Path) -> list[tuple[str, str, str]]:
    if not (folder / "corrections.csv").exists():
        return []
    with (folder / "corrections.csv").open(encoding="utf-8") as file:
        return [(row["image"], row["from"], row["to"]) for row in csv.DictReader(file)]


def soon(condition, what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, f"not within a minute: {what}"
        time.sleep(0.05)


def test_a_live_widget_is_shown_rather_than_its_picture(notebook):
    assert notebook.page.locator(".medic-widget").count() == 3
    assert notebook.page.locator(".jp-OutputArea-output img[src^='data:image/png']").count() == 0


# The label editor


def test_a_label_is_changed_with_the_mouse_and_another_with_a_key(notebook, screenshots):
    editor, page = notebook.editor, notebook.page
    editor.get_by_role("button", name="Next image").click()
    expect(editor.locator("h4")).to_have_text("mole näher 01.jpg")
    editor.locator("[data-label=malignant]").click()
    expect(editor.locator(".medic-changed")).to_have_text("was benign")
    assert journal(notebook.folder) == [("mole näher 01.jpg", "benign", "malignant")]

    page.keyboard.press("ArrowRight")
    expect(editor.locator("h4")).to_have_text("lesion_02.jpg")
    page.keyboard.press("2")
    expect(editor.locator(".medic-notice")).to_have_text("lesion_02.jpg is malignant")
    assert journal(notebook.folder)[1:] == [("lesion_02.jpg", "benign", "malignant")]
    editor.screenshot(path=screenshots / "label_editor.png")


def test_what_was_done_can_be_taken_back(notebook):
    editor, page = notebook.editor, notebook.page
    before = journal(notebook.folder)
    editor.focus()
    page.keyboard.press("Home")
    expect(editor.locator("h4")).to_have_text("lesion_00.jpg")
    page.keyboard.press("1")
    expect(editor.locator(".medic-notice")).to_have_text("lesion_00.jpg is benign")
    page.keyboard.press("x")
    expect(editor.locator(".medic-notice")).to_have_text("lesion_00.jpg is left out")
    assert journal(notebook.folder)[len(before) :] == [
        ("lesion_00.jpg", "malignant", "benign"),
        ("lesion_00.jpg", "benign", "(excluded)"),
    ]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("u")
    expect(editor.locator(".medic-notice")).to_have_text("Undone: lesion_00.jpg is benign again")
    expect(editor.locator("h4")).to_have_text("lesion_00.jpg")
    page.keyboard.press("Control+z")
    expect(editor.locator(".medic-label")).to_have_text("malignant")
    assert journal(notebook.folder) == before
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == len(CELLS), "x is the key that cuts a cell, too"


def test_keys_faster_than_the_kernel_reach_the_images_they_were_meant_for(notebook):
    editor, page = notebook.editor, notebook.page
    before = journal(notebook.folder)
    editor.focus()
    for key in ("End", "2", "ArrowLeft", "2", "ArrowLeft", "1"):
        page.keyboard.press(key)
    expect(editor.locator(".medic-notice")).to_have_text("lesion_27.jpg is benign")
    assert journal(notebook.folder)[len(before) :] == [
        ("lesion_29.jpg", "benign", "malignant"),
        ("lesion_28.jpg", "benign", "malignant"),
        ("lesion_27.jpg", "malignant", "benign"),
    ]
    for _ in range(3):
        page.keyboard.press("u")
    soon(lambda: journal(notebook.folder) == before, "all three are undone")


def test_what_is_suspicious_is_found_and_says_why(notebook, screenshots):
    editor = notebook.editor
    editor.get_by_label("Show").select_option("any")
    expect(editor.locator(".medic-where")).to_have_text("1 of 1")
    expect(editor.locator("[data-role=large]")).to_contain_text("no image that is read")
    expect(editor.locator(".medic-findings")).to_contain_text("unsupported")
    editor.screenshot(path=screenshots / "label_editor_suspicious.png")
    editor.get_by_label("Show").select_option("")


def test_a_file_that_cannot_be_written_is_told_and_the_change_can_be_tried_again(notebook, screenshots):
    editor, path = notebook.editor, notebook.folder / "corrections.csv"
    editor.focus()
    notebook.page.keyboard.press("Home")
    notebook.page.keyboard.press("1")
    expect(editor.locator(".medic-label")).to_have_text("benign")
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()
    editor.locator("[data-label=malignant]").click()
    expect(editor.get_by_role("alert")).to_contain_text(
        re.compile(r"Nothing was changed: .*corrections\.csv cannot be read")
    )
    expect(editor.locator(".medic-label")).to_have_text("benign")
    editor.screenshot(path=screenshots / "label_editor_error.png")
    path.rmdir()
    path.write_bytes(kept)
    editor.get_by_role("button", name="Try again").click()
    expect(editor.locator(".medic-label")).to_have_text("malignant")
    expect(editor.get_by_role("alert")).to_be_hidden()
    assert journal(notebook.folder)[-1] == ("lesion_00.jpg", "benign", "malignant")


# The threshold explorer


def test_the_slider_moves_the_matrix_and_python_hears_of_it(notebook, screenshots):
    explorer = notebook.explorer
    slider, exact = explorer.get_by_role("slider"), explorer.get_by_label("Threshold as a number")
    slider.scroll_into_view_if_needed()
    assert matrix(explorer) == {"found": 8, "missed": 2, "alarms": 4, "rejected": 16}
    box = slider.bounding_box()
    notebook.page.mouse.move(box["x"] + 0.58 * box["width"], box["y"] + box["height"] / 2)
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + 0.85 * box["width"], box["y"] + box["height"] / 2, steps=5)
    notebook.page.mouse.up()
    expect(explorer.locator("[data-cell=alarms] b")).to_have_text("0")
    strict = matrix(explorer)
    assert 0 < strict["found"] < 8
    assert (strict["alarms"], strict["rejected"]) == (0, 20)

    notebook.page.keyboard.press("ArrowLeft")
    expect(explorer.locator("[data-cell=found] b")).to_have_text(str(strict["found"] + 1))
    explorer.screenshot(path=screenshots / "threshold_explorer.png")
    # The viewer's threshold is linked to the explorer's in Python.
    expect(notebook.viewer).to_contain_text(f"malignant from {float(exact.input_value()):.3g}")
    missed = matrix(explorer)["missed"]
    expect(notebook.viewer.get_by_label("Outcome")).to_contain_text(f"called benign) ({missed})")


def test_another_prevalence_changes_what_a_call_is_worth(notebook):
    explorer = notebook.explorer
    explorer.get_by_role("button", name="Operating point").click()
    explorer.get_by_label("Prevalence in percent").fill("1")
    explorer.get_by_label("Prevalence in percent").press("Enter")
    # Of 1000, 10 have it: 0.8 of those are found, and 0.2 of the other 990 are called as well.
    expect(explorer.locator(".medic-thousand")).to_have_text(
        "8.0 found, 2.0 missed, 198 false alarms; precision 3.9 %."
    )


# The results viewer


def test_a_card_opens_large_and_escape_leads_back_to_it(notebook, screenshots):
    viewer = notebook.viewer
    viewer.get_by_label("Order").select_option("listed")
    card = viewer.locator(".medic-grid button").nth(3)
    expect(card).to_have_attribute("title", "lesion_03.jpg")
    viewer.screenshot(path=screenshots / "results_viewer.png")
    card.click()
    expect(viewer.locator("h4")).to_have_text("lesion_03.jpg")
    expect(viewer.locator("[data-role=large] img")).to_have_attribute("src", re.compile("^blob:"))
    expect(viewer.locator(".medic-true")).to_contain_text("malignant")
    expect(viewer.locator(".medic-facts")).to_contain_text("P01")
    viewer.screenshot(path=screenshots / "results_viewer_detail.png")
    notebook.page.keyboard.press("Escape")
    expect(viewer.locator(".medic-grid")).to_be_visible()
    expect(card).to_be_focused()


def test_keys_alone_reach_and_open_an_image(notebook):
    viewer, page = notebook.viewer, notebook.page
    viewer.locator(".medic-grid button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(viewer.locator("h4")).to_have_text("mole näher 01.jpg")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("h4")).to_have_text("lesion_02.jpg")
    page.keyboard.press("Escape")
    expect(viewer.locator(".medic-grid")).to_be_visible()


def test_one_outcome_is_shown_alone(notebook):
    viewer = notebook.viewer
    viewer.get_by_label("Outcome").select_option("false negative")
    expect(viewer.locator(".medic-grid button")).to_have_count(2)
    expect(viewer.locator(".medic-grid .medic-amiss")).to_have_count(2)
    viewer.get_by_label("Outcome").select_option("")


def test_the_widgets_follow_a_dark_theme(notebook, screenshots):
    page = notebook.page
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    for entry in ("Theme", "JupyterLab Dark"):
        page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()
    page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
    colour = "one => getComputedStyle(one).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    soon(lambda: max(notebook.editor.evaluate(colour)) < 80, "the widgets' paper is dark")
    for name in ("editor", "explorer", "viewer"):
        getattr(notebook, name).screenshot(path=screenshots / f"dark_{name}.png")


def test_nothing_is_asked_of_another_machine_and_the_console_is_clean(notebook):
    assert notebook.seen.hosts - {None} == {"127.0.0.1"}
    assert notebook.seen.errors == []


def matrix(explorer) -> dict[str, int]:
    cells = explorer.locator("[data-cell]")
    return {one.get_attribute("data-cell"): int(one.locator("b").inner_text()) for one in cells.all()}
