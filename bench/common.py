"""What the benchmark programs share: arguments, machine description, JSON files and plots."""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
from datetime import datetime, timezone
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
CPUINFO = Path("/proc/cpuinfo")  # on Linux
PACKAGES = (
    *("numpy", "scipy", "numba", "llvmlite", "torch", "jax", "jaxlib"),
    *("onnx", "onnxruntime", "openvino"),
)
VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}
# Of AMD's processors, the generation by family and ranges of model numbers, after Linux,
# arch/x86/kernel/cpu/amd.c. Virtual machines often call all of them "AMD EPYC".
AMD_GENERATIONS: dict[int, tuple[tuple[str, tuple[tuple[int, int], ...]], ...]] = {
    23: (
        ("Zen", ((0x00, 0x2F), (0x50, 0x5F))),
        ("Zen 2", ((0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF))),
    ),
    25: (("Zen 3", ((0x00, 0x0F), (0x20, 0x5F))), ("Zen 4", ((0x10, 0x1F), (0x60, 0xAF)))),
    26: (
        ("Zen 5", ((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F))),
        ("Zen 6", ((0x50, 0x5F), (0x80, 0xAF), (0xC0, 0xCF))),
    ),
}
# The flags by which Linux and LLVM name arithmetic on bfloat16 vectors.
BFLOAT16_FLAGS = {"avx512_bf16", "avx512bf16", "bf16"}
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


def make_parser(
    doc: str, rounds: int, seconds: float | None, has_plot: bool = True
) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all measuring programs take, with these defaults.

    ``seconds`` is None for a program whose rounds are of one call.
    """
    parser = argparse.ArgumentParser(
        description=doc.partition("\n")[0],
        epilog="Without arguments, the results of this machine in bench/results are replaced. A "
        "run with other settings only prints its results, unless an output argument says where to "
        "write them.",
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
    if seconds is not None:
        add(
            "--seconds",
            type=positive_seconds,
            default=seconds,
            metavar="S",
            help=f"approximate time of one round of one function (default: {seconds})",
        )
    add_output_arguments(parser, has_plot)
    return parser


def add_output_arguments(parser: argparse.ArgumentParser, has_plot: bool = True) -> None:
    add = parser.add_argument
    files = "the JSON file and the plot" if has_plot else "the JSON file"
    add("--output", type=output_folder, metavar="DIR", help=f"folder of {files}")
    add("--json", type=new_file, metavar="FILE", help="the JSON file of the results")
    if has_plot:
        add("--plot", type=new_plot, metavar="PNG", help="the plot of the results")
    else:
        parser.set_defaults(plot=None)


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


def read_cpuinfo(path: Path | None = None) -> dict[str, str]:
    """Return what Linux says of the first processor; empty on other systems."""
    try:
        text = (path or CPUINFO).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first, _, _ = text.partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def processor(cpuinfo: dict[str, str]) -> str:
    """Return the processor's name, with its vendor's."""
    name = cpuinfo.get("model name") or platform.processor() or platform.machine()
    vendor = VENDORS.get(cpuinfo.get("vendor_id", ""), "")
    return name if vendor.lower() in name.lower() else f"{vendor} {name}"


def machine() -> dict[str, Any]:
    """Describe this machine, much as pytest-benchmark does, and the packages on it."""
    versions = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": cpu(),
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


def cpu() -> dict[str, Any]:
    """Describe the processor: what the name of its folder of results is made from."""
    cpuinfo = read_cpuinfo()
    features = {name for name, present in binding.get_host_cpu_features().items() if present}
    # Intel's and AMD's flags; ARM's features.
    flags = set(f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".split())
    description: dict[str, Any] = {
        "brand_raw": processor(cpuinfo),
        "count": CORES,
        "microarchitecture": microarchitecture(cpuinfo),
        # LLVM's features are those that the system lets programs use.
        "instructions": next((name for flag, name in INSTRUCTIONS if flag in features), ""),
        "bfloat16": bool(BFLOAT16_FLAGS & (features | flags)),
    }
    for key, name in (("family", "cpu family"), ("model", "model")):
        if cpuinfo.get(name, "").isdigit():
            description[key] = int(cpuinfo[name])
    return description


def microarchitecture(cpuinfo: dict[str, str]) -> str:
    """Return the processor's generation, such as Zen 4 or sapphirerapids.

    Where neither the family and the model nor LLVM name it, it is such as "family 6 model 143".
    """
    family, model = cpuinfo.get("cpu family", ""), cpuinfo.get("model", "")
    known = family.isdigit() and model.isdigit()
    if known and cpuinfo.get("vendor_id") == "AuthenticAMD":
        for name, ranges in AMD_GENERATIONS.get(int(family), ()):
            if any(first <= int(model) <= last for first, last in ranges):
                return name
    name = binding.get_host_cpu_name()
    if name and name not in ("generic", "x86-64"):
        # LLVM says znver3 where everybody else says Zen 3.
        return re.sub(r"^znver(\d)$", r"Zen \1", name)
    return f"family {family} model {model}" if known else ""


def describe(machine: dict[str, Any]) -> str:
    """Return the processor, its instructions, its cores and the Python version."""
    cpu = machine.get("cpu", {})
    name = cpu.get("brand_raw", machine.get("processor", "unknown processor"))
    if cpu.get("microarchitecture"):
        name += f" ({cpu['microarchitecture']})"
    if cpu.get("instructions"):
        name += f" with {cpu['instructions']}"
        name += " and bfloat16" if cpu.get("bfloat16") else ""
    return f"{name}, {cpu.get('count', '?')} cores, Python {machine.get('python_version', '?')}"


def short_name(machine: dict[str, Any]) -> str:
    """Return the processor's name without trade marks, such as AMD EPYC Zen 3."""
    cpu = machine["cpu"]
    brand = re.sub(r"\(\w+\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", cpu["brand_raw"])
    kind = cpu.get("microarchitecture") or cpu.get("instructions", "")
    return " ".join([*brand.split(), kind]).strip()


def slug(machine: dict[str, Any]) -> str:
    """Return the name of a machine's folder of results, such as amd-epyc-zen4-avx512-bf16-2-cores.

    Machines that differ in the generation of the processor, its widest vector instructions,
    bfloat16 or the number of cores have different names.
    """
    cpu = machine["cpu"]
    parts = [short_name(machine)]
    if cpu.get("instructions", "") not in parts[0]:
        parts.append(cpu["instructions"])
    if cpu.get("bfloat16"):
        parts.append("bf16")
    name = re.sub(r"(?<=Zen) |(?<=AVX)-", "", " ".join(parts))
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {cpu['count']} cores".lower()).strip("-")


def results_folder() -> Path:
    """Return where the published results of this machine are."""
    return RESULTS / slug(machine())


def git(*arguments: str) -> str:
    """Return what git prints about this checkout, "" where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def provenance() -> dict[str, str]:
    """Return the date, and the commit of the code; "-dirty" says that code was changed."""
    commit = git("rev-parse", "--short=12", "HEAD")
    if commit and git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py"):
        commit += "-dirty"
    date = datetime.now(timezone.utc).isoformat(timespec="minutes")
    return {"date": date, "commit": commit}


def write_json(path: Path, args: argparse.Namespace, **results: Any) -> None:
    """Write the machine, the date and the commit, the settings and the results."""
    names = ("threads", "rounds", "seconds")
    settings = {name: getattr(args, name) for name in names if hasattr(args, name)}
    document = {"machine": machine(), **provenance(), "settings": settings, **results}
    write_document(path, document)


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
