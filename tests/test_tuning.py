"""Choices between kernels: measured once, kept, pinned, and never part of a captured step."""

import json
import os
import sys

import numba
import numpy as np
import pytest

from kernels import get_backend, numba_backend
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import convolution
from kernels.numba_backend.runtime import tuning
from kernels.numba_backend.runtime.capture import CapturedStep
from kernels.numba_backend.runtime.tuning import MAX_ROUNDS, MIN_ROUNDS, Tuner
from layers import Conv, Dense, Flatten, Relu
from tests.cases import assert_close
from tests.networks import digits, small_network
from tests.programs import finish, start
from tests.unprivileged import drop_rights
from training import SGD, Model

NUMPY, NUMBA = get_backend("numpy"), get_backend("numba")
# A program for another process: it measures candidates whose times are its arguments.
CHOOSE = """
from pathlib import Path
from kernels.numba_backend.runtime.tuning import Tuner
from tests.test_tuning import Candidates
candidates = Candidates(fast=0.01, slow=0.02)
for shape in {shapes!r}:
    print(Tuner(None, Path({folder!r})).choose("kernel", shape, candidates.runs, "slow"))
print(len(candidates.calls))
"""


class Candidates:
    """Fake kernels on a fake clock: a run of each takes some seconds.

    Attributes
    ----------
    runs : dict of str to callable
    calls : list of str
        The names in the order of their runs.
    """

    def __init__(self, **seconds):
        self.now, self.calls, self.seconds = 0.0, [], seconds
        self.runs = {name: lambda name=name: self.run(name) for name in seconds}
        tuning.perf_counter = lambda: self.now

    def run(self, name):
        self.calls.append(name)
        self.now += self.seconds[name]


@pytest.fixture(autouse=True)
def _real_clock_afterwards(monkeypatch):
    monkeypatch.setattr(tuning, "perf_counter", tuning.perf_counter)


@pytest.fixture
def candidates():
    return Candidates(old=0.02, new=0.01)


def choose(folder, candidates, shape="3x3", setting=None):
    """Return what a process that has just started would choose."""
    return Tuner(setting, folder).choose("kernel", shape, candidates.runs, "old")


# -- measurements ------------------------------------------------------------------------------
@pytest.mark.parametrize(("new", "chosen"), [(0.9, "new"), (0.96, "old"), (1.0, "old"), (2, "old")])
def test_another_than_the_default_must_be_faster_by_5_percent(tmp_path, new, chosen):
    assert choose(tmp_path, Candidates(old=1.0, new=new)) == chosen


def test_the_fastest_of_three_is_chosen(tmp_path):
    assert choose(tmp_path, Candidates(old=3.0, new=2.0, newest=1.0)) == "newest"


def test_the_first_run_which_compiles_does_not_count(tmp_path):
    candidates = Candidates(old=0.02, new=0.01)
    new, seconds = candidates.runs["new"], candidates.seconds
    candidates.runs["new"] = lambda: (
        seconds.update(new=0.01 if candidates.calls[1:] else 90),
        new(),
    )
    assert choose(tmp_path, candidates) == "new"
    assert seconds["new"] == 0.01


def test_the_shortest_time_of_each_decides(tmp_path):
    """A program that runs beside disturbs some rounds of either."""
    candidates = Candidates(old=0.02, new=0.01)

    def disturbed():
        candidates.now += 0.05 * (len(candidates.calls) != 5)  # the second of three rounds
        candidates.run("new")

    candidates.runs["new"] = disturbed
    assert choose(tmp_path, candidates) == "new"


def test_rounds_alternate_and_are_more_for_short_kernels_than_for_long_ones(tmp_path, candidates):
    choose(tmp_path, candidates)
    assert candidates.calls == ["old", "new"] * (1 + MIN_ROUNDS)
    short = Candidates(old=2e-6, new=1e-6)
    choose(tmp_path, short, "1x1")
    assert short.calls == ["old", "new"] * (1 + MAX_ROUNDS)
    long = Candidates(old=20.0, new=10.0)
    assert choose(tmp_path, long, "99x99") == "new"
    assert long.calls == ["old", "new"] * 2


def test_a_choice_is_measured_once_in_a_process(tmp_path, candidates):
    tuner = Tuner(None, tmp_path / "missing")
    for shape in ("3x3", "5x5", "3x3", "5x5"):
        assert tuner.choose("kernel", shape, candidates.runs, "old") == "new"
    assert len(candidates.calls) == 2 * 2 * (1 + MIN_ROUNDS)
    assert tuner.choices() == {"kernel 3x3": "new", "kernel 5x5": "new"}


def test_each_number_of_threads_has_its_own_choices(tmp_path, candidates, monkeypatch):
    tuner = Tuner(None, tmp_path)
    for threads, chosen in ((1, "new"), (2, "old"), (1, "new")):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        assert tuner.choose("kernel", "3x3", candidates.runs, "old") == chosen
        assert tuner.choices() == {"kernel 3x3": chosen}
        candidates.seconds["old"] = 0.01
        assert choose(tmp_path, candidates) == chosen  # also at the next start


def test_an_interrupted_measurement_is_not_kept(tmp_path, candidates):
    def interrupt():
        raise KeyboardInterrupt

    tuner = Tuner(None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tuner.choose("kernel", "3x3", {"old": interrupt, "new": interrupt}, "old")
    assert tuner.choices() == {}
    assert tuner.choose("kernel", "3x3", candidates.runs, "old") == "new"


# -- the file beside the compiled kernels ------------------------------------------------------
def test_the_next_start_reads_the_choice(tmp_path, candidates):
    assert choose(tmp_path, candidates) == "new"
    candidates.calls.clear()
    candidates.seconds["new"] = 5.0
    assert choose(tmp_path, candidates) == "new"
    assert candidates.calls == []
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["tuning.json"],
        ["tuning.json", "tuning.lock"],  # depends on the platform
    )


def test_another_processor_measures_again(tmp_path, candidates, monkeypatch):
    assert choose(tmp_path, candidates) == "new"
    candidates.seconds["new"] = 5.0
    with monkeypatch.context() as patched:
        patched.setattr(numba.config, "CPU_NAME", "haswell")
        assert choose(tmp_path, candidates) == "old"
    assert choose(tmp_path, candidates) == "new"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"a": 3}', "\udcff"])
def test_a_damaged_file_is_measured_again_and_replaced(tmp_path, candidates, text):
    file = tmp_path / "tuning.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert choose(tmp_path, candidates) == "new"
    candidates.calls.clear()
    assert choose(tmp_path, candidates) == "new"
    assert candidates.calls == []


def test_an_unknown_name_in_the_file_is_measured_again(tmp_path, candidates):
    assert choose(tmp_path, candidates) == "new"
    file = tmp_path / "tuning.json"
    file.write_text(file.read_text().replace('"new"', '"newest"'))
    candidates.seconds["new"] = 5.0
    for _ in range(2):
        assert choose(tmp_path, candidates) == "old"
    assert "newest" not in file.read_text()


def test_a_full_disk_leaves_the_old_file_and_the_choice(tmp_path, candidates, monkeypatch):
    choose(tmp_path, candidates)
    file = tmp_path / "tuning.json"
    before = file.read_bytes()

    def full(path, *_, **__):
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert choose(tmp_path, candidates, "5x5") == "new"
    assert file.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".lock")]


@pytest.mark.skipif(sys.platform != "linux", reason="drops the rights that Linux gives to root")
def test_a_read_only_folder_only_costs_time(tmp_path):
    program = CHOOSE.format(folder=str(tmp_path), shapes=["3x3", "3x3"])
    tmp_path.chmod(0o555)
    try:
        output = finish(start(program, preexec_fn=drop_rights))
    finally:
        tmp_path.chmod(0o755)
    assert output.split() == ["fast", "fast", str(2 * 2 * (1 + MIN_ROUNDS))]
    assert not list(tmp_path.iterdir())


def test_two_processes_fill_one_file(tmp_path):
    shapes = [[f"{n}x{n}" for n in range(20)], [f"{n}x{n}" for n in reversed(range(15, 35))]]
    programs = [CHOOSE.format(folder=str(tmp_path), shapes=each) for each in shapes]
    for process in [start(program) for program in programs]:
        assert set(finish(process).split()[:-1]) == {"fast"}
    (table,) = json.loads((tmp_path / "tuning.json").read_text()).values()
    assert table == {f"kernel {n}x{n}": "fast" for n in range(35)}


def test_of_two_processes_that_measure_the_same_the_first_counts(tmp_path, candidates):
    """Both must compute the same bits as all later starts."""
    first, second = Tuner(None, tmp_path), Tuner(None, tmp_path)
    assert second.choose("kernel", "other", candidates.runs, "old") == "new"  # has read the file
    assert first.choose("kernel", "3x3", candidates.runs, "old") == "new"
    candidates.seconds["new"] = 5.0
    assert second.choose("kernel", "3x3", candidates.runs, "old") == "new"
    assert choose(tmp_path, candidates) == "new"


# -- CNN_TUNING and pinned choices -------------------------------------------------------------
def test_off_takes_the_default(tmp_path, candidates):
    choose(tmp_path, candidates)
    candidates.calls.clear()
    assert choose(tmp_path, candidates, setting="off") == "old"
    assert candidates.calls == []


def test_a_given_table_is_read_and_the_rest_takes_the_default(tmp_path, candidates):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"kernel 3x3": "new", "kernel 5x5": "of another processor"}))
    before = table.read_bytes()
    for shape, chosen in (("3x3", "new"), ("5x5", "old"), ("7x7", "old")):
        assert choose(tmp_path, candidates, shape, setting=str(table)) == chosen
    assert candidates.calls == []
    assert table.read_bytes() == before
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not valid (Expecting property name"),
        ("[" * 100_000, "is not valid (maximum recursion depth"),
        ("[]", "is not valid (the kernel choices must be a dict of str, got [])"),
        ('{"a": 3}', "is not valid (a kernel choice must be a name for a kernel, got ('a', 3))"),
    ],
)
def test_a_given_table_that_is_missing_or_damaged_is_reported(tmp_path, content, problem):
    table = tmp_path / "table.json"
    if content is not None:
        table.write_text(content)
    with pytest.raises(ValueError, match='it must be "off", or name a JSON file') as raised:
        Tuner(str(table), tmp_path)
    assert str(raised.value).startswith(f"CNN_TUNING={table}: the file {problem}")


def test_the_command_line_reports_a_missing_table_in_one_line(tmp_path):
    environment = {"CNN_TUNING": str(tmp_path / "none.json")}
    program = "import run; sys.exit(run.main(['--arch', 'tiny', '--epochs', '1']))"
    process = start("", before=f"import sys; {program}\n", environment=environment)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "CNN_TUNING=" in err
    assert "none.json: the file cannot be read" in err
    assert len(err.splitlines()) == 1


def test_pinned_choices_come_before_all_others(tmp_path, candidates):
    tuner = Tuner(None, tmp_path)
    assert tuner.choose("kernel", "3x3", candidates.runs, "old") == "new"
    tuner.pin({"kernel 3x3": "old", "kernel 5x5": "of another processor"})
    assert tuner.choose("kernel", "3x3", candidates.runs, "old") == "old"
    assert tuner.choose("kernel", "5x5", candidates.runs, "old") == "new"
    assert tuner.choices() == {"kernel 3x3": "old", "kernel 5x5": "new"}
    tuner.pin({})
    assert tuner.choices() == {}
    assert tuner.choose("kernel", "3x3", candidates.runs, "old") == "new"


def test_pinned_choices_that_were_not_asked_for_are_kept():
    """A run that is saved twice before its last batch must not lose that batch's choices."""
    tuner = Tuner("off", tuning.CACHE_FOLDER)
    tuner.pin({"kernel 3x3": "new"})
    assert tuner.choices() == {"kernel 3x3": "new"}


# -- the convolutions --------------------------------------------------------------------------
@pytest.fixture
def pins():
    yield NUMBA.pin_kernel_choices
    NUMBA.pin_kernel_choices({})


class Recorder:
    """Stands for `tuning.choose`: takes a candidate, and records what it was asked for."""

    def __init__(self, position=0):
        self.asked, self.position = [], position

    def __call__(self, kernel, shape_class, candidates, default):
        self.asked.append((kernel, *candidates))
        assert default == next(iter(candidates))
        for run in candidates.values():  # all of them compute
            run()
        return list(candidates)[min(self.position, len(candidates) - 1)]


def correlate_and_back(backend, x, w, dy, **sliding):
    """Return the results of a convolution and its gradients, on the numba backend packed."""
    is_numba = backend is NUMBA
    x, dy = (packed.pack(x), packed.pack(dy)) if is_numba else (x, dy)
    y = backend.correlate(x, w, **sliding)
    dx, dw, db = backend.correlate_grad(dy, x, w, **sliding)
    return (packed.unpack(y), packed.unpack(dx), dw, db) if is_numba else (y, dx, dw, db)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("channels", [(32, 48), (18, 64), (48, 18)])
def test_every_candidate_computes_the_convolution(monkeypatch, position, channels):
    recorder = Recorder(position)
    monkeypatch.setattr(tuning, "choose", recorder)
    rng = np.random.default_rng(0)
    C, F = channels
    x, w, dy = (
        rng.uniform(0.5, 1.5, shape).astype(np.float32)
        for shape in ((37, C, 6, 7), (F, C, 3, 3), (37, F, 6, 7))
    )
    got = correlate_and_back(NUMBA, x, w, dy, padding=1)
    for each, want in zip(got, correlate_and_back(NUMPY, x, w, dy, padding=1), strict=True):
        assert_close(each, want)
    kernels = {asked[0]: asked[1:] for asked in recorder.asked}
    assert kernels["correlate"] == ("winograd", "panels" if C >= 32 else "direct")
    assert kernels["input_gradient"] == ("winograd", "panels" if F >= 32 else "direct")
    lanes = packed.pack(x).lanes
    assert ("weight_gradient" in kernels) == (F % lanes == 0)
    if F % lanes == 0:
        others = ["direct", "panels"] if C % lanes == 0 else ["direct"]
        assert sorted(kernels["weight_gradient"]) == [*others, "winograd"]


@pytest.mark.parametrize(
    ("channels", "kernel", "options"),
    [
        ((8, 8), 3, {}),
        ((32, 14), 3, {}),
        ((32, 33), 3, {}),
        ((32, 32), 5, {}),
        ((32, 32), 3, {"stride": 2}),
        ((32, 32), 3, {"dilation": 2}),
        ((64, 64), 3, {"groups": 2}),
        ((32, 32), 3, {"groups": 32}),
    ],
)
def test_nothing_is_measured_where_one_kernel_is_known_to_be_best(
    monkeypatch, channels, kernel, options
):
    monkeypatch.setattr(tuning, "choose", Recorder())
    (C, F), groups = channels, options.get("groups", 1)
    x, w = np.ones((16, C, 8, 8), np.float32), np.ones((F, C // groups, kernel, kernel), np.float32)
    y = NUMPY.correlate(x, w, padding="same", **options)
    correlate_and_back(NUMBA, x, w, np.ones_like(y), padding="same", **options)
    assert tuning.choose.asked == []


def test_the_small_network_measures_nothing(monkeypatch):
    monkeypatch.setattr(tuning, "choose", Recorder())
    small_network("numba").train(*digits(40), epochs=1)
    assert tuning.choose.asked == []


@pytest.mark.parametrize(("channels", "default"), [(16, "direct"), (64, "winograd")])
def test_the_default_of_the_weight_gradient_depends_on_the_weights(channels, default):
    x = packed.pack(np.ones((1, channels, 9, 9), np.float32))
    window = make_window((9, 9), (3, 3), 1, 1)
    found = convolution._weight_gradient_candidates(x, (32, channels, 3, 3), window, 1)
    assert found[0] == default


def test_the_number_of_blocks_is_rounded_down(tmp_path, monkeypatch):
    """The last batch of an epoch is rarely measured anew."""
    tuner = Tuner("off", tmp_path)
    monkeypatch.setattr(tuning, "choose", tuner.choose)
    w = np.ones((32, 32, 3, 3), np.float32)
    lanes = packed.pack(np.ones((1, 1), np.float32)).lanes
    found = {}
    for blocks in range(1, 8):
        x = packed.pack(np.ones((blocks * lanes, 32, 5, 5), np.float32))
        NUMBA.correlate_grad(x, x, w, padding=1)
        NUMBA.correlate(x, w, padding=1)
        found[blocks] = {key for key in tuner.choices() if "weight" in key}
    assert [len(found[blocks]) for blocks in range(1, 8)] == [1, 2, 2, 3, 3, 3, 3]
    assert len(tuner.choices()) == 2 + 2 + 3
    assert (
        "correlate 32x5x5, 32 filters 3x3, stride (1, 1), padding ((1, 1), (1, 1)), "
        "dilation (1, 1), groups 1, float32, blocks from 2"
    ) in tuner.choices()


def test_a_measurement_takes_some_blocks(monkeypatch):
    """Of the images and of the gradient, whose last block may have padding lanes."""
    threads = numba.get_num_threads()
    shapes = []

    def weight_gradient(dy, x, *_, **__):
        shapes.append((dy.shape, len(dy.data), x.shape, len(x.data)))
        return np.zeros((32, 32, 3, 3), np.float32), np.zeros(32, np.float32)

    for name in convolution.WEIGHT_GRADIENT:
        monkeypatch.setitem(convolution.WEIGHT_GRADIENT, name, weight_gradient)
    monkeypatch.setattr(tuning, "choose", Recorder())
    lanes = packed.pack(np.ones((1, 1), np.float32)).lanes
    window, w_shape = make_window((5, 5), (3, 3), 1, 1), (32, 32, 3, 3)
    most = max(4, threads)
    for blocks in (1, 3, 4, most + 1):
        N = blocks * lanes - 1
        x = packed.pack(np.ones((N, 32, 5, 5), np.float32))
        convolution.weight_gradient(x, x, w_shape, window, 1)
        measured = min(blocks, most)
        shape = (min(N, measured * lanes), 32, 5, 5)
        whole = (x.shape, blocks, x.shape, blocks)
        assert shapes == [(shape, measured, shape, measured)] * 3 + [whole]
        shapes.clear()


# -- captured steps ----------------------------------------------------------------------------
def step_of(C, F):
    """Return a function of arrays that is captured, and computes a convolution and its gradients.

    The gradient of the output is the output.
    """
    w = np.random.default_rng(1).uniform(0.5, 1.5, (F, C, 3, 3)).astype(np.float32)

    def convolve(backend, x):
        y = backend.correlate(x, w, padding=1)
        return y, *backend.correlate_grad(y, x, w, padding=1)

    def function(images, mean, std):
        x = NUMBA.normalize_images(images, mean, std, np.float32)
        _, dx, dw, db = convolve(NUMBA, x)
        results[:] = dw, db
        return NUMBA.to_array(NUMBA.add(dx, dx), output=True)

    results = []
    return function, convolve, results


@pytest.mark.parametrize("fastest", ["direct", "winograd", "panels"])
@pytest.mark.parametrize("channels", [(32, 48), (32, 18), (20, 32)])
def test_a_measurement_is_no_part_of_a_captured_step(tmp_path, monkeypatch, fastest, channels):
    """Replays on other inputs compute what NumPy does, with no more calls and memory.

    A candidate's padded copy that is left to the captured kernel would hold the old images.
    """

    def measured(runs, default):
        """Run all candidates, as `measure` does, on a clock that makes one of them the fastest."""
        seconds = {name: 0.01 if name == fastest else 0.02 for name in runs}
        clock = Candidates(**seconds)

        def timed(name):
            runs[name]()
            clock.run(name)

        return measure({name: lambda name=name: timed(name) for name in runs}, default)

    C, F = channels
    measure = tuning.measure
    monkeypatch.setattr(tuning, "measure", measured)
    monkeypatch.setattr(tuning, "choose", Tuner(None, tmp_path).choose)
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0.5, 1.5, (40, C, 6, 6)).astype(np.float32) for _ in range(3)]
    vectors = np.zeros(C, np.float32), np.ones(C, np.float32)
    graphs = []
    for _ in range(2):  # measured within the capture, then known before it
        function, convolve, results = step_of(C, F)
        step = CapturedStep(function)
        for x in batches:
            dx = step(x, *vectors)
            _, want_dx, want_dw, want_db = convolve(NUMPY, x)
            for got, want in zip((dx, *results), (2 * want_dx, want_dw, want_db), strict=True):
                assert_close(got, want)
        assert step.invalid_reason is None
        graphs.append(step._graph)
    calls, memory = ([getattr(graph, part) for graph in graphs] for part in ("_calls", "pool"))
    assert len(calls[0]) == len(calls[1])
    assert memory[0]._total_bytes == memory[1]._total_bytes


# -- models and run files ----------------------------------------------------------------------
def wide_network():
    model = Model((1, 8, 8), seed=0)
    for layer in (Conv(32, 3), Relu(), Conv(32, 3), Relu(), Flatten(), Dense(4)):
        model.add(layer)
    return model.fit_normalization(digits(40)[0]).compile(SGD(0.01))


def weights_after_steps():
    model = wide_network()
    for _ in range(3):
        model.train_step(*digits(40))
    return model.parameters.values


def test_the_choices_of_a_process_decide_the_bits(pins):
    by_default = weights_after_steps()
    choices = NUMBA.kernel_choices()
    assert choices
    assert set(choices.values()) <= {"winograd", "direct"}
    pins(dict.fromkeys(choices, "panels"))
    by_panels = weights_after_steps()
    assert NUMBA.kernel_choices() == dict.fromkeys(choices, "panels")
    assert (by_panels != by_default).any()
    np.testing.assert_allclose(by_panels, by_default, atol=1e-5)
    np.testing.assert_array_equal(weights_after_steps(), by_panels)
    pins({})
    np.testing.assert_array_equal(weights_after_steps(), by_default)


def test_mixed_precision_has_the_choices_of_its_backend(pins):
    mixed = get_backend("numba", "bfloat16")
    mixed.pin_kernel_choices({"a": "b"})
    assert mixed.kernel_choices()["a"] == numba_backend.kernel_choices()["a"] == "b"
    assert get_backend("numpy", "bfloat16").kernel_choices() == {}


@pytest.mark.parametrize("backend", ["numba", "scipy", "numpy"])
@pytest.mark.parametrize("choices", [None, [], {"a": 3}, {3: "a"}, {"a": None}])
def test_every_backend_rejects_choices_of_another_type(backend, choices):
    with pytest.raises(TypeError, match="kernel choice"):
        get_backend(backend).pin_kernel_choices(choices)


def test_a_measured_training_repeats_its_bits_at_the_next_start(tmp_path):
    """With real measurements, whatever they say."""
    program = (
        "import hashlib\n"
        "from tests.test_tuning import NUMBA, weights_after_steps\n"
        "print(hashlib.sha256(weights_after_steps().tobytes()).hexdigest())\n"
        "print(sorted(NUMBA.kernel_choices().items()))"
    )
    environment = {"CNN_TUNING": ""}
    before = (
        "import sys\n"
        "from pathlib import Path\n"
        "import kernels.numba_backend.runtime.tuning as tuning\n"
        f"tuning._tuner._file = Path({str(tmp_path / 'tuning.json')!r})\n"
        "import tests.conftest\n"
    )
    outputs = [finish(start(program, before=before, environment=environment)) for _ in range(2)]
    assert outputs[0] == outputs[1]
    (table,) = json.loads((tmp_path / "tuning.json").read_text()).values()
    assert len(table) == 3  # the second convolution, forward and both gradients
    assert "weight_gradient" in outputs[0]
    assert os.environ["CNN_TUNING"] == "off"
