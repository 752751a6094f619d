"""Checks the manifests against the schema of KubeRay's RayService: `make check-manifests CRD=ray.io_rayservices.yaml`.

KubeRay's repository has the file in `ray-operator/config/crd/bases/`. Like the API server with strict validation, the
check rejects fields that the schema does not have. Kubernetes' own objects are checked by `kubectl apply --dry-run`.
"""  # noqa: INP001 - a script, not a package

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parent

Schema = dict[str, Any]


@click.command()
@click.argument("crd", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(crd: Path) -> None:
    """Check the RayService, and the one with Redis, against the custom resource definition in the file CRD."""
    definition = yaml.safe_load(crd.read_text())
    base = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
    patch = yaml.safe_load((FOLDER / "redis" / "rayservice.yaml").read_text())
    failures = 0
    for name, manifest in {"rayservice.yaml": base, "redis/rayservice.yaml": merged(base, patch)}.items():
        found = list(faults(manifest, definition))
        click.echo(f"{name}: " + ("valid" if not found else "\n  ".join(["invalid", *found])))
        failures += len(found)
    sys.exit(failures > 0)


def faults(manifest: dict[str, Any], definition: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each part of a manifest that a custom resource definition does not allow."""
    group, _, version = manifest["apiVersion"].partition("/")
    spec = definition["spec"]
    if (group, manifest["kind"]) != (spec["group"], spec["names"]["kind"]):
        yield f"the definition is of {spec['names']['kind']} of {spec['group']}"
        return
    schemas = {each["name"]: each["schema"]["openAPIV3Schema"] for each in spec["versions"] if each["served"]}
    if version not in schemas:
        yield f"version {version} is not served, but {', '.join(schemas)}"
        return
    for error in Draft202012Validator(strict(schemas[version])).iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"


def strict(schema: Schema) -> Schema:
    """Return an OpenAPI schema as a JSON schema that allows no other properties than those it names."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = strict(schema[key])
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") else result


def merged(target: Any, patch: Any) -> Any:
    """Return a document with a JSON merge patch (RFC 7396), which is how kustomize patches custom resources."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


if __name__ == "__main__":
    main()
