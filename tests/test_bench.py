"""The benchmark programs run and write their results. No test looks at a measured time."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from bench import (
    backends,
    common,
    competitors,
    competitors_report,
    machine_peak,
    roofline,
    scaling,
    tables,
)
from layers import Conv

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


def test_pytorch_trains_the_same_mobile_network(tmp_path):
    pytest.importorskip("torch")
    settings = ["--only", "training", "--network", "mobile", "--batch", "4", *ONE_THREAD]
    document = run(competitors, tmp_path, *settings, *without_others("training", "PyTorch"))
    (result,) = document["training"]
    assert set(result["images_per_second"]) == {"this", "PyTorch", "numpy"}


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
    def build(competitor, network, kind, threads):
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
            {"microarchitecture": "Zen 3", "instructions": "AVX2"},
            "amd-epyc-7763-zen3-2-cores",
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
    for brand, batches in (("One", (10, 16)), ("Two", (16,))):
        folder = results / brand
        folder.mkdir(parents=True)
        document = competitor_results(brand, batches)
        (folder / "competitors.json").write_text(json.dumps(document))
    assert tables.speed_block(tables.PAGES[0]).splitlines() == [
        "| task | One, 2 threads | ratio | Two, 2 threads | ratio |",
        "|---|--:|--:|--:|--:|",
        "| training, `small`, batch 10 | 110 images/s | **0.50 (PyTorch)** |  |  |",
        "| training, `small`, batch 16 | 110 images/s | **0.50 (PyTorch)** "
        "| 110 images/s | **0.50 (PyTorch)** |",
    ]


def test_ratio_is_to_the_fastest_of_all_other_libraries():
    (row,) = competitor_results("One", [10])["training"]
    row["images_per_second"]["JAX"] = [440.0] * 3
    assert competitors_report.row("training", row, ["this", "PyTorch", "JAX", "numpy"]) == (
        "| small | 10 | 110 | 220 | 440 | 10 | **0.50 (0.45 to 0.55)** "
        "| **0.25 (0.23 to 0.27)**, JAX |"
    )


def test_pages_of_several_machines_have_a_section_for_each(results):
    for brand in ("One", "Two"):
        folder = results / brand
        folder.mkdir(parents=True)
        (folder / "competitors.json").write_text(json.dumps(competitor_results(brand, [10])))
        (folder / "competitors.png").touch()
    text = tables.competitors_block(results / "page.md")
    assert text.count("| small | 10 |") == 2
    assert "**One, 2 cores" in text
    assert "(Two/competitors.png)" in text


def test_pytorch_has_no_module_for_padding_that_is_not_symmetric():
    pytest.importorskip("torch")
    from bench.competitors_torch import module

    layer = Conv(2, kernel_size=3, stride=2, padding="same").build((1, 8, 8))
    with pytest.raises(TypeError, match="pads one side more"):
        module(layer)
