"""Records of GPU benchmarks: one JSON list of {id, ours, peer, peer_name, unit, spread, commit, date, card}.

usage: bench_records.py INTO.json FROM.json...    puts FROM's records into INTO; those of the same id are replaced
"""
import datetime
import fcntl
import json
import os
import pathlib
import statistics
import sys

import torch


def take_turn():
    """Of benchmarks that run at once, one has the GPU: the holder of the lock of the file KN_GPU_TURN, to its end. To be
    called when all modules are loaded, which takes as long as some measurements, and before the GPU is used."""
    global turn
    if "KN_GPU_TURN" in os.environ:
        turn = open(os.environ["KN_GPU_TURN"], "w")
        fcntl.flock(turn, fcntl.LOCK_EX)


def put(path, records):
    path, ids = pathlib.Path(path), {r["id"] for r in records}
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # others may add records too
    old = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([o for o in old if o["id"] not in ids] + records, indent=1) + "\n")
    os.close(folder)


class Records:
    def __init__(self, path, commit):
        self.path, self.commit, self.card = pathlib.Path(path), commit, torch.cuda.get_device_name()

    def add(self, id, ours, peer, peer_name, unit, spread=0.0, **more):
        """A record of the same id is replaced."""
        r = dict(id=id, ours=round(ours, 4), peer=None if peer is None else round(peer, 4), peer_name=peer_name,
                 unit=unit, spread=round(spread, 4), commit=self.commit, date=datetime.date.today().isoformat(),
                 card=self.card, **more)
        print(json.dumps(r), flush=True)
        put(self.path, [r])


def spread(times):
    return (max(times) - min(times)) / statistics.median(times)


def cuda_times(fn, runs):
    """Milliseconds of each of some runs, after one that warms up."""
    times = []
    fn()
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        fn()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return times


if __name__ == "__main__":
    for source in sys.argv[2:]:
        put(sys.argv[1], json.loads(pathlib.Path(source).read_text()))
