"""The digits that the repository holds are scikit-learn's, in MNIST's files."""

from pathlib import Path

import numpy as np
import pytest

from medic.data.stores import idx
from medic.errors import MedicError
from medic.sample.digits import write_sample

COMMITTED = Path(__file__).parents[3] / "sample_data" / "digits"


def test_the_committed_digits_are_what_is_written(tmp_path):
    write_sample(tmp_path)
    write_sample(tmp_path)  # an earlier sample is replaced
    names = {path.name for path in COMMITTED.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names - {"SOURCES.md"}:
        assert np.array_equal(idx.read(tmp_path / name), idx.read(COMMITTED / name))
    assert (tmp_path / "SOURCES.md").read_bytes() == (COMMITTED / "SOURCES.md").read_bytes()


def test_a_folder_of_mnist_is_left_alone(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"MNIST")
    with pytest.raises(MedicError, match="is of no sample"):
        write_sample(tmp_path)
    assert (tmp_path / "train-labels-idx1-ubyte.gz").read_bytes() == b"MNIST"
