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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import typer

from medic import cli
from medic.task import CHEST_XRAY_BINARY, DIGITS, FINDINGS, RETINOPATHY, Task

COMMANDS = [
    "download",
    "sample",
    "describe",
    "check",
    "data",
    "prepare",
    "train",
    "tune",
    "evaluate",
    "report",
    "export",
    "package",
    "store",
    "deploy",
    "deployments",
    "status",
    "score",
    "delete",
    "drift",
    "serve",
    "predict",
    "run",
]
NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--image-size", "64", "--weights", "none")
TRAIN = ("train", "retinopathy", *NETWORK, "--objective", "cross_entropy", "--epochs", "1")
CLOCK = ["images_per_second", "seconds"]
PROBABILITIES = [f"p_{name}" for name in RETINOPATHY.classes]


@dataclass(frozen=True)
class Ended:
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


@dataclass(frozen=True)
class Walk:
    """A working folder in which the whole line was run with the defaults, and what each command printed."""

    folder: Path
    printed: dict[str, str]

    @property
    def run(self) -> Path:
        return self.folder / "outputs" / "runs" / "latest"


@pytest.fixture(scope="module")
def line(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Prepared, trained, evaluated, reported, exported, packaged; not to be changed."""
    folder = tmp_path_factory.mktemp("a line {with} spaces")
    commands = [("prepare", "retinopathy", "--data", tiny.parent, "--size", "96"), TRAIN]
    commands += [(name,) for name in ("evaluate", "report", "export", "package")]
    ended = {arguments[0]: medic(*arguments, cwd=folder) for arguments in commands}
    return Walk(folder, {name: succeeded(end) for name, end in ended.items()})


@pytest.fixture(scope="module")
def good(tiny: Path) -> list[Path]:
    """Photographs without a planted fault."""
    faulty = set(pd.read_csv(tiny / "planted_faults.csv")["image"])
    return [path for path in sorted((tiny / "images").iterdir()) if path.stem not in faulty]


@pytest.fixture
def pictures(good: list[Path], tmp_path: Path) -> Path:
    """A working folder with ``results/images``, where ``medic predict`` looks by default."""
    folder = tmp_path / "results" / "images"
    folder.mkdir(parents=True)
    for path in good[:6]:
        shutil.copy(path, folder)
    return tmp_path


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command, tmp_path):
    shown = succeeded(medic(command, "--help", cwd=tmp_path))
    assert re.search(rf"Example: medic {command}\b", shown)


def test_the_commands_are_those_of_the_documentation():
    assert set(typer.main.get_command(cli.app).commands) == set(COMMANDS)


def test_the_examples_of_the_help_are_commands_that_exist(tmp_path):
    """Every option an example uses is one the command knows."""
    for command in COMMANDS:
        shown = succeeded(medic(command, "--help", cwd=tmp_path))
        example = next(text for text in shown.splitlines() if "Example:" in text)
        for option in re.findall(r"\s(--?[a-z][a-z-]*)", example):
            assert re.search(rf"^\s+(-\w, )?{option}\b|, {option}\b|^\s+{option},", shown, re.MULTILINE), example


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
    done = subprocess.run([sys.executable, "-c", program, str(tiny)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Not a medical device" in done.stdout
    assert "80 images of 40 patients" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["describe"], ["describe", "retinopathy", "--colour"], ["diagnose"], ["train", "retinopathy", "-e", "x"]],
)
def test_a_command_that_cannot_be_understood_ends_with_status_2_and_says_why(arguments, tmp_path):
    ended = medic(*arguments, cwd=tmp_path)
    assert ended.status == 2
    assert "Error" in ended.err
    assert "Traceback" not in ended.err


def test_without_arguments_the_help_is_shown(tmp_path):
    ended = medic(cwd=tmp_path)
    assert ended.status == 2
    assert "Usage:" in ended.err
    assert "Not a medical device" in ended.err


# Describe


def described(cwd: Path, *arguments: object) -> dict:
    return json.loads(succeeded(medic("describe", "retinopathy", "--json", *arguments, cwd=cwd)))


def counted(tiny: Path) -> dict[str, int]:
    """Images by class, counted from the tables with other means."""
    labels = pd.concat([pd.read_csv(tiny / f"{split}_label.csv", header=None)[0] for split in ("train", "test")])
    return {name: int((labels == code).sum()) for code, name in enumerate(RETINOPATHY.classes)}


def test_describe_counts_a_folder_named_by_its_parent_or_by_itself(tiny, tmp_path):
    about = described(tmp_path, "--data", tiny.parent)
    assert about == described(tmp_path, "--data", tiny)
    assert (about["images"], about["patients"], about["absent_images"]) == (80, 40, 0)
    assert {name: row["total"] for name, row in about["classes"].items()} == counted(tiny)
    test_labels = pd.read_csv(tiny / "test_label.csv", header=None)[0]
    assert sum(row["test"] for row in about["classes"].values()) == len(test_labels)


def test_describe_says_the_same_in_words(tiny, tmp_path):
    shown = succeeded(medic("describe", "retinopathy", "-d", tiny, cwd=tmp_path))
    assert "retinopathy: 80 images of 40 patients, 40 of them with both eyes" in shown
    assert "every listed image is there" in shown
    for name, count in counted(tiny).items():
        assert re.search(rf"^{name} .*\b{count}$", shown, re.MULTILINE), shown


def test_describe_reads_a_zip_without_unpacking_it(tiny, tmp_path):
    with zipfile.ZipFile(tmp_path / "retinopathy.zip", "w") as archive:
        for path in sorted(tiny.rglob("*")):
            archive.write(path, path.relative_to(tiny))
    expected = described(tmp_path, "--data", tiny)
    assert described(tmp_path, "--data", tmp_path) == expected, "found by the task's name in the folder"
    assert described(tmp_path, "--data", "retinopathy.zip") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["retinopathy.zip"]


def test_describe_works_on_the_tables_alone(tiny, tmp_path):
    for path in tiny.glob("*.csv"):
        shutil.copy(path, tmp_path)
    about = described(tmp_path, "--data", ".")
    assert (about["images"], about["absent_images"]) == (80, 80)
    assert {name: row["total"] for name, row in about["classes"].items()} == counted(tiny)
    shown = succeeded(medic("describe", "retinopathy", "--data", ".", cwd=tmp_path))
    assert "the images are elsewhere" in shown
    assert described(tmp_path, "--data", ".", "--images", tiny / "images")["absent_images"] == 0


@pytest.mark.parametrize("command", ["describe", "prepare"])
def test_a_set_that_cannot_be_read_is_one_sentence(command, tiny, tmp_path):
    assert "no task is called 'dermatology'; there is: retinopathy" in failed(
        medic(command, "dermatology", cwd=tmp_path)
    )
    assert "nowhere" in failed(medic(command, "retinopathy", "--data", "nowhere", cwd=tmp_path))
    (tmp_path / "empty").mkdir()
    assert "holds no table" in failed(medic(command, "retinopathy", "--data", "empty", cwd=tmp_path))
    (tmp_path / "retinopathy.zip").write_bytes(b"no zip")
    assert "no zip file" in failed(medic(command, "retinopathy", "--data", ".", cwd=tmp_path))
    assert not (tmp_path / "outputs").exists()


def test_tables_of_different_lengths_are_one_sentence(tiny, tmp_path):
    for path in tiny.glob("*.csv"):
        shutil.copy(path, tmp_path)
    lines = (tmp_path / "train_label.csv").read_text().splitlines()
    (tmp_path / "train_label.csv").write_text("\n".join(lines[:-1]) + "\n")
    said = failed(medic("describe", "retinopathy", "--data", ".", cwd=tmp_path))
    assert f"{len(lines)} names" in said
    assert f"{len(lines) - 1} labels" in said


# Skin lesions, and images of one's own


def write_images(folder: Path, *names: str) -> None:
    """A plain picture under each name, each of another colour."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((24, 32, 3), (60 + 5 * number, 120, 200), np.uint8))


@pytest.fixture
def moles(tmp_path) -> Path:
    """Moles of two clinics, in a folder a class each."""
    folder = tmp_path / "my moles"
    write_images(
        folder,
        *(f"{kind}/{clinic} {n}.JPG" for clinic in ("north", "south") for kind in ("bad", "fine") for n in range(5)),
    )
    return folder


def test_skin_lesions_are_described_by_their_verdict(tmp_path):
    folder = tmp_path / "data" / "skin_lesion"
    write_images(folder, *(f"images/L{number}.png" for number in range(4)))
    (folder / "groundtruth.csv").write_text("L0,benign\nL1,malignant\nL2,benign\nL9,benign\n")
    about = json.loads(succeeded(medic("describe", "skin_lesion", "--data", "data", "--json", cwd=tmp_path)))
    assert {name: row["total"] for name, row in about["classes"].items()} == {"benign": 3, "malignant": 1}
    assert (about["images"], about["absent_images"], about["unlisted_images"]) == (4, 1, 1)


def test_own_images_are_described_by_the_classes_found(moles, tmp_path):
    shown = succeeded(medic("describe", "own", "--data", moles, cwd=tmp_path))
    assert "own: 20 images" in shown
    assert re.search(r"^fine .*\b10$", shown, re.MULTILINE), shown
    ended = medic("describe", "own", "--data", moles, "--positive", "bad", "--json", cwd=tmp_path)
    assert list(json.loads(succeeded(ended))["classes"]) == ["fine", "bad"]


def test_own_images_are_prepared_with_what_is_looked_for_second(moles, tmp_path):
    arguments = ("prepare", "own", "--data", moles, "--size", "32", "--to", "made")
    assert "of the two classes fine is the positive one (--positive names the other)" in succeeded(
        medic(*arguments, cwd=tmp_path)
    )
    shown = succeeded(medic(*arguments, "--looked-for", "bad", cwd=tmp_path))
    assert "of the two classes bad is the positive one" in shown
    assert "20 images prepared at 32 px in made" in shown
    records = pd.read_csv(tmp_path / "made" / "records.csv")
    assert records.groupby("class")["label"].unique().map(list).to_dict() == {"bad": [1], "fine": [0]}
    assert set(records["split"]) == {"train", "validation", "test"}


def test_own_images_are_corrected_by_the_journal_beside_them(moles, tmp_path):
    (moles / "corrections.csv").write_text(
        "when,who,image,from,to\n,Ann,bad/north 0.JPG,bad,fine\n,Ann,bad/south 0.JPG,bad,(excluded)\n"
    )
    ended = medic("describe", "own", "--data", moles, "--json", cwd=tmp_path)
    assert {name: row["total"] for name, row in json.loads(succeeded(ended))["classes"].items()} == {
        "bad": 8,
        "fine": 11,
    }
    assert "corrections.csv in my moles: 1 labels changed, 1 images left out" in ended.err


def test_a_class_with_one_image_is_said_and_one_without_is_not_trained(tmp_path):
    images = tmp_path / "images"
    write_images(images, *(f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(5)), "emu/0.png")
    arguments = ("prepare", "own", "--data", "images", "--size", "32")
    ended = medic(*arguments, cwd=tmp_path)
    assert re.search(r"^emu +1 +0 +0 +1$", succeeded(ended), re.MULTILINE)
    assert "the class 'emu' has no image in test" in ended.err
    (images / "emu" / "0.png").write_bytes(b"no image")
    ended = medic(*arguments, cwd=tmp_path)
    assert succeeded(ended)
    assert "it cannot be learned; add images of it" in ended.err
    said = failed(medic("train", "own", "--epochs", "1", cwd=tmp_path))
    assert "no image of the class 'emu' could be read (see skipped.csv in outputs/prepared)" in said


@pytest.mark.parametrize("command", ["describe", "prepare"])
def test_only_own_images_have_a_finding_to_choose(command, tiny, tmp_path):
    said = failed(medic(command, "retinopathy", "--data", tiny, "--positive", "malignant", cwd=tmp_path))
    assert "--positive and named columns are for images of your own; retinopathy has its own classes" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--positive", "ugly"), "'ugly' cannot be the positive class"),
        (("--images", "nowhere"), "there is no folder or zip file nowhere"),
    ],
)
def test_what_cannot_be_meant_of_own_images_is_one_sentence(arguments, said, moles, tmp_path):
    assert said in failed(medic("prepare", "own", "--data", moles, *arguments, cwd=tmp_path))
    assert not (tmp_path / "outputs").exists()


# The whole line


def test_the_line_leaves_what_it_promises(line):
    outputs = line.folder / "outputs"
    for name in (
        "prepared/manifest.json",
        "runs/latest/run.json",
        "runs/latest/best/model.safetensors",
        "runs/latest/evaluation-test/evaluation.json",
        "runs/latest/evaluation-test/predictions.csv",
        "runs/latest/evaluation-test/evaluation.html",
        "runs/latest/evaluation-test/slices.csv",
        "model_report.md",
        "model.onnx",
        "bundles/retinopathy/manifest.json",
        "bundles/retinopathy.tar.gz",
    ):
        assert (outputs / name).stat().st_size > 0, name
    hidden = {path.name for path in outputs.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")}
    assert hidden == {".medic-product"}


def test_prepare_names_what_it_skipped_and_counts_the_splits(tiny, tmp_path):
    ended = medic("prepare", "retinopathy", "--data", tiny, "--size", "32", "--to", "made", cwd=tmp_path)
    shown = succeeded(ended)
    faults = pd.read_csv(tiny / "planted_faults.csv")
    unreadable = faults.loc[faults["fault"].isin(["truncated", "not an image"]), "image"]
    assert len(unreadable) == 2
    assert f"{80 - len(unreadable)} images prepared at 32 px in made" in shown
    for image in unreadable:
        assert re.search(rf"^skipped \S*{image}\.jpeg: ", ended.err, re.MULTILINE)
    records = pd.read_csv(tmp_path / "made" / "records.csv")
    assert len(records) == 80 - len(unreadable)
    assert records.groupby("patient")["split"].nunique().max() == 1


def test_prepare_deals_out_a_test_split_on_request_and_when_there_is_none(tiny, tmp_path):
    (tmp_path / "one").mkdir()
    names, labels = (pd.read_csv(tiny / f"train_{table}.csv", header=None)[0] for table in ("img", "label"))
    pd.DataFrame({"image": names, "level": labels}).to_csv(tmp_path / "one" / "trainLabels.csv", index=False)
    arguments = ("prepare", "retinopathy", "--size", "32", "--images", tiny / "images")
    shown = succeeded(medic(*arguments, "--data", "one", "--to", "dealt", cwd=tmp_path))
    assert "no test split: 20 % of the patients are set aside" in shown
    assert set(pd.read_csv(tmp_path / "dealt" / "records.csv")["split"]) == {"train", "validation", "test"}
    succeeded(medic(*arguments, "--data", tiny, "--test", "0.4", "--to", "asked", cwd=tmp_path))
    records = pd.read_csv(tmp_path / "asked" / "records.csv")
    share = records.loc[records["split"] == "test", "patient"].nunique() / records["patient"].nunique()
    assert 0.3 < share < 0.5


def test_evaluate_prints_figures_with_intervals_beside_the_baseline_and_says_synthetic(line):
    shown = line.printed["evaluate"]
    assert "latest, test split (synthetic images)" in shown
    for name in ("macro f1", "quadratic weighted kappa"):  # kappa has no interval where the tiny network is constant
        number = r"-?\d\.\d{3}"
        ends = rf"95 % interval {number} to {number}" + "|no interval: all samples of patients agree" * (name[0] == "q")
        wanted = rf"{name} +{number}  \(({ends}); always [\w ]+: {number}\)"
        assert re.search(wanted, shown, re.IGNORECASE), shown


def test_evaluate_takes_other_splits_and_refuses_unknown_ones(line):
    assert "validation split" in succeeded(medic("evaluate", "--split", "validation", cwd=line.folder))
    assert (line.run / "evaluation-validation" / "predictions.csv").is_file()
    assert "no images in the split 'tset'" in failed(medic("evaluate", "--split", "tset", cwd=line.folder))
    assert not (line.run / "evaluation-tset").exists()


def test_the_report_is_markdown_with_the_figures_of_the_evaluation(line):
    report = (line.folder / "outputs" / "model_report.md").read_text()
    saved = json.loads((line.run / "evaluation-test" / "evaluation.json").read_text())
    assert report.startswith("# Model report: latest\n")
    assert "not a medical device" in report
    assert "synthetic" in report
    rows = {cells[1].strip(): cells[2:-1] for row in report.splitlines() if len(cells := row.split("|")) > 3}
    assert {"macro_f1", "quadratic_weighted_kappa"} <= saved["figures"].keys()
    for name, figures in saved["figures"].items():
        said = [float(cell) if cell.strip() else None for cell in rows[name][:4]]
        assert said == pytest.approx(list(figures.values())[:4], abs=6e-4), name
    for name, counts in zip(saved["classes"], saved["confusion_matrix"], strict=True):
        assert f"| {name} | {' | '.join(map(str, counts))} |" in report


def test_export_says_how_closely_the_graph_agrees(line):
    shown = line.printed["export"]
    assert "outputs/model.onnx" in shown
    differences = [float(value) for value in re.findall(r"batch \d: (\S+?)[,\s]", shown + "\n")]
    assert len(differences) == 2
    assert max(differences) <= 1e-4


def test_package_compresses_only_behind_its_gate_and_says_what_came_of_it(line, tmp_path, monkeypatch):
    monkeypatch.setattr("medic.cli.deployment.JUDGED", 90)
    shown = succeeded(medic("package", "--compress", "int8", "--to", tmp_path / "small", cwd=line.folder))
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    assert "90 drawn, synthetic images too" in shown
    assert manifest["precision"] == ("fp32" if "fp32 stays" in shown else "int8")
    ended = medic("package", "--compress", "int4", cwd=line.folder)
    assert ended.status == 2
    assert "int4" in ended.err


# Training, again and again


def test_training_again_with_the_same_settings_returns_at_once(line):
    before = (line.run / "run.json").stat().st_mtime_ns
    shown = succeeded(medic(*TRAIN, cwd=line.folder))
    assert "epoch   1/1" in line.printed["train"]
    assert "epoch   1/1" not in shown
    assert "best epoch 1 of 1" in shown
    assert (line.run / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (("--epochs", "2"), "recipe.epochs 1 there, 2 here"),
        (("--objective", "corn"), "model.objective"),
        (("--recipe", "published"), "recipe.batch_size 16 there, 18 here"),
        (("--seed", "5"), "recipe.seed 0 there, 5 here"),
    ],
)
def test_training_into_the_folder_of_another_run_names_the_difference(line, other, difference):
    said = failed(medic(*TRAIN, *other, cwd=line.folder))
    assert difference in said
    assert "choose another folder" in said


def test_training_without_a_prepared_set_or_with_an_unknown_network_is_one_sentence(line, tmp_path):
    assert "run prepare" in failed(medic(*TRAIN, cwd=tmp_path))
    said = failed(medic("train", "--backbone", "resnet19", "-s", tmp_path, "-n", "r", cwd=line.folder))
    assert "resnet19" in said
    assert "resnet18" in said
    assert not (tmp_path / "r").exists()


def test_a_run_is_a_name_in_the_folder_of_all_runs_and_options_go_before_the_recipe(line, tmp_path):
    network = ("--backbone", "squeezenet1_1", "--image-size", "32", "--weights", "none")
    options = ("-d", "outputs/prepared", "-s", tmp_path, "-n", "mine", "-b", "20", "-e", "1", "--learning-rate", "1e-4")
    shown = succeeded(medic("train", "--recipe", "published", *network, *options, cwd=line.folder))
    assert f"the run is in {tmp_path / 'mine'}" in shown
    assert "enlarged" not in shown
    settings = json.loads((tmp_path / "mine" / "run.json").read_text())["settings"]
    recipe = settings["recipe"]
    assert [recipe[name] for name in ("batch_size", "epochs", "learning_rate")] == [20, 1, 1e-4]
    assert [recipe[name] for name in ("schedule", "amsgrad", "choose_by")] == ["steps", True, "macro_f1"]
    assert recipe["augmentation"]["kind"] == "published"
    assert settings["model"]["objective"]["name"] == "regression"


def test_training_says_that_images_are_enlarged(line, tmp_path):
    small = ("--image-size", "112", "-e", "1", "-s", tmp_path)
    shown = succeeded(medic("train", *small, cwd=line.folder))
    assert "prepared at 96 px and enlarged to the 112 px of the network" in shown


def test_a_frozen_network_gets_its_last_layer_at_once(line, tmp_path):
    frozen = ("train", "retinopathy", "--frozen", "--image-size", "64", "-s", tmp_path, "-n", "head")
    assert "best epoch 1 of 1" in succeeded(medic(*frozen, cwd=line.folder))
    assert "without --epochs; leave them away" in failed(medic(*frozen, "-e", "3", cwd=line.folder))


def test_training_starts_from_the_weights_of_a_saved_model(line, tmp_path):
    shown = succeeded(medic(*TRAIN, "--weights", line.run / "best", "-s", tmp_path, "-n", "r", cwd=line.folder))
    assert "epoch   1/1" in shown
    said = failed(medic(*TRAIN, "--weights", tmp_path / "none", "-s", tmp_path, "-n", "s", cwd=line.folder))
    assert "no checkpoint" in said


def test_a_killed_training_goes_on_and_an_interrupted_one_says_so(line):
    arguments = {name: (*TRAIN, "--epochs", "20", "-s", ".", "-n", name) for name in ("killed", "interrupted")}

    def stop(name: str, number: int) -> tuple[int, str]:
        with started(*arguments[name], cwd=line.folder) as process:
            first = next(line for line in process.stdout if line.startswith(b"epoch"))
            process.send_signal(number)
            rest, said = process.communicate(timeout=60)
        assert first.startswith(b"epoch   1/20"), said
        assert b"epoch  20/20" not in rest, "it ended before it could be stopped"
        return process.returncode, said.decode()

    # At the same time: most of it is waiting for the libraries to load.
    with ThreadPoolExecutor() as pool:
        killed, interrupted = pool.map(stop, arguments, (signal.SIGKILL, signal.SIGINT))
    assert killed[0] == -signal.SIGKILL
    assert interrupted[0] == 130
    assert "Traceback" not in interrupted[1]
    assert "medic: stopped; give the same command again to go on" in interrupted[1]
    assert "was interrupted; start the same training again" in failed(medic("evaluate", "killed", cwd=line.folder))
    for name, command in arguments.items():
        shown = succeeded(medic(*command, cwd=line.folder))
        assert "epoch   1/20" not in shown
        assert "epoch  20/20" in shown
        assert list(pd.read_csv(line.folder / name / "history.csv")["epoch"]) == list(range(1, 21))
    same = [pd.read_csv(line.folder / name / "history.csv").drop(columns=CLOCK) for name in arguments]
    pd.testing.assert_frame_equal(*same, rtol=1e-4)


# Predict


def result(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).set_index("image")


def test_predict_turns_a_folder_into_a_table_by_default(line, pictures):
    shown = succeeded(medic("predict", "-m", line.run, cwd=pictures))
    assert "6 images predicted in results/result.csv" in shown
    with open(pictures / "results" / "result.csv") as file:
        assert file.readline().strip().split(",") == [
            "image",
            "grade",
            "class",
            "grade_continuous",
            *PROBABILITIES,
            "error",
        ]
    table = result(pictures / "results" / "result.csv")
    assert sorted(table.index) == sorted(path.name for path in (pictures / "results" / "images").iterdir())
    assert np.allclose(table[PROBABILITIES].sum(axis=1), 1, atol=1e-4)
    assert (table["grade"] == table[PROBABILITIES].to_numpy().argmax(axis=1)).all()
    assert [RETINOPATHY.classes[grade] for grade in table["grade"]] == list(table["class"])
    assert table["grade_continuous"].between(0, 4).all()
    assert table["error"].isna().all()


def test_run_checkpoint_bundle_and_archive_predict_the_same(line, pictures):
    outputs = line.folder / "outputs"
    models = [
        line.run,
        line.run / "best",
        outputs / "bundles" / "retinopathy",
        outputs / "bundles" / "retinopathy.tar.gz",
    ]
    tables = []
    for number, model in enumerate(models):
        succeeded(medic("predict", "-m", model, "--to", f"{number}.csv", cwd=pictures))
        tables.append(result(pictures / f"{number}.csv"))
    numbers = ["grade_continuous", *PROBABILITIES]
    for table in tables[1:]:
        assert list(table.index) == list(tables[0].index)
        assert np.allclose(table[numbers], tables[0][numbers], atol=1e-4)
        assert (table[["grade", "class"]] == tables[0][["grade", "class"]]).all(axis=None)


def test_test_time_augmentation_is_the_same_for_run_and_bundle_and_is_said(line, pictures):
    tables = []
    for number, model in enumerate((line.run, line.folder / "outputs" / "bundles" / "retinopathy")):
        succeeded(medic("predict", "-m", model, "--to", f"tta {number}.csv", "--tta", cwd=pictures))
        tables.append(result(pictures / f"tta {number}.csv"))
    assert np.allclose(tables[0][PROBABILITIES], tables[1][PROBABILITIES], atol=1e-4)
    assert set(tables[0]["tta"]) == {"horizontal"}


def test_predict_agrees_with_the_saved_evaluation(line, tiny, tmp_path):
    """The same image gives the same probabilities, whichever command asks."""
    succeeded(medic("predict", tiny, "-m", line.run, "--to", "all.csv", cwd=tmp_path))
    saved = result(line.run / "evaluation-test" / "predictions.csv")
    table = result(tmp_path / "all.csv").loc[saved.index]
    assert np.allclose(table[PROBABILITIES], saved[PROBABILITIES], atol=1e-4)


def test_predict_reads_a_zip(line, pictures):
    with zipfile.ZipFile(pictures / "eyes.zip", "w") as archive:
        for path in (pictures / "results" / "images").iterdir():
            archive.write(path, path.name)
    succeeded(medic("predict", "-m", line.run, cwd=pictures))
    succeeded(medic("predict", "eyes.zip", "--model", line.run, "--to", "zip.csv", cwd=pictures))
    assert (pictures / "zip.csv").read_bytes() == (pictures / "results" / "result.csv").read_bytes()


BAD = {"text.jpeg": "unsupported", "cut.jpeg": "truncated", "empty.png": "empty"}


def write_bad_images(folder: Path, photograph: bytes) -> None:
    contents = {"text.jpeg": b"no photograph", "cut.jpeg": photograph[: len(photograph) // 2], "empty.png": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("model", ["runs/latest", "bundles/retinopathy"])
def test_bad_images_are_rows_with_the_reason_and_are_named(model, line, pictures, good):
    write_bad_images(pictures / "results" / "images", good[0].read_bytes())
    ended = medic("predict", "-m", line.folder / "outputs" / model, cwd=pictures)
    assert "6 images predicted" in succeeded(ended)
    table = result(pictures / "results" / "result.csv")
    assert len(table) == 9
    for name, reason in BAD.items():
        assert table.loc[name, "error"].startswith(f"{reason}: ")
        assert table.loc[name, ["grade", *PROBABILITIES]].isna().all()
        assert f"skipped {name}: " in ended.err
    others = table.drop(list(BAD))
    assert others["error"].isna().all()
    assert "0.0" not in set((pictures / "results" / "result.csv").read_text().split(",")), "grades are whole numbers"


def test_of_many_bad_images_the_first_are_named_and_the_others_counted(line, pictures):
    for number in range(25):
        (pictures / "results" / "images" / f"bad_{number:02}.jpeg").write_bytes(b"no photograph")
    ended = medic("predict", "-m", line.run, cwd=pictures)
    assert "6 images predicted" in succeeded(ended)
    assert re.findall(r"^skipped bad_(\d+)\.jpeg: ", ended.err, re.MULTILINE) == [f"{n:02}" for n in range(20)]
    assert "skipped 5 more; the column error in results/result.csv says why" in ended.err
    table = result(pictures / "results" / "result.csv")
    assert list(table.index) == sorted(os.listdir(pictures / "results" / "images"))


def test_what_an_interrupted_prediction_left_is_said_to_be_unusable_or_passed_over_with_fresh(line, pictures):
    left = pictures / "results" / "result.csv.partial"
    for options, said in (((), True), (("--fresh",), False)):
        left.write_text("image,grade\n1_left.jpeg,0\n")
        shown = succeeded(medic("predict", "-m", line.run, *options, cwd=pictures))
        assert ("starting anew: results/result.csv.partial is of another version and model" in shown) == said
        assert len(result(pictures / "results" / "result.csv")) == 6
        assert sorted(os.listdir(pictures / "results")) == ["images", "result.csv"]


def test_when_no_image_can_be_read_the_job_failed_and_nothing_is_written(line, good, tmp_path):
    folder = tmp_path / "results" / "images"
    folder.mkdir(parents=True)
    assert "holds no image files" in failed(medic("predict", "-m", line.run, cwd=tmp_path))
    (folder / "notes.txt").write_text("no image")
    assert "holds no image files" in failed(medic("predict", "-m", line.run, cwd=tmp_path))
    write_bad_images(folder, good[0].read_bytes())
    said = failed(medic("predict", "-m", line.run, cwd=tmp_path))
    assert "not one of 3 images" in said
    assert "cut.jpeg" in said
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["images"]
    shutil.rmtree(folder)
    assert "results/images" in failed(medic("predict", "-m", line.run, cwd=tmp_path))


def test_an_earlier_table_survives_a_failed_job(line, pictures, good):
    earlier = pictures / "results" / "result.csv"
    earlier.write_text("earlier\n")
    shutil.rmtree(pictures / "results" / "images")
    failed(medic("predict", "-m", line.run, cwd=pictures))
    assert earlier.read_text() == "earlier\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "-m", "{run}", "--to", "file/result.csv"),
        ("export", "{run}", "--to", "file/model.onnx"),
        ("report", "{run}", "--to", "file/report.md"),
        ("sample", "file/sample"),
        ("prepare", "retinopathy", "--data", "{data}", "--size", "32", "--to", "file/prepared"),
        ("train", "retinopathy", *NETWORK, "-e", "1", "-d", "{prepared}", "-s", "file", "-n", "run"),
        ("deploy", "{bundle}", "--space", "file/space"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_place_that_cannot_be_written_is_one_sentence(arguments, line, pictures, tiny):
    (pictures / "file").write_text("a file, no folder")
    outputs = line.folder / "outputs"
    places = {
        "run": line.run,
        "data": tiny,
        "prepared": outputs / "prepared",
        "bundle": outputs / "bundles/retinopathy",
    }
    said = failed(medic(*(argument.format(**places) for argument in arguments), cwd=pictures))
    assert "file/" in said
    assert (pictures / "file").read_text() == "a file, no folder"


# Checkpoints that are not there, damaged, or of another task


def on(command: str, model: object) -> tuple:
    """A command with the model it is for: an option of ``predict``, the argument of all others."""
    return (command, "-m", model) if command == "predict" else (command, model)


@pytest.fixture
def harmed(line: Walk, tmp_path: Path) -> Path:
    """A copy of the run, and of the prepared set where the run expects it, that a test may harm."""
    shutil.copytree(line.folder / "outputs" / "prepared", tmp_path / "outputs" / "prepared")
    return Path(shutil.copytree(line.run, tmp_path / "outputs" / "runs" / "latest"))


@pytest.mark.parametrize("command", ["predict", "evaluate", "report", "export", "package"])
def test_a_missing_run_is_said_with_the_remedy(command, pictures):
    said = failed(medic(*on(command, "outputs/runs/none"), cwd=pictures))
    assert "outputs/runs/none" in said
    assert re.search(r"train one|make one", said)


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_a_damaged_checkpoint_is_said_with_the_remedy(command, harmed, pictures):
    weights, settings = harmed / "best" / "model.safetensors", harmed / "best" / "model.json"
    whole, kept = weights.read_bytes(), settings.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in failed(medic(*on(command, harmed), cwd=pictures))
    weights.unlink()
    assert "train" in failed(medic(*on(command, harmed), cwd=pictures))
    weights.write_bytes(whole)
    settings.write_text(kept[: len(kept) // 2])
    assert "damaged" in failed(medic(*on(command, harmed), cwd=pictures))
    settings.unlink()
    assert "no checkpoint" in failed(medic(*on(command, harmed), cwd=pictures))
    settings.write_text(kept)
    (harmed / "run.json").write_text("{")
    assert "damaged" in failed(medic(*on(command, harmed), cwd=pictures))


@pytest.mark.parametrize("command", ["predict", "deploy", "serve"])
def test_a_damaged_bundle_is_said_with_the_remedy(command, line, pictures):
    bundle = Path(shutil.copytree(line.folder / "outputs" / "bundles" / "retinopathy", pictures / "bundle"))
    graph = bundle / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    port = ("--port", "0") if command == "serve" else ()
    assert "changed or damaged at model.onnx" in failed(medic(*on(command, bundle), *port, cwd=pictures))
    archive = pictures / "bundle.tar.gz"
    archive.write_bytes((line.folder / "outputs" / "bundles" / "retinopathy.tar.gz").read_bytes()[:5000])
    assert "damaged" in failed(medic(*on(command, archive), *port, cwd=pictures))
    assert not (pictures / "outputs" / "spaces").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "package"])
def test_a_checkpoint_for_another_task_in_a_run_is_refused(command, harmed, pictures):
    from medic.data.images.preprocess import Preprocessing
    from medic.modeling.classifier import Classifier

    other = Task("cats", "ordinal", ("small", "middling", "large"))
    Classifier(other, NETWORK[1], preprocessing=Preprocessing(size=96), image_size=64).save(harmed / "best")
    to = () if command == "evaluate" else ("--to", "made")
    before = (harmed / "evaluation-test" / "predictions.csv").read_bytes()
    said = failed(medic(*on(command, harmed), *to, cwd=pictures))
    assert "is for the task 'cats'" in said
    assert "not for 'retinopathy'" in said
    assert not (pictures / "made").exists()
    assert (harmed / "evaluation-test" / "predictions.csv").read_bytes() == before


# Radiographs and digits

SMALL = ("--image-size", "32", "-e", "1", "--weights", "none", "--backbone")
NETWORKS = {"chexnet": "squeezenet1_1", "binary": "resnet18"}  # the second has the layers that its recipe freezes


@pytest.fixture(scope="module")
def radiographs(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Radiographs prepared once; findings and any finding trained, evaluated, packaged; not to be changed."""
    folder = tmp_path_factory.mktemp("radiographs")
    commands = {"prepare": ("prepare", "chest_xray", "--data", chests.parent, "--size", "32")}
    for recipe, backbone in NETWORKS.items():
        run = f"outputs/runs/{recipe}"
        commands |= {
            recipe: ("train", "chest_xray", "--recipe", recipe, *SMALL, backbone, "-n", recipe),
            f"{recipe} evaluated": ("evaluate", run),
            f"{recipe} packaged": ("package", run),
        }
    return Walk(folder, {name: succeeded(medic(*arguments, cwd=folder)) for name, arguments in commands.items()})


def settings_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["settings"]


def predicted(model: Path, chests: Path, to: Path) -> tuple[pd.DataFrame, list[str]]:
    """What ``medic predict`` writes of all radiographs: those that could be read, and the columns of the file."""
    succeeded(medic("predict", chests / "images.zip", "-m", model, "--to", to, cwd=to.parent))
    with open(to) as file:
        columns = file.readline().strip().split(",")
    table = result(to)
    assert table["error"].notna().sum() == 1, "one planted file is cut off"
    return table[table["error"].isna()], columns


def thresholds_in(model: Path) -> list[float]:
    """A model's operating point, from its checkpoint or its bundle."""
    if (model / "best").is_dir():
        return json.loads((model / "best" / "model.json").read_text())["thresholds"]
    return json.loads((model / "manifest.json").read_text())["model"]["thresholds"]


@pytest.mark.parametrize("model", ["runs/chexnet", "bundles/chest_xray"])
def test_findings_are_predicted_as_the_operating_point_decides(model, radiographs, chests, tmp_path):
    where = radiographs.folder / "outputs" / model
    table, columns = predicted(where, chests, tmp_path / "result.csv")
    assert columns == ["image", *FINDINGS, *(f"p_{name}" for name in FINDINGS), "p_none", "error"]
    p, decided = (table[names].to_numpy() for names in ([f"p_{name}" for name in FINDINGS], list(FINDINGS)))
    thresholds = np.array(thresholds_in(where))
    clear = np.abs(p - thresholds) > 1e-6  # the file has six decimals
    assert np.array_equal(decided[clear] == 1, (p >= thresholds)[clear])
    assert not np.array_equal(decided == 1, p >= 0.5)
    assert table["p_none"].to_numpy() == pytest.approx(np.prod(1 - p, axis=1), abs=1e-5)


@pytest.mark.parametrize("model", ["runs/binary", "bundles/chest_xray_binary"])
def test_any_finding_is_predicted_as_the_operating_point_decides(model, radiographs, chests, tmp_path):
    where = radiographs.folder / "outputs" / model
    table, columns = predicted(where, chests, tmp_path / "result.csv")
    assert columns == ["image", "label", "class", "p_No Finding", "p_Finding", "error"]
    (threshold,) = thresholds_in(where)
    clear = (table["p_Finding"] - threshold).abs() > 1e-6
    assert (table["label"] == (table["p_Finding"] >= threshold))[clear].all()
    assert (table["class"] == table["label"].map(dict(enumerate(CHEST_XRAY_BINARY.classes)))).all()
    assert np.allclose(table[["p_No Finding", "p_Finding"]].sum(axis=1), 1, atol=1e-5)


def test_the_recipes_for_radiographs_weigh_the_loss_and_find_the_stated_share(radiographs):
    runs = radiographs.folder / "outputs" / "runs"
    findings, any_finding = (settings_of(runs / name) for name in ("chexnet", "binary"))
    assert (findings["recipe"]["sensitivity"], any_finding["recipe"]["sensitivity"]) == (0.8, 0.9)
    assert findings["model"]["objective"]["prevalence"]
    assert any_finding["model"]["objective"]["class_weights"]
    assert "sensitivity 0.8: from" in radiographs.printed["chexnet"]
    for name in ("mean auroc", "mean average precision", "macro f1"):
        assert f"  {name} " in radiographs.printed["chexnet evaluated"]
    for name in ("auroc", "sensitivity", "specificity"):
        assert f"  {name} " in radiographs.printed["binary evaluated"]


def test_the_sensitivity_of_a_recipe_can_be_changed(radiographs, tmp_path):
    arguments = ("train", "chest_xray_binary", *SMALL, "resnet18", "-s", tmp_path, "-n")
    shown = succeeded(medic(*arguments, "careful", "--sensitivity", "1", cwd=radiographs.folder))
    assert "operating point of the best model, sensitivity 1: from" in shown
    assert settings_of(tmp_path / "careful")["recipe"]["sensitivity"] == 1
    (usual,) = thresholds_in(radiographs.folder / "outputs" / "runs" / "binary")
    assert thresholds_in(tmp_path / "careful")[0] < usual, "to find more, less is enough"
    for odd in ("0", "1.5"):
        said = failed(medic(*arguments, "odd", "--sensitivity", odd, cwd=radiographs.folder))
        assert "a share above 0 and up to 1" in said
    assert not (tmp_path / "odd").exists()


def test_a_bundle_of_findings_scores_by_itself_what_predict_says(radiographs, chests, tmp_path):
    bundle = radiographs.folder / "outputs" / "bundles" / "chest_xray"
    with zipfile.ZipFile(chests / "images.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith(".png"))
        (tmp_path / "chest.png").write_bytes(archive.read(name))
    score = [sys.executable, bundle / "score.py", tmp_path / "chest.png"]
    answer = json.loads(subprocess.run(score, capture_output=True, text=True, check=True).stdout)
    row = predicted(bundle, chests, tmp_path / "result.csv")[0].loc[name]
    assert answer["classes"] == [finding for finding in FINDINGS if row[finding] == 1]
    assert list(answer["probabilities"].values()) == pytest.approx(
        row[[f"p_{f}" for f in FINDINGS]].to_list(), abs=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "chest_xray", "--recipe", "published"), "no recipe 'published' for 'chest_xray'"),
        (("train", "chest_xray_binary", "--recipe", "chexnet"), "no recipe 'chexnet' for 'chest_xray_binary'"),
        (("train", "retinopathy"), "was prepared with"),
    ],
)
def test_a_recipe_or_a_set_of_another_line_is_refused(arguments, said, radiographs, tmp_path):
    assert said in failed(medic(*arguments, "-s", tmp_path, "-n", "run", cwd=radiographs.folder))
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_lists_those_there_are(radiographs):
    ended = medic("train", "chest_xray", "--recipe", "best", cwd=radiographs.folder)
    assert ended.status == 2
    assert "'best' is not one of 'medic', 'published', 'chexnet', 'binary'" in ended.err


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The first digits of the sample, from the IDX files to the bundle; not to be changed."""
    from medic.data.stores import idx

    folder = tmp_path_factory.mktemp("digits")
    succeeded(medic("sample", "digits", "--set", "digits", cwd=folder))
    for path in (folder / "digits").glob("*.gz"):
        idx.write(path, idx.read(path)[:200])
    commands = [
        ("prepare", "digits", "--data", ".", "--size", "28"),
        ("train", "digits", *SMALL, "squeezenet1_1"),
        ("evaluate",),
    ]
    return Walk(folder, {one[0]: succeeded(medic(*one, cwd=folder)) for one in (*commands, ("package",))})


def test_digits_go_from_idx_files_to_a_bundle_that_reads_them(digits, tmp_path):
    assert "400 images prepared at 28 px" in digits.printed["prepare"]
    assert re.search(r"accuracy +\d\.\d{3} ", digits.printed["evaluate"])
    bundle = digits.folder / "outputs" / "bundles" / "digits"
    succeeded(medic("predict", bundle / "golden", "-m", bundle, "--to", tmp_path / "result.csv", cwd=tmp_path))
    table = pd.read_csv(tmp_path / "result.csv")
    columns = [f"p_{name}" for name in DIGITS.classes]
    assert list(table) == ["image", "label", "class", *columns, "set", "refer", "why", "calibration", "error"]
    assert (table["label"] == table[columns].to_numpy().argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sensitivity", "0.8"), "'digits' chooses among several classes and has no sensitivity"),
        (("--recipe", "chexnet"), "no recipe 'chexnet' for 'digits'"),
    ],
)
def test_what_does_not_suit_digits_is_refused_before_anything_is_learned(options, said, digits, tmp_path):
    arguments = ("train", "digits", *SMALL, "squeezenet1_1", "-s", tmp_path)
    assert said in failed(medic(*arguments, *options, cwd=digits.folder))
    assert list(tmp_path.iterdir()) == []


# Deployments


@pytest.mark.servers
def test_a_deployment_outlives_its_command_answers_and_is_deleted(line, pictures):
    import httpx

    bundle = line.folder / "outputs" / "bundles" / "retinopathy.tar.gz"
    succeeded(medic("predict", "-m", line.run, cwd=pictures))
    expected = result(pictures / "results" / "result.csv")
    with started("deploy", bundle, "--space", "demo", "--name", "eyes", cwd=pictures) as process:
        shown, said = (text.decode() for text in process.communicate(timeout=120))
    try:
        assert process.returncode == 0, said
        assert "deployment eyes of bundle" in shown
        url = re.search(r"http://127\.0\.0\.1:\d+", shown)[0]
        listed = succeeded(medic("deployments", "--space", "demo", cwd=pictures))
        assert url in listed
        assert "ready" in listed
        for name, row in expected.iterrows():
            data = (pictures / "results" / "images" / name).read_bytes()
            answer = httpx.post(f"{url}/predict", content=data, headers={"Content-Type": "image/jpeg"}, trust_env=False)
            assert answer.status_code == 200, answer.text
            probabilities = answer.json()["probabilities"]
            for column in PROBABILITIES:
                assert probabilities[column.removeprefix("p_")] == pytest.approx(row[column], abs=1e-4)
            assert answer.json()["grade"] == row["grade"]
        assert succeeded(medic("status", "eyes", "--space", "demo", cwd=pictures)).strip() == "ready"
        images = [pictures / "results" / "images" / name for name in expected.index]
        (pictures / "note.jpeg").write_text("no photograph")
        asked = medic("score", url, *images, pictures / "note.jpeg", "--json", cwd=pictures)
        assert f"1 of {len(images) + 1} images were not answered" in failed(asked)
        scored = [json.loads(line) for line in asked.out.splitlines()]
        assert [row.get("grade") for row in scored[:-1]] == expected["grade"].tolist()
        assert "no image that is read" in scored[-1]["error"]
        by_name = succeeded(medic("score", "eyes", images[0], "--space", "demo", cwd=pictures))
        assert images[0].name in by_name
        again = succeeded(medic("deploy", bundle, "--space", "demo", "--name", "eyes", cwd=pictures))
        assert url in again, "the new version took over where the old one was"
    finally:
        ended = medic("delete", "eyes", "--space", "demo", cwd=pictures)
    assert "deployment eyes deleted" in succeeded(ended)
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)
    assert "no deployment" in succeeded(medic("deployments", "--space", "demo", cwd=pictures))
    assert "no deployment 'eyes'" in failed(medic("delete", "eyes", "--space", "demo", cwd=pictures))


@pytest.mark.servers
@pytest.mark.parametrize("command", ["deploy", "serve"])
def test_a_port_in_use_is_one_sentence_and_leaves_nothing(command, line, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        bundle = line.folder / "outputs" / "bundles" / "retinopathy"
        said = failed(medic(command, bundle, "--port", port, cwd=tmp_path))
    assert f"port {port} on 127.0.0.1 cannot be used ([Errno 98] Address already in use)" in said
    assert "no deployment" in succeeded(medic("deployments", cwd=tmp_path))


@pytest.mark.servers
def test_serve_answers_until_ctrl_c(line, tmp_path, good):
    import httpx

    bundle = line.folder / "outputs" / "bundles" / "retinopathy"
    with started("serve", bundle, "--port", "0", cwd=tmp_path) as process:
        first = process.stdout.readline().decode()
        assert first.startswith("serving retinopathy")
        answer = httpx.post(f"{first.split()[-1]}/predict", content=good[0].read_bytes(), trust_env=False)
        process.send_signal(signal.SIGINT)
        shown, said = (text.decode() for text in process.communicate(timeout=30))
    assert answer.json()["task"] == "retinopathy"
    assert "Not a medical device" in shown
    assert process.returncode in (0, 130)
    assert "Traceback" not in said


def test_other_machines_are_not_let_in(line, tmp_path):
    bundle = line.folder / "outputs" / "bundles" / "retinopathy"
    assert "127.0.0.1" in failed(medic("serve", bundle, "--host", "0.0.0.0", cwd=tmp_path))


# Data that has to be fetched or made


def test_a_set_behind_a_login_prints_the_steps(tmp_path):
    ended = medic("download", "eyepacs", "--folder", "data", cwd=tmp_path)
    assert ended.status == 1
    assert "needs a Kaggle account" in ended.err
    assert re.search(r"^  1\. ", ended.err, re.MULTILINE)
    assert "Traceback" not in ended.err
    assert not (tmp_path / "data" / "retinopathy").exists()


def test_an_unknown_set_lists_those_there_are(tmp_path):
    said = failed(medic("download", "eyes", cwd=tmp_path))
    assert "retinamnist" in said
    assert "eyepacs" in said


def test_sample_writes_a_set_that_describe_reads(tmp_path):
    shown = succeeded(medic("sample", "made/retinopathy", "--patients", "40", cwd=tmp_path))
    assert "80 synthetic images of 40 made-up patients" in shown
    assert described(tmp_path, "--data", "made")["absent_images"] == 0


def test_sample_leaves_a_foreign_folder_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "thesis.txt" in failed(medic("sample", "mine", cwd=tmp_path))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert "at least 40" in failed(medic("sample", "few", "--patients", "3", cwd=tmp_path))
    assert not (tmp_path / "few").exists()


# Run


def test_run_outside_a_clone_or_with_an_unknown_profile_is_one_sentence(tmp_path, repository):
    failed(medic("run", cwd=tmp_path))
    assert "enormous" in failed(medic("run", "--profile", "enormous", "--outputs", tmp_path / "o", cwd=repository))
    assert "99_nothing" in failed(medic("run", "--only", "99_nothing", "--outputs", tmp_path / "o", cwd=repository))


def test_the_installed_program_is_this_command_line():
    program = Path(sys.executable).parent / "medic"
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Usage: medic" in shown
    assert all(re.search(rf"^  {command} ", shown, re.MULTILINE) for command in COMMANDS)


@pytest.mark.real_data
def test_real_radiographs_go_from_their_zip_file_to_a_table_of_findings(real_data, tmp_path):
    """All 91 at 1024 pixels, never unpacked; what a network of one epoch says is another matter."""
    said = succeeded(medic("prepare", "chest_xray", "--data", real_data, "--size", "64", cwd=tmp_path))
    assert "91 images prepared at 64 px" in said
    weights = ("--recipe", "chexnet", *SMALL, "squeezenet1_1")
    succeeded(medic("train", "chest_xray", *weights, "-n", "real", cwd=tmp_path))
    (archive,) = (real_data / "chest_xray").glob("*.zip")
    succeeded(medic("predict", archive, "-m", "outputs/runs/real", "--to", tmp_path / "result.csv", cwd=tmp_path))
    table = result(tmp_path / "result.csv")
    assert len(table) == 91
    assert table["error"].isna().all()
    assert table[list(FINDINGS)].isin([0, 1]).all(axis=None)
