"""The processes that ``torchrun`` or ``accelerate launch`` started, if any."""

from __future__ import annotations

import os
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
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        if joined:
            dist.destroy_process_group()
