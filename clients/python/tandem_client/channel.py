"""How to reach a server: credentials, and the service config that all clients share."""

from __future__ import annotations

import dataclasses
import importlib.resources
import pathlib

import grpc


@dataclasses.dataclass(frozen=True)
class Tls:
    """PEM files. Without `ca` the system's roots count; with `certificate` and `key`, mTLS."""

    ca: pathlib.Path | None = None
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        def read(path: pathlib.Path | None) -> bytes | None:
            return pathlib.Path(path).read_bytes() if path is not None else None

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.certificate))


def service_config() -> str:
    """Round robin over all addresses; UNAVAILABLE is tried again until the first message."""
    return (importlib.resources.files("tandem_client") / "service_config.json").read_text("utf-8")


def channel_options() -> list[tuple[str, str | int]]:
    return [("grpc.service_config", service_config()),
            ("grpc.enable_retries", 1),
            # The server allows a ping every 10 s.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000)]
