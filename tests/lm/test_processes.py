"""Processes of one machine talk over its loopback, whatever the machine is called."""

from __future__ import annotations

import os
import socket

import pytest
import torch.distributed as dist

from regard.lm import processes


@pytest.mark.parametrize(("local", "given", "stays"), [("2", None, True), ("1", None, False), ("2", "eth7", False)])
def test_the_interface(monkeypatch: pytest.MonkeyPatch, local: str, given: str | None, stays: bool) -> None:
    seen: list[str | None] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", given or "")  # so that it is put back in any case
    if given is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(processes, "_join", lambda world, name: seen.append(os.environ.get("GLOO_SOCKET_IFNAME")))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with processes.processes("cpu") as found:
        assert found == (1, 2)
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    assert seen == [loopback if stays else given]
