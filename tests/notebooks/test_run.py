"""The runner behind ``make run``: what it executes, keeps, shows, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest
from rich.console import Console

from medic.errors import MedicError
from medic.notebooks import page as series_page
from medic.notebooks.run import Failure, Outcome, Plan, find_notebooks, run_series
from medic.notebooks.session import recorded

FIRST = "01_data_acquisition_and_understanding/01_observe.ipynb"
SECOND = "02_modeling/01_break.ipynb"
THIRD = "03_deployment/01_serve.ipynb"
FIGURE = (
    "import matplotlib.pyplot as plt\nfrom medic import plots",
    'figure, axes = plt.subplots()\naxes.plot([1, 2])\nplots.title(axes, "It rises", session)\n'
    'plots.save(figure, "line", session)',
    'record("macro_f1", 0.25)',
    'record("data_seen", session.shown(session.data))',
)


def write_series(root, notebook_cells, write_notebook):
    broken = 'colour = "red & <blue>"', "colour.missing"
    write_notebook(root / "code" / FIRST, notebook_cells(*FIGURE))
    write_notebook(root / "code" / SECOND, notebook_cells(*broken))
    write_notebook(root / "code" / THIRD, notebook_cells())


def run(plan):
    log = io.StringIO()
    return run_series(plan, Console(file=log, width=200)), log.getvalue()


@pytest.fixture(scope="module")
def ran(tmp_path_factory, notebook_cells, write_notebook):
    """A run of three notebooks of which the second fails, in a path with spaces and braces."""
    root = tmp_path_factory.mktemp("runner") / "a clone {with} spaces"
    for folder in ("code/medic", "image", "my sample/sample_data/retinopathy"):
        (root / folder).mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    write_series(root, notebook_cells, write_notebook)
    before = {path: path.read_bytes() for path in root.rglob("*.ipynb")}
    plan = Plan(root, "my sample/sample_data", parameters={"EPOCHS": 7})
    series, log = run(plan)
    return SimpleNamespace(root=root, plan=plan, before=before, series=series, log=log, page=series.page.read_text())


@pytest.mark.notebooks
class TestARunWithOneFailure:
    def test_the_others_have_run_and_the_failure_is_reported(self, ran):
        assert [one.status for one in ran.series.outcomes] == ["done", "failed", "done"]
        assert [one.notebook for one in ran.series.failed] == [SECOND]

    def test_parameters_reach_the_notebooks(self, ran):
        copies = ran.root / "outputs" / "notebooks"
        assert recorded(copies / FIRST) == {"macro_f1": 0.25, "data_seen": "my sample/sample_data"}
        assert recorded(copies / THIRD) == {"epochs": 7}

    def test_sources_and_the_readmes_figures_are_untouched(self, ran):
        assert all(path.read_bytes() == content for path, content in ran.before.items())
        assert os.listdir(ran.root / "image") == []
        product = ran.root / "outputs" / "my sample-sample_data" / "quick" / "image" / "line.png"
        assert product.is_file()

    def test_the_log_has_a_line_for_each_start_and_end(self, ran):
        lines = ran.log.splitlines()
        assert len(lines) == 6
        assert lines[0] == "[1/3] 01_data_acquisition_and_understanding/01_observe  started, 12 cells"
        assert lines[3].startswith("[2/3] 02_modeling/01_break  FAILED in cell 7 after ")
        assert lines[3].endswith("AttributeError: 'str' object has no attribute 'missing'")
        assert "done in" in lines[5]

    def test_the_page_shows_the_failing_cell_and_its_error(self, ran):
        assert "Cell 7 failed" in ran.page
        assert "colour.missing" in ran.page
        assert "AttributeError" in ran.page
        assert "\x1b" not in ran.page
        assert "2 of 3 notebooks done, 1 failed" in ran.page

    def test_the_page_shows_what_was_recorded_and_links_to_what_exists(self, ran):
        assert "macro f1" in ran.page
        assert "0.25" in ran.page
        assert "From one <code>JPEG</code> to one <strong>grade</strong>." in ran.page
        assert "Synthetic sample." in ran.page
        assert "not a medical device" in ran.page
        stem = ran.root / "outputs" / "notebooks" / FIRST.removesuffix(".ipynb")
        for name in (f"{stem}.ipynb", f"{stem}.html", f"{stem}_files/figure_01.png"):
            assert os.path.getsize(name) > 0
        assert f'href="notebooks/{FIRST.replace(".ipynb", ".html")}"' in ran.page

    def test_no_page_asks_the_network_or_names_a_folder_of_this_machine(self, ran):
        for path in [ran.series.page, *(ran.root / "outputs").rglob("*.html")]:
            text = path.read_text()
            assert 'src="http' not in text
            assert '<link rel="stylesheet" href="http' not in text
            assert str(ran.root) not in text.replace("%20", " ") or path.stem == "01_break"

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
            tab.goto(ran.series.page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("article").count() == 3
            tab.get_by_role("link", name="read the executed copy").first.click()
            tab.wait_for_load_state()
            assert "Grade a photograph" in tab.content()
            browser.close()
        assert all(url.startswith(("file:", "data:")) for url in asked), asked

    def test_an_executed_copy_can_be_opened_in_jupyter(self, ran):
        for path in (ran.root / "outputs").rglob("*.ipynb"):
            nbformat.validate(nbformat.read(path, as_version=4))

    def test_run_again_keeps_what_is_done_and_repeats_what_failed(self, ran, notebook_cells, write_notebook):
        write_notebook(ran.root / "code" / SECOND, notebook_cells('record("mended", True)'))
        series, log = run(ran.plan)
        assert log.count("done before") == 2
        assert [one.status for one in series.outcomes] == ["done"] * 3
        assert [one.kept for one in series.outcomes] == [True, False, True]
        assert "kept from" in series.page.read_text()

        (ran.root / "my sample" / "sample_data" / "retinopathy" / "new.jpeg").write_bytes(b"another image")
        series, log = run(Plan(ran.root, ran.plan.data, parameters={"EPOCHS": 7}, only=("03",)))
        assert "done in" in log, "other data is another run"
        assert [one.status for one in series.outcomes] == ["waiting", "waiting", "done"]


@pytest.mark.notebooks
def test_a_runner_killed_at_work_goes_on_where_it_stopped(clone, notebook_cells, write_notebook):
    write_notebook(clone / "code" / FIRST, notebook_cells())
    wait = "import time\nwhile (session.root / 'hold').exists():\n    time.sleep(0.1)"
    write_notebook(clone / "code" / SECOND, notebook_cells(wait))
    (clone / "hold").touch()
    program = (
        "import sys; from pathlib import Path; from medic.notebooks.run import Plan, run_series; "
        "run_series(Plan(Path(sys.argv[1]), Path('sample_data')))"
    )
    runner = subprocess.Popen([sys.executable, "-c", program, clone], stdout=subprocess.PIPE)
    state, partial = clone / "outputs" / "series.json", clone / "outputs" / "notebooks" / "02_modeling"
    deadline = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text()) and list(partial.glob(".*.running.ipynb"))):
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    assert not (partial / "01_break.ipynb").exists(), "nothing half-written takes its place"

    (clone / "hold").unlink()
    series, log = run(Plan(clone, "sample_data"))
    assert [(one.status, one.kept) for one in series.outcomes] == [("done", True), ("done", False)]
    assert "[1/2] 01_data_acquisition_and_understanding/01_observe  done before" in log
    assert [path.name for path in partial.glob("*.ipynb")] == ["01_break.ipynb"]


@pytest.mark.notebooks
def test_a_notebook_whose_kernel_dies_is_a_failure_too(clone, notebook_cells, write_notebook):
    write_notebook(clone / "code" / FIRST, notebook_cells("import os\nos._exit(1)"))
    write_notebook(clone / "code" / THIRD, notebook_cells())
    series, _ = run(Plan(clone, "sample_data"))
    assert [one.status for one in series.outcomes] == ["failed", "done"]
    assert "DeadKernelError" in series.page.read_text()


def test_a_parameter_that_a_notebook_lacks_stops_before_anything_runs(clone, notebook_cells, write_notebook):
    write_notebook(clone / "code" / FIRST, notebook_cells())
    with pytest.raises(MedicError, match=r"01_observe\.ipynb has no parameter EPOCH; it has DATA, EPOCHS, PROFILE"):
        run(Plan(clone, "sample_data", parameters={"EPOCH": 3}))
    assert not (clone / "outputs").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": "absent"}, "no data folder absent"),
        ({"profile": "fast"}, "'quick' or 'full'"),
        ({"only": ("04",)}, "no notebook starts with 04"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(change, told, clone, notebook_cells, write_notebook):
    write_notebook(clone / "code" / FIRST, notebook_cells())
    with pytest.raises(MedicError, match=told):
        run(Plan(**{"root": clone, "data": "sample_data", **change}))


def test_a_clone_without_notebooks_says_so(clone):
    with pytest.raises(MedicError, match="no notebooks"):
        find_notebooks(clone)


def test_the_page_of_real_photographs_does_not_call_them_synthetic(clone, notebook_cells, write_notebook):
    write_notebook(clone / "code" / FIRST, notebook_cells())
    (clone / "photographs").mkdir()
    facts = series_page.facts(clone, clone / "photographs", "full")
    failure = Failure(None, "", "CellTimeoutError: took too long")
    page = series_page.render([Outcome(FIRST, "failed", 3700.0, failure=failure)], facts, clone / "outputs")
    assert "ynthetic" not in page.partition("</style>")[2]
    assert "The notebook stopped outside its cells" in page
    assert "1 h 1 min" in page
