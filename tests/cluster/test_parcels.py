"""Files and steps as bytes, and what a node makes of them: equal files, paths where they lie, and nothing else."""

import os
import socket
import threading
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iquitos_rl.cluster import node, parcels
from iquitos_rl.cluster.node import Order, Parcel, carry_out, software
from iquitos_rl.errors import UserError
from iquitos_rl.machine.elsewhere import place_of
from iquitos_rl.runs.session import LATEST, Request


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


names = st.lists(st.sampled_from(["a", "b", "c.csv"]), min_size=1, max_size=3).map("/".join)


@given(content=st.dictionaries(names, st.binary(max_size=40), max_size=4))
def test_a_folder_comes_out_as_it_went_in(tmp_path_factory, content):
    home, away = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("away")
    apart = {k: v for k, v in content.items() if not any(k != o and k.startswith(f"{o}/") for o in content)}
    write(home / "case", apart)
    packed = parcels.pack(home / "case")
    place = parcels.below(away)
    parcels.unpack(packed, place)
    assert files_in(place(home / "case")) == apart
    assert parcels.pack(home / "case", place) == packed
    assert parcels.digest(parcels.pack(home / "case", place)) == parcels.digest(packed)


def test_locks_and_halves_stay_and_the_last_file_comes_last(tmp_path):
    write(tmp_path, {"x.lock": b"", ".lock": b"", "y.tmp": b"", "last": b"1", "first": b"2"})
    os.utime(tmp_path / "first", (1, 1))
    assert [Path(name).name for name in parcels.pack(tmp_path)] == ["first", "last"]
    assert [Path(name).name for name in parcels.pack(tmp_path / "last")] == ["last"]
    assert parcels.pack(tmp_path / "missing") == {}


def test_paths_in_a_step_lie_where_the_files_do(tmp_path):
    request = Request("ppo", Path("settings.yaml"), {"seed": 1}, output=tmp_path / "run", resume=LATEST)
    here = parcels.loads(parcels.dumps(request))
    assert here == Request("ppo", Path.cwd() / "settings.yaml", {"seed": 1}, output=tmp_path / "run", resume=LATEST)
    there = parcels.loads(parcels.dumps(request), parcels.below(Path("/away")))
    assert there.output == Path("/away", *tmp_path.parts[1:], "run")
    assert there.resume == LATEST


@pytest.mark.parametrize(
    ("name", "allowed"), [("/a/run/x", True), ("/a/run", True), ("/a/runs/x", False), ("/b", False)]
)
def test_only_files_that_a_step_writes_come_home(name, allowed):
    assert parcels.within({name: b""}, [Path("/a/run")]) is allowed


def add(folder, case, interrupts):
    """Copy what the case holds, and count how often this folder was worked in."""
    folder.mkdir(exist_ok=True)
    tries = len(list(folder.glob("try-*")))
    (folder / f"try-{tries}").write_bytes(place_of(case).joinpath("data").read_bytes())
    return folder, tries


def add_and_fail(folder, case, interrupts):
    add(folder, case, interrupts)
    raise UserError("it broke")


class Desk:
    """A driver without a cluster: hands its orders to a node that lies in another folder."""

    def __init__(self, home, away):
        self.home, self.away, self.fetched, self.kept = home, away, [], []
        self.stop = threading.Event()
        self.mark = home / ".mark"
        self.mark.write_text("mine", encoding="utf-8")

    def order(self, task, writes, **changes):
        reads = [self.home / "case", *writes]
        found = [(str(path), parcels.pack(path)) for path in reads]
        sent = tuple(Parcel(name, parcels.digest(files), files) for name, files in found if files)
        cases = {"my case": str(self.home / "case")}
        task = parcels.dumps(task)
        order = Order(software(), "desk", (str(self.mark), "mine"), {}, task, tuple(map(str, writes)), cases, 0.0, sent)
        return order._replace(**changes)

    def fetch(self, files):
        self.fetched.append(files)
        return files

    def stopped(self, seconds):
        return self.stop.wait(seconds)

    def keep(self, files):
        self.kept.append(files)

    def send(self, task, writes, **changes):
        return carry_out(self.order(task, writes, **changes), self, self.away)


@pytest.fixture
def desk(tmp_path):
    home = tmp_path / "home"
    write(home / "case", {"data": b"42"})
    return Desk(home, tmp_path / "away")


def test_a_node_that_sees_the_disk_works_in_it(desk):
    run = desk.home / "run"
    reply = desk.send(partial(add, run, "my case"), [run], parcels=None)
    assert parcels.loads(reply.value) == (run, 0)
    assert files_in(run) == {"try-0": b"42"}
    assert (reply.files, desk.fetched) == ({}, [])


def test_a_node_that_does_not_asks_for_files_and_sends_its_own_home(desk):
    run, elsewhere = desk.home / "run", ("/nowhere/.mark", "mine")
    assert desk.send(partial(add, run, "my case"), [run], parcels=None, mark=elsewhere).needs_files
    reply = desk.send(partial(add, run, "my case"), [run], mark=elsewhere)
    assert not run.exists()
    assert reply.files == {str(run / "try-0"): b"42"}
    parcels.unpack(reply.files)
    reply = desk.send(partial(add, run, "my case"), [run], mark=elsewhere)
    assert set(reply.files) == {str(run / "try-0"), str(run / "try-1")}, "what was begun at home goes on there"
    assert len([files for files in desk.fetched if str(desk.home / "case" / "data") in files]) == 1, "sent once"
    assert not [name for name in files_in(desk.away / "desk") if "try" in name], "a node keeps no finished run"


def test_a_copy_of_the_output_on_another_disk_is_not_taken_for_it(desk):
    desk.mark.write_text("another", encoding="utf-8")
    assert desk.send(partial(add, desk.home / "run", "my case"), [], parcels=None).needs_files


def test_what_a_node_has_is_sent_again_only_where_it_changed(desk):
    run, elsewhere = desk.home / "run", ("/nowhere/.mark", "mine")
    for content in (b"1", b"1", b"2", b"1"):
        write(desk.home / "case", {"data": content})
        reply = desk.send(partial(add, run, "my case"), [run], mark=elsewhere)
        assert reply.files == {str(run / "try-0"): content}
    assert len(desk.fetched) == 3


def test_an_error_comes_home_with_what_was_written(desk):
    run = desk.home / "run"
    reply = desk.send(partial(add_and_fail, run, "my case"), [run], mark=("/nowhere/.mark", "mine"))
    assert isinstance(reply.error, UserError)
    assert str(reply.error) == "it broke"
    assert reply.files == {str(run / "try-0"): b"42"}


def test_files_that_are_not_what_was_sent_are_refused(desk):
    order = desk.order(partial(add, desk.home / "run", "my case"), [], mark=("/nowhere/.mark", "mine"))
    desk.fetch = lambda files: dict.fromkeys(files, b"else")
    reply = carry_out(order, desk, desk.away)
    assert "damaged" in str(reply.error)


@pytest.mark.parametrize("name", ["code of iquitos_rl", "torch", "python"])
def test_other_software_is_refused_in_a_sentence(desk, name):
    wanted = {**software(), name: "0.0"}
    reply = desk.send(partial(add, desk.home / "run", "my case"), [], software=wanted)
    assert type(reply.error) is UserError
    assert f"{name} is {software()[name]} there and 0.0 here; install the same on all nodes" in str(reply.error)
    assert not (desk.home / "run").exists()


def test_the_digest_of_the_code_is_that_of_every_module(monkeypatch, tmp_path):
    from iquitos_rl.machine import facts

    root = tmp_path / "package"
    write(root, {"machine/facts.py": b"x = 1\n", "agents/sac.py": b"y = 2\n"})
    monkeypatch.setattr(facts, "__file__", str(root / "machine" / "facts.py"))
    plain = facts.code_digest.__wrapped__
    found = [plain()]
    for name, content in (("agents/sac.py", b"y = 3\n"), ("agents/ppo.py", b""), ("README.md", b"text")):
        write(root, {name: content})
        found.append(plain())
    assert len({*found[:3]}) == 3
    assert found[3] == found[2], "other files are no code"


def test_an_error_that_cannot_travel_is_told_by_one_that_can():
    class Local(Exception):
        pass

    found = node._portable(Local("lost"))
    assert "Local: lost" in str(found)
    assert node._portable(UserError("as it is")).args == ("as it is",)


def save_until_stopped(folder, saved, interrupts):
    """Save twice, and learn of both that they came home; then wait for the user."""
    folder.mkdir()
    for name in ("first", "second"):
        (folder / name).write_text(name, encoding="utf-8")
        saved.acquire(timeout=60)
    while True:
        interrupts.check()


def test_what_a_step_saves_comes_home_while_it_runs_and_an_interruption_reaches_it(desk, monkeypatch):
    monkeypatch.setattr(node, "SEND_SECONDS", 0.0)
    monkeypatch.setattr(node, "LISTEN_SECONDS", 0.001)
    run, saved = desk.home / "run", threading.Semaphore(0)
    monkeypatch.setattr(desk, "keep", lambda files: (desk.kept.append(files), saved.release()))
    monkeypatch.setattr(desk, "stopped", lambda seconds: len(desk.kept) == 2)
    monkeypatch.setattr(node, "loads", lambda data, place: partial(save_until_stopped, place(run), saved))
    reply = desk.send(len, [run], mark=("/nowhere/.mark", "mine"))
    assert desk.kept == [{str(run / "first"): b"first"}, {str(run / "second"): b"second"}]
    assert (reply.value, reply.error) == (None, None)
    assert reply.files == {str(run / "first"): b"first", str(run / "second"): b"second"}


def test_a_step_that_comes_after_the_interruption_does_not_begin(desk):
    desk.stop.set()
    assert desk.send(partial(add, desk.home / "run", "my case"), [], parcels=None) == node.Reply(socket.gethostname())
    assert not (desk.home / "run").exists()


def test_a_result_names_files_as_home_does(desk):
    run = desk.home / "run"
    reply = desk.send(partial(add, run, "my case"), [run], mark=("/nowhere/.mark", "mine"))
    assert parcels.loads(reply.value) == (run, 0)
