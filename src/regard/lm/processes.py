"""The processes that ``torchrun`` or ``accelerate launch`` started, if any."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

_groups = itertools.count()


@contextmanager
def processes(device: str) -> Iterator[tuple[int, int]]:
    """This process's number and how many there are; (0, 1) when nothing launched several.

    What holds on to the group, such as a DistributedDataParallel, must be gone at the end: whoever frees the last hold
    waits for gloo's threads, which may be waiting for Python's lock, and only the group's own end lets go of that.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    joined = not dist.is_initialized()
    if joined:
        if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
            _stay_at_home()
        _join(world, "nccl" if torch.device(device).type == "cuda" else "gloo")
    yield dist.get_rank(), world
    if joined:  # after an error a traceback holds on to everything, and so the group stays as well
        dist.destroy_process_group()


def _join(world: int, backend: str) -> None:
    """Meet under a name of this training's own: a second one would find the first one's addresses under torch's."""
    rank = int(os.environ["RANK"])
    store, _, _ = next(dist.rendezvous("env://", rank, world))
    named = dist.PrefixStore(f"regard-{next(_groups)}", store)
    dist.init_process_group(backend, store=named, rank=rank, world_size=world)


def _stay_at_home() -> None:
    """Have processes of one machine talk over its loopback: gloo asks for the host's name, which may not resolve."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
