"""A bundle's graph laid out for servers that load ONNX themselves: Triton, and OpenVINO Model Server."""

from __future__ import annotations

from pathlib import Path

from medic.deployment.bundle import Bundle
from medic.deployment.bundle.predictor import BATCH, open_session
from medic.errors import MedicError
from medic.files import write_bytes, write_text

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
LABELS = "labels.txt"


def write_model_repository(bundle: Bundle, folder: str | Path, name: str) -> Path:
    """Write ``<name>/config.pbtxt``, ``<name>/labels.txt`` and ``<name>/1/model.onnx`` into a folder.

    Such a server takes prepared pixels, uint8 (N, size, size, 3) RGB, as ``Predictor.pixels`` makes them: it decodes
    and crops no photograph. Triton reads all of it; OpenVINO Model Server reads ``1/model.onnx`` and passes over the
    rest.

    Args:
        bundle: whose graph.
        folder: the model repository.
        name: what the model is called there.

    Returns:
        The model's folder.

    Raises:
        MedicError: the graph has a tensor that medic did not give it, or the folder cannot be written.
    """
    model = Path(folder) / name
    write_text(model / "config.pbtxt", triton_config(bundle, name))
    write_text(model / LABELS, "".join(f"{label}\n" for label in bundle.task.classes))
    write_bytes(model / "1" / "model.onnx", (bundle.folder / "model.onnx").read_bytes())
    return model


def triton_config(bundle: Bundle, name: str) -> str:
    """The ``config.pbtxt`` of a bundle's graph, made from the graph's own names, types and sizes.

    Every output is listed, so that what a client may ask for is what the graph has; one that asks for nothing in
    particular gets them all. The class activation map, where there is one, is small, and lets a client draw the
    heatmap.
    """
    session = open_session(bundle.folder / "model.onnx", threads=1)
    inputs = [_tensor(tensor, "") for tensor in session.get_inputs()]
    outputs = [
        _tensor(tensor, f'label_filename: "{LABELS}"' if tensor.name == "probabilities" else "")
        for tensor in session.get_outputs()
    ]
    separator = ",\n"
    return f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {BATCH}
input [
{separator.join(inputs)}
]
output [
{separator.join(outputs)}
]
dynamic_batching {{
  preferred_batch_size: [ {BATCH // 4}, {BATCH} ]
  max_queue_delay_microseconds: 2000
}}
"""


def _tensor(tensor: object, more: str) -> str:
    if tensor.type not in TYPES or not tensor.shape or isinstance(tensor.shape[0], int):
        raise MedicError(
            f"the graph's {tensor.name} is {tensor.type} {tensor.shape}; medic writes uint8 or float32 with any number "
            "of images first: export the model again"
        )
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]
    lines = [f'name: "{tensor.name}"', f"data_type: {TYPES[tensor.type]}", f"dims: {sizes or [1]}"]
    if not sizes:
        # Triton wants a size beside the number of images; the graph gives one number an image and no more.
        lines.append("reshape: { shape: [] }")
    lines += [more] if more else []
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"
