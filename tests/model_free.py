"""The agents that learn on any environment and with anyone's networks, for tests on small ones."""

from iquitos_rl.agents import AGENTS

MODEL_FREE = tuple(name for name, entry in AGENTS.items() if not (entry.differentiates or entry.named_only))
