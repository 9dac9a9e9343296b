"""Every setting that a user can give, from the models themselves."""

from pydantic import BaseModel

from iquitos_rl.agents import A2CConfig, PPOConfig, SACConfig
from iquitos_rl.cases.iquitos.presets import CaseSettings
from iquitos_rl.config import RunSettings

MODELS = (RunSettings, SACConfig, PPOConfig, A2CConfig, CaseSettings)


def fields(model: type[BaseModel], prefix: str = "") -> list[tuple[type[BaseModel], str, str]]:
    """Every setting below a model: the model it belongs to, its name there, and its whole key."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
        else:
            found.append((model, name, f"{prefix}{name}"))
    return found
