"""The commands of the data stage: fetch, draw, describe, check and prepare images."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from medic.cli import options
from medic.errors import MedicError

if TYPE_CHECKING:
    import pandas as pd

    from medic.data.prepare import Prepared
    from medic.data.readers import DataSet
    from medic.data.stores import Store
    from medic.task import Task

app = typer.Typer()


@app.command()
def download(
    name: Annotated[str, Argument(help="A set, such as retinamnist; an unknown name lists them.")],
    folder: Annotated[Path, Option(help="Where the sets go.")] = Path("data"),
    limit: Annotated[int | None, Option(help="Images, half of them malignant; for skin_lesion, 200 when left.")] = None,
) -> None:
    """Fetch a public set from its home: progress, checksum, licence. Where a login is needed, how to do it.

    \b
    Example: medic download skin_lesion --limit 200 --folder data
    """
    from medic.data.download import download as fetch_set

    print(fetch_set(name, folder, limit=limit))


@app.command()
def sample(
    folder: Annotated[Path, Argument(help="An absent or empty folder, or an earlier sample.")],
    data_set: Annotated[
        str, Option("--set", "--line", help="retinopathy, chest_xray, skin_lesion or digits; once --line.")
    ] = "retinopathy",
    patients: Annotated[int | None, Option(help="Made-up ones; else the sample's number.")] = None,
    seed: Annotated[int | None, Option(min=0, max=4294967295, help="Same seed, same files.")] = None,
    hospital: Annotated[int | None, Option(min=1, max=2, help="2 has another camera.")] = None,
    masks: Annotated[bool, Option("--masks", help="Write where each lesion lies, too.")] = False,
) -> None:
    """Write a sample in the published layout: synthetic fundus photographs, radiographs or lesions, or real digits.

    \b
    Example: medic sample outputs/more_eyes/retinopathy --patients 200 --seed 7
             medic sample outputs/second/skin_lesion --set skin_lesion --hospital 2 --masks
    """
    from medic.sample import SAMPLES, digits

    asked = options.given(patients=patients, seed=seed, hospital=hospital, masks=masks or None)
    if data_set == "digits" and not asked:
        digits.write_sample(folder)
        print(f"scikit-learn's handwritten digits in {folder}")
    elif data_set in SAMPLES:
        records = SAMPLES[data_set].write(folder, **asked)
        print(f"{len(records)} synthetic images of {records['patient'].nunique()} made-up patients in {folder}")
    else:
        named = ", ".join(f"--{name}" for name in asked)
        why = f"digits are real scans and not drawn; leave {named} away" if data_set == "digits" else "no such set"
        raise MedicError(f"cannot draw {data_set!r}: {why}; there is: {', '.join([*SAMPLES, 'digits'])}")


@app.command()
def describe(
    task: options.TaskArgument,
    data: options.DataOption = Path("sample_data"),
    images: options.ImagesOption = None,
    label_column: options.LabelColumnOption = None,
    image_column: options.ImageColumnOption = None,
    patient_column: options.PatientColumnOption = None,
    positive: options.PositiveOption = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say what a data set holds: images, patients, classes by split, what is missing. No image is opened.

    \b
    Example: medic describe retinopathy --data ../shared/data
    """
    from medic.data.explore import describe as describe_records

    how = options.how_to_read(label_column, image_column, patient_column)
    records, store, found, _ = _read(task, data, images, how, positive)
    description = describe_records(records, store, found)
    print(json.dumps(description.to_dict(), indent=2) if as_json else description)


@app.command("check")
def check_sets(
    what: Annotated[
        str | None, Argument(help="A data folder (all sets in it are checked), or one set, such as retinopathy.")
    ] = None,
    data: Annotated[
        Path | None, Option("--data", "-d", help="Where a set is named: the data folder; sample_data when left.")
    ] = None,
    to: Annotated[Path, Option(help="Folder of the tables and pages, a folder a set.")] = Path("outputs/check"),
    label_column: options.LabelColumnOption = None,
    image_column: options.ImageColumnOption = None,
    patient_column: options.PatientColumnOption = None,
    scheduler: options.SchedulerOption = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Find what is wrong with images and labels before training: broken, repeated, dark, blurred, odd, rare.

    Writes for each set findings.csv and findings.html, a page with pictures. Findings are no failure: the status is 0.

    \b
    Example: medic check ../shared/data
             medic check skin_lesion --data ../shared/data
    """
    from medic.data.check.report import check_set, sets_in
    from medic.data.readers import DATA_SETS, OWN
    from medic.task import TASKS

    # A folder that is called as a data set and lies here is that folder, unless another is named.
    if what is not None and data is None and (what not in (*DATA_SETS, OWN.name, *TASKS) or Path(what).exists()):
        data, what = Path(what), None
    sets = sets_in(data or Path("sample_data"), what)
    how = options.how_to_read(label_column, image_column, patient_column)
    if how and set(sets) != {OWN.name}:
        raise MedicError(f"named columns are for images of your own; {' and '.join(sets)} have their layout")
    checked, failed = {}, []
    for found, (data_set, source) in sets.items():
        try:
            one = checked[found] = check_set(data_set, source, to / found, scheduler=scheduler, **how)
        except MedicError as error:
            failed.append(f"{found}: {error}")
            continue
        if not as_json:
            count = sum(kind["found"] for kind in one["findings"].values())
            print(f"{found}: {one['images']:,} images, {f'{count:,} findings' if count else 'nothing found'}")
            for kind, said in one["findings"].items():
                print(f"  {kind:22}{said['found']:>7,}  {said['first']}")
            print(f"  see {one['page']}")
    if as_json:
        print(json.dumps(checked, indent=2))
    if failed:
        raise MedicError("; ".join(failed))


@app.command("data")
def competition_data(
    main: Annotated[Path, Option("--main", "--zip_main", "-m", help="Zip file or folder of the competition.")],
    extra: Annotated[
        Path | None, Option("--additional", "--zip_2015", "-a", help="Zip file or folder of the 2015 set.")
    ] = None,
    directory: Annotated[Path, Option("--directory", "-d", help="Where the prepared set goes.")] = Path("data"),
    per_class: Annotated[int, Option(help="Training images of each class, at most.")] = 1000,
    validation: Annotated[float, Option(help="Share of the main archive's patients.")] = 0.2,
    size: options.SizeOption = 512,
    seed: options.SeedOption = 0,
) -> None:
    """Choose training and validation images from two archives, as the competition needs them, and prepare them.

    Nothing is unpacked. Validation keeps the main archive's natural distribution; training has the same number of
    images of each class, filled up from the 2015 set. Interrupted, it goes on; repeated, it does only what is new.

    \b
    Example: medic data -m MAIN.zip -a EXTRA.zip -d data
    """
    from medic.data.competition import select, write
    from medic.data.images.preprocess import Preprocessing
    from medic.data.records import class_counts
    from medic.task import RETINOPATHY

    listed, store = select(main, extra, per_class=per_class, validation=validation, seed=seed)
    prepared = write(listed, store, directory, Preprocessing(size=size))
    counts = class_counts(prepared.records, RETINOPATHY)
    print(counts.to_string())
    for name, count in counts["train"][counts["train"] < per_class].items():
        print(f"{name}: {count} training images of the {per_class} asked for; there are no more to use")
    for reason, count in listed.loc[listed["reason"] != "", "reason"].value_counts().items():
        print(f"{count} images left out: {reason}")
    print(f"{len(prepared.records)} images prepared at {size} px in {directory}; selection.csv there accounts for all")
    if prepared.synthetic:
        print("the photographs are SYNTHETIC: nothing made from them is clinical")
    _report_skipped(prepared)


@app.command()
def prepare(
    task: options.TaskArgument,
    data: options.DataOption = Path("sample_data"),
    images: options.ImagesOption = None,
    to: Annotated[Path, Option(help="Folder of the prepared set.")] = Path("outputs/prepared"),
    size: options.SizeOption = 320,
    test: Annotated[
        float | None, Option(help="Share of patients for testing; else the source's own test split.")
    ] = None,
    label_column: options.LabelColumnOption = None,
    image_column: options.ImageColumnOption = None,
    patient_column: options.PatientColumnOption = None,
    positive: options.PositiveOption = None,
    seed: options.SeedOption = 0,
    scheduler: options.SchedulerOption = None,
) -> None:
    """Check, split by patient, crop and scale once. Interrupted, it goes on; repeated, it does only what is new.

    \b
    Example: medic prepare retinopathy --data ../shared/data --size 384 --to outputs/prepared/mine
    """
    from medic.data.prepare import prepare as prepare_images
    from medic.data.readers import OWN
    from medic.data.records import class_counts, lacking
    from medic.data.split import complete_splits, split_by_patient

    how = options.how_to_read(label_column, image_column, patient_column)
    records, store, found, data_set = _read(task, data, images, how, positive)
    if data_set is OWN and found.thresholds:
        print(f"of the two classes {found.classes[1]} is the positive one (--positive names the other)")
    split = {"seed": seed, "task": found, "store": store}
    if test is not None:
        records = split_by_patient(records, test=test, **split)
    else:
        if not (records["split"] == "test").any():
            print("the source has no test split: 20 % of the patients are set aside for it")
        records = complete_splits(records, **split)
    if test != 0 and not (records["split"] == "test").any():
        what = f"{records['patient'].nunique()} patients are too few to set some aside for testing"
        raise MedicError(f"{what}; add patients, or name the column that tells them apart (--patient-column)")
    prepared = prepare_images(records, store, to, replace(data_set.preprocessing, size=size), scheduler=scheduler)
    print(class_counts(prepared.records, found).to_string())
    print(f"{len(prepared.records)} images prepared at {size} px in {to}")
    for sentence in lacking(prepared.records, found) if data_set is OWN else ():
        print(sentence, file=sys.stderr)
    _report_skipped(prepared)


def _read(
    task: str, data: Path, images: Path | None, how: dict[str, object], positive: str | None
) -> "tuple[pd.DataFrame, Store, Task, DataSet]":
    from medic.data.readers import OWN, data_set_of
    from medic.task import find_task

    data_set = OWN if task == OWN.name else data_set_of(find_task(task))
    if data_set is not OWN and (how or positive is not None):
        raise MedicError(f"--positive and named columns are for images of your own; {task} has its own classes")
    records, store = data_set.read(data_set.find(data), images, **how)
    if positive is not None:
        records = data_set.with_positive(records, positive)
    return records, store, data_set.task(records) if data_set is OWN else find_task(task), data_set


def _report_skipped(prepared: "Prepared") -> None:
    for row in prepared.skipped.itertuples():
        print(f"skipped {row.image}: {row.reason}, {row.detail}", file=sys.stderr)
