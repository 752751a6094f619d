"""The manifests and Dockerfiles of deploy/ agree with the server's configuration and keep it confined."""

import copy
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.arguments import Arguments
from tests.workshop import PROJECT

KUBERNETES = PROJECT / "deploy" / "kubernetes"
DOCKER = PROJECT / "deploy" / "docker"
MANIFESTS = sorted(KUBERNETES.rglob("*.yaml"))
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
SERVICE: dict[str, Any] = yaml.safe_load((KUBERNETES / "rayservice.yaml").read_text())
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
CONFIG: dict[str, Any] = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
TEMPLATES: dict[str, dict[str, Any]] = {
    "head": CLUSTER["headGroupSpec"]["template"],
    **{group["groupName"]: group["template"] for group in CLUSTER["workerGroupSpecs"]},
}

each_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)

#: A small definition of a custom resource, in the form of KubeRay's.
DEFINITION = {
    "spec": {
        "group": "ray.io",
        "names": {"kind": "RayService"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "note": {"type": "string", "nullable": True},
                                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                },
                            },
                        },
                    }
                },
            }
        ],
    }
}


def _container(template: dict[str, Any]) -> dict[str, Any]:
    [container] = template["spec"]["containers"]
    return container


def _stage(dockerfile: Path) -> list[str]:
    """Return the lines of the last stage, which is the image."""
    lines = dockerfile.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return lines[last:]


def _check() -> Any:
    spec = importlib.util.spec_from_file_location("check_manifests", KUBERNETES / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_serve_config_is_the_tested_file_with_secrets_and_a_replica_on_each_worker():
    expected = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text())
    arguments = expected["applications"][0]["args"]
    arguments |= {
        "credentials_file": "/etc/policy-server/credentials",
        "auth_token_file": "/etc/policy-server/token",
    }
    arguments["autoscaling"] |= {"min_replicas": 2, "max_replicas": 4}
    assert expected == CONFIG


def test_arguments_of_the_application_are_valid():
    for application in CONFIG["applications"]:
        Arguments.model_validate(application["args"])


def test_there_is_a_replica_for_each_worker():
    [workers] = CLUSTER["workerGroupSpecs"]
    scaling = CONFIG["applications"][0]["args"]["autoscaling"]
    assert scaling["min_replicas"] == workers["replicas"]
    cpus = int(_container(workers["template"])["resources"]["limits"]["cpu"])
    assert scaling["max_replicas"] <= workers["replicas"] * cpus


def test_ray_version_is_that_of_the_image():
    assert f"\nray=={CLUSTER['rayVersion']}\n" in (PROJECT / "constraints.txt").read_text()


@each_template
def test_ray_is_started_with_the_settings_of_a_policy_server(template):
    assert SERVICE["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    container = _container(template)
    assert container["command"] == ["/bin/bash", "-c", "--"]
    assert container["args"][0].endswith('eval "exec python -m serving $KUBERAY_GEN_RAY_START_CMD"')


@each_template
def test_pods_are_confined(template):
    pod, container = template["spec"], _container(template)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == container["resources"].keys()


@each_template
def test_what_the_server_writes_is_on_volumes(template):
    mounts = {mount["mountPath"]: mount["name"] for mount in _container(template)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    home_and_cache = re.findall(r"\b(?:XDG_CACHE_)?HOME=(\S+)", (DOCKER / "serving.Dockerfile").read_text())
    assert len(home_and_cache) == 2
    for path in ("/tmp", *home_and_cache):
        assert "emptyDir" in volumes[mounts[path]]


@each_template
def test_secrets_are_files_that_follow_a_change(template):
    [mount] = [each for each in _container(template)["volumeMounts"] if each["name"] == "credentials"]
    assert "subPath" not in mount
    arguments = CONFIG["applications"][0]["args"]
    for file in (arguments["credentials_file"], arguments["auth_token_file"]):
        assert Path(file).parent == Path(mount["mountPath"])
    [volume] = [each for each in template["spec"]["volumes"] if each["name"] == "credentials"]
    assert volume["secret"]["defaultMode"] == 0o400
    # Without it the files belong to root alone.
    assert template["spec"]["securityContext"]["fsGroup"] == template["spec"]["securityContext"]["runAsUser"]


@each_template
def test_ports_and_probes_are_those_of_serve_and_ray(template):
    container = _container(template)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["serve"] == CONFIG["http_options"]["port"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["livenessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_the_head_has_the_ports_that_kuberay_and_workers_use():
    ports = {port["name"]: port["containerPort"] for port in _container(TEMPLATES["head"])["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "serve": 8000}


def test_only_the_clients_port_is_open_to_all():
    policy = yaml.safe_load((KUBERNETES / "network-policy.yaml").read_text())["spec"]
    to_all = [port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]]
    assert to_all == [CONFIG["http_options"]["port"]]
    for template in TEMPLATES.values():
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_disruption_budget_is_of_the_workers_and_leaves_one():
    budget = yaml.safe_load((KUBERNETES / "disruption-budget.yaml").read_text())["spec"]
    selected = budget["selector"]["matchLabels"].items()
    chosen = [name for name, template in TEMPLATES.items() if selected <= template["metadata"]["labels"].items()]
    assert chosen == ["workers"]
    assert 0 < budget["minAvailable"] < CLUSTER["workerGroupSpecs"][0]["replicas"]


def test_redis_is_a_patch_of_the_same_service():
    patch = yaml.safe_load((KUBERNETES / "redis" / "rayservice.yaml").read_text())
    assert {key: patch[key] for key in ("apiVersion", "kind")} == {key: SERVICE[key] for key in ("apiVersion", "kind")}
    assert patch["metadata"]["name"] == SERVICE["metadata"]["name"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda file: str(file.relative_to(KUBERNETES)))
def test_no_manifest_holds_a_secret(manifest):
    def walk(value):
        if isinstance(value, dict):
            assert value.get("kind") != "Secret"
            for name, each in value.items():
                if re.search("password|token$|secret_?key|credential", name, re.IGNORECASE):
                    assert not isinstance(each, str) or each.startswith("/"), name
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    for document in yaml.safe_load_all(manifest.read_text()):
        walk(document)
    assert not re.search(r"://[^/\s]+:[^/\s]+@", manifest.read_text())


def test_every_manifest_is_in_the_kustomization():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    named = {*kustomization["resources"], *kustomization["configurations"], "kustomization.yaml"}
    assert named == {file.name for file in KUBERNETES.glob("*.yaml")}
    [image] = kustomization["images"]
    for template in TEMPLATES.values():
        assert _container(template)["image"] == image["name"]


@each_dockerfile
def test_images_run_as_the_user_of_the_manifests(dockerfile):
    user = TEMPLATES["head"]["spec"]["securityContext"]["runAsUser"]
    users = [line.split()[1] for line in _stage(dockerfile) if line.startswith("USER ")]
    assert users == [f"{user}:{user}"]
    assert any(f"--uid {user} " in line for line in _stage(dockerfile))


@pytest.mark.parametrize(("name", "extra"), [("serving", "serving"), ("training", "pipeline")])
def test_images_install_one_extra_with_the_versions_of_the_constraints(name, extra):
    text = (DOCKER / f"{name}.Dockerfile").read_text()
    assert re.findall(r"^ARG EXTRAS=(.*)", text, re.MULTILINE) == [extra]
    assert text.count(" pip install ") == 1
    assert re.search(
        r'pip install .*--constraint constraints\.txt \\\n +"\$\(ls /dist/\*\.whl\)\[\$\{EXTRAS\}\]"', text
    )


@each_dockerfile
def test_images_can_have_another_base_and_name_no_registry(dockerfile):
    text = dockerfile.read_text()
    assert re.findall(r"^ARG BASE=(.*)", text, re.MULTILINE) == ["python:3.11-slim-bookworm"]
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    assert "index-url" not in text


def test_what_the_images_copy_is_in_the_context_of_the_build():
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for dockerfile in DOCKERFILES:
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile.read_text(), re.MULTILINE)
        assert {name for names in copied for name in names.split()} == kept


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": 1, "note": None, "any": {"x": 1}}, []),
        ({"replicas": "1"}, ["$.spec.replicas: '1' is not of type 'integer'"]),
        ({"replica": 1}, ["$.spec: Additional properties are not allowed ('replica' was unexpected)"]),
    ],
)
def test_the_check_finds_wrong_types_and_unknown_fields(spec, expected):
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayService", "spec": spec}
    assert list(_check().faults(manifest, DEFINITION)) == expected


def test_the_check_refuses_the_definition_of_another_kind():
    definition = copy.deepcopy(DEFINITION)
    definition["spec"]["names"]["kind"] = "RayJob"
    assert list(_check().faults(SERVICE, definition)) == ["the definition is of RayJob of ray.io"]
