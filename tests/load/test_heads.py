"""Heads of recorded clients, sent elsewhere."""

from __future__ import annotations

import pytest

from loadtest.heads import Client, containerd, docker, docker_cli, podman


def test_accept_lines_come_in_every_order_and_nothing_else_moves() -> None:
    """Accept lines come in every order and nothing else moves."""
    head = docker_cli()
    shuffled = list(head.shuffled())

    assert len({bytes(each) for each in shuffled}) == 24
    assert {tuple(sorted(each.headers)) for each in shuffled} == {tuple(sorted(head.headers))}
    assert {each.headers[0] for each in shuffled} == {head.headers[0]}


def test_connections_are_closed_or_kept_as_is_asked() -> None:
    """Connections are closed or kept as is asked."""
    head = docker_cli()

    assert head.closes
    assert not head.alive().closes
    assert bytes(head.alive().closing()) == bytes(head)


@pytest.mark.parametrize("client", [docker(), containerd(), podman()])
def test_clients_ask_as_they_do(client: Client) -> None:
    """Clients ask as they do."""
    assert client.resolve.path.startswith("/v2/kimoqi/alpine/manifests/1.0")
    assert client.resolve.method == ("GET" if client.name == "podman" else "HEAD")
    assert "sha256:" in client.child.path
    assert (client.ping is None) == (client.name == "containerd")


def test_a_head_goes_to_another_server() -> None:
    """A head goes to another server."""
    assert bytes(docker_cli().to("127.0.0.1:1", "/v2/a")).startswith(b"GET /v2/a HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
