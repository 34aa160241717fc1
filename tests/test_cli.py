"""The command line as a person meets it: what is printed, what is written, and how it ends."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytest
import typer

from medic import cli
from medic.data.stores import idx
from medic.task import DIGITS, FINDINGS, RETINOPATHY, Task

COMMANDS = typer.main.get_command(cli.app).commands
NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--image-size", "64", "--weights", "none")
TRAIN = ("train", "retinopathy", *NETWORK, "--objective", "cross_entropy", "--epochs", "1")
SMALL = ("--image-size", "32", "-e", "1", "--weights", "none", "--backbone")
PROBABILITIES = [f"p_{name}" for name in RETINOPATHY.classes]


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def medic(*arguments: object, cwd: Path) -> Ended:
    """``medic`` in this process, which has the heavy libraries loaded already."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["medic", *map(str, arguments)]
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code or 0
    finally:
        sys.argv = before
    return Ended(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen]:
    """``medic`` in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "medic.cli", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what follows a line that was read is left to communicate()
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell's background job ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def succeeded(ended: Ended) -> str:
    assert ended.status == 0, ended.err
    return ended.out


def failed(ended: Ended) -> str:
    """The one sentence of a command that could not do its job."""
    assert ended.status == 1, ended
    assert "Traceback" not in ended.err
    assert ended.err.startswith("medic: ")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


@pytest.fixture(scope="module", autouse=True)
def _quiet_surroundings() -> Iterator[None]:
    """One thread for small networks, and no setting of this machine that moves spaces."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MEDIC_SPACES", raising=False)
        yield
    torch.set_num_threads(threads)


def walked(folder: Path, *commands: tuple) -> SimpleNamespace:
    """Run commands in a working folder, which is not to be changed then: what each printed, the run and the bundle."""
    printed, outputs = {one[0]: succeeded(medic(*one, cwd=folder)) for one in commands}, folder / "outputs"
    made = {"run": outputs / "runs" / "latest", "bundle": outputs / "bundles" / "retinopathy"}
    return SimpleNamespace(folder=folder, printed=printed, **made)


@pytest.fixture(scope="module")
def line(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Prepared, trained, evaluated, reported, exported, packaged with the defaults."""
    folder = tmp_path_factory.mktemp("a line {with} spaces")
    done = [(name,) for name in ("evaluate", "report", "export", "package")]
    return walked(folder, ("prepare", "retinopathy", "--data", tiny.parent, "--size", "96"), TRAIN, *done)


@pytest.fixture
def pictures(tiny: Path, tmp_path: Path) -> Path:
    """A working folder with six good photographs in ``results/images``, where ``medic predict`` looks by default."""
    faulty = set(pd.read_csv(tiny / "planted_faults.csv")["image"])
    folder = tmp_path / "results" / "images"
    folder.mkdir(parents=True)
    for path in [path for path in sorted((tiny / "images").iterdir()) if path.stem not in faulty][:6]:
        shutil.copy(path, folder)
    return tmp_path


def result(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).set_index("image")


# Help, and what cannot be understood


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_an_example_whose_options_exist(command, tmp_path):
    shown = succeeded(medic(command, "--help", cwd=tmp_path))
    example = shown.partition("Example: ")[2].partition("\n\n")[0]
    assert example.startswith(f"medic {command}")
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    if command != "serve":  # whose example goes on with curl
        assert set(re.findall(r"\s(--?[a-z][a-z-]*)", example)) <= known


def test_help_and_describe_start_without_torch(tiny):
    program = (
        "import sys\n"
        "from medic.cli import main\n"
        "for arguments in (['--help'], ['train', '--help'], ['describe', 'retinopathy', '--data', sys.argv[1]]):\n"
        "    sys.argv = ['medic', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'lightning', 'onnxruntime', 'kserve'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    # The folder comes last: the program replaces sys.argv only after the list is made.
    done = subprocess.run([sys.executable, "-c", program, str(tiny)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Not a medical device" in done.stdout
    assert "80 images of 40 patients" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Not a medical device"),
        (("describe",), "Error"),
        (("describe", "retinopathy", "--colour"), "Error"),
        (("diagnose",), "Error"),
        (("train", "retinopathy", "-e", "x"), "Error"),
        (("package", "--compress", "int4"), "int4"),
    ],
)
def test_a_command_that_cannot_be_understood_ends_with_status_2_and_says_why(arguments, said, tmp_path):
    ended = medic(*arguments, cwd=tmp_path)
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


# One sentence for each mistake; names in braces are places that exist.
ERRORS = [
    (("describe", "dermatology"), "no task is called 'dermatology'; there is: retinopathy"),
    (("describe", "retinopathy", "--data", "nowhere"), "nowhere"),
    (("prepare", "retinopathy", "--data", "empty"), "holds no table"),
    (("describe", "retinopathy", "--data", "no zip"), "nor a zip file"),
    (("describe", "retinopathy", "--data", "{data}", "--positive", "x"), "retinopathy has its own classes"),
    (("prepare", "own", "--data", "{moles}", "--positive", "ugly"), "'ugly' cannot be the positive class"),
    (("prepare", "own", "--data", "{moles}", "--images", "nowhere"), "there is no folder or zip file nowhere"),
    (("prepare", "retinopathy", "--data", "{data}", "--size", "32", "--to", "file/set"), "cannot write file/"),
    (("sample", "file/sample"), "file/"),
    (("sample", "empty", "--set", "digits", "--patients", "40"), "leave --patients away"),
    (("sample", "empty", "--set", "teeth"), "no such set; there is: retinopathy"),
    (("sample", "few", "--patients", "3"), "at least 40"),
    (("download", "eyes"), "eyepacs"),
    ((*TRAIN, "-d", "empty"), "run prepare"),
    ((*TRAIN, "-d", "{prepared}", "-s", "file"), "file/"),
    ((*TRAIN, "-d", "{prepared}", "--backbone", "resnet19"), "resnet18"),
    ((*TRAIN, "-d", "{prepared}", "--objective", "guess"), "guess"),
    ((*TRAIN, "-d", "{prepared}", "--recipe", "best"), "there is no recipe 'best'"),
    ((*TRAIN, "-d", "{prepared}", "--weights", "empty"), "no checkpoint"),
    ((*TRAIN, "-d", "{prepared}", "--frozen"), "without --epochs; leave them away"),
    ((*TRAIN, "-d", "{prepared}", "--image-size", "100000"), "images of 100000 px"),
    ((*TRAIN, "-d", "{prepared}", "--workers", "1000"), "0 to 256"),
    ((*TRAIN, "-d", "{prepared}", "--dropout", "1"), "dropout is a share"),
    ((*TRAIN, "-d", "{prepared}", "--weights", "file"), "None, of timm/ also a file, not 'file'"),
    (("train", "chest_xray", "-d", "{prepared}"), "was prepared with"),
    (("evaluate", "{run}", "--split", "tset"), "no images in the split 'tset'"),
    (("export", "{run}", "--to", "file/model.onnx"), "file/"),
    (("report", "{run}", "--to", "file/report.md"), "file/"),
    (("predict", "{data}", "-m", "{run}", "--to", "file/result.csv"), "file/"),
    (("report", "{run}", "--to", ""), "cannot write .: Is a directory"),
    (("predict", "{data}", "-m", "."), ". is no bundle"),
    (("predict", "{data}", "-m", "{bundle}", "--fresh", "--to", "file/x.csv"), "cannot write file/x.csv.partial"),
    (("predict", "{data}", "-m", "{prepared}"), "is no bundle that this medic reads"),
    (("predict", "empty", "-m", "{run}"), "holds no image files"),
    (
        ("predict", "{data}", "-m", "{run}", "--scheduler", "tcp://127.0.0.1:9"),
        "a cluster needs the folder of a bundle",
    ),
    (("deploy", "{bundle}", "--space", "file/space"), "file/"),
    (("serve", "{bundle}", "--host", "0.0.0.0"), "127.0.0.1"),
    (("delete", "eyes", "--space", "demo"), "no deployment 'eyes'"),
    (("run",), "outside a clone"),
]
ERRORS += [((name, "none"), "none") for name in ("evaluate", "report", "export", "package", "deploy", "serve")]
ERRORS += [(("predict", "{data}", "-m", "none"), "none")]


@pytest.mark.parametrize(("arguments", "said"), ERRORS, ids=lambda value: "")
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments, said, line, tiny, moles, tmp_path):
    (tmp_path / "file").write_text("a file, no folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no zip").mkdir()
    (tmp_path / "no zip" / "retinopathy.zip").write_bytes(b"no zip")
    places = {"run": line.run, "data": tiny, "prepared": line.folder / "outputs" / "prepared", "bundle": line.bundle}
    places["moles"] = moles
    assert said in failed(medic(*(argument.format(**places) for argument in arguments), cwd=tmp_path))
    assert (tmp_path / "file").read_text() == "a file, no folder"
    made = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(moles)]
    assert sorted(path.name for path in made) == ["file", "retinopathy.zip"]


def test_run_refuses_an_unknown_profile_and_a_notebook_that_is_not_there(tmp_path, repository):
    for arguments, said in ((("--profile", "enormous"), "enormous"), (("--only", "99_nothing"), "99_nothing")):
        assert said in failed(medic("run", *arguments, "--outputs", tmp_path / "o", cwd=repository))


# Data


def described(cwd: Path, *arguments: object) -> dict:
    return json.loads(succeeded(medic("describe", *arguments, "--json", cwd=cwd)))


def test_describe_counts_folder_zip_and_tables_alone(tiny, tmp_path):
    about = described(tmp_path, "retinopathy", "--data", tiny.parent)
    shown = succeeded(medic("describe", "retinopathy", "-d", tiny, cwd=tmp_path))
    assert "retinopathy: 80 images of 40 patients, 40 of them with both eyes" in shown
    with zipfile.ZipFile(tmp_path / "retinopathy.zip", "w") as archive:
        for path in sorted(tiny.rglob("*")):
            archive.write(path, path.relative_to(tiny))
    assert described(tmp_path, "retinopathy", "--data", ".") == about
    assert [path.name for path in tmp_path.iterdir()] == ["retinopathy.zip"], "never unpacked"
    (tmp_path / "tables").mkdir()
    for path in tiny.glob("*.csv"):
        shutil.copy(path, tmp_path / "tables")
    alone = ("retinopathy", "--data", "tables")
    assert described(tmp_path, *alone)["absent_images"] == 80
    assert described(tmp_path, *alone, "--images", tiny / "images") == about


def test_prepare_names_what_it_skipped_and_deals_out_a_test_split(tiny, tmp_path):
    ended = medic(
        "prepare", "retinopathy", "--data", tiny, "--size", "32", "--to", "made", "--test", "0.4", cwd=tmp_path
    )
    faults = pd.read_csv(tiny / "planted_faults.csv")
    unreadable = faults.loc[faults["fault"].isin(["truncated", "not an image"]), "image"]
    assert f"{80 - len(unreadable)} images prepared at 32 px in made" in succeeded(ended)
    assert all(re.search(rf"^skipped \S*{image}\.jpeg: ", ended.err, re.MULTILINE) for image in unreadable)
    records = pd.read_csv(tmp_path / "made" / "records.csv")
    assert records.groupby("patient")["split"].nunique().max() == 1
    assert 0.3 < records.loc[records["split"] == "test", "patient"].nunique() / records["patient"].nunique() < 0.5
    (tmp_path / "one").mkdir()
    names, labels = (pd.read_csv(tiny / f"train_{table}.csv", header=None)[0] for table in ("img", "label"))
    pd.DataFrame({"image": names, "level": labels}).to_csv(tmp_path / "one" / "trainLabels.csv", index=False)
    arguments = (
        "prepare",
        "retinopathy",
        "--size",
        "32",
        "--images",
        tiny / "images",
        "--data",
        "one",
        "--to",
        "dealt",
    )
    assert "no test split: 20 % of the patients are set aside" in succeeded(medic(*arguments, cwd=tmp_path))
    assert set(pd.read_csv(tmp_path / "dealt" / "records.csv")["split"]) == {"train", "validation", "test"}


@pytest.fixture
def moles(tmp_path) -> Path:
    """Moles of two clinics, in a folder a class each."""
    folder = tmp_path / "my moles"
    for number in range(20):
        path = folder / ("bad", "fine")[number % 2] / f"{('north', 'south')[number // 10]} {number % 10 // 2}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((24, 32, 3), (60 + 5 * number, 120, 200), np.uint8))
    return folder


def test_own_images_are_described_corrected_and_prepared_with_the_positive_class_second(moles, tmp_path):
    assert list(described(tmp_path, "own", "--data", moles, "--positive", "bad")["classes"]) == ["fine", "bad"]
    arguments = ("prepare", "own", "--data", moles, "--size", "32", "--to", "made")
    shown = succeeded(medic(*arguments, cwd=tmp_path))
    assert "of the two classes fine is the positive one (--positive names the other)" in shown
    shown = succeeded(medic(*arguments, "--looked-for", "bad", cwd=tmp_path))
    assert "of the two classes bad is the positive one" in shown
    records = pd.read_csv(tmp_path / "made" / "records.csv")
    assert records.groupby("class")["label"].unique().map(list).to_dict() == {"bad": [1], "fine": [0]}
    (moles / "corrections.csv").write_text(
        "when,who,image,from,to\n,Ann,bad/north 0.JPG,bad,fine\n,Ann,bad/south 0.JPG,bad,(excluded)\n"
    )
    found = described(tmp_path, "own", "--data", moles)["classes"]
    assert {name: row["total"] for name, row in found.items()} == {"bad": 8, "fine": 11}


def test_patients_who_are_too_few_for_a_test_split_are_an_error(moles, tmp_path):
    names = [path.relative_to(moles).as_posix() for path in moles.rglob("*.JPG")]
    lines = [f"{name},{name[:3]},anonymous\n" for name in names]
    (moles / "labels.csv").write_text("".join(["image,label,patient\n", *lines]))
    arguments = ("prepare", "own", "--data", moles, "--size", "32")
    assert "1 patients are too few to set some aside for testing" in failed(medic(*arguments, cwd=tmp_path))
    succeeded(medic(*arguments, "--test", "0", cwd=tmp_path))


def test_a_class_with_one_image_is_said_and_one_without_is_not_trained(moles, tmp_path):
    emu = moles / "emu" / "0.png"
    emu.parent.mkdir()
    cv2.imwrite(str(emu), np.full((24, 32, 3), 90, np.uint8))
    arguments = ("prepare", "own", "--data", moles, "--size", "32")
    ended = medic(*arguments, cwd=tmp_path)
    assert re.search(r"^emu +1 +0 +0 +1$", succeeded(ended), re.MULTILINE)
    assert "the class 'emu' has no image in test" in ended.err
    emu.write_bytes(b"no image")
    assert "it cannot be learned; add images of it" in medic(*arguments, cwd=tmp_path).err
    said = failed(medic("train", "own", "--epochs", "1", cwd=tmp_path))
    assert "no image of the class 'emu' could be read (see skipped.csv in outputs/prepared)" in said


def test_samples_are_written_and_read_and_a_foreign_folder_is_left_alone(tmp_path):
    shown = succeeded(medic("sample", "made/retinopathy", "--patients", "40", cwd=tmp_path))
    assert "80 synthetic images of 40 made-up patients" in shown
    assert described(tmp_path, "retinopathy", "--data", "made")["absent_images"] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "thesis.txt" in failed(medic("sample", "mine", cwd=tmp_path))
    ended = medic("download", "eyepacs", "--folder", "data", cwd=tmp_path)
    assert ended.status == 1
    assert re.search(r"^  1\. ", ended.err, re.MULTILINE), "a set behind a login prints the steps"
    assert not (tmp_path / "data" / "retinopathy").exists()


# The whole line


def test_the_line_leaves_what_it_promises_and_says_it(line):
    outputs, printed = line.folder / "outputs", line.printed
    for name in ("evaluation.json", "predictions.csv", "evaluation.html", "slices.csv"):
        assert (line.run / "evaluation-test" / name).stat().st_size > 0, name
    for name in ("model_report.md", "model.onnx", "bundles/retinopathy/manifest.json", "bundles/retinopathy.tar.gz"):
        assert (outputs / name).stat().st_size > 0, name
    hidden = {path.name for path in outputs.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")}
    assert hidden == {".medic-product"}
    assert "latest, test split (synthetic images)" in printed["evaluate"]
    for name in ("macro f1", "quadratic weighted kappa"):  # kappa has no interval where the tiny network is constant
        number = r"-?\d\.\d{3}"
        ends = rf"95 % interval {number} to {number}" + "|no interval: all samples of patients agree" * (name[0] == "q")
        wanted = rf"{name} +{number}  \(({ends}); always [\w ]+: {number}\)"
        assert re.search(wanted, printed["evaluate"], re.IGNORECASE), printed["evaluate"]
    differences = [float(value) for value in re.findall(r"batch \d: (\S+?)[,\s]", printed["export"] + "\n")]
    assert len(differences) == 2
    assert max(differences) <= 1e-4
    report = (outputs / "model_report.md").read_text()
    saved = json.loads((line.run / "evaluation-test" / "evaluation.json").read_text())
    assert "synthetic" in report
    for name, counts in zip(saved["classes"], saved["confusion_matrix"], strict=True):
        assert f"| {name} | {' | '.join(map(str, counts))} |" in report
    assert "validation split" in succeeded(medic("evaluate", "--split", "validation", cwd=line.folder))


def test_package_compresses_only_behind_its_gate_and_says_what_came_of_it(line, tmp_path, monkeypatch):
    monkeypatch.setattr("medic.cli.deployment.JUDGED", 90)
    shown = succeeded(medic("package", "--compress", "int8", "--to", tmp_path / "small", cwd=line.folder))
    precision = json.loads((tmp_path / "small" / "manifest.json").read_text())["precision"]
    outcome = r"it (passed; int8 is kept|failed: .*; fp32 stays)"
    assert re.search(rf"On \d+ images, \d+ of them drawn \(synthetic\), {outcome}", shown)
    assert precision == ("fp32" if "fp32 stays" in shown else "int8")


def test_training_again_returns_at_once_or_names_the_difference(line):
    before = (line.run / "run.json").stat().st_mtime_ns
    shown = succeeded(medic(*TRAIN, cwd=line.folder))
    assert ("epoch   1/1" in line.printed["train"], "epoch   1/1" in shown) == (True, False)
    assert "best epoch 1 of 1" in shown
    assert (line.run / "run.json").stat().st_mtime_ns == before
    for other, difference in (
        (("--recipe", "published"), "batch_size 16 there, 18"),
        (("--seed", "5"), "seed 0 there, 5"),
    ):
        said = failed(medic(*TRAIN, *other, cwd=line.folder))
        assert re.search(f"recipe.{difference} here.*; choose another folder", said)


def test_options_go_before_the_recipe_and_weights_come_from_a_saved_model(line, tmp_path):
    network = ("--backbone", "squeezenet1_1", "--image-size", "112", "--weights", "none")
    given = ("-d", "outputs/prepared", "-s", tmp_path, "-n", "mine", "-b", "20", "-e", "1", "--learning-rate", "1e-4")
    shown = succeeded(medic("train", "--recipe", "published", *network, *given, cwd=line.folder))
    assert f"the run is in {tmp_path / 'mine'}" in shown
    assert "prepared at 96 px and enlarged to the 112 px of the network" in shown
    settings = json.loads((tmp_path / "mine" / "run.json").read_text())["settings"]
    recipe = settings["recipe"]
    assert [recipe[name] for name in ("batch_size", "epochs", "learning_rate")] == [20, 1, 1e-4]
    assert [recipe[name] for name in ("schedule", "amsgrad", "choose_by")] == ["steps", True, "macro_f1"]
    assert settings["model"]["objective"]["name"] == "regression"
    assert "enlarged" not in line.printed["train"]
    frozen = ("train", "--frozen", "--image-size", "64", "-s", tmp_path, "-n", "head")
    assert "best epoch 1 of 1" in succeeded(medic(*frozen, cwd=line.folder))
    again = (*TRAIN, "--weights", line.run / "best", "-s", tmp_path, "-n", "r")
    assert "epoch   1/1" in succeeded(medic(*again, cwd=line.folder))


def test_an_interrupted_training_says_so_and_goes_on(line):
    command = (*TRAIN, "--epochs", "20", "-s", ".", "-n", "interrupted")
    with started(*command, cwd=line.folder) as process:
        first = next(line for line in process.stdout if line.startswith(b"epoch"))
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
    assert (process.returncode, first.split()[1], b"epoch  20/20" in rest) == (130, b"1/20", False)
    assert "Traceback" not in said.decode()
    assert "medic: stopped; give the same command again to go on" in said.decode()
    assert "was interrupted; start the same training again" in failed(medic("evaluate", "interrupted", cwd=line.folder))
    shown = succeeded(medic(*command, cwd=line.folder))
    assert ("epoch   1/20" in shown, "epoch  20/20" in shown) == (False, True)


def test_run_checkpoint_bundle_and_archive_predict_the_same(line, pictures):
    with zipfile.ZipFile(pictures / "eyes.zip", "w") as archive:
        for path in (pictures / "results" / "images").iterdir():
            archive.write(path, path.name)
    shown = succeeded(medic("predict", "-m", line.run, cwd=pictures))
    assert "6 images predicted in results/result.csv" in shown
    assert "probabilities: not calibrated" in shown
    first = result(pictures / "results" / "result.csv")
    assert list(first) == ["grade", "class", "grade_continuous", *PROBABILITIES, "error"]
    assert sorted(first.index) == sorted(path.name for path in (pictures / "results" / "images").iterdir())
    assert (first["grade"] == first[PROBABILITIES].to_numpy().argmax(axis=1)).all()
    numbers = ["grade_continuous", *PROBABILITIES]
    for model in (line.run / "best", line.bundle, line.bundle.with_name("retinopathy.tar.gz")):
        succeeded(medic("predict", "eyes.zip", "-m", model, "--to", "other.csv", cwd=pictures))
        other = result(pictures / "other.csv")
        assert np.allclose(other[numbers], first[numbers], atol=1e-4)
        assert (other[["grade", "class"]] == first[["grade", "class"]]).all(axis=None)
    tables = []
    for model in (line.run, line.bundle):
        succeeded(medic("predict", "-m", model, "--to", "tta.csv", "--tta", cwd=pictures))
        tables.append(result(pictures / "tta.csv"))
    assert np.allclose(tables[0][PROBABILITIES], tables[1][PROBABILITIES], atol=1e-4)
    assert set(tables[0]["tta"]) == {"horizontal"}


def test_predict_agrees_with_the_saved_evaluation(line, tiny, tmp_path):
    succeeded(medic("predict", tiny, "-m", line.run, "--to", "all.csv", cwd=tmp_path))
    saved = result(line.run / "evaluation-test" / "predictions.csv")
    found = result(tmp_path / "all.csv").loc[saved.index]
    assert np.allclose(found[PROBABILITIES], saved[PROBABILITIES], atol=1e-4)


def test_bad_images_are_rows_with_the_reason_and_the_first_are_named(line, pictures):
    for number in range(25):
        (pictures / "results" / "images" / f"bad_{number:02}.jpeg").write_bytes(b"no photograph")
    left = pictures / "results" / "result.csv.partial"
    for options, said in (((), True), (("--fresh",), False)):
        left.write_text("image,grade\n1_left.jpeg,0\n")
        ended = medic("predict", "-m", line.bundle, *options, cwd=pictures)
        assert "6 images predicted" in succeeded(ended)
        assert ("starting anew: results/result.csv.partial" in ended.out) == said
    assert re.findall(r"^skipped bad_(\d+)\.jpeg: ", ended.err, re.MULTILINE) == [f"{n:02}" for n in range(20)]
    assert "skipped 5 more; the column error in results/result.csv says why" in ended.err
    table = result(pictures / "results" / "result.csv")
    assert list(table.index) == sorted(os.listdir(pictures / "results" / "images"))
    bad = table.index.str.startswith("bad_")
    assert table.loc[bad, "error"].str.startswith("unsupported: ").all()
    assert table.loc[bad, ["grade", *PROBABILITIES]].isna().all(axis=None)
    assert sorted(os.listdir(pictures / "results")) == ["images", "result.csv"]


@pytest.mark.parametrize("command", ["predict -m", "evaluate", "export", "package"])
def test_a_damaged_checkpoint_or_one_of_another_task_is_said_with_the_remedy(command, line, pictures):
    from medic.data.images.preprocess import Preprocessing
    from medic.modeling.classifier import Classifier

    shutil.copytree(line.folder / "outputs" / "prepared", pictures / "outputs" / "prepared")
    run = Path(shutil.copytree(line.run, pictures / "outputs" / "runs" / "latest"))
    for name, content, said in (("run.json", b"{", "damaged"), ("best/model.safetensors", b"", "damaged")):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(content)
        assert said in failed(medic(*command.split(), run, cwd=pictures))
        (run / name).write_bytes(whole)
    other = Task("cats", "ordinal", ("small", "middling", "large"))
    Classifier(other, NETWORK[1], preprocessing=Preprocessing(size=96), image_size=64).save(run / "best")
    said = failed(medic(*command.split(), run, cwd=pictures))
    assert re.search(r"is for the task 'cats' .*, not for 'retinopathy'", said)


@pytest.mark.parametrize("command", ["predict -m", "deploy", "serve"])
def test_a_damaged_bundle_is_said_with_the_remedy(command, line, pictures):
    bundle = Path(shutil.copytree(line.bundle, pictures / "bundle"))
    graph = bundle / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert "changed or damaged at model.onnx" in failed(medic(*command.split(), bundle, cwd=pictures))
    archive = pictures / "bundle.tar.gz"
    archive.write_bytes(line.bundle.with_name("retinopathy.tar.gz").read_bytes()[:5000])
    assert "damaged" in failed(medic(*command.split(), archive, cwd=pictures))


# Radiographs and digits


def test_findings_are_predicted_as_the_operating_point_decides(chests, tmp_path):
    train = ("train", "chest_xray", "--recipe", "chexnet", *SMALL, "squeezenet1_1", "--sensitivity")
    succeeded(medic("prepare", "chest_xray", "--data", chests.parent, "--size", "32", cwd=tmp_path))
    assert "a share above 0 and up to 1" in failed(medic(*train, "1.5", cwd=tmp_path))
    assert "operating point of the best model, sensitivity 0.9: from" in succeeded(medic(*train, "0.9", cwd=tmp_path))
    succeeded(medic("package", "--to", "bundle", cwd=tmp_path))
    tables = []
    for model in ("outputs/runs/latest", "bundle"):
        succeeded(medic("predict", chests / "images.zip", "-m", model, "--to", "result.csv", cwd=tmp_path))
        tables.append(result(tmp_path / "result.csv"))
    assert tables[1]["error"].notna().sum() == 1, "one planted file is cut off"
    table = tables[1][tables[1]["error"].isna()]
    thresholds = np.array(json.loads((tmp_path / "bundle" / "manifest.json").read_text())["model"]["thresholds"])
    p, decided = table[[f"p_{name}" for name in FINDINGS]].to_numpy(), table[list(FINDINGS)].to_numpy()
    clear = np.abs(p - thresholds) > 1e-6  # the file has six decimals
    assert np.array_equal(decided[clear] == 1, (p >= thresholds)[clear])
    numbers = [name for name in table if name.startswith("p_")]
    assert np.allclose(*(one[numbers].fillna(0) for one in tables), atol=1e-4)


def test_digits_go_from_idx_files_to_a_bundle_that_reads_them(tmp_path):
    succeeded(medic("sample", "digits", "--set", "digits", cwd=tmp_path))
    for path in (tmp_path / "digits").glob("*.gz"):
        idx.write(path, idx.read(path)[:200])
    commands = [("prepare", "digits", "--data", ".", "--size", "28"), ("train", "digits", *SMALL, "squeezenet1_1")]
    printed = walked(tmp_path, *commands, ("evaluate",), ("package",)).printed
    assert "400 images prepared at 28 px" in printed["prepare"]
    assert re.search(r"accuracy +\d\.\d{3} ", printed["evaluate"])
    bundle = tmp_path / "outputs" / "bundles" / "digits"
    assert "calibrated on" in succeeded(medic("predict", bundle / "golden", "-m", bundle, cwd=tmp_path))
    table, columns = pd.read_csv(tmp_path / "results" / "result.csv"), [f"p_{name}" for name in DIGITS.classes]
    assert list(table) == ["image", "label", "class", *columns, "set", "refer", "why", "calibration", "error"]
    assert (table["label"] == table[columns].to_numpy().argmax(axis=1)).all()


@pytest.mark.real_data
def test_real_radiographs_go_from_their_zip_file_to_a_table_of_findings(real_data, tmp_path):
    """All 91 at 1024 pixels, never unpacked; what a network of one epoch says is another matter."""
    said = succeeded(medic("prepare", "chest_xray", "--data", real_data, "--size", "64", cwd=tmp_path))
    assert "91 images prepared at 64 px" in said
    succeeded(medic("train", "chest_xray", "--recipe", "chexnet", *SMALL, "squeezenet1_1", cwd=tmp_path))
    (archive,) = (real_data / "chest_xray").glob("*.zip")
    succeeded(medic("predict", archive, "--to", "result.csv", cwd=tmp_path))
    table = result(tmp_path / "result.csv")
    assert len(table) == 91
    assert table["error"].isna().all()
    assert table[list(FINDINGS)].isin([0, 1]).all(axis=None)


# Services


@pytest.mark.servers
def test_a_deployment_outlives_its_command_answers_and_is_deleted(line, pictures):
    named, image = ("eyes", "--space", "demo"), next((pictures / "results" / "images").iterdir())
    deploy = ("deploy", line.bundle.with_name("retinopathy.tar.gz"), "--name", *named)
    with started(*deploy, cwd=pictures) as process:
        shown, said = (text.decode() for text in process.communicate(timeout=120))
    try:
        assert process.returncode == 0, said
        url = re.search(r"http://127\.0\.0\.1:\d+", shown)[0]
        assert url in succeeded(medic("deployments", "--space", "demo", cwd=pictures))
        assert succeeded(medic("status", *named, cwd=pictures)).strip() == "ready"
        (pictures / "note.jpeg").write_text("no photograph")
        asked = medic("score", url, image, pictures / "note.jpeg", image, "--json", cwd=pictures)
        assert "1 of 3 images were not answered" in failed(asked)
        first, bad, last = [json.loads(line) for line in asked.out.splitlines()]
        assert "no image that is read" in bad["error"]
        assert first == last
        succeeded(medic("predict", "-m", line.run, cwd=pictures))
        expected = result(pictures / "results" / "result.csv").loc[image.name, PROBABILITIES].astype(float)
        assert np.allclose(list(first["probabilities"].values()), expected, atol=1e-4)
        assert image.name in succeeded(medic("score", "eyes", image, "--space", "demo", cwd=pictures))
        assert url in succeeded(medic(*deploy, cwd=pictures)), "the new version took over where the old one was"
    finally:
        ended = medic("delete", *named, cwd=pictures)
    assert "deployment eyes deleted" in succeeded(ended)
    failed(medic("score", url, image, cwd=pictures))
    assert "no deployment" in succeeded(medic("deployments", "--space", "demo", cwd=pictures))


@pytest.mark.servers
def test_serve_answers_until_ctrl_c_and_a_port_in_use_is_one_sentence(line, pictures):
    with started("serve", line.bundle, "--port", "0", cwd=pictures) as process:
        first = process.stdout.readline().decode()
        assert first.startswith("serving retinopathy")
        image = next((pictures / "results" / "images").iterdir())
        assert image.name in succeeded(medic("score", first.split()[-1], image, cwd=pictures))
        process.send_signal(signal.SIGINT)
        shown, said = (text.decode() for text in process.communicate(timeout=30))
    assert "Not a medical device" in shown
    assert process.returncode in (0, 130)
    assert "Traceback" not in said
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for command in ("deploy", "serve"):
            said = failed(medic(command, line.bundle, "--port", port, cwd=pictures))
            assert f"port {port} on 127.0.0.1 cannot be used" in said
    assert "no deployment" in succeeded(medic("deployments", cwd=pictures))


def test_the_installed_program_is_this_command_line():
    program = Path(sys.executable).parent / "medic"
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Usage: medic" in shown
