"""The best policy, against the mean written out."""

from iquitos_rl.agents.progress import Progress
from iquitos_rl.runs.best import Best


def report(step, episodes, length=None, reward=None):
    metrics = {} if length is None else {"episode_length": length, "episode_return": reward}
    return Progress(step, 0, episodes, metrics)


def test_the_mean_is_per_hour_over_the_last_hours():
    best = Best(window=100)
    assert best.mean(report(10, 0)) is None
    assert best.mean(report(20, 2, 30.0, 3.0)) is None
    assert best.mean(report(30, 3, 60.0, -6.0)) == (2 * 3.0 - 6.0) / (2 * 30 + 60)
    assert best.mean(report(40, 3)) == (2 * 3.0 - 6.0) / (2 * 30 + 60)  # nothing finished since
    copy = Best(window=100)
    copy.load_state_dict(best.state_dict())
    for each in (best, copy):
        assert each.mean(report(50, 4, 50.0, 20.0)) == (-6.0 + 20.0) / 110  # the first report's are no longer needed
