"""The digits that the repository holds are scikit-learn's, in MNIST's files."""

from pathlib import Path

import numpy as np
import pytest

from medic.data.stores import idx
from medic.errors import MedicError
from medic.sample.digits import write_sample


def test_the_committed_digits_are_what_is_written_over_an_earlier_sample_but_never_over_mnist(tmp_path):
    write_sample(tmp_path)
    write_sample(tmp_path)
    for committed in (Path(__file__).parents[3] / "sample_data" / "digits").iterdir():
        read = Path.read_bytes if committed.suffix == ".md" else idx.read
        assert np.array_equal(read(tmp_path / committed.name), read(committed))
    (tmp_path / "SOURCES.md").unlink()
    with pytest.raises(MedicError, match="is of no sample"):
        write_sample(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
