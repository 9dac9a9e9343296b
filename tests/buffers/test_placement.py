import contextlib

import psutil
import pytest
import torch

from iquitos_rl.buffers import placement
from iquitos_rl.buffers.placement import Memory, Transfer, choose_placement
from iquitos_rl.buffers.replay import ReplayBuffer
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("place", ["cuda", "pinned"])
def test_a_place_that_needs_a_gpu_is_refused_without_one(place):
    with pytest.raises(UserError, match=f"{place} needs a CUDA device.*use ram or disk"):
        ReplayBuffer(10, 1, 2, 1, placement=place)


def test_auto_takes_ram_while_it_fits_and_the_disk_after(monkeypatch):
    monkeypatch.setattr(placement, "free_ram", lambda: 4 << 30)
    assert choose_placement(2 << 30, CPU) == "ram"
    assert choose_placement(4 << 30, CPU) == "disk"


def test_auto_fills_the_gpu_first(monkeypatch):
    monkeypatch.setattr(placement, "free_ram", lambda: 16 << 30)
    monkeypatch.setattr(placement, "free_device", lambda device: 2 << 30)
    cuda = torch.device("cuda")
    assert [choose_placement(n << 30, cuda) for n in (1, 2, 20)] == ["cuda", "pinned", "disk"]


def test_every_page_is_written_at_once():
    before = psutil.Process().memory_info().rss
    data = Memory("ram", CPU).matrix(100_000, 1_000)
    assert psutil.Process().memory_info().rss - before >= 0.9 * data.nbytes


def test_a_file_is_whole_from_the_start_and_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "NAMELESS_FILES", False)
    memory = Memory("disk", CPU, tmp_path)
    data = memory.matrix(3_000, 1_000)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == 3_000_000
    if hasattr(file.stat(), "st_blocks"):
        assert file.stat().st_blocks * 512 >= 3_000_000, "a sparse file would fail when the disk is full"
    data[2_999] = 7
    assert file.read_bytes()[-1_000:] == b"\x07" * 1_000
    memory.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not placement.NAMELESS_FILES, reason="an open file keeps its name there")
def test_a_killed_process_leaves_no_file(tmp_path):
    data = Memory("disk", CPU, tmp_path).matrix(10, 10)
    assert not list(tmp_path.iterdir())
    data += 1
    assert data.sum() == 100


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    class Full(bytes):
        def __getitem__(self, key):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(placement, "ZEROS", Full(b"0"))
    with pytest.raises(UserError, match=r"no room for a replay buffer of .*No space left"):
        Memory("disk", CPU, tmp_path).matrix(10, 10)
    assert not list(tmp_path.iterdir())


def test_ram_that_is_not_there_is_one_sentence():
    with pytest.raises(UserError, match="does not fit into ram"):
        ReplayBuffer(10**12, 1, 1_000, 1, placement="ram")


def test_page_locked_ram_that_is_refused_is_not_called_gpu_memory(monkeypatch):
    """Windows says "CUDA error: out of memory" of it."""

    def refuse(*size, **kind):
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(UserError, match=r"page-lock 8.0 MiB of RAM.*not GPU memory that is short.*placement cuda"):
        Transfer(torch.device("cuda"))


class Stream:
    """A CUDA stream and its events, run by hand: what is queued happens when somebody waits for it."""

    def __init__(self):
        self.queue = []

    def run(self, upto):
        for work in self.queue[:upto]:
            work()
        del self.queue[:upto]

    def wait_event(self, event):
        event.synchronize()


class Event:
    def __init__(self):
        self.stream, self.work = None, None

    def record(self, stream):
        self.stream, self.work = stream, stream.queue[-1]

    def synchronize(self):
        if self.stream is not None and self.work in self.stream.queue:
            self.stream.run(self.stream.queue.index(self.work) + 1)


def test_a_staging_buffer_is_written_again_only_when_its_copy_is_done(monkeypatch):
    """Copies are as late as a GPU may be: when an event is waited for. The rows are right all the same, of two batches
    under way in chunks that use each staging buffer many times."""
    stream = Stream()
    transfer = Transfer(CPU, staging_bytes=32)
    transfer._stream, transfer._copied = stream, [Event(), Event()]
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    recorded = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, _: recorded.append(self), raising=False)
    real = torch.Tensor.copy_

    def late(target, source, non_blocking=False):
        if not non_blocking:
            return real(target, source)
        stream.queue.append(lambda: real(target, source))
        return target

    monkeypatch.setattr(torch.Tensor, "copy_", late)
    data = torch.randint(256, (50, 8), dtype=torch.uint8)
    one, two = torch.randint(50, (2, 33))
    first = transfer.send((data, one))
    second = transfer.send((data, two))
    assert stream.queue, "nothing has waited for the last copies"
    assert torch.equal(transfer.receive(first)[0], data[one])
    assert torch.equal(transfer.receive(second)[0], data[two])
    assert len(recorded) == 2, "the training stream's use of the rows is told to the allocator"


@pytest.mark.parametrize("staging_bytes", [16, 100, 1 << 20])
def test_a_transfer_brings_the_rows_asked_for(staging_bytes):
    transfer = Transfer(CPU, staging_bytes)
    one, two = (torch.randint(256, (50, width), dtype=torch.uint8) for width in (16, 3))
    index, other = torch.randint(50, (33,)), torch.randint(50, (5,))
    first = transfer.send((one, index), (two, other))
    second = transfer.send((one, other))
    assert torch.equal(transfer.receive(second)[0], one[other])
    assert all(torch.equal(*pair) for pair in zip(transfer.receive(first), (one[index], two[other])))


def run(buffer, transfer=None):
    """Fill a buffer with the same history; all batches drawn from it on the way."""
    buffer._transfer = transfer or buffer._transfer
    g = torch.Generator().manual_seed(0)

    def rand(*size):
        return torch.rand(*size, generator=g).to(buffer.device)

    buffer.start(rand(3, 5))
    drawn = []
    for t in range(60):
        no = torch.zeros(3, dtype=torch.bool, device=buffer.device)
        obs, next_obs = rand(2, 3, 5)
        step = StepResult(obs, rand(3), no, no if t % 7 else ~no, next_obs, {})
        buffer.add(rand(3, 2), step)
        drawn += list(buffer.batches(8, 1 + t % 3))
    return torch.stack(drawn)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_every_place_gives_the_same_batches(storage, tmp_path):
    kind = {"n_step": 3, "storage": storage, "seed": 4, "final_rows": 40}
    ram = run(ReplayBuffer(90, 3, 5, 2, placement="ram", **kind))
    disk = ReplayBuffer(90, 3, 5, 2, placement="disk", folder=tmp_path, **kind)
    staged = ReplayBuffer(90, 3, 5, 2, placement="ram", **kind)
    assert (run(disk) == ram).all()
    assert (run(staged, Transfer(CPU, 64)) == ram).all(), "gathered in chunks, the next batch under way"
    disk.close()


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["cuda", "pinned", "ram", "disk"])
def test_every_place_feeds_a_gpu_the_same_batches(place, tmp_path):
    kind = {"n_step": 3, "storage": "float16", "seed": 4, "final_rows": 40}
    expected = run(ReplayBuffer(90, 3, 5, 2, placement="ram", **kind))
    buffer = ReplayBuffer(90, 3, 5, 2, placement=place, folder=tmp_path, device="cuda", **kind)
    if buffer._transfer is not None:
        buffer._transfer = Transfer(torch.device("cuda"), 64)
    got = run(buffer)
    assert all(tensor.is_cuda for tensor in got.values())
    got = got.cpu()
    torch.testing.assert_close(got["reward"], expected["reward"], rtol=1e-6, atol=1e-6)  # a sum, rounded differently
    assert (got.exclude("reward") == expected.exclude("reward")).all()
    buffer.close()
