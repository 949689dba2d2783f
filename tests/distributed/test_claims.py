"""Claims: each item belongs to one living process."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from losa_jax.distributed import claims
from losa_jax.distributed.claims import Claims


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path, bucket_objects):
    return {"disk": str(tmp_path / "claims"),
            "bucket": "gs://data/claims"}[request.param]


def test_an_item_belongs_to_one_process_until_it_is_released(folder):
    with Claims(folder) as first, Claims(folder) as second:
        assert first.take("a") and second.take("b.0")
        assert not second.take("a") and not first.take("b.0")
        assert second.is_held("a") and not second.is_held("c")
        first.release("a")
        assert not second.is_held("a") and second.take("a")
    with Claims(folder) as third:
        assert third.take("a") and third.take("b.0")


def _dead_claim(folder, **facts):
    """Makes the claim of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Claims(folder) as dead:
        dead._owner.update({"pid": ended.pid, **facts})
        assert dead.take("a")
        dead._held.clear()  # nothing is released


def test_what_a_dead_process_of_this_machine_had_is_taken_over_once(folder):
    _dead_claim(folder)
    with Claims(folder) as first, Claims(folder) as second:
        assert second.is_held("a")
        assert [first.take("a"), second.take("a")] == [True, False]
        first.release("a")
        assert not second.is_held("a")


def test_a_killed_process_is_dead_before_its_parent_asks_for_it(folder):
    killed = subprocess.Popen([sys.executable, "-c", "input()"],
                              stdin=subprocess.PIPE)
    try:
        _dead_claim(folder, pid=killed.pid)
        with Claims(folder) as other:
            assert not other.take("a")
            killed.kill()
            os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
            assert other.take("a")
    finally:
        killed.kill()
        killed.communicate()


def test_a_claim_that_is_not_renewed_is_abandoned(folder, monkeypatch):
    monkeypatch.setattr(claims, "DEAD_SECONDS", 0.5)
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.1)
    _dead_claim(folder, host="elsewhere")
    with Claims(folder) as alive, Claims(folder) as other:
        assert alive.take("b")
        taken = []
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            taken += [name for name in ("a", "b") if other.take(name)]
            time.sleep(0.05)
            if "a" in taken:
                other.release("a")
        assert "b" not in taken and "a" in taken


def test_a_claim_names_its_process(tmp_path):
    with Claims(str(tmp_path)) as some:
        some.take("a")
        facts = json.loads((tmp_path / "a.0").read_text())
        assert {"host", "pid", "since", "token"} <= set(facts)


def test_another_process_may_remove_the_folder_at_any_moment(tmp_path):
    folder = tmp_path / "claims"
    ends = threading.Event()

    def remove():
        while not ends.is_set():
            with Claims(str(folder)) as other:
                other.clear()

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        with Claims(str(folder)) as claims:
            for number in range(300):
                assert claims.take(f"{number}")
                claims.release(f"{number}")
    finally:
        ends.set()
        thread.join()
    with Claims(str(folder)) as claims:
        assert claims.take("a")
        claims.clear()
    assert not folder.exists()


def test_a_folder_that_vanishes_while_it_is_made_is_made_again(tmp_path,
                                                               monkeypatch):
    folder, make, seen = tmp_path / "claims", os.mkdir, []

    def vanishes(path, *arguments):
        seen.append(path)
        if len(seen) == 1:  # it was there, and is gone when one looks
            raise FileExistsError(errno.EEXIST, "File exists", path)
        make(path, *arguments)

    monkeypatch.setattr(os, "mkdir", vanishes)
    with Claims(str(folder)) as claims:
        assert claims.take("a")
    assert len(seen) == 2
