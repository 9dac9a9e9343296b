"""A week of the small Iquitos site, and the rule that guides there."""

import pytest

from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.schema.reader import read_site


@pytest.fixture(scope="module")
def site(week_38):
    return read_site(week_38)


@pytest.fixture(scope="module")
def rule(site):
    return default_settings("strongest", fit_profiles([site]))
