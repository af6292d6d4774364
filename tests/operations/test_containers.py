"""The recipe of the image and the compose example. What an engine would do is rehearsed by
deploy/docker/rehearse: its last stage here, the build of the programs by hand."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from serving.conftest import TARGET

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"


def test_hadolint_has_nothing_to_say():
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    result = subprocess.run([str(hadolint), str(DOCKER / "Dockerfile")], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stdout


def stages():
    """{name: its lines} of the Dockerfile."""
    found = {}
    name = None
    for line in (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines():
        match = re.match(r"FROM \S+ AS (\S+)", line)
        if match:
            name = match.group(1)
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def test_final_stages_are_hardened():
    found = stages()
    assert set(found) == {"build-cpu", "cpu", "build-cuda", "cuda"}
    for name in ("cpu", "cuda"):
        text = "\n".join(found[name])
        assert "USER 65532:65532" in text
        assert 'ENTRYPOINT ["tini", "--", "tandem"]' in text
        assert "HEALTHCHECK" in text and '"health"' in text
        assert "org.opencontainers.image.licenses" in text
        # No compiler, no sources: what is copied is what was built.
        assert "stage-packages.sh run" in text and "stage-packages.sh build" not in text
        assert f"COPY --from=build-{name} /out/ /usr/local/" in text


def test_the_cuda_of_the_image_has_the_draft_loop():
    """Nothing says at run time that it is missing but a slower draft."""
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    version = re.search(r"^ARG CUDA_VERSION=(\d+)\.(\d+)\.\d+$", dockerfile, re.M)
    header = ROOT / "common" / "kernels" / "cuda" / "draft_loop.h"
    needed = re.search(r"kHasDraftLoop = CUDART_VERSION >= (\d+);", header.read_text("utf-8"))
    assert int(version[1]) * 1000 + int(version[2]) * 10 >= int(needed[1])
    # Both stages are of that version.
    assert dockerfile.count("FROM nvidia/cuda:${CUDA_VERSION}-") == 2
    # 13 has no architecture before Turing, and none is asked for.
    assert all(number >= 75 for number in architectures())


def architectures():
    presets = json.loads((ROOT / "CMakePresets.json").read_text(encoding="utf-8"))
    preset, = (preset for preset in presets["configurePresets"] if preset["name"] == "cuda-release")
    listed = preset["cacheVariables"]["TANDEM_CUDA_ARCHITECTURES"].split(";")
    return [int(name.removesuffix("-real")) for name in listed]


def test_the_image_is_built_for_the_cards_of_the_preset():
    """Not for the two that are CMake's default here: an RTX 4090 found no kernel in it."""
    assert set(architectures()) >= {75, 80, 86, 89, 90, 120}
    build = (DOCKER / "stage-build.sh").read_text(encoding="utf-8")
    assert "preset=cuda-release" in build and 'cmake --preset "$preset"' in build
    assert "ARCHITECTURES" not in build


def test_the_image_has_no_library_that_nothing_loads():
    """libcublas was most of it; the programs have cudart in themselves."""
    stage = (DOCKER / "stage-packages.sh").read_text(encoding="utf-8")
    for cmake in [ROOT / "CMakeLists.txt", *ROOT.glob("c*/**/CMakeLists.txt"),
                  *ROOT.glob("services/**/CMakeLists.txt"), *ROOT.glob("cmake/*.cmake")]:
        assert not re.search("CUDA::(?!cudart|cuda_driver)", cmake.read_text(encoding="utf-8")), cmake
    assert "cublas" not in stage


def test_packages_are_those_of_setup():
    """A library that is added to scripts/setup and not here would break the image."""
    setup = (ROOT / "scripts" / "setup").read_text(encoding="utf-8")
    listed = re.search(r"^packages=\((.*?)^\)", setup, re.M | re.S).group(1).split()
    stage = (DOCKER / "stage-packages.sh").read_text(encoding="utf-8")
    build = set(re.search(r'^build="(.*?)"', stage, re.M | re.S).group(1).split())
    not_to_build = {"ccache", "libgtest-dev", "libgmock-dev", "python3", "python3-venv", "python3-dev"}
    assert set(listed) - not_to_build - build == set()


def test_the_image_serves_as_a_user_on_a_read_only_root(tmp_path):
    """Its last stage in an empty Debian, with the programs that were built here."""
    if os.environ.get("TANDEM_SLOW", "1") != "1":
        pytest.skip("programs of a sanitizer build need its runtime")
    probe = "mkdir -p p && mount -t proc proc p"
    if os.geteuid() != 0 or subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-c", probe], cwd=tmp_path,
            stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("needs root, and mounts in a namespace of its own")
    built = os.environ.get("TANDEM_BIN", str(ROOT / "build" / "bin"))
    command = [str(DOCKER / "rehearse"), str(TARGET),
               str(ROOT / "models" / "smollm2-135m-instruct.tiny.q4_1.gguf"),
               str(tmp_path / "image")]
    try:
        result = subprocess.run(command, env={**os.environ, "BUILT": built}, capture_output=True,
                                text=True, timeout=420, check=False)
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "image")], check=False)
    if "stage cpu:" not in result.stderr:
        pytest.skip(f"no empty Debian can be made here: {result.stderr[-500:]}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.rstrip().endswith("ok")


def test_compose_runs_the_image_as_the_pods_do():
    compose = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
    tandem = compose["services"]["tandem"]
    assert tandem["read_only"] is True and tandem["cap_drop"] == ["ALL"]
    assert tandem["user"] == "65532:65532"
    # Nothing is open to other machines.
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert int(tandem["stop_grace_period"].rstrip("s")) >= 40


def test_compose_runs_models_on_the_gpu():
    """`--device` is cpu unless told otherwise."""
    tandem = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))["services"]["tandem"]
    assert tandem["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert "--device=${DEVICE:-cuda}" in tandem["command"]
    assert "DEVICE=cpu" in (DOCKER / "compose.yml").read_text(encoding="utf-8")


def test_prometheus_of_compose_is_that_of_one_machine():
    """But for what it scrapes: compose lays it over deploy/prometheus, beside the rules."""
    path = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    ours, plain = (yaml.safe_load(file.read_text(encoding="utf-8"))
                   for file in (DOCKER / "prometheus.yml", path))
    compose = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))["services"]
    targets = ours["scrape_configs"][0]["static_configs"][0]
    (name, port), = (target.split(":") for target in targets["targets"])
    assert f"--metrics-listen=0.0.0.0:{port}" in compose[name]["command"]
    plain["scrape_configs"][0]["static_configs"][0] = targets
    assert ours == plain
    provisioned = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    source, = yaml.safe_load(provisioned.read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose


def test_every_command_of_compose_says_where_the_models_are():
    """Without MODELS compose refuses; the command without a GPU had none."""
    text = (DOCKER / "compose.yml").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = re.findall(r"^#   (.*docker compose)", text, re.M)
    commands += re.findall(r"`([^`]*docker compose -f[^`]*) up`", guide)
    assert len(commands) == 4
    assert all(command.startswith("MODELS=") for command in commands)


def test_compose_mounts_what_is_there():
    for name in ("compose.yml", "compose.cpu.yml"):
        text = (DOCKER / name).read_text(encoding="utf-8").replace("!reset null", "null")
        for service in yaml.safe_load(text)["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert source.startswith("$") or (DOCKER / source).exists(), source


def test_scripts_are_sound_shell():
    for script in sorted(DOCKER.glob("stage-*.sh")):
        subprocess.run(["sh", "-n", str(script)], check=True)
    subprocess.run(["bash", "-n", str(DOCKER / "rehearse")], check=True)
