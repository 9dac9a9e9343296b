"""Work in a thread returns and raises as it would here, and a signal's handler may leave it behind."""

import signal
import threading

import pytest

from iquitos_rl.machine.aside import aside
from iquitos_rl.machine.interrupt import Interrupted, Interrupts


def test_work_returns_and_raises():
    assert aside(lambda: 3) == 3
    assert aside(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)


def test_a_signal_ends_the_wait():
    go_on = threading.Event()

    def deaf():
        signal.raise_signal(signal.SIGINT)
        go_on.wait()

    with Interrupts() as interrupts, interrupts.at_once(), pytest.raises(Interrupted):
        aside(deaf)
    go_on.set()
    assert interrupts.number == signal.SIGINT
