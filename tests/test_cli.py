"""What every command does with mistakes and with a console that cannot show everything."""

import io
import sys

from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import AuditError


def raising(error):
    def body():
        raise error

    return body


def test_what_went_wrong_decides_the_exit_status(capsys):
    assert run_command(lambda: 0) == 0
    assert run_command(raising(UserError("row 3 is broken"))) == 2
    assert run_command(raising(AuditError("hour 5"))) == 1
    assert run_command(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.splitlines()[:2] == ["error: row 3 is broken", "audit failed: hour 5"]


def test_a_cp1252_console_does_not_end_a_run(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", write_through=True))
    assert run_command(lambda: print("CO₂ → Iquitos, año") or 0) == 0
    assert written.getvalue().decode("cp1252") == "CO? ? Iquitos, año\n"
