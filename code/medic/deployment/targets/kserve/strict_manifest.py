"""A manifest read strictly, without a cluster: through the models of KServe's SDK and of the Kubernetes client."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from medic.errors import MedicError

CHECKED_TYPES = {"str": str, "bool": bool, "int": int, "float": (int, float), "datetime": (str, datetime.datetime)}
RENAMED = {
    "K8sIoApiAppsV1DeploymentStrategy": "V1DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": "V2HorizontalPodAutoscalerBehavior",
}
"""Types that KServe's SDK names otherwise than the Kubernetes client does."""


def check_manifest(values: Mapping[str, Any], type_name: str = "V1beta1InferenceService") -> Any:
    """Read a manifest strictly through the models of KServe's SDK and of the Kubernetes client.

    Every field must be one that the model knows, every value of its type, and whatever a model requires must be there.
    Not covered: what the cluster's own schema and webhooks ask beyond that (patterns, ranges, fields that exclude each
    other), and whether its version of KServe knows every field of this SDK.

    Args:
        values: the manifest, as read from JSON or YAML.
        type_name: the model to read it by.

    Returns:
        The model's object, as the clients take it.

    Raises:
        MedicError: it does not fit; the message names the field.
    """
    return _read(values, type_name, values.get("kind", type_name))


def _read(value: Any, type_name: str, path: str) -> Any:
    if value is None:
        raise MedicError(f"the manifest's {path} is empty; leave it out or fill it in")
    if items := re.fullmatch(r"list\[(.+)\]", type_name):
        _expect(value, list, path, "a list")
        return [_read(item, items.group(1), f"{path}[{number}]") for number, item in enumerate(value)]
    if entries := re.fullmatch(r"dict[(\[]str, (.+)[)\]]", type_name):
        _expect(value, Mapping, path, "a mapping")
        return {
            _expect(key, str, path, "text"): _read(item, entries[1], f"{path}.{key}") for key, item in value.items()
        }
    if type_name == "object":
        return value
    if type_name == "ResourceQuantity":
        return _expect(value, str, path, "a quantity as text, such as 500m or 1Gi")
    if type_name in CHECKED_TYPES:
        return _expect(value, CHECKED_TYPES[type_name], path, type_name)
    return _read_model(_expect(value, Mapping, path, "a mapping"), _model(type_name, path), path)


def _read_model(value: Mapping[str, Any], model: type, path: str) -> Any:
    attributes = {field: name for name, field in model.attribute_map.items()}
    if unknown := sorted(set(value) - set(attributes)):
        raise MedicError(
            f"the manifest has an unknown field {path}.{unknown[0]}; {model.__name__} knows "
            f"{', '.join(sorted(attributes))}"
        )
    read = {
        attributes[field]: _read(item, model.openapi_types[attributes[field]], f"{path}.{field}")
        for field, item in value.items()
    }
    try:
        return model(**read)
    except ValueError as error:
        raise MedicError(f"the manifest's {path} does not fit {model.__name__} ({error}); correct it") from error


def _model(type_name: str, path: str) -> type:
    import kserve
    import kubernetes.client

    name = RENAMED.get(type_name, type_name)
    found = getattr(kserve.models, name, None) or getattr(kubernetes.client, name, None)
    if found is None:
        raise MedicError(f"neither KServe's SDK nor the Kubernetes client can check {path} ({type_name}); leave it out")
    return found


def _expect(value: Any, kinds: type | tuple[type, ...], path: str, words: str) -> Any:
    # To Python a truth value is a number; to Kubernetes it is not.
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise MedicError(f"the manifest's {path} should be {words}, it is {value!r}; correct it")
    return value
