"""What all agents have in common: environment, learning with reports, prediction, files, state.

An algorithm is a subclass with settings, losses and `rounds`: experience, and the updates that it pays for.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import ValidationError
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from iquitos_rl.agents import parallel
from iquitos_rl.agents.arguments import callable_of, config_of, device_of, folder_of, network_of, seed_of, whole
from iquitos_rl.agents.callbacks import Callback, callbacks_of
from iquitos_rl.agents.compiled import Gradient, elsewhere, join_graphs, norm_of, rows_of
from iquitos_rl.agents.configs import AgentConfig as AgentConfig
from iquitos_rl.agents.features import Features
from iquitos_rl.agents.kept import LEARNING, load_learning, save_learning
from iquitos_rl.agents.metrics import Metrics
from iquitos_rl.agents.policy_file import PolicySpec, apply_policy, load_policy, save_policy
from iquitos_rl.agents.progress import EpisodeTracker, Progress
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.agents.schedules import FACTORS
from iquitos_rl.buffers.placement import Item
from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine import heap
from iquitos_rl.machine.torch_state import own_defaults, with_own_defaults
from iquitos_rl.memory.recovery import Parts, explained
from iquitos_rl.memory.rehearsal import STEP, without_memory

A = TypeVar("A", bound="Agent")
OnStep = Callable[[int], None] | None
OnLog = Callable[[Progress], None] | None


class Agent:
    """A learner on the transitions of one environment or of several.

    All randomness comes from generators that the agent owns: the same seed gives the same weights, whatever else the
    process draws. PyTorch's defaults (type, device, gradients) are set inside and left as the caller has them. On a
    CPU, glibc's thresholds for returning memory are fixed for the process (`machine/heap.py`). An agent can be copied
    and pickled where its environment can, and the copy goes on learning the same.

    Inside a process group of `torch.distributed`, all processes make and train one agent together, each in environments
    of its own (`parallel.py`). They all call the same methods in the same order.

    Any `nn.Module` can be the network `actor` or `critic`; each algorithm says what these map to what. A module is used
    as it is: what it was initialised with is its maker's choice, `hidden`, `layer_norm`, `activation` and `amp` are not
    applied to it, and all of its parameters that require a gradient are trained. Dropout and batch statistics are not
    switched between learning and acting.

    Args:
        env: a gymnasium environment, a list of functions that each make one, one of gymnasium's vector environments, or
            a `VectorEnv`. None only together with `spec`, for an agent that predicts but does not learn.
        config: the algorithm's settings, by default as shipped.
        device: such as cpu or cuda; auto for CUDA where there is one.
        seed: of everything; None draws one, which is then the agent's `seed`.
        spec: what to know of the environment; taken from `env` where there is one, in the order of this `spec`.
        actor: network in place of the algorithm's own.
        critic: the same.
        features: what the algorithm's own networks read, from the description of the observation's parts to a module
            from rows (B, D) to features (B, F), made for each network; by default a small `CNN` for each image and
            other numbers as they are (`features.py`).

    Raises:
        UserError: an argument is not what it must be, or the environment's spaces cannot be handled.
    """

    name: ClassVar[str]
    """In the registry, on the command line and in saved policies."""
    config_type: ClassVar[type[AgentConfig]]
    advice: ClassVar[str]
    """Which settings to lower where memory is short."""
    holes: ClassVar[float] = 0.0
    """On a CPU, what the C library's heap takes on top of each byte that the agent's largest moment keeps."""
    shareable: ClassVar[bool] = False
    """Several processes can train one such agent (`parallel.py`). Each class says so for itself."""
    not_portable: ClassVar[dict[str, Any]] = {}
    """Settings that say nothing about a policy and may not be possible elsewhere, and what is saved in their place."""

    config: AgentConfig
    networks: nn.Module
    """Everything that a saved policy holds."""
    optimizers: dict[str, Optimizer]
    gradients: dict[str, Gradient]
    """Under the optimisers' names."""
    metrics: Metrics
    tracker: EpisodeTracker
    log_every = 1
    """Transitions between two reports; a report is made at the end of a round."""

    def __init__(
        self,
        env: TrainingEnv | None,
        config: AgentConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = 0,
        *,
        spec: PolicySpec | None = None,
        actor: nn.Module | None = None,
        critic: nn.Module | None = None,
        features: Features | None = None,
    ) -> None:
        self.config = config_of(self.config_type, config)
        self.device, self.seed = device_of(device), seed_of(seed)
        if spec is not None and not isinstance(spec, PolicySpec):
            raise UserError(f"spec must be a PolicySpec, not a {type(spec).__name__}")
        networks = {"actor": network_of("actor", actor), "critic": network_of("critic", critic)}
        self.features: Features | None = callable_of("features", features)
        given = {**networks, "features": features}
        self.given = [name for name, x in given.items() if x is not None]
        """Networks that were not made here."""
        if self.device.type == "cpu":
            heap.fix_thresholds()
        with own_defaults(self.device):
            self.env = None if env is None else as_vector(env, self.device)
            if self.env is not None:
                join_graphs(self.env, self.config.compile, self.device)
                here = PolicySpec.of(self.env)
                several = self.config.shared and not self.given and here.buildings and here.buildings.several
                spec = (here if several else here.flat()) if spec is None else here.arranged(spec)
            if spec is None:
                raise UserError("an agent needs an environment, or the description of one")
            self.spec = spec
            self.init = Generator().manual_seed(self.seed)
            """Draws weights and seeds; on the CPU, so a seed means the same network on every device."""
            self.generators: dict[str, Generator] = {}
            self.steps = self.updates = 0
            self.span = (0, 1)
            """First and last transition of the announced training."""
            self.callbacks: tuple[Callback, ...] = ()
            """Those of the `learn` that is running."""
            self._stopping = False
            self.processes = parallel.processes()
            """That train this agent together; transitions count over all of them."""
            advice = f"python -m iquitos_rl.plan {self.name} shows what each setting needs; lower {self.advice}"
            self.micro_batch = Parts("gradient", self.device, self.config.micro_batch, partial(str, advice))
            self.acting = Parts("policy", self.device, advice=partial(str, advice))
            self.build(**networks)
            self.metrics = Metrics(self.optimizers.values(), self.device)
            if self.processes > 1 and self.env is not None and self.device.type != "meta":
                self._unite()

    def _unite(self) -> None:
        """Make sure that all processes train the same agent. Raises UserError: they do not, or cannot."""
        if not type(self).__dict__.get("shareable", False):
            raise UserError(f"{self.name} cannot be trained by several processes: train it in one")
        parallel.refuse_without_cpu()
        facts = {"algorithm": self.name, "seed": self.seed, "number of environments": self.environment().num_envs}
        spaces = hashlib.sha256(self.spec.model_dump_json().encode()).hexdigest()[:12]
        settings = self.config.model_dump(exclude={"micro_batch", "placement"})  # what a process's own memory decides
        named = {f"agent.{name}": value for name, value in settings.items()}
        parallel.refuse_differences({**facts, **named, "spaces (digest)": spaces})
        parallel.copy_first(list(self.networks.state_dict().values()))  # a network that was given is each process's own

    def spawn(self, *names: str) -> None:
        """Make a generator on the device for each name, all seeded from the agent's seed and, where there are several
        processes, different in each; `predict` is one of them."""
        every = torch.randint(2**62, (self.processes, len(names)), generator=self.init, device="cpu")
        seeds: list[int] = every[parallel.rank()].tolist()
        device = "cpu" if self.device.type == "meta" else self.device  # where there are no generators
        self.generators = {name: Generator(device).manual_seed(seed) for name, seed in zip(names, seeds)}

    # --- for each algorithm to say

    def build(self, actor: nn.Module | None, critic: nn.Module | None) -> None:
        """Make `networks`, `generators`, `gradients`, `optimizers` and, with an environment, what collects experience;
        None for a network of the algorithm's own."""
        raise NotImplementedError

    def rounds(self, total_steps: int, on_step: OnStep) -> Iterator[None]:
        """Learn until `steps` reaches `total_steps`, and yield wherever a report may be made."""
        raise NotImplementedError

    def reset(self) -> None:
        """Start new episodes.

        Raises:
            UserError: there is no environment.
        """
        raise NotImplementedError

    def act(self, obs: Tensor, generator: Generator | None) -> Tensor:
        """Actions (B, A) for observations (B, D), drawn with the generator or, without one, the policy's best. A policy
        with a memory takes the rows for the same environments as in the call before."""
        raise NotImplementedError

    def forget(self, ended: Tensor | None = None) -> None:
        """New episodes begin in the environments that `act` is for: those where `ended` (B,) is true, or all. Only
        policies with a memory need to know."""

    def example(self) -> tuple[Any, ...]:
        """Arguments of a gradient's loss that take as much memory as an update's, whatever their values."""
        raise NotImplementedError

    def updates_by(self, steps: int) -> int | None:
        """Gradient steps that training makes until so many transitions; None where that is not known beforehand."""
        return None

    def report(self) -> dict[str, float]:
        """Metrics of a report on top of the updates' and the episodes'."""
        return {}

    # --- learning

    @with_own_defaults
    def learn(
        self: A,
        steps: float | None = None,
        on_log: OnLog = None,
        on_step: OnStep = None,
        *,
        until: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> A:
        """Train for so many more transitions, in whole rounds; report every `log_every` transitions and at the end.

        What falls in the course of a training (`schedule`) falls from the first to the last of these steps; with
        `until`, from the agent's very first step to that one, so a training in several calls is one training.

        Args:
            steps: transitions to go, over all environments; by default as many as `until` leaves.
            until: transitions that the whole training has in all; where they are reached there is nothing to do.
            on_log: called with every report.
            on_step: called with the transitions so far after every step of the environments. The state is complete
                then, so what it raises ends training at a point from which it can be resumed.
            callbacks: see `Callback`.

        Raises:
            UserError: an argument is not what it must be, there is no environment, it yields numbers that are not
                finite, or training diverges.
        """
        goal = self._plan(steps, until)
        log, step = callable_of("on_log", on_log), callable_of("on_step", on_step)
        if self.updates == 0 and self.steps < goal:
            self.rehearse()
        self.callbacks, self._stopping, before = callbacks_of(callbacks), False, self.steps

        def stepped(now: int) -> None:
            if step is not None:
                step(now)
            for callback in self.callbacks:
                callback.on_step(self, now)

        for _ in self.rounds(goal, stepped if step or self.callbacks else None):
            self._agree_to_stop()
            due = self.steps // self.log_every > before // self.log_every
            if due or self.steps >= goal or self._stopping:
                metrics = self.metrics.means() | self.report() | self.tracker.collect()
                if self.processes > 1:  # devices of different kinds may round differently
                    parallel.refuse_differences({"networks (sum of all weights)": self._sum_of_weights()})
                progress = Progress(self.steps, self.updates, self.tracker.episodes, metrics)
                for told in [log, *(partial(callback.on_log, self) for callback in self.callbacks)]:
                    if told is not None:
                        told(progress)
            before = self.steps
            self._agree_to_stop()  # a report may have led to it
            if self._stopping:
                break
        for callback in self.callbacks:
            callback.on_end(self)
        self.callbacks = ()
        return self

    def stop(self) -> None:
        """End the `learn` that is running after its present round; for callbacks."""
        self._stopping = True

    def _agree_to_stop(self) -> None:
        """What one process wants to end ends in all."""
        self._stopping = bool(parallel.largest(self._stopping)[0])

    def _sum_of_weights(self) -> float:
        return float(torch.stack([x.sum(dtype=torch.float64) for x in self.networks.state_dict().values()]).sum())

    def _plan(self, steps: float | None, until: float | None) -> int:
        """The transitions at which a `learn` ends; sets `span`."""
        self.environment()
        if steps is None and until is None:
            raise UserError("learn needs steps, how many more, or until, how many in all")
        more = None if steps is None else whole("steps", steps, 1)
        last = self.steps + (more or 0) if until is None else whole("until", until, 1)
        if self.processes != parallel.processes():
            raise UserError(f"this agent was made for {self.processes} processes, and there are {parallel.processes()}")
        parallel.refuse_differences({"steps to learn": (self.steps, more, last)})
        self.span = (self.steps if until is None else 0, last)
        goal = last if more is None else min(last, self.steps + more)
        if self.steps < goal < self.steps + self.round_steps():
            warnings.warn(
                f"{goal - self.steps:,} steps were asked for, and {self.name} takes them in rounds of "
                f"{self.round_steps():,}: one whole round is made",
                stacklevel=4,
            )
        return goal

    def passed(self) -> float:
        """The share of the announced steps that lies behind, 0 to 1: what schedules depend on."""
        start, end = self.span
        return (self.steps - start) / max(1, end - start)

    def left(self) -> float:
        """The share of the first step size that `config.schedule` leaves now."""
        return FACTORS[self.config.schedule](self.passed())  # type: ignore[attr-defined]

    def round_steps(self) -> int:
        """Transitions of the shortest piece of training."""
        return self.environment().num_envs * self.processes

    def episode_seed(self) -> int:
        """What environments that start now are seeded with: as if all processes' were in one row."""
        return self.seed + self.steps + self.environment().num_envs * parallel.rank()

    def take_gradient(self, name: str, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
        """Set a gradient to that of the loss of a batch, as many rows at a time as memory allows; returns its metrics.
        Where there are several processes, each gives an equal share of the batch."""
        gradient = self.gradients[name]
        return self.united(name, self.micro_batch.run(rows_of(arguments), partial(gradient.set, arguments)))

    def united(self, name: str, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make a gradient that is set, and its metrics, those of all processes. This comes after what may be repeated:
        each process recovers from a lack of memory alone."""
        if self.processes > 1:
            parameters = self.gradients[name].parameters
            metrics = parallel.averaged(parameters, metrics)
            metrics["grad_norm"] = norm_of(parameters)
        return metrics

    def environment(self) -> VectorEnv:
        """The environments.

        Raises:
            UserError: there are none.
        """
        if self.env is None:
            raise UserError("this agent was made without an environment: it can predict but not learn")
        return self.env

    def rehearse(self) -> None:
        """Take all memory that an update needs, and change nothing: where it does not fit, that shows now and not after
        hours."""
        example = self.example()
        for name, gradient in self.gradients.items():
            self.micro_batch.run(rows_of(example), partial(gradient.set, example))
            self.metrics.found.fill_(1.0)  # so that the step makes the moments and changes nothing
            self.optimizers[name].step()
            self.metrics.found.zero_()

    # --- what the memory plan asks an agent on the meta device (`memory/rehearsal.py`)

    def weights(self) -> dict[str, Iterable[Tensor]]:
        """The networks' tensors, by names for the plan."""
        return {"networks": self.networks.state_dict().values()}

    def held(self) -> dict[str, int]:
        """Bytes that stay from the first update on, by name."""
        gradients = [p for gradient in self.gradients.values() for p in gradient.parameters]
        states = [state for optimizer in self.optimizers.values() for state in optimizer.state.values()]
        moments = [x for state in states for name, x in state.items() if name != "step"]
        groups = {**self.weights(), "gradients": gradients, "optimiser's moments": moments}
        return {name: sum(x.nbytes for x in tensors) for name, tensors in groups.items()}

    def stored(self, config: Any) -> list[Item]:
        """What experience takes with these settings, which may have another buffer's size and placement."""
        return []

    def batches(self) -> list[int]:
        """The different numbers of transitions that gradients are taken of, the largest first."""
        return [rows_of(self.example())]

    def moments(self) -> dict[str, Callable[[], object]]:
        """What needs memory only while it runs, by name; without what the environments need in a step."""
        obs = torch.zeros(self.environment().num_envs, self.spec.obs_dim, device=self.device)
        act = torch.no_grad()(partial(self.act, obs, self.generators["predict"]))
        return {"an update": self.rehearse, STEP: act}

    # --- acting and keeping

    @with_own_defaults
    def predict(self, obs: Any, deterministic: bool = True, **unknown: Any) -> Any:
        """What to do in the environment where it shows an observation, or at each of a batch of B.

        An agent with a memory (`RecurrentPPO`) must be asked in every step, and told with `forget` where an episode
        begins.

        Returns:
            The action alone, as the environment takes it and always inside its space: an integer for Discrete, an
            array, or a tensor where the observation is one.

        Raises:
            UserError: this is no observation of the environment's space, or it is not finite.
        """
        if unknown:
            name = next(iter(unknown))
            raise UserError(
                f"predict has no argument {name}: it takes an observation and returns the action alone "
                "(iquitos_rl.evaluate_policy takes the place of stable-baselines3's)"
            )
        generator = None if deterministic else self.generators["predict"]
        return apply_policy(lambda rows: self.act(rows, generator), obs, self.spec, self.device)

    def set_env(self: A, env: TrainingEnv) -> A:
        """Learn in another environment of the same spaces from now on; everything learned and stored is kept, and open
        episodes count as truncated.

        Raises:
            UserError: its spaces differ, or it has another number of environments than the one before.
        """
        with own_defaults(self.device):
            found = as_vector(env, self.device)
            PolicySpec.of(found).must_match(self.spec)
            if self.env is None:
                raise UserError("this agent was made without an environment: give load the environment")
            if found.num_envs != self.env.num_envs:
                raise UserError(f"there are {found.num_envs} environments where the agent had {self.env.num_envs}")
            join_graphs(found, self.config.compile, self.device)
            self.env = found
            self.leave_episodes()
        return self

    def save_policy(self, directory: str | Path) -> None:
        """Write networks and settings, all that acting needs. Of several processes only the first writes.

        Raises:
            UserError: a network's number is not finite, or the directory cannot be written.
        """
        if parallel.rank():
            return
        folder = folder_of(directory)
        config = self.config.model_copy(update={"compile": elsewhere(self.config.compile), **self.not_portable})
        spec, tensors = self.spec.model_dump(), self.networks.state_dict()
        for learning in (folder / LEARNING, *folder.glob(f"{LEARNING}-*")):  # of the policy that was there
            shutil.rmtree(learning, ignore_errors=True)
        save_policy(folder, algorithm=self.name, config=config, spec=spec, tensors=tensors, networks=self.given)

    @with_own_defaults
    def save(self, directory: str | Path, buffer: bool = False) -> None:
        """Write the policy, and what `load` needs to go on learning: optimisers, counters, statistics, generators. All
        processes that train the agent call this, and as many must load it; one process alone can load it to predict.

        Args:
            buffer: with the stored transitions, so that learning goes on exactly. Without, a loaded agent first fills
                its buffer again by its own policy.

        Raises:
            UserError: a number is not finite, or the directory cannot be written.
        """
        folder = folder_of(directory)
        self.save_policy(folder)
        if self.env is not None:
            parallel.barrier()  # the policy is there, which the state of learning names
            save_learning(folder, self.learning_state(buffer), self.steps, self.env.num_envs)
            parallel.barrier()

    @classmethod
    def load(
        cls: type[A],
        directory: str | Path,
        env: TrainingEnv | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = 0,
        **networks: Any,
    ) -> A:
        """The agent that `save` wrote. Without an environment it predicts only; with one it goes on learning where it
        stopped, in new episodes.

        Args:
            seed: of the environments' episodes; what the agent draws goes on where it stopped.
            networks: `actor`, `critic`, `features`, where the agent was made with its own: files hold weights and no
                code.

        Raises:
            UserError: the files are not a policy of this algorithm, or not one for this environment or these networks.
        """
        folder = folder_of(directory)
        meta, tensors = load_policy(folder)
        if meta["algorithm"] != cls.name:
            raise UserError(f"{folder}: the policy was trained by {meta['algorithm']!r}, not by {cls.name!r}")
        if set(meta["networks"]) != set(networks):
            wanted = ", ".join(meta["networks"]) or "no network"
            raise UserError(f"{folder}: the policy was made with {wanted} of its own: give load the same")
        try:
            config, spec = cls.config_type(**meta["config"]), PolicySpec(**meta["spec"])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{folder}: policy.json does not describe such a policy: {where}: {first['msg']}"
            ) from error
        misfit = UserError(f"{directory}: the weights do not fit the settings in policy.json")
        if not networks:  # looked at before networks of whatever size the file says take memory
            try:
                with without_memory():
                    made = cls(None, config, "meta", spec=spec).networks.state_dict()
            except RuntimeError as error:
                raise misfit from error
            if _forms(made) != _forms(tensors):
                raise misfit
        agent = cls(env, config, device, seed, spec=spec, **networks)
        if agent.spec.buildings is None:  # else every column and device was found by its name
            agent.spec.must_match(spec)
        with own_defaults(agent.device):
            try:
                agent.networks.load_state_dict(tensors)
            except RuntimeError as error:
                raise misfit from error
            if agent.env is not None:
                load_learning(folder, agent)
        return agent

    def at(self: A, spec: PolicySpec) -> A:
        """This policy for another environment, to act there: the same one, or, if it is one network for every building,
        that of a site with any number of them.

        Raises:
            UserError: the policy reads what there is not there, or cannot move what there is.
        """
        here = spec.arranged(self.spec)
        if here.buildings is None or here == self.spec:
            here.must_match(self.spec)
            return self
        agent = type(self)(None, self.config, self.device, self.seed, spec=here)
        agent.networks.load_state_dict(self.networks.state_dict())
        return agent

    def leave_episodes(self) -> None:
        """Let the next `learn` start new episodes; those still open count as truncated where they are."""
        self.reset()

    def learning_state(self, buffer: bool) -> dict[str, Any]:
        """What a `state_dict` has that holds in new episodes too, with or without stored transitions."""
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.metrics.watch(self.optimizers.values())  # optimisers do not copy what is not PyTorch's own

    def state_dict(self) -> dict[str, Any]:
        """Everything but the environment's own state, to continue exactly. Tensors are the agent's, not copies."""
        return {
            "networks": self.networks.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "steps": self.steps,
            "updates": self.updates,
            "metrics": self.metrics.state_dict(),
            "micro_batch": self.micro_batch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of an agent with the same settings; bring the environment to the same point too, or
        call `reset`."""
        self.networks.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(deepcopy(state["optimizers"][name]))  # which otherwise shares its tensors
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self.metrics.load_state_dict(state["metrics"])
        self.micro_batch.load_state_dict(state["micro_batch"])


def load_agent(
    directory: str | Path,
    env: TrainingEnv | None = None,
    device: torch.device | str = "cpu",
    seed: int | None = 0,
    **networks: Any,
) -> Agent:
    """The agent of whichever algorithm that `Agent.save` wrote; see `Agent.load`.

    Raises:
        UserError: as `Agent.load`, or no agent has the algorithm's name.
    """
    name = load_policy(folder_of(directory))[0]["algorithm"]
    if name not in AGENTS:
        raise UserError(f"{directory}: unknown algorithm {name}")
    return AGENTS[name].agent.load(directory, env, device, seed, **networks)


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that require a gradient."""
    return [p for p in module.parameters() if p.requires_grad]


def take_step(env: VectorEnv, action: Tensor, device: torch.device) -> StepResult:
    """One step of every environment with actions (E, A), the result on the agent's device.

    Raises:
        UserError: memory ran out.
    """
    with explained("the environments' step", "lower num_envs", device):
        step = env.step(action.to(env.device))
        info = {name: x.to(device) for name, x in step.info.items()}
        moved = {name: x.to(device) for name, x in step._asdict().items() if name != "info"}
        return StepResult(**moved, info=info)
