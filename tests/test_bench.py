"""The benchmark programs run and write what they promise; nothing here looks at times."""

import importlib.util
import json

import pytest

from bench import peak, peers, roofline, scaling

FAST = ["--turns", "2", "--seconds", "0.001"]
PROGRAMS = [peers, roofline, scaling]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def run(program, tmp_path, *arguments):
    """Run a program with tiny settings and return what it wrote as JSON."""
    written, drawn = tmp_path / "figures.json", tmp_path / "figures.png"
    outputs = ["--json", str(written), "--plot", str(drawn)]
    assert program.main([*FAST, *outputs, *arguments]) == 0
    assert drawn.read_bytes().startswith(b"\x89PNG\r\n")
    document = json.loads(written.read_text(encoding="utf-8"))
    assert document["machine"]["cpu"]["brand_raw"]
    assert document["settings"]["turns"] == 2
    return document


def other_peers(kind, name):
    """Return the arguments that leave out all other libraries."""
    return ["--without", *(peer.name for peer in peers.PEERS[kind] if peer.name != name), "scipy"]


@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        pytest.param(kind, peer, id=f"{kind}: {peer.name}")
        for kind, found in peers.PEERS.items()
        for peer in found
        if peer.name != "torch.compile"  # compiles for some 10 s
    ],
)
def test_peer_computes_the_same(kind, peer, tmp_path):
    for package in peer.packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    settings = ["--only", kind, "--network", "small", "--batch", "16"]
    document = run(peers, tmp_path, *settings, *other_peers(kind, peer.name))
    (result,) = document[kind]
    # One that computed something else, or did not run at all, would be left out.
    assert set(result["images_per_second"]) == {"ours", peer.name, "numpy"}
    assert len(result["images_per_second"][peer.name]) == 2


def test_missing_peers_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    document = run(peers, tmp_path, "--network", "small", "--batch", "4")
    assert {kind: len(document[kind]) for kind in peers.PEERS} == {"training": 1, "inference": 1}
    said = capsys.readouterr().err
    assert "peers.py: JAX is left out: pip install jax" in said
    assert "Traceback" not in said


def test_broken_peer_is_left_out(tmp_path, capsys, monkeypatch):
    def build(peer, network, kind, threads):
        return lambda *batch: 1e9

    monkeypatch.setattr(peers, "build", build)
    monkeypatch.setattr(peers, "installed", lambda peer: peer.name == "JAX")
    run(peers, tmp_path, "--only", "training", "--network", "small", "--batch", "4")
    assert "JAX is left out: computes another function" in capsys.readouterr().err


def test_roofline(tmp_path, monkeypatch):
    monkeypatch.setattr(peak, "LARGEST_SET", 1 << 22)
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
        ["--turns", "0"],
        ["--seconds", "-1"],
        ["--threads", "100000"],
        ["--json", "no/such/folder/a.json"],
        ["--plot", "no/such/folder/a.png"],
        ["--only", "nothing"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(program, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("error:") == 1
