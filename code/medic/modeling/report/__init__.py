"""What is written of an evaluation: one page for the eye, and the model report with its checklists, never by hand."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from medic.data.check import measure
from medic.data.check.report import thumbnail
from medic.data.records import class_counts
from medic.data.split import patients_known
from medic.files import write_text
from medic.modeling import calibrate, thresholds
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import too_few
from medic.modeling.slices import in_words, slices
from medic.modeling.training.run import Run
from medic.plots import evaluation as plots
from medic.plots import use_style
from medic.predict import predict
from medic.referral import confidence


def write_page(run: Run, evaluation: Evaluation, path: str | os.PathLike) -> pd.DataFrame:
    """Write an evaluation as one HTML file that asks the network for nothing; return its table of slices.

    It holds the figures beside the baseline, confusion matrix or curves, calibration (before and after, where the model
    is calibrated), prediction sets, risk-coverage curve, decision curves, slices by what the records hold and by the
    measured brightness and sharpness, and the most wrong images.

    Args:
        run: whose model was evaluated; its originals are read again for what the page shows of them.
        evaluation: of that model.
        path: the file to write.
    """
    store, task, whose = run.prepared.store, evaluation.task, evaluation.whose
    truth, said, model = evaluation.truth, evaluation.prediction, run.model()
    versions = {"as it is": said}
    if model.scale is not None:
        model.scale = model.shift = None
        versions = {"before": predict(model, store, list(evaluation.records["image"])).prediction, "after": said}
    judged = [(name, *one) for name, one in evaluation.questions.items() if not too_few("auroc", one[0], whose)]
    decision = {
        name: thresholds.decision_curve(present, scores, whose, seed=evaluation.seed)
        for name, present, scores, _ in judged[:6]
    }
    seen = measure(evaluation.records, store)[["brightness", "sharpness"]]
    table = slices(replace(evaluation, records=evaluation.records.assign(**seen)), draws=1000)
    wrong = (said.decided != truth).reshape(len(truth), -1).any(axis=1)
    reliability = {name: calibrate.reliability(truth, one, whose) for name, one in versions.items()}
    with mpl.rc_context():
        use_style()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "medic"})
        overall = evaluation.table()["value"].get(table["metric"].iloc[0]) if len(table) else None
        confusion = plots.confusion_matrix(evaluation.confusion, task) if task.kind != "multilabel" else None
        pictures = {
            "confusion": confusion and _svg(confusion),
            "curves": _svg(plots.curves(evaluation.questions)) if task.thresholds else None,
            "reliability": _svg(plots.reliability(reliability)),
            "risk_coverage": _svg(plots.risk_coverage(thresholds.risk_coverage(wrong, confidence(said)))),
            "decision": _svg(plots.decision_curves(decision)) if decision else None,
            "forest": _svg(plots.forest(table, overall)) if len(table) else None,
        }
    calibration = calibrate.compare_calibration(truth, versions, whose, evaluation.seed)
    page = _ENVIRONMENT.get_template("evaluation.html.j2").render(
        evaluation=evaluation,
        task=task,
        patients_known=patients_known(run.records),
        calibration=calibration.set_axis([", ".join(row).replace("_", " ") for row in calibration.index]),
        sets=None if said.referral is None else thresholds.coverage_table(truth, said, whose, seed=evaluation.seed),
        reasons=None if said.referral is None else pd.Series(said.why[said.why != ""]).value_counts(),
        ahead={name: table.loc[table["gain_low"] > 0, "threshold"].to_list() for name, table in decision.items()},
        slices=table,
        worst=[row | {"picture": thumbnail(store, row["image"])} for row in evaluation.worst().to_dict("records")],
        **pictures,
    )
    write_text(Path(path), page)
    return table


def write_report(run: Run, evaluation: Evaluation, path: str | os.PathLike) -> Path:
    """Write what was trained, on what, how well it does and where it fails, as Markdown; return the path.

    At its end stand the items of TRIPOD+AI and CLAIM with what the run says of each, or what only a person can say.

    Args:
        run: the finished run.
        evaluation: of its model on the test split.
        path: the file to write.
    """
    task = evaluation.task
    known = {
        "run": run,
        "evaluation": evaluation,
        "task": task,
        "patients_known": patients_known(run.records),
        "counts": class_counts(run.records, task),
        "patients": run.records.groupby("split")["patient"].nunique().to_dict(),
        "slices": slices(evaluation, draws=1000),
        **run.about["settings"],
    }
    names = pd.Index(task.classes, name="truth")
    page = _ENVIRONMENT.get_template("model_report.md.j2").render(
        **known,
        confusion=None if task.kind == "multilabel" else pd.DataFrame(evaluation.confusion, names, task.classes),
        worst=evaluation.worst().set_index("image")[["truth", "decided", "p_truth"]],
        checklists=[_filled(name, known) for name in ("tripod_ai", "claim")],
    )
    write_text(path, page)
    return Path(path)


def _filled(name: str, known: dict) -> dict:
    """Return a checklist with what the run says of each item (``says``), empty where only a person can."""
    checklist = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    for item in checklist["items"]:
        said = _ENVIRONMENT.from_string(item.get("says", "")).render(known)
        item["says"] = " ".join(said.replace("|", "/").split())
    return checklist


def _svg(figure: Figure) -> str:
    """The figure as part of a page, whose style turns it over where the page is dark; the figure is closed."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return "<svg" + written.getvalue().partition("<svg")[2]


_ENVIRONMENT = jinja2.Environment(
    autoescape=jinja2.select_autoescape(("html.j2",), default_for_string=False),
    loader=jinja2.PackageLoader("medic.modeling", "report"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["words"] = in_words
