"""The notebook standard names what breaks it, and a notebook that fails is not written in place."""

import pytest
from nbformat.v4 import new_code_cell, new_output

from medic.errors import MedicError
from medic.notebooks.session import recorded
from standard import check_notebook, execute_in_place

# What is done to a good notebook, and what is then said. Cells count from 0 here:
# 0 title, 1 card, 2 parameters, 3 imports, 4 begin, 5 work, 6 made, 7 try, 8 next.
BROKEN = {
    "cell 1 is not a title": lambda c: c[0].update(source="# Grade"),
    "missing: Time": lambda c: c[1].update(source=c[1].source.replace("Time", "Hours")),
    "are tagged 'parameters'": lambda c: c.insert(2, new_code_cell("1", execution_count=1)),
    "UPPER_CASE": lambda c: c[2].update(source=c[2].source + "\nsize = 3  # more"),
    "is computed": lambda c: c[2].update(source=c[2].source + "\nSIZE = 2 * len('a')  # x"),
    "SIZE has no comment": lambda c: c[2].update(source=c[2].source + "\nSIZE = 3"),
    "no PROFILE": lambda c: c[2].update(source='DATA = "sample_data"  # yours'),
    "does more than import": lambda c: c[3].update(source=c[3].source + "\nprint(1)"),
    "does not call begin": lambda c: c[4].update(source="session = 1"),
    "200 are allowed": lambda c: c.__setitem__(slice(5, 6), [new_code_cell("a = 1\n" * 29) for _ in range(7)]),
    "31 lines of code": lambda c: c[5].update(source="a = 1\n" * 31),
    "is not Python": lambda c: c[5].update(source="a = ("),
    "installs packages": lambda c: c[5].update(source="!pip install torch"),
    "touches sys.path": lambda c: c[5].update(source="import sys\nsys.path.append('..')"),
    "has the absolute path '/ho": lambda c: c[5].update(source=f"open('/{'home'}/ada/eye.jpeg')"),
    "has the absolute path 'C:": lambda c: c[5].update(source=r"open(r'C:\Data\eye.jpeg')"),
    "has the absolute path '/tmp": lambda c: c[5].update(outputs=[new_output("stream", text=f"in /{'tmp'}/x")]),
    "not as 4": lambda c: c[5].update(execution_count=None),
    "ends in KeyError": lambda c: c[5].update(outputs=[new_output("error", ename="KeyError", evalue="'x'")]),
    "1500 kB are allowed": lambda c: c[5].update(outputs=[new_output("stream", text="x" * 1_500_000)]),
    "no output says 'SYNTHETIC": lambda c: c[4].update(outputs=[]),
    "the last cells are headed": lambda c: c.insert(6, c.pop(8)),
    "nothing runs in the ending": lambda c: c.append(new_code_cell("1", execution_count=5)),
    "0 folded answers": lambda c: c[7].update(source="## What to try\n\nGuess."),
}


def test_the_check_names_what_breaks_the_standard_and_nothing_else(tmp_path, notebook_cells, write_notebook):
    cells = notebook_cells()
    cells[2].source += "\n# The size in pixels: more shows finer lesions.\nSIZE = 3"
    cells[5].source = "%matplotlib inline\ndef grade():\n    return 'A:\\n'  # https://example.org/home/tmp/x"
    assert check_notebook(write_notebook(tmp_path / "01_grade.ipynb", cells)) == []
    for told, spoil in BROKEN.items():
        cells = notebook_cells()
        spoil(cells)
        findings = check_notebook(write_notebook(tmp_path / "01_grade.ipynb", cells))
        assert any(told in finding for finding in findings), (told, findings)
    for name in ("grade.ipynb", "1_grade.ipynb", "01-grade.ipynb", "01_Grade.ipynb"):
        assert "two digits" in check_notebook(write_notebook(tmp_path / name, notebook_cells()))[0]


@pytest.mark.notebooks
def test_a_notebook_is_executed_in_place_with_its_scalars_or_not_written(clone, notebook_cells, write_notebook):
    work = (
        "import numpy as np",
        'record("kappa", np.float32(0.5)); record("images", 12); record("kappa", float("nan"))',
        'record("network", "small"); record("gate", np.bool_(True))',
    )
    path = write_notebook(clone / "code" / "02_modeling" / "01_record.ipynb", notebook_cells(*work))
    execute_in_place(path)
    assert recorded(path) == {"kappa": None, "images": 12, "network": "small", "gate": True}
    assert check_notebook(path) == []
    write_notebook(path, notebook_cells("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(MedicError, match="ZeroDivisionError"):
        execute_in_place(path)
    assert path.read_bytes() == before
