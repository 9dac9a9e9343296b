"""Case folders that several tests read; none may change them."""

from __future__ import annotations

from pathlib import Path

import pytest

from iquitos_rl.cases.iquitos.build import build_case

SMALL = {"sockets.moto_count": 2, "sockets.mototaxi_count": 1}


@pytest.fixture(scope="session")
def case_38(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_case("iquitos-38", 0, tmp_path_factory.mktemp("built") / "iquitos-38")


@pytest.fixture(scope="session")
def case_128(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_case("iquitos-128", 0, tmp_path_factory.mktemp("built") / "iquitos-128")


@pytest.fixture(scope="session")
def small_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sockets with visits of 3 to 6 h, each after a free row."""
    return build_case("iquitos-128", 1, tmp_path_factory.mktemp("built") / "small", SMALL)
