"""The figures of a data set draw what its tables say."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from medic import plots
from medic.data.explore import co_occurrence
from medic.data.images.preprocess import Preprocessing
from medic.data.stores import FolderStore
from medic.plots import data as data_plots
from medic.plots.data import label_distribution
from medic.sample.chest.files import png
from medic.task import RETINOPATHY, Task

ANIMALS = Task("animals", "multilabel", ("cat", "dog", "owl"))


@pytest.fixture(autouse=True)
def drawn():
    """No window, the style of the series, and nothing left open."""
    with mpl.rc_context():
        mpl.use("Agg")
        plots.use_style()
        yield
        plt.close("all")


@pytest.fixture
def records() -> pd.DataFrame:
    """Six images of four patients: three have a cat, two of them a dog too, one an owl; three from the front."""
    return pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": list("112344"),
            "follow_up": [1, 0, 0, 0, 0, 1],
            "age": pd.array([41, 40, 95, pd.NA, 8, 9], dtype="Int64"),
            "sex": ["F", "F", "M", "M", "F", "F"],
            "view": pd.array(["PA", "PA", "AP", "AP", "PA", pd.NA], dtype="string"),
            "split": ["train"] * 4 + ["test"] * 2,
            "cat": [1, 1, 1, 0, 0, 0],
            "dog": [1, 1, 0, 0, 0, 0],
            "owl": [0, 0, 0, 1, 0, 0],
            "label": [1, 1, 1, 1, 0, 0],
        }
    )


def texts(axes: plt.Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_figure_of_co_occurrence_has_the_counts_and_the_share_of_the_row(records):
    figure = data_plots.co_occurrence(co_occurrence(records, ANIMALS))
    axes = figure.axes[0]
    assert ticks(axes.yaxis) == ticks(axes.xaxis) == ["cat", "dog", "owl"]
    found = texts(axes)
    assert [found[place, place] for place in range(3)] == ["3", "2", "1"]
    assert found[1, 0] == found[0, 1] == "2"
    assert found[2, 0] == ""  # no cat with an owl
    share = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    assert share[0, 1] == pytest.approx(2 / 3)  # of the cats' images, those with a dog
    assert share[1, 0] == 1
    assert np.isnan(np.diag(share)).all()


def test_a_single_class_can_be_drawn(records):
    one = records.assign(dog=0, owl=0)
    figure = data_plots.co_occurrence(co_occurrence(one, ANIMALS))
    assert texts(figure.axes[0]) == {(0, 0): "3"}
    figure.canvas.draw()


def test_each_patient_counts_once_at_the_age_of_the_first_image(records):
    people = data_plots.people_and_views(records, ANIMALS).axes[0]
    labels = [text.get_text() for text in people.get_legend().get_texts()]
    assert labels == ["F (2 patients)", "M (1 patients)"]
    women, men = ([bar.get_height() for bar in bars] for bars in people.containers)
    assert [place for place, count in enumerate(women) if count] == [0, 4]  # 8 years, and 40, not 41
    assert [place for place, count in enumerate(men) if count] == [9]  # 95; the other has no age


def test_the_share_of_each_class_is_that_of_the_images_of_a_view(records):
    views = data_plots.people_and_views(records, ANIMALS).axes[1]
    names = ticks(views.yaxis)
    assert names[-1] == "any finding"
    points = {line.get_label(): dict(zip(names, line.get_xdata(), strict=True)) for line in views.lines}
    assert points["AP (2 images)"] == {"cat": 0.5, "dog": 0, "owl": 0.5, "any finding": 1}
    assert points["PA (3 images)"] == pytest.approx({"cat": 2 / 3, "dog": 2 / 3, "owl": 0, "any finding": 2 / 3})


def test_a_set_that_knows_nobody_can_be_drawn(records):
    unknown = records.assign(age=pd.array([pd.NA] * 6, dtype="Int64"), sex=None, view=None)
    figure = data_plots.people_and_views(unknown, ANIMALS)
    figure.canvas.draw()
    assert not figure.axes[1].lines


def test_a_measure_is_drawn_by_class_with_its_rank_correlation():
    measures = pd.DataFrame({"label": [0, 0, 1, 1, 3, 3], "sharpness": [1.0, 1, 2, 2, 9, 9], "red": 5.0})
    figure = data_plots.measures_by_class(measures, {"sharpness": "variance"}, "grade")
    (panel,) = figure.axes
    assert panel.get_title("left") == "rank correlation with the grade +1.00"
    assert panel.get_ylabel() == "sharpness (variance)"
    assert ticks(panel.xaxis) == ["0", "1", "3"]


def test_a_preview_shows_the_pixels_that_a_network_would_get(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(np.full((32, 32), 40 * number, np.uint8)))
    records = pd.DataFrame({"image": ["2.png", "0.png"]})
    grey = Preprocessing(size=16, crop="square", grey=True)
    names = pd.Series(["bright", "black"], index=[7, 3])
    figure = data_plots.preview(records, FolderStore(tmp_path), grey, names, columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["bright", "black"]
    assert [axes.images[0].get_array().max() for axes in figure.axes] == [80, 0]


def test_what_is_presented_is_titled_saved_and_closed(tmp_path):
    class Session:
        synthetic = True
        images = tmp_path

    figure, _ = plt.subplots()
    plots.present(figure, "Nothing here", "nothing", Session())
    assert figure.get_suptitle() == "Nothing here (synthetic sample)"
    assert (tmp_path / "nothing.png").is_file()
    assert not plt.get_fignums()


def test_findings_stand_by_frequency_with_those_that_have_none(records):
    axes = label_distribution(records, ANIMALS).axes[0]
    assert ticks(axes.xaxis) == ["cat", "dog", "No Finding", "owl"]
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert heights == {"train": [3, 2, 0, 1], "test": [0, 0, 2, 0]}


def test_grades_keep_their_order_and_their_codes(records):
    axes = label_distribution(records, RETINOPATHY).axes[0]
    assert ticks(axes.xaxis)[:2] == ["0 No DR", "1 Mild"]
    assert axes.get_xlabel() == "grade"


def test_long_names_lie(records):
    names = ("a cat that looks out of a window", "a dog that sleeps on the kitchen floor", "an owl by night")
    long = records.rename(columns=dict(zip(ANIMALS.classes, names, strict=True)))
    axes = label_distribution(long, Task("animals", "multilabel", names)).axes[0]
    assert ticks(axes.yaxis)[0] == names[0]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [[3, 2, 0, 1], [0, 0, 2, 0]]
