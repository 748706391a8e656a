"""Personal data: which texts say something about a person, and how they are shown all the same.

CPF, CNPJ, e-mail addresses and telephone numbers are known by what they are, check digits included; people's names, addresses
and documents by the name of their column, or by first names that are common in Brazil.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A text of this kind within a longer one. RE2's syntax, since DuckDB looks for it in whole files.
EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
CPF = r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b"
CNPJ = r"\b[0-9A-Z]{2}\.[0-9A-Z]{3}\.[0-9A-Z]{3}/[0-9A-Z]{4}-[0-9]{2}\b"
TELEPHONE = r"(?:\+55 ?)?\(?\b0?[1-9][0-9]\)? ?9?[0-9]{4}[- ][0-9]{4}\b"
WITHIN = f"{EMAIL}|{CPF}|{CNPJ}|{TELEPHONE}"
#: As many digits as a CPF, a CNPJ or a telephone number has, and nothing else.
BARE = r"[0-9]{10,14}|[0-9A-Z]{12}[0-9]{2}"

_WHOLE = {"e-mail": EMAIL, "telephone": r"(?:\+?55 ?)?\(?0?[1-9][0-9]\)?[ -]?9?[0-9]{4}[- ]?[0-9]{4}"}
#: Words of a column's name that tell of a person, whatever its values are.
_NAMED = {
    "telephone": "telefone fone tel celular cel whatsapp phone mobile contato",
    "e-mail": "email mail",
    "CPF": "cpf",
    "CNPJ": "cnpj",
    "document": "rg cnh pis nis passaporte identidade ssn documento doc titulo_eleitor",
    "address": "endereco logradouro rua complemento bairro_residencial address street",
    "birth": "nascimento nasc birth birthday birthdate",
    "name": "cliente paciente aluno funcionario colaborador titular mae pai conjuge sobrenome responsavel vendedor comprador "
    "proprietario beneficiario motorista segurado correntista atendente operador gerente medico professor advogado corretor "
    "candidato eleitor inquilino locatario hospede passageiro contribuinte empregado socio dependente customer surname firstname "
    "lastname employee patient student",
    "account": "senha password cartao pix iban conta_corrente",
}
_BY_WORD = {word: kind for kind, words in _NAMED.items() for word in words.split()}
#: They make a column about a person only where its values look like names.
_MAYBE = frozenset(("nome", "name", "razao", "contato", "usuario", "user"))
_FIRST_NAMES = frozenset(
    [
        "maria",
        "jose",
        "ana",
        "joao",
        "antonio",
        "francisco",
        "carlos",
        "paulo",
        "pedro",
        "lucas",
        "luiz",
        "luis",
        "marcos",
        "gabriel",
        "rafael",
        "daniel",
        "marcelo",
        "bruno",
        "eduardo",
        "felipe",
        "rodrigo",
        "manoel",
        "mateus",
        "matheus",
        "andre",
        "fernando",
        "fabio",
        "leonardo",
        "gustavo",
        "guilherme",
        "leandro",
        "tiago",
        "thiago",
        "anderson",
        "ricardo",
        "marcio",
        "jorge",
        "sebastiao",
        "alexandre",
        "roberto",
        "edson",
        "diego",
        "vitor",
        "victor",
        "sergio",
        "claudio",
        "francisca",
        "antonia",
        "adriana",
        "juliana",
        "marcia",
        "fernanda",
        "patricia",
        "aline",
        "sandra",
        "camila",
        "amanda",
        "bruna",
        "jessica",
        "leticia",
        "julia",
        "luciana",
        "vanessa",
        "mariana",
        "gabriela",
        "vera",
        "vitoria",
        "larissa",
        "claudia",
        "beatriz",
        "rita",
        "luana",
        "sonia",
        "renata",
        "eliane",
        "josefa",
        "simone",
        "natalia",
        "cristiane",
        "carla",
        "debora",
        "rosangela",
        "jaqueline",
        "rosa",
        "daniela",
        "aparecida",
        "marlene",
        "terezinha",
        "raimunda",
        "andreia",
        "fabiana",
        "lucia",
        "raquel",
        "helena",
        "isabela",
        "alice",
        "laura",
        "sofia",
        "miguel",
        "arthur",
        "davi",
        "heitor",
        "bernardo",
        "bia",
        "caio",
        "igor",
        "otavio",
        "regina",
        "tereza",
        "teresa",
    ]
)
_ENOUGH = 0.8
_NAMES_ENOUGH, _NAMES_MAYBE = 0.3, 0.1


@dataclass(frozen=True)
class Personal:
    """What a column says about people: `kind` is empty for nothing, `evidence` has no value of it."""

    kind: str = ""
    evidence: str = ""


def is_cpf(text: str) -> bool:
    """Whether it is a CPF, with or without punctuation, whose two check digits fit."""
    digits = re.sub(r"[.\- ]", "", text)
    if not re.fullmatch(r"[0-9]{11}", digits) or len(set(digits)) == 1:
        return False
    numbers = [int(digit) for digit in digits]
    return all(
        sum(number * weight for number, weight in zip(numbers[:position], range(position + 1, 1, -1), strict=True)) * 10 % 11 % 10
        == numbers[position]
        for position in (9, 10)
    )


def is_cnpj(text: str) -> bool:
    """Whether it is a CNPJ, with or without punctuation, whose two check digits fit; those with letters since 2026 too."""
    found = re.sub(r"[./\- ]", "", text).upper()
    if not re.fullmatch(r"[0-9A-Z]{12}[0-9]{2}", found) or len(set(found)) == 1:
        return False
    numbers = [ord(letter) - ord("0") for letter in found]
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    for position in (12, 13):
        rest = sum(number * weight for number, weight in zip(numbers[:position], weights[13 - position :], strict=True)) % 11
        if numbers[position] != (0 if rest < 2 else 11 - rest):
            return False
    return True


def personal(name: str, texts: Sequence[str]) -> Personal:
    """What the column `name` with these distinct texts says about people."""
    words = _words(name)
    filled = [text.strip() for text in texts if text.strip()]
    checks = {"CPF": is_cpf, "CNPJ": is_cnpj, **{kind: re.compile(pattern).fullmatch for kind, pattern in _WHOLE.items()}}
    for kind, fits in checks.items():
        share = _share(filled, fits)
        bare = kind == "telephone" and _share(filled, re.compile(r"[0-9]+").fullmatch) > 0
        if share >= _ENOUGH and not (bare and kind not in {_BY_WORD.get(word) for word in words}):
            digits = " with the right check digits" if kind in ("CPF", "CNPJ") else ""
            return Personal(kind, f"{share:.0%} of the values have the form `{kind}`{digits}")
    for word in words:
        if word in _BY_WORD and not _is_of_many(words, filled):
            return Personal(_BY_WORD[word], f"its name has `{word}`")
    within = sum(bool(re.search(WITHIN, text)) or is_cpf(text) or is_cnpj(text) for text in filled)
    if within:
        return Personal("text", f"{within:,} of {len(filled):,} distinct values have a CPF, CNPJ, e-mail or telephone in them")
    maybe = bool(_MAYBE.intersection(words))
    share = _share(filled, lambda text: _is_name(text, parts=1 if maybe else 2))
    if share >= (_NAMES_MAYBE if maybe else _NAMES_ENOUGH):
        return Personal("name", f"{share:.0%} of the values begin with a common first name")
    return Personal()


def masked(text: str) -> str:
    """The shape of a text: digits are 9, capitals X, other letters x."""
    return re.sub(r"[^\W\d_]", lambda letter: "X" if letter[0].isupper() else "x", re.sub(r"\d", "9", text))


def shown(text: str, *, hidden: bool, limit: int = 40) -> str:
    """A delivered text for a person: its shape alone where it is about somebody, and cut to a length."""
    out = masked(text) if hidden or re.search(WITHIN, text) or is_cpf(text) or is_cnpj(text) else text
    out = out.encode("unicode_escape").decode() if not out.isprintable() else out
    return out if len(out) <= limit else f"{out[: limit - 1]}…"


def looks_personal(texts: Iterable[str]) -> bool:
    """Whether one of the texts is about a person: no header is."""
    return any(re.search(WITHIN, text) or is_cpf(text) or is_cnpj(text) for text in texts)


def _words(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", plain).lower()
    return [word for word in re.split(r"[^a-z0-9]+", split) if word]


def _is_of_many(words: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether a column that is named after a person has their number in this source (`cliente_id`, 17), or one that is named
    after an address only the town."""
    kinds = {_BY_WORD.get(word) for word in words} - {None}
    if kinds == {"address"} and {"cidade", "municipio", "uf", "estado", "pais", "city", "state", "country"} & {*words}:
        return True
    if kinds != {"name"}:
        return False
    numbered = bool({"id", "cod", "codigo", "uuid", "key", "tipo", "qtd", "total", "status", "uf", "cidade"} & {*words})
    return numbered or _share(texts, re.compile(r"[-+0-9.,:/TZ ]{1,30}").fullmatch) >= _ENOUGH


def _is_name(text: str, *, parts: int) -> bool:
    """Whether a text of at least so many words begins with a common first name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9 ]", " ", plain).split()
    return parts <= len(words) <= 7 and words[0] in _FIRST_NAMES and (parts == 1 or not re.search(r"\d", plain))


def _share(texts: Sequence[str], fits: object) -> float:
    assert callable(fits)
    return sum(bool(fits(text)) for text in texts) / len(texts) if texts else 0.0
