"""Out of memory: the same update in smaller parts, and nothing else swallowed."""

import gc
import weakref
from itertools import pairwise

import pytest
import torch

from iquitos_rl.errors import UserError
from iquitos_rl.memory import recovery
from iquitos_rl.memory.recovery import Parts, explained, shortage, taking_memory

CPU = torch.device("cpu")
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


# --- which errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OUT_OF_MEMORY, "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "device"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "host",
        ),
        (MemoryError(), "host"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"), "device"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("out of memory"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_kinds_of_errors(error, kind):
    assert shortage(error) == kind


def test_a_real_shortage_of_ram_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert shortage(caught.value) == "host"


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), KeyboardInterrupt(), ZeroDivisionError()])
def test_other_errors_pass_untouched(error):
    def work(size):
        raise error

    parts = Parts("gradient", CPU)
    with pytest.raises(type(error)) as caught:
        parts.run(100, work)
    assert caught.value is error
    assert parts.size is None
    with pytest.raises(type(error)) as caught, explained("stepping", "advice", CPU):
        raise error
    assert caught.value is error


# --- the size


def fitting(limit):
    """Work that fits up to a size; remembers the sizes tried."""
    tried = []

    def work(size):
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError
        return size

    return work, tried


def test_halves_until_it_fits_and_stays_there():
    parts = Parts("gradient", CPU, grow_after=100)
    work, tried = fitting(40)
    assert [parts.run(256, work) for _ in range(2)] == [32, 32]
    assert tried == [256, 128, 64, 32, 32]


def test_the_floor_ends_in_one_sentence_with_the_advice():
    parts = Parts("gradient", CPU, advice=lambda: "the plan", floor=16)
    work, tried = fitting(7)
    with pytest.raises(UserError, match="GPU memory at gradient, even with 16 transitions at a time; the plan"):
        parts.run(100, work)
    assert tried == [100, 50, 25, 16]


def test_grows_again_and_waits_longer_when_that_was_too_soon():
    parts = Parts("gradient", CPU, grow_after=5)
    work, tried = fitting(50)
    for _ in range(40):
        parts.run(100, work)
    attempts = [i for i, size in enumerate(tried) if size == 100]
    assert len(attempts) == 4  # the first, and after 5, 10 and 20 calls without trouble
    assert [b - a for a, b in pairwise(attempts)] == [6, 11, 21]
    roomy, tried = fitting(1000)
    for _ in range(60):
        parts.run(100, roomy)
    assert tried[-1] == 100
    assert parts.size is None


def test_a_limit_is_never_exceeded():
    parts = Parts("gradient", CPU, largest=60, grow_after=2)
    work, tried = fitting(20)
    assert parts.run(100, work) == 16
    roomy, tried = fitting(1000)
    for _ in range(30):
        parts.run(100, roomy)
    assert max(tried) == tried[-1] == 60


def test_is_remembered():
    parts = Parts("gradient", CPU)
    parts.run(256, fitting(40)[0])
    again = Parts("gradient", CPU)
    again.load_state_dict(parts.state_dict())
    work, tried = fitting(40)
    again.run(256, work)
    assert tried == [32]


def test_the_failed_attempt_holds_no_memory_when_the_next_begins():
    class Big:
        pass

    alive = []

    def work(size):
        assert all(ref() is None for ref in alive), "the first attempt's tensors are still there"
        big = Big()
        alive.append(weakref.ref(big))
        if size > 50:
            raise torch.OutOfMemoryError
        return size

    gc.disable()
    try:
        assert Parts("gradient", CPU).run(100, work) == 50
    finally:
        gc.enable()


def test_map_equals_the_whole(fail):
    x = torch.randn(100, 3, dtype=torch.float64)
    failures = fail("policy", lambda n: n in (1, 3, 4))
    parts = Parts("policy", CPU)
    torch.testing.assert_close(parts.map(lambda a, b: a * 2 + b, x, x), 3 * x, rtol=0, atol=0)
    assert failures.raised == 3


def test_taking_memory_is_free_without_an_injection():
    assert recovery.failure is None
    taking_memory("anything")
