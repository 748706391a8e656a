"""The field's language: no identifier and no sentence uses what the glossary below replaces.

Identifiers are checked word by word (`snake_case`, `camelCase`). In sentences ordinary English is free; PHRASES are not.
Run it alone: `python -m pytest lakehouse_tests/test_language.py -n 0`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

PROJECT = project_folder()
FOLDERS = ("lakehouse", "lakehouse_tests", "benchmarks", "deploy")

#: The word to use, and the forms that it replaces.
GLOSSARY = {
    "lock, contain": "hold holds held holding holder holders",
    "finalise": "settle settles settled settling",
    "persist, retain": "keep keeps kept keeping keeper",
    "filter": "sift sifts sifted sifting",
    "validate, violation, result": "judge judges judged judging judgement verdict verdicts",
    "deduplicate, row number, outcome": "contest contests contested turn turns fate fates",
    "row id, location": "place places placed",
    "tombstones, store": "remember remembers remembered",
    "SLA, guarantee": "promise promises promised",
    "report, message, state": "say says said saying",
    "fix": "mend mends mended mending",
    "deliver": "bring brings brought bringing",
    "key range, chosen": "stretch stretches stretched near nearest",
}
INSTEAD = {form: word for word, forms in GLOSSARY.items() for form in forms.split()}

#: Names that stay: what others call so, and what is stored or promised under that name.
ALLOWED = {
    "backup_keep": "the setting LAKEHOUSE_BACKUP_KEEP",
    "keep_trailing_newline": "jinja2",
    "keep_versions": "deltalake",
    "last_tick_said": "a key of what make schedules JSON=1 prints",
}

#: What no message, docstring or page has, as regular expressions without regard to case.
PHRASES = {
    r"(?<!there )\b(is|are|was) none of\b": "is not one of",
    r"\bthat there is no\b": "does not exist",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(what|as) is said\b": "the message, what is reported",
    r"\bis said (so|of|in|by)\b": "is reported",
    r"\bsays? the same of itself\b": "has the same metadata",
    r"(?-i:\bOf (the )?records that\b)": "subject first: The stored row wins when all else is equal",
    r"\bbe told\b": "be reported, know",
    r"\bremembered deletes?\b": "tombstones",
    r"\bdeletes? (are|is) remembered\b": "tombstones",
    r"\bverdicts?\b": "result, violation",
    r"\b(judge[sd]?|judging)\b": "validate, evaluate, check, test",
    r"\bsettle[sd]?\b": "finalise",
    r"\bsift(s|ed)?\b": "filter",
    r"\bcontest(s|ed)?\b": "deduplicate",
    r"\bfates?\b": "outcome",
    r"\bwho(ever)? holds (it|this|these|them|that)\b": "the owner of the lock",
    r"\bstands? as it (is|was)\b": "is unchanged",
    r"\bhas something to say\b": "reports",
    r"\bgoes on without\b": "continues without",
}
_LOGGED = {"print", "echo", "debug", "info", "warning", "error", "exception", "critical", "log"}
_SPOKEN = {"remedy", "description", "help", "epilog"}


def _sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py") if path != Path(__file__).resolve())


def _pages() -> list[Path]:
    return sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def words(name: str) -> set[str]:
    """The words of an identifier, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module makes or uses, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name():
                yield node.id, node.lineno
            case ast.Attribute():
                yield node.attr, node.lineno
            case ast.keyword() if node.arg:
                yield node.arg, node.value.lineno
            case ast.alias():
                yield from ((part, node.lineno) for part in (*node.name.split("."), *([node.asname] if node.asname else [])))
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() if node.name:
                yield node.name, node.lineno


def dialect(path: Path) -> Iterator[str]:
    """The identifiers of a file that have a replaced word."""
    found = [(path.stem, 1), *identifiers(ast.parse(path.read_text()))]
    for name, line in found:
        for word in sorted(words(name) & set(INSTEAD)):
            if name not in ALLOWED:
                yield f"{path.relative_to(PROJECT)}:{line} {name}: {word} is {INSTEAD[word]}"


def _texts(node: ast.AST) -> Iterator[tuple[str, int]]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value, part.lineno


def _is_spoken(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in _LOGGED or name.endswith(("Error", "Refused", "Failure", "SkipReason", "Finding", "fail"))


def sentences(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Docstrings, and the texts of what is raised, found, printed, logged, or shown as remedy or description, with their line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if (text := ast.get_docstring(node)) is not None:
                yield text, getattr(node, "lineno", 1)
        elif isinstance(node, ast.Call):
            parts = [*node.args, *(k.value for k in node.keywords)] if _is_spoken(node) else []
            parts += [k.value for k in node.keywords if k.arg in _SPOKEN]
            for part in parts:
                yield from _texts(part)


def phrases(text: str, *, where: str) -> Iterator[str]:
    flat = " ".join(text.split())
    for phrase, instead in PHRASES.items():
        for match in re.finditer(phrase, flat, flags=re.IGNORECASE):
            around = flat[max(0, match.start() - 30) : match.end() + 30]
            yield f"{where} …{around}…: write {instead}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_identifier_has_a_replaced_word(folder):
    found = [one for path in _sources() if path.relative_to(PROJECT).parts[0] == folder for one in dialect(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_message_and_no_docstring_has_a_replaced_phrase(folder):
    found = []
    for path in _sources():
        name = path.relative_to(PROJECT)
        if name.parts[0] == folder:
            for text, line in sentences(ast.parse(path.read_text())):
                found += phrases(text, where=f"{name}:{line}")
    assert not found, "\n".join(dict.fromkeys(found))


def test_no_page_has_a_replaced_phrase():
    found = [one for path in _pages() for one in phrases(path.read_text(), where=str(path.relative_to(PROJECT)))]
    assert not found, "\n".join(found)


def test_what_is_allowed_is_used():
    used = {name for path in _sources() for name, _ in identifiers(ast.parse(path.read_text()))}
    assert set(ALLOWED) <= used


def test_dialect_is_found(tmp_path, monkeypatch):
    """The search itself: in a definition, a keyword, an attribute, an import, a module's name, an error and a docstring."""
    monkeypatch.setattr("lakehouse_tests.test_language.PROJECT", tmp_path)
    path = tmp_path / "keep_up.py"
    path.write_text(
        '"""Nothing is judged."""\n'
        "from a import hold\n"
        "def settleAll(x, *, said=1):\n"
        "    x.verdict(place=2)\n"
        "    raise ValueError(f'{x} is none of these')\n"
        "    Finding('current', {'message': f'the gate judges {x}'}, judged=1)\n"
        "keyed = holdings = toldYou = 1\n"
    )
    found = {one.split()[1].rstrip(":") for one in dialect(path)}
    assert found == {"keep_up", "hold", "settleAll", "said", "verdict", "place", "judged"}
    spoken = [one for text, line in sentences(ast.parse(path.read_text())) for one in phrases(text, where=str(line))]
    assert len(spoken) == 3
