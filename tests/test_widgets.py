"""The widgets without a browser: what they do on a page's messages, what is on disk after each, what they leave."""

import base64
import io
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_output
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score
from traitlets import TraitError, link

from medic.data.corrections import EXCLUDED, Corrections
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.notebooks.run import leave_pictures
from medic.task import CHEST_XRAY, RETINOPATHY, SKIN_LESION, Prediction, Task
from medic.widgets import LabelEditor, ResultsViewer, ThresholdExplorer
from standard import check_notebook

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LARGE, TINY, BROKEN, ABSENT = "lesion_00.png", "lesion_01.png", "lesion_02.png", "lesion_24.png"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """24 drawn images: the first large, the second of 28 x 28 pixels, the third no image at all."""
    folder = tmp_path_factory.mktemp("lesions")
    (folder / "SYNTHETIC.md").write_text("Drawn by a test.")
    for number in range(24):
        sides = {0: (900, 1200), 1: (28, 28)}.get(number, (48, 64))
        picture = np.full((*sides, 3), (120 + 4 * number, 140, 200), np.uint8)
        cv2.imwrite(str(folder / f"lesion_{number:02d}.png"), picture)
    (folder / BROKEN).write_bytes(b"no image")
    return open_store(folder)


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """25 rows, of which the last has no file; every third is malignant."""
    rows = [(f"lesion_{number:02d}.png", f"P{number // 2:02d}", "test", int(number % 3 == 0)) for number in range(25)]
    return pd.DataFrame(rows, columns=["image", "patient", "split", "label"])


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "corrections.csv"


@pytest.fixture
def editor(store, records, journal) -> LabelEditor:
    found = [(BROKEN, "unsupported", "no image"), ("lesion_05.png", "blurred", "3"), ("lesion_06.png", "blurred", "2")]
    findings = pd.DataFrame([*found, ("other.png", "unlisted", "no row")], columns=["image", "finding", "detail"])
    corrections = Corrections(journal, records, SKIN_LESION, who="tester")
    return LabelEditor(records, store, SKIN_LESION, corrections, findings)


@pytest.fixture(scope="module")
def evaluation(records) -> Evaluation:
    """Made-up scores of the skin lesions, with an operating point below one half."""
    random = np.random.default_rng(1)
    scores = random.normal(0.35 + 0.25 * records["label"], 0.2).clip(0.01, 0.99).round(2).astype(np.float32)
    prediction = Prediction(SKIN_LESION, np.stack([1 - scores, scores], axis=1), thresholds=(0.4,))
    return Evaluation("made up", prediction, records, majority=0, synthetic=True)


@pytest.fixture(scope="module")
def grades(records) -> Evaluation:
    random = np.random.default_rng(2)
    probabilities = random.dirichlet(np.ones(5), len(records)).astype(np.float32)
    prediction = Prediction(RETINOPATHY, probabilities, probabilities @ np.arange(5, dtype=np.float32))
    return Evaluation("grades", prediction, records.assign(label=random.integers(0, 5, len(records))), majority=0)


@pytest.fixture(scope="module")
def chest(records) -> Evaluation:
    random = np.random.default_rng(3)
    truth = (random.random((len(records), 14)) < 0.3).astype(int)
    truth[:, 13] = 0
    rows = records.assign(**dict(zip(CHEST_XRAY.classes, truth.T, strict=True)))
    scores = random.random((len(records), 14)).astype(np.float32)
    prediction = Prediction(CHEST_XRAY, scores, thresholds=tuple(np.linspace(0.2, 0.8, 14)))
    return Evaluation("chest", prediction, rows, majority=np.zeros(14, int))


def from_the_page(widget, *messages, **traits) -> list[tuple[dict, list[bytes]]]:
    """What a page's messages, or its change of traits, have the widget send back."""
    sent = []
    widget.send = lambda content, buffers=(): sent.append((content, list(buffers)))
    for message in messages:
        widget._handle_custom_msg(message, [])
    for name, value in traits.items():
        widget.set_state({name: value})
    return sent


def label(image: str, to: str) -> dict:
    return {"do": "label", "image": image, "to": to}


def changes(path: Path) -> list[tuple[str, str, str]]:
    return list(pd.read_csv(path)[["image", "from", "to"]].itertuples(index=False, name=None)) if path.exists() else []


def counts(widget, trait: str = "outcome") -> dict[str, int]:
    """The choices of a filter, with how many images each has."""
    offered = widget.state["outcomes"] if trait == "outcome" else widget.state["counts"][trait]
    return {name: count for name, *_, count in offered}


class TestTheLabelEditor:
    def test_it_pages_through_cards_and_shows_one_image_with_all_that_is_known(self, editor):
        state = editor.state
        assert [card["image"] for card in state["strip"]] == [f"lesion_{number:02d}.png" for number in range(10)]
        assert state["current"]["facts"] == [["patient", "P00"], ["split", "test"]]
        assert "synthetic" in state["title"]
        for asked, shown in ((10, "lesion_10.png"), (99, ABSENT), (-5, LARGE)):
            from_the_page(editor, position=asked)
            assert editor.state["current"]["image"] == shown

    exclude, undo = {"do": "exclude", "image": TINY}, {"do": "undo"}
    changed, left_out = (TINY, "benign", "malignant"), (TINY, "malignant", EXCLUDED)

    @pytest.mark.parametrize(
        ("messages", "written"),
        [
            ([label(TINY, "malignant")] * 2, [changed]),
            ([label(TINY, "malignant"), exclude], [changed, left_out]),
            ([label(TINY, "malignant"), exclude, exclude], [changed, left_out, (TINY, EXCLUDED, "malignant")]),
            ([label(TINY, "malignant"), exclude, undo], [changed]),
            ([label(TINY, "malignant"), undo, undo], []),
        ],
    )
    def test_a_change_is_on_disk_at_once_and_can_be_undone(self, editor, journal, messages, written):
        from_the_page(editor, *messages)
        assert changes(journal) == written
        last = written[-1][2] if written else "benign"
        assert counts(editor, "filter_suspicion")["corrected"] == (last == "malignant")
        assert counts(editor, "filter_suspicion")["excluded"] == (last == EXCLUDED)

    def test_filters_choose_by_label_and_by_suspicion(self, editor):
        for trait, value, shown in (
            ("filter_label", "malignant", [f"lesion_{number:02d}.png" for number in range(0, 25, 3)]),
            ("filter_suspicion", "finding:blurred", ["lesion_06.png"]),
            ("filter_label", "", ["lesion_05.png", "lesion_06.png"]),
            ("filter_suspicion", "any", [BROKEN, "lesion_05.png", "lesion_06.png"]),
            ("filter_suspicion", "excluded", []),
        ):
            from_the_page(editor, **{trait: value})
            assert editor.shown == shown
        assert editor.state["current"] is None
        assert counts(editor, "filter_label") == {"": 25, "benign": 16, "malignant": 9}

    @pytest.mark.parametrize(
        "message",
        [label("../secret.png", "benign"), label(TINY, "melanoma"), {"do": "exclude", "image": None}, {}, "label"],
    )
    def test_a_bad_message_is_refused_and_changes_nothing(self, editor, journal, message):
        assert from_the_page(editor, message) == []
        assert editor.state["error"]
        assert not journal.exists()
        from_the_page(editor, {"do": "exclude", "image": TINY})
        assert editor.state["error"] == ""

    def test_findings_of_a_multilabel_task_are_turned_on_and_off(self, store, journal, records):
        task = Task("two_findings", "multilabel", ("Mass", "Nodule"))
        several = records.assign(Mass=records["label"], Nodule=0)
        editor = LabelEditor(several, store, task, Corrections(journal, several, task))
        from_the_page(editor, label(LARGE, "Nodule"), label(LARGE, "Mass"), label(LARGE, "Nodule"))
        assert [after for _, _, after in changes(journal)] == ["Mass|Nodule", "Nodule", "(none)"]
        from_the_page(editor, filter_label="(none)")
        assert len(editor.shown) == 17
        from_the_page(editor, {"do": "exclude", "image": LARGE}, label(LARGE, "Mass"))
        assert "left out" in editor.state["error"]


def test_a_page_gets_small_copies_and_the_reasons_for_those_that_are_missing(editor):
    names = [LARGE, TINY, BROKEN, ABSENT, "/etc/hosts"]
    sent = from_the_page(editor, {"do": "images", "names": names, "size": "large"})
    assert [content.get("reason") for content, _ in sent] == [None, None, "unsupported", "unreadable", "unreadable"]
    assert [Image.open(io.BytesIO(data)).size for _, (data,) in sent[:2]] == [(800, 600), (28, 28)]
    ((_, (data,)),) = from_the_page(editor, {"do": "images", "names": [LARGE], "size": "thumbnail"})
    assert Image.open(io.BytesIO(data)).size == (128, 96)


class TestTheResultsViewer:
    def test_the_outcomes_are_the_confusion_matrix_at_the_explorers_threshold(self, evaluation, store):
        viewer, explorer = ResultsViewer(evaluation, store), ThresholdExplorer(evaluation)
        link((explorer, "threshold"), (viewer, "threshold"))
        for threshold in (0.4, 0.01, 0.6):
            from_the_page(explorer, threshold=threshold)
            (rejected, alarms), (missed, found) = confusion_matrix(
                evaluation.truth, evaluation.prediction.probabilities[:, 1] >= np.float32(threshold)
            ).tolist()
            named = {"true positive": found, "false positive": alarms, "false negative": missed}
            named |= {"true negative": rejected, "": 25, "right": found + rejected, "wrong": alarms + missed}
            assert counts(viewer) == {name: count for name, count in named.items() if count}
            assert explorer.confusion.tolist() == [[rejected, alarms], [missed, found]]
        from_the_page(viewer, outcome="false negative")
        assert all(card["truth"] == "malignant" and card["decided"] == "benign" for card in viewer.state["cards"])

    def test_images_are_sorted_paged_and_one_is_shown_large(self, evaluation, store):
        viewer = ResultsViewer(evaluation, store)
        sure = [card["confidence"] for card in viewer.state["cards"]]
        assert sure == sorted(sure)
        from_the_page(viewer, order="as listed", position=18, chosen="lesion_03.png")
        assert [card["image"] for card in viewer.state["cards"]] == list(evaluation.records["image"][18:])
        detail, expected = viewer.state["detail"], evaluation.prediction.probabilities[3].tolist()
        assert detail["bars"] == [("benign", expected[0], False), ("malignant", expected[1], True)]
        assert ["patient", "P01"] in detail["facts"]
        assert (detail["previous"], detail["next"]) == (BROKEN, "lesion_04.png")

    def test_among_several_classes_it_is_right_or_wrong_and_truth_and_decision(self, grades, store):
        found = counts(ResultsViewer(grades, store))
        right = int((grades.truth == grades.prediction.decided).sum())
        assert (found.pop(""), found.pop("right"), found.pop("wrong")) == (25, right, 25 - right)
        assert sum(count for name, count in found.items() if "→" in name) == 25 - right
        with pytest.raises(MedicError, match="use ResultsViewer"):
            ThresholdExplorer(grades)

    def test_each_finding_of_many_has_its_own_threshold(self, chest, store):
        viewer, explorer = ResultsViewer(chest, store), ThresholdExplorer(chest)
        assert "Hernia" not in explorer.state["findings"], "no image has it"
        for code, name in enumerate(CHEST_XRAY.classes[:13]):
            from_the_page(viewer, finding=name)
            from_the_page(explorer, finding=name)
            assert viewer.threshold == explorer.threshold == pytest.approx(chest.prediction.thresholds[code])
            assert explorer.confusion.tolist() == chest.confusion[code].tolist()
            assert counts(viewer)["right"] == np.trace(chest.confusion[code])


class TestTheThresholdExplorer:
    def test_the_page_is_sent_the_matrix_at_every_threshold(self, evaluation):
        explorer = ThresholdExplorer(evaluation)
        state, truth, scores = explorer.state, evaluation.truth, evaluation.prediction.probabilities[:, 1]
        assert (explorer.threshold, explorer.prevalence) == (pytest.approx(0.4), pytest.approx(9 / 25))
        assert state["scores"] == sorted(set(scores.astype(float)), reverse=True)
        for score, found, alarms in zip(state["scores"], state["found"], state["alarms"], strict=True):
            assert [alarms, found] == confusion_matrix(truth, scores >= score)[:, 1].tolist()
        assert state["auroc"] == pytest.approx(roc_auc_score(truth, scores))

    def test_a_set_without_both_kinds_is_refused(self, evaluation, records):
        only = evaluation.truth == 0
        rows, prediction = records[only].reset_index(drop=True), evaluation.prediction.rows(only)
        with pytest.raises(MedicError, match="both images with it and without"):
            ThresholdExplorer(Evaluation("benign only", prediction, rows, majority=0))


@pytest.fixture
def widgets(editor, evaluation, store) -> dict:
    return {"editor": editor, "viewer": ResultsViewer(evaluation, store), "explorer": ThresholdExplorer(evaluation)}


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("editor", {"filter_label": "melanoma"}),
        ("viewer", {"chosen": "../x.png"}),
        ("explorer", {"threshold": 1.5}),
    ],
)
def test_a_choice_that_there_is_not_is_refused(widgets, name, traits):
    with pytest.raises(TraitError):
        from_the_page(widgets[name], **traits)


class TestWhatReadersWithoutAKernelSee:
    @pytest.mark.parametrize(
        ("name", "message", "traits", "words"),
        [
            ("editor", [label(TINY, "malignant")], {}, "1 label corrected"),
            ("viewer", [], {"outcome": "wrong"}, "wrong, least sure first"),
            ("explorer", [], {"threshold": 0.0}, "9 of 9 images with it found, 16 of 16 without"),
        ],
    )
    def test_a_small_picture_shows_the_state_and_says_synthetic(self, widgets, name, message, traits, words):
        from_the_page(widgets[name], *message, **traits)
        bundle, _ = widgets[name]._repr_mimebundle_()
        [kind] = set(bundle) - {WIDGET_VIEW, "text/plain"}
        picture = Image.open(io.BytesIO(base64.b64decode(bundle[kind])))
        assert (kind, min(picture.size) > 150) == (picture.get_format_mimetype(), True)
        assert len(bundle[kind]) < 120_000
        figure = widgets[name].static()
        said = figure.get_suptitle().replace("\n", " ")
        assert words in said
        assert "(synthetic images)" in said
        plt.close(figure)

    def test_the_picture_takes_the_widgets_place_in_a_notebook(self, tmp_path, editor):
        bundle, _ = editor._repr_mimebundle_()
        cell = new_code_cell("editor", outputs=[new_output("execute_result", data=bundle, execution_count=1)])
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
        nbformat.write(notebook, tmp_path / "01_look.ipynb")
        said = check_notebook(tmp_path / "01_look.ipynb")
        assert any("widget state is saved (cells [1])" in one for one in said)
        leave_pictures(notebook)
        assert set(cell.outputs[0]["data"]) == set(bundle) - {WIDGET_VIEW}
        assert "widgets" not in notebook.metadata
