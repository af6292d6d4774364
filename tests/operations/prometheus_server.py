"""A real Prometheus for a test: rules, alerts and the dashboards' queries are asked of it."""

import json
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus"


def find(program):
    """The path of a program of Debian's package prometheus."""
    path = ROOT / ".cache" / "prometheus" / "usr" / "bin" / program
    assert path.exists(), f"no {program}: run scripts/setup --tests"
    return str(path)


class Prometheus:
    """Scrapes `targets` ("host:port") every second and evaluates the rules as often."""

    def __init__(self, folder, targets):
        self.folder = pathlib.Path(folder)
        for name in ("rules.yml", "alerts.yml"):
            text = (RULES / name).read_text(encoding="utf-8")
            (self.folder / name).write_text(text.replace("interval: 15s", "interval: 1s"),
                                            encoding="utf-8")
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml", "alerts.yml"],
            "scrape_configs": [{"job_name": "tandem", "static_configs": [{"targets": targets}]}],
        }), encoding="utf-8")
        self.log_path = self.folder / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [find("prometheus"), f"--config.file={config}", "--web.listen-address=127.0.0.1:0",
                 f"--storage.tsdb.path={self.folder / 'data'}"], stdout=log, stderr=log)
        self.url = self._wait_listening()

    def _wait_listening(self):
        """Port 0 was asked for: the log tells which one it is, else the process's sockets."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log_path.read_text(errors="replace")
            for port in self._ports():
                url = f"http://127.0.0.1:{port}"
                try:
                    with urllib.request.urlopen(url + "/-/ready", timeout=5) as answer:
                        if answer.status == 200:
                            return url
                except (urllib.error.URLError, OSError):
                    pass
            time.sleep(0.1)
        raise AssertionError("Prometheus does not come up:\n" + self.log_path.read_text())

    def _ports(self):
        """The ports that the process listens on."""
        inodes = set()
        for entry in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                match = re.match(r"socket:\[(\d+)\]", str(entry.readlink()))
            except OSError:
                continue
            if match:
                inodes.add(match.group(1))
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                yield int(fields[1].split(":")[1], 16)

    def get(self, path, **parameters):
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr):
        """Samples of an instant query: [({label: value}, float)]."""
        result = self.get("/api/v1/query", query=expr)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def query_range(self, expr, start, end, step):
        """[({label: value}, [(time, float)])]."""
        result = self.get("/api/v1/query_range", query=expr, start=start, end=end,
                          step=step)["result"]
        return [(series["metric"], [(at, float(value)) for at, value in series["values"]])
                for series in result]

    def wait(self, expr, timeout_s=60):
        """Until the query has a sample."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.query(expr):
                return
            time.sleep(0.2)
        raise AssertionError(f"nothing to be seen for {expr}")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
