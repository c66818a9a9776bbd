"""The code in the documentation runs, its tables are right, and all links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config
from threadpoolctl import threadpool_limits

from kernels import get_backend
from layers import LAYER_TYPES
from run import ARCHITECTURES, ancestor
from training.cli.arguments import make_parser
from training.datasets import load_dataset

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
GUIDE = DOCS / "guide.md"
PAGES = [README, ROOT / "data" / "README.md", *sorted(DOCS.glob("*.md"))]
TITLES = ["layer", "input shape", "output shape", "parameters", "which are"]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """Return the text of a page without fenced and indented code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.sub(r"^    .*$", "", text, flags=re.M)


def links(page):
    """Return text, file and anchor of each link that does not lead to another site."""
    found = re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(page))
    return [
        (text, *target.partition("#")[::2])
        for text, target in found
        if not re.match(r"[a-z]+:", target)
    ]


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defined_names(path):
    """Return the functions and classes of a file, and methods as Class.method."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, kinds):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, kinds)}
    return names


@pytest.fixture
def one_thread():
    """Run on one thread: where other programs use the cores, two threads wait for each other."""
    backend = get_backend("numba")
    backend.set_threads(1)
    with threadpool_limits(1):
        yield
    backend.set_threads(config.NUMBA_NUM_THREADS)


def code_blocks(page):
    """Return the compiled Python blocks of a page; their errors name the lines of the page."""
    text = page.read_text("utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        lines_above = text.count("\n", 0, block.start(1))
        yield block[1], compile("\n" * lines_above + block[1], page, "exec")


def test_code_of_the_guide_prints_what_its_comments_say(capsys, one_thread):
    names, expected = {}, []
    for source, code in code_blocks(GUIDE):
        comments = re.findall(r"^print\(.*\)  # (.*)$", source, re.M)
        assert len(comments) == source.count("print("), "each print has a comment with its output"
        expected += comments
        exec(code, names)
    assert expected
    assert capsys.readouterr().out.splitlines() == expected


def test_code_of_the_readme_runs(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    train, test = load_dataset("mnist-5k")
    names = {"x": train.images[:640], "y": train.labels[:640]}
    names |= {"x_valid": train.images[-100:], "y_valid": train.labels[-100:]}
    names |= {"x_test": test.images[:100], "y_test": test.labels[:100]}
    (block,) = code_blocks(README)
    exec(block[1], names)
    assert names["model"].evaluate(names["x_test"], names["y_test"]) > 0.5
    assert (tmp_path / "mine.json").exists()


def test_code_of_the_page_on_extending_runs(monkeypatch, one_thread):
    monkeypatch.setattr("layers.LAYER_TYPES", LAYER_TYPES.copy())
    blocks = list(code_blocks(DOCS / "extending.md"))
    assert len(blocks) >= 5
    names = {}
    for _, code in blocks:
        exec(code, names)


def test_example_trains_a_model_and_saves_it(tmp_path):
    example = ROOT / "examples" / "mnist.py"
    assert len(example.read_text("utf-8").splitlines()) <= 40
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, example, "mnist-5k", "2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"test accuracy: ([\d.]+)%", done.stdout)[1])
    assert accuracy > 80
    assert (tmp_path / "mnist.json").exists()


def test_table_of_the_guide_is_that_of_the_network():
    lines = GUIDE.read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"]
    model = ancestor((1, 28, 28), 10, backend="numpy")
    want = [
        [
            layer.name,
            str(layer.input_shape),
            str(layer.output_shape),
            f"{layer.size:,}",
            ", ".join(f"{name} {array.shape}" for name, array in layer.params.items()),
        ]
        for layer in model.layers
    ]
    total = f"{sum(layer.size for layer in model.layers):,}"
    assert rows[0] == TITLES
    assert rows[2:] == [*want, ["total", "", "", total, ""]]
    # print(model) shows the same, without the last column and the input shapes.
    printed = [re.split(r"\s{2,}", line) for line in str(model).splitlines()]
    assert [[row[0], row[2], row[3]] for row in rows[2:-1]] == printed[3:-2]
    assert printed[-1] == ["total", total]


def test_readme_has_at_most_150_lines():
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_readme_links_to_every_page():
    linked = {(ROOT / file).resolve() for _, file, _ in links(README)}
    assert {page for page in PAGES if page != README} <= linked


def test_map_of_the_code_names_existing_files():
    section = re.search(r"^## Map of the code\n(.*?)^## ", README.read_text("utf-8"), re.M | re.S)
    paths = re.findall(r"^    ([\w/]+(?:\.py|/))(?=\s)", section[1], re.M)
    assert len(paths) >= 10
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_page_on_the_command_line_explains_every_flag():
    text = (DOCS / "command-line.md").read_text("utf-8")
    explained = set(re.findall(r"^\| `(--\w+)", text, re.M))
    actions = make_parser(ARCHITECTURES)._actions
    assert explained == {action.option_strings[-1] for action in actions} - {"--help"}


@every_page
def test_links_lead_to_files_and_headings(page):
    missing = []
    for _, file, anchor in links(page):
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{file}#{anchor}")
    assert not missing


@every_page
def test_named_tests_exist(page):
    named = re.findall(r"tests/test_\w+\.py", page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@every_page
def test_linked_names_are_in_the_linked_files(page):
    named = [(text[1:-1], file) for text, file, _ in links(page) if re.fullmatch("`[^/]+`", text)]
    named = [(name, file) for name, file in named if file.endswith(".py")]
    for name, file in named:
        assert name in defined_names(page.parent / file), f"{file} has no {name}"
    assert named or page != GUIDE
