"""Where a signal raises, and where it is only noted."""

import signal

import pytest

from iquitos_rl.machine.interrupt import Interrupted, Interrupts


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_a_signal_raises_where_it_may():
    with Interrupts() as interrupts, interrupts.at_once():
        interrupts.message = "to resume: this"
        with pytest.raises(Interrupted, match="to resume: this"):
            interrupt()
        with pytest.raises(Interrupted):
            interrupts.check()


def test_a_step_comes_to_its_end():
    done = []

    def work():
        with Interrupts() as interrupts, interrupts.at_once():
            with interrupts.at_once(False):
                interrupt()
                done.append("the step")
            done.append("more")

    with pytest.raises(Interrupted):
        work()
    assert done == ["the step"]


def test_what_a_step_raises_is_not_hidden():
    def work():
        with Interrupts() as interrupts, interrupts.at_once(), interrupts.at_once(False):
            interrupt()
            raise KeyError

    with pytest.raises(KeyError):
        work()


def test_no_library_takes_it_for_an_error_of_its_own():
    def work():
        with Interrupts() as interrupts, interrupts.at_once():
            try:
                interrupt()
            except Exception:
                return "handled"

    with pytest.raises(Interrupted):
        work()
