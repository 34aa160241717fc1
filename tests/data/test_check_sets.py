"""The check of whole sets: the faults planted in the samples, and what real photographs are known to hold."""

import pandas as pd
import pytest

from medic.data.check import check, measure
from medic.data.readers import DATA_SETS

PLANTED = {  # faults by the finding that each must be
    "truncated": ["truncated"],
    "unsupported": ["not an image", "animated GIF"],
    "odd_channels": ["CMYK", "grey", "palette"],
    "odd_size": ["small"],
    "blurred": ["blurred"],
    "nearly_black": ["too dark", "nearly black"],
    "identical": ["duplicate"],
    "near_duplicate": ["near duplicate"],
}
CALLED = {fault: finding for finding, faults in PLANTED.items() for fault in faults}


@pytest.mark.parametrize("name", ["retinopathy", "skin_lesion"])
def test_each_fault_planted_in_a_sample_is_found_and_nothing_else(name, repository):
    folder = repository / "sample_data" / name
    records, store = DATA_SETS[name].read(folder)
    found = check(records, store, DATA_SETS[name].task(records))
    faults = pd.read_csv(folder / "planted_faults.csv", dtype=str)
    planted = {(row.image, CALLED[row.fault]) for row in faults.itertuples() if row.fault in CALLED}
    stems = found["image"].str.rpartition("/")[2].str.rpartition(".")[0]
    assert set(zip(stems, found["finding"], strict=True)) == planted
    twins = found[found["finding"] == "identical"]["detail"]
    assert twins.str.contains("labels differ").all()
    (blurred,) = found.loc[found["finding"] == "blurred", "image"]
    sharpness = measure(records, store).set_index("image")["sharpness"]
    assert sharpness[blurred] < sharpness.quantile(0.1)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("retinopathy", {"identical": 4, "blurred": 2}),
        ("skin_lesion", {"identical": 4}),
        ("chest_xray", {"rare_class": 11, "split_imbalance": 7, "odd_channels": 3}),
    ],
)
def test_real_photographs_hold_what_they_are_known_to_hold(name, counts, real_data):
    records, store = DATA_SETS[name].read(real_data / name)
    found = check(records, store, DATA_SETS[name].task(records))
    assert found["finding"].value_counts().to_dict() == counts
