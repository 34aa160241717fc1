"""LeNet in three frameworks: the notebook's PyTorch, the library's JAX, and the Julia program as far as that goes."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jax
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from medic.data.readers import digits, own
from medic.data.readers.digits import batch_order, read_idx_set, write_idx_part
from medic.data.stores import idx
from medic.errors import MedicError
from medic.modeling.lenet import curves
from medic.modeling.lenet import jax as lenet_jax
from medic.modeling.lenet.julia import Julia, find_julia, run_julia
from medic.sample.digits import write_as_own

STAGE = Path(__file__).resolve().parents[2] / "code" / "02_modeling"
PROGRAM = STAGE / "lenet_knet.jl"


@pytest.fixture(scope="module")
def pytorch() -> dict:
    """What the notebook's cells define that show the network and the loop in PyTorch, as committed."""
    names: dict = {"np": np, "torch": torch, "nn": torch.nn, "time": __import__("time"), "__name__": "the notebook"}
    for cell in nbformat.read(STAGE / "01_train_lenet_three_ways.ipynb", as_version=4).cells:
        if cell.source.startswith(("class LeNet", "def train_pytorch")):
            exec(compile(cell.source, "a cell", "exec"), names)
    return names


@pytest.fixture(scope="module")
def few(repository) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx_set(repository / "sample_data" / "digits")["train"]
    return images[:320], labels[:320]


def test_both_networks_have_61_706_parameters(pytorch):
    assert sum(weight.numel() for weight in pytorch["LeNet"]().parameters()) == 61_706
    state = lenet_jax.nnx.state(lenet_jax.LeNet(jax.random.key(0)))
    assert sum(weight.size for weight in jax.tree.leaves(state)) == 61_706


@pytest.mark.parametrize("classes", [10, 3])
def test_the_same_weights_give_the_same_outputs(classes, pytorch, few):
    torch.manual_seed(3)
    network = pytorch["LeNet"](classes)
    theirs = np.asarray(lenet_jax.scores(lenet_jax.carried_over(network), few[0]))
    ours = pytorch["scores_pytorch"](network, few[0])
    assert ours.shape == (len(few[0]), classes)
    assert np.abs(ours - theirs).max() <= 1e-5
    assert ours.std(axis=0).min() > 1e-4  # it is about images, and not about zeros


def test_the_same_weights_and_batches_give_the_same_training(pytorch, few):
    torch.manual_seed(3)
    network = pytorch["LeNet"]()
    twin = lenet_jax.carried_over(network)
    order, rates = batch_order(np.arange(320), 32, 3, seed=1), [2e-3, 1e-3, 5e-4]
    ours = [loss for _, loss, _ in pytorch["train_pytorch"](network, *few, order, rates)]
    theirs = [loss for _, loss, _ in lenet_jax.train(twin, *few, order, rates)]
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours[-1] < ours[0]


def test_keys_decide_the_weights_in_jax():
    one, same, other = (lenet_jax.LeNet(jax.random.key(seed)).conv1.kernel[...] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# The order of batches


def test_an_epoch_is_a_permutation_less_what_fills_no_batch():
    rows = np.arange(100, 150)
    order = batch_order(rows, 8, 4, seed=0)
    assert (order.dtype, order.shape) == (np.int32, (4, 6, 8))
    for epoch in order:
        assert len(np.unique(epoch)) == 48
        assert set(epoch.ravel()) <= set(rows)
    assert not np.array_equal(order[0], order[1])
    assert np.array_equal(order, batch_order(rows, 8, 4, seed=0))
    assert not np.array_equal(order, batch_order(rows, 8, 4, seed=1))


def test_too_few_images_for_a_batch_are_told():
    with pytest.raises(MedicError, match="50 images do not fill a batch of 64"):
        batch_order(np.arange(50), 64, 1, seed=0)


def test_idx_parts_are_read_back_and_missing_ones_are_told(few, tmp_path):
    write_idx_part(tmp_path, "train", *few)
    with pytest.raises(MedicError, match="lacks images or labels of test"):
        read_idx_set(tmp_path)
    write_idx_part(tmp_path, "test", few[0][:5], few[1][:5])
    arrays = read_idx_set(tmp_path)
    assert np.array_equal(arrays["train"][0], few[0])
    assert np.array_equal(arrays["test"][1], few[1][:5])
    write_idx_part(tmp_path, "test", few[0][:5], few[1][:4])
    with pytest.raises(MedicError, match="the n-th label belongs to the n-th image"):
        read_idx_set(tmp_path)


def test_digits_written_as_ones_own_are_read_alike_from_folder_and_table(repository, tmp_path):
    records, store = digits.read(repository / "sample_data" / "digits")
    write_as_own(tmp_path, records[records["label"].isin([3, 8])].groupby("label").head(5), store)
    by_folder, _ = own.read(tmp_path, level=1)
    by_table, _ = own.read(tmp_path / "labels.csv")
    assert list(by_folder["class"]) == ["digit 3"] * 5 + ["digit 8"] * 5
    assert by_folder.equals(by_table.sort_values("image", ignore_index=True))


# What is shown of a training


def test_a_training_is_watched_epoch_by_epoch(capsys):
    labels = np.array([0, 1, 1, 0])
    training = (("network", 1 / epoch, 2.0) for epoch in (1, 2, 4))
    network, history = curves.watched("It", training, lambda network, images: images, (np.eye(2)[[0, 1, 0, 0]], labels))
    assert network == "network"
    assert history["loss"].tolist() == [1, 0.5, 0.25]
    assert history["accuracy"].tolist() == [0.75] * 3
    assert history.index.tolist() == [1, 2, 3]
    assert capsys.readouterr().out.splitlines()[-1] == "It, epoch 3: loss 0.250, accuracy 75.0%"


def test_lines_are_counted_without_comments_and_blank_lines():
    source = '# a comment\n\nstruct Conv\n    w  # beside code\nend\n"""A docstring."""\n'
    assert curves.lines_of_code(source) == 3
    assert "def lines_of_code" in curves.source_of(curves.lines_of_code)


def test_the_table_and_the_figure_name_the_framework_that_did_not_run():
    history = curves.by_epoch([{"loss": 1.0, "accuracy": 0.5, "seconds": 9.0}] + [{"loss": 0.5, "seconds": 2.0}] * 2)
    table = curves.side_by_side({"JAX": history}, {"JAX": "a\nb\n", "Julia": "c\n"}, {"JAX": 0.99})
    assert table.loc["JAX"].tolist() == [2, 9, 2, 0.99]
    assert table.loc["Julia"].isna().tolist() == [False, True, True, True]
    figure = curves.training_curves({"JAX": history}, {"Julia": "Julia is not installed"})
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["JAX", "Julia: not run, Julia is not installed"]


# Julia


def stand_in(place: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called julia, first on the path: says what ``body`` prints."""
    script = place / "julia"
    script.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


TALKS = """
if "-e" in sys.argv:
    sys.exit(0)
given = dict(zip(sys.argv[4::2], sys.argv[5::2]))
sizes = [os.path.getsize(given[name]) for name in ("--order", "--validation")]
for epoch in (1, 2):
    print(json.dumps({"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.9, "seconds": 1.5}), flush=True)
print(json.dumps({"parameters": 61706, "test_accuracy": 0.95, "sizes": sizes, "options": sys.argv[1:4]}))
"""


def test_what_the_program_says_comes_line_by_line(tmp_path, monkeypatch):
    stand_in(tmp_path, TALKS, monkeypatch)
    julia = find_julia("Knet")
    assert julia == Julia(str(tmp_path / "julia"))
    assert str(tmp_path) not in str(julia)  # notebooks print it
    arrays = {"order": np.zeros((2, 3, 4), np.int32), "validation": np.zeros(5, np.int32)}
    said = list(run_julia(julia, PROGRAM, {"data": tmp_path, "learning-rate": 0.002}, arrays))
    assert curves.by_epoch(said)["loss"].tolist() == [1, 0.5]
    assert said[-1]["parameters"] == 61_706
    assert said[-1]["sizes"] == [16 + 4 * 24, 8 + 4 * 5]
    assert said[-1]["options"] == ["--startup-file=no", "-O1", str(PROGRAM)]


def test_a_program_that_fails_is_quoted(tmp_path, monkeypatch):
    body = TALKS.replace("for epoch in (1, 2):", "sys.stderr.write('ERROR: no memory')\nsys.exit(1)\nfor epoch in ():")
    stand_in(tmp_path, body, monkeypatch)
    arrays = {"order": np.zeros(1, np.int32), "validation": np.zeros(1, np.int32)}
    with pytest.raises(MedicError, match=r"lenet_knet\.jl ended with 1 and said: ERROR: no memory"):
        list(run_julia(find_julia(), PROGRAM, {}, arrays))


@pytest.mark.parametrize("line", ["Precompiling Knet", "3", "[1]"])
def test_a_line_that_is_no_object_is_told(line, tmp_path, monkeypatch):
    stand_in(
        tmp_path, f"print({line!r}, flush=True)\nimport time\ntime.sleep(60 if '-O1' in sys.argv else 0)", monkeypatch
    )
    with pytest.raises(MedicError, match="is no object of JSON"):
        list(run_julia(find_julia(), PROGRAM, {}, {}))


def test_julia_without_the_package_and_no_julia_say_what_to_install(tmp_path, monkeypatch):
    stand_in(tmp_path, "sys.exit(3)", monkeypatch)
    assert find_julia().command is None
    assert "Julia lacks the package Knet; install Julia 1.6" in str(find_julia())
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    missing = find_julia()
    assert missing.missing == "Julia is not installed"
    with pytest.raises(MedicError, match=r"lenet_knet\.jl cannot run: Julia is not installed; install Julia 1\.6"):
        list(run_julia(missing, PROGRAM, {}, {}))


@pytest.mark.skipif(shutil.which("julia") is None, reason="Julia is not installed: the program's syntax is not checked")
def test_the_julia_program_parses():
    check = (
        'program = Meta.parse("begin\\n" * read(ARGS[1], String) * "\\nend"); '
        "exit(program isa Expr && program.head === :block ? 0 : 1)"
    )
    ended = subprocess.run(["julia", "-e", check, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    find_julia("Knet").command is None, reason="Julia with Knet is not installed: LeNet is not run in it"
)
def test_the_julia_program_learns(few, tmp_path):
    write_idx_part(tmp_path, "train", *few)
    order = batch_order(np.arange(256), 32, 4, seed=0)
    said = list(
        run_julia(
            find_julia(),
            PROGRAM,
            {"data": tmp_path},
            {"order": order, "validation": np.arange(256, 320, dtype=np.int32)},
        )
    )
    history = curves.by_epoch(said)
    assert said[-1]["parameters"] == 61_706
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert len(history) == 4


def test_the_program_and_the_notebook_name_the_same_options():
    text = PROGRAM.read_text()
    for name in ("data", "order", "validation", "learning-rate", "seed", "classes"):
        assert f'"--{name}"' in text
    assert pd.Series(text.splitlines()).str.len().max() <= 120
    assert idx.TYPES[0x08] == "u1"
    assert idx.TYPES[0x0C] == ">i4"  # the two that the program reads
