"""What a server refused or failed at, with the details of google.rpc."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.rpc import error_details_pb2, status_pb2


class TandemError(Exception):
    """A call that ended with another status than OK.

    `reason` is stable, as "PROMPT_TOO_LONG"; `retry_delay_s` is there where a retry makes
    sense; `fields` maps paths of the request to what is wrong with them.
    """

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "",
                 retry_delay_s: float | None = None, fields: dict[str, str] | None = None,
                 metadata: dict[str, str] | None = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.retry_delay_s = retry_delay_s
        self.fields = fields or {}
        self.metadata = metadata or {}

    @property
    def is_overload(self) -> bool:
        """The queue is full: the same request may succeed a little later."""
        return self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and self.retry_delay_s is not None


def from_parts(code: grpc.StatusCode, message: str,
               trailers: Iterable[tuple[str, str | bytes]]) -> TandemError:
    error = TandemError(code, message)
    for name, value in trailers:
        if name != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        for detail in status.details:
            _add(detail, error)
    return error


def _add(detail: object, error: TandemError) -> None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    if detail.Unpack(info):  # type: ignore[attr-defined]
        error.reason = info.reason
        error.metadata = dict(info.metadata)
    elif detail.Unpack(retry):  # type: ignore[attr-defined]
        error.retry_delay_s = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
    elif detail.Unpack(bad_request):  # type: ignore[attr-defined]
        error.fields = {violation.field: violation.description
                        for violation in bad_request.field_violations}
