"""A Brazilian shop's export, made up: `;`, cp1252, `dd/mm/yyyy hh:mm`, `R$ 1.234,56`, S/N, CPF with right check digits."""

from collections.abc import Iterator

CITIES = ("São Paulo", "Curitiba", "Belém")
NAMES = ("Ana Conceição", "João Araújo", "Marcos Lima", "Lúcia Gonçalves")
HEADER = "Código;Cliente;CPF;E-mail;Celular;Data da Venda;Vencimento;Valor Total;Qtd;Pago;Filial;CEP"


def cpf(number: int) -> str:
    """A CPF with punctuation, of nine digits that are given."""
    digits = [int(digit) for digit in f"{number:09}"]
    for size in (9, 10):
        rest = sum(digit * weight for digit, weight in zip(digits, range(size + 1, 1, -1), strict=True)) * 10 % 11
        digits.append(rest % 10)
    text = "".join(map(str, digits))
    return f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}"


def money(cents: int) -> str:
    whole = f"{cents // 100:,}".replace(",", ".")
    return f"R$ {whole},{cents % 100:02}"


def lines(rows: int) -> Iterator[str]:
    yield HEADER
    for n in range(1, rows + 1):
        cells = (
            str(5000 + n),
            NAMES[n % 4],
            cpf(123_456_000 + n),
            f"cliente{n}@loja.com.br",
            f"(11) 9{8000 + n % 1000}-{1000 + n}",
            f"{1 + n % 28:02}/{1 + n % 12:02}/2024 {n % 24:02}:{n % 60:02}",
            "" if n % 10 == 0 else f"{1 + n % 28:02}/{1 + n % 12:02}/2025",
            money(n * 12_345),
            str(n % 7),
            "SN"[n % 2],
            CITIES[n % 3],
            f"0{1000 + n % 9000}-{100 + n % 900}",
        )
        yield ";".join(cells)


def export(rows: int = 240) -> bytes:
    return ("\r\n".join(lines(rows)) + "\r\n").encode("cp1252")


#: What no print-out and no file of the tree may have.
SECRETS = ("Conceição", "Araújo", "Gonçalves", "Marcos", "123.456.", "123456", "@loja", "98001", "8001-1001")
