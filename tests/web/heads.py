"""Request heads, and what the full path answers to them, for tests of hot answers."""

from __future__ import annotations

from proxy.oci.lease import Lease
from proxy.telemetry import Metrics, Tally
from proxy.web.table import Leased, Record

PATH = "/v2/kimoqi/alpine-arm/manifests/1.0"


def head(*lines: str, method: str = "GET", path: str = PATH) -> bytes:
    """Write a request head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: registry.example", *lines, "", ""]).encode()


class Kept(Leased):
    """A response after which the connection goes on."""

    @property
    def keep_alive(self) -> bool:
        """Say so."""
        return True


def response(lease: Lease, body: bytes = b"{}") -> Leased:
    """Return what the full path has answered."""
    answer = Kept(lease, body=body, headers={"Content-Length": str(len(body)), "Age": "0", "Date": "then"})
    answer.record = lambda: Record(Tally(Metrics().merges), None)
    return answer
