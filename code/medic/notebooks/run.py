"""The runner behind ``medic run``: executes every notebook in order and writes the page of what came out."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medic.errors import MedicError
from medic.files import replacing, write_json, write_text
from medic.notebooks.page import convert, headline, render
from medic.notebooks.session import PROFILES, SAMPLE, products, recorded

ADDED = "injected-parameters"
"""The tag of the cell that papermill adds; a person counts without it."""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


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


def run_series(
    root: Path,
    data: str | os.PathLike,
    profile: str = "quick",
    outputs: str | os.PathLike = "outputs",
    only: Sequence[str] = (),
    again: bool = False,
    **parameters: object,
) -> list[Outcome]:
    """Execute the notebooks in order and write ``index.html`` after each; go on after one that fails.

    What an earlier run finished is kept, as long as the notebook, its parameters, the library and the data are as they
    were. Executed copies go to ``outputs/notebooks``; the sources are never written. The page compares each headline
    with the last run that went to its end, on the same data and profile; on the sample, without one, with the committed
    notebook.

    Args:
        root: the repository (`medic.notebooks.session.find_root`).
        data: the data folder; relative names start at the repository.
        profile: ``"quick"`` or ``"full"``.
        outputs: where everything is written.
        only: run only notebooks whose path or name starts with one of these, such as ``02_modeling/03``.
        again: run also what is done already.
        parameters: further parameters for each notebook that runs; each must be one of its own.

    Returns:
        The outcome of every notebook, those that were not chosen too.

    Raises:
        MedicError: nothing to run, an unknown profile or parameter, or no data folder; before anything has run.
        KeyboardInterrupt: passed on, after the page has been written.
    """
    outputs, data = (Path(os.path.normpath(root / path)) for path in (outputs, data))
    if profile not in PROFILES:
        raise MedicError(f"the profile is {profile!r}; it must be 'quick' or 'full'")
    if not data.is_dir():
        raise MedicError(
            f"there is no data folder {os.path.relpath(data, root)}; name one that holds retinopathy/, or leave it out"
        )
    paths = find_notebooks(root)
    starts = tuple(one.removeprefix("code/") for one in only) or ("",)
    chosen = [name for name in paths if name.startswith(starts) or name.rpartition("/")[2].startswith(starts)]
    if not chosen:
        raise MedicError(f"no notebook starts with {' or '.join(only)}; there are {', '.join(paths)}")
    parameters = {"DATA": Path(os.path.relpath(data, root)).as_posix(), "PROFILE": profile, **parameters}
    for name in chosen:
        check_parameters(paths[name], parameters)

    state = _load_state(outputs / "series.json", _keys(root, data, paths, parameters))
    made = products(root, outputs, data, profile)
    ended = made / "headlines.json"
    before, since = json.loads(ended.read_text()) if ended.is_file() else {}, "last run"
    if not before and data == root / SAMPLE and profile == "quick":
        before, since = _values(paths), "committed run"

    def keep(outcome: Outcome) -> None:
        state[outcome.notebook] = outcome
        write_json(outputs / "series.json", [asdict(one) for one in state.values() if one.finished])
        write_text(outputs / "index.html", render(root, data, profile, outputs, state.values(), before, since))

    folders = {"MEDIC_OUTPUTS": str(outputs), "MEDIC_IMAGES": str(made / "image")}
    for number, name in enumerate(chosen, start=1):
        label, copy = f"[{number}/{len(chosen)}] {name.removesuffix('.ipynb')}", outputs / "notebooks" / name
        if state[name].status == "done" and not again and copy.exists():
            print(f"{label}  done before", flush=True)
            keep(state[name])
            continue
        print(f"{label}  started", flush=True)
        key, started = state[name].key, time.perf_counter()
        keep(Outcome(name, "running", key=key))
        outcome = Outcome(name, "stopped", key=key)
        try:
            failure = execute(paths[name], copy, parameters, environment=folders)
            convert(copy, source_folder=paths[name].parent)
            seconds = time.perf_counter() - started
            outcome = Outcome(name, "failed" if failure else "done", seconds, time.time(), key, failure)
            where = f" in cell {failure.cell}" if failure and failure.cell else ""
            told = f"FAILED{where} after {seconds:.0f} s: {failure.error.splitlines()[-1]}" if failure else None
            print(f"{label}  {told or f'done in {seconds:.0f} s'}", flush=True)
        finally:
            keep(outcome)
    done = {name: outputs / "notebooks" / name for name, one in state.items() if one.status == "done"}
    write_json(ended, before | _values(done))
    return list(state.values())


def find_notebooks(root: Path) -> dict[str, Path]:
    """The notebooks of a clone in their order, by names such as ``02_modeling/03_grade_retinopathy.ipynb``."""
    paths = sorted((root / "code").glob("0*_*/[0-9]*.ipynb"))
    if not paths:
        raise MedicError(f"there are no notebooks in {root / 'code'}; restore them with `git checkout code`")
    return {f"{path.parent.name}/{path.name}": path for path in paths}


def check_parameters(notebook: Path, parameters: Iterable[str]) -> None:
    """Raise a `MedicError` for a parameter that the notebook's own parameters cell does not define."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    own = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    defined = re.findall(r"^(\w+) =", "\n".join(own), re.MULTILINE)
    for name in parameters:
        if name not in defined:
            raise MedicError(
                f"{notebook.parent.name}/{notebook.name} has no parameter {name}; it has {', '.join(sorted(defined))}"
            )


def execute(
    notebook: Path,
    copy: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Failure | None:
    """Execute one notebook from its own folder into ``copy`` (with what was reached, if a cell fails).

    Args:
        notebook: the source, which is never written.
        copy: where the executed notebook goes, whole or not at all.
        parameters: values for constants of the cell tagged ``parameters``.
        timeout: seconds that one cell may take; None for no limit.
        environment: variables for its kernel, beside those of this process.

    Returns:
        None if all cells ran.
    """
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    check_parameters(notebook, parameters)
    executed = parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters))
    executed.metadata.pop("papermill")
    failure = run_cells(executed, notebook.parent, timeout, environment)
    with replacing(copy) as temporary:
        nbformat.write(executed, temporary)
    return failure


def run_cells(
    notebook: Any, folder: Path, timeout: int | None = None, environment: Mapping[str, str] | None = None
) -> Failure | None:
    """Run all cells of a notebook in place, in a new kernel that starts in ``folder``; see `execute`, `leave_pictures`.

    Returns:
        None if all cells ran.
    """
    from nbclient import NotebookClient

    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel comes before a person's own
    how = {"kernel_name": "python3", "timeout": timeout, "store_widget_state": False}
    how["extra_arguments"] = ["--log-level=ERROR"]  # kernels warn of their transport at each start
    try:
        client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **how)
        client.execute(env={**os.environ, **(environment or {})})
    except Exception as error:  # a dead kernel and a timeout are the notebook's failures too
        return _failure(notebook, error)
    finally:
        leave_pictures(notebook)
    return None


def leave_pictures(notebook: Any) -> None:
    """Take the live widgets out of an executed notebook: what they leave beside themselves is shown in their place.

    Readers show a widget's view before its picture, also where there is no kernel that could fill it.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for bundle in ("data", "metadata"):
                output.get(bundle, {}).pop(WIDGET_VIEW, None)


def _failure(notebook: Any, problem: Exception) -> Failure:
    cells = [cell for cell in notebook.cells if ADDED not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                text = ANSI.sub("", "\n".join(output.traceback)).lstrip("-\n") or f"{output.ename}: {output.evalue}"
                return Failure(number, cell.source, "\n".join(text.splitlines()[-40:]))
    return Failure(None, "", ANSI.sub("", f"{type(problem).__name__}: {problem}"))


def _values(copies: Mapping[str, Path]) -> dict[str, float]:
    found = {name: headline(name, recorded(path)) for name, path in copies.items()}
    return {name: one.value for name, one in found.items() if one}


def _load_state(path: Path, keys: Mapping[str, str]) -> dict[str, Outcome]:
    """Every notebook's outcome: the earlier one if all it depends on is as it was, waiting otherwise."""
    state = {name: Outcome(name, key=key) for name, key in keys.items()}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError as error:
        raise MedicError(f"{path} is damaged ({error}); delete it, and all notebooks are run again") from error
    for one in earlier:
        if one["key"] == keys.get(one["notebook"]):
            failure = Failure(**one["failure"]) if one["failure"] else None
            state[one["notebook"]] = Outcome(**{**one, "failure": failure, "kept": True})
    return state


def _keys(root: Path, data: Path, paths: Mapping[str, Path], parameters: Mapping[str, Any]) -> dict[str, str]:
    """A fingerprint of all that each notebook's result depends on: library, data, parameters, and its own cells.

    Data counts by names, sizes and times of change: to read gigabytes to see that nothing changed is no option.
    """
    shared = hashlib.sha256(json.dumps([str(data), parameters], sort_keys=True, default=str).encode())
    for path in sorted((root / "code" / "medic").rglob("*.*")):
        if path.suffix != ".pyc":
            shared.update(path.name.encode() + path.read_bytes())
    for place, folders, names in os.walk(data):
        folders.sort()
        for found in map(Path(place).joinpath, sorted(names)):
            about = found.lstat()
            shared.update(f"{found} {about.st_size} {about.st_mtime_ns}".encode())
    keys = {}
    for name, path in paths.items():
        cells = [[cell["cell_type"], cell["source"]] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        keys[name] = hashlib.sha256(f"{shared.hexdigest()} {json.dumps(cells)}".encode()).hexdigest()
    return keys
