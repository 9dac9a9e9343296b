"""A package that is not there is one sentence that says how to install it."""

import sys

import pytest

from iquitos_rl.errors import UserError
from iquitos_rl.machine.optional import optional


def test_what_is_there_is_imported():
    assert optional("json", "none") is sys.modules["json"]


def test_what_is_missing_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"trackio cannot be imported .*: pip install 'iquitos_rl\[trackio\]'"):
        optional("trackio", "trackio")
