"""The notebook standard (docs/design.md) as a program: `check_notebook` names each cell that breaks it and the remedy.

``python tests/notebooks/standard.py NOTEBOOK...`` prints what is wrong; with ``--execute`` it first runs the notebooks
in place, as they are committed (the sample, the quick profile, no machine's traces).
"""

import ast
import base64
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import PIL.Image

from medic.errors import MedicError
from medic.files import replacing
from medic.notebooks.run import WIDGET_VIEW, run_cells
from medic.notebooks.session import SAMPLE, SMALL_NOTICE, SYNTHETIC_NOTICE

MAX_LINES, MAX_CELL_LINES, MAX_BYTES, MIN_WIDTH = 200, 30, 1_500_000, 900
CARD = ("You will learn", "Time", "Needs", "Makes")
ENDING = ("What was made", "What to try", "What comes next")
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}

FILE_NAME = re.compile(r"\d{2}_[a-z0-9]+(_[a-z0-9]+)*\.ipynb")
# A path of somebody's machine. What stands before keeps URLs (https://host/home) and relative paths out.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:home|root|tmp|work|Users)\b(?:/[\w.-]*)?|\b[A-Z]:\\(?![nrt'\"])[\w.-]*")


def check_notebook(path: Path) -> list[str]:
    """What breaks the standard in a committed notebook: one sentence each, with the cell (1 is the first)."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        cell.number, cell.code, cell.tags = number, cell.cell_type == "code", cell.metadata.get("tags", [])
    code = [cell for cell in notebook.cells if cell.code]
    findings = [*_file(path, notebook), *_opening(notebook.cells, code), *_cells(code)]
    return [*findings, *_traces(notebook.cells), *_ending(notebook.cells)]


def _file(path: Path, notebook: Any) -> Iterator[str]:
    if not FILE_NAME.fullmatch(path.name):
        yield f"the name {path.name} is not like 03_grade_retinopathy.ipynb: two digits, then lower-case words"
    if (size := path.stat().st_size) > MAX_BYTES:
        yield f"the file has {size / 1000:.0f} kB, {MAX_BYTES // 1000} kB are allowed; show fewer or smaller figures"
    if (kernel := dict(notebook.metadata.get("kernelspec", {}))) != KERNEL:
        yield f"the kernel is {kernel.get('display_name', 'not named')!r}; the standard one is {KERNEL}"
    shown = [cell.number for cell in notebook.cells for out in cell.get("outputs", []) if WIDGET_VIEW in _data(out)]
    if shown or "widgets" in notebook.metadata:
        yield f"widget state is saved (cells {shown}), which hides the picture; run it with `make notebooks`"


def _opening(cells: list, code: list) -> Iterator[str]:
    if not cells or cells[0].code or not re.match(r"# \S.*\n+\s*[^#\s|].*", cells[0].source):
        yield "cell 1 is not a title ('# ...') with one sentence of purpose under it"
    card = cells[1].source if len(cells) > 1 and not cells[1].code else ""
    missing = [word for word in CARD if word not in card]
    if missing or not re.search(r"^\|?\s*:?-{2,}", card, re.MULTILINE):
        yield f"cell 2 is not the card, a Markdown table with {' · '.join(CARD)} (missing: {', '.join(missing)})"
    tagged = [cell.number for cell in cells if "parameters" in cell.tags]
    if len(code) < 3 or tagged != [code[0].number]:
        yield f"the cells {tagged} are tagged 'parameters'; tag exactly one, the first of three code cells or more"
        return
    parameters, imports, begins = code[:3]
    if not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(imports.source).body):
        yield f"cell {imports.number} (the second code cell) does more than import; only imports stand there"
    if "begin(PROFILE, DATA" not in begins.source:
        yield f"cell {begins.number} (the third code cell) does not call begin(PROFILE, DATA); call it there"
    names, lines = {}, parameters.source.splitlines()
    for statement in ast.parse(parameters.source).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not isinstance(target, ast.Name) or not target.id.isupper():
            yield f"cell {parameters.number}: '{ast.unparse(statement)}' is not one UPPER_CASE constant"
            continue
        try:
            names[target.id] = ast.literal_eval(statement.value)
        except ValueError:
            yield f"cell {parameters.number}: {target.id} is computed; a parameter is a plain value"
        own, above = lines[statement.lineno - 1 : statement.end_lineno], [*lines, ""][statement.lineno - 2]
        if "#" not in "".join(own) and not above.startswith("#"):
            yield f"cell {parameters.number}: {target.id} has no comment; say beside it what changing it does"
    for name in {"PROFILE", "DATA"} - names.keys():
        yield f"cell {parameters.number}: there is no {name} among the parameters; every notebook has it"
    said = "\n".join(text for cell in code for text in _texts(cell))
    if Path(names.get("DATA", "")).name == SAMPLE and SYNTHETIC_NOTICE not in said and SMALL_NOTICE not in said:
        yield f"no output says '{SYNTHETIC_NOTICE}'; call begin(PROFILE, DATA) and run again"


def _cells(code: list) -> Iterator[str]:
    counts = [sum(bool(line.strip()) and line.strip()[0] != "#" for line in cell.source.splitlines()) for cell in code]
    if sum(counts) > MAX_LINES:
        yield f"there are {sum(counts)} lines of code, {MAX_LINES} are allowed; move code into medic or split it"
    for expected, (cell, lines) in enumerate(zip(code, counts, strict=True), start=1):
        if lines > MAX_CELL_LINES:
            yield f"cell {cell.number} has {lines} lines of code, {MAX_CELL_LINES} are allowed; split it"
        if cell.execution_count != expected:
            yield f"cell {cell.number} was executed as {cell.execution_count}, not as {expected}; run `make notebooks`"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.number} ends in {output.ename}; mend it and run all cells again"
            for picture in (data for kind, data in _data(output).items() if kind in ("image/png", "image/jpeg")):
                width = PIL.Image.open(io.BytesIO(base64.b64decode(picture))).width
                if width < MIN_WIDTH:
                    yield f"cell {cell.number} shows a figure {width} pixels wide, {MIN_WIDTH} at least; draw it wider"


def _traces(cells: list) -> Iterator[str]:
    for cell in cells:
        for text in (cell.source, *_texts(cell)):
            if found := MACHINE_PATH.search(text):
                yield f"cell {cell.number} has the absolute path {found.group()!r}; print session.shown(path)"
                break


def _ending(cells: list) -> Iterator[str]:
    headings = [re.search(r"^#{1,6}\s+(.+)$", "" if cell.code else cell.source, re.MULTILINE) for cell in cells]
    places = [number for number, found in enumerate(headings) if found and found.group(1).strip() in ENDING]
    if [headings[place].group(1).strip() for place in places] != list(ENDING):
        yield f"the last cells are headed {', '.join(ENDING)}, in this order"
        return
    if any(cell.code for cell in cells[places[0] :]):
        yield "there is code after 'What was made'; nothing runs in the ending, move it up"
    exercises = "".join(cell.source for cell in cells[places[1] : places[2]])
    folded = exercises.count("<details>")
    if not 2 <= folded <= 4 or folded != exercises.count("</details>"):
        yield f"'What to try' has {folded} folded answers; give 2 to 4 exercises, each answer in <details>, closed"


def _texts(cell: Any) -> Iterator[str]:
    """All text of a cell's outputs; pictures are not text."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))
        yield from (str(content) for kind, content in _data(output).items() if not re.match(r"image/(?!svg)", kind))


def _data(output: Any) -> dict:
    return output.get("data", {})


def execute_in_place(path: Path) -> None:
    """Execute a notebook as it is committed and write it back, whole or not at all, without traces of the machine.

    Raises:
        MedicError: a cell failed; the file is left as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    if failure := run_cells(notebook, path.parent):
        why = failure.error.splitlines()[-1]
        raise MedicError(f"{path.name} was not written: cell {failure.cell}: {why}; mend it first")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        # Progress bars and warnings belong to the run, and to the speed of the machine, not to what is read.
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        nbformat.write(notebook, file)


if __name__ == "__main__":
    status = 0
    for path in [Path(argument) for argument in sys.argv[1:] if argument != "--execute"]:
        try:
            if "--execute" in sys.argv:
                print(f"executing {path}", flush=True)
                execute_in_place(path)
            findings = check_notebook(path)
        except MedicError as error:
            findings = [str(error)]
        for finding in findings:
            print(f"{path}: {finding}")
        status |= bool(findings)
    sys.exit(status)
