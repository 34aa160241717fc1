"""The notebook standard (docs/design.md) as a program: `check_notebook` names each cell that breaks it and the remedy.

``python tests/notebooks/standard.py NOTEBOOK...`` prints what is wrong; with ``--execute`` it first runs the notebooks
in place, as they are committed (the sample, the quick profile, no machine's traces).
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medic.errors import MedicError
from medic.files import replacing
from medic.notebooks.run import WIDGET_VIEW, leave_pictures
from medic.notebooks.session import SAMPLE, SMALL_NOTICE, SYNTHETIC_NOTICE

MAX_LINES = 200
MAX_CELL_LINES = 30
MAX_BYTES = 1_500_000
CARD = ("You will learn", "Time", "Needs", "Makes")
ENDING = ("What was made", "What to try", "What comes next")
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}

FILE_NAME = re.compile(r"\d{2}_[a-z0-9]+(_[a-z0-9]+)*\.ipynb")
# A path of somebody's machine. What stands before keeps URLs (https://host/home) and relative paths out.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:home|root|tmp|work|Users)\b(?:/[\w.-]*)?|\b[A-Z]:\\(?![nrt'\"])[\w.-]*")
SHELL_INSTALL = re.compile(r"^\s*[!%]\s*(pip|conda|uv|mamba)\b", re.MULTILINE)
PATH_EDIT = re.compile(r"\bsys\s*\.\s*path\b")


def check_notebook(path: Path) -> list[str]:
    """What breaks the standard in a committed notebook: one sentence each, with the cell and the remedy.

    Raises:
        MedicError: the file is no notebook.
    """
    import nbformat

    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        raise MedicError(f"{path.name} is no notebook that can be read ({error}); restore it from git") from error
    cells = [Cell(number, cell) for number, cell in enumerate(notebook.cells, start=1)]
    findings = [*_file(path), *_metadata(notebook), *_opening(cells), *_parameters(cells), *_code(cells)]
    findings += [*_execution(cells), *_traces(cells), *_ending(cells)]
    return findings


class Cell:
    """One cell, with what the rules ask of it.

    Attributes:
        number: 1 for the first cell, as a person counts.
    """

    def __init__(self, number: int, node: Any):
        self.number = number
        self.node = node
        self.source: str = node.source
        self.tags: list[str] = node.metadata.get("tags", [])
        self.is_code: bool = node.cell_type == "code"
        self.outputs: list[Any] = node.get("outputs", [])

    def statements(self) -> list[ast.stmt]:
        """The cell's top-level statements; magics are read as the calls that IPython makes of them."""
        from IPython.core.inputtransformer2 import TransformerManager

        return ast.parse(TransformerManager().transform_cell(self.source)).body

    def lines(self) -> int:
        """Lines of code: neither blank nor only a comment."""
        return sum(bool(line.strip()) and not line.strip().startswith("#") for line in self.source.splitlines())

    def texts(self) -> Iterator[str]:
        """All text of the cell's outputs; pictures are not text."""
        for output in self.outputs:
            yield output.get("text", "")
            yield "\n".join(output.get("traceback", []))
            for kind, content in output.get("data", {}).items():
                if not kind.startswith("image/") or kind == "image/svg+xml":
                    yield content if isinstance(content, str) else repr(content)

    def heading(self) -> str:
        """The text of the cell's first heading, or nothing."""
        found = re.search(r"^#{1,6}\s+(.+)$", self.source, re.MULTILINE) if not self.is_code else None
        return found.group(1).strip() if found else ""


def _file(path: Path) -> Iterator[str]:
    if not FILE_NAME.fullmatch(path.name):
        yield f"the name {path.name} is not like 03_grade_retinopathy.ipynb: two digits, then lower-case words"
    size = path.stat().st_size
    if size > MAX_BYTES:
        yield (
            f"the file has {size / 1000:.0f} kB, and {MAX_BYTES // 1000} kB are allowed; "
            "show fewer or smaller figures, and print less"
        )


def _metadata(notebook: Any) -> Iterator[str]:
    kernel = dict(notebook.metadata.get("kernelspec", {}))
    if kernel != KERNEL:
        yield f"the kernel is {kernel.get('display_name', 'not named')!r}; the standard one is {KERNEL}"
    if "widgets" in notebook.metadata:
        yield "widget state is saved in the notebook; clear it (Settings: do not save widget state) and run again"
    for number, cell in enumerate(notebook.cells, start=1):
        if any(WIDGET_VIEW in output.get("data", {}) for output in cell.get("outputs", [])):
            yield (
                f"cell {number} shows a widget, which without a kernel hides the picture beside it; "
                "run the notebook with `make notebooks`, which leaves the picture"
            )


def _opening(cells: list[Cell]) -> Iterator[str]:
    first = cells[0] if cells else None
    if first is None or first.is_code or not re.match(r"# \S.*\n+\s*[^#\s|].*", first.source):
        yield "cell 1 is not a title ('# ...') with one sentence of purpose under it"
    card = cells[1] if len(cells) > 1 else None
    missing = [word for word in CARD if card is None or card.is_code or word not in card.source]
    if missing or (card and not re.search(r"^\|?\s*:?-{2,}", card.source, re.MULTILINE)):
        named = f" (missing: {', '.join(missing)})" if missing else ""
        yield f"cell 2 is not the card, a Markdown table with {' · '.join(CARD)}{named}"

    tagged = [cell for cell in cells if "parameters" in cell.tags]
    code = [cell for cell in cells if cell.is_code]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged 'parameters'; tag exactly one, the first code cell"
    elif code and tagged[0] is not code[0]:
        yield f"cell {tagged[0].number} is tagged 'parameters' but is not the first code cell; move it up"
    if len(code) < 3:
        yield "there are fewer than three code cells; the opening needs parameters, imports, and begin(...)"
        return
    imports, begins = code[1], code[2]
    if not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in _parsed(imports)):
        yield f"cell {imports.number} (the second code cell) does more than import; only imports stand there"
    if not any(_calls_begin(node) for statement in _parsed(begins) for node in ast.walk(statement)):
        yield f"cell {begins.number} (the third code cell) does not call begin(PROFILE, DATA); call it there"


def _parameters(cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        if "parameters" not in cell.tags:
            continue
        statements = _parsed(cell)
        beside, above = _comment_lines(cell.source) if statements else (set(), set())
        names = set()
        for statement in statements:
            line = ast.unparse(statement).splitlines()[0]
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if len(targets) != 1 or not isinstance(targets[0], ast.Name) or not targets[0].id.isupper():
                yield f"cell {cell.number}: '{line}' is not one UPPER_CASE constant; parameters are nothing else"
                continue
            names.add(targets[0].id)
            try:
                ast.literal_eval(statement.value)
            except ValueError:
                yield f"cell {cell.number}: {targets[0].id} is computed; a parameter is a plain value"
            if statement.lineno - 1 not in above and not {statement.lineno, statement.end_lineno} & beside:
                yield f"cell {cell.number}: {targets[0].id} has no comment; say beside it what changing it does"
        for name in ("PROFILE", "DATA"):
            if name not in names:
                yield f"cell {cell.number}: there is no {name} among the parameters; every notebook has it"


def _code(cells: list[Cell]) -> Iterator[str]:
    total = 0
    for cell in cells:
        if not cell.is_code:
            continue
        lines = cell.lines()
        total += lines
        if lines > MAX_CELL_LINES:
            yield f"cell {cell.number} has {lines} lines of code, {MAX_CELL_LINES} are allowed; split it"
        try:
            cell.statements()
        except SyntaxError as error:
            yield f"cell {cell.number} is not Python: {error.msg} in line {error.lineno}"
            continue
        if SHELL_INSTALL.search(cell.source):
            yield f"cell {cell.number} installs packages; add them to pyproject.toml and `make lock` instead"
        if PATH_EDIT.search(cell.source):
            yield f"cell {cell.number} touches sys.path; the package is installed, import from it"
    if total > MAX_LINES:
        yield f"there are {total} lines of code, {MAX_LINES} are allowed; move code into medic or split the notebook"


def _execution(cells: list[Cell]) -> Iterator[str]:
    expected = 0
    for cell in cells:
        if not cell.is_code or not cell.source.strip():
            continue
        expected += 1
        if cell.node.execution_count != expected:
            yield (
                f"cell {cell.number} was executed as {cell.node.execution_count or 'never'}, not as {expected}; "
                "restart the kernel and run all cells (make notebooks)"
            )
            break
    for cell in cells:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.number} ends in {output.ename}; mend it and run all cells again"


def _traces(cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        for place, text in [("", cell.source), *((" in its output", text) for text in cell.texts())]:
            found = MACHINE_PATH.search(text)
            if found:
                yield f"cell {cell.number} has the absolute path {found.group()!r}{place}; print session.shown(path)"
                break
    default = next((_default(cell, "DATA") for cell in cells if "parameters" in cell.tags), None)
    said = any(notice in text for cell in cells for text in cell.texts() for notice in (SYNTHETIC_NOTICE, SMALL_NOTICE))
    if default is not None and Path(default).name == SAMPLE and not said:
        yield f"DATA is {default!r} and no output says '{SYNTHETIC_NOTICE}'; call begin(PROFILE, DATA) and run again"


def _ending(cells: list[Cell]) -> Iterator[str]:
    headings = {cell.heading(): cell.number for cell in cells if cell.heading()}
    places = [headings.get(name) for name in ENDING]
    for name, place in zip(ENDING, places, strict=True):
        if place is None:
            yield f"no cell is headed '{name}'; the last three cells are {', '.join(ENDING)}"
    if None in places:
        return
    if places != sorted(places):
        yield f"the ending is out of order; it goes {', '.join(ENDING)}"
        return
    after = [cell for cell in cells if cell.number >= places[0] and cell.is_code]
    if after:
        yield f"cell {after[0].number} is code after 'What was made'; nothing runs in the ending, move it up"
    exercises = "".join(cell.source for cell in cells if places[1] <= cell.number < places[2])
    folded = exercises.count("<details>")
    if not 2 <= folded <= 4:
        yield f"'What to try' has {folded} folded answers; give 2 to 4 exercises, each answer in <details>"
    if folded != exercises.count("</details>"):
        yield "'What to try' has a <details> that is not closed; end each answer with </details>"


def _parsed(cell: Cell) -> list[ast.stmt]:
    try:
        return cell.statements()
    except SyntaxError:  # `_code` reports it once
        return []


def _calls_begin(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and "begin" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))


def _comment_lines(source: str) -> tuple[set[int], set[int]]:
    """The lines with a comment behind code, and those that are only a comment."""
    beside, above = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (beside if token.line[: token.start[1]].strip() else above).add(token.start[0])
    return beside, above


def _default(cell: Cell, name: str) -> Any:
    for statement in _parsed(cell):
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == name:
            return getattr(statement.value, "value", None)
    return None


def execute_in_place(path: Path) -> None:
    """Execute a notebook as it is committed and write it back, whole or not at all, without traces of the machine.

    Raises:
        MedicError: a cell failed; the file is left as it was.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        raise MedicError(f"{path.name} was not written: {error.ename}: {error.evalue}; mend the cell first") from error
    leave_pictures(notebook)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        # Progress bars and warnings belong to the run, and to the speed of the machine, not to what is read.
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        nbformat.write(notebook, file)


def _main(arguments: list[str]) -> int:
    status = 0
    for path in [Path(argument) for argument in arguments if argument != "--execute"]:
        try:
            if "--execute" in arguments:
                print(f"executing {path}", flush=True)
                execute_in_place(path)
            findings = check_notebook(path)
        except MedicError as error:
            findings = [str(error)]
        for finding in findings:
            print(f"{path}: {finding}")
        status |= bool(findings)
    return status


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
