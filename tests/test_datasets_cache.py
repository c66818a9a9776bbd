"""The cache of decoded data sets: never stale, damaged or half-written, and never required.

./run.sh pytest tests/test_datasets_cache.py --long    # 100 kills instead of 5
"""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.command_line import write_csv
from tests.unprivileged import drop_rights
from training.datasets import cache, load_images
from training.datasets.cache import cached
from training.datasets.dataset import Dataset
from training.input_format import InputFormat
from training.input_stats import InputStats

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Use an empty cache, which keeps data sets however quickly they are read."""
    monkeypatch.setenv("CNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MIN_SECONDS", 0)
    return tmp_path / "cache"


def dataset(n=5, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 4, 5)).astype(dtype)
    names = ("a", "\xe9", "c")
    return Dataset(images, rng.integers(0, 3, n), names, "x/y", "crop", ("one", "\udce9 two"))


def never():
    raise AssertionError("is built again")


def assert_equal(got, want):
    for name in ("images", "labels"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert getattr(got, name).dtype == getattr(want, name).dtype
    for name in ("class_names", "source", "resize", "notes"):
        assert getattr(got, name) == getattr(want, name)


def entries(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_data_set_is_built_once(directory, dtype):
    want = dataset(dtype=dtype)
    assert_equal(cached("id", "state", lambda: want), want)
    again = cached("id", "state", never)
    assert_equal(again, want)
    assert len(entries(directory)) == 1
    assert type(again.images) is np.ndarray
    again.images[:] = 0  # in memory only
    assert_equal(cached("id", "state", never), want)


def test_images_that_are_not_contiguous_are_kept(directory):
    want = dataset()
    turned = Dataset(want.images.swapaxes(2, 3), want.labels, want.class_names, "x")
    cached("id", 0, lambda: turned)
    assert_equal(cached("id", 0, never), turned)


def test_another_state_replaces_the_entry_and_another_identity_does_not(directory):
    first, second = dataset(seed=1), dataset(seed=2)
    cached("id", 1, lambda: first)
    cached("other", 1, lambda: second)
    assert_equal(cached("id", 1, never), first)
    assert_equal(cached("id", 2, lambda: second), second)
    assert_equal(cached("id", 2, never), second)
    assert len(entries(directory)) == 2
    assert_equal(cached("id", 1, lambda: first), first)


def test_every_damaged_byte_is_found(directory):
    want = dataset(3)
    cached("id", 0, lambda: want)
    (path,) = directory.glob("*.images")
    content = path.read_bytes()
    for place in [*range(0, cache.PREFIX.size), *range(cache.PREFIX.size, len(content), 37)]:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ 1 << RNG.integers(8)]) + content[place + 1 :]
        )
        built = []
        assert_equal(cached("id", 0, lambda built=built: built.append(1) or want), want)
        assert built, f"byte {place} was not checked"
        assert path.read_bytes() == content


def test_every_other_length_is_found(directory):
    want = dataset(3)
    cached("id", 0, lambda: want)
    (path,) = directory.glob("*.images")
    content = path.read_bytes()
    for other in (*(content[:n] for n in range(0, len(content), 97)), content + b"x", b"\0" * 9999):
        path.write_bytes(other)
        built = []
        cached("id", 0, lambda built=built: built.append(1) or want)
        assert built


def test_what_is_read_quickly_or_has_parts_is_not_kept(directory, monkeypatch):
    train = Dataset(**{**dataset().__dict__, "test": dataset()})
    assert cached("id", 0, lambda: train) is train
    monkeypatch.setattr(cache, "MIN_SECONDS", 60)
    cached("id", 0, dataset)
    assert not directory.exists()


def test_the_least_used_entries_are_removed(directory, monkeypatch):
    paths: list[Path] = []
    for index in range(4):
        cached(index, 0, dataset)
        paths += set(directory.glob("*.images")) - set(paths)
        os.utime(paths[index], ns=(index, index))
    cached(0, 0, never)  # it is now the one that was used last
    size = paths[0].stat().st_size
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", 3 * size)
    cached(4, 0, dataset)
    assert [index for index, path in enumerate(paths) if path.exists()] == [0, 3]
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", size - 1)
    cached(5, 0, dataset)
    assert len(entries(directory)) == 1
    cached(5, 0, never)


def test_an_entry_may_be_removed_while_it_is_used(directory):
    want = dataset(1000)
    data = cached("id", 0, lambda: want)
    for path in directory.glob("*.images"):
        path.unlink()
    np.testing.assert_array_equal(data.images, want.images)


# -- where there can be no cache ------------------------------------------------------------------
def assert_not_kept(reason):
    want = dataset()
    got = cached("id", 0, lambda: want)
    np.testing.assert_array_equal(got.images, want.images)
    assert got.notes[:-1] == want.notes
    assert got.notes[-1].endswith(f"the images are not kept for the next start: {reason}")
    assert not list(cache.images_directory().glob("*.tmp"))


def test_a_directory_in_the_place_of_an_entry(directory):
    cached("id", 0, dataset)
    (path,) = directory.glob("*.images")
    path.unlink()
    path.mkdir()
    assert_not_kept("Is a directory")


def test_a_file_in_the_place_of_the_directory(directory):
    directory.write_text("")
    assert_not_kept("File exists")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has this device")
def test_a_full_disk(directory, monkeypatch):
    def make_full(suffix, dir):
        path = Path(dir) / f"full{suffix}"
        path.touch()
        return os.open("/dev/full", os.O_WRONLY), str(path)

    monkeypatch.setattr(cache.tempfile, "mkstemp", make_full)
    assert_not_kept("No space left on device")
    assert entries(directory) == []


def test_another_process_writes_for_too_long(directory, monkeypatch):
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.05)
    directory.mkdir()
    with FileLock(directory / ".lock"):
        assert_not_kept(f"The file lock '{directory / '.lock'}' could not be acquired.")


def test_an_unwritable_directory(directory, tmp_path):
    train = write_csv(tmp_path / "a.csv", np.zeros((4, 1, 2, 2), np.uint8), [0, 1, 0, 1])
    directory.mkdir()
    directory.chmod(0o500)
    code = (
        "from training.datasets import cache, load_images; cache.MIN_SECONDS = 0;"
        f"data = load_images({str(train)!r}); print(len(data.images), data.notes)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        preexec_fn=drop_rights,
    )  # fmt: skip
    directory.chmod(0o700)
    assert run.stdout.startswith("4 ("), run.stderr
    assert "Permission denied" in run.stdout


# -- several processes, and kills -----------------------------------------------------------------
WRITER = """
import sys
import numpy as np
from training.datasets import cache
from training.datasets.dataset import Dataset
cache.MIN_SECONDS = 0
images = np.full((3000, 3, 32, 32), 7, np.uint8)
print("ready", flush=True)
for turn in range(int(sys.argv[1])):
    cache.cached("id", turn, lambda: Dataset(images, np.arange(3000) % 2, ("a", "b"), "x"))
"""


def start_writer(turns):
    command = [sys.executable, "-c", WRITER, str(turns)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_kill_at_any_moment_leaves_complete_entries(directory, long_mode):
    rng, n_kills, left = random.Random(0), 0, 0
    # On a busy machine, many kills come between two writes.
    while n_kills < (100 if long_mode else 5) or (not left and n_kills < 300):
        n_kills += 1
        with start_writer(10**6) as process:
            time.sleep(rng.uniform(0.05, 0.15))
            process.kill()
        left += any(directory.glob("*.tmp"))
        for path in directory.glob("*.images"):
            with open(path, "rb") as file:
                header = cache._read_header(file)
                assert cache._checksum(file) == header["checksum"]
        want = dataset()
        assert_equal(cached("another", 0, lambda want=want: want), want)
        assert not list(directory.glob("*.tmp"))
    assert left, "no kill hit a write"


def test_leftovers_are_removed_at_the_next_start_but_not_from_a_process_that_writes(directory):
    cached("id", 0, dataset)
    (directory / "left.tmp").touch()
    with FileLock(directory / ".lock"):
        cached("id", 0, never)
        assert (directory / "left.tmp").exists()
    cached("id", 0, never)
    assert not (directory / "left.tmp").exists()


def test_two_processes_at_once(directory):
    with start_writer(30) as one, start_writer(30) as other:
        assert one.wait(60) == other.wait(60) == 0
    data = cached("id", 29, never)
    assert (data.images == 7).all()
    assert len(entries(directory)) == 1


def test_threads_at_once(directory):
    want = dataset(100)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cached("id", 0, lambda: want)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_equal(result, want)


# -- the readers ----------------------------------------------------------------------------------
@pytest.fixture
def pictures(tmp_path):
    """Return a folder of two classes."""
    for name, level in (("cat/a.png", 10), ("cat/b.png", 20), ("dog/a.png", 30)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), level).save(path)
    return tmp_path / "pictures"


def count_decodings(monkeypatch):
    from training.datasets import folder

    calls = []
    original = folder.decode_pictures
    monkeypatch.setattr(folder, "decode_pictures", lambda *args: calls.append(1) or original(*args))
    return calls


def test_a_folder_is_decoded_once(pictures, monkeypatch):
    calls = count_decodings(monkeypatch)
    first, second = load_images(pictures), load_images(pictures)
    assert calls == [1]
    assert_equal(second, first)
    assert second.notes
    monkeypatch.chdir(pictures)
    assert load_images(".").source == "."
    assert calls == [1]


def test_every_change_of_a_folder_is_noticed(pictures, monkeypatch):
    calls = count_decodings(monkeypatch)
    load_images(pictures)

    def changes():
        for options in ({"resize": "crop"}, {"color": "rgb"}, {"image_size": 3}):
            yield load_images(pictures, **options)
        Image.new("L", (4, 4), 40).save(pictures / "dog" / "b.png")
        yield load_images(pictures)
        (pictures / "dog" / "b.png").rename(pictures / "cat" / "c.png")
        yield load_images(pictures)
        status = (pictures / "cat" / "c.png").stat()
        Image.new("L", (4, 4), 50).save(pictures / "cat" / "c.png")  # with the same size and time
        os.utime(pictures / "cat" / "c.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        yield load_images(pictures)
        (pictures / "cat" / "c.png").unlink()
        yield load_images(pictures)
        (pictures / "cat").rename(pictures / "ape")
        yield load_images(pictures)

    for number, data in enumerate(changes(), 2):
        assert len(calls) == number
        like = data.input_format
    assert like.class_names == ("ape", "dog")
    for model in (like, like._replace(class_names=("dog", "ape"))):
        number += 1
        load_images(pictures, like=model)
        assert len(calls) == number


def test_a_csv_file_is_parsed_once(tmp_path, monkeypatch):
    from training.datasets import load

    path = write_csv(tmp_path / "a.csv", np.zeros((4, 1, 2, 2), np.uint8), [0, 1, 0, 1])
    first = load_images(path)
    monkeypatch.setattr(load, "read_csv", lambda *args: never())
    assert_equal(load_images(path), first)
    status = path.stat()
    path.write_text(path.read_text().replace("0,0,0,0,0", "0,0,9,0,0"))  # of the same length
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(AssertionError, match="is built again"):
        load_images(path)
    monkeypatch.undo()
    assert load_images(path).images.max() == 9


def test_models_and_scales_share_the_images_of_a_csv_file(tmp_path, monkeypatch):
    from training.datasets import load

    images = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)
    path = write_csv(tmp_path / "a.csv", images, [0, 1, 0, 1])
    first = InputFormat((1, 2, 2), ("0", "1"), stats=InputStats.of(images * 10.0))
    load_images(path, like=first)
    monkeypatch.setattr(load, "read_csv", lambda *args: never())
    second = first._replace(stats=InputStats.of(images / 15))
    scaled = load_images(path, like=second, scale=(0, 15))
    np.testing.assert_allclose(scaled.images, images / 15, atol=1e-6)
    unknown = InputFormat(*first[:3])
    assert_equal(load_images(path, like=second, scale="none"), load_images(path, like=unknown))
