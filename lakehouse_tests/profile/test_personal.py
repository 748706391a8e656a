"""Personal data: what is known as such, and that nothing of it is shown but its shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.profile.personal import is_cnpj, is_cpf, looks_personal, masked, personal, shown
from lakehouse_tests.profile.shop import cpf


@given(st.integers(0, 999_999_999), st.integers(1, 9))
def test_a_cpf_is_known_by_its_check_digits(number: int, more: int) -> None:
    text = cpf(number)
    same = len(set(text) - set(".-")) == 1
    assert is_cpf(text) is not same and is_cpf(text.replace(".", "").replace("-", "")) is not same
    assert not is_cpf(text[:-1] + str((int(text[-1]) + more) % 10))


@pytest.mark.parametrize("text", ["11.222.333/0001-81", "11222333000181", "12.ABC.345/01DE-35"])
def test_a_cnpj_is_known_by_its_check_digits_also_with_letters(text: str) -> None:
    assert is_cnpj(text) and not is_cnpj(text[:-1] + str((int(text[-1]) + 1) % 10))


@pytest.mark.parametrize(
    ("name", "texts", "kind"),
    [
        ("doc", [cpf(n) for n in range(1, 9)], "CPF"),
        ("numero", [cpf(n).replace(".", "").replace("-", "") for n in range(77, 90)], "CPF"),
        ("fornecedor", ["11.222.333/0001-81"], "CNPJ"),
        ("contato", ["ana@loja.com.br", "rui@casa.org"], "e-mail"),
        ("v", ["(11) 98888-1234", "11 3333-4444", "+55 21 99999-0000"], "telephone"),
        ("celular", ["11988881234", "21999990000"], "telephone"),
        ("pedido", ["11988881234", "21999990000"], ""),
        ("nome_cliente", ["X1", "X2"], "name"),
        ("cliente_id", ["17", "18"], ""),
        ("cliente", ["17", "18"], ""),
        ("nome", ["ALARM CLOCK", "LUNCH BOX"], ""),
        ("nome", ["Maria Prado", "LUNCH BOX"], "name"),
        ("nome", ["Ana", "Rui"], "name"),
        ("nome", ['Ana "M" Silva', "LUNCH BOX"], "name"),
        ("cor", ["rosa", "azul"], ""),
        ("v", ["Maria Prado", "João da Silva", "Zulmira Alves"], "name"),
        ("endereco", ["x"], "address"),
        ("endereco_cidade", ["x"], ""),
        ("nascimento", ["1990-01-01"], "birth"),
        ("obs", ["ok", "ligar para (11) 98888-1234"], "text"),
        ("obs", ["ok", "frágil"], ""),
    ],
)
def test_what_a_column_is_about(name: str, texts: list[str], kind: str) -> None:
    found = personal(name, texts)
    assert found.kind == kind and not any(text in found.evidence for text in texts if len(text) > 2)


def test_a_masked_text_has_its_shape_alone() -> None:
    assert masked("São Paulo, 12-b") == "Xxx Xxxxx, 99-x"
    assert shown("ver 123.456.789-09", hidden=False) == "xxx 999.999.999-99"
    assert shown("ana@loja.com.br", hidden=False) == "xxx@xxxx.xxx.xx"
    assert shown("frágil", hidden=False) == "frágil" and shown("frágil", hidden=True) == "xxxxxx"
    assert shown("a\nb", hidden=False) == r"a\nb" and len(shown("a" * 99, hidden=False)) == 40


def test_a_header_that_is_about_somebody_is_none() -> None:
    assert looks_personal(["nome", cpf(5)]) and not looks_personal(["nome", "cpf"])
