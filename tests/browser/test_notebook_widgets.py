"""The three widgets in JupyterLab, worked with mouse and keys; the files on disk say what was done."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import httpx
import nbformat
import numpy as np
import pandas as pd
import pytest
import tenacity
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

# No classes: xdist deals tests out by class, and all of these share one JupyterLab and one page, in their order.
pytestmark = pytest.mark.browser

CELLS = (
    """
import numpy as np
import pandas as pd
from traitlets import link
from medic.data.check import check
from medic.data.corrections import Corrections
from medic.data.stores import open_store
from medic.modeling.evaluate import Evaluation
from medic.task import SKIN_LESION, Prediction
from medic.widgets import LabelEditor, ResultsViewer, ThresholdExplorer

store, records = open_store("images"), pd.read_csv("records.csv", dtype={"patient": str})
corrections = Corrections("corrections.csv", records, SKIN_LESION, who="tester")
LabelEditor(records, store, SKIN_LESION, corrections, check(records, store))""",
    """
scores = np.random.default_rng(1).normal(0.35 + 0.3 * records["label"], 0.17).clip(0.01, 0.99).astype(np.float32)
prediction = Prediction(SKIN_LESION, np.stack([1 - scores, scores], axis=1), thresholds=(0.45,))
evaluation = Evaluation("made-up scores", prediction, records, majority=0, synthetic=True)
explorer = ThresholdExplorer(evaluation)
explorer""",
    """
viewer = ResultsViewer(evaluation, store)
link((explorer, "threshold"), (viewer, "threshold"))
viewer""",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab with settings, kernels and history of its own, which asks nobody for news: address and folder."""
    home = tmp_path_factory.mktemp("lab")
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    for path in (home / "notebooks", settings, home / "runtime", home / "data", home / "ipython"):
        path.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={home / 'notebooks'}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.news_url="]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    folders = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")}
    environment = os.environ | folders | {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    address, log = f"http://127.0.0.1:{port}", home / "lab.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=file, stderr=subprocess.STDOUT)
    ask = tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.1), reraise=True)(httpx.get)
    try:
        ask(f"{address}/api/status")
        yield address, home / "notebooks"
    except httpx.HTTPError:
        pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
    finally:
        process.kill()
        process.wait()


def run_all(browser: Browser, address: str, ready: str, screenshots: Path) -> SimpleNamespace:
    """Open a notebook in JupyterLab and run all its cells: the page, and what it asked for and complained of."""
    page = browser.new_page(viewport={"width": 1280, "height": 1500}, reduced_motion="reduce")
    seen = SimpleNamespace(page=page, hosts=set(), errors=[])
    page.set_default_timeout(60_000)
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname))
    page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(f"{address}?reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    try:
        page.locator(ready).wait_for()
    except PlaywrightTimeoutError:
        page.screenshot(path=screenshots / "failed.png")
        outputs = page.locator(".jp-OutputArea-output").all_inner_texts()
        pytest.fail(f"{ready} did not appear; outputs {outputs}, console {seen.errors}", pytrace=False)
    return seen


@pytest.fixture(scope="module")
def notebook(lab, browser, screenshots) -> SimpleNamespace:
    """A notebook with the three widgets on 30 drawn images, one of them no image, run in a real JupyterLab."""
    folder = lab[1] / "lesions"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "SYNTHETIC.md").write_text("Drawn by a test.")
    numbers = np.arange(30)
    names = ["mole näher 01.jpg" if number == 1 else f"lesion_{number:02d}.jpg" for number in numbers]
    for number, name in enumerate(names):
        spots = np.random.default_rng(number).integers(60, 200, (6, 8, 3), np.uint8)
        drawn = cv2.resize(spots, (320, 240), interpolation=cv2.INTER_CUBIC)
        encoded = cv2.imencode(".jpg", drawn)[1].tobytes()
        (folder / "images" / name).write_bytes(b"no image" if number == 4 else encoded)
    table = {"image": names, "patient": [f"P{number // 2:02d}" for number in numbers], "split": "test"}
    pd.DataFrame(table | {"label": (numbers % 3 == 0).astype(int)}).to_csv(folder / "records.csv", index=False)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [new_code_cell(one.strip()) for one in CELLS]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "widgets.ipynb")
    ready = ".medic-results-viewer .medic-grid img >> nth=0"
    seen = run_all(browser, f"{lab[0]}/lab/tree/lesions/widgets.ipynb", ready, screenshots)
    kinds = {"editor": "label-editor", "explorer": "threshold-explorer", "viewer": "results-viewer"}
    parts = {name: seen.page.locator(f".medic-{kind}") for name, kind in kinds.items()}
    return SimpleNamespace(**vars(seen), folder=folder, **parts)


def journal(folder: Path) -> list[tuple[str, str, str]]:
    path = folder / "corrections.csv"
    return list(pd.read_csv(path)[["image", "from", "to"]].itertuples(index=False, name=None)) if path.exists() else []


def soon(condition, what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, f"not within a minute: {what}"
        time.sleep(0.05)


def matrix(explorer) -> dict[str, int]:
    cells = explorer.locator("[data-cell]").all()
    return {one.get_attribute("data-cell"): int(one.locator("b").inner_text()) for one in cells}


def test_labels_are_changed_with_mouse_and_keys_and_taken_back(notebook, screenshots):
    editor, page = notebook.editor, notebook.page
    assert page.locator(".jp-OutputArea-output img[src^='data:image/']").count() == 0, "the widget, not its picture"
    editor.get_by_role("button", name="Next image").click()
    expect(editor.locator("h4")).to_have_text("mole näher 01.jpg")
    editor.locator("[data-label=malignant]").click()
    expect(editor.locator(".medic-changed")).to_have_text("was benign")
    page.keyboard.press("x")
    expect(editor.locator(".medic-notice")).to_have_text("mole näher 01.jpg is left out")
    changed = ("mole näher 01.jpg", "benign", "malignant")
    assert journal(notebook.folder) == [changed, ("mole näher 01.jpg", "malignant", "(excluded)")]
    editor.screenshot(path=screenshots / "label_editor.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+z")
    expect(editor.locator(".medic-label")).to_have_text("malignant")
    assert journal(notebook.folder) == [changed]
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == len(CELLS), "x is the key that cuts a cell, too"


def test_keys_faster_than_the_kernel_reach_the_images_they_were_meant_for(notebook):
    before = journal(notebook.folder)
    notebook.editor.focus()
    for key in ("End", "2", "ArrowLeft", "2", "ArrowLeft", "1"):
        notebook.page.keyboard.press(key)
    meant = [("29", "benign", "malignant"), ("28", "benign", "malignant"), ("27", "malignant", "benign")]
    meant = [(f"lesion_{number}.jpg", *change) for number, *change in meant]
    soon(lambda: journal(notebook.folder) == before + meant, "all three are changed")
    for _ in range(3):
        notebook.page.keyboard.press("u")
    soon(lambda: journal(notebook.folder) == before, "all three are undone")


def test_a_file_that_cannot_be_written_is_told_and_the_change_can_be_tried_again(notebook):
    editor, path = notebook.editor, notebook.folder / "corrections.csv"
    editor.focus()
    notebook.page.keyboard.press("Home")
    expect(editor.locator(".medic-label")).to_have_text("malignant")
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()
    editor.locator("[data-label=benign]").click()
    expect(editor.get_by_role("alert")).to_contain_text(re.compile(r"Nothing was changed: .*cannot be read"))
    path.rmdir()
    path.write_bytes(kept)
    editor.get_by_role("button", name="Try again").click()
    expect(editor.locator(".medic-label")).to_have_text("benign")
    expect(editor.get_by_role("alert")).to_be_hidden()


def test_the_slider_moves_the_matrix_and_the_viewer_follows(notebook, screenshots):
    explorer, viewer, page = notebook.explorer, notebook.viewer, notebook.page
    slider = explorer.get_by_role("slider")
    slider.scroll_into_view_if_needed()
    assert matrix(explorer) == {"found": 8, "missed": 2, "alarms": 4, "rejected": 16}
    slider.focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")
    soon(lambda: matrix(explorer)["missed"] > 2, "a higher threshold misses more")
    explorer.screenshot(path=screenshots / "threshold_explorer.png")
    exact, missed = explorer.get_by_label("Threshold as a number"), matrix(explorer)["missed"]
    expect(viewer).to_contain_text(f"malignant from {float(exact.input_value()):.3g}")
    expect(viewer.get_by_label("Outcome")).to_contain_text(f"called benign) ({missed})")

    explorer.get_by_role("button", name="Operating point").click()
    explorer.get_by_label("Prevalence in percent").fill("1")
    explorer.get_by_label("Prevalence in percent").press("Enter")
    # Of 1000, 10 have it: 0.8 of those are found, and 0.2 of the other 990 are called as well.
    words = "8.0 found, 2.0 missed, 198 false alarms; precision 3.9 %."
    expect(explorer.locator(".medic-thousand")).to_have_text(words)


def test_images_are_opened_by_keys_and_one_outcome_is_shown_alone(notebook, screenshots):
    viewer, page = notebook.viewer, notebook.page
    viewer.get_by_label("Order").select_option("as listed")
    card = viewer.locator(".medic-grid button").nth(1)
    expect(card).to_have_attribute("title", "mole näher 01.jpg")
    viewer.screenshot(path=screenshots / "results_viewer.png")
    viewer.locator(".medic-grid button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(viewer.locator("h4")).to_have_text("mole näher 01.jpg")
    expect(viewer.locator("[data-role=large] img")).to_have_attribute("src", re.compile("^blob:"))
    expect(viewer.locator(".medic-true")).to_contain_text("benign")
    page.keyboard.press("Escape")
    expect(card).to_be_focused()
    viewer.get_by_label("Outcome").select_option("wrong")
    expect(viewer.locator(".medic-grid .medic-amiss")).to_have_count(6)


def test_nothing_is_asked_of_another_machine_and_the_console_is_clean(notebook):
    assert notebook.hosts - {None} == {"127.0.0.1"}
    assert notebook.errors == []
