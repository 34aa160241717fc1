"""What an earlier notebook makes, for a later one: found when it is there, made when it is absent, and said which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medic.errors import MedicError
from medic.files import write_json
from medic.notebooks.session import Session

if TYPE_CHECKING:
    from medic.data.prepare import Prepared
    from medic.deployment.bundle import Bundle
    from medic.modeling.classifier import Classifier
    from medic.modeling.training.run import Run

PREPARED_SIZE = {
    "retinopathy": {"quick": 192, "full": 512},
    "chest_xray": {"quick": 192, "full": 256},
    "digits": {"quick": 28, "full": 28},
    "skin_lesion": {"quick": 192, "full": 256},
}
"""Side of the prepared images in pixels, by line and profile. A digit has 28 of its own, and no more to show."""


def chest_xrays(session: Session) -> Path:
    """The folder with the chest X-rays.

    The quick profile takes ``chest_xray_64px`` where the data folder has one: the same set made small, of which a CPU
    gets through more images.
    """
    small = session.data / "chest_xray_64px"
    return small if session.profile == "quick" and small.is_dir() else session.data / "chest_xray"


def prepared_set(session: Session, line: str = "retinopathy", columns: Mapping[str, str] | None = None) -> Prepared:
    """The prepared set of ``01_data_acquisition_and_understanding/03_prepare_data``, or that of another line.

    Args:
        session: the notebook's.
        line: a name in ``medic.data.readers.DATA_SETS``. For ``skin_lesion`` a data folder without that line stands for
            itself: a person's own images. The corrections of ``04_check_and_correct_labels`` are applied there.
        columns: of a person's own table, the titles of ``image``, ``label`` or ``patient`` where they are not found.
    """
    from medic.data.corrections import apply, beside
    from medic.data.prepare import Prepared, prepare
    from medic.data.readers import DATA_SETS, OWN, lesions_or_own
    from medic.data.records import lacking, with_codes
    from medic.data.split import complete_splits

    folder = session.products / ("prepared" if line == "retinopathy" else f"prepared-{line}")
    manifest, journal = folder / "manifest.json", corrections_file(session)
    corrects = line == "skin_lesion" and journal.is_file()
    found, source = DATA_SETS[line], session.data / line
    if line == "chest_xray":
        source = chest_xrays(session)
    elif line == "skin_lesion":
        found, source = lesions_or_own(session.data)
    # The reader applies the journal beside the source by itself.
    journals = [path for path in (beside(source), *([journal] if corrects else [])) if path.is_file()]
    named, columns = folder.with_name(f"{folder.name}-columns.json"), dict(columns or {})
    state = "absent"
    if manifest.is_file() and columns != (json.loads(named.read_text()) if named.is_file() else {}):
        state = "of other columns"
    elif manifest.is_file() and any(path.stat().st_mtime > manifest.stat().st_mtime for path in journals):
        state = "older than the corrections"
    elif manifest.is_file():
        try:
            prepared = Prepared.load(folder)
        except MedicError as error:
            state = f"of no use ({error})"
        else:
            if prepared.preprocessing.size != PREPARED_SIZE[line][session.profile]:
                state = f"of {prepared.preprocessing.size} px"
            elif bool(journals) == ("corrected" in prepared.records):
                _say(session, "prepared set", folder, "found")
                return prepared
            else:
                state = "of uncorrected labels" if journals else "of corrected labels, and the corrections are gone"
    made = "making it as 03_prepare_data does" if line == "retinopathy" else f"making it from {source.name}"
    _say(session, "prepared set", folder, f"{state}, {made}")
    records, store = found.read(source, columns=columns) if columns else found.read(source)
    task = found.task(records)
    if corrects:
        _say(session, "corrections", journal, "applied")
        records = apply(records, journal, task)
        if found is OWN:
            records = with_codes(records, journal)
            task = found.task(records)
    records = complete_splits(records, seed=session.seed, task=task, store=store)
    size = PREPARED_SIZE[line][session.profile]
    prepared = prepare(records, store, folder, replace(found.preprocessing, size=size))
    if columns or named.is_file():
        write_json(named, columns)
    for sentence in lacking(prepared.records, task) if found is OWN else ():
        print(sentence)
    return prepared


def corrections_file(session: Session) -> Path:
    """The journal of ``04_check_and_correct_labels``: a product, so that the data folder stays as it is."""
    return session.products / "corrections.csv"


def choose(session: Session, run: Run) -> None:
    """Say which run the notebooks of stage 03 take."""
    write_json(_choice(session), {"run": run.folder.relative_to(session.products).as_posix()})


def chosen_run(session: Session) -> Run:
    """Return the run that ``02_modeling/03_grade_retinopathy`` has chosen; otherwise a frozen Lite0 with a new head."""
    from medic.modeling.classifier import Classifier
    from medic.modeling.features import fit_head
    from medic.modeling.training.run import Run
    from medic.task import RETINOPATHY

    choice = _choice(session)
    if choice.is_file():
        folder = session.products / json.loads(choice.read_text())["run"]
        _say(session, "trained network", folder, "found")
        return Run.load(folder)
    folder = session.products / "runs" / "short"
    _say(session, "trained network", folder, "03_grade_retinopathy has chosen none; a last layer is learned here")
    prepared = prepared_set(session)
    settings = {"preprocessing": prepared.preprocessing, "image_size": 192, "weights": "imagenet"}
    return fit_head(Classifier(RETINOPATHY, "efficientnet_lite0", **settings), prepared, folder, seed=session.seed)


def export_folder(session: Session) -> Path:
    """Where ``03_deployment/01_export_and_compress`` puts its graphs."""
    return session.products / "export"


def keep_graph(session: Session, model: Classifier, graph: Path) -> None:
    """Say which graph of this model ``02_package_and_deploy`` takes; it lies in ``export_folder``."""
    write_json(export_folder(session) / "kept.json", {"graph": graph.name, "weights": model.digest})


def kept_graph(session: Session, model: Classifier) -> Path:
    """The graph that ``03_deployment/01_export_and_compress`` kept, if it was made of these very weights."""
    from medic.deployment.export import export

    folder = export_folder(session)
    choice = folder / "kept.json"
    kept = json.loads(choice.read_text()) if choice.is_file() else None
    if kept and kept["weights"] == model.digest and (folder / kept["graph"]).is_file():
        _say(session, "exported graph", folder / kept["graph"], "found")
        return folder / kept["graph"]
    graph = folder / "fp32.onnx"
    state = "that of another training" if kept else "absent"
    _say(session, "exported graph", graph, f"{state}, exporting without compressing")
    export(model, graph)
    keep_graph(session, model, graph)
    return graph


def packaged_bundle(session: Session, run: Run | None = None) -> Bundle:
    """The bundle of ``03_deployment/02_package_and_deploy``, of the chosen run's weights.

    Args:
        session: the notebook's.
        run: the chosen run, where the caller has it already.
    """
    from medic.deployment.bundle import Bundle, package
    from medic.deployment.bundle.pipeline import about, golden
    from medic.modeling.evaluate import evaluate

    run = run or chosen_run(session)
    model = run.model()
    folder = session.products / "bundles" / "retinopathy"
    state = "absent"
    if (folder / "manifest.json").is_file():
        bundle = Bundle.load(folder)
        if bundle.manifest.values["model"].get("weights") == model.digest:
            _say(session, "bundle", folder, "found")
            return bundle
        state = "that of another training"
    _say(session, "bundle", folder, f"{state}, making it as 02_package_and_deploy does")
    return package(kept_graph(session, model), folder, golden(run.prepared), about(run, evaluate(run)))


def _choice(session: Session) -> Path:
    return session.products / "chosen.json"


def _say(session: Session, what: str, folder: Path, state: str) -> None:
    print(f"{what}: {state} ({session.shown(folder)})")
