"""The code versions of ml/steps.py are constants; here is held what they stand for.

The values are what commit 2e6ab70 stored, where each was the hash of the modules' text: since then they were only reworded.

A fingerprint is the hash of what the modules do: their syntax tree without docstrings. Comments and layout are free.
"""

import ast
import hashlib
import sys

import pytest

from lakehouse.ml import steps
from lakehouse.settings import project_folder

ML = project_folder() / "lakehouse" / "ml"
#: By constant: its value, its modules, and their fingerprint when the constant had that value.
FINGERPRINTS = {
    "MODEL_CODE": ("2e5927d24a6c", ("series", "features", "recipes", "models", "backtest"), "e868f5bf1a6db737"),
    "FEATURES_CODE": ("b17cf0d5bf1e", ("series", "features"), "2bfe25d5370c37c1"),
    "GATE_CODE": ("ca18e8a3fded", ("gate", "decisions"), "2c465e7fb4c644fa"),
    "SCORING_CODE": ("7531fed97b4a", ("scoring",), "a25ce258712e46bc"),
}


def fingerprint(*sources: str) -> str:
    digest = hashlib.sha256()
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        digest.update(ast.dump(tree).encode() + b"\x00")
    return digest.hexdigest()[:16]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="syntax trees of other Pythons print otherwise")
@pytest.mark.parametrize("constant", FINGERPRINTS)
def test_a_code_version_stands_for_the_code_that_it_was_given_to(constant):
    value, modules, stored = FINGERPRINTS[constant]
    now = fingerprint(*[(ML / f"{name}.py").read_text() for name in modules])
    assert getattr(steps, constant) == value, f"{constant} was changed: write its new value here, with the fingerprint {now}."
    assert now == stored, (
        f"{', '.join(modules)} changed. Do they compute something else from the same rows? Then change {constant} in "
        f"lakehouse/ml/steps.py, and here its value and the fingerprint. Are they only written otherwise (names, order, types, "
        f"messages)? Then only the fingerprint here: a new MODEL_CODE trains and registers a new model. "
        f"The fingerprint is {now}."
    )


def test_a_fingerprint_is_of_what_code_does_not_of_how_it_is_laid_out():
    code = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    assert fingerprint(code) == fingerprint('"""Module."""\n# a comment\ndef f(x):\n\n    return (x + 1)\n')
    assert fingerprint(code) != fingerprint(code.replace("1", "2"))
    assert fingerprint("a = 1", "b = 2") != fingerprint("a = 1\nb = 2")
