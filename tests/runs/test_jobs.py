"""Tasks in this process and in others: the same results, the same errors, an end when the user wants one."""

import multiprocessing
import os
import select
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import pytest

from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.machine.interrupt import Interrupted, Interrupts, held, release
from iquitos_rl.runs import jobs
from iquitos_rl.runs.executor import InThisProcess, Step, carry_out
from iquitos_rl.runs.jobs import Pool


def square(number, interrupts):
    return number * number, os.getpid()


def refuse(number, interrupts):
    raise UserError(f"{number} is wrong")


def die(number, interrupts):
    os._exit(1)


def open_signals():
    """What can be read from as soon as a signal has come."""
    signals, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    return signals


def interrupt_parent_and_wait(folder, parent, interrupts):
    signals = open_signals()
    interrupts.check()  # of a signal that came before
    started = folder / str(len(list(folder.iterdir())))
    started.write_text("", encoding="utf-8")
    if started.name == "0":
        os.kill(parent, signal.SIGINT)
    select.select([signals], [], [], 60)
    interrupts.check()
    return "nobody asked to stop"


def die_beside_another(pipe, interrupts):
    with open(pipe, "rb") as end:
        end.read(1)
    os._exit(1)


def work_until_stopped(pipe, interrupts):
    signals = open_signals()
    with open(pipe, "wb", buffering=0) as end:
        end.write(b"x")
    select.select([signals], [], [], 60)
    interrupts.check()
    return "nobody asked to stop"


def wait_for_ever(pipe, interrupts):
    with open(pipe, "wb", buffering=0) as end:
        end.write(b"x")
        threading.Event().wait(600)


def look_until_it_raises(pool):
    while True:
        pool.check()


def run(tasks, processes):
    steps = {name: Step(task) for name, task in tasks.items()}
    with Interrupts() as interrupts:
        hint = "to go on: again"
        with Pool(processes, interrupts, hint) if processes > 1 else InThisProcess(interrupts, hint) as executor:
            return dict(carry_out(steps, executor))


def test_one_process_is_this_one():
    found = run({str(n): partial(square, n) for n in range(3)}, 1)
    assert found == {str(n): (n * n, os.getpid()) for n in range(3)}
    with pytest.raises(UserError, match="3 is wrong"):
        run({"a": partial(refuse, 3)}, 1)


def test_several_processes_find_the_same():
    found = run({str(n): partial(square, n) for n in range(5)}, 2)
    assert {name: value for name, (value, _) in found.items()} == {str(n): n * n for n in range(5)}
    assert os.getpid() not in {process for _, process in found.values()}


def test_a_process_that_dies_is_told():
    with pytest.raises(WorkerError, match="a process died"):
        run({"a": partial(die, 1), "b": partial(square, 2)}, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name tells when the other works")
def test_a_process_that_dies_beside_a_busy_one_is_told(tmp_path):
    """The busy one stops as for Ctrl-C, and ends."""
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(WorkerError, match="a process died"):
        run({"a": partial(die_beside_another, pipe), "b": partial(work_until_stopped, pipe)}, 2)


@pytest.mark.skipif(os.name == "nt", reason="a signal to another process ends it there")
def test_an_idle_process_stays_through_an_interruption_and_ends_when_its_pool_breaks():
    """Else the pool waits for it for ever, as Python does from 3.12 on."""
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)
    with ProcessPoolExecutor(1, context, jobs._start_process, (stop,)) as pool:
        process = pool.submit(os.getpid).result()
        stop.value = 1
        os.kill(process, signal.SIGTERM)
        assert pool.submit(os.getpid).result() == process
        os.kill(process, signal.SIGTERM)
        with pytest.raises(BrokenProcessPool):
            pool.submit(select.select, [], [], [], 60).result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a parent to kill")
def test_processes_do_not_outlive_a_parent_that_is_killed(tmp_path):
    """Each process holds an end of a pipe: the other end tells when the last is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    parent = os.fork()
    if parent == 0:
        run({name: partial(wait_for_ever, pipe) for name in "ab"}, 2)
        os._exit(0)
    reader, started = os.open(pipe, os.O_RDONLY), b""
    while len(started) < 2:
        started += os.read(reader, 2)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert select.select([reader], [], [], 120)[0], "alive after two minutes"
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interruption_ends_what_runs_and_begins_nothing_more(tmp_path):
    """A pool hands out tasks ahead: those must not begin either."""
    tasks = {name: partial(interrupt_parent_and_wait, tmp_path, os.getpid()) for name in "abcdef"}
    with pytest.raises(Interrupted, match="to go on: again"):
        run(tasks, 2)
    assert len(list(tmp_path.iterdir())) <= 2


def test_what_a_task_has_raised_is_told_at_the_next_look():
    with Interrupts() as interrupts, Pool(1, interrupts, "again") as pool:
        pool.submit("fine", Step(partial(square, 2)))
        ((name, (value, process)),) = pool.finished()
        assert (name, value) == ("fine", 4)
        assert process != os.getpid()
        pool.check()
        pool.submit("wrong", Step(partial(refuse, 3)))
        with pytest.raises(UserError, match="3 is wrong"):
            look_until_it_raises(pool)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name tells when the other works")
def test_leaving_the_block_ends_what_runs(tmp_path):
    """Even a task that never looks at its interrupts."""
    os.mkfifo(pipe := tmp_path / "pipe")
    with Interrupts() as interrupts, Pool(1, interrupts, "again") as pool:
        pool.submit("long", Step(partial(wait_for_ever, pipe)))
        reader = os.open(pipe, os.O_RDONLY)
        assert os.read(reader, 1) == b"x"
    assert select.select([reader], [], [], 120)[0], "alive after two minutes"
    assert os.read(reader, 1) == b""
    os.close(reader)


def stop_itself(interrupts):
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="processes are stopped otherwise")
def test_a_process_that_was_stopped_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.1)
    interrupts = Interrupts()
    with Pool(1, interrupts, "hint") as pool:
        pool.submit("stopped", Step(stop_itself))
        os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOWAIT)
        interrupts.number = signal.SIGINT
        with pytest.raises(Interrupted, match="hint"):
            list(pool.finished())
    for process in multiprocessing.active_children():
        process.join(60)
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="processes are stopped otherwise")
def test_a_process_that_stays_stopped_counts_as_dead(monkeypatch):
    monkeypatch.setattr(jobs, "STOPPED_SECONDS", 0.0)
    with Pool(1, Interrupts(), "hint") as pool:
        pool.submit("stopped", Step(stop_itself))
        with pytest.raises(WorkerError, match="with these not done: stopped"):
            list(pool.finished())


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are held otherwise")
def test_a_signal_that_comes_while_a_process_starts_waits_for_its_handler():
    with held():
        child = multiprocessing.get_context("spawn").Process(target=let_through)
        child.start()
        os.kill(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def let_through():
    assert signal.SIGINT in signal.sigpending()
    with Interrupts() as interrupts:
        release()
        assert interrupts.number == signal.SIGINT
