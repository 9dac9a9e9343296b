"""One training in 1, 2 and 4 processes (gloo, on the CPU): the same updates, the same statistics, one agent."""

import multiprocessing
from unittest.mock import patch

import pytest
import ranks
import torch

from iquitos_rl.agents.normalisation import RunningMoments
from iquitos_rl.agents.ppo import PPO
from iquitos_rl.agents.sac import SAC
from iquitos_rl.errors import UserError

TIMEOUT = 600.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of what every process has found; four of them run once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    agents = [f"iquitos_rl.agents.{name}" for name in ("ppo", "a2c", "sac", "shac")]
    context.set_forkserver_preload(agents)  # imported once for all
    processes = [context.Process(target=ranks.main, args=(rank, folder)) for rank in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
    errors = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("error-*.txt"))]
    assert [process.exitcode for process in processes] == [0] * 4, "\n".join(errors)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """By number of processes and rank."""
    return {world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in (2, 4)}


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-11, atol=1e-12, msg=name)


@pytest.mark.parametrize("world", [2, 4])
def test_updates_are_those_of_one_process_with_the_whole_batch(found, world):
    """In float64: weights, metrics, norms, and where the divergence ended a rollout's epochs."""
    alone = ranks.updates(world)
    assert 0 < alone["ppo"]["updates"] < 27  # so the divergence has ended epochs
    for own in found[world]:
        for name in alone:
            equal(own["updates"][name], alone[name])


@pytest.mark.parametrize("world", [2, 4])
def test_a_process_short_of_memory_takes_smaller_parts_alone(found, world):
    times = 2 * 4 + (world == 2)  # two in every agent's gradients, and one in a window that can be taken apart
    assert [own["short"]["raised"] for own in found[world]] == [times * (rank == 1) for rank in range(world)]
    for own in found[world]:
        for name, whole in found[world][0]["updates"].items():
            equal(own["short"]["updates"][name], whole)


@pytest.mark.parametrize("world", [2, 4])
def test_weights_stay_equal_to_the_bit(found, world):
    first, *others = found[world]
    for name in ("ppo", "a2c", "sac", "shac"):
        for other in others:
            assert torch.equal(first["updates"][name]["numbers"], other["updates"][name]["numbers"])


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_a_training_is_one_training(found, name):
    one, two = (own[name] for own in found[2])
    assert torch.equal(one["numbers"], two["numbers"])
    assert one["steps"] == two["steps"] == one["counted"][-1] == 2 * ranks.ENVS * ranks.STEPS
    assert one["counted"] == two["counted"] == list(range(ranks.ENVS, one["steps"] + 1, ranks.ENVS))
    assert one["told"] == two["told"]
    assert one["told"][-1][2] == one["episodes"] + two["episodes"] > 0
    if name == "sac":
        assert one["updates"] == two["updates"] == int(0.3 * (one["steps"] - ranks.SAC_SMALL["learning_starts"]))


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_processes_explore_differently(found, name):
    one, two = (own[name] for own in found[2])
    assert (one["actions"][0] - two["actions"][0]).abs().max() > 0.1
    assert not torch.allclose(2 * one["observations"][0] + 1, two["observations"][0])  # but for `Seen`, they might be


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_statistics_are_those_of_all_observations(found, name):
    one, two = (own[name] for own in found[2])
    whole = RunningMoments((4,))
    for obs in torch.cat([one["observations"], two["observations"]], dim=1):
        whole.update(obs)
    for own in (one, two):
        for statistic, expected in zip(own["statistics"], (whole.count, whole.mean, whole.squares)):
            torch.testing.assert_close(statistic, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_a_saved_agent_is_loaded_by_as_many_processes(found, folder, name):
    for own in found[2]:
        assert torch.equal(*own[name]["resumed"])
    kind = {"ppo": PPO, "sac": SAC}.get(name)
    if kind is not None:
        kind.load(folder / name)  # to predict
        with pytest.raises(UserError, match="the state is of 2 processes, and there are 1 here"):
            kind.load(folder / name, ranks.scripted(masked=False))


def test_any_process_can_end_a_training(found):
    assert [own["stopped"] for own in found[2]] == [2 * ranks.ENVS * ranks.STEPS] * 2


def test_what_is_not_possible_is_one_sentence_everywhere(found):
    one, two = (own["refusals"] for own in found[2])
    assert one == two
    assert one == {
        "recurrent": "recurrent_ppo cannot be trained by several processes: train it in one",
        "seed": "the processes of one training need the same seed: process 0 has 0, process 1 has 1",
        "environments": "the processes of one training need the same number of environments: process 0 has 1, "
        "process 1 has 2",
        "setting": "the processes of one training need the same agent.gamma: process 0 has 0.9, process 1 has 0.91",
        "batch": "agent.batch_size 15 cannot be shared equally among 2 processes: take a multiple",
        "steps": "the processes of one training need the same steps to learn: process 0 has (0, 480, 480), "
        "process 1 has (0, 481, 481)",
        "early": "this agent was made for 1 processes, and there are 2",
    }


def test_one_process_tells_nobody_anything():
    """Not even that it is alone: without a process group nothing is reduced, gathered or waited for."""
    with patch("torch.distributed.all_reduce", side_effect=AssertionError), patch.object(torch, "cat") as cat:
        from iquitos_rl.agents import parallel

        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.ones(2)
        assert parallel.averaged([p], {"loss": p.grad[0]})["loss"] is not None
        assert parallel.moments(3, p, p) == (3, p, p)
        assert not cat.called
