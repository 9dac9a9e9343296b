"""The forecast of many comparisons: bounds that hold for every order of steps, and what it reads and refuses."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl import plan
from iquitos_rl.comparison.forecast import STEP_S, Nodes, Rates, forecast, parse_nodes, read_rates
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json

GIB = 1 << 30
seconds = st.floats(1.0, 100.0)


def carried_out(rates, room, sites, seeds, years, order):
    """When the last step ends, where so many workers take steps that can begin in a random order."""
    trainings = [(name, seed) for name in rates.training_s for seed in range(seeds)]
    took, needs = {}, {}
    for site in range(sites):
        took[site, "tune"], needs[site, "tune"] = rates.tuning_s, []
        for year in range(years):
            took[site, "reference", year], needs[site, "reference", year] = rates.reference_s, [(site, "tune")]
        for name, seed in trainings:
            took[site, "train", name, seed] = rates.training_s[name]
            needs[site, "train", name, seed] = [(site, "reference", year) for year in range(years)]
            for year in range(1, years):
                took[site, "judge", name, seed, year] = rates.evaluation_s
                needs[site, "judge", name, seed, year] = [(site, "train", name, seed)]
    now, done, running, waiting = 0.0, set(), [], list(took)
    while len(done) < len(took):
        order.shuffle(waiting)
        for step in [step for step in waiting if all(need in done for need in needs[step])][: room - len(running)]:
            waiting.remove(step)
            heapq.heappush(running, (now + took[step] + STEP_S, step))
        now, step = heapq.heappop(running)
        done.add(step)
    return now


@settings(max_examples=60, deadline=None)
@given(
    tuning=seconds,
    reference=seconds,
    training=st.lists(seconds, min_size=1, max_size=3),
    evaluation=seconds,
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    room=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_whatever_the_order_it_takes_what_was_foretold(tuning, reference, training, evaluation, shape, room, seed):
    rates = Rates(tuning, reference, {str(n): s for n, s in enumerate(training)}, evaluation, GIB, 0.0)
    found = forecast(rates, [Nodes(room, 1, None)], *shape)
    took = carried_out(rates, room, *shape, random.Random(seed))
    slack = 4 * STEP_S  # of the sequence's own steps
    assert found.at_least_s - 1e-6 <= took <= found.at_most_s + slack
    assert found.room == room


def test_ram_limits_how_many_run_at_once():
    rates = Rates(0.0, 1.0, {"ppo": 1.0}, 1.0, 2 * GIB, 0.0)
    nodes = [Nodes(3, 16, 9 * GIB), Nodes(1, 2, 64 * GIB), Nodes(1, 5, None)]
    assert forecast(rates, nodes, 1, 1, 1).room == 3 * 4 + 2 + 5
    with pytest.raises(UserError, match="no node has the 2,048"):
        forecast(rates, [Nodes(3, 16, GIB)], 1, 1, 1)


def test_machines_are_read_as_they_are_written():
    assert parse_nodes("10x16:64GiB, 2x8") == [Nodes(10, 16, 64 * GIB), Nodes(2, 8, None)]
    for text in ("", "16", "0x4", "2x0", "2x4:much", "axb", "2x4;3x5"):
        with pytest.raises(UserError):
            parse_nodes(text)


@pytest.fixture
def measured(tmp_path):
    """What a comparison leaves of times."""
    root = tmp_path / "comparison"
    for name, cpu in (("ppo", 10.0), ("a2c", 4.0)):
        for seed in range(2):
            run = root / f"{name}-seed-{seed}"
            run.mkdir(parents=True)
            phases = [("start", 99.0), ("training", cpu), ("evaluation", 2.0)]
            write_json(run / "timings.json", {"phases": [{"name": n, "cpu_s": s} for n, s in phases]})
    for n, cost in enumerate((1.0, 3.0)):
        (tmp_path / "cache" / "references" / str(n)).mkdir(parents=True)
        write_json(tmp_path / "cache" / "references" / str(n) / "judged.json", {"judged": {"seconds": cost}})
    records = [{"controller": name, "seed": None} for name in ("mpc", "optimum", "uncontrolled")]
    summary = {"schema_version": 3, "kind": "comparison", "seeds": 2, "settings": {"ppo": {}, "a2c": {}}}
    summary |= {"records": records, "memory": {"ram_peak_mib": 512.0}, "core_s": {"tuned": 30.0}, "controllers": {}}
    write_json(root / "simulation_summary.json", summary)
    return root


def test_rates_are_those_of_the_comparison(measured):
    found = read_rates(measured)
    assert found.training_s == {"ppo": 12.0, "a2c": 6.0}
    assert (found.tuning_s, found.evaluation_s, found.reference_s) == (30.0, 2.0, 6.0)
    assert found.step_bytes == GIB // 2


def test_the_command_tells_hours_and_refuses_in_a_sentence(measured, capsys):
    asked = ["compare", "--measured", str(measured), "--cluster", "10x16:64GiB", "--sites", "1000", "--seeds", "10"]
    assert plan.main(asked) == 0
    out = capsys.readouterr().out
    work = 1000 * (30 + 3 * 6 + 10 * (12 + 6) + 20 * 2 * 2 + (1 + 3 + 60) * STEP_S)
    assert f"{work / 3600:,.1f} core hours" in out
    assert "160 steps at once" in out
    for more, complaint in ((asked[:3], "needs --cluster"), ([*asked, "--seeds", "0"], "--seeds 0: at least 1")):
        assert plan.main(more) == 2
        assert complaint in capsys.readouterr().err
    assert plan.main([*asked[:2], str(measured.parent), *asked[3:]]) == 2
