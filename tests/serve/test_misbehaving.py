"""Eight misbehaving clients of each kind at once; eight others get every answer in time."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.serve import misbehaving
from tests.serve.raw import connect, post, resident_mb

ROOT = Path(__file__).parents[2]
SECONDS = 10
MAX_GROWTH_MB = 400


def start(kind, server):
    command = [sys.executable, "-m", "tests.serve.misbehaving", kind, server.http, server.grpc]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_eight_of_each_kind_at_once_do_not_disturb_eight_others(server):
    before, peak = resident_mb(server), 0.0
    kinds = (misbehaving.GOOD, *misbehaving.KINDS, *misbehaving.GRPC_KINDS)
    clients = [start(kind, server) for kind in kinds]
    for client in clients:
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        client.stdin.write(f"{SECONDS}\n")
        client.stdin.flush()
    while clients[0].poll() is None:
        peak = max(peak, resident_mb(server))
        time.sleep(0.2)
    good, *_ = [client.communicate()[0] for client in clients]
    assert all(client.returncode == 0 for client in clients)
    answers = json.loads(good)
    slowest = max(taken for taken, _ in answers)
    print(f"{len(answers)} answers, slowest {slowest:.2f} s, {before:.0f} to {peak:.0f} MB")
    assert {status for _, status in answers} == {200}
    assert len(answers) > misbehaving.NUM_CLIENTS * 4 and slowest < 5
    assert peak - before < MAX_GROWTH_MB, (before, peak)


def test_health_is_answered_within_a_second_beside_eight_large_bodies(server):
    is_over, statuses, taken = threading.Event(), [], []

    def ask():
        while not is_over.is_set():
            with connect(server) as connection:
                connection.sendall(post("Connection: close", body=misbehaving.BIG))
                statuses.append(connection.recv(1 << 16).split(b" ", 2)[1])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            begin = time.monotonic()
            url = f"http://{server.http}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=20) as answer:
                assert answer.status == 200
            taken.append(time.monotonic() - begin)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {b"400"}
    assert max(taken) < 1, taken
