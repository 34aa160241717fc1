"""The runner behind ``medic run``: executes every notebook in order and writes the page of what came out."""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from medic.errors import MedicError
from medic.files import replacing, write_json, write_text
from medic.notebooks import page as series_page
from medic.notebooks.session import PROFILES, products

# Cells that papermill adds; a person counts without them.
ADDED = {"injected-parameters", "papermill-error-cell-tag"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        root: the repository (`medic.notebooks.session.find_root`).
        data: the data folder; relative names start at the repository.
        profile: ``"quick"`` or ``"full"``.
        outputs: where everything is written.
        parameters: further parameters for each notebook that runs; each must be one of its own.
        only: run only notebooks whose path or name starts with one of these, such as ``02_modeling/03``.
        again: run also what is done already.
        timeout: seconds that one cell may take; None for no limit.
    """

    root: Path
    data: Path
    profile: str = "quick"
    outputs: Path = Path("outputs")
    parameters: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    again: bool = False
    timeout: int | None = None


@dataclass(frozen=True)
class Failure:
    """Where a notebook stopped: its cell as a person counts (None: no cell), that cell's source, and the error."""

    cell: int | None
    source: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook.

    Attributes:
        notebook: such as ``02_modeling/03_grade_retinopathy.ipynb``.
        status: ``waiting``, ``running``, ``done``, ``failed`` or ``stopped`` (interrupted).
        seconds: how long it ran.
        finished: when, in seconds since 1970.
        key: fingerprint of all that the result depends on.
        kept: done in an earlier run, and nothing it depends on has changed.
    """

    notebook: str
    status: str = "waiting"
    seconds: float = 0.0
    finished: float = 0.0
    key: str = ""
    failure: Failure | None = None
    kept: bool = False


@dataclass(frozen=True)
class Series:
    """All notebooks of a run and the page that shows them."""

    outcomes: tuple[Outcome, ...]
    page: Path

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The notebooks that ended in an error."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")


def run_series(plan: Plan, console: Console | None = None) -> Series:
    """Execute the notebooks in order and write ``index.html`` after each; go on after one that fails.

    What an earlier run finished is kept, as long as the notebook, its parameters, the library and the data are as they
    were. Executed copies go to ``outputs/notebooks``; the sources are never written.

    Returns:
        The outcome of every notebook. ``series.failed`` says whether the command must end non-zero.

    Raises:
        MedicError: nothing to run, an unknown profile or parameter, or no data folder; before anything has run.
        KeyboardInterrupt: passed on, after the page has been written.
    """
    console = console or Console(highlight=False)
    root, outputs, data = plan.root, _under(plan.root, plan.outputs), _under(plan.root, plan.data)
    if plan.profile not in PROFILES:
        raise MedicError(f"the profile is {plan.profile!r}; it must be 'quick' or 'full'")
    if not data.is_dir():
        raise MedicError(f"there is no data folder {plan.data}; name one that holds retinopathy/, or leave it out")
    paths = find_notebooks(root)
    chosen = _choose(paths, plan.only)
    # Papermill would only log a warning for a parameter that a notebook does not have.
    parameters = {"DATA": Path(os.path.relpath(data, root)).as_posix(), "PROFILE": plan.profile, **plan.parameters}
    for name in chosen:
        check_parameters(paths[name], parameters)

    shared = _fingerprint(_library(root), _listing(data), json.dumps(parameters, sort_keys=True, default=str))
    keys = {name: _fingerprint(shared, _sources(path)) for name, path in paths.items()}
    state = _load_state(outputs / "series.json", keys)
    page = outputs / "index.html"
    facts = series_page.facts(root, data, plan.profile)
    environment = {
        "MEDIC_OUTPUTS": str(outputs),
        "MEDIC_IMAGES": str(products(root, outputs, data, plan.profile) / "image"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }

    def keep(outcome: Outcome) -> None:
        state[outcome.notebook] = outcome
        write_json(outputs / "series.json", [asdict(one) for one in state.values() if one.finished])
        write_text(page, series_page.render(tuple(state.values()), facts, outputs))

    with _environment(environment):
        for number, name in enumerate(chosen, start=1):
            label = f"[{number}/{len(chosen)}] {name.removesuffix('.ipynb')}"
            if state[name].status == "done" and not plan.again and (outputs / "notebooks" / name).exists():
                console.print(escape(f"{label}  done before"), soft_wrap=True)
                keep(state[name])
                continue
            keep(Outcome(name, "running"))
            outcome = Outcome(name, "stopped", key=keys[name])
            try:
                outcome = _run_one(paths[name], outputs, outcome, parameters, label, plan.timeout, console)
            finally:
                keep(outcome)
    return Series(tuple(state.values()), page)


def find_notebooks(root: Path) -> dict[str, Path]:
    """The notebooks of a clone in their order, by names such as ``02_modeling/03_grade_retinopathy.ipynb``."""
    paths = sorted((root / "code").glob("0*_*/[0-9]*.ipynb"))
    if not paths:
        raise MedicError(f"there are no notebooks in {root / 'code'}; restore them with `git checkout code`")
    return {f"{path.parent.name}/{path.name}": path for path in paths}


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Raise a `MedicError` for a parameter that the notebook's own parameters cell does not define."""
    import papermill

    # Papermill fills braces in a path with parameters; doubled, they stand for themselves.
    defined = papermill.inspect_notebook(_literal(notebook))
    for name in parameters:
        if name not in defined:
            raise MedicError(
                f"{notebook.parent.name}/{notebook.name} has no parameter {name}; it has {', '.join(sorted(defined))}"
            )


def execute(
    notebook: Path, copy: Path, parameters: Mapping[str, Any], *, timeout: int | None = None, on_cell: Any = None
) -> Failure | None:
    """Execute one notebook from its own folder into ``copy`` (with what was reached, if a cell fails).

    Args:
        notebook: the source, which is never written.
        copy: where the executed notebook goes.
        parameters: values for constants of the cell tagged ``parameters``.
        timeout: seconds that one cell may take; None for no limit.
        on_cell: called as ``on_cell(cell=..., cell_index=...)`` before each cell.

    Returns:
        None if all cells ran.
    """
    import nbformat
    import papermill

    check_parameters(notebook, parameters)
    # Papermill saves after each cell; the copy takes its name only when it is whole.
    partial = copy.with_name(f".{copy.stem}.running.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    hooks = {"on_cell_start": on_cell} if on_cell else {}
    problem = None
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(partial),
            dict(parameters),
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=False,
            execution_timeout=timeout,
            # Kernels warn on the terminal about their transport at each start; errors still show.
            extra_arguments=["--log-level=ERROR"],
            **hooks,
        )
    except (KeyboardInterrupt, SystemExit):
        partial.unlink(missing_ok=True)
        raise
    except Exception as error:  # a dead kernel and a timeout are the notebook's failures too
        problem = error
    executed = nbformat.read(partial, as_version=4) if partial.exists() else nbformat.v4.new_notebook()
    executed.metadata.pop("papermill", None)  # it names folders of this machine
    leave_pictures(executed)
    with replacing(copy) as temporary:
        nbformat.write(executed, temporary)
    partial.unlink(missing_ok=True)
    return _failure(executed, problem) if problem else None


def _run_one(
    path: Path,
    outputs: Path,
    outcome: Outcome,
    parameters: Mapping[str, Any],
    label: str,
    timeout: Any,
    console: Console,
) -> Outcome:
    copy = outputs / "notebooks" / outcome.notebook
    cells = len(json.loads(path.read_text(encoding="utf-8"))["cells"])
    if not console.is_terminal:
        console.print(escape(f"{label}  started, {cells} cells"), soft_wrap=True)
    started = time.perf_counter()
    with _progress(label, cells, console) as on_cell:
        failure = execute(path, copy, parameters, timeout=timeout, on_cell=on_cell)
    seconds = time.perf_counter() - started
    if failure:
        where = f" in cell {failure.cell}" if failure.cell else ""
        told = failure.error.strip().splitlines()[-1] if failure.error.strip() else "no message"
        console.print(escape(f"{label}  FAILED{where} after {seconds:.0f} s: {told}"), soft_wrap=True)
    else:
        console.print(escape(f"{label}  done in {seconds:.0f} s"), soft_wrap=True)
    series_page.convert(copy, source_folder=path.parent)
    return Outcome(outcome.notebook, "failed" if failure else "done", seconds, time.time(), outcome.key, failure)


@contextlib.contextmanager
def _progress(label: str, cells: int, console: Console) -> Iterator[Any]:
    """A live line on a terminal, nothing in a log (the lines printed before and after say enough there)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("cell"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(escape(label), total=cells)
        # The cell that papermill injects is not one of the person's.
        yield lambda cell, cell_index: progress.update(task, completed=min(cell_index + 1, cells))


def _failure(notebook: Any, problem: Exception) -> Failure:
    number = 0
    for cell in notebook.cells:
        if ADDED & set(cell.metadata.get("tags", [])):
            continue
        number += 1
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                text = ANSI.sub("", "\n".join(output.traceback)).lstrip("-\n") or f"{output.ename}: {output.evalue}"
                return Failure(number, cell.source, "\n".join(text.splitlines()[-40:]))
    return Failure(None, "", ANSI.sub("", f"{type(problem).__name__}: {problem}"))


def _choose(paths: Mapping[str, Path], only: tuple[str, ...]) -> list[str]:
    if not only:
        return list(paths)
    starts = tuple(one.removeprefix("code/") for one in only)
    chosen = [name for name in paths if name.startswith(starts) or name.rpartition("/")[2].startswith(starts)]
    if not chosen:
        raise MedicError(f"no notebook starts with {' or '.join(only)}; there are {', '.join(paths)}")
    return chosen


def _load_state(path: Path, keys: Mapping[str, str]) -> dict[str, Outcome]:
    """Every notebook's outcome: the earlier one if all it depends on is as it was, waiting otherwise."""
    try:
        earlier = {one["notebook"]: one for one in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        earlier = {}
    except (ValueError, TypeError, KeyError) as error:
        raise MedicError(f"{path} is damaged ({error}); remove it, and every notebook runs again") from error
    state = {}
    for name, key in keys.items():
        one = earlier.get(name)
        if one and one["key"] == key:
            failure = Failure(**one["failure"]) if one["failure"] else None
            state[name] = Outcome(**{**one, "failure": failure, "kept": True})
        else:
            state[name] = Outcome(name)
    return state


def _sources(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return json.dumps([[cell["cell_type"], cell["source"]] for cell in cells])


def _library(root: Path) -> str:
    folder = root / "code" / "medic"
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _listing(folder: Path) -> str:
    """The data by names, sizes and times of change: reading gigabytes to see that nothing changed is no option."""
    lines = [str(folder)]
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            found = os.lstat(os.path.join(place, name))
            lines.append(f"{os.path.relpath(place, folder)}/{name} {found.st_size} {found.st_mtime_ns}")
    return _fingerprint(*lines)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _under(root: Path, path: Path) -> Path:
    return Path(os.path.normpath(root / path))


def _literal(path: Path) -> str:
    return str(path.absolute()).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Kernels inherit these; the runner itself is left as it was."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def leave_pictures(notebook: Any) -> None:
    """Take the live widgets out of an executed notebook: what they leave beside themselves is shown in their place.

    Readers show a widget's view before its picture, also where there is no kernel that could fill it.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for bundle in ("data", "metadata"):
                output.get(bundle, {}).pop(WIDGET_VIEW, None)
