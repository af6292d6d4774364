"""Servers under load, for the benchmarks of the scheduler."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("TANDEM_BIN", ROOT / "build" / "bin"))
READY = re.compile(r"^ready  grpc (\S+) · metrics (http://\S+)")


class Server:
    def __init__(self, model, draft, *flags):
        command = [str(BIN / "tandem"), "serve", "--target", model, "--listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", *flags]
        command += ["--draft", draft] if draft else ["--no-draft"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            match = READY.match(line)
            if match:
                self.address, self.metrics_url = match.groups()
                break
        else:
            raise RuntimeError("the server did not start")
        threading.Thread(target=lambda: list(self.process.stderr), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def gateway_folder(self):
        """What /proc has of the gateway."""
        out = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", "tandem-gateway"],
                             capture_output=True, text=True, check=True).stdout
        return pathlib.Path(f"/proc/{int(out)}")

    def gateway_seconds(self):
        """CPU seconds of the gateway so far, in nanoseconds: /proc has hundredths of a second, 38
        us a step of 260."""
        pid = int(self.gateway_folder().name)
        return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) yields

    def samples(self):
        """All of /metrics: {'name{labels}': value}."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def target_steps(self):
        for name, value in self.samples().items():
            if name.startswith("tandem_step_duration_seconds_count") and "target" in name \
                    and "round_trip" in name:
                return value
        raise RuntimeError("no step counter")


def load(server, **options):
    """The report of one `tandem bench serve`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(BIN / "tandem"), "bench", "serve", "--endpoint", server.address, "--json",
                   file.name]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(pathlib.Path(file.name).read_text())


def median(values):
    return statistics.median(values)


def cached_prompt(server, turns):
    """p50 of the time to first token of 2k prompts, new and with a cached prefix."""
    new, cached = [], []
    for turn in range(turns):
        new.append(load(server, concurrency=1, requests=4, prompt_tokens=2048, output_tokens=2,
                        load_seed=100 + turn, warmup=0)["ttft_s"]["p50"])
        shared = load(server, concurrency=1, requests=6, prompt_tokens=16, output_tokens=2,
                      shared_prefix_tokens=2032, load_seed=200 + turn, warmup=0)
        cached.append(shared["ttft_s"]["p50"])
    return new, cached


def latency_beside_prefill(server, turns, streams):
    """p99 of the inter-token latency of `streams` decodes, without and with 4k prompts."""
    without, with_prompts, ttft = [], [], []
    for turn in range(turns):
        def decode():
            return load(server, concurrency=streams, requests=streams, prompt_tokens=64,
                        output_tokens=300, speculation="off", load_seed=300 + turn, warmup=1)
        without.append(decode()["itl_s"])
        stop = threading.Event()

        def prompts():
            seed = 1000 * turn
            while not stop.is_set():
                seed += 1
                ttft.append(load(server, concurrency=1, requests=1, prompt_tokens=4000,
                                 output_tokens=1, load_seed=seed, warmup=0)["ttft_s"]["p50"])
        thread = threading.Thread(target=prompts)
        thread.start()
        with_prompts.append(decode()["itl_s"])
        stop.set()
        thread.join()
    return without, with_prompts, ttft


def gateway_overhead(model, *flags):
    """CPU microseconds of the gateway for each step at 32 sequences."""
    with Server(model, None, "--max-running", "32", *flags) as server:
        load(server, concurrency=32, requests=32, prompt_tokens=16, output_tokens=8)
        seconds, steps = server.gateway_seconds(), server.target_steps()
        load(server, concurrency=32, requests=64, prompt_tokens=16, output_tokens=128,
             speculation="off", warmup=0)
        return 1e6 * (server.gateway_seconds() - seconds) / (server.target_steps() - steps)
