"""What fresh interpreters say of imports that take long."""

import ast
import subprocess
import sys

import pytest


def run(program: str) -> str:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.strip()


@pytest.mark.slow
def test_all_that_the_package_imports_can_be_imported_together(repository):
    """Resolvers succeed on sets that do not import."""
    names = set()
    for path in (repository / "code" / "medic").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    assert {"azure.identity", "kserve", "lightning", "torch"} <= names
    there = sorted(name for name in names if not name.startswith("azureml."))  # Azure's images bring it
    run(f"import importlib\nfor name in {there!r}:\n    importlib.import_module(name)")


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("medic.modeling.training.fit", ()),
        ("medic.modeling.evaluate", ()),
        ("medic.notebooks.products", ()),
        ("medic.widgets", ("torch",)),
    ],
)
def test_only_a_training_loads_what_trains(module, more):
    heavy = ("lightning", "torchmetrics", "torchvision", "timm", *more)
    assert run(f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])") == ""
