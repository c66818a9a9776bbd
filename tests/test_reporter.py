"""Reports of a training run: lines, the log, the history and the time left."""

import csv
import gc
import time

import pytest

from tests.networks import digits, small_network
from training import Constant, InputError, Reporter, TimeLimited
from training.reporting.reporter import write_history


def test_history_as_csv(tmp_path):
    write_history({"loss": [3.0, 2.0, 1.0], "validation_loss": [5.0]}, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["epoch", "loss", "validation_loss"],
        ["1", "3.0", ""],
        ["2", "2.0", ""],
        ["3", "1.0", "5.0"],
    ]


def test_writes_a_line_per_epoch_to_the_output_and_the_log(tmp_path, capsys):
    images, labels = digits(100)
    reporter = Reporter(tmp_path / "training.log")
    small_network().train(images, labels, epochs=2, validation_split=0.2, reporter=reporter)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["epoch 1/2", "epoch 2/2"]
    for word in ("loss", "accuracy", "validation", "images/s", "(best)"):
        assert word in printed[0]
    logged = (tmp_path / "training.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in logged] == printed


METRICS = {"loss": 1.0, "accuracy": 0.5, "images_per_second": 100.0}


@pytest.fixture
def clock(monkeypatch):
    """Return a list of one number, the seconds that `time.perf_counter` returns."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    return seconds


def run_epoch(reporter, clock, epoch, steps, validation):
    """Run an epoch whose steps of 10 images and whose validation take these seconds."""
    reporter.epoch_started(epoch, 10 * len(steps))
    for seconds in steps:
        clock[0] += seconds
        reporter.batch_ended(10, 1.0, 5)
    clock[0] += validation
    reporter.epoch_ended(METRICS, False, {"loss": [1.0]})


def time_left(capsys):
    """Return the time left in the last line that was printed, None where it says nothing."""
    words = capsys.readouterr().out.splitlines()[-1].split(" | ")[-1].split()
    return words[0] if words[-1] == "left" else None


def test_time_left_does_not_count_compiling(capsys, clock):
    """The first step and the first validation compile kernels."""
    reporter = Reporter()
    reporter.run_started(4)
    run_epoch(reporter, clock, 1, [25.0, 0.2, 0.2, 0.2, 0.2], validation=5.0)
    assert time_left(capsys) == "0:00:03"  # 3 epochs of 5 steps of 0.2 s
    run_epoch(reporter, clock, 2, [0.2] * 5, validation=1.0)
    assert time_left(capsys) == "0:00:04"  # 2 epochs of 1 + 1 s
    run_epoch(reporter, clock, 3, [0.2] * 5, validation=1.0)
    assert time_left(capsys) == "0:00:02"
    run_epoch(reporter, clock, 4, [0.2] * 5, validation=1.0)
    assert time_left(capsys) is None


def test_time_left_follows_the_recent_steps(capsys, clock):
    reporter = Reporter()
    reporter.run_started(3)
    run_epoch(reporter, clock, 1, [0.1] * 200, validation=0)
    assert time_left(capsys) == "0:00:40"
    run_epoch(reporter, clock, 2, [1.0] * 200, validation=0)  # other programs need the cores
    assert time_left(capsys) == "0:03:20"


def test_time_left_is_not_reported_after_a_single_step(capsys, clock):
    reporter = Reporter()
    reporter.run_started(3)
    run_epoch(reporter, clock, 1, [25.0], validation=0)
    assert time_left(capsys) is None
    run_epoch(reporter, clock, 2, [2.0], validation=0)
    assert time_left(capsys) == "0:00:02"


def test_time_left_of_a_time_limit(capsys, clock):
    schedule = TimeLimited(Constant(), 60, clock=lambda: clock[0])
    for epochs, left in ((None, "0:00:40"), (2, "0:00:20"), (10, "0:00:40")):
        clock[0] = 0.0
        schedule.run_started()
        reporter = Reporter()
        reporter.run_started(epochs, schedule)
        run_epoch(reporter, clock, 1, [0.1] * 200, validation=0)
        assert time_left(capsys) == left


def test_time_left_does_not_count_skipped_batches(capsys, clock):
    """A resumed run skips the batches of the interrupted one, which takes almost no time."""
    reporter = Reporter()
    reporter.run_started(2)
    reporter.epoch_started(1, 40)
    for _ in range(2):
        clock[0] += 0.01
        reporter.batch_skipped(10)
    for seconds in (20.0, 3.0):
        clock[0] += seconds
        reporter.batch_ended(10, 1.0, 5)
    reporter.epoch_ended(METRICS, False, {"loss": [1.0]})
    assert time_left(capsys) == "0:00:12"


def unclosed_files(warnings):
    """Return the warnings about files that were collected before they were closed."""
    gc.collect()
    return [warning for warning in warnings if warning.category is ResourceWarning]


def test_close_closes_the_log_file(tmp_path, recwarn):
    reporter = Reporter(tmp_path / "a.log", quiet=True)
    reporter.line("first")
    reporter.close()
    reporter.line("only printed")
    del reporter
    assert not unclosed_files(recwarn)
    assert len((tmp_path / "a.log").read_text().splitlines()) == 1


def test_the_log_stays_open_after_a_training(tmp_path, recwarn):
    with Reporter(tmp_path / "a.log", quiet=True) as reporter:
        small_network().train(*digits(20), epochs=1, reporter=reporter)
        reporter.line("last")
    del reporter
    assert not unclosed_files(recwarn)
    assert (tmp_path / "a.log").read_text().splitlines()[-1].endswith(" last")


def test_nothing_stays_open_if_one_output_cannot_be_opened(tmp_path, monkeypatch, recwarn):
    class Events:
        def __init__(self, directory):
            if directory is None or str(directory) == "bad":
                raise InputError("bad directory")
            is_open.append(True)

        def close(self):
            is_open.pop()

    is_open = []
    monkeypatch.setattr("training.reporting.reporter._open_events", Events)
    with pytest.raises(OSError, match="directory"):
        Reporter(tmp_path, tensorboard="good")  # the log is a directory
    assert not is_open
    with pytest.raises(InputError, match="bad directory"):
        Reporter(tmp_path / "a.log", tensorboard="bad")
    assert not unclosed_files(recwarn)
