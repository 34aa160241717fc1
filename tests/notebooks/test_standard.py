"""The notebook standard: what it names, and what it lets pass."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from medic.errors import MedicError
from medic.notebooks.session import recorded
from standard import check_notebook, execute_in_place

ROOT = Path(__file__).resolve().parents[2]


def test_a_notebook_that_keeps_the_standard_passes(tmp_path, notebook_cells, write_notebook):
    assert check_notebook(write_notebook(tmp_path / "01_grade.ipynb", notebook_cells())) == []


def _noise(size: int) -> str:
    return base64.b64encode(os.urandom(size)).decode()


# One notebook for each rule: what is done to a good one, and what the check then says. Cells count from 0 here:
# 0 title, 1 card, 2 parameters, 3 imports, 4 begin, 5 work, 6 made, 7 try, 8 next.
BROKEN = {
    "no title": (lambda c: c[0].update(source="Grade"), "cell 1 is not a title"),
    "no purpose": (lambda c: c[0].update(source="# Grade"), "one sentence of purpose"),
    "no card": (lambda c: c[1].update(source="Learn things"), "cell 2 is not the card"),
    "card without time": (lambda c: c[1].update(source=c[1].source.replace("Time", "Hours")), "missing: Time"),
    "no parameters": (lambda c: c[2].metadata.clear(), "0 cells are tagged 'parameters'"),
    "two parameters": (lambda c: c[5].metadata.update(tags=["parameters"]), "2 cells are tagged"),
    "code before parameters": (
        lambda c: c.insert(2, new_code_cell("1", execution_count=1)),
        "not the first code cell",
    ),
    "lower-case parameter": (lambda c: c[2].update(source=c[2].source + "\nsize = 3  # more"), "UPPER_CASE"),
    "computed parameter": (lambda c: c[2].update(source=c[2].source + "\nSIZE = 2 * len('a')  # x"), "computed"),
    "parameter without comment": (lambda c: c[2].update(source=c[2].source + "\nSIZE = 3"), "SIZE has no comment"),
    "no profile": (lambda c: c[2].update(source='DATA = "sample_data"  # yours'), "no PROFILE"),
    "work among imports": (lambda c: c[3].update(source=c[3].source + "\nprint(1)"), "does more than import"),
    "no begin": (lambda c: c[4].update(source="session = 1"), "does not call begin"),
    "too much code": (
        lambda c: c.__setitem__(slice(5, 6), [new_code_cell("a = 1\n" * 29, execution_count=4 + n) for n in range(7)]),
        "200 are allowed",
    ),
    "long cell": (lambda c: c[5].update(source="a = 1\n" * 31), "31 lines of code"),
    "syntax": (lambda c: c[5].update(source="a = ("), "is not Python"),
    "install": (lambda c: c[5].update(source="!pip install torch"), "installs packages"),
    "path edit": (lambda c: c[5].update(source="import sys\nsys.path.append('..')"), "touches sys.path"),
    "absolute path": (lambda c: c[5].update(source=f"open('/{'home'}/ada/eye.jpeg')"), "has the absolute path '/ho"),
    "windows path": (lambda c: c[5].update(source=r"open(r'C:\Data\eye.jpeg')"), "has the absolute path 'C:"),
    "absolute path in the output": (
        lambda c: c[5].update(outputs=[new_output("stream", text=f"saved to /{'tmp'}/x")]),
        "in its output",
    ),
    "never executed": (lambda c: c[5].update(execution_count=None), "was executed as never, not as 4"),
    "executed out of order": (lambda c: c[5].update(execution_count=9), "not as 4"),
    "error": (
        lambda c: c[5].update(outputs=[new_output("error", ename="KeyError", evalue="'x'", traceback=[])]),
        "ends in KeyError",
    ),
    "too large": (
        lambda c: c[5].update(outputs=[new_output("display_data", data={"image/png": _noise(1_500_000)})]),
        "1500 kB are allowed",
    ),
    "synthetic not said": (lambda c: c[4].update(outputs=[]), "no output says 'SYNTHETIC"),
    "nothing made": (lambda c: c.pop(6), "no cell is headed 'What was made'"),
    "nothing to try": (lambda c: c.pop(7), "no cell is headed 'What to try'"),
    "nothing next": (lambda c: c.pop(8), "no cell is headed 'What comes next'"),
    "ending out of order": (lambda c: c.insert(6, c.pop(8)), "out of order"),
    "code in the ending": (lambda c: c.append(new_code_cell("1", execution_count=5)), "nothing runs in the ending"),
    "answers not folded": (lambda c: c[7].update(source="## What to try\n\nGuess."), "0 folded answers"),
    "answer not closed": (
        lambda c: c[7].update(source=c[7].source.replace("</details>", "", 1)),
        "not closed",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_check_names_what_breaks_the_standard(fault, tmp_path, notebook_cells, write_notebook):
    spoil, told = BROKEN[fault]
    cells = notebook_cells()
    spoil(cells)
    findings = check_notebook(write_notebook(tmp_path / "01_grade.ipynb", cells))
    assert any(told in finding for finding in findings), findings


@pytest.mark.parametrize("name", ["grade.ipynb", "1_grade.ipynb", "01-grade.ipynb", "01_Grade.ipynb", "01_.ipynb"])
def test_the_check_names_a_wrong_file_name(name, tmp_path, notebook_cells, write_notebook):
    assert "two digits" in check_notebook(write_notebook(tmp_path / name, notebook_cells()))[0]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"kernelspec": {"name": "medic", "display_name": "Ada's kernel"}}, 'the kernel is "Ada\'s kernel"'),
        ({"widgets": {"application/vnd.jupyter.widget-state+json": {}}}, "widget state"),
    ],
)
def test_the_check_names_traces_of_somebodys_jupyter(metadata, told, tmp_path, notebook_cells, write_notebook):
    path = write_notebook(tmp_path / "01_grade.ipynb", notebook_cells())
    content = json.loads(path.read_text())
    content["metadata"].update(metadata)
    path.write_text(json.dumps(content))
    assert any(told in finding for finding in check_notebook(path))


def test_what_the_standard_allows_is_not_reported(tmp_path, notebook_cells, write_notebook):
    cells = notebook_cells()
    cells[2].source += "\n# The size in pixels: more shows finer lesions.\nSIZE = 3"
    shown = new_code_cell("%matplotlib inline\ndef grade():\n    return 'A:\\n'", execution_count=4)
    cells.insert(5, shown)
    cells[6].execution_count = 5
    cells.insert(2, new_markdown_cell("![flow](../../image/flow.png), see https://example.org/home/tmp/x"))
    assert check_notebook(write_notebook(tmp_path / "01_grade.ipynb", cells)) == []


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    path = tmp_path / "01_grade.ipynb"
    path.write_text("not JSON")
    with pytest.raises(MedicError, match=r"01_grade\.ipynb is no notebook"):
        check_notebook(path)


@pytest.mark.notebooks
def test_a_notebook_that_fails_is_not_written_in_place(clone, notebook_cells, write_notebook):
    path = write_notebook(clone / "code" / "02_modeling" / "01_fail.ipynb", notebook_cells("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(MedicError, match="ZeroDivisionError"):
        execute_in_place(path)
    assert path.read_bytes() == before


def test_the_check_can_be_run_on_files(tmp_path, notebook_cells, write_notebook):
    good = write_notebook(tmp_path / "01_grade.ipynb", notebook_cells())
    bad = write_notebook(tmp_path / "02_grade.ipynb", notebook_cells()[1:])
    command = [sys.executable, str(ROOT / "tests" / "notebooks" / "standard.py")]
    assert subprocess.run([*command, good], check=False).returncode == 0
    told = subprocess.run([*command, good, bad], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "02_grade.ipynb: cell 1 is not a title" in told.stdout


@pytest.mark.notebooks
def test_scalars_recorded_in_a_notebook_are_read_back(clone, notebook_cells, write_notebook):
    work = (
        "import numpy as np",
        'record("kappa", np.float32(0.5)); record("images", 12); record("kappa", float("nan"))',
        'record("network", "small"); record("gate", np.bool_(True))',
    )
    path = write_notebook(clone / "code" / "02_modeling" / "01_record.ipynb", notebook_cells(*work))
    execute_in_place(path)
    assert recorded(path) == {"kappa": None, "images": 12, "network": "small", "gate": True}
    assert check_notebook(path) == []
