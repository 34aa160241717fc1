"""LeNet in three frameworks: what the notebook's cells define, and the Julia program as far as that goes."""

import ast
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from medic.data.readers.digits import read_idx_set

STAGE = Path(__file__).resolve().parents[2] / "code" / "02_modeling"
PROGRAM = STAGE / "lenet_knet.jl"
SHORT = ("affine", "KNET", "(random, cut)", "scores_")  # what the cells define in one line


@pytest.fixture(scope="module")
def cells() -> SimpleNamespace:
    """The notebook's imports, parameters, functions and classes, without running what stands between them."""
    notebook = nbformat.read(STAGE / "01_train_lenet_three_ways.ipynb", as_version=4)
    kept = []
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        for node in ast.parse(cell.source).body:
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith(SHORT)
            if number < 2 or named or isinstance(node, ast.FunctionDef | ast.ClassDef):
                kept.append(node)
    names: dict = {"__name__": "the notebook", "program": PROGRAM, "labels": ()}
    exec(compile(ast.Module(kept, []), "the notebook", "exec"), names)
    return SimpleNamespace(names=names, **names)


@pytest.fixture(scope="module")
def few(repository) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx_set(repository / "sample_data" / "digits")["train"]
    return images[:320], labels[:320]


def test_the_same_weights_and_batches_give_the_same_training(cells, few):
    torch.manual_seed(3)
    network = cells.LeNet()
    twin, order = cells.carried_over(network), cells.batch_order(320, 32, 3)
    ours = cells.train_pytorch(network, *few, order, few)
    theirs = cells.train_jax(twin, *few, order, few)[1]
    assert ours["loss"].tolist() == pytest.approx(theirs["loss"].tolist(), rel=1e-3)
    assert ours["loss"].iloc[-1] < ours["loss"].iloc[0]
    assert ours["accuracy"].iloc[-1] > 0.2


STAND_IN = """
import json, os, sys
assert sys.argv[1] == "-O1" and sys.argv[2].endswith("lenet_knet.jl") and sys.argv[4:] == ["0.002", "0", "10"]
sizes = {name: os.path.getsize(os.path.join(sys.argv[3], name)) for name in sorted(os.listdir(sys.argv[3]))}
print(json.dumps({"epoch": 1, "loss": 0.5, "accuracy": 0.9, "seconds": 1.5}))
print(json.dumps({"parameters": 61706, "test_accuracy": sizes}))
"""


def test_the_cell_hands_all_arrays_to_the_julia_program_and_reads_its_lines(cells, few, tmp_path):
    script = tmp_path / "julia"
    script.write_text(f"#!{sys.executable}\n{STAND_IN}")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    cells.names["julia"] = str(script)
    order, part = np.zeros((1, 3, 4), np.int32), (few[0][:5], few[1][:5])
    history, sizes = cells.train_knet(*few, order, part, part)
    assert history.loc[1, "loss"] == 0.5
    assert sizes["order"] == 16 + 4 * 12
    assert sizes["images"] == 16 + 320 * 784
    text = PROGRAM.read_text()
    assert all(f'"{name}"' in text for name in sizes)


@pytest.mark.skipif(shutil.which("julia") is None, reason="Julia is not installed")
def test_the_julia_program_parses():
    check = "exit(any(part -> part isa Expr && part.head === :error, Meta.parseall(read(ARGS[1], String)).args))"
    ended = subprocess.run(["julia", "-e", check, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
