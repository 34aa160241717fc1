"""What an earlier notebook makes, for a later one: found when it is there, made when it is absent, and said which."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medic.errors import MedicError
from medic.files import sha256, write_json
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


def prepared_set(session: Session, line: str = "retinopathy", columns: Mapping[str, str] | None = None) -> "Prepared":
    """The prepared set of ``01_data_acquisition_and_understanding/03_prepare_data``, or that of another line.

    Args:
        session: the notebook's.
        line: a name in ``medic.data.readers.DATA_SETS``. For ``chest_xray`` the quick profile takes ``chest_xray_64px``
            where the data folder has one: the same set made small. For ``skin_lesion`` a data folder without that line
            stands for itself: a person's own images. The corrections of ``04_check_and_correct_labels`` are applied
            there.
        columns: of a person's own table, the titles of ``image``, ``label`` or ``patient`` where they are not found.
    """
    from medic.data.corrections import apply, beside
    from medic.data.prepare import Prepared, prepare
    from medic.data.readers import DATA_SETS, OWN, lesions_or_own
    from medic.data.records import lacking, with_codes
    from medic.data.split import complete_splits

    folder = session.products / ("prepared" if line == "retinopathy" else f"prepared-{line}")
    found, source = DATA_SETS[line], session.data / line
    if line == "chest_xray" and not session.full and (session.data / "chest_xray_64px").is_dir():
        source = session.data / "chest_xray_64px"
    elif line == "skin_lesion":
        found, source = lesions_or_own(session.data)
    journal = corrections_file(session) if line == "skin_lesion" else Path()
    # The reader applies the journal beside the source by itself.
    corrections = [sha256(path) for path in (beside(source), journal) if path.is_file()]
    asked = {"columns": dict(columns or {}), "corrections": corrections, "size": PREPARED_SIZE[line][session.profile]}
    made_from, state = folder.with_name(f"{folder.name}-made-from.json"), "absent"
    if (folder / "manifest.json").is_file():
        try:
            prepared = Prepared.load(folder)
            earlier = json.loads(made_from.read_text()) if made_from.is_file() else {"columns": {}, "corrections": []}
            earlier["size"] = prepared.preprocessing.size
            if earlier == asked:
                _say(session, "prepared set", folder, "found")
                return prepared
            state = f"of other {' and '.join(key for key, value in asked.items() if earlier[key] != value)}"
        except MedicError as error:
            state = f"of no use ({error})"
    made = "making it as 03_prepare_data does" if line == "retinopathy" else f"making it from {source.name}"
    _say(session, "prepared set", folder, f"{state}, {made}")
    records, store = found.read(source, columns=columns) if columns else found.read(source)
    task = found.task(records)
    if journal.is_file():
        _say(session, "corrections", journal, "applied")
        records = apply(records, journal, task)
        if found is OWN:
            records = with_codes(records, journal)
            task = found.task(records)
    records = complete_splits(records, seed=session.seed, task=task, store=store)
    prepared = prepare(records, store, folder, replace(found.preprocessing, size=asked["size"]))
    write_json(made_from, asked)
    for sentence in lacking(prepared.records, task) if found is OWN else ():
        print(sentence)
    return prepared


def corrections_file(session: Session) -> Path:
    """The journal of ``04_check_and_correct_labels``: a product, so that the data folder stays as it is."""
    return session.products / "corrections.csv"


def choose(session: Session, run: "Run") -> None:
    """Say which run the notebooks of stage 03 take."""
    write_json(_choice(session), {"run": run.folder.relative_to(session.products).as_posix()})


def chosen_run(session: Session) -> "Run":
    """Return the run that ``02_modeling/03_grade_retinopathy`` has chosen; otherwise a frozen Lite0 with a new head."""
    from medic.modeling.classifier import Classifier
    from medic.modeling.features import fit_head
    from medic.modeling.training.run import Run
    from medic.task import RETINOPATHY

    if _choice(session).is_file():
        folder = session.products / json.loads(_choice(session).read_text())["run"]
        _say(session, "trained network", folder, "found")
        return Run.load(folder)
    folder = session.products / "runs" / "short"
    state = "a last layer was learned earlier" if Run.peek(folder) else "a last layer is learned here"
    _say(session, "trained network", folder, f"03_grade_retinopathy has chosen none; {state}")
    prepared = prepared_set(session)
    settings = {"preprocessing": prepared.preprocessing, "image_size": 192, "weights": "imagenet"}
    return fit_head(Classifier(RETINOPATHY, "efficientnet_lite0", **settings), prepared, folder, seed=session.seed)


def export_folder(session: Session) -> Path:
    """Where ``03_deployment/01_export_and_compress`` puts its graphs."""
    return session.products / "export"


def keep_graph(session: Session, model: "Classifier", graph: Path) -> None:
    """Say which graph of this model ``02_package_and_deploy`` takes; it lies in ``export_folder``."""
    write_json(export_folder(session) / "kept.json", {"graph": graph.name, "weights": model.digest})


def kept_graph(session: Session, model: "Classifier") -> Path:
    """The graph that ``03_deployment/01_export_and_compress`` kept, if it was made of these very weights."""
    from medic.deployment.export import export

    choice, state = export_folder(session) / "kept.json", "absent"
    if choice.is_file():
        kept = json.loads(choice.read_text())
        graph, state = choice.with_name(kept["graph"]), "that of another training"
        if kept["weights"] == model.digest and graph.is_file():
            _say(session, "exported graph", graph, "found")
            return graph
    graph = choice.with_name("fp32.onnx")
    _say(session, "exported graph", graph, f"{state}, exporting without compressing")
    export(model, graph)
    keep_graph(session, model, graph)
    return graph


def packaged_bundle(session: Session, run: "Run | None" = None) -> "Bundle":
    """The bundle of ``03_deployment/02_package_and_deploy``, made of the chosen run (``run``, where it is known)."""
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
