"""What a month may still come to, against a plain loop over the rows."""

import numpy as np
from short_case import shorten
from sites import objective_of

from iquitos_rl.baselines.later_peaks import DAYS, days_left, fit_later_peaks
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import counted

SETTINGS = {"sockets.moto_count": 3, "sockets.mototaxi_count": 1}


def test_they_are_quantiles_of_the_optimums_imports(tmp_path):
    case = build_case("iquitos-38", 0, tmp_path / "case", SETTINGS)
    site = read_site(shorten(case, 40 * 24 + 1))
    objective = objective_of(site)
    table = fit_later_peaks([site], objective, 3)
    assert table.shape == (12, DAYS, 1, 2, 3)
    imports = np.maximum(optimum(site, objective).plan.net[:, 0], 0)
    counts = counted(site, objective.tariff)[: len(imports)]
    month, left = site.month[: len(imports)], days_left(site)[: len(imports)]
    for m, d, p in ((1, 0, 0), (1, 12, 1), (1, 25, 0), (2, 3, 1)):
        rows = [t for t in range(len(imports)) if month[t] == m and left[t] == d]
        later = [max(imports[u] * counts[u, p] for u in range(t, len(imports)) if month[u] == m) for t in rows]
        np.testing.assert_allclose(table[m - 1, d, 0, p], np.quantile(later, [1 / 6, 0.5, 5 / 6]), rtol=1e-9)
    assert (np.diff(table, axis=-1) >= 0).all()
    np.testing.assert_allclose(table[5, 5], (table[0, 5] + table[1, 5]) / 2)


def test_days_left_count_to_the_end_of_the_month(tmp_path):
    site = read_site(build_case("iquitos-38", 0, tmp_path / "case", SETTINGS))
    left = days_left(site)
    assert left[[0, 23, 24, 30 * 24, 31 * 24 - 1, 31 * 24]].tolist() == [30, 30, 29, 0, 0, 27]
