import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.optimize import linprog
from toy import EFFICIENCY, HOURS, INITIAL_SOC, POWER, ToyBattery, optimal_return, price


def play(schedule):
    env = ToyBattery()
    obs, _ = env.reset()
    total = 0.0
    for hour in range(HOURS):
        obs, reward, terminated, truncated, info = env.step(np.array([schedule(hour, obs)], np.float32))
        total += reward
        assert info["money"] == reward
        assert not truncated
        assert terminated == (hour == HOURS - 1)
    return total


def test_passes_gymnasiums_checker():
    check_env(ToyBattery(), skip_render_check=True)


def test_optimum_is_that_of_the_linear_programme():
    prices = np.array([price(hour) for hour in range(HOURS)])
    cost = np.concatenate([prices / EFFICIENCY, -prices * EFFICIENCY])  # bought, sold
    soc = np.tril(np.ones((HOURS, HOURS)))
    change = np.hstack([soc, -soc])
    result = linprog(
        cost,
        A_ub=np.vstack([change, -change]),
        b_ub=np.concatenate([np.full(HOURS, 1 - INITIAL_SOC), np.full(HOURS, INITIAL_SOC)]),
        bounds=(0, POWER),
    )
    assert optimal_return() == pytest.approx(-result.fun, abs=1e-9)


def test_optimum_can_be_reached_and_not_beaten():
    best = play(lambda hour, obs: -obs[2])
    assert best == pytest.approx(optimal_return(), rel=1e-6)
    rng = np.random.default_rng(0)
    assert max(play(lambda hour, obs: rng.uniform(-1, 1)) for _ in range(500)) < optimal_return()
    assert max(play(lambda hour, obs: rng.choice([-1, 0, 1])) for _ in range(500)) <= optimal_return() + 1e-9


def test_battery_stays_between_empty_and_full():
    env = ToyBattery()
    env.reset()
    full = [env.step(np.array([1.0], np.float32))[0][3] for _ in range(3)]
    assert full == [0.5, 1.0, 1.0]
    obs, reward, *_ = env.step(np.array([0.0], np.float32))
    assert (obs[3], reward) == (1.0, 0.0)
