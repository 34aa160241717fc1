"""Inference on the CPU: torch in its usual forms, our fp32 and int8 bundles, and the bare runtime as the limit.

The reference is a forward pass of plain torch as it is commonly written: bytes of pixels to a contiguous float batch,
normalised, through the network, softmax. Every method does that work, on the same photographs, each in a process of its
own with the same number of threads. The processes take turns and are blocked in between. The limit is onnxruntime on
the network alone, from floats that are normalised already. The network's weights are random: nothing is decided here.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from measure import ROOT, Row, arguments, ask, figure, interleave, origin, rows, run, show, worker, write

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import usable_cores
from medic.data.readers import retinopathy

NAME = "inference"
SIZE = 224
REFERENCE = "torch eager"
FP32, INT8, LIMIT = "medic fp32", "medic int8", "limit: bare onnxruntime fp32"
TARGETS = {INT8: 3.0}
"""Of one image at a time; as many times as fast as torch."""
SIZE_TARGET = 0.3
CALLS = {1: 8, 8: 2}
"""Forward passes in one turn, by the size of the batch: enough that waking the process does not count."""
PHOTOGRAPHS, JPEG_BYTES = 8, 44_000


def photographs(data: Path, count: int = PHOTOGRAPHS) -> list[bytes]:
    """Return photographs as JPEGs of about 44 kB each: encoded anew, at the best quality that stays below it."""
    records, store = retinopathy.read(data / "retinopathy")
    found = []
    for name in [name for name in records["image"] if name in store][:count]:
        pixels = cv2.imdecode(np.frombuffer(store.read(name), np.uint8), cv2.IMREAD_COLOR)
        qualities = (cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, q])[1] for q in range(98, 4, -2))
        found.append(next(made for made in qualities if len(made) <= JPEG_BYTES).tobytes())
    return found


def network(data: Path) -> Path:
    """Make an EfficientNet-Lite0 with random weights in every form that is measured.

    Returns:
        A folder with ``checkpoint``, the bundles ``fp32`` and ``int8``, ``bare.onnx`` and ``pixels.npy``.
    """
    # Here, because every process of a benchmark imports this file, and only this function needs seconds of imports.
    import torch

    from medic.deployment.bundle import About, package
    from medic.deployment.compress import quantize
    from medic.deployment.export import export
    from medic.modeling.classifier import Classifier
    from medic.task import RETINOPATHY

    folder = ROOT / "outputs" / "benchmarks" / "efficientnet_lite0"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, preprocessing = photographs(data), Preprocessing(size=SIZE)
    pixels = np.stack([preprocessing.pixels(file) for file in files])
    np.save(folder / "pixels.npy", pixels)
    torch.manual_seed(0)
    model = Classifier(RETINOPATHY, "efficientnet_lite0", preprocessing=preprocessing, image_size=SIZE).eval()
    model.save(folder / "checkpoint")
    export(model, folder / "fp32.onnx", pixels[:4])
    quantize(folder / "fp32.onnx", folder / "int8.onnx", pixels)
    golden = [(f"{number}.jpeg", file) for number, file in enumerate(files[:2])]
    for form in ("fp32", "int8"):
        about = About(f"random weights, timed only; {origin(data)}", True)
        package(folder / f"{form}.onnx", folder / form, golden, about, archive=False)
    batch = {0: torch.export.Dim("batch", min=1)}
    torch.onnx.export(
        model.backbone,
        (torch.zeros(2, 3, SIZE, SIZE),),
        folder / "bare.onnx",
        dynamo=True,
        verbose=False,
        dynamic_shapes=(batch,),
    )
    return folder


def torch_method(how: str, folder: Path, threads: int) -> Callable[[int, int], None]:
    """Build a torch network; called with the size of the batch and the number of passes."""
    import torch

    from medic.modeling.classifier import Classifier

    torch.set_num_threads(threads)
    model, images = Classifier.load(folder / "checkpoint"), torch.from_numpy(np.load(folder / "pixels.npy"))
    layout = torch.contiguous_format if how == REFERENCE else torch.channels_last
    backbone = model.backbone.eval().to(memory_format=layout)

    @torch.inference_mode()
    def passes(batch: int, calls: int) -> None:
        for _ in range(calls):
            x = images[:batch].permute(0, 3, 1, 2).contiguous(memory_format=layout).float()
            with torch.autocast("cpu", torch.bfloat16, enabled=how == "torch bf16 autocast"):
                backbone((x - model.mean) / model.std).float().softmax(1).numpy()

    return passes


def medic_method(form: str, folder: Path, threads: int) -> Callable[[int, int], None]:
    """Open our bundle as ``medic predict`` runs it."""
    from medic.deployment.bundle.predictor import Predictor

    predictor, images = Predictor(folder / form, threads), np.load(folder / "pixels.npy")
    return lambda batch, calls: [predictor.predict_pixels(images[:batch]) for _ in range(calls)] and None


def bare_method(folder: Path, threads: int) -> Callable[[int, int], None]:
    """Open the network alone: floats in, outputs out, onnxruntime's own settings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(folder / "bare.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = np.random.default_rng(0).standard_normal((8, 3, SIZE, SIZE), np.float32)
    return lambda batch, calls: [session.run(None, {name: images[:batch]}) for _ in range(calls)] and None


def timed(folder: Path, batches: dict[int, int], threads: int) -> list[Row]:
    """Time every method of what ``network`` made against every other; ``batches`` holds rounds by size of batch."""
    usual = (REFERENCE, "torch channels_last", "torch bf16 autocast")
    processes = {how: worker(torch_method, how, folder, threads) for how in usual}
    processes |= {f"medic {form}": worker(medic_method, form, folder, threads) for form in ("fp32", "int8")}
    processes[LIMIT] = worker(bare_method, folder, threads)
    found = []
    for batch, rounds in batches.items():
        calls = CALLS[batch]
        methods = {name: lambda p=p, b=batch, c=calls: ask(p, b, c) for name, p in processes.items()}
        seconds, metric = interleave(methods, rounds), f"images_per_s_batch_{batch}"
        found += rows(
            NAME, seconds, reference=REFERENCE, work=batch * calls, metric=metric, targets=TARGETS if batch == 1 else {}
        )
    for process in processes.values():
        process.shutdown()
    return found


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads of each method (default: cores)")
    options = parser.parse_args()
    folder = network(options.data)
    found = timed(folder, {1: 5, 8: 3} if options.quick else {1: 30, 8: 30}, options.threads)
    small, large = ((folder / form / "model.onnx").stat().st_size for form in ("int8", "fp32"))
    found.append(figure(NAME, INT8, "size_over_fp32", small / large, target=SIZE_TARGET, at_most=True))
    show(
        found, origin(options.data), f"EfficientNet-Lite0 at {SIZE} px, random weights; {options.threads} threads each"
    )
    write(found, NAME, options)


if __name__ == "__main__":
    run(main)
