"""What tests of data share: folders and zip files with images that are laid there by name."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

PNG = cv2.imencode(".png", np.full((4, 4), 9, np.uint8))[1].tobytes()


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """Lay images by name, and tables (``labels`` is ``labels.csv``) and other files by content, into a folder."""

    def make(*names: str, **contents: str | bytes) -> Path:
        place = tmp_path / "set"
        place.mkdir(exist_ok=True)
        files = {f"{name}.csv" if name.isidentifier() else name: content for name, content in contents.items()}
        for name, content in (dict.fromkeys(names, PNG) | files).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return place

    return make


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Pack images by name, and other files by content, into a zip file: ``set.zip``, or at ``to``."""

    def make(*names: str, to: str | Path = "set.zip", **contents: str | bytes) -> Path:
        with zipfile.ZipFile(tmp_path / to, "w") as archive:
            for name, content in (dict.fromkeys(names, PNG) | contents).items():
                archive.writestr(name, content)
        return tmp_path / to

    return make
