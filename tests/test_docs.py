"""The guide's code runs, its table is that of the network, and no link leads nowhere."""

import ast
import re
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from run import small

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide.md"
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TITLES = ["layer", "input shape", "output shape", "parameters", "which are"]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def links(page):
    """Return text and target of each link to a file; what is fenced as code holds none."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    found = re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose)
    return [(text, target.partition("#")[0]) for text, target in found if is_relative(target)]


def is_relative(target):
    return not re.match(r"[a-z]+:|#", target)


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


def test_code_runs_and_prints_what_the_guide_says(capsys):
    text, names, promised = GUIDE.read_text("utf-8"), {}, []
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S))
    assert blocks
    for block in blocks:
        said = re.findall(r"^print\(.*\)  # (.*)$", block[1], re.M)
        assert len(said) == block[1].count("print("), "each print says what it prints"
        promised += said
        above = text.count("\n", 0, block.start(1))  # so that errors name the guide's own lines
        code = compile("\n" * above + block[1], GUIDE, "exec")
        with threadpool_limits(1):  # two wait for each other where the cores are busy
            exec(code, names)
    assert capsys.readouterr().out.splitlines() == promised


def test_table_is_that_of_the_network():
    lines = GUIDE.read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"]
    model = small((1, 28, 28), 10, backend="numpy")
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
    # And so does print(model) say it, which leaves the last column and the inputs out.
    printed = [re.split(r"\s{2,}", line) for line in str(model).splitlines()]
    assert [[row[0], row[2], row[3]] for row in rows[2:-1]] == printed[3:-2]
    assert printed[-1] == ["total", total]


@every_page
def test_links_lead_to_files(page):
    missing = [target for _, target in links(page) if not (page.parent / target).exists()]
    assert not missing


def test_linked_names_are_in_the_linked_files():
    named = [(text[1:-1], target) for text, target in links(GUIDE) if re.fullmatch("`.+`", text)]
    assert named
    for name, target in named:
        assert name in defined_names(GUIDE.parent / target), f"{target} has no {name}"
