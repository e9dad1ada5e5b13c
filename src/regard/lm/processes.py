"""The processes that ``torchrun`` or ``accelerate launch`` started, if any."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def processes(device: str) -> Iterator[tuple[int, int]]:
    """This process's number and how many there are; (0, 1) when nothing launched several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    joined = not dist.is_initialized()
    if joined:
        if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
            _stay_at_home()
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        if joined:
            dist.destroy_process_group()


def _stay_at_home() -> None:
    """Have processes of one machine talk over its loopback: gloo asks for the host's name, which may not resolve."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
