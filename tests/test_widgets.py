"""The widgets without a browser: what they do on a page's messages, what is on disk after each, what they leave."""

import base64
import io
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_output
from PIL import Image
from sklearn.metrics import confusion_matrix
from traitlets import TraitError, link

from medic import plots
from medic.data.corrections import EXCLUDED, Corrections
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.notebooks import page as series_page
from medic.notebooks import run as series
from medic.notebooks.run import leave_pictures
from medic.task import CHEST_XRAY, RETINOPATHY, SKIN_LESION, Prediction, Task
from medic.widgets import LabelEditor, ResultsViewer, ThresholdExplorer
from medic.widgets.label_editor import PAGE
from medic.widgets.threshold_explorer import counts, questions
from standard import check_notebook, execute_in_place

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LARGE, TINY, BROKEN, ABSENT = "lesion_00.png", "lesion_01.png", "lesion_02.png", "lesion_24.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 drawn images: the first large, the second of 28 x 28 pixels, the third no image at all."""
    folder = tmp_path_factory.mktemp("lesions")
    (folder / "SYNTHETIC.md").write_text("Drawn by a test.")
    for number in range(24):
        sides = {0: (900, 1200), 1: (28, 28)}.get(number, (48, 64))
        picture = np.full((*sides, 3), (120 + 4 * number, 140, 200), np.uint8)
        cv2.circle(picture, (sides[1] // 2, sides[0] // 2), sides[0] // 4, (40, 60, 90), -1)
        cv2.imwrite(str(folder / f"lesion_{number:02d}.png"), picture)
    (folder / BROKEN).write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """25 rows, of which the last has no file; every third is malignant."""
    numbers = np.arange(25)
    return pd.DataFrame(
        {
            "image": [f"lesion_{number:02d}.png" for number in numbers],
            "patient": [f"P{number // 2:02d}" for number in numbers],
            "split": "test",
            "label": (numbers % 3 == 0).astype(int),
            "age": pd.array([30, None] + [40] * 23, "Int64"),
        }
    )


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "corrections.csv"


@pytest.fixture
def editor(folder, records, journal) -> LabelEditor:
    findings = pd.DataFrame(
        [
            (BROKEN, "unsupported", "no image that is read"),
            ("lesion_05.png", "blurred", "sharpness 3"),
            ("lesion_06.png", "blurred", "sharpness 2"),
            ("stray.png", "unlisted", "no row names it"),
        ],
        columns=["image", "finding", "detail"],
    )
    corrections = Corrections(journal, records, SKIN_LESION, who="tester")
    return LabelEditor(records, open_store(folder), SKIN_LESION, corrections, findings)


def from_the_page(widget, message=None, **traits) -> list[tuple[dict, list[bytes]]]:
    """What a page's message, or its change of traits, has the widget send back."""
    sent = []
    widget.send = lambda content, buffers=(): sent.append((content, list(buffers)))
    if message is not None:
        widget._handle_custom_msg(message, [])
    if traits:
        widget.set_state(traits)
    return sent


def changes(path: Path) -> list[tuple[str, str, str]]:
    return list(pd.read_csv(path)[["image", "from", "to"]].itertuples(index=False, name=None))


class TestTheLabelEditor:
    def test_it_shows_a_page_of_cards_and_one_image_with_all_that_is_known(self, editor):
        state = editor.state
        assert (state["images"], state["shown"], state["position"]) == (25, 25, 0)
        assert [card["image"] for card in state["strip"]] == [f"lesion_{number:02d}.png" for number in range(PAGE)]
        assert state["current"]["label"] == "malignant"
        assert state["current"]["facts"] == [["patient", "P00"], ["split", "test"], ["age", "30"]]
        assert state["classes"] == [["benign", 16], ["malignant", 9]]
        assert "synthetic" in state["title"]

    def test_paging_stops_at_both_ends(self, editor):
        from_the_page(editor, position=PAGE)
        assert editor.current == f"lesion_{PAGE}.png"
        assert editor.state["start"] == PAGE
        from_the_page(editor, position=99)
        assert editor.current == ABSENT
        from_the_page(editor, position=-5)
        assert editor.current == LARGE

    def test_a_changed_label_is_on_disk_at_once(self, editor, journal):
        assert not journal.exists()
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        assert changes(journal) == [(TINY, "benign", "malignant")]
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        assert len(changes(journal)) == 1, "the same label again is no change"
        assert editor.state["corrected"] == 1
        assert editor.state["classes"] == [["benign", 15], ["malignant", 10]]
        assert editor.state["done"] == [f"{TINY}: benign → malignant"]

    def test_an_image_is_left_out_and_taken_in_again(self, editor, journal):
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        from_the_page(editor, {"do": "exclude", "image": TINY})
        assert changes(journal)[-1] == (TINY, "malignant", EXCLUDED)
        assert editor.state["excluded"] == 1
        from_the_page(editor, {"do": "exclude", "image": TINY})
        assert changes(journal)[-1] == (TINY, EXCLUDED, "malignant")
        assert editor.state["excluded"] == 0

    def test_undo_takes_changes_back_one_by_one_and_shows_where(self, editor, journal):
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        from_the_page(editor, {"do": "undo"})
        assert changes(journal) == [(TINY, "benign", "malignant")]
        from_the_page(editor, {"do": "undo"})
        assert changes(journal) == []
        assert editor.current == TINY
        assert "again" in editor.state["notice"]
        from_the_page(editor, {"do": "undo"})
        assert editor.state["notice"] == "Nothing of this session is left to undo"

    def test_another_session_goes_on_with_the_journal(self, editor, folder, records, journal):
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        later = LabelEditor(
            records, open_store(folder), SKIN_LESION, Corrections(journal, records, SKIN_LESION), findings=None
        )
        assert later.state["corrected"] == 1
        from_the_page(later, {"do": "undo"})
        assert changes(journal) == [(TINY, "benign", "malignant")], "only what this session did is undone"

    def test_filters_choose_by_label_and_by_suspicion(self, editor):
        from_the_page(editor, filter_label="malignant")
        assert len(editor.shown) == 9
        from_the_page(editor, filter_suspicion="finding:blurred")
        assert editor.shown == ["lesion_06.png"]
        from_the_page(editor, filter_label="")
        assert editor.shown == ["lesion_05.png", "lesion_06.png"]
        from_the_page(editor, filter_suspicion="any")
        assert editor.shown == [BROKEN, "lesion_05.png", "lesion_06.png"]
        options = {value: count for value, _, count in editor.state["suspicions"]}
        assert options == {
            "": 25, "any": 3, "finding:blurred": 2, "finding:unsupported": 1, "corrected": 0, "excluded": 0,
        }  # fmt: skip

    def test_a_list_stays_while_it_is_worked_on_and_is_made_anew_by_the_next_filter(self, editor):
        from_the_page(editor, filter_label="malignant", position=0)
        from_the_page(editor, position=4)
        image = editor.current
        from_the_page(editor, {"do": "label", "image": image, "to": "benign"})
        assert (editor.current, editor.position, len(editor.shown)) == (image, 4, 9)
        from_the_page(editor, filter_label="", filter_suspicion="corrected")
        assert (editor.shown, editor.position) == ([image], 0)
        from_the_page(editor, filter_suspicion="excluded")
        assert editor.shown == []
        assert editor.state["current"] is None

    @pytest.mark.parametrize(
        "message",
        [
            {"do": "label", "image": "../secret.png", "to": "benign"},
            {"do": "label", "image": TINY, "to": "melanoma"},
            {"do": "label", "image": TINY, "to": 1},
            {"do": "label", "image": TINY},
            {"do": "exclude", "image": ["lesion_01.png"]},
            {"do": "exclude", "image": None},
            {"do": "images", "names": ["/etc/hosts"], "size": "large"},
            {"do": "images", "names": [TINY], "size": "huge"},
            {"do": "images", "names": [TINY] * 1000, "size": "large"},
            {"do": "delete everything"},
            {},
            "label",
        ],
    )
    def test_a_bad_message_is_refused_and_changes_nothing(self, editor, journal, message):
        assert from_the_page(editor, message) == []
        assert editor.state["error"]
        assert not journal.exists()
        from_the_page(editor, {"do": "exclude", "image": TINY})
        assert editor.state["error"] == "", "what can be done next is done"

    @pytest.mark.parametrize("traits", [{"filter_label": "melanoma"}, {"filter_suspicion": "finding:odd"}])
    def test_an_unknown_filter_is_refused(self, editor, traits):
        with pytest.raises(TraitError, match="there is no filter"):
            from_the_page(editor, **traits)
        assert len(editor.shown) == 25

    def test_a_folder_that_cannot_be_written_is_told_and_the_change_can_be_made_again(self, folder, records, tmp_path):
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where the folder should be")
        corrections = Corrections(blocked / "corrections.csv", records, SKIN_LESION)
        editor = LabelEditor(records, open_store(folder), SKIN_LESION, corrections)
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        assert "cannot write" in editor.state["error"]
        assert (editor.state["excluded"], editor.state["changes"]) == (0, 0)
        blocked.unlink()
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        assert editor.state["error"] == ""
        assert changes(corrections.path) == [(LARGE, "malignant", EXCLUDED)]

    def test_a_journal_that_is_gone_is_told_and_loses_nothing(self, editor, journal):
        from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
        kept = journal.read_bytes()
        journal.unlink()
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        assert "has changed" in editor.state["error"]
        assert editor.state["excluded"] == 0
        journal.write_bytes(kept)
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        assert changes(journal) == [(TINY, "benign", "malignant"), (LARGE, "malignant", EXCLUDED)]

    def test_changes_made_elsewhere_are_seen_after_refresh(self, editor):
        editor.corrections.exclude(TINY)
        editor.refresh()
        assert editor.state["excluded"] == 1

    def test_findings_of_a_multilabel_task_are_turned_on_and_off(self, folder, journal, records):
        task = Task("two_findings", "multilabel", ("Mass", "Nodule"))
        several = records.assign(Mass=records["label"], Nodule=0)
        corrections = Corrections(journal, several, task)
        editor = LabelEditor(several, open_store(folder), task, corrections)
        from_the_page(editor, {"do": "label", "image": LARGE, "to": "Nodule"})
        from_the_page(editor, {"do": "label", "image": LARGE, "to": "Mass"})
        from_the_page(editor, {"do": "label", "image": LARGE, "to": "Nodule"})
        assert [after for _, _, after in changes(journal)] == ["Mass|Nodule", "Nodule", "(none)"]
        assert editor.state["current"]["has"] == []
        from_the_page(editor, filter_label="(none)")
        assert len(editor.shown) == 17
        from_the_page(editor, {"do": "exclude", "image": LARGE})
        from_the_page(editor, {"do": "label", "image": LARGE, "to": "Mass"})
        assert "left out" in editor.state["error"]

    def test_records_that_the_corrections_do_not_know_are_refused(self, folder, records, journal):
        corrections = Corrections(journal, records.head(3), SKIN_LESION)
        with pytest.raises(MedicError, match="no image 'lesion_03"):
            LabelEditor(records, open_store(folder), SKIN_LESION, corrections)


def test_importing_the_widgets_loads_no_torch():
    program = "import sys, medic.widgets; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


class TestImagesOnDemand:
    def test_a_page_gets_small_copies_and_the_reasons_for_those_that_are_missing(self, editor):
        sent = from_the_page(editor, {"do": "images", "names": [LARGE, TINY, BROKEN, ABSENT], "size": "large"})
        assert [content["image"] for content, _ in sent] == [LARGE, TINY, BROKEN, ABSENT]
        kinds = [content.get("type", content.get("reason")) for content, _ in sent]
        assert kinds == ["image/jpeg", "image/png", "unsupported", "unreadable"]
        sizes = [Image.open(io.BytesIO(buffers[0])).size for _, buffers in sent[:2]]
        assert sizes == [(800, 600), (28, 28)]
        assert "not in" in sent[3][0]["detail"]

    def test_thumbnails_are_small(self, editor):
        ((_, (data,)),) = from_the_page(editor, {"do": "images", "names": [LARGE], "size": "thumbnail"})
        assert Image.open(io.BytesIO(data)).size == (128, 96)
        assert len(data) < 5000


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
    rows = records.assign(label=random.integers(0, 5, len(records)))
    return Evaluation("grades", prediction, rows, majority=0)


@pytest.fixture(scope="module")
def chest(records) -> Evaluation:
    random = np.random.default_rng(3)
    truth = (random.random((len(records), 14)) < 0.3).astype(int)
    truth[:, 13] = 0
    rows = records.assign(**dict(zip(CHEST_XRAY.classes, truth.T, strict=True)))
    scores = random.random((len(records), 14)).astype(np.float32)
    prediction = Prediction(CHEST_XRAY, scores, thresholds=tuple(np.linspace(0.2, 0.8, 14)))
    return Evaluation("chest", prediction, rows, majority=np.zeros(14, int))


class TestTheResultsViewer:
    def test_the_outcomes_of_two_classes_are_the_confusion_matrix(self, evaluation, folder):
        viewer = ResultsViewer(evaluation, open_store(folder))
        (rejected, alarms), (missed, found) = evaluation.confusion.tolist()
        counted = {name: count for name, _, count in viewer.state["outcomes"]}
        assert counted == {
            "": 25, "true positive": found, "false positive": alarms, "false negative": missed,
            "true negative": rejected,
        }  # fmt: skip
        from_the_page(viewer, outcome="false negative")
        assert len(viewer.shown) == missed > 0
        assert all(card["truth"] == "malignant" and card["decided"] == "benign" for card in viewer.state["cards"])

    def test_another_threshold_is_another_outcome(self, evaluation, folder):
        viewer = ResultsViewer(evaluation, open_store(folder))
        explorer = ThresholdExplorer(evaluation)
        link((explorer, "threshold"), (viewer, "threshold"))
        from_the_page(explorer, threshold=0.0)
        counted = {name: count for name, _, count in viewer.state["outcomes"]}
        assert (counted["true positive"], counted["false positive"], counted["true negative"]) == (9, 16, 0)

    def test_images_are_sorted_and_cut_by_confidence(self, evaluation, folder):
        viewer = ResultsViewer(evaluation, open_store(folder))
        sure = [viewer._card(image)["confidence"] for image in viewer.shown]
        assert sure == sorted(sure)
        from_the_page(viewer, order="sure")
        assert viewer.state["cards"][0]["confidence"] == max(sure)
        from_the_page(viewer, low=0.6, high=0.8)
        assert sorted(card["confidence"] for card in viewer.state["cards"]) == [
            one for one in sure if 0.6 <= one <= 0.8
        ]
        from_the_page(viewer, low=0.0, high=1.0, order="listed")
        from_the_page(viewer, page=1)
        assert [card["image"] for card in viewer.state["cards"]] == list(evaluation.records["image"][18:])
        from_the_page(viewer, page=7)
        assert viewer.page == 1

    def test_a_chosen_image_shows_its_probabilities_truth_and_patient(self, evaluation, folder):
        viewer = ResultsViewer(evaluation, open_store(folder))
        from_the_page(viewer, order="listed")
        from_the_page(viewer, chosen="lesion_03.png")
        detail = viewer.state["detail"]
        expected = evaluation.prediction.probabilities[3].tolist()
        assert detail["bars"] == [["benign", expected[0], False], ["malignant", expected[1], True]]
        assert ["patient", "P01"] in detail["facts"]
        assert (detail["previous"], detail["next"]) == (BROKEN, "lesion_04.png")
        from_the_page(viewer, chosen="")
        assert viewer.state["detail"] is None

    def test_among_several_classes_it_is_right_or_wrong_and_truth_and_decision(self, grades, folder):
        viewer = ResultsViewer(grades, open_store(folder))
        expected = Counter(
            "right" if truth == decided else f"{RETINOPATHY.classes[truth]} → {RETINOPATHY.classes[decided]}"
            for truth, decided in zip(grades.truth, grades.prediction.decided, strict=True)
        )
        counted = {name: count for name, _, count in viewer.state["outcomes"]}
        assert counted.pop("") == 25
        assert counted.pop("wrong") == 25 - expected["right"]
        assert {name: count for name, count in counted.items() if count} == dict(expected)
        from_the_page(viewer, outcome="wrong")
        assert len(viewer.shown) == 25 - expected["right"]

    def test_a_finding_of_many_is_looked_at_with_its_own_threshold(self, chest, folder):
        viewer = ResultsViewer(chest, open_store(folder))
        for code, name in enumerate(CHEST_XRAY.classes):
            from_the_page(viewer, finding=name)
            counted = {outcome: count for outcome, _, count in viewer.state["outcomes"]}
            (rejected, alarms), (missed, found) = chest.confusion[code].tolist()
            assert [counted[f"true {way}"] for way in ("negative", "positive")] == [rejected, found], name
            assert [counted[f"false {way}"] for way in ("negative", "positive")] == [missed, alarms], name
        from_the_page(viewer, chosen=LARGE)
        assert len(viewer.state["detail"]["bars"]) == 14

    @pytest.mark.parametrize(
        "traits", [{"outcome": "odd"}, {"chosen": "../x.png"}, {"finding": "Odd"}, {"order": "odd"}, {"low": 2.0}]
    )
    def test_what_there_is_not_is_refused(self, evaluation, folder, traits):
        viewer = ResultsViewer(evaluation, open_store(folder))
        with pytest.raises(TraitError):
            from_the_page(viewer, **traits)


class TestTheThresholdExplorer:
    def test_it_starts_at_the_operating_point(self, evaluation):
        explorer = ThresholdExplorer(evaluation)
        (rejected, alarms), (missed, found) = evaluation.confusion.tolist()
        assert explorer.threshold == pytest.approx(0.4)
        assert explorer.confusion == (found, alarms, missed, rejected)
        assert explorer.prevalence == pytest.approx(9 / 25)

    def test_what_the_page_is_sent_is_the_matrix_at_every_threshold(self, evaluation):
        state = ThresholdExplorer(evaluation).state
        truth, scores = evaluation.truth, evaluation.prediction.probabilities[:, 1]
        assert state["scores"] == sorted(set(scores.astype(float)), reverse=True)
        for score, found, alarms in zip(state["scores"], state["found"], state["alarms"], strict=True):
            (rejected, false), (missed, true) = confusion_matrix(truth, scores >= score).tolist()
            assert (found, alarms) == (true, false)
            assert (state["present"] - found, state["absent"] - alarms) == (missed, rejected)
            assert counts(questions(evaluation)["malignant"], score) == (true, false, missed, rejected)
        assert sum(state["bars"]["present"]) == 9
        assert sum(state["bars"]["absent"]) == 16

    def test_a_threshold_is_compared_as_the_prediction_compares_it(self, evaluation):
        explorer = ThresholdExplorer(evaluation)
        for threshold in [*evaluation.prediction.probabilities[:, 1].astype(float), 0.35, 0.1]:
            from_the_page(explorer, threshold=float(threshold))
            decided = Prediction(SKIN_LESION, evaluation.prediction.probabilities, thresholds=(threshold,)).decided
            assert explorer.confusion[:2] == (
                int((decided & evaluation.truth).sum()),
                int((decided & (1 - evaluation.truth)).sum()),
            )

    def test_another_finding_comes_with_its_own_operating_point(self, chest):
        explorer = ThresholdExplorer(chest)
        assert "Hernia" not in explorer.state["findings"], "no image has it"
        from_the_page(explorer, threshold=0.9)
        from_the_page(explorer, finding="Mass")
        place = CHEST_XRAY.classes.index("Mass")
        assert explorer.threshold == pytest.approx(chest.prediction.thresholds[place])
        assert explorer.state["operating_point"] == explorer.threshold
        assert explorer.state["finding"] == "Mass"
        (rejected, alarms), (missed, found) = chest.confusion[place].tolist()
        assert explorer.confusion == (found, alarms, missed, rejected)

    @pytest.mark.parametrize(
        "traits", [{"threshold": 1.5}, {"threshold": "high"}, {"prevalence": 0.0}, {"finding": "x"}]
    )
    def test_what_makes_no_sense_is_refused(self, evaluation, traits):
        explorer = ThresholdExplorer(evaluation)
        with pytest.raises(TraitError):
            from_the_page(explorer, **traits)
        assert explorer.threshold == pytest.approx(0.4)

    def test_several_classes_have_no_threshold(self, grades):
        with pytest.raises(MedicError, match="use ResultsViewer"):
            ThresholdExplorer(grades)

    def test_images_of_one_class_alone_have_no_curve(self, evaluation, records):
        only = evaluation.truth == 0
        some = Evaluation(
            "benign only", evaluation.prediction.rows(only), records[only].reset_index(drop=True), majority=0
        )
        with pytest.raises(MedicError, match="both images with it and without"):
            ThresholdExplorer(some)


@pytest.fixture
def widgets(editor, evaluation, folder) -> dict:
    store = open_store(folder)
    return {"editor": editor, "viewer": ResultsViewer(evaluation, store), "explorer": ThresholdExplorer(evaluation)}


@pytest.mark.parametrize("name", ["editor", "viewer", "explorer"])
class TestWhatReadersWithoutAKernelSee:
    def test_beside_the_live_widget_stands_a_small_picture_and_a_line(self, widgets, name):
        before = plt.get_fignums()  # of tests in this process that leave theirs open
        bundle, _ = widgets[name]._repr_mimebundle_()
        assert set(bundle) == {WIDGET_VIEW, "image/png", "text/plain"}
        data = base64.b64decode(bundle["image/png"])
        picture = Image.open(io.BytesIO(data))
        assert picture.mode == "P", "256 colours"
        assert min(picture.size) > 150
        assert len(data) < 60_000
        assert bundle["text/plain"] == widgets[name].summary()
        assert plt.get_fignums() == before

    def test_the_picture_says_that_the_images_are_synthetic(self, widgets, name):
        figure = widgets[name].static()
        assert "(synthetic images)" in figure.get_suptitle().replace("\n", " ")
        plt.close(figure)


def test_a_long_title_of_a_picture_is_whole(evaluation, folder):
    long = replace(evaluation, title="lesions resnet18 generated frozen, 64 px, 5 epochs, sensitivity 0.9, test split")
    with mpl.rc_context():
        plots.use_style()
        figure = ResultsViewer(long, open_store(folder)).static()
        figure.canvas.draw()
        (words,) = (text for text in figure.texts if text.get_text() == figure.get_suptitle())
        assert words.get_text().endswith("(synthetic images)")
        assert words.get_window_extent().x1 <= figure.bbox.x1
        plt.close(figure)


def test_the_static_picture_shows_the_state_of_the_widget(editor, evaluation, folder):
    from_the_page(editor, {"do": "label", "image": TINY, "to": "malignant"})
    figure = editor.static()
    captions = [axes.get_title() for axes in figure.axes[:3]]
    assert captions == ["malignant", "benign → malignant", "benign\nunsupported"]
    assert "1 label corrected" in figure.get_suptitle()
    plt.close(figure)
    explorer = ThresholdExplorer(evaluation)
    explorer.threshold = 0.0
    figure = explorer.static()
    assert "9 of 9 images with it found, 16 of 16 without it called" in figure.get_suptitle().replace("\n", " ")
    plt.close(figure)


class TestExecutedNotebooks:
    def test_a_committed_notebook_with_a_live_widget_is_reported(self, tmp_path, notebook_cells, write_notebook):
        cells = notebook_cells()
        cells[5].outputs = [new_output("display_data", data={WIDGET_VIEW: {"model_id": "1"}, "text/plain": "x"})]
        findings = check_notebook(write_notebook(tmp_path / "01_grade.ipynb", cells))
        assert [one for one in findings if "cell 6 shows a widget" in one]

    def test_the_picture_takes_the_widgets_place_on_a_page(self, tmp_path, editor):
        bundle, _ = editor._repr_mimebundle_()
        cell = new_code_cell("editor", outputs=[new_output("execute_result", data=bundle, execution_count=1)])
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
        leave_pictures(notebook)
        assert set(cell.outputs[0]["data"]) == {"image/png", "text/plain"}
        assert "widgets" not in notebook.metadata
        path = tmp_path / "executed.ipynb"
        nbformat.write(notebook, path)
        series_page.convert(path, tmp_path)
        assert f"data:image/png;base64,{bundle['image/png'][:40]}" in path.with_suffix(".html").read_text()
        assert (tmp_path / "executed_files" / "figure_01.png").is_file()

    @pytest.mark.notebooks
    def test_both_ways_of_executing_leave_the_picture(self, clone, folder, notebook_cells, write_notebook):
        work = (
            "import pandas as pd",
            "from medic.data.corrections import Corrections\nfrom medic.data.stores import open_store\n"
            "from medic.task import SKIN_LESION\nfrom medic.widgets import LabelEditor",
            'lesions = pd.DataFrame({"image": ["lesion_03.png"], "patient": "P", "split": "test", "label": 1})\n'
            'store = open_store(session.data / "lesions")\n'
            'LabelEditor(lesions, store, SKIN_LESION, Corrections("x.csv", lesions, SKIN_LESION, "tester"))',
        )
        lesions = clone / "sample_data" / "lesions"
        lesions.mkdir()
        for name in ("lesion_03.png", "SYNTHETIC.md"):
            (lesions / name).write_bytes((folder / name).read_bytes())
        path = write_notebook(clone / "code" / "01_look" / "01_look.ipynb", notebook_cells(*work))
        copy = clone / "outputs" / "01_look.ipynb"
        assert series.execute(path, copy, {}) is None
        execute_in_place(path)
        assert check_notebook(path) == []
        for executed in (path, copy):
            notebook = nbformat.read(executed, as_version=4)
            assert "widgets" not in notebook.metadata
            shown = notebook.cells[7].outputs[-1]["data"]
            assert set(shown) == {"image/png", "text/plain"}, executed.name
