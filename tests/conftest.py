"""Shared fixtures: one thread, and a small Iquitos case that is built once."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from cpu_graphs import graphs_on_cpu
from hypothesis import settings
from short_case import shorten

from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.memory import recovery
from iquitos_rl.report import markup
from iquitos_rl.runs import session

torch.set_num_threads(1)  # two threads on a busy machine are many times slower than one

# The suite tries the same inputs every time, so a failure belongs to a change. New inputs are looked for on purpose:
# pytest --hypothesis-profile=explore
settings.register_profile("suite", derandomize=True, database=None)
settings.register_profile("explore", print_blob=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def year_38(tmp_path_factory) -> Path:
    """A whole year of iquitos-38."""
    return build_case("iquitos-38", 0, tmp_path_factory.mktemp("cases") / "year-38")


@pytest.fixture(scope="session")
def week_38(year_38, tmp_path_factory) -> Path:
    """The first 168 hours of iquitos-38."""
    folder = tmp_path_factory.mktemp("cases") / "week-38"
    return shorten(shutil.copytree(year_38, folder), 168)


@pytest.fixture(scope="module")
def site(week_38):
    return read_site(week_38)


@pytest.fixture(scope="module")
def rule(site):
    """The rule that guides on that week."""
    return default_settings("strongest", fit_profiles([site]))


@pytest.fixture(scope="module")
def without_report():
    """Commands write no report.html, which takes more time than everything else that a short run does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "write_report", lambda folder: folder / "report.html")
        yield


@pytest.fixture(scope="module")
def without_drawings():
    """Commands write reports without their drawings, which take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markup, "save", lambda draw, folder, name: "<svg></svg>")
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def graph_device(request):
    """Where graphs can be captured: a GPU, and a CPU that pretends."""
    with graphs_on_cpu() if request.param == "cpu" else nullcontext():
        yield request.param


class Failures:
    """Raises at chosen calls of `taking_memory(place)`."""

    def __init__(self, place, when):
        self.place, self.when, self.calls, self.raised = place, when, 0, 0

    def __call__(self, place):
        if place == self.place:
            self.calls += 1
            if self.when(self.calls):
                self.raised += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Injected.")


@pytest.fixture
def fail(monkeypatch):
    """Lets memory run out: `fail(place, when)` with `when` called with the number of the call."""

    def start(place, when):
        failures = Failures(place, when)
        monkeypatch.setattr(recovery, "failure", failures)
        return failures

    return start
