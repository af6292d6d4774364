"""The processes of a run, a GPU each, as torchrun starts them; or only this one.

All generate, each with other seeds; then every one has the text of all, and trains drafts of
its own.
"""

import dataclasses
import os

import torch
import torch.distributed as dist

from .generate import Data


class Ranks:
    def __init__(self, device):
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.number = int(os.environ.get("RANK", 0))
        self.device = device
        if self.count > 1:
            on_gpu = torch.device(device).type == "cuda"
            if on_gpu:
                local = int(os.environ.get("LOCAL_RANK", self.number))
                torch.cuda.set_device(local % torch.cuda.device_count())
            dist.init_process_group("nccl" if on_gpu else "gloo")

    def part(self):
        """After the last exchange, so that none minds when another ends."""
        if self.count > 1:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            dist.barrier()
            dist.destroy_process_group()

    def trains(self, spec):
        return spec.get("rank", 0) % self.count == self.number

    def everyones(self, datasets):
        """The lists of all, by rank, in one; each calls this. Empties `datasets`."""
        if self.count == 1:
            return datasets
        own = [{field.name: (tuple(getattr(data, field.name).shape),
                             getattr(data, field.name).dtype)
                for field in dataclasses.fields(data)} for data in datasets]
        known = [None] * self.count
        dist.all_gather_object(known, own)
        result = []
        for rank, described in enumerate(known):
            for fields in described:
                data = datasets.pop(0) if rank == self.number else Data(*(
                    torch.empty(size, dtype=kind, device=self.device)
                    for size, kind in fields.values()))
                for name in fields:
                    dist.broadcast(getattr(data, name), rank)
                result.append(data)
        return result
