"""Synthetic radiographs as files: PNG of several kinds and DICOM, byte for byte the same on every run."""

import hashlib
import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray, mode: str = "L") -> bytes:
    """Encode grey values, uint8 (H, W), as PNG: "L", "RGB", "RGBA", or "I;16" (each value times 257)."""
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if mode == "I;16" else pixels)
    buffer = io.BytesIO()
    (image if mode in ("L", "I;16") else image.convert(mode)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


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

    name = f"{person['id']} {bits}"
    meta, data, buffer = FileMetaDataset(), Dataset(), io.BytesIO()
    meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid(f"instance {name}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("medic sample"), "MEDIC_SAMPLE"
    data.file_meta = meta
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(f"study {name}"), uid(f"series {name}")
    data.StudyDate = data.ContentDate = "20260101"
    data.StudyTime = data.ContentTime = "000000"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", person["view"]
    data.PatientName, data.ImageComments = "Synthetic^Sample", "Drawn by a program: no real patient"
    data.PatientID, data.PatientAge, data.PatientSex = person["id"], person["age"], person["sex"]

    stored = (255 - pixels if inverted else pixels).astype(np.uint16)
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    if bits > 8:
        stored, offset = 1000 + 8 * stored, -1024 if bits == 12 else 0
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, offset, "US"
        data.WindowCenter, data.WindowWidth = 2020 + offset, 2041
    data.PixelData = stored.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
