"""Standard streams that fail in any way, at any moment: what a command does and returns stays the same."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError
from iquitos_rl.machine.console import Output, log_to

ROOT = Path(__file__).parents[2]
FAILURES = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(28, "No space left on device"),
    OSError(5, "Input/output error"),
    ValueError("I/O operation on closed file"),
]


class Failing(io.StringIO):
    """Fails at each call from a given one on."""

    def __init__(self, good, error):
        super().__init__()
        self.good, self.error = good, error

    def _count(self):
        self.good -= 1
        if self.good < 0:
            raise self.error

    def write(self, text):
        self._count()
        return super().write(text)

    def flush(self):
        self._count()


@settings(max_examples=80, deadline=None, database=None)
@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from(FAILURES), st.sampled_from([0, 1, 2, 70]), st.booleans())
def test_a_command_ends_as_if_it_had_been_heard(good, also_good, error, status, closed):
    done = []

    def body():
        for n in range(5):
            print("a line", n, flush=n % 2 == 0)
            done.append(n)
        for _ in tqdm(range(3), file=sys.stdout, mininterval=0):
            print("and one of errors", file=sys.stderr)
        if status == 2:
            raise UserError("row 3 is broken")
        return status

    out, err = Failing(good, error), Failing(also_good, error)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, None if closed else err
    try:
        assert run_command(body) == status
        assert (sys.stdout, sys.stderr) == (out, None if closed else err)
    finally:
        sys.stdout, sys.stderr = before
    assert done == list(range(5))


def test_what_was_lost_is_said_on_the_other_stream(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(1, FAILURES[1]))
    monkeypatch.setattr(sys, "stderr", said)
    assert run_command(lambda: print("x" * 10, flush=True) or 0) == 0
    assert said.getvalue() == (
        "note: standard output could not be written (No space left on device); the rest of it is lost\n"
    )


def test_a_slow_reader_loses_a_line_and_no_more():
    stream = Failing(0, BlockingIOError(11, "try again"))
    output = Output(stream)
    output.write("lost")
    stream.good = 5
    output.write("heard")
    assert (stream.getvalue(), output.lost) == ("heard", "")


shell = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's devices")
PRINTS = """
import sys
from iquitos_rl.cli import run_command

def body():
    for n in range(20_000):
        print("a line", n)
    open(sys.argv[1], "w").write("done")
    return 5

sys.exit(run_command(body))
"""


@shell
@pytest.mark.parametrize(
    "redirection",
    ["| head -1", ">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true", "<&- >&- 2>&-"],
)
def test_real_streams_that_fail_do_not_end_a_command(tmp_path, redirection):
    """The process has ended as well: what its buffers held at the exit did no harm."""
    line = f'"{sys.executable}" -c "$CODE" {tmp_path / "done"} {redirection}; echo ${{PIPESTATUS[0]}} >&3'
    with (tmp_path / "status").open("w") as status:
        found = subprocess.run(
            ["bash", "-c", f"exec 3>&{status.fileno()}; {line}"],
            env={**os.environ, "CODE": PRINTS},
            pass_fds=(status.fileno(),),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (tmp_path / "status").read_text() == "5\n"
    assert (tmp_path / "done").read_text() == "done"
    assert "Traceback" not in found.stderr
    assert "Exception" not in found.stderr


@pytest.mark.parametrize("make", ["file", "folder", "pipe", "full", "missing folder"])
def test_a_log_that_cannot_be_written_is_given_up(tmp_path, make):
    path = tmp_path / "run.log"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "full":
        path.symlink_to("/dev/full")
    elif make == "missing folder":
        path = tmp_path / "nowhere" / "run.log"
    with log_to(path):
        print("x" * 100_000)
        print("to errors", file=sys.stderr)
    if make == "file":
        assert path.read_text() == "x" * 100_000 + "\nto errors\n"
