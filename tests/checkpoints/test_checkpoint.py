"""Checkpoints on disk: what goes in comes out, whatever happens to a file or to the disk."""

import errno
import hashlib
import io
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iquitos_rl.checkpoints import slot as slot_module
from iquitos_rl.checkpoints.checkpoint import Checkpoints, generator_states, set_generator_states
from iquitos_rl.checkpoints.slot import FORMAT_VERSION, SUFFIX, Slot, blocks_of, load_large
from iquitos_rl.checkpoints.state import first_not_finite, pack, unpack
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import digest


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(slot_module, "BLOCK_BYTES", 400)  # ten rows of ten floats


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and (a == b or a != a)


def state(rows=100, filled=0, step=0):
    """A replay ring, weights, an optimiser's state and generators, after `filled` rows."""
    ring = torch.zeros(rows, 10)
    ring[: min(filled, rows)] = torch.arange(min(filled, rows))[:, None] + 1.0
    generator = np.random.default_rng(step)
    return {
        "ring": ring,
        "weights": torch.full((3,), float(step)),
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}, 1: {}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "rng": generator.bit_generator.state,
        "none": None,
    }


def write(folder, *steps, **options):
    told = []
    checkpoints = Checkpoints(folder, 0.0, told.append)
    for step in steps:
        checkpoints.save(state(filled=step, step=step), step, {"seed": 1}, wait=True, **options)
    return checkpoints, told


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    shapes,
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
arrays = st.builds(lambda shape, dtype: np.ones(shape, dtype), shapes, st.sampled_from(["f8", "i4", "u4", "?"]))
keys = st.integers() | st.text()
nested = st.recursive(
    plain | tensors | arrays,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(nested)
def test_any_nested_state_comes_back_as_it_was(value):
    tree, found = pack(value)
    assert same(unpack(json.loads(json.dumps(tree, allow_nan=False)), found), value)


def test_what_is_not_plain_data_is_a_fault_of_the_program():
    with pytest.raises(TypeError, match=r"state\.agent is a function"):
        pack({"agent": lambda: None})


@pytest.mark.parametrize("tree", [{"call": "os.system"}, {"tensor": "absent"}, {"dict": [1]}, {"a": 1, "b": 2}, {}])
def test_a_tree_that_is_none_of_ours_is_refused(tree):
    with pytest.raises(UserError):
        unpack(tree, {})


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_a_block_is_the_bytes_of_rows_named_by_their_digest(tmp_path, dtype):
    rows = (torch.rand(7, 3) * 9).to(getattr(torch, dtype))
    (block,) = blocks_of(rows)
    name, slot = hashlib.sha256(block).hexdigest(), Slot(tmp_path)
    slot.put(name, block)
    assert slot.read(name) == (tmp_path / f"{name}{SUFFIX}").read_bytes() == bytes(block)
    found = load_large(slot, {"dtype": dtype, "shape": [14, 3], "blocks": [name, name]}, None)
    assert found.dtype == rows.dtype
    assert torch.equal(found, torch.cat([rows, rows]))


def test_the_newest_checkpoint_is_read_back(tmp_path):
    write(tmp_path, 20, 40, 60)
    loaded = Checkpoints(tmp_path, 0.0).load()
    assert (loaded.step, loaded.about) == (60, {"seed": 1})
    assert same(loaded.state, state(filled=60, step=60))


def test_large_tensors_are_filled_in_place(tmp_path):
    write(tmp_path, 70)
    own = state()
    loaded = Checkpoints(tmp_path, 0.0).load(own)
    assert loaded.state["ring"].data_ptr() == own["ring"].data_ptr()
    assert same(loaded.state, state(filled=70, step=70))


def test_a_save_writes_only_the_rows_that_changed(tmp_path, monkeypatch):
    written = []
    put = Slot.put
    monkeypatch.setattr(Slot, "put", lambda self, name, *parts: (written.append(name), put(self, name, *parts)))
    checkpoints, _ = write(tmp_path, 50, 50)
    for step in (55, 58):  # each slot: the block with rows 50 to 57, and the small tensors
        written.clear()
        checkpoints.save(state(filled=step, step=step), step, {}, wait=True)
        assert len(written) == 2
    assert sum(len(list(folder.glob(f"*{SUFFIX}"))) for folder in tmp_path.iterdir()) < 2 * 9


def test_the_state_is_that_of_the_moment_although_it_is_written_later(tmp_path):
    current = state(filled=100, step=3)
    checkpoints = Checkpoints(tmp_path, 0.0)
    checkpoints.save(current, 3, {})
    current["ring"].zero_()
    current["weights"].zero_()
    checkpoints.finish()
    assert same(Checkpoints(tmp_path, 0.0).load().state, state(filled=100, step=3))


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[random.Random(path.name).randrange(len(data))] ^= 4
    path.write_bytes(data)


def damage_foreign(path):
    path.write_bytes(b"something else entirely")


def damage_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


class Bomb:
    def __reduce__(self):
        return (open, ("/nonexistent/pickle-was-executed", "w"))


def damage_empty(path):
    path.write_bytes(b"")


DAMAGE = [damage_truncate, damage_flip, damage_foreign, damage_pickle, damage_empty, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damaged_file_is_noticed_and_the_checkpoint_before_is_used(tmp_path, damage):
    write(tmp_path / "whole", 30, 60)
    for path in sorted((tmp_path / "whole" / "b").iterdir()):
        folder = tmp_path / f"copy-{path.stem}"
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / "b" / path.name)
        told = []
        checkpoints = Checkpoints(folder, 0.0, told.append)
        assert same(checkpoints.load(state()).state, state(filled=30, step=30))
        assert "resuming from the checkpoint of step 30" in told[0]
        # The next save repairs the damaged slot and is the newest.
        checkpoints.save(state(filled=90, step=90), 90, {}, wait=True)
        assert same(Checkpoints(folder, 0.0, told.append).load().state, state(filled=90, step=90))
        assert len(told) == 1


def test_no_whole_checkpoint_is_said(tmp_path):
    write(tmp_path, 30, 60)
    for name in "ab":
        damage_flip(tmp_path / name / "manifest.json")
    with pytest.raises(UserError, match="holds no undamaged checkpoint"):
        Checkpoints(tmp_path, 0.0).load()


def test_nothing_was_ever_saved(tmp_path):
    assert Checkpoints(tmp_path / "none", 0.0).load() is None


def test_a_first_save_that_was_cut_off_is_no_checkpoint(tmp_path):
    write(tmp_path, 30)
    (tmp_path / "a" / "manifest.json").unlink()
    assert Checkpoints(tmp_path, 0.0).load() is None


def crafted(folder, **changes):
    """A manifest that is not ours, with a right checksum."""
    write(folder, 30)
    path = folder / "a" / "manifest.json"
    body = {**json.loads(path.read_text(encoding="utf-8"))["body"], **changes}
    path.write_text(json.dumps({"sha256": slot_module.digest(body), "body": body}), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": FORMAT_VERSION + 1},
        {"packed": "../../../etc/passwd"},
        {"packed": 5},
        {"large": {"state.ring": {"dtype": "float32", "shape": [10**12, 10], "blocks": []}}},
        {"large": {"state.ring": {"dtype": "float32", "shape": [], "blocks": ["x"]}}},
        {"large": {"state.ring": {"dtype": "Tensor", "shape": [1], "blocks": []}}},
        {"large": {"state.ring": {"dtype": "float32", "shape": [0], "blocks": []}}},
        {"large": {"state.ring": "x"}},
        {"tree": {"tensor": "state.ring"}, "large": {}},
        {"tree": {"import": "os"}},
        {"serial": "first"},
        {"about": None},
    ],
)
def test_a_crafted_manifest_is_refused(tmp_path, changes):
    crafted(tmp_path, **changes)
    with pytest.raises(UserError, match="holds no undamaged checkpoint") as error:
        Checkpoints(tmp_path, 0.0).load()
    assert "\n" not in str(error.value)


def test_a_deeply_nested_manifest_is_refused(tmp_path):
    write(tmp_path, 30)
    (tmp_path / "a" / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="holds no undamaged checkpoint"):
        Checkpoints(tmp_path, 0.0).load()


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system"), MemoryError()],
)
@pytest.mark.parametrize("calls", range(4))
def test_a_save_that_fails_leaves_the_one_before_and_the_next_succeeds(tmp_path, monkeypatch, fault, calls):
    checkpoints, told = write(tmp_path, 30, 60)
    put, count = Slot.put, iter(range(100))

    def failing(self, name, *parts):
        if next(count) >= calls:
            raise fault
        put(self, name, *parts)

    monkeypatch.setattr(Slot, "put", failing)
    checkpoints.save(state(filled=90, step=90), 90, {}, wait=True)
    assert "step 90 could not be written" in told[0]
    assert "step 60 is kept" in told[0]
    assert same(Checkpoints(tmp_path, 0.0).load().state, state(filled=60, step=60))
    monkeypatch.setattr(Slot, "put", put)
    checkpoints.save(state(filled=95, step=95), 95, {}, wait=True)
    assert same(Checkpoints(tmp_path, 0.0).load().state, state(filled=95, step=95))


def test_no_memory_for_the_copy_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints, told = write(tmp_path, 30)

    def blocks_of(rows):
        raise MemoryError

    monkeypatch.setattr("iquitos_rl.checkpoints.checkpoint.blocks_of", blocks_of)
    checkpoints.save(state(filled=60, step=60), 60, {}, wait=True)
    assert "could not be written" in told[0]
    assert Checkpoints(tmp_path, 0.0).load().step == 30


def test_a_file_that_went_bad_on_the_disk_is_noticed_by_the_save_that_relies_on_it(tmp_path):
    checkpoints, told = write(tmp_path, 50, 50)
    body = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))["body"]
    damage_flip(tmp_path / "a" / f"{body['large']['state.ring']['blocks'][0]}{SUFFIX}")
    checkpoints.save(state(filled=50, step=50), 51, {}, wait=True)
    assert "not what was written" in told[0]
    checkpoints.save(state(filled=50, step=50), 52, {}, wait=True)
    assert len(told) == 1
    assert Checkpoints(tmp_path, 0.0).load().step == 52


def test_weights_that_are_not_finite_replace_nothing(tmp_path):
    checkpoints, _ = write(tmp_path, 30)
    broken = state(filled=60, step=60)
    broken["weights"][1] = float("nan")
    with pytest.raises(UserError, match="weights is not finite at step 60"):
        checkpoints.save(broken, 60, {})
    assert Checkpoints(tmp_path, 0.0).load().step == 30
    assert first_not_finite({"x": torch.tensor([1]), "y": torch.tensor([float("inf")])}) == "y"


def test_a_fault_of_the_program_is_not_hidden(tmp_path, monkeypatch):
    checkpoints, _ = write(tmp_path, 30)
    monkeypatch.setattr(Slot, "put", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoints.save(state(filled=60), 60, {}, wait=True)


def test_saves_are_as_far_apart_as_asked(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("iquitos_rl.checkpoints.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, minutes=2.0)
    assert checkpoints.due()
    checkpoints.save(state(), 1, {}, wait=True)
    checkpoints._last_cost = 0.0
    now[0] += 119
    assert not checkpoints.due()
    now[0] += 1
    assert checkpoints.due()
    checkpoints._last_cost = 6.0  # at most a fiftieth of the time: the next after 300 s
    now[0] += 179
    assert not checkpoints.due()
    now[0] += 2
    assert checkpoints.due()


def test_the_process_generators_go_on_where_they_were():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    tree, tensors = pack(generator_states())
    saved = unpack(json.loads(json.dumps(tree)), tensors)
    expected = draw()
    set_generator_states(saved)
    assert draw() == expected


def test_a_safetensors_file_cannot_smuggle_code(tmp_path):
    """The two readers, JSON and safetensors, are given a pickle and a torch archive."""
    buffer = io.BytesIO()
    torch.save({"rows": torch.ones(3)}, buffer)
    for data in (pickle.dumps(Bomb()), buffer.getvalue()):
        name = hashlib.sha256(data).hexdigest()
        Slot(tmp_path).put(name, data)
        with pytest.raises(slot_module.DamagedError, match="not a safetensors file"):
            Slot(tmp_path).tensors(name)


class Foreign:
    """What others put into a slot: of any kind, under any name, those of ours included."""

    kinds = st.sampled_from(
        ["file", "folder", "full folder", "pipe", "link to nothing", "link to a file", "unreadable"]
    )
    names = st.sampled_from(
        [".ipynb_checkpoints", "manifest.json.tmp", "x.bin", "x.tmp", "Thumbs.db", "desktop.ini", "å ñ.bin", "-rf"]
    ) | st.text(alphabet="0123456789abcdef", min_size=64, max_size=64).map(lambda name: f"{name}.bin")

    @staticmethod
    def put(path, kind):
        if kind == "folder":
            path.mkdir()
        elif kind == "full folder":
            (path / "inner").mkdir(parents=True)
            (path / "inner" / "file").write_text("theirs")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "link to nothing":
            path.symlink_to(path.parent / "nothing at all")
        elif kind == "link to a file":
            (path.parent.parent / "theirs").write_text("theirs")
            path.symlink_to(path.parent.parent / "theirs")
        else:
            path.write_text("theirs")
            path.chmod(0 if kind == "unreadable" else 0o644)


def test_blocks_in_the_second_slot_alone_are_a_lost_checkpoint(tmp_path):
    write(tmp_path / "c", 1, 2)
    shutil.rmtree(tmp_path / "c" / "a")
    (tmp_path / "c" / "b" / "manifest.json").unlink()
    with pytest.raises(UserError, match="b holds an incomplete checkpoint"):
        Checkpoints(tmp_path / "c", 0.0, [].append).load()


@pytest.mark.skipif(os.name == "nt", reason="other kinds of files there")
@settings(max_examples=12, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), Foreign.names, Foreign.kinds), max_size=4), st.booleans())
def test_what_others_put_into_a_slot_stops_no_save(small_blocks, example, first):
    with TemporaryDirectory() as place:
        folder, told = Path(place) / "checkpoints", []
        if first:
            write(folder, 1, 2)
        for (slot, name), kind in {(slot, name): kind for slot, name, kind in example}.items():
            # The first save goes to a: blocks in b alone are a checkpoint that somebody lost, and loading says so.
            if slot == "b" and len(name) == 68 and not first:
                continue
            (folder / slot).mkdir(parents=True, exist_ok=True)
            Foreign.put(folder / slot / name, kind)
        checkpoints = Checkpoints(folder, 0.0, told.append)
        checkpoints.load()
        for step in (3, 4):
            checkpoints.save(state(filled=step, step=step), step, {}, wait=True)
            assert same(Checkpoints(folder, 0.0, told.append).load().state, state(filled=step, step=step))
        assert not [text for text in told if "could not be written" in text]
        for path in Path(place).rglob("*"):
            if path.is_file() and path.name in ("file", "theirs"):
                assert path.read_text() == "theirs"


@pytest.mark.parametrize("kind", ["folder", "full folder", "pipe", "link to nothing", "link to a file"])
@pytest.mark.parametrize("place", ["manifest", "block", "slot"])
def test_what_stands_in_the_place_of_a_file_of_ours_is_moved_aside(tmp_path, place, kind):
    write(tmp_path / "c", 1, 2)
    slot = tmp_path / "c" / "a"
    path = {"manifest": slot / "manifest.json", "block": next(slot.glob("*.bin")), "slot": slot}[place]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Foreign.put(path, kind)
    told = []
    checkpoints = Checkpoints(tmp_path / "c", 0.0, told.append)
    assert checkpoints.load().step == 2
    told.clear()
    for step in (3, 4):
        checkpoints.save(state(filled=step, step=step), step, {}, wait=True)
        assert Checkpoints(tmp_path / "c", 0.0, told.append).load().step == step
    assert told == []
    aside = [found for found in (tmp_path / "c").rglob("*.foreign-1")]
    assert aside or (place == "slot" and kind.endswith("folder"))


shaped = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(
            ["float32", "uint8", "bfloat16", "float8_e4m3fn", "complex64", "qint8", "Tensor", "load"]
        ),
        "shape": st.lists(st.sampled_from([-1, 0, 1, 3000, 2**31, 2**62, 10**30, 1.5, True, "3"]), max_size=4),
        "blocks": st.lists(st.sampled_from(["0" * 64, "../../etc/passwd", "", 5, None]), max_size=3),
    }
)


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shaped, st.integers(1, 100_000), st.booleans())
def test_no_layout_takes_memory_or_anything_but_a_sentence(small_blocks, tmp_path_factory, layout, times, own):
    """Under a right digest; one block may be named any number of times."""
    folder = tmp_path_factory.mktemp("crafted")
    write(folder, 1)
    path = folder / "a" / "manifest.json"
    body = json.loads(path.read_text())["body"]
    block = next(iter(body["large"].values()))
    crafted = (
        {**block, **layout} if not own else {**block, "blocks": block["blocks"][:1] * times, "shape": [10 * times, 10]}
    )
    body["large"] = {"state.ring": crafted}
    path.write_text(json.dumps({"sha256": digest(body), "body": body}))
    with patch.object(slot_module, "free_ram", lambda: 1_000_000):
        try:
            found = Checkpoints(folder, 0.0, lambda text: None).load()
        except UserError:
            return
    assert found.state["ring"].nbytes <= 500_000


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_an_array_of_a_type_that_numpy_lacks_is_refused(dtype):
    with pytest.raises(UserError, match="cannot be an array"):
        unpack({"array": "x"}, {"x": torch.ones(2, dtype=dtype)})
