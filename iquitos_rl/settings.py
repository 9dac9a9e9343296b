"""`python -m iquitos_rl.settings sac`: list every setting with type, default and meaning."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry


def settings(
    agent: Annotated[
        str | None, Parameter(help="list this agent's too, with the defaults of its YAML file (default: none)")
    ] = None,
    /,
    *,
    case: Annotated[str | None, Parameter(help="list the settings of this preset (default: none)")] = None,
) -> int:
    """List every setting with its key as --set takes it, its default, type and meaning."""
    from iquitos_rl.assignments import read_yaml, validate
    from iquitos_rl.cases.presets import PRESETS
    from iquitos_rl.config import RunSettings, config_folder, load_settings
    from iquitos_rl.listing import rows

    if case is not None:
        print(f"# Settings of {case}, for `case build` and `case import`; in a training under case_settings.")
        changeable = PRESETS.require(case).settings
        found = [] if changeable is None else list(rows(changeable))
    elif agent is not None:
        own = load_settings([agent]).agents[agent]
        print(f"# Settings of a training of {agent}")
        found = [*rows(own.run), *rows(own.agent, "agent.")]
    else:
        print("# Settings of a training; those of an agent: iquitos-rl settings AGENT")
        found = list(rows(validate(RunSettings, read_yaml(config_folder() / "default.yaml"), "")))
    print("\n".join(map(str, found)))
    return 0


main = entry("settings", settings)

if __name__ == "__main__":
    raise SystemExit(main())
