"""Functions that are applied to many items in threads and in processes."""

import os
from functools import partial

import numpy as np
import pytest

from tests.handwriting import write
from tests.test_preprocessing_ink import INK
from training.datasets import parallel_map
from training.datasets.dataset import ReadOptions
from training.datasets.parallel_map import map_in_processes, map_in_threads
from training.datasets.pictures import decode_pictures
from training.input_format import InputFormat

N = 40


def square_or_fail(item, bad=None):
    if item == bad:
        raise ValueError(f"item {item}")
    return item**2, os.getpid()


@pytest.fixture
def processes_at_once(monkeypatch):
    monkeypatch.setattr(parallel_map, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(parallel_map, "TRIAL_ITEMS", 3)
    monkeypatch.setattr(parallel_map, "_n_cores", lambda: 2)


def test_threads_yield_the_results_in_order():
    results = list(map_in_threads(square_or_fail, N, "squaring"))
    assert results == [(n**2, os.getpid()) for n in range(N)]


def test_processes_continue_after_the_trial(processes_at_once):
    results = list(map_in_processes(square_or_fail, lambda n: n + 1, N, "squaring"))
    assert [value for value, _ in results] == [(n + 1) ** 2 for n in range(N)]
    other = [process != os.getpid() for _, process in results]
    assert other == [n >= 3 for n in range(N)]


def test_short_work_and_work_without_loky_stay_in_this_process(monkeypatch):
    for name, value in (("MIN_SECONDS", 1e3), ("find_spec", lambda name: None)):
        with monkeypatch.context() as patch:
            patch.setattr(parallel_map, "MIN_SECONDS", 0.0)
            patch.setattr(parallel_map, "TRIAL_ITEMS", 3)
            patch.setattr(parallel_map, name, value)
            results = list(map_in_processes(square_or_fail, int, N, "squaring"))
        assert {process for _, process in results} == {os.getpid()}


@pytest.mark.parametrize("bad", [1, 20])
def test_an_exception_reaches_the_caller(processes_at_once, bad):
    with pytest.raises(ValueError, match=f"item {bad}"):
        list(map_in_processes(partial(square_or_fail, bad=bad), int, N, "squaring"))


def test_a_caller_may_stop_early(processes_at_once):
    asked = []
    results = map_in_processes(square_or_fail, lambda n: asked.append(n) or n, 10_000, "squaring")
    assert [next(results)[0] for _ in range(10)] == [n**2 for n in range(10)]
    results.close()
    assert len(asked) < 1000  # the items that were never needed were not made


def test_pictures_are_read_alike_in_processes(processes_at_once, monkeypatch):
    rng = np.random.default_rng(0)
    images = np.zeros((30, 1, 28, 28), np.uint8)
    images[:, :, 5:23, 12:15] = rng.integers(150, 256, (30, 1, 18, 3))
    like = InputFormat((1, 28, 28), ("0", "1"), ink=INK)
    contents = [write("photo", n, images, np.ones(30, int)).content for n in range(8)]
    contents[5] = b"no picture"
    options = ReadOptions(like=like, preprocess="ink")
    names = [f"{n}.jpg" for n in range(8)]
    read = [decode_pictures(names, contents.__getitem__, options)]
    monkeypatch.setattr(parallel_map, "MIN_SECONDS", 1e3)
    read.append(decode_pictures(names, contents.__getitem__, options))
    np.testing.assert_array_equal(read[0].images, read[1].images)
    assert read[0].rules == read[1].rules == ("ink",) * 7
    assert list(read[0].skipped) == list(read[1].skipped) == [5]
