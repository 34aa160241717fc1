"""A model over the images of a store, what cannot be read included."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.predict import MeanOverFlips, predict
from medic.task import RETINOPATHY


@pytest.fixture(autouse=True)
def _in_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    settings = {"preprocessing": Preprocessing(size=96), "image_size": 64}
    return Classifier(RETINOPATHY, "shufflenet_v2_x0_5", **settings).eval()


@pytest.fixture(scope="module")
def good(tiny) -> list[str]:
    faulty = set(pd.read_csv(tiny / "planted_faults.csv")["image"])
    names = [name for name in open_store(tiny).names() if name.endswith(".jpeg")]
    return [name for name in names if name.removeprefix("images/").removesuffix(".jpeg") not in faulty][:13]


@pytest.mark.parametrize("size", [1, 5, 64])
def test_every_image_is_answered_in_the_order_of_the_names_whatever_the_batch(size, model, tiny, good):
    store, names = open_store(tiny), good[::-1]
    predicted = predict(model, store, names, batch_size=size)
    assert predicted.names == names
    for name, row in zip(names, predicted.prediction.probabilities, strict=True):
        alone = model.predict_pixels(model.preprocessing.pixels(store.read(name))[None])
        assert np.allclose(row, alone.probabilities[0], atol=1e-5)
    table = predicted.to_frame()
    assert (table["error"] == "").all()
    assert table["grade"].between(0, 4).all()


def test_test_time_augmentation_is_the_mean_over_the_image_and_its_flips(model, tiny, good):
    store = open_store(tiny)
    pixels = np.stack([model.preprocessing.pixels(store.read(name)) for name in good])
    said = predict(MeanOverFlips(model, ("horizontal", "vertical")), store, good).prediction
    views = [model.predict_pixels(view.copy()) for view in (pixels, pixels[:, :, ::-1], pixels[:, ::-1])]
    assert np.allclose(said.probabilities, np.mean([view.probabilities for view in views], axis=0), atol=1e-5)
    assert np.allclose(said.grade, np.mean([view.grade for view in views], axis=0), atol=1e-5)
    with pytest.raises(MedicError, match="name one or more of horizontal, vertical"):
        MeanOverFlips(model, ("diagonal",))


@pytest.fixture
def mixed(tiny, good, tmp_path) -> tuple[Path, dict[str, str]]:
    """A folder of good images with bad ones between them, and the reason for each of these."""
    data = (tiny / good[0]).read_bytes()
    bad = {
        "b_text.jpeg": (b"no photograph", "unsupported"),
        "c_cut.jpeg": (data[: len(data) // 2], "truncated"),
        "e_empty.png": (b"", "empty"),
    }
    for name in ("a.jpeg", "d.jpeg", "f.jpeg"):
        shutil.copy(tiny / good["adf".index(name[0])], tmp_path / name)
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "g_link.jpeg").symlink_to(tmp_path / "nowhere.jpeg")
    reasons = {name: reason for name, (_, reason) in bad.items()}
    return tmp_path, reasons | {"g_link.jpeg": "unreadable", "h_absent.jpeg": "unreadable"}


def test_bad_images_have_a_row_with_their_reason_and_the_others_keep_their_order(model, mixed):
    folder, reasons = mixed
    names = sorted([*reasons, "a.jpeg", "d.jpeg", "f.jpeg"])
    predicted = predict(model, open_store(folder), names, batch_size=2)
    assert predicted.names == ["a.jpeg", "d.jpeg", "f.jpeg"]
    assert predicted.failed.set_index("image")["reason"].to_dict() == reasons
    assert predicted.failed["detail"].str.len().min() > 5
    table = predicted.to_frame()
    assert list(table["image"]) == names
    bad = table["image"].isin(list(reasons))
    assert (table["error"][~bad] == "").all()
    assert (table["error"][bad].str.partition(": ")[0] == table["image"][bad].map(reasons)).all()
    assert table["grade"][bad].isna().all()
    assert table["grade"].dtype == "Int64", "a whole number stays one beside missing ones"


def test_without_one_good_image_it_is_an_error_with_the_first_reason(model, mixed):
    folder, reasons = mixed
    with pytest.raises(MedicError, match=r"not one of 5 images .* could be read; the first: b_text\.jpeg"):
        predict(model, open_store(folder), sorted(reasons))
    with pytest.raises(MedicError, match="not one of 0 images"):
        predict(model, open_store(folder), [])
