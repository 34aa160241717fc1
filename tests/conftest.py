"""What all tests share: the repository, the sample, real photographs, pixels and notebooks made on the spot."""

import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

# Two workers with as many threads as cores each are slower than two with their share. This must come before NumPy and
# torch are imported, and kernels and servers that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if os.environ.get("PYTEST_XDIST_WORKER"):
    share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(share))

import cv2
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def pytest_runtest_setup() -> None:
    """Let no test rest on the random numbers that the tests before it have left."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def sample() -> Path:
    """The embedded, synthetic retinopathy set."""
    return ROOT / "sample_data" / "retinopathy"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real photographs; tests that use it are marked ``real_data``."""
    folder = Path(os.environ.get("MEDIC_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "retinopathy").is_dir():
        pytest.skip(
            "the real photographs are not here: no retinopathy/ in ../shared/data, and MEDIC_REAL_DATA names no folder"
        )
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program. Tests in a browser fail without it: skipped, nobody would notice."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("the browser tests need Chromium; as root: apt-get install -y chromium", pytrace=False)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str):
    """For one file of tests and no longer: while it is there an event loop runs, which other tests must not find."""
    from playwright.sync_api import expect, sync_playwright

    # Other tests run at the same time, and a machine with two cores is busy then.
    expect.set_options(timeout=60_000)
    # A browser of its own accord asks its maker for updates, lists and translations.
    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-pings"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *quiet])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what the tests saw are kept, to be looked at."""
    folder = ROOT / "outputs" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def write_notebook() -> Callable[..., Path]:
    """Write a small notebook with a title, parameters, imports, `begin` and ``work``, its further code cells."""

    def write(path: Path, *work: str) -> Path:
        parameters = new_code_cell(
            'PROFILE = "quick"\nDATA = "sample_data"\nEPOCHS = 1', metadata={"tags": ["parameters"]}
        )
        opening = ("from medic.notebooks.session import begin, record", "session = begin(PROFILE, DATA, seed=1)")
        cells = [new_markdown_cell("# Grade a photograph\n\nFrom one `JPEG` to one **grade**."), parameters]
        cells += map(new_code_cell, (*opening, *(work or ('record("epochs", EPOCHS)',))))
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """An empty clone, in a path with spaces and braces: enough for notebooks to find their root and data."""
    root = tmp_path / "a clone {with} spaces"
    (root / "code" / "medic").mkdir(parents=True)
    (root / "sample_data" / "retinopathy").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated retinopathy set of 40 patients in small photographs; not to be changed."""
    from medic.sample import SAMPLES

    folder = tmp_path_factory.mktemp("tiny") / "retinopathy"
    SAMPLES["retinopathy"].write(folder, patients=40, seed=11, size=256)
    return folder


@pytest.fixture(scope="session")
def tiny_prepared(tiny: Path, tmp_path_factory: pytest.TempPathFactory):
    """The prepared set of ``tiny`` at 96 pixels, with the splits train, validation and test; not to be changed."""
    from medic.data.images.preprocess import Preprocessing
    from medic.data.prepare import prepare
    from medic.data.readers import retinopathy
    from medic.data.split import split_by_patient

    records, store = retinopathy.read(tiny)
    folder = tmp_path_factory.mktemp("tiny-prepared") / "prepared"
    return prepare(split_by_patient(records, validation=0.25), store, folder, Preprocessing(size=96))


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set of radiographs of 120 patients, 64 pixels wide, in a data folder; not to be changed."""
    from medic.sample import SAMPLES

    folder = tmp_path_factory.mktemp("chests") / "chest_xray"
    SAMPLES["chest_xray"].write(folder, patients=120, seed=5, size=64)
    return folder


@pytest.fixture(scope="session")
def chest_prepared(chests: Path, tmp_path_factory: pytest.TempPathFactory):
    """The prepared set of ``chests`` at 48 pixels, in its own official split; not to be changed."""
    from dataclasses import replace

    from medic.data.prepare import prepare
    from medic.data.readers import DATA_SETS
    from medic.data.split import complete_splits
    from medic.task import CHEST_XRAY

    line = DATA_SETS["chest_xray"]
    records, store = line.read(chests)
    folder = tmp_path_factory.mktemp("chests-prepared") / "prepared"
    return prepare(complete_splits(records, task=CHEST_XRAY), store, folder, replace(line.preprocessing, size=48))


@pytest.fixture(scope="session")
def chest_runs(chest_prepared, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A finished run of each question that is put to radiographs, by its task's name; not to be changed."""
    import torch

    from medic.modeling.classifier import Classifier
    from medic.modeling.objectives import CrossEntropy, MultiLabel, weighted
    from medic.modeling.training.fit import fit
    from medic.modeling.training.recipe import Recipe
    from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE

    folder, records = tmp_path_factory.mktemp("chest runs"), chest_prepared.records
    asked = {
        CHEST_XRAY: (weighted(MultiLabel(), records, CHEST_XRAY), 0.8),
        CHEST_XRAY_OR_NONE: (MultiLabel(), None),
        CHEST_XRAY_BINARY: (weighted(CrossEntropy(), records, CHEST_XRAY_BINARY), 0.9),
    }
    runs = {}
    for task, (objective, sensitivity) in asked.items():
        torch.manual_seed(1)
        model = Classifier(task, "resnet18", objective, chest_prepared.preprocessing, image_size=32)
        recipe = Recipe(epochs=2, batch_size=16, precision="32-true", sensitivity=sensitivity)
        runs[task.name] = fit(model, chest_prepared, folder / task.name, recipe)
    return runs


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small network with random weights, its bundle, and eight photographs of discs; not to be changed."""
    import torch

    from medic.data.images.preprocess import Preprocessing
    from medic.deployment.bundle import About, package
    from medic.deployment.export import export
    from medic.modeling.classifier import Classifier
    from medic.task import RETINOPATHY

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("discs")
    model = Classifier(RETINOPATHY, "resnet18", preprocessing=Preprocessing(size=64), image_size=64).eval()
    for number in range(8):
        disc = cv2.circle(np.zeros((100, 120, 3), np.uint8), (60, 50), 45 - number, (40, 80 + 9 * number, 160), -1)
        cv2.imwrite(str(folder / f"{number}.jpeg"), disc)
    photographs = sorted(folder.glob("*.jpeg"))
    export(model, folder / "model.onnx")
    model.save(folder / "checkpoint")
    golden = [("disc.jpeg", photographs[0].read_bytes())]
    bundle = package(folder / "model.onnx", folder / "bundle", golden, About("Drawn discs.", True))
    return SimpleNamespace(checkpoint=folder / "checkpoint", bundle=bundle, photographs=photographs)


@pytest.fixture(scope="session")
def smooth() -> Callable[..., np.ndarray]:
    """Smooth colours without a plain or dark area: uint8 (height, width, 3) RGB."""

    def draw(height: int = 300, width: int = 400) -> np.ndarray:
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        channels = [np.sin(5 * x + 2 * y), np.cos(4 * y - 3 * x), np.sin(7 * x * y + 1)]
        return (140 + 90 * np.stack(channels, axis=2)).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of every file below a folder, by its name there."""

    def read(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Pillow's encoding of pixels in a format and a colour mode, with its options."""

    def encoded(pixels: np.ndarray, format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, format, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def photograph() -> Callable[..., np.ndarray]:
    """A drawn retina: a shaded disc of given centre and radius on black, a little noise on all of it."""

    def draw(
        width: int, height: int, x: float, y: float, radius: float, colour: tuple = (190, 95, 40), noise: float = 2.0
    ) -> np.ndarray:
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        distance = np.hypot(columns - x, rows - y) / radius
        shade = (1 - 0.45 * distance**2 + 0.15 * np.cos(columns * 12 / radius) * np.sin(rows * 9 / radius)) * (
            distance < 1
        )
        pixels = shade[:, :, None] * np.array(colour)
        pixels += np.random.default_rng(5).normal(0, noise, pixels.shape)
        return pixels.clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder that nobody may write to; below a regular file, because permission bits do not bind root."""
    (tmp_path / "a file").write_text("no folder")
    if os.geteuid() == 0:
        return tmp_path / "a file" / "below it"
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder / "below it"


SLOWLY = """
import time
from medic.data.images.preprocess import Preprocessing

def dask_setup(worker, pixels=Preprocessing.pixels):
    Preprocessing.pixels = lambda self, data: (time.sleep(0.02), pixels(self, data))[1]
"""


@pytest.fixture
def cluster(tmp_path: Path):
    """A Dask cluster on loopback, of two worker processes that decode slowly enough to be killed half-way."""
    from distributed import LocalCluster

    (tmp_path / "slowly.py").write_text(SLOWLY)
    how = {"preload": [str(tmp_path / "slowly.py")], "local_directory": str(tmp_path), "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **how) as running:
        yield running


@pytest.fixture
def kill_a_worker(cluster) -> Callable[..., None]:
    """Run work to its end, and kill one of the cluster's workers as soon as ``partly`` says so."""

    def run(partly: Callable[[], bool], work: Callable, *arguments: object) -> None:
        how = {"scheduler": cluster.scheduler_address}
        running, deadline = threading.Thread(target=work, args=arguments, kwargs=how), time.monotonic() + 90
        running.start()
        while not partly():
            assert running.is_alive(), "it ended before a worker could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        running.join(timeout=90)

    return run
