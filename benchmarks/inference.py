"""Inference on the CPU: torch in its usual forms, our fp32 and int8 bundles, and the bare runtime as the limit.

The reference is a forward pass of plain torch as it is commonly written: bytes of pixels to a contiguous float batch,
normalised, through the network, softmax. Every method does that work, on the same prepared photographs, each in a
process of its own with the same number of threads. The processes take turns and are blocked in between. The limit is
onnxruntime on the network alone, from floats that are normalised already.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import ROOT, Row, arguments, figure, interleave, origin, rows, run, show, write
from network import Network, held_out, network
from turns import Worker

from medic.data.parallel import usable_cores

NAME = "inference"
REFERENCE = "torch eager"
FP32, INT8, LIMIT = "medic fp32", "medic int8", "limit: bare onnxruntime fp32"
TARGETS = {FP32: 1.8, INT8: 5.0}
SIZE_TARGET = 0.27
AGREEMENT = 0.97
"""Least share of photographs with the same decision: as ``medic.deployment.compress.acceptance`` asks."""
CALLS = {1: 8, 8: 2}
"""Forward passes in one turn, by the size of the batch: enough that waking the process does not count."""


def torch_method(how: str, checkpoint: str, pixels: str, threads: int) -> Callable[[int, int], None]:
    """A torch network in its own process; called with the size of the batch and the number of passes."""
    import torch

    from medic.modeling.classifier import Classifier

    torch.set_num_threads(threads)
    model = Classifier.load(checkpoint)
    images = torch.from_numpy(np.load(pixels))
    network, last = model.backbone.eval(), torch.channels_last
    if how != REFERENCE:
        network = network.to(memory_format=last)
    if how == "torch.compile":
        network = torch.compile(network)

    @torch.inference_mode()
    def passes(batch: int, calls: int) -> None:
        for _ in range(calls):
            x = images[:batch].permute(0, 3, 1, 2)
            x = x.contiguous(memory_format=torch.contiguous_format if how == REFERENCE else last).float()
            with torch.autocast("cpu", torch.bfloat16, enabled=how == "torch bf16 autocast"):
                network((x - model.mean) / model.std).float().softmax(1).numpy()

    return passes


def medic_method(bundle: str, pixels: str, threads: int) -> Callable[[int, int], None]:
    """Our bundle in its own process, as ``medic predict`` runs it."""
    from medic.deployment.bundle.predictor import Predictor

    predictor, images = Predictor(bundle, threads), np.load(pixels)

    def passes(batch: int, calls: int) -> None:
        for _ in range(calls):
            predictor.predict_pixels(images[:batch])

    return passes


def bare_method(graph: str, size: int, threads: int) -> Callable[[int, int], None]:
    """The network alone: floats in, outputs out, onnxruntime's own settings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = np.random.default_rng(0).standard_normal((8, 3, size, size), np.float32)

    def passes(batch: int, calls: int) -> None:
        for _ in range(calls):
            session.run(None, {name: images[:batch]})

    return passes


def export_bare(checkpoint: Path, size: int, path: Path) -> Path:
    """Write the network without what surrounds it: no resize, no normalisation, no decoding."""
    import torch

    from medic.deployment.export import quiet
    from medic.modeling.classifier import Classifier

    backbone, example = Classifier.load(checkpoint).backbone.eval(), torch.zeros(2, 3, size, size)
    with quiet():
        torch.onnx.export(
            backbone,
            (example,),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
    return path


def timed(made: dict[str, Path], size: int, batches: dict[int, int], options: argparse.Namespace) -> list[Row]:
    """Every method against every other, at each size of batch.

    Args:
        made: paths: ``checkpoint``, ``fp32``, ``int8``, ``bare`` (graph) and ``pixels`` (``.npy``).
        size: side of the network's input.
        batches: rounds by size of batch.
        options: of the command line.
    """
    checkpoint, pixels, threads = str(made["checkpoint"]), str(made["pixels"]), options.threads
    torch_forms = [REFERENCE, "torch channels_last", "torch bf16 autocast"]
    if options.compile:
        torch_forms.append("torch.compile")
    workers = {how: Worker(torch_method, how, checkpoint, pixels, threads) for how in torch_forms}
    workers[FP32] = Worker(medic_method, str(made["fp32"]), pixels, threads)
    workers[INT8] = Worker(medic_method, str(made["int8"]), pixels, threads)
    workers[LIMIT] = Worker(bare_method, str(made["bare"]), size, threads)
    found = []
    try:
        for worker in workers.values():
            worker.ready()
        for batch, rounds in batches.items():
            calls = CALLS[batch] if size <= 224 else 1
            turns = {name: lambda w=worker, b=batch, c=calls: w.ask(b, c) for name, worker in workers.items()}
            seconds = interleave(turns, rounds)
            name = NAME if size <= 224 else f"{NAME}, EfficientNetV2-M at {size} px"
            found += rows(
                name,
                seconds,
                reference=REFERENCE,
                work=batch * calls,
                metric=f"images_per_s_batch_{batch}",
                targets=TARGETS if size <= 224 else None,
            )
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def kept(made: Network, threads: int) -> list[Row]:
    """What int8 costs: share of equal decisions on held-out photographs, largest change of a probability, size."""
    images = held_out(made.prepared)
    before, after = (bundle.predictor(threads).predict_pixels(images) for bundle in (made.fp32, made.int8))
    same = float((before.decided == after.decided).mean())
    change = float(np.abs(before.probabilities - after.probabilities).max())
    sizes = [(bundle.folder / "model.onnx").stat().st_size for bundle in (made.fp32, made.int8)]
    return [
        figure(NAME, INT8, f"same_decision_of_{len(images)}", same, target=AGREEMENT),
        figure(NAME, INT8, "largest_change_of_a_probability", change),
        figure(NAME, INT8, "size_over_fp32", sizes[1] / sizes[0], target=SIZE_TARGET, at_most=True),
    ]


def large(options: argparse.Namespace) -> list[Row]:
    """EfficientNetV2-M at 380 px with random weights and recalibrated statistics: timed only, nothing is decided."""
    import torch

    from medic.data.images.preprocess import Preprocessing
    from medic.deployment.bundle import About, package
    from medic.deployment.compress import quantize
    from medic.deployment.export import export
    from medic.modeling.classifier import Classifier
    from medic.task import RETINOPATHY

    size, folder = 380, ROOT / "outputs" / "benchmarks" / "efficientnet_v2_m"
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: folder / name for name in ("checkpoint", "fp32", "int8", "bare.onnx", "pixels.npy")}
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    if not (made["int8"] / "manifest.json").is_file():
        torch.manual_seed(0)
        model = Classifier(RETINOPATHY, "efficientnet_v2_m", preprocessing=Preprocessing(size=size), image_size=size)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = None
            model.train()(torch.from_numpy(images))
        model.eval().save(made["checkpoint"])
        np.save(made["pixels.npy"], images)
        export_bare(made["checkpoint"], size, made["bare.onnx"])
        about, photographs = About("random weights, timed only", True), _drawn(2, size)
        graph, small = folder / "fp32.onnx", folder / "int8.onnx"
        export(model, graph, images[:4])
        quantize(graph, small, [images])
        package(model, made["fp32"], graph, photographs, about, archive=False)
        package(model, made["int8"], small, photographs, about, archive=False)
    paths = made | {"bare": made["bare.onnx"], "pixels": made["pixels.npy"]}
    return timed(paths, size, {1: 5, 8: 2}, options)


def _drawn(count: int, size: int) -> list[tuple[str, bytes]]:
    import cv2

    discs = [
        cv2.circle(np.zeros((size, size, 3), np.uint8), (size // 2,) * 2, size // 3, (40, 80, 160 + n), -1)
        for n in range(count)
    ]
    return [(f"{n}.png", cv2.imencode(".png", disc)[1].tobytes()) for n, disc in enumerate(discs)]


def main() -> None:
    """Measure, print and write."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads of each method (default: cores)")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: a minute more, needs a C++ compiler")
    parser.add_argument("--large", action="store_true", help="EfficientNetV2-M at 380 px too: three minutes more")
    options = parser.parse_args()
    made = network(options)
    folder = made.fp32.folder.parent
    np.save(folder / "pixels.npy", held_out(made.prepared)[:8])
    paths = {
        "checkpoint": made.checkpoint,
        "fp32": made.fp32.folder,
        "int8": made.int8.folder,
        "bare": export_bare(made.checkpoint, 224, folder / "bare.onnx"),
        "pixels": folder / "pixels.npy",
    }
    found = timed(paths, 224, {1: 5, 8: 3} if options.quick else {1: 30, 8: 30}, options)
    found += kept(made, options.threads)
    if options.large:
        found += large(options)
    show(found, origin(options.data), made.note, f"{options.threads} threads each")
    write(found, NAME, options)


if __name__ == "__main__":
    run(main)
