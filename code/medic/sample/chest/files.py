"""Synthetic radiographs as files: PNG of several kinds and DICOM, byte for byte the same on every run."""

import hashlib
import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray, fault: str = "") -> bytes:
    """Encode grey values, uint8 (H, W), as PNG; with a fault: "RGB", "RGBA", "16 bit" (times 257) or "truncated"."""
    image, buffer = Image.fromarray(pixels.astype(np.uint16) * 257 if fault == "16 bit" else pixels), io.BytesIO()
    (image.convert(fault) if fault in ("RGB", "RGBA") else image).save(buffer, "PNG", optimize=True)
    data = buffer.getvalue()
    return data[: len(data) * 2 // 5] if fault == "truncated" else data


def dicom(pixels: np.ndarray, person: dict[str, str], *, bits: int = 8, inverted: bool = False) -> bytes:
    """Encode uint8 (H, W) as an uncompressed DICOM file (PS3.3, Digital X-Ray image).

    With more than 8 bits, value p is stored as 1000 + 8p, and a window says which stored values are black and white
    (C.11.2.1.2, linear); 16 bits come without and 12 bits with an offset to subtract first (C.11.1).

    Args:
        pixels: grey values, bright where tissue is dense.
        person: ``id``, ``age`` (such as "058Y"), ``sex`` and ``view``; the name is always made up.
        bits: 8, 12 or 16.
        inverted: MONOCHROME1: high values are dark.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    def uid(of: str) -> str:
        return f"2.25.{int(hashlib.sha256(of.encode()).hexdigest()[:30], 16)}"

    data, name, buffer = Dataset(), f"{person['id']} {bits}", io.BytesIO()
    data.file_meta = meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("medic sample"), "MEDIC_SAMPLE"
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, uid(f"instance {name}")
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(f"study {name}"), uid(f"series {name}")
    data.StudyDate = data.ContentDate = "20260101"
    data.StudyTime = data.ContentTime = "000000"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", person["view"]
    data.PatientName, data.ImageComments = "Synthetic^Sample", "Drawn by a program: no real patient"
    data.PatientID, data.PatientAge, data.PatientSex = person["id"], person["age"], person["sex"]
    stored = 255 - pixels if inverted else pixels
    if bits > 8:
        stored, offset = 1000 + 8 * stored.astype(np.uint16), -1024 if bits == 12 else 0
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, offset, "US"
        data.WindowCenter, data.WindowWidth = 2020 + offset, 2041
    data.set_pixel_data(stored, f"MONOCHROME{1 if inverted else 2}", bits, generate_instance_uid=False)
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
