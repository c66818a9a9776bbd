"""Where a named data set is looked for, and the download, against a server on this machine."""

import gzip
import hashlib
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from training.datasets import DATASET_NAMES, DownloadError, download, load_dataset, named
from training.errors import InputError

SHAPE = (20, 1, 2, 2)
PUBLIC_MIRRORS = [url for mirrors in download.MIRRORS.values() for url in mirrors]


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
    for name, data in zip(download.FILES, contents(pixel), strict=True):
        if unpacked:
            (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, data sets of 20 images with pixel 7, and no way out."""
    folder = tmp_path / "cache"
    checksums = tuple(hashlib.sha256(data).hexdigest() for data in contents(7))
    monkeypatch.setattr(download, "cache_directory", lambda: folder)
    monkeypatch.setattr(named, "cache_directory", lambda: folder)
    for name in download.MIRRORS:
        monkeypatch.setitem(download.MIRRORS, name, ())
        monkeypatch.setitem(download.CHECKSUMS, name, checksums)
    monkeypatch.setattr(named, "TRAIN_SHAPE", SHAPE)
    monkeypatch.setattr(named, "TEST_SHAPE", SHAPE)
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
    monkeypatch.setitem(download.MIRRORS, "kmnist", (server.url,))
    for _ in range(2):
        train, test = load_dataset("kmnist")
        assert train.images.shape == test.images.shape == SHAPE
        assert train.source == str(cache / "kmnist" / download.FILES[0])
    assert server.requests == [f"/{name}" for name in download.FILES]
    assert sorted(path.name for path in (cache / "kmnist").iterdir()) == sorted(download.FILES)


def test_second_mirror(server, tmp_path, monkeypatch):
    place(tmp_path / "served" / "good", 7)
    mirrors = (server.url + "gone/", server.url + "good/")
    monkeypatch.setitem(download.MIRRORS, "mnist", mirrors)
    assert pixels(load_dataset("mnist")) == {7}
    assert server.requests[:2] == [f"/{folder}/{download.FILES[0]}" for folder in ("gone", "good")]
    assert len(server.requests) == 5


def test_mirror_that_lacks_one_file(server, tmp_path, monkeypatch):
    (place(tmp_path / "served" / "a", 7) / download.FILES[2]).unlink()
    place(tmp_path / "served" / "b", 7)
    monkeypatch.setitem(download.MIRRORS, "mnist", (server.url + "a/", server.url + "b/"))
    assert pixels(load_dataset("mnist")) == {7}
    assert server.requests[-2:] == [f"/b/{name}" for name in download.FILES[2:]]


def test_rejects_corrupted_file(cache, server, tmp_path, monkeypatch):
    place(tmp_path / "served", 8)
    monkeypatch.setitem(download.MIRRORS, "mnist", (server.url,))
    with pytest.raises(DownloadError, match=r"(?s)127\.0\.0\.1.*hash.*by hand.*CNN_DATA_DIR"):
        load_dataset("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_corrupted_file_then_good_mirror(server, tmp_path, monkeypatch):
    place(tmp_path / "served" / "bad", 8)
    place(tmp_path / "served" / "good", 7)
    mirrors = (server.url + "bad/", server.url + "good/")
    monkeypatch.setitem(download.MIRRORS, "mnist", mirrors)
    assert pixels(load_dataset("mnist")) == {7}


def test_interrupted_transfer(cache, server, monkeypatch):
    monkeypatch.setitem(download.MIRRORS, "mnist", (server.url + "cut/",))
    with pytest.raises(DownloadError, match="cut/: "):
        load_dataset("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (0.1, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setitem(download.MIRRORS, "mnist", (url,))
        with pytest.raises(DownloadError, match="timed out"):
            load_dataset("mnist")


def test_no_server(cache, server, monkeypatch):
    server.server_close()
    mirrors = (server.url + "a/", server.url + "b/")
    monkeypatch.setitem(download.MIRRORS, "fashion-mnist", mirrors)
    with pytest.raises(DownloadError) as raised:
        load_dataset("fashion-mnist")
    message = str(raised.value)
    for part in (*mirrors, *download.FILES, str(cache / "fashion-mnist"), "refused"):
        assert part in message
    assert server.requests == []


def test_cache_that_cannot_be_written_to(cache, server, tmp_path, monkeypatch):
    place(tmp_path / "served", 7)
    monkeypatch.setitem(download.MIRRORS, "mnist", (server.url,))
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
    (place(tmp_path / "data", 1) / download.FILES[3]).unlink()
    place(cache, 2)
    assert pixels(load_dataset("mnist", data_dir=tmp_path / "data")) == {2}


@pytest.mark.parametrize("part", ["TRAIN_SHAPE", "TEST_SHAPE"])
def test_rejects_file_of_another_shape(tmp_path, monkeypatch, part):
    folder = place(tmp_path / "data", 1)
    monkeypatch.setattr(named, part, (30, 1, 2, 2))
    file = folder / download.FILES[0 if part == "TRAIN_SHAPE" else 2]
    with pytest.raises(InputError, match=rf"^{file}: .*\(20, 1, 2, 2\).*\(30, .*move the file"):
        load_dataset("mnist", data_dir=folder)


def test_rejects_missing_data_dir(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such directory: give one"):
        load_dataset("mnist", data_dir=tmp_path / "nowhere")


def test_rejects_unknown_name():
    with pytest.raises(InputError, match="'minst': choose mnist, fashion-mnist, kmnist, mnist-5k"):
        load_dataset("minst")


def test_dataset_names():
    assert DATASET_NAMES == ("mnist", "fashion-mnist", "kmnist", "mnist-5k")


@pytest.mark.parametrize("url", PUBLIC_MIRRORS)
def test_mirrors_are_encrypted(url):
    assert url.startswith("https://")
    assert url.endswith("/")
