"""Atomic writes: an earlier file is replaced only by a complete new one."""

import errno
import os
import re
import stat

import pytest

from tests.networks import small_network
from training import Model


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    model = small_network()
    path = tmp_path / "m.json"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    model.parameters.values += 1
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX lets folders be synced")
def test_a_file_and_its_folders_are_synced(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr("os.fsync", lambda handle: calls.append(os.fstat(handle).st_ino))
    monkeypatch.setattr("os.replace", lambda *names: (calls.append("rename"), replace(*names)))
    path = tmp_path / "new" / "too" / "m.json"
    small_network().save(path)
    inodes = [each.stat().st_ino for each in (tmp_path, path.parents[1], path, path.parent)]
    assert calls == [*inodes[:3], "rename", inodes[3]]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="only POSIX lets folders be synced")
@pytest.mark.parametrize("name", ["open", "fsync"])
def test_saves_into_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, name):
    """As on some network drives, and where a folder may be written to but not read."""
    call = getattr(os, name)

    def reject_folders(target, *rest, **options):
        is_folder = (
            os.path.isdir(target) if name == "open" else stat.S_ISDIR(os.fstat(target).st_mode)
        )
        if is_folder:
            code = errno.EACCES if name == "open" else errno.EINVAL
            raise OSError(code, os.strerror(code))
        return call(target, *rest, **options)

    monkeypatch.setattr(os, name, reject_folders)
    path = tmp_path / "new" / "m.json"
    small_network().save(path)
    assert Model.load(path)


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="only POSIX lets folders be synced")
def test_reports_a_folder_that_fails_to_sync_after_the_model_is_saved(tmp_path, monkeypatch):
    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", fail)
    path = tmp_path / "m.json"
    with pytest.raises(OSError, match=f"^{re.escape(str(tmp_path))}: cannot be synced: Input"):
        small_network().save(path)
    assert Model.load(path)
