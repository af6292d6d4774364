"""The manifests of deploy/k8s: every overlay renders, is valid, and keeps to the hardening."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir())]
API_VERSIONS = ["1.34", "1.36"]
CUSTOM_KINDS = {"PodMonitor", "PrometheusRule", "Certificate", "ScaledObject", "GRPCRoute",
                "BackendTLSPolicy"}
# Namespaces of a pod that would join it to its node.
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")


def kubectl():
    """One with kustomize 5 or newer: Debian's own is too old for components."""
    path = shutil.which("kubectl")
    if path is not None:
        version = subprocess.run([path, "version", "--client"], capture_output=True, text=True,
                                 check=False).stdout
        match = re.search(r"Kustomize Version: v(\d+)", version)
        if match and int(match.group(1)) >= 5:
            return path
    return None


def render(overlay):
    """The objects of an overlay: of kubectl where there is one, else the committed ones."""
    committed = K8S / "rendered" / (overlay.replace("overlays/", "") + ".yaml")
    if kubectl() is None:
        return list(yaml.safe_load_all(committed.read_text(encoding="utf-8")))
    result = subprocess.run([kubectl(), "kustomize", str(K8S / overlay)], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    if committed.exists():
        assert result.stdout == committed.read_text(encoding="utf-8"), \
            f"run deploy/k8s/render: {overlay}"
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module")
def rendered():
    return {overlay: render(overlay) for overlay in OVERLAYS}


def pods(objects):
    """(name, pod spec) of everything that runs."""
    for thing in objects:
        if thing["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]


def of_kind(objects, kind):
    return [thing for thing in objects if thing["kind"] == kind]


@pytest.mark.parametrize("version", API_VERSIONS)
def test_objects_are_valid(rendered, version, tmp_path):
    files = []
    for overlay, objects in rendered.items():
        path = tmp_path / (overlay.replace("/", "-") + ".yaml")
        path.write_text(yaml.safe_dump_all(
            thing for thing in objects if thing["kind"] not in CUSTOM_KINDS), encoding="utf-8")
        files.append(str(path))
    validate = pathlib.Path(sys.executable).parent / "kubernetes-validate"
    result = subprocess.run([str(validate), "-k", version, "--strict", *files],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_custom_objects_have_what_their_controllers_need(rendered):
    """Their schemas are the clusters' own: what is checked is what we rely on."""
    full, dra = rendered["overlays/full"], rendered["overlays/dra-full"]
    for objects in (full, dra):
        monitor, = of_kind(objects, "PodMonitor")
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        port, = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        _, pod = next(pods(objects))
        assert port in {entry["name"] for entry in pod["containers"][0]["ports"]}
        certificate, = of_kind(objects, "Certificate")
        assert certificate["apiVersion"] == "cert-manager.io/v1"
        secret = certificate["spec"]["secretName"]
        assert any(volume.get("secret", {}).get("secretName") == secret
                   for volume in pod["volumes"])
        names = {board["metadata"]["name"] for board in of_kind(objects, "ConfigMap")
                 if board["metadata"].get("labels", {}).get("grafana_dashboard") == "1"}
        assert len(names) == 5
    route, = of_kind(full, "GRPCRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    backend = route["spec"]["rules"][0]["backendRefs"][0]
    service, = of_kind(full, "Service")
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"] == service["spec"]["ports"][0]["port"]
    scaled, = of_kind(dra, "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert "tandem_requests_waiting" in scaled["spec"]["triggers"][0]["metadata"]["query"]


def test_who_calls_the_pods_knows_whether_they_speak_tls(rendered):
    """A port that says h2c and speaks TLS, or the reverse, is one that a Gateway cannot call."""
    for overlay, objects in rendered.items():
        _, pod = next(pods(objects))
        has_tls = any(argument.startswith("--tls-cert=") for argument in pod["containers"][0]["args"])
        service, = of_kind(objects, "Service")
        port, = service["spec"]["ports"]
        assert port.get("appProtocol") == (None if has_tls else "kubernetes.io/h2c"), overlay
        policies = of_kind(objects, "BackendTLSPolicy")
        assert len(policies) == (1 if has_tls and of_kind(objects, "GRPCRoute") else 0), overlay
        for policy in policies:
            assert policy["apiVersion"] == "gateway.networking.k8s.io/v1"
            target, = policy["spec"]["targetRefs"]
            assert (target["kind"], target["name"], target["sectionName"]) == \
                ("Service", service["metadata"]["name"], port["name"])
            certificate, = of_kind(objects, "Certificate")
            assert policy["spec"]["validation"]["hostname"] in certificate["spec"]["dnsNames"]


def test_the_prometheus_rule_is_what_prometheus_has(tmp_path):
    script = K8S / "components" / "monitoring" / "generate.py"
    out = tmp_path / "rule.yaml"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True)
    assert out.read_text() == (script.parent / "prometheus-rule.yaml").read_text(), f"run {script}"


def test_a_kustomization_puts_another_address_of_the_runbook(tmp_path):
    """That of docs/operations.md, on top of an overlay."""
    if kubectl() is None:
        pytest.skip("needs a kubectl with kustomize 5")
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.search(r"^configMapGenerator:.*?(?=^```)", guide, re.M | re.S).group(0)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [deploy/k8s/overlays/full]\n{lines}", encoding="utf-8")
    result = subprocess.run([kubectl(), "kustomize", str(tmp_path)], capture_output=True,
                            text=True, check=True)
    rule, = of_kind(yaml.safe_load_all(result.stdout), "PrometheusRule")
    links = [entry["annotations"]["runbook_url"] for group in rule["spec"]["groups"]
             for entry in group["rules"] if "alert" in entry]
    assert links and all(link.startswith("https://wiki.your.org/tandem-runbook#tandem")
                         for link in links), links


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_standard(rendered, overlay):
    """Pod Security Standards, "restricted", and a little more."""
    seen = 0
    for name, pod in pods(rendered[overlay]):
        where = f"{overlay}: {name}"
        assert not any(pod.get(field) for field in HOST_FIELDS), where
        assert pod["automountServiceAccountToken"] is False, where
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == 65532, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not any("hostPath" in volume for volume in pod["volumes"]), where
        for container in pod["containers"] + pod.get("initContainers", []):
            seen += 1
            where = f"{overlay}: {name}/{container['name']}"
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert "privileged" not in own, where
            assert container["resources"]["limits"]["memory"], where
            assert container["resources"]["requests"]["cpu"], where
            assert ":" in container["image"], f"{where}: no tag"
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            assert mounts["models"]["readOnly"] is True, where
    assert seen > 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_and_updates(rendered, overlay):
    deployment, = of_kind(rendered[overlay], "Deployment")
    strategy = deployment["spec"]["strategy"]
    if deployment["spec"].get("replicas") == 1:
        assert strategy == {"type": "Recreate"}
    else:  # one after the other, and never one more than there are GPUs
        assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    pod = deployment["spec"]["template"]["spec"]
    listening = pod["containers"][0]
    drain = next(float(argument.split("=")[1]) for argument in listening["args"]
                 if argument.startswith("--drain-timeout="))
    # The supervisor gives what is left 10 s more.
    assert pod["terminationGracePeriodSeconds"] >= drain + 10
    probes = [listening[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
    asked = [str(probe.get("grpc", probe.get("exec"))) for probe in probes]
    assert asked[0] == asked[1] != asked[2]
    # Liveness does not look at the model: a slow start must not be killed.
    assert "GatewayService" not in asked[2]
    assert probes[0]["periodSeconds"] * probes[0]["failureThreshold"] >= 600


def test_one_thing_decides_on_the_number_of_pods(rendered):
    """The manifest, or what scales by requests that wait: not both."""
    metric = "tandem_requests_waiting"
    names = (ROOT / "common" / "telemetry" / "metric_names.h").read_text(encoding="utf-8")
    assert f'{{"{metric}"' in names
    seen = set()
    for overlay, objects in rendered.items():
        deployment, = of_kind(objects, "Deployment")
        scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
        assert len(scalers) + ("replicas" in deployment["spec"]) == 1, overlay
        for scaler in scalers:
            seen.add(scaler["kind"])
            assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert metric in str(scaler["spec"])
        for config in of_kind(objects, "ConfigMap"):
            if config["metadata"]["name"].startswith("tandem-prometheus-adapter"):
                rule, = yaml.safe_load(config["data"]["config.yaml"])["rules"]
                assert rule["seriesQuery"].startswith(metric + "{") and rule["name"]["as"] == metric
    assert seen == {"HorizontalPodAutoscaler", "ScaledObject"}


def test_the_gpu_is_asked_for_once(rendered):
    """Twice would be two cards, or two shares of one."""
    for overlay, objects in rendered.items():
        asked = claims = 0
        for _, pod in pods(objects):
            for container in pod["containers"]:
                asked += int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
                claims += len(container["resources"].get("claims", []))
        if overlay == "overlays/cpu":
            assert (asked, claims) == (0, 0)
        elif "dra" in overlay:
            assert (asked, claims) == (0, 2)
        else:
            assert (asked, claims) == (1, 0)


def test_models_run_on_the_device_that_is_asked_for(rendered):
    """`--device` is cpu unless told otherwise: a pod that has a GPU must be told."""
    for overlay, objects in rendered.items():
        _, pod = next(pods(objects))
        for container in pod["containers"]:
            resources = container["resources"]
            has_gpu = "nvidia.com/gpu" in resources["limits"] or "claims" in resources
            runs_models = container["name"] != "gateway"
            assert has_gpu == (runs_models and overlay != "overlays/cpu")
            device = ["--device=cuda" if has_gpu else "--device=cpu"] if runs_models else []
            found = [flag for flag in container["args"] if flag.startswith("--device")]
            assert found == device, (overlay, container["name"])


def test_the_containers_of_the_dra_pod_share_what_they_must(rendered):
    for overlay in ("overlays/dra", "overlays/dra-full"):
        _, pod = next(pods(rendered[overlay]))
        assert pod["shareProcessNamespace"] is True
        assert [container["name"] for container in pod["containers"]] == \
            ["gateway", "target", "draft"]
        for path in ("/run/tandem", "/dev/shm", "/models"):
            names = [mount["name"] for container in pod["containers"]
                     for mount in container["volumeMounts"] if mount["mountPath"] == path]
            assert len(names) == 3 and len(set(names)) == 1, path
        claim, = {entry["name"] for container in pod["containers"]
                  for entry in container["resources"].get("claims", [])}
        assert claim == pod["resourceClaims"][0]["name"]
        template, = of_kind(rendered[overlay], "ResourceClaimTemplate")
        assert pod["resourceClaims"][0]["resourceClaimTemplateName"] == \
            template["metadata"]["name"]


def test_the_flags_are_ones_that_the_programs_have(rendered):
    """A misspelt flag would be found by a pod that does not start."""
    import os

    bin_folder = pathlib.Path(os.environ.get("TANDEM_BIN", ROOT / "build" / "bin"))
    for overlay, objects in rendered.items():
        for _, pod in pods(objects):
            for container in pod["containers"]:
                command = [part for part in container.get("command", ["tandem"])
                           if part not in ("tini", "--")]
                arguments = container["args"]
                subcommand = [part for part in arguments if not part.startswith("-")]
                help_text = subprocess.run([str(bin_folder / command[0]), *subcommand, "--help"],
                                           capture_output=True, text=True, check=True).stdout
                for argument in arguments:
                    flag = argument.split("=")[0]
                    assert not flag.startswith("--") or re.search(
                        rf"{flag}\b", help_text), (overlay, container["name"], flag)


def test_yaml_is_tidy():
    result = subprocess.run([sys.executable, "-m", "yamllint", "--strict", "-c",
                             str(ROOT / "deploy" / "yamllint.yml"), str(ROOT / "deploy")],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
