"""Compare memory, open files and speed at the start and the end of a long training.

    python -m bench.soak --minutes 30

The training saves its state after every epoch. Linux only: the program reads /proc.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--arch", default="tiny")
    parser.add_argument("--dataset", default="mnist")
    return parser.parse_args()


def watch(process: subprocess.Popen, seconds: float) -> list[tuple[int, int, float]]:
    """Return resident KB, open files and images/s at the end of each epoch."""
    samples, end = [], time.monotonic() + seconds
    for line in process.stdout:
        found = re.match(r"epoch .*?([\d,]+) images/s", line)
        if found:
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            speed = float(found[1].replace(",", ""))
            samples.append((resident_kb(process.pid), files, speed))
        if time.monotonic() > end:
            break
    return samples


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", str(ROOT / "run.py"), "--dataset", args.dataset]
        command += ["--epochs", "1000000", "--arch", args.arch, "--threads", args.threads]
        command += ["--schedule", "constant", "--learning_rate", "1e-4", "--no_plots"]
        command += ["--to_path", f"{folder}/m.json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        samples = watch(process, 60 * args.minutes)
        process.terminate()
        process.stdout.close()
        process.wait()
    tenth = max(1, len(samples) // 10)
    print(f"{len(samples):,} epochs with a save after each, {args.minutes:g} minutes")
    print("medians of the second tenth and of the last:")
    for column, label in enumerate(("resident KB", "open files", "images/s")):
        before, after = (
            statistics.median(sample[column] for sample in part)
            for part in (samples[tenth : 2 * tenth], samples[-tenth:])
        )
        print(f"{label:<12} {before:>10,.0f} {after:>10,.0f}  {after / before - 1:+.2%}")


if __name__ == "__main__":
    main()
