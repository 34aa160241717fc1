"""The runner behind ``make run``: what it executes, keeps, shows, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest

from medic.errors import MedicError
from medic.notebooks.page import HEADLINES, headline, render
from medic.notebooks.run import Failure, Outcome, find_notebooks, run_series
from medic.notebooks.session import recorded
from standard import execute_in_place

FIRST = "01_data_acquisition_and_understanding/01_observe.ipynb"
SECOND = "02_modeling/01_break.ipynb"
THIRD = "03_deployment/01_serve.ipynb"
DATA = "my sample/sample_data"
FIGURE = (
    "import matplotlib.pyplot as plt\nfrom medic import plots",
    'figure, axes = plt.subplots()\naxes.plot([1, 2])\nplots.title(figure, "It rises", session)\n'
    'plots.save(figure, "line", session)',
    'for name, value in {"": 0.78, "_low": 0.7, "_high": 0.8, "_baseline": 0.5}.items():\n'
    '    record(f"headline{name}", value)',
    'record("data_seen", session.shown(session.data))',
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_notebook):
    """A run of three notebooks of which the second fails, in a path with spaces and braces."""
    root = tmp_path_factory.mktemp("runner") / "a clone {with} spaces"
    for folder in ("code/medic", "image", "my sample/sample_data/retinopathy"):
        (root / folder).mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    write_notebook(root / "code" / FIRST, *FIGURE)
    write_notebook(root / "code" / SECOND, 'colour = "red & <blue>"', "colour.missing")
    write_notebook(root / "code" / THIRD)
    before = {path: path.read_bytes() for path in root.rglob("*.ipynb")}
    outcomes, page = run_series(root, DATA, EPOCHS=7), root / "outputs" / "index.html"
    return SimpleNamespace(root=root, before=before, outcomes=outcomes, page=page, text=page.read_text())


@pytest.mark.notebooks
class TestARunWithOneFailure:
    def test_the_others_have_run_with_their_parameters_and_sources_are_untouched(self, ran):
        assert [one.status for one in ran.outcomes] == ["done", "failed", "done"]
        copies = ran.root / "outputs" / "notebooks"
        assert recorded(copies / FIRST)["data_seen"] == "my sample/sample_data"
        assert recorded(copies / THIRD) == {"epochs": 7}
        assert all(path.read_bytes() == content for path, content in ran.before.items())
        assert os.listdir(ran.root / "image") == []
        assert (ran.root / "outputs" / "my sample-sample_data" / "quick" / "image" / "line.png").is_file()
        for path in copies.rglob("*.ipynb"):
            nbformat.validate(nbformat.read(path, as_version=4))

    def test_the_page_shows_the_failing_cell_what_was_recorded_and_what_exists(self, ran):
        for text in (
            "Cell 6 failed",
            "colour.missing",
            "AttributeError",
            "2 of 3 notebooks done, 1 failed",
            "From one <code>JPEG</code> to one <strong>grade</strong>.",
            "Synthetic sample.",
            "not a medical device",
            "0.70 to 0.80",
        ):
            assert text in ran.text
        assert "\x1b" not in ran.text
        stem = ran.root / "outputs" / "notebooks" / FIRST.removesuffix(".ipynb")
        for name in (f"{stem}.ipynb", f"{stem}.html", f"{stem}_files/figure_01.png"):
            assert os.path.getsize(name) > 0
        assert f'href="notebooks/{FIRST.replace(".ipynb", ".html")}"' in ran.text
        for path in (ran.page, ran.root / "outputs" / "notebooks" / FIRST.replace(".ipynb", ".html")):
            assert str(ran.root) not in path.read_text().replace("%20", " "), "no folder of this machine is named"

    @pytest.mark.browser
    @pytest.mark.parametrize("width", [1280, 360])
    def test_the_page_fits_the_window_and_loads_nothing_from_elsewhere(self, ran, width, chromium):
        from playwright.sync_api import sync_playwright

        asked = []
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            tab = browser.new_page(viewport={"width": width, "height": 800})
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(ran.page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("article").count() == 3
            tab.get_by_role("link", name="read the executed copy").first.click()
            tab.wait_for_load_state()
            assert "Grade a photograph" in tab.content()
            browser.close()
        assert all(url.startswith(("file:", "data:")) for url in asked), asked

    def test_run_again_keeps_what_is_done_repeats_what_failed_and_says_what_changed(self, ran, write_notebook, capsys):
        write_notebook(ran.root / "code" / SECOND, 'record("headline", 0.31)')
        outcomes = run_series(ran.root, DATA, EPOCHS=7)
        assert capsys.readouterr().out.count("done before") == 2
        assert [(one.status, one.kept) for one in outcomes] == [("done", True), ("done", False), ("done", True)]
        text = ran.page.read_text()
        assert "kept from" in text
        assert [text.count(f'same">{word}') for word in ("same", "new")] == [1, 1]

        worse = (*FIGURE[:2], FIGURE[2].replace("0.78", "0.61").replace("0.7,", "0.49,"), FIGURE[3])
        write_notebook(ran.root / "code" / FIRST, *worse)
        run_series(ran.root, DATA, EPOCHS=7)
        text = ran.page.read_text()
        assert "0.78 → 0.61" in text
        assert "3 of 3 notebooks done, 1 headline not beyond its baseline" in text

        (ran.root / "my sample" / "sample_data" / "retinopathy" / "new.jpeg").write_bytes(b"another image")
        outcomes = run_series(ran.root, DATA, only=("03",), EPOCHS=7)
        assert "done in" in capsys.readouterr().out, "other data is another run"
        assert [one.status for one in outcomes] == ["waiting", "waiting", "done"]


@pytest.mark.notebooks
def test_a_runner_killed_at_work_goes_on_where_it_stopped(clone, write_notebook, capsys):
    write_notebook(clone / "code" / FIRST)
    wait = "import time\n(session.root / 'begun').touch()\n"
    wait += "while (session.root / 'hold').exists():\n    time.sleep(0.1)"
    write_notebook(clone / "code" / SECOND, wait)
    (clone / "hold").touch()
    program = (
        "import sys; from pathlib import Path; from medic.notebooks.run import run_series; "
        "run_series(Path(sys.argv[1]), 'sample_data')"
    )
    runner = subprocess.Popen([sys.executable, "-c", program, clone], stdout=subprocess.PIPE)
    copies, deadline = clone / "outputs" / "notebooks", time.monotonic() + 120
    while not (clone / "begun").exists():
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    assert [path.name for path in copies.rglob("*.ipynb")] == ["01_observe.ipynb"], "nothing is half-written"

    (clone / "hold").unlink()
    outcomes = run_series(clone, "sample_data")
    assert [(one.status, one.kept) for one in outcomes] == [("done", True), ("done", False)]
    assert "[1/2] 01_data_acquisition_and_understanding/01_observe  done before" in capsys.readouterr().out
    assert len(list(copies.rglob("*.ipynb"))) == 2


@pytest.mark.notebooks
def test_a_notebook_whose_kernel_dies_is_a_failure_too(clone, write_notebook):
    write_notebook(clone / "code" / FIRST, "import os\nos._exit(1)")
    write_notebook(clone / "code" / THIRD)
    assert [one.status for one in run_series(clone, "sample_data")] == ["failed", "done"]
    assert "DeadKernelError" in (clone / "outputs" / "index.html").read_text()


@pytest.mark.notebooks
def test_a_notebook_is_executed_in_place_with_its_scalars_or_not_written(clone, write_notebook):
    work = (
        "import numpy as np",
        'record("kappa", np.float32(0.5)); record("images", 12); record("kappa", float("nan"))',
        'record("network", "small"); record("gate", np.bool_(True))',
    )
    path = write_notebook(clone / "code" / FIRST, *work)
    execute_in_place(path)
    assert recorded(path) == {"kappa": None, "images": 12, "network": "small", "gate": True}
    write_notebook(path, "1 / 0")
    before = path.read_bytes()
    with pytest.raises(MedicError, match="ZeroDivisionError"):
        execute_in_place(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": "absent"}, "no data folder absent"),
        ({"profile": "fast"}, "'quick' or 'full'"),
        ({"only": ("04",)}, "no notebook starts with 04"),
        ({"EPOCH": 3}, r"01_observe\.ipynb has no parameter EPOCH; it has DATA, EPOCHS, PROFILE"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_before_anything_runs(change, told, clone, write_notebook):
    with pytest.raises(MedicError, match="no notebooks"):
        find_notebooks(clone)
    write_notebook(clone / "code" / FIRST)
    with pytest.raises(MedicError, match=told):
        run_series(**{"root": clone, "data": "sample_data", **change})
    assert not (clone / "outputs").exists()


def test_the_page_of_real_photographs_does_not_call_them_synthetic(clone, write_notebook):
    write_notebook(clone / "code" / FIRST)
    (clone / "photographs").mkdir()
    outcome = Outcome(FIRST, "failed", 3700.0, failure=Failure(None, "", "CellTimeoutError: took too long"))
    page = render(clone, clone / "photographs", "full", clone / "outputs", [outcome], {}, "last run")
    assert "ynthetic" not in page.partition("</style>")[2]
    assert "The notebook stopped outside its cells" in page
    assert "1 h 1 min" in page


def test_every_committed_notebook_has_a_headline_beyond_its_baseline(repository):
    paths = find_notebooks(repository)
    assert set(HEADLINES) == set(paths)
    found = {name: headline(name, recorded(path)) for name, path in paths.items()}
    assert [name for name, one in found.items() if one is None or not one.holds] == []
