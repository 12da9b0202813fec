"""The tests that pages name exist, also those whose libraries are not installed here."""

import ast
import re

import pytest
from build_tools import ROOT

NAMES = re.compile(r"``(test_\w+)(?:\.py)?::(test_\w+)``")
PAGES = {path: NAMES.findall(path.read_text()) for path in sorted((ROOT / "doc").rglob("*.rst"))}


@pytest.mark.parametrize(
    "page", [path for path, named in PAGES.items() if named], ids=lambda path: str(path.relative_to(ROOT))
)
def test_each_test_that_a_page_names_exists(page):
    missing = [name for name in PAGES[page] if name[1] not in functions(name[0])]
    assert not missing


def test_pages_name_tests():
    pages = {path.relative_to(ROOT / "doc").as_posix(): len(named) for path, named in PAGES.items()}
    assert pages["travels.rst"] > 15
    assert pages["objects.rst"] > 10
    assert min(pages["engines/dask.rst"], pages["engines/ray.rst"], pages["engines/torch.rst"]) > 0


def functions(module):
    path = ROOT / "tests" / f"{module}.py"
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
