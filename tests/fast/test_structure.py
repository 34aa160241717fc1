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
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
HEAVY = ("torch", "torchvision", "lightning", "onnxruntime", "kserve")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager"}

# Written in pieces, so that this file is not itself a finding.
MACHINE_PATH = re.compile(r"(?<![\w./~$}>-])/(?:" + "|".join(("home", "root", "work", "Users")) + r")/\w")
REGISTRY = re.compile(r"\b(?:pypi|test\.pypi|pythonhosted|anaconda|npmjs|yarnpkg)\.(?:org|com)\b")

# Which rooms a room may not import. Only `export` and what makes a bundle of a run may reach back into modeling.
CLOSED = {
    "data": ("sample", "modeling", "deployment", "plots", "notebooks", "widgets", "cli"),
    "sample": ("modeling", "deployment", "plots", "notebooks", "widgets", "cli"),
    "modeling": ("deployment", "notebooks", "cli"),
    "deployment": ("sample", "notebooks", "cli"),
    "plots": ("modeling", "notebooks", "cli"),
}


def imports(path: Path, loading: bool = False) -> set[str]:
    """Full names of what a file imports; ``loading``: not what stands in functions or for type checkers."""
    tree, names = ast.parse(path.read_text()), set()
    for node in tree.body if loading else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", CLOSED)
def test_imports_point_from_later_stages_to_earlier_ones(room):
    closed = tuple(f"medic.{other}." for other in CLOSED[room])
    found = {
        path: {name for name in imports(path) if name.startswith(closed)} for path in (PACKAGE / room).rglob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.fixture(scope="module")
def loads() -> dict[str, set[str]]:
    """What importing a module of the package imports."""

    def module(name: str) -> str:
        parent = name.rpartition(".")[0]
        return parent if name not in MODULES and parent in MODULES else name

    return {name: set(map(module, imports(path, loading=True))) - {name} for name, path in MODULES.items()}


def test_no_module_imports_itself_in_a_circle(loads):
    # prepare() raises a CycleError, which names the circle
    TopologicalSorter({module: others & loads.keys() for module, others in loads.items()}).prepare()


def test_files_and_folders_are_as_large_as_a_reader_keeps_in_mind_and_named_by_what_they_are():
    folders = {path.parent for path in MODULES.values()}
    assert {folder: count for folder in folders if (count := len(list(folder.glob("*.py")))) > 15} == {}
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES.values()}
    rewritten = ("data/images/", "plots/", "cli/", "notebooks/", "predict/")
    assert {name: lines for name, lines in long.items() if lines > 300 and name.startswith(rewritten)} == {}
    paths = [path for folder in ("code", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in paths if VAGUE & set(path.stem.split("_"))] == []
    assert not (ROOT / "code" / "__init__.py").exists(), "it would shadow the standard library's `code`"


@pytest.mark.parametrize(
    ("modules", "packages"),
    [
        ("medic.deployment.service.server, medic.deployment.bundle.predictor", ("torch", "torchvision", "lightning")),
        ("medic, medic.cli, medic.task, medic.notebooks.session, medic.data.images.preprocess", HEAVY),
    ],
    ids=["serving", "what everybody imports"],
)
def test_it_is_light(modules, packages):
    program = f"import sys, {modules}; print(*[name for name in {packages!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


def test_the_fast_tests_load_nothing_that_trains_nor_talks_to_a_cloud(loads):
    text = "\n".join(path.read_text() for path in (ROOT / "tests" / "fast").rglob("test_*.py"))
    pairs = re.findall(r"^ *(?:from|import) ([\w.]+)(?: import (\w+))?", text, re.MULTILINE)
    reached, found = set(), {name for first, second in pairs for name in (first, f"{first}.{second}")}
    while found:
        reached |= found
        found = {other for module in found & loads.keys() for other in loads[module]} - reached
    heavy = {"lightning", "timm", "torchvision", "onnxruntime", "jax", "kserve", "azure", "kubernetes"}
    assert {name for name in reached if name.partition(".")[0] in heavy | {"ibm_watsonx_ai"}} == set()
    assert "torch" in reached, "the objectives load it"


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [
        (MACHINE_PATH, ("",)),
        (REGISTRY, ("",)),
        (re.compile(r"\bsys\.path\s*(?:\.(?:insert|append|extend)|\[|\+?=(?!=))"), (".py", ".ipynb")),
    ],
    ids=["a folder of somebody's machine", "a package registry", "an edit of the search path"],
)
def test_no_file_names(pattern, kinds):
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git cannot list the project's files here: {listed.stderr.strip()}")
    found = []
    for path in [ROOT / name for name in listed.stdout.split("\0") if name.endswith(kinds)]:
        content = path.read_bytes() if path.is_file() and path != Path(__file__).resolve() else b"\0"
        if b"\0" in content[:8000]:
            continue
        # Pictures in notebooks are one long line of base64, which spells anything somewhere.
        lines = [line for line in content.decode(errors="replace").splitlines() if '"image/' not in line]
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for line in lines if (match := pattern.search(line))]
    assert found == []
