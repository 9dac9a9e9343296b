import psutil
import pytest

from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import control_group_free, free_ram, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("8 GB", 8 * 10**9), ("1.5gib", 3 << 29), ("500m", 5 * 10**8), ("123", 123), ("4k", 4_000)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "8 XB", "-3GiB", "8GiBs", "1,5GiB"])
def test_what_is_not_a_size(text):
    with pytest.raises(UserError, match="is not a size"):
        parse_size(text)


def group(folder, limit, current, inactive=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(str(limit))
    (folder / "memory.current").write_text(str(current))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_the_tightest_control_group_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/outer/inner\n")
    root = tmp_path / "root"
    group(root / "outer" / "inner", "max", 100)
    group(root / "outer", 1_000, 900, inactive=300)
    assert control_group_free(root, own) == 400
    group(root / "outer" / "inner", 500, 450)
    assert control_group_free(root, own) == 50
    group(root / "outer" / "inner", 500, 600)
    assert control_group_free(root, own) == 0


def test_the_older_layout_of_control_groups(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("5:cpu:/job\n4:memory:/job\n")
    folder = tmp_path / "root" / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("800")
    (folder / "memory.usage_in_bytes").write_text("300")
    assert control_group_free(tmp_path / "root", own) == 500
    (folder / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert control_group_free(tmp_path / "root", own) is None


def test_a_machine_without_control_groups(tmp_path):
    assert control_group_free(tmp_path, tmp_path / "missing") is None


def test_free_ram_is_what_the_machine_says_or_less():
    assert 0 < free_ram() <= psutil.virtual_memory().total
