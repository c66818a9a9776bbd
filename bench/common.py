"""What the benchmark programs share: arguments, machine description, JSON files and plots."""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import config
from threadpoolctl import threadpool_info

from training.cli.flag_types import positive_int

RESULTS = Path(__file__).parent / "results"  # one folder a machine
# The colours of Okabe and Ito, which people with a colour vision deficiency can distinguish too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
CORES: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "jax", "onnxruntime", "openvino")
INSTRUCTIONS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("neon", "NEON"))
OUTPUTS = {"output", "json", "plot"}


def positive_seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 3600:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 3600 seconds, got {text}")
    return number


def thread_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= CORES:
        raise argparse.ArgumentTypeError(f"must be 1 to {CORES} on this machine, got {text}")
    return number


def new_file(text: str) -> Path:
    """Return a path to write to. A wrong path is rejected here, before the measurement."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write a file at {text}")
    return path


def new_plot(text: str) -> Path:
    if not has_matplotlib():
        raise argparse.ArgumentTypeError("needs matplotlib: pip install matplotlib")
    return new_file(text)


def output_folder(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"cannot write files into {text}")
    return path


def has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def make_parser(doc: str, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all measuring programs take, with these defaults."""
    parser = argparse.ArgumentParser(
        description=doc.partition("\n")[0],
        epilog="Without arguments, the results of this machine in bench/results are replaced. A "
        "run with other settings only prints its results, unless --output, --json or --plot says "
        "where to write them.",
    )
    add = parser.add_argument
    add("--threads", type=thread_count, default=CORES, metavar="N", help=f"default: all, {CORES}")
    add(
        "--rounds",
        type=positive_int,
        default=rounds,
        metavar="N",
        help=f"how often each function is timed (default: {rounds})",
    )
    add(
        "--seconds",
        type=positive_seconds,
        default=seconds,
        metavar="S",
        help=f"approximate time of one round of one function (default: {seconds})",
    )
    add_output_arguments(parser)
    return parser


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", type=output_folder, metavar="DIR", help="folder of the JSON file and the plot")
    add("--json", type=new_file, metavar="FILE", help="the JSON file of the results")
    add("--plot", type=new_plot, metavar="PNG", help="the plot of the results")


def has_default_settings(parser: argparse.ArgumentParser, args: argparse.Namespace) -> bool:
    """Return whether only output arguments, or none, were given."""
    return all(
        value == parser.get_default(key) for key, value in vars(args).items() if key not in OUTPUTS
    )


def choose_outputs(args: argparse.Namespace, name: str, folder: Path | None) -> None:
    """Set ``args.json`` and ``args.plot`` to the files to write, None for a file not to write.

    Parameters
    ----------
    name : str
        Of the files, without their endings.
    folder : Path or None
        Where to write when no output argument was given; made when it is missing.
    """
    unasked = args.json is None and args.plot is None
    target = args.output or (folder if unasked else None)
    if target is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    args.json = args.json or target / f"{name}.json"
    if has_matplotlib():
        args.plot = args.plot or target / f"{name}.png"


def parse_measurement(
    parser: argparse.ArgumentParser, argv: list[str] | None, name: str
) -> argparse.Namespace:
    """Return the arguments of a measuring program, with the files that it will write.

    Only a run with the default settings writes into the results of this machine unasked:
    otherwise a quick trial with a few rounds would replace the published results.
    """
    args = parser.parse_args(argv)
    choose_outputs(args, name, results_folder() if has_default_settings(parser, args) else None)
    return args


def processor() -> str:
    """Return the processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Describe this machine, much as pytest-benchmark does, and the packages on it."""
    versions = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": {"brand_raw": processor(), "count": CORES, **microarchitecture()},
        "system": platform.system(),
        "python_version": platform.python_version(),
        "packages": versions,
        "blas": blas_kernels(),
    }


def blas_kernels() -> list[str]:
    """Return the libraries that compute matrix products, with the kernels that they chose."""
    return [
        " ".join(
            str(info[key]) for key in ("internal_api", "version", "architecture") if key in info
        )
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]


def microarchitecture() -> dict[str, str]:
    """Return the name by which LLVM knows the processor, and its widest vector instructions."""
    features = binding.get_host_cpu_features()
    widest = next((name for flag, name in INSTRUCTIONS if features.get(flag)), "")
    # LLVM says znver3 where everybody else says Zen 3.
    name = re.sub(r"^znver(\d)$", r"Zen \1", binding.get_host_cpu_name())
    return {"microarchitecture": name, "instructions": widest}


def describe(machine: dict[str, Any]) -> str:
    """Return the processor, its instructions, its cores and the Python version."""
    cpu = machine.get("cpu", {})
    name = cpu.get("brand_raw", machine.get("processor", "unknown processor"))
    if cpu.get("microarchitecture"):
        name += f" ({cpu['microarchitecture']})"
    if cpu.get("instructions"):
        name += f" with {cpu['instructions']}"
    return f"{name}, {cpu.get('count', '?')} cores, Python {machine.get('python_version', '?')}"


def short_name(machine: dict[str, Any]) -> str:
    """Return the processor's name without trade marks, such as AMD EPYC Zen 3."""
    cpu = machine["cpu"]
    brand = re.sub(r"\(\w+\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", cpu["brand_raw"])
    kind = cpu.get("microarchitecture") or cpu.get("instructions", "")
    return " ".join([*brand.split(), kind]).strip()


def slug(machine: dict[str, Any]) -> str:
    """Return the name of a machine's folder of results, such as amd-epyc-zen3-2-cores."""
    name = re.sub(r"(?<=Zen) |(?<=AVX)-", "", short_name(machine))
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {machine['cpu']['count']} cores".lower()).strip("-")


def results_folder() -> Path:
    """Return where the published results of this machine are."""
    return RESULTS / slug(machine())


def write_json(path: Path, args: argparse.Namespace, **results: Any) -> None:
    """Write the machine, the settings and the results."""
    settings = {"threads": args.threads, "rounds": args.rounds, "seconds": args.seconds}
    write_document(path, {"machine": machine(), "settings": settings, **results})


def write_document(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def duration(seconds: float) -> str:
    """Return a time with three digits and a unit that a reader can compare."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} us"


def import_pyplot():
    """Return matplotlib's pyplot, set up to draw into files only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def use_plain_log_ticks(axis) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
