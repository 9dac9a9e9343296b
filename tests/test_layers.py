"""Imports run downwards: a module may import its own layer and those below."""

import ast
from pathlib import Path

import pytest

import iquitos_rl

ROOT = Path(iquitos_rl.__file__).parent
LAYERS = (
    ("errors", "version", "meanings"),
    ("machine.inputs",),
    ("assignments", "registry"),
    ("machine",),
    ("cases.thermal", "cases.appliance", "cases.occupant"),
    ("cases.site",),
    ("cases.forecasts",),
    ("cases.tariff",),
    ("cases.schema",),
    ("cases.presets",),
    ("cases.iquitos",),
    ("cases.metered",),
    ("cases",),
    ("envs.spaces",),
    ("envs.vector", "envs.described"),
    ("envs.task.settings",),
    ("envs.task",),
    ("envs.engines",),
    ("envs.district",),
    ("envs.gym",),
    ("envs.citylearn",),
    ("envs",),
    ("buffers",),
    ("memory",),
    ("baselines",),
    ("checkpoints",),
    ("writers",),
    ("agents",),
    ("config",),
    ("judging",),
    ("report",),
    ("runs",),
    ("cluster",),
    ("cli", "options"),
    ("comparison",),
    ("tuning",),
    ("train", "tune", "evaluate", "plan", "case", "compare", "size", "report.__main__", "settings"),
    ("__main__",),
)
"""From the bottom to the top; the longest name that fits a module is its layer."""


def layer(module: str) -> int:
    """The layer of a module, named without the package.

    Raises:
        LookupError: it belongs to none.
    """
    for n in range(module.count(".") + 1, 0, -1):
        prefix = ".".join(module.split(".")[:n])
        for level, names in enumerate(LAYERS):
            if prefix in names:
                return level
    raise LookupError(f"{module} belongs to no layer: add its folder to LAYERS")


def imported(source: str) -> set[str]:
    """Every module or name of the package that a source imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("iquitos_rl.") for name in found if name.startswith("iquitos_rl.")}


def upward(module: str, source: str) -> list[str]:
    return sorted(name for name in imported(source) if layer(name) > layer(module))


def modules() -> list[str]:
    paths = (path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))
    return sorted(".".join(path.parts) for path in paths if path.parts != ("__init__",))


@pytest.mark.parametrize("module", modules())
def test_imports_run_downwards(module):
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert upward(module.removesuffix(".__init__"), path.read_text(encoding="utf-8")) == []


def test_an_upward_import_is_found():
    assert upward("envs.vector", "def f():\n    from iquitos_rl.agents import SAC") == ["agents.SAC"]
    assert upward("envs.vector", "from iquitos_rl import train") == ["train"]
    assert upward("agents.sac", "import iquitos_rl.buffers.replay") == []


def test_a_module_of_no_layer_is_found():
    with pytest.raises(LookupError, match="belongs to no layer"):
        layer("drawer.things")
