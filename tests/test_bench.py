"""The benchmark programs run and write their results. No test looks at a measured time."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bench import (
    backends,
    bars,
    common,
    competitors,
    competitors_report,
    first_step,
    footprint,
    machine_peak,
    roofline,
    scaling,
    tables,
)
from bench.bars import INFERENCE, MEMORY, TRAINING, Measured, Row
from bench.networks import NETWORKS
from layers import MaxPool
from training import Adam

FAST = ["--rounds", "2", "--seconds", "0.001"]
PROGRAMS = [competitors, roofline, scaling]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
every_page = pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)


# Where other programs use the cores, two threads that wait for each other take seconds a call.
ONE_THREAD = ["--threads", "1"]


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(competitors, "N_IMAGES", 64)


def run(program, tmp_path, *arguments):
    """Run a program with tiny settings and return its JSON document."""
    json_path, plot_path = tmp_path / "results.json", tmp_path / "results.png"
    outputs = ["--json", str(json_path), "--plot", str(plot_path)]
    assert program.main([*FAST, *outputs, *arguments]) == 0
    assert plot_path.read_bytes().startswith(b"\x89PNG\r\n")
    document = json.loads(json_path.read_text(encoding="utf-8"))
    assert document["machine"]["cpu"]["brand_raw"]
    assert document["settings"]["rounds"] == 2
    return document


def without_others(kind, name):
    """Return the arguments that leave out all other libraries."""
    names = [each.name for each in competitors.COMPETITORS[kind]]
    return ["--without", *(other for other in names if other != name), "scipy"]


@pytest.mark.parametrize(
    ("kind", "competitor"),
    [
        pytest.param(kind, competitor, id=f"{kind}: {competitor.name}")
        for kind, group in competitors.COMPETITORS.items()
        for competitor in group
        if competitor.name != "torch.compile"  # compiles for some 10 s
    ],
)
def test_competitor_computes_the_same(kind, competitor, tmp_path):
    for package in competitor.packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    settings = ["--only", kind, "--network", "small", "--batch", "16", *ONE_THREAD]
    document = run(competitors, tmp_path, *settings, *without_others(kind, competitor.name))
    (result,) = document[kind]
    # A library that computes another function, or does not run at all, is left out.
    assert set(result["images_per_second"]) == {"this", competitor.name, "numpy"}
    assert len(result["images_per_second"][competitor.name]) == 2


every_network = pytest.mark.parametrize("network", list(NETWORKS))
MODES = ["train", "train_channels_last"]


def reference_model(network):
    """Return a model on the numpy backend, which needs no compiling, and two batches for it."""
    model = NETWORKS[network](backend="numpy")
    model.compile(optimizer=Adam(learning_rate=2e-3))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, *model.input_shape), dtype=np.float32)
    return model, list(zip(x, rng.integers(0, 10, (2, 4)), strict=True))


@every_network
@pytest.mark.parametrize(("dtype", "tolerance"), competitors.TOLERANCES.items())
@pytest.mark.parametrize("mode", MODES)
def test_pytorch_trains_the_same_network(network, dtype, tolerance, mode):
    torch = pytest.importorskip("torch")
    from bench import competitors_torch

    model, batches = reference_model(network)
    threads = torch.get_num_threads()
    step = getattr(competitors_torch, mode)(model, 1, dtype)
    try:
        for x, y in batches:  # the second loss depends on the gradients of the first
            loss, expected = step(x, y), model.train_step(x, y)
            assert isinstance(loss, float)
            assert abs(loss - expected) <= tolerance * expected
    finally:
        torch.set_num_threads(threads)


def test_pytorch_computes_in_bfloat16_and_the_loss_in_float32():
    torch = pytest.importorskip("torch")
    from bench.torch_steps import make_loss

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    x, y = torch.ones(2, 1, 4, 4), torch.tensor([0, 2])
    seen = []
    for layer in (net[0], net[2]):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    for dtype in ("float32", "bfloat16"):
        loss = make_loss(net, dtype)(x, y)
        exact = torch.nn.functional.cross_entropy(seen[-1].double(), y)
        assert abs(loss - exact) <= 1e-6 * exact
        loss.backward()
        assert {parameter.grad.dtype for parameter in net.parameters()} == {torch.float32}
    dtypes = [output.dtype for output in seen]
    assert dtypes == 2 * [torch.float32] + 2 * [torch.bfloat16]
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16, got 'float16'"):
        make_loss(net, "float16")


@every_network
@pytest.mark.parametrize("build", ["infer_onnxruntime", "infer_openvino"])
def test_onnx_predicts_the_same_network(network, build):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime" if "onnx" in build else "openvino")
    from bench import competitors_onnx

    model, batches = reference_model(network)
    model.train_step(*batches[0])  # moves the running statistics
    (x, _) = batches[1]
    expected = model.logits(x)
    logits = getattr(competitors_onnx, build)(model, 1, len(x))(x)
    assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()


def test_openvino_runs_in_float32():
    pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
    from bench import competitors_onnx

    model, _ = reference_model("small")
    core = openvino.Core()
    graph = core.read_model(competitors_onnx.graph(model, 1))
    found = competitors_onnx.precisions(
        core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    assert "f32" in found
    competitors_onnx.check_float32(found)
    with pytest.raises(RuntimeError, match="runs in bf16 instead of float32"):
        competitors_onnx.check_float32({*found, "bf16"})


def test_bfloat16_row_compares_with_pytorchs_autocast_alone(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    rows = {("small", "float32"): (4,), ("small", "bfloat16"): (4,)}
    monkeypatch.setitem(competitors.BATCHES, TRAINING, rows)
    settings = ["--only", "training", "--dtype", "bfloat16", *ONE_THREAD]
    others = ["--without", "torch.compile"]
    document = run(competitors, tmp_path, *settings, *others)
    (result,) = document["training"]
    assert result["dtype"] == "bfloat16"
    assert list(result["images_per_second"]) == ["this", "PyTorch", "PyTorch, channels last"]
    captured = capsys.readouterr()
    assert "| small | bfloat16 | 4 |" in captured.out
    assert "The ratios do not count what was not measured: torch.compile.\n" in captured.out
    # JAX has no bfloat16 row. That it is missing is reported all the same.
    is_missing = importlib.util.find_spec("jax") is None
    assert captured.err == (
        "competitors.py: JAX is left out: pip install jax\n" if is_missing else ""
    )


def test_rows_are_chosen_by_network_dtype_and_batch():
    args = competitors.parse(["--network", "wide", "mobile", "--batch", "8", "--dtype", "bfloat16"])
    assert competitors.rows_to_measure(TRAINING, args) == [Row(TRAINING, "wide", "bfloat16", 8)]
    assert competitors.rows_to_measure(INFERENCE, args) == []


def test_rows_that_no_table_has_are_rejected(capsys):
    with pytest.raises(SystemExit) as stopped:
        competitors.main(["--network", "mobile", "--dtype", "bfloat16"])
    assert stopped.value.code == 2
    assert "error: no row of the tables is of this network and dtype" in capsys.readouterr().err


def test_competitors_that_are_not_installed_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(competitors, "find_spec", lambda package: None)
    document = run(competitors, tmp_path, "--network", "small", "--batch", "4", *ONE_THREAD)
    assert {kind: len(document[kind]) for kind in competitors.COMPETITORS} == {
        "training": 1,
        "inference": 1,
    }
    error_output = capsys.readouterr().err
    assert "competitors.py: JAX is left out: pip install jax" in error_output
    assert "Traceback" not in error_output


def test_competitor_that_computes_another_function_is_left_out(tmp_path, capsys, monkeypatch):
    def build(competitor, row, threads):
        return lambda *batch: 1e9

    monkeypatch.setattr(competitors, "build", build)
    monkeypatch.setattr(competitors, "is_installed", lambda competitor: competitor.name == "JAX")
    run(competitors, tmp_path, "--only", "training", "--network", "small", "--batch", "4")
    assert "JAX is left out: computes another function" in capsys.readouterr().err


def test_roofline(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_peak, "LARGEST_SET", 1 << 22)
    document = run(roofline, tmp_path, "--network", "small", "--batch", "16")
    rows = document["kernels"]["small"]["1"]
    assert {"correlate", "correlate_grad", "batch_norm_relu"} <= {row["kernel"] for row in rows}
    assert all(row["seconds"] > 0 and row["limit"] for row in rows)
    assert set(document["peaks"]["1"]["bandwidth"]) == {"L1", "L2", "L3", "memory"}


def test_work_of_a_convolution():
    rows = [row for row in roofline.kernels_of("small", 16) if row.name == "correlate"]
    pixels = 16 * 28 * 28
    assert rows[0].operations == 2 * 5 * 25 * pixels
    assert rows[0].moved == 4 * (pixels + 5 * 25 + 5 * pixels)


def test_work_of_single_layers():
    rows = {(row.name, row.shape): row for row in roofline.kernels_of("layers", 4)}
    pixels = 4 * 32 * 16 * 16
    depthwise = rows["correlate", "32x32x32, 32 of 3x3, stride 2x2, 32 groups"]
    assert depthwise.operations == 2 * 9 * pixels
    assert depthwise.moved == 4 * (4 * 32 * 32 * 32 + 32 * 9 + pixels)
    assert rows["avg_pool_grad", "32x32x32 by 2x2"].moved == 4 * (4 * 32 * 32 * 32 + pixels)
    assert ("avg_pool", "128x8x8 by 8x8") in rows


def test_scaling(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SIDES", (28, 32))
    monkeypatch.setattr(scaling, "CHANNELS", (8, 16))
    monkeypatch.setattr(scaling, "BATCHES", (16, 32))
    curves = run(scaling, tmp_path)["curves"]
    assert set(curves) == set(scaling.CURVES)
    assert all(rows[0]["relative"] == 1 for rows in curves.values())
    assert all(len(row["rounds"]) == 2 for rows in curves.values() for row in rows)


def curve(*seconds, **values):
    """Return the rows of a curve from their times in two rounds, in microseconds."""
    return [
        {"value": value, "seconds": sum(rounds) / 2, "rounds": rounds}
        for value, rounds in zip(values["values"], seconds, strict=True)
    ]


def test_scaling_compares_with_the_bars():
    curves = {
        "batch": curve([60, 68], [240, 240], values=[64, 256]),
        "lanes": curve([20, 20], [18, 22], values=[10, 16]),
        "side": curve([49, 49], [1280, 1536], values=[28, 128]),
        "threads": curve([18, 20], [10, 10], values=[1, 2]),
    }
    found = scaling.measured({"curves": curves})
    assert {row: pytest.approx(tuple(each)[:3]) for row, each in found.items()} == {
        Row(bars.TWO_THREADS, "small", "float32", 256): (1.9, 1.8, 2.0),
        Row(bars.BATCH_64, "small", "float32"): (0.9375, 240 / 272, 1.0),
        Row(bars.LARGE_IMAGES, "two convolutions", "float32", 64): (1.375, 1.25, 1.5),
        Row(bars.WHOLE_LANES, "small", "float32", 10): (1.0, 0.9, 1.1),
    }
    assert {bars.verdict(row, each) for row, each in found.items()} == {"reached", "missed"}
    assert scaling.measured({"curves": {}}) == {}


# Starts and memory.


def test_first_step_of_this_library(capsys):
    assert first_step.main(["this", "small", "float32", "4", "2", "1"]) == 0
    first, peak = capsys.readouterr().out.splitlines()
    assert first == "first step"
    assert int(peak) > 1e6


def test_footprint(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(footprint, "STEPS", 2)
    path = tmp_path / "footprint.json"
    settings = ["--network", "small", "--batch", "4", "--rounds", "1", "--cold", "0", *ONE_THREAD]
    assert footprint.main([*settings, "--json", str(path)]) == 0
    document = json.loads(path.read_text("utf-8"))
    (result,) = document["processes"]
    assert set(result["cached"]) == {"this", *footprint.TORCH_MODES}
    assert all(peak > 10e6 for (peak,) in result["peak_bytes"].values())
    assert result["not_cached"] == []
    assert set(footprint.measured(document)) == {
        Row(bars.START_WARM, "small", "float32", 4),
        Row(MEMORY, "small", "float32", 4),
    }


def test_pytorchs_process_has_nothing_of_this_library():
    pytest.importorskip("torch")
    program = (
        "import bench.first_step, bench.torch_steps, sys;"
        "print({name.partition('.')[0] for name in sys.modules}"
        " & {'kernels', 'layers', 'training', 'numba', 'torch'})"
    )
    assert run_python("-c", program).stdout.strip() == "{'torch'}"


def test_a_process_that_fails_is_named():
    with pytest.raises(
        RuntimeError, match=r"first_step this unknown .* failed: KeyError: 'unknown'"
    ):
        footprint.run_process(["this", "unknown"], ["float32", "4", "1", "1"])


def test_footprint_compares_with_the_least_memory_of_pytorch():
    result = {
        **{"network": "wide", "dtype": "bfloat16", "batch": 256},
        "cached": {"this": [0.5, 0.7, 0.9], "PyTorch": [2.0, 2.0, 2.0]},
        "not_cached": [21.0, 25.0],
        "peak_bytes": {
            "this": [100_000_000, 125_000_000, 100_000_000],
            "PyTorch": [200_000_000, 200_000_000, 200_000_000],
            "PyTorch, channels last": [50_000_000, 50_000_000, 50_000_000],
        },
    }
    assert footprint.measured({"processes": [result]}) == {
        Row(bars.START_WARM, "wide", "bfloat16", 256): Measured(0.7, 0.5, 0.9),
        Row(bars.START_COLD, "wide", "bfloat16", 256): Measured(23.0, 21.0, 25.0),
        Row(MEMORY, "wide", "bfloat16", 256): Measured(0.5, 0.4, 0.5, "PyTorch, channels last"),
    }
    assert footprint.table([result]).splitlines()[-1] == (
        "| wide | bfloat16 | 256 | 700 ms (500 ms to 900 ms) | 2 s (2 s to 2 s) "
        "| 23 s (21 s to 25 s) | 100 | 200 |"
    )


@every_program
@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--seconds", "-1"],
        ["--threads", "100000"],
        ["--output", "no/such/folder"],
        ["--json", "no/such/folder/a.json"],
        ["--plot", "no/such/folder/a.png"],
        ["--only", "nothing"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_rejected(program, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("error:") == 1


# Where the results go.


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return an empty folder that stands in for bench/results."""
    for module in (common, tables, backends):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def outputs(*argv):
    parser = common.make_parser("A program.", rounds=7, seconds=0.5)
    args = common.parse_measurement(parser, list(argv), "name")
    return args.json, args.plot


def test_default_run_writes_to_the_results_of_this_machine(results):
    folder = results / common.slug(common.machine())
    assert outputs() == (folder / "name.json", folder / "name.png")
    assert folder.is_dir()


def test_run_with_other_settings_does_not_replace_the_results(results, tmp_path):
    assert outputs("--rounds", "2") == (None, None)
    assert not results.exists()
    chosen = tmp_path / "chosen"
    expected = chosen / "name.json", chosen / "name.png"
    assert outputs("--rounds", "2", "--output", str(chosen)) == expected


def test_named_file_is_the_only_one_written(results, tmp_path):
    path = tmp_path / "other.json"
    assert outputs("--json", str(path)) == (path, None)
    assert not results.exists()


@pytest.mark.parametrize(
    ("brand", "kind", "expected"),
    [
        ("AMD EPYC", {"microarchitecture": "Zen 3"}, "amd-epyc-zen3-2-cores"),
        (
            "AMD EPYC 7763 64-Core Processor",
            {"microarchitecture": "Zen 3", "instructions": "AVX2", "bfloat16": False},
            "amd-epyc-7763-zen3-avx2-2-cores",
        ),
        (
            "AMD EPYC",
            {"microarchitecture": "Zen 5", "instructions": "AVX-512", "bfloat16": True},
            "amd-epyc-zen5-avx512-bf16-2-cores",
        ),
        (
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            {"microarchitecture": "sapphirerapids"},
            "intel-xeon-platinum-8481c-sapphirerapids-2-cores",
        ),
        (
            "Intel(R) Xeon(R) Processor",
            {"instructions": "AVX-512"},
            "intel-xeon-avx512-2-cores",
        ),
    ],
)
def test_slug(brand, kind, expected):
    assert common.slug({"cpu": {"brand_raw": brand, "count": 2, **kind}}) == expected


def cpuinfo(vendor, family, model, name, flags=""):
    """Return what Linux writes of a machine with two cores."""
    lines = {"vendor_id": vendor, "cpu family": family, "model": model, "model name": name}
    core = "".join(f"{key}\t: {value}\n" for key, value in {**lines, "flags": flags}.items())
    return f"processor\t: 0\n{core}\nprocessor\t: 1\n{core}\n"


@pytest.fixture
def slug_of(tmp_path, monkeypatch):
    """Return a function from a cpuinfo and LLVM's features to the slug of such a machine."""
    monkeypatch.setattr(common, "CORES", 2)

    def slug(text, *features, name="generic"):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        monkeypatch.setattr(common, "CPUINFO", path)
        monkeypatch.setattr(
            common.binding, "get_host_cpu_features", lambda: dict.fromkeys(features, True)
        )
        monkeypatch.setattr(common.binding, "get_host_cpu_name", lambda: name)
        return common.slug(common.machine())

    return slug


@pytest.mark.parametrize(
    ("family", "model", "features", "expected"),
    [
        (23, 49, ["avx2"], "amd-epyc-zen2-avx2-2-cores"),
        (25, 1, ["avx2"], "amd-epyc-zen3-avx2-2-cores"),
        (25, 17, ["avx2", "avx512f", "avx512bf16"], "amd-epyc-zen4-avx512-bf16-2-cores"),
        (25, 160, ["avx2", "avx512f", "avx512bf16"], "amd-epyc-zen4-avx512-bf16-2-cores"),
        (26, 2, ["avx2", "avx512f", "avx512bf16"], "amd-epyc-zen5-avx512-bf16-2-cores"),
        (99, 3, ["avx2"], "amd-epyc-family-99-model-3-avx2-2-cores"),
    ],
)
def test_amds_generations_have_different_slugs(slug_of, family, model, features, expected):
    assert slug_of(cpuinfo("AuthenticAMD", family, model, "AMD EPYC"), *features) == expected


def test_slug_of_other_processors(slug_of):
    xeon = cpuinfo("GenuineIntel", 6, 143, "Intel(R) Xeon(R) Processor", "avx512_bf16 amx_bf16")
    expected = "intel-xeon-sapphirerapids-avx512-bf16-2-cores"
    assert slug_of(xeon, "avx512f", name="sapphirerapids") == expected
    virtual = cpuinfo("AuthenticAMD", 25, 17, "QEMU Virtual CPU")
    assert slug_of(virtual, "avx2") == "amd-qemu-virtual-zen4-avx2-2-cores"
    arm = "processor\t: 0\nFeatures\t: asimd bf16\n\n"
    assert slug_of(arm, "neon", name="neoverse-v2").endswith("neoverse-v2-neon-bf16-2-cores")


def test_a_machine_without_cpuinfo_has_a_slug(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CPUINFO", tmp_path / "missing")
    assert common.read_cpuinfo() == {}
    assert common.slug(common.machine()).endswith(f"{common.CORES}-cores")


def test_results_say_when_and_from_which_commit(tmp_path, monkeypatch):
    args = common.make_parser("A program.", rounds=7, seconds=None).parse_args(["--rounds", "3"])
    common.write_json(tmp_path / "a.json", args, rows=[])
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["settings"] == {"threads": common.CORES, "rounds": 3}
    assert {"torch", "onnxruntime", "openvino"} <= set(common.PACKAGES)
    assert document["date"].startswith("20")
    assert document["date"].endswith("+00:00")
    answers = {"rev-parse": "0123abc", "status": " M bench/bars.py"}
    monkeypatch.setattr(common, "git", lambda command, *_: answers[command])
    assert common.provenance()["commit"] == "0123abc-dirty"
    monkeypatch.setattr(common, "git", lambda command, *_: "")
    assert common.provenance()["commit"] == ""


def test_git_is_not_needed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert common.git("status") == ""


def test_results_are_in_the_folder_of_their_machine():
    paths = sorted(common.RESULTS.glob("*/*.json"))
    assert paths
    for path in paths:
        assert path.parent.name == common.slug(json.loads(path.read_text("utf-8"))["machine"]), path


# The results of pytest-benchmark.


def run_python(*arguments, **environment):
    """Run Python in the root of the repository, and return what it printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tables.ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_kernel_has_a_benchmark_that_runs():
    one_image = ["-k", "1-numba or None-numba", "--benchmark-disable"]
    done = run_python("-m", "pytest", "bench/bench_kernels.py", *one_image)
    assert done.returncode == 0, done.stdout[-2000:]


def test_benchmarks_remove_what_slows_numpy():
    program = "import bench.common, os; print(os.getenv('OPENBLAS_CORETYPE'), os.getenv('HOME'))"
    done = run_python("-c", program, OPENBLAS_CORETYPE="Prescott", HOME="kept")
    assert done.stdout.split() == ["None", "kept"], done.stderr


def test_a_machine_is_described_with_its_blas_kernels():
    (numpy_blas, *_) = common.machine()["blas"]
    assert len(numpy_blas.split()) >= 2  # the library and its version


def benchmark_entry(backend, median):
    info = {"kernel": "dense", "shape": "4 to 2", "batch": 4, "largest_error": 1e-7}
    return {"extra_info": {**info, "backend": backend}, "stats": {"median": median}}


MACHINE = {"cpu": {"brand_raw": "Some CPU", "count": 2}, "system": "Linux", "node": "a-host"}


def test_backends_writes_medians_and_marks_lost_rows(results, tmp_path, capsys):
    measured = tmp_path / "bench.json"
    entries = [benchmark_entry("numba", 2e-3), benchmark_entry("numpy", 1e-3)]
    measured.write_text(json.dumps({"machine_info": MACHINE, "benchmarks": entries}))
    assert backends.main([str(measured)]) == 0
    document = json.loads((results / "some-2-cores" / "backends.json").read_text("utf-8"))
    assert (results / "some-2-cores" / "backends.png").exists()
    assert "node" not in document["machine"]  # the host's name is not for publication
    row = "| dense | 4 to 2, 4 images | 2 ms | as numpy | **1 ms (0.5x)** | 1e-07 |"
    assert row in capsys.readouterr().out
    assert tables.lost_kernels(document).endswith(
        "in 1 of 1 benchmarks. In these it reaches 0.50 of NumPy's speed in `dense`. "
        "Training calls the kernels on the packed layout instead."
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmarks": [{}]}'])
def test_backends_rejects_another_file(tmp_path, content, capsys):
    path = tmp_path / "bench.json"
    path.write_text(content)
    assert backends.main([str(path)]) == 2
    assert "not a JSON file of these benchmarks" in capsys.readouterr().err


# The tables of the documentation.


@every_page
def test_tables_of_the_documentation_are_those_of_the_results(page):
    assert page.read_text("utf-8") == tables.render(page), "run python -m bench.tables"


def test_every_generated_block_is_on_a_page():
    names = [match[2] for page in tables.PAGES for match in tables.BLOCK.finditer(page.read_text())]
    assert sorted(names) == sorted(tables.BLOCKS)


def competitor_results(brand, batches):
    rates = {"this": [100.0, 110.0, 120.0], "PyTorch": [220.0, 220.0, 220.0], "numpy": [10.0]}
    rows = [{"network": "small", "batch": n, "images_per_second": rates} for n in batches]
    return {
        "machine": {"cpu": {"brand_raw": brand, "count": 2}},
        "settings": {"threads": 2},
        "training": rows,
    }


def test_speed_table_shows_machines_side_by_side_and_lost_rows_in_bold(results):
    for brand, batches in (("One", (10, 64)), ("Two", (64,)), ("Three", (10,))):
        folder = results / brand
        folder.mkdir(parents=True)
        document = competitor_results(brand, batches)
        (folder / "competitors.json").write_text(json.dumps(document))
    # Batch 64 stands for all batch sizes of training; docs/performance.md has the others.
    assert tables.speed_block(tables.PAGES[0]).splitlines() == [
        "| task | One, 2 threads | ratio | Three, 2 threads | ratio | Two, 2 threads | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
        "| training, `small`, float32, batch 64 | 110 images/s | **0.50 (PyTorch)** |  |  "
        "| 110 images/s | **0.50 (PyTorch)** |",
    ]


def test_ratio_is_to_the_fastest_of_all_other_libraries():
    (row,) = competitor_results("One", [10])["training"]
    row["images_per_second"]["JAX"] = [440.0] * 3
    assert competitors_report.row("training", row, ["this", "PyTorch", "JAX", "numpy"]) == (
        "| small | float32 | 10 | 110 | 220 | 440 | 10 | **0.50 (0.45 to 0.55)** "
        "| **0.25 (0.23 to 0.27)**, JAX | at least 5.5 (8) | lost |"
    )


def test_a_table_has_as_many_cells_in_each_line():
    (row,) = competitor_results("One", [7])["training"]
    for rates in (row["images_per_second"], {"this": [1.0]}):
        lines = competitors_report.table(TRAINING, [{**row, "images_per_second": rates}])
        assert len({line.count("|") for line in lines.splitlines()}) == 1


# The bars.


def test_every_bar_of_a_comparison_has_a_row_that_is_measured():
    args = competitors.parse(["--rounds", "1"])
    for kind in competitors.BATCHES:
        rows = competitors.rows_to_measure(kind, args)
        assert {row for row in bars.BARS if row.task == kind} <= set(rows)
    memory = {(row.network, row.dtype) for row in bars.BARS if row.task == MEMORY}
    assert memory == set(footprint.NETWORKS_AND_DTYPES)
    part_filled = {row.batch for row in bars.BARS if row.task == bars.WHOLE_LANES}
    assert part_filled == set(scaling.PARTLY_FILLED)


WIDE = Row(TRAINING, "wide", "bfloat16", 64)


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        (WIDE, 1.8, "aim reached"),
        (WIDE, 1.4, "reached"),
        (WIDE, 1.39, "missed"),
        (WIDE, 0.99, "lost"),
        (Row(INFERENCE, "resnet9", "float32", 1), 0.99, "lost"),
        (Row(INFERENCE, "resnet9", "float32", 1), 1.01, ""),
        (Row(bars.START_WARM, "small", "float32", 256), 0.99, "reached"),
        (Row(bars.START_WARM, "small", "float32", 256), 1.01, "missed"),
        (Row(bars.BATCH_64, "small", "float32"), 0.84, "missed"),
    ],
)
def test_verdict(row, value, expected):
    assert bars.verdict(row, Measured(value)) == expected


def test_report_shows_the_bars_of_all_machines_side_by_side(results):
    rates = {"this": [150.0, 160.0], "PyTorch": [100.0, 100.0], "torch.compile": [50.0, 50.0]}
    row = {"network": "wide", "dtype": "bfloat16", "batch": 64, "images_per_second": rates}
    curves = {"threads": curve([18, 20], [10, 10], values=[1, 2])}
    for brand, content in {
        "One": {"competitors": {"training": [row]}, "scaling": {"curves": curves}},
        "Two": {"competitors": competitor_results("Two", [10])},
    }.items():
        (results / brand).mkdir(parents=True)
        for name, document in content.items():
            document |= {"machine": {"cpu": {"brand_raw": brand, "count": 2}}}
            (results / brand / f"{name}.json").write_text(json.dumps(document))
    lines = tables.bars_block(tables.PAGES[0]).splitlines()
    assert lines[0] == "| row | bar (aim) | One, 2 cores | Two, 2 cores |"
    assert (
        "| training, `small`, float32, batch 10 | at least 5.5 (8) |  "
        "| **0.50 (0.45 to 0.55)**, PyTorch: lost |"
    ) in lines
    assert (
        "| training, `wide`, bfloat16, batch 64 | at least 1.4 (1.7) "
        "| 1.55 (1.50 to 1.60), PyTorch: reached |  |"
    ) in lines
    assert (
        "| start to first step, kernels cached, `small`, float32, batch 256 | at most 1 s |  |  |"
        in lines
    )
    assert "One, 2 cores: 2 of 2 bars reached." in lines
    assert "Two, 2 cores: 0 of 1 bars reached." in lines
    lost = "- Lost: training, `small`, float32, batch 10: 0.50 (at least 5.5 (8))."
    assert lines[-2:] == [lost, "- Missed: none."]


def test_pages_of_several_machines_have_a_section_for_each(results):
    for brand in ("One", "Two"):
        folder = results / brand
        folder.mkdir(parents=True)
        (folder / "competitors.json").write_text(json.dumps(competitor_results(brand, [10])))
        (folder / "competitors.png").touch()
    text = tables.competitors_block(results / "page.md")
    assert text.count("| small | float32 | 10 |") == 2
    assert "**One, 2 cores" in text
    assert "(Two/competitors.png)" in text


def test_pytorch_has_no_pooling_whose_padding_is_not_symmetric():
    pytest.importorskip("torch")
    from bench.competitors_torch import module

    layer = MaxPool(3, stride=2, padding=((0, 1), (0, 1))).build((1, 8, 8))
    with pytest.raises(TypeError, match="pads one side more"):
        module(layer)
