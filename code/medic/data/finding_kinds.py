"""What each kind of finding means, and what to do about it: for reports, and for whoever reads a table of findings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        title: in words.
        means: what is known, and what it does to a result.
        do: what to do about it.
        mend: whether it is wrong in any case; otherwise somebody has to look.
    """

    title: str
    means: str
    do: str
    mend: bool = False


_AGAIN = "Copy or download the file again. Until then the image is left out of the prepared set."

KINDS = {
    "mislabelled": Kind(
        "Probably labelled wrongly",
        "A model that had not seen the image, nor others of the same patient, is sure of another class than the label "
        "says.",
        "Look at each with somebody who may judge it, and correct the label or leave it. A hard case is no mistake.",
    ),
    "identical": Kind(
        "Identical files",
        "The same bytes under two names. In two splits they test a model on what it has learnt; with different labels "
        "at least one label is wrong.",
        "Keep one. Where labels or patients differ, ask the source which is right, and exclude both until you know.",
        mend=True,
    ),
    "near_duplicate": Kind(
        "The same picture in other bytes",
        "Saved anew, scaled, brightened, mirrored or turned. It does what identical files do, and no checksum "
        "finds it.",
        "Look at both. Keep one, or put both into one split.",
        mend=True,
    ),
    "patient_in_two_splits": Kind(
        "Patients in two splits",
        "A model is tested on people whom it has seen in training, and its figures flatter.",
        "Split anew by patient (medic.data.split.split_by_patient).",
        mend=True,
    ),
    "absent": Kind("Listed, but absent", "The table names a file that is not there.", _AGAIN, mend=True),
    "empty": Kind("Empty files", "The file has no byte.", _AGAIN, mend=True),
    "truncated": Kind("Cut off files", "The file ends before its image does.", _AGAIN, mend=True),
    "unreadable": Kind("Damaged files", "The file cannot be decoded.", _AGAIN, mend=True),
    "unsupported": Kind(
        "Files in formats that are not read",
        "No image, or one in a format other than JPEG, PNG, TIFF, BMP and DICOM, such as an animated GIF.",
        "Save the picture that is meant as PNG or JPEG, under a name of its own.",
        mend=True,
    ),
    "too_large": Kind("Too large", "The file claims more pixels than are decoded.", "Scale it down first.", mend=True),
    "noted": Kind(
        "Rows that were not taken as they stand",
        "The reader had to treat a value of the table as unknown.",
        "Correct the table, if you know better.",
    ),
    "nearly_black": Kind(
        "Nearly black", "Nothing can be seen that could be judged.", "Exclude it, or find the exposure that was meant."
    ),
    "too_dark": Kind(
        "Dark",
        "Less than two fifths as bright as is usual in the set.",
        "Look whether it can be judged; exclude it if not.",
    ),
    "too_bright": Kind(
        "Overexposed", "More than half of its pixels are white.", "Look whether it can be judged; exclude it if not."
    ),
    "blurred": Kind(
        "Blurred",
        "It has far less fine detail than the rest of the set has. Small lesions cannot be seen in it.",
        "Look whether it can be judged. An opaque eye or smooth skin can look so, too.",
    ),
    "odd_size": Kind(
        "Odd size or shape",
        "Hardly any other image has its size or its shape. A cut-out, a thumbnail or a picture from elsewhere "
        "looks so.",
        "Look whether it belongs to the set.",
    ),
    "odd_channels": Kind(
        "Odd channels",
        "It is stored otherwise than the rest: grey among colours, with transparency, with a palette, for print. All "
        "are read; but where a class has more of them, a model may learn the file instead of the disease.",
        "Look where it comes from.",
    ),
    "rare_class": Kind(
        "Classes with few images or patients",
        "Fewer than 10 images or 5 patients: too few to learn it, and far too few to judge it.",
        "Collect more, join it with another class, or leave it out of the figures.",
    ),
    "single_patient_class": Kind(
        "Classes of one patient",
        "All images of the class show one patient: a model learns the patient.",
        "Collect more, or leave the class out.",
    ),
    "split_imbalance": Kind(
        "Splits without a class",
        "A class occurs in the set, but not in one of its splits: it is not learnt there, or not judged.",
        "Split anew, stratified by class (medic.data.split.split_by_patient).",
    ),
    "unlisted": Kind(
        "Images that no row names",
        "They lie among the listed images and are used for nothing.",
        "Add a row with their label, or move them elsewhere.",
    ),
    "not_an_image": Kind(
        "Other files among the images", "They are passed over.", "Move them elsewhere, so that nothing is overlooked."
    ),
}
"""By the name in a table of findings, the gravest first."""
