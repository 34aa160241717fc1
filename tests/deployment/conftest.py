"""What the deployment tests share: drawn discs, a small model that really tells them apart, its graph, its bundle."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle import About, Bundle, package
from medic.deployment.export import Exported, export
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import CrossEntropy, Regression
from medic.task import RETINOPATHY

SIZE = 96


def draw(grade: int, seed: int) -> bytes:
    """A JPEG of a disc on black with more bright spots the higher the grade; synthetic."""
    rng = np.random.default_rng(seed)
    photograph = np.zeros((150, 200, 3), np.uint8)
    cv2.circle(photograph, (100, 75), 65, (30, 70, 150 + int(rng.integers(-8, 9))), -1)
    for _ in range(8 * grade):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 55)
        spot = (int(100 + radius * np.cos(angle)), int(75 + radius * np.sin(angle)))
        cv2.circle(photograph, spot, 5, (120, 230, 240), -1)
    return cv2.imencode(".jpeg", photograph)[1].tobytes()


def teach(model: Classifier, pixels: np.ndarray, labels: np.ndarray) -> Classifier:
    """Fit the last layer by ridge regression on random features: in a second, a model with real decisions."""
    head = next(layer for layer in reversed(list(model.backbone.modules())) if isinstance(layer, torch.nn.Linear))
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.from_numpy(pixels)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        model.train()(images)
        model.eval()(images)
        features = torch.cat([seen[-1], torch.ones(len(images), 1)], dim=1).double()
        wanted = torch.from_numpy(labels).double()[:, None]
        if isinstance(model.objective, CrossEntropy):
            wanted = 6 * torch.nn.functional.one_hot(torch.from_numpy(labels), len(model.task.classes)).double()
        kernel = features @ features.T + 10 * torch.eye(len(images), dtype=torch.float64)
        solution = features.T @ torch.linalg.solve(kernel, wanted)
        head.weight.copy_(solution[:-1].T)
        head.bias.copy_(solution[-1])
    hook.remove()
    return model


def build(
    backbone: str,
    objective: CrossEntropy | Regression,
    pixels: np.ndarray,
    labels: np.ndarray,
    weights: str | None = None,
) -> Classifier:
    torch.manual_seed(3)
    model = Classifier(RETINOPATHY, backbone, objective, Preprocessing(size=SIZE), image_size=64, weights=weights)
    return teach(model, pixels, labels)


@pytest.fixture(scope="session")
def taught() -> Callable[..., Classifier]:
    """Makes a model: backbone, objective, pixels and labels to teach it."""
    return build


@pytest.fixture(scope="session")
def photographs() -> list[bytes]:
    """Eighty JPEGs, sixteen of each grade."""
    return [draw(number % 5, number) for number in range(80)]


@pytest.fixture(scope="session")
def labels() -> np.ndarray:
    return np.arange(80) % 5


@pytest.fixture(scope="session")
def pixels(photographs: list[bytes]) -> np.ndarray:
    return np.stack([Preprocessing(size=SIZE).pixels(data) for data in photographs])


@pytest.fixture(scope="session")
def classifier(pixels: np.ndarray, labels: np.ndarray) -> Classifier:
    """Taught on the first forty; decides well, and differently from image to image."""
    return build("shufflenet_v2_x1_0", Regression(), pixels[:40], labels[:40])


@pytest.fixture(scope="session")
def exported(classifier: Classifier, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(classifier, tmp_path_factory.mktemp("graphs") / "model.onnx", pixels[:4])


@pytest.fixture(scope="session")
def about() -> About:
    figures = {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9, "baseline": 0.2}}
    matrix = [[2, 1, 0, 0, 0], *[[0] * 5] * 4]
    return About("Drawn discs.", True, {"title": "tests", "figures": figures, "confusion_matrix": matrix})


@pytest.fixture(scope="session")
def bundle(
    classifier: Classifier,
    exported: Exported,
    photographs: list[bytes],
    about: About,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    golden = [(f"{number}_left.jpeg", photographs[number]) for number in range(5)]
    return package(exported.path, tmp_path_factory.mktemp("bundles") / "discs", golden, about)


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle's folder that a test may harm."""
    return shutil.copytree(bundle.folder, tmp_path / "copied")


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[SimpleNamespace]]:
    """Start a service for a bundle with options of its command line: its url, grpc address, process and log."""

    @contextmanager
    def start(bundle: Bundle, *options: object) -> Iterator[SimpleNamespace]:
        log = tmp_path_factory.mktemp("service") / "log"
        command = [sys.executable, "-m", "medic.cli", "serve", bundle.folder, "--port", "0", *options]
        with log.open("wb") as file:
            process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=file, text=True)
        try:
            found = re.search(r"at (https?://\S+?)(?:, gRPC at (\S+))?$", process.stdout.readline())
            assert found, log.read_text()[-2000:]
            yield SimpleNamespace(url=found[1], grpc=found[2], process=process, log=log)
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()

    return start
