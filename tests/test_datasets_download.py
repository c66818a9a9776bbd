"""Where a named data set is looked for, and the download, against a server on this machine."""

import gzip
import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from training.datasets import DATASET_NAMES, DownloadError, download, load_dataset, named
from training.datasets.catalog import DATASETS, Part
from training.datasets.download import Archive
from training.errors import InputError

SHAPE = (20, 1, 2, 2)
LETTERS_SHAPE = (26, 1, 2, 3)
CIFAR_SHAPE = (10, 3, 32, 32)
FILES = tuple(DATASETS["mnist"].checksums)
PUBLIC = {name: dataset.sources for name, dataset in DATASETS.items()}


def idx(array: np.ndarray) -> bytes:
    dimensions = np.array([0x800 + array.ndim, *array.shape], ">u4")
    return dimensions.tobytes() + array.tobytes()


def contents(pixel: int) -> list[bytes]:
    """Make the four files, of images whose pixels all are `pixel`."""
    images = np.full((SHAPE[0], *SHAPE[2:]), pixel, np.uint8)
    labels = np.arange(SHAPE[0], dtype=np.uint8) % 10
    return [gzip.compress(idx(array), mtime=0) for array in (images, labels, images, labels)]


def place(folder: Path, pixel: int, unpacked: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(FILES, contents(pixel), strict=True):
        if unpacked:
            (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def emnist_files(name: str, first_label: int) -> dict[str, bytes]:
    """Make the four files: image i has the pixels i, i + 1, ..., of the columns in a row."""
    n = len(DATASETS[name].class_names)
    columns = (np.arange(n)[:, np.newaxis] + np.arange(6)).reshape(n, 3, 2).astype(np.uint8)
    labels = (np.arange(n) + first_label).astype(np.uint8)
    return {
        file: gzip.compress(idx(labels if "labels" in file else columns), mtime=0)
        for file in DATASETS[name].checksums
    }


def cifar_files() -> dict[str, bytes]:
    """Make the six files: in file f, the pixels of the channels are f, f + 1 and f + 2."""
    return {
        file: b"".join(
            bytes([label]) + b"".join(bytes([f + channel]) * 1024 for channel in range(3))
            for label in (range(2 * f, 2 * f + 2) if "data" in file else range(10))
        )
        for f, file in enumerate(DATASETS["cifar10"].checksums)
    }


FILES_OF = {
    **{
        name: dict(zip(FILES, contents(7), strict=True))
        for name in DATASETS
        if "emnist" not in name
    },
    "emnist-letters": emnist_files("emnist-letters", first_label=1),
    "emnist-balanced": emnist_files("emnist-balanced", first_label=0),
    "cifar10": cifar_files(),
}
SHAPES = {"emnist-letters": LETTERS_SHAPE, "emnist-balanced": (47, 1, 2, 3), "cifar10": CIFAR_SHAPE}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def set_sources(monkeypatch, name: str, *sources: str | Archive) -> None:
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(sources=sources))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, small data sets whose files are those above, and no way out."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(download, "cache_directory", lambda: folder)
    monkeypatch.setattr(named, "cache_directory", lambda: folder)
    for name, dataset in list(DATASETS.items()):
        train, test = (
            Part(
                SHAPES.get(name, SHAPE),
                {file: sha256(FILES_OF[name][file]) for file in part.checksums},
            )
            for part in (dataset.train, dataset.test)
        )
        small = dataset._replace(train=train, test=test, sources=())
        monkeypatch.setitem(DATASETS, name, small)
    monkeypatch.delenv("CNN_DATA_DIR", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return folder


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"and no more")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/served; its `requests` are the paths asked for."""
    (tmp_path / "served").mkdir()
    handler = partial(Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.requests = []
        http.url = f"http://127.0.0.1:{http.server_port}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def pixels(data) -> set[int]:
    return {int(pixel) for part in data for pixel in np.unique(part.images)}


def test_downloads_once(cache, server, tmp_path, monkeypatch):
    place(tmp_path / "served", 7)
    set_sources(monkeypatch, "kmnist", server.url)
    for _ in range(2):
        train, test = load_dataset("kmnist")
        assert train.images.shape == test.images.shape == SHAPE
        assert train.source == str(cache / "kmnist" / FILES[0])
    assert server.requests == [f"/{name}" for name in FILES]
    assert sorted(path.name for path in (cache / "kmnist").iterdir()) == sorted(FILES)


def test_second_mirror(server, tmp_path, monkeypatch):
    place(tmp_path / "served" / "good", 7)
    mirrors = (server.url + "gone/", server.url + "good/")
    set_sources(monkeypatch, "mnist", *mirrors)
    assert pixels(load_dataset("mnist")) == {7}
    assert server.requests[:2] == [f"/{folder}/{FILES[0]}" for folder in ("gone", "good")]
    assert len(server.requests) == 5


def test_mirror_that_lacks_one_file(server, tmp_path, monkeypatch):
    (place(tmp_path / "served" / "a", 7) / FILES[2]).unlink()
    place(tmp_path / "served" / "b", 7)
    set_sources(monkeypatch, "mnist", server.url + "a/", server.url + "b/")
    assert pixels(load_dataset("mnist")) == {7}
    assert server.requests[-2:] == [f"/b/{name}" for name in FILES[2:]]


def test_rejects_corrupted_file(cache, server, tmp_path, monkeypatch):
    place(tmp_path / "served", 8)
    set_sources(monkeypatch, "mnist", server.url)
    with pytest.raises(DownloadError, match=r"(?s)127\.0\.0\.1.*hash.*by hand.*CNN_DATA_DIR"):
        load_dataset("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_corrupted_file_then_good_mirror(server, tmp_path, monkeypatch):
    place(tmp_path / "served" / "bad", 8)
    place(tmp_path / "served" / "good", 7)
    mirrors = (server.url + "bad/", server.url + "good/")
    set_sources(monkeypatch, "mnist", *mirrors)
    assert pixels(load_dataset("mnist")) == {7}


def test_interrupted_transfer(cache, server, monkeypatch):
    set_sources(monkeypatch, "mnist", server.url + "cut/")
    with pytest.raises(DownloadError, match="cut/: "):
        load_dataset("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (0.1, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        set_sources(monkeypatch, "mnist", url)
        with pytest.raises(DownloadError, match="timed out"):
            load_dataset("mnist")


def test_no_server(cache, server, monkeypatch):
    server.server_close()
    mirrors = (server.url + "a/", server.url + "b/")
    set_sources(monkeypatch, "fashion-mnist", *mirrors)
    with pytest.raises(DownloadError) as raised:
        load_dataset("fashion-mnist")
    message = str(raised.value)
    for part in (*mirrors, *FILES, str(cache / "fashion-mnist"), "refused"):
        assert part in message
    assert server.requests == []


def test_cache_that_cannot_be_written_to(cache, server, tmp_path, monkeypatch):
    place(tmp_path / "served", 7)
    set_sources(monkeypatch, "mnist", server.url)
    cache.write_text("a file where the directory should be")
    with pytest.raises(DownloadError, match=r"(?s)cache.*by hand.*--data_dir or CNN_DATA_DIR"):
        load_dataset("mnist")


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("where", ["data_dir", "CNN_DATA_DIR", "cache"])
def test_found_on_disk(cache, tmp_path, monkeypatch, where, flat, unpacked):
    directory = cache if where == "cache" else tmp_path / "data"
    place(directory if flat else directory / "kmnist", 9, unpacked)
    if where == "CNN_DATA_DIR":
        monkeypatch.setenv("CNN_DATA_DIR", str(directory))
    data = load_dataset("kmnist", data_dir=directory if where == "data_dir" else None)
    assert pixels(data) == {9}


def test_order_of_the_directories(cache, tmp_path, monkeypatch):
    place(cache / "mnist", 3)
    assert pixels(load_dataset("mnist")) == {3}
    monkeypatch.setenv("CNN_DATA_DIR", str(place(tmp_path / "environment", 2)))
    assert pixels(load_dataset("mnist")) == {2}
    data_dir = place(tmp_path / "argument", 1)
    assert pixels(load_dataset("mnist", data_dir)) == {1}
    place(data_dir / "mnist", 0)
    assert pixels(load_dataset("mnist", data_dir)) == {0}


def test_folder_of_another_data_set_is_ignored(cache, tmp_path):
    mnist = place(tmp_path / "mnist", 1)
    place(cache / "kmnist", 2)
    assert pixels(load_dataset("kmnist", data_dir=mnist)) == {2}
    assert pixels(load_dataset("mnist", data_dir=mnist)) == {1}


@pytest.mark.parametrize("value", ["", "missing"])
def test_useless_environment_variable_is_ignored(cache, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    place(tmp_path, 1)
    place(cache, 2)
    monkeypatch.setenv("CNN_DATA_DIR", value)
    assert pixels(load_dataset("mnist")) == {2}


def test_incomplete_folder_is_ignored(cache, tmp_path):
    (place(tmp_path / "data", 1) / FILES[3]).unlink()
    place(cache, 2)
    assert pixels(load_dataset("mnist", data_dir=tmp_path / "data")) == {2}


@pytest.mark.parametrize("part", ["train", "test"])
def test_rejects_file_of_another_shape(tmp_path, monkeypatch, part):
    folder = place(tmp_path / "data", 1)
    dataset = DATASETS["mnist"]
    larger = getattr(dataset, part)._replace(shape=(30, 1, 2, 2))
    monkeypatch.setitem(DATASETS, "mnist", dataset._replace(**{part: larger}))
    file = folder / FILES[0 if part == "train" else 2]
    with pytest.raises(InputError, match=rf"^{file}: .*\(20, 1, 2, 2\).*\(30, .*move the file"):
        load_dataset("mnist", data_dir=folder)


def test_rejects_missing_data_dir(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such directory: give one"):
        load_dataset("mnist", data_dir=tmp_path / "nowhere")


def test_rejects_unknown_name():
    with pytest.raises(InputError, match=r"'minst': choose mnist, fashion-mnist, .*, mnist-5k$"):
        load_dataset("minst")


def test_dataset_names():
    assert (
        *("mnist", "fashion-mnist", "kmnist", "emnist-letters", "emnist-balanced", "cifar10"),
        "mnist-5k",
    ) == DATASET_NAMES


@pytest.mark.parametrize("name", PUBLIC)
def test_sources_are_encrypted(name):
    for source in PUBLIC[name]:
        assert (source.url if isinstance(source, Archive) else source).startswith("https://")
        assert isinstance(source, Archive) or source.endswith("/")
    assert PUBLIC[name]


# -- archives -------------------------------------------------------------------------------------
def make_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def make_tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return file.getvalue()


def in_folder(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def serve(server, tmp_path: Path, name: str, data: bytes, folder: str) -> Archive:
    (tmp_path / "served" / name).write_bytes(data)
    return Archive(server.url + name, sha256(data), folder)


def assert_is_letters(data) -> None:
    for part in data:
        assert part.images.shape == LETTERS_SHAPE
        assert part.images.flags.c_contiguous
        np.testing.assert_array_equal(part.images[25, 0], [[25, 27, 29], [26, 28, 30]])
        np.testing.assert_array_equal(part.labels, np.arange(26))
        assert part.class_names[25] == "Z"


def test_emnist_letters(cache, server, tmp_path, monkeypatch):
    files = FILES_OF["emnist-letters"]
    others = {"gzip/emnist-mnist-mapping.txt": b"0 48", "../outside": b"x", "/tmp/outside": b"x"}
    archive = make_zip(others | in_folder("gzip", files))
    source = serve(server, tmp_path, "gzip.zip", archive, "gzip")
    set_sources(monkeypatch, "emnist-letters", server.url + "gone/", source)
    for _ in range(2):
        assert_is_letters(load_dataset("emnist-letters"))
    assert server.requests == [f"/gone/{next(iter(files))}", "/gzip.zip"]
    assert sorted(path.name for path in (cache / "emnist-letters").iterdir()) == sorted(files)


def test_emnist_letters_file_by_file(server, tmp_path, monkeypatch):
    files = FILES_OF["emnist-letters"]
    for name, data in files.items():
        (tmp_path / "served" / name).write_bytes(data)
    set_sources(monkeypatch, "emnist-letters", server.url)
    assert_is_letters(load_dataset("emnist-letters"))
    assert server.requests == [f"/{name}" for name in files]


def test_emnist_balanced(tmp_path):
    for name, data in FILES_OF["emnist-balanced"].items():
        (tmp_path / name).write_bytes(data)
    train, _ = load_dataset("emnist-balanced", data_dir=tmp_path)
    assert len(train.class_names) == len(set(train.class_names)) == 47
    assert train.class_names[36:38] == ("a", "b")  # as in emnist-balanced-mapping.txt: 36 97, 37 98
    assert train.class_names[46] == "t"  # 46 116
    np.testing.assert_array_equal(train.labels, np.arange(47))
    np.testing.assert_array_equal(train.images[1, 0], [[1, 3, 5], [2, 4, 6]])


def assert_is_cifar10(data) -> None:
    train, test = data
    assert train.images.shape == test.images.shape == CIFAR_SHAPE
    assert train.images.dtype == np.uint8
    np.testing.assert_array_equal(train.labels, np.arange(10))
    np.testing.assert_array_equal(train.images[9, :, 31, 31], [4, 5, 6])
    np.testing.assert_array_equal(test.images[0, :, 0, 0], [5, 6, 7])
    assert train.class_names[3] == "cat"


def test_cifar10(cache, server, tmp_path, monkeypatch):
    files = FILES_OF["cifar10"]
    others = {"../../outside": b"x", "/tmp/outside": b"x", "cifar-10-batches-bin/readme": b"x"}
    archive = make_tar(others | in_folder("cifar-10-batches-bin", files))
    source = serve(server, tmp_path, "cifar.tar.gz", archive, "cifar-10-batches-bin")
    set_sources(monkeypatch, "cifar10", source)
    for _ in range(2):
        assert_is_cifar10(load_dataset("cifar10"))
    assert server.requests == ["/cifar.tar.gz"]
    assert sorted(path.name for path in (cache / "cifar10").iterdir()) == sorted(files)


def test_archive_that_was_unpacked_by_hand(tmp_path, monkeypatch):
    set_sources(monkeypatch, "cifar10", Archive("https://x.org/a", "", "cifar-10-batches-bin"))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, data in FILES_OF["cifar10"].items():
        (folder / name).write_bytes(data)
    assert_is_cifar10(load_dataset("cifar10", data_dir=tmp_path))


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("folder/test_batch.bin")
    info.type, info.linkname = kind, "folder/data_batch_1.bin"
    return info


BATCHES = in_folder("folder", FILES_OF["cifar10"])


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        pytest.param(make_tar(dict(list(BATCHES.items())[:-1])), "lacks.*test_batch", id="missing"),
        pytest.param(make_tar(BATCHES | {"folder/test_batch.bin": b"x"}), "hash", id="other bytes"),
        pytest.param(
            make_tar(BATCHES | {"folder/test_batch.bin": link(tarfile.SYMTYPE)}), "lacks", id="link"
        ),
        pytest.param(
            make_tar(BATCHES | {"folder/test_batch.bin": link(tarfile.LNKTYPE)}),
            "lacks",
            id="hard link",
        ),
        pytest.param(make_tar(BATCHES)[:-100], "ended", id="cut"),
        pytest.param(make_zip(BATCHES)[:-40], "gzip", id="cut zip"),
        pytest.param(b"<html>not found</html>", "gzip", id="no archive"),
        pytest.param(b"", "empty", id="empty"),
    ],
)
def test_rejects_archive(cache, server, tmp_path, monkeypatch, archive, reason):
    bad = serve(server, tmp_path, "bad", archive, "folder")
    set_sources(monkeypatch, "cifar10", bad)
    with pytest.raises(DownloadError, match=rf"(?s)bad: [^\n]*{reason}.*unpack the archive there"):
        load_dataset("cifar10")
    assert not (cache / "cifar10" / "test_batch.bin").exists()
    assert not list((cache / "cifar10").glob("*.part"))
    good = serve(server, tmp_path, "good", make_tar(BATCHES), "folder")
    set_sources(monkeypatch, "cifar10", bad, good)
    assert_is_cifar10(load_dataset("cifar10"))


def test_archive_with_another_checksum_is_not_opened(cache, server, tmp_path, monkeypatch):
    source = serve(server, tmp_path, "cifar", make_tar(BATCHES), "folder")
    set_sources(monkeypatch, "cifar10", source._replace(sha256="0" * 64))
    with pytest.raises(DownloadError, match="hash"):
        load_dataset("cifar10")
    assert list((cache / "cifar10").iterdir()) == []


@pytest.mark.parametrize("length", [0, 3072, 2 * 3073 + 1])
def test_rejects_cifar_file_of_another_length(tmp_path, length):
    for name, data in FILES_OF["cifar10"].items():
        (tmp_path / name).write_bytes(data)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(bytes(length))
    with pytest.raises(InputError, match=f"^{path}: has {length} bytes.*3073.*download"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(("name", "label"), [("emnist-letters", 0), ("mnist", 10)])
def test_rejects_label_of_no_class(tmp_path, name, label):
    for file, data in FILES_OF[name].items():
        (tmp_path / file).write_bytes(data)
    file = tmp_path / list(FILES_OF[name])[1]
    labels = np.full(DATASETS[name].train.shape[0], label, np.uint8)
    file.write_bytes(idx(labels))
    with pytest.raises(InputError, match=f"^{file}: has a label of none of the .* classes"):
        load_dataset(name, data_dir=tmp_path)
