"""The agents that learn on any environment, for tests on small ones."""

from iquitos_rl.agents import AGENTS

MODEL_FREE = tuple(name for name, entry in AGENTS.items() if not entry.differentiates)
