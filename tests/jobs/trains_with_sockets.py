"""Trains y = 3 x + 1 on all workers together with nothing but Python: worker 0 averages everybody's gradients.

Arguments: a file that must be readable, or nothing. The workers find each other by TF_CONFIG.
"""

import json
import os
import random
import socket
import sys
import time

STEPS, RATE, SAMPLES = 300, 0.3, 64


def connected(host: str, port: int) -> socket.socket:
    """Tasks are released together: worker 0 may need another moment until it listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((host, port), timeout=60)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main() -> None:
    config = json.loads(os.environ["TF_CONFIG"])
    rank, workers = config["task"]["index"], config["cluster"]["worker"]
    for path in sys.argv[1:]:
        with open(path) as mounted:
            print("mounted:", mounted.readline().strip(), flush=True)
    host, port = workers[0].rsplit(":", 1)
    peers = []
    if rank == 0:
        server = socket.create_server((host, int(port)))
        peers = [server.accept()[0].makefile("rw") for _ in workers[1:]]
    else:
        peers = [connected(host, int(port)).makefile("rw")]
    numbers = random.Random(rank)
    slope = offset = 0.0
    for _ in range(STEPS):
        xs = [numbers.uniform(-1, 1) for _ in range(SAMPLES)]
        errors = [(slope * x + offset - (3 * x + 1), x) for x in xs]
        own = [2 * sum(e * x for e, x in errors) / SAMPLES, 2 * sum(e for e, _ in errors) / SAMPLES]
        if rank == 0:
            parts = [own, *(json.loads(peer.readline()) for peer in peers)]
            mean = [sum(part[i] for part in parts) / len(parts) for i in range(2)]
            for peer in peers:
                print(json.dumps(mean), file=peer, flush=True)
        else:
            print(json.dumps(own), file=peers[0], flush=True)
            mean = json.loads(peers[0].readline())
        slope, offset = slope - RATE * mean[0], offset - RATE * mean[1]
    print(f"in Docker: {os.path.exists('/.dockerenv')}, slope {slope:.3f}, offset {offset:.3f}", flush=True)
    if abs(slope - 3) > 0.01 or abs(offset - 1) > 0.01:
        sys.exit("has not learnt it")


main()
