"""The rules of the house: who imports whom, how files are named, what no file says."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "code" / "medic"
HEAVY = ("torch", "torchvision", "lightning", "onnxruntime", "kserve")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager"}

# Written in pieces, so that this file is not itself a finding.
MACHINE_PATH = re.compile(r"(?<![\w./~$}>-])/(?:" + "|".join(("home", "root", "work", "Users")) + r")/\w")
REGISTRY = re.compile(r"\b(?:pypi|test\.pypi|pythonhosted|anaconda|npmjs|yarnpkg)\.(?:org|com)\b")


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).with_suffix("").parts
            above = ".".join(package[: len(package) - node.level]) + "." if node.level else ""
            module = f"{above}{node.module or ''}".rstrip(".")
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loading_imports(path: Path) -> set[str]:
    """What importing a file imports: not what stands in functions or for type checkers."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of_the_project() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"git cannot list the project's files here: {listed.stderr.strip()}")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


# Which rooms a room may not import. Only `export` and what makes a bundle of a run may reach back into modeling.
CLOSED = {
    "data": ("sample", "modeling", "deployment", "plots", "notebooks", "widgets", "cli"),
    "sample": ("modeling", "deployment", "plots", "notebooks", "widgets", "cli"),
    "modeling": ("deployment", "notebooks", "cli"),
    "deployment": ("sample", "notebooks", "cli"),
    "plots": ("modeling", "notebooks", "cli"),
}


@pytest.mark.parametrize("room", CLOSED)
def test_imports_point_from_later_stages_to_earlier_ones(room):
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (PACKAGE / room).rglob("*.py")
        for name in imports(path)
        if name.startswith(tuple(f"medic.{other}." for other in CLOSED[room]))
    ]
    assert found == []


@pytest.fixture(scope="module")
def loads() -> dict[str, set[str]]:
    """What importing a module of the package imports."""
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}

    def loaded(name: str) -> str:
        parent = name.rpartition(".")[0]
        return parent if name not in modules and parent in modules else name

    return {module: set(map(loaded, loading_imports(path))) - {module} for module, path in modules.items()}


def test_no_module_imports_itself_in_a_circle(loads):
    order = TopologicalSorter({module: others & loads.keys() for module, others in loads.items()})
    order.prepare()  # raises CycleError, which names the circle


def test_no_folder_has_more_than_fifteen_files_and_no_file_more_lines_than_a_reader_keeps_in_mind():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 15, folder.relative_to(ROOT)
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    rewritten = ("data/images/", "plots/", "cli/")
    assert {name: lines for name, lines in long.items() if lines > 300 and name.startswith(rewritten)} == {}


@pytest.mark.parametrize("module", ["medic.deployment.service.server", "medic.deployment.bundle.predictor"])
def test_serving_imports_no_torch(module):
    assert loaded_by(module, ("torch", "torchvision", "lightning")) == ""


@pytest.mark.parametrize(
    "module", ["medic", "medic.cli", "medic.task", "medic.notebooks.session", "medic.data.images.preprocess"]
)
def test_what_everybody_imports_is_light(module):
    assert loaded_by(module, HEAVY) == ""


def loaded_by(module: str, packages: tuple[str, ...]) -> str:
    """Which of ``packages`` a fresh interpreter has loaded after importing ``module``."""
    program = f"import sys, {module}; print(*[name for name in {packages!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_the_fast_tests_load_nothing_that_trains_nor_talks_to_a_cloud(loads):
    text = "\n".join(path.read_text() for path in (ROOT / "tests" / "fast").rglob("test_*.py"))
    pairs = re.findall(r"^ *(?:from|import) ([\w.]+)(?: import (\w+))?", text, re.MULTILINE)
    reached, found = set(), {name for first, second in pairs for name in (first, f"{first}.{second}")}
    while found:
        reached |= found
        found = {other for module in found & loads.keys() for other in loads[module]} - reached
    heavy = {
        "lightning",
        "timm",
        "torchvision",
        "onnxruntime",
        "jax",
        "kserve",
        "azure",
        "kubernetes",
        "ibm_watsonx_ai",
    }
    assert {name for name in reached if name.partition(".")[0] in heavy} == set()
    assert "torch" in reached, "the objectives load it"


def test_the_code_folder_is_no_package():
    assert not (ROOT / "code" / "__init__.py").exists(), "it would shadow the standard library's `code`"


def test_no_file_has_a_vague_name():
    found = [
        str(path.relative_to(ROOT))
        for folder in ("code", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if VAGUE & set(path.stem.split("_"))
    ]
    assert found == []


def test_no_code_edits_the_search_path():
    edited = re.compile(r"\bsys\.path\s*(?:\.(?:insert|append|extend)|\[|\+?=(?!=))")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files_of_the_project()
        if path.suffix in (".py", ".ipynb") and path != Path(__file__).resolve()
        for match in edited.finditer(path.read_text())
        if path.name != "test_notebooks_module.py"  # it holds a notebook that does, for the check to find
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "pattern"), [("a folder of somebody's machine", MACHINE_PATH), ("a package registry", REGISTRY)]
)
def test_no_file_names(what, pattern):
    found = []
    for path in files_of_the_project():
        content = path.read_bytes()
        if b"\0" in content[:8000]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            # Pictures in notebooks are one long line of base64, which spells anything somewhere.
            match = pattern.search(line) if '"image/png"' not in line else None
            if match:
                found.append(f"{path.relative_to(ROOT)}:{number} names {what}: {match.group()}")
    assert found == []
