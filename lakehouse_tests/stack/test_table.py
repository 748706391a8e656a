"""`make table` of a PostgreSQL table: its types and its key are the database's own, its rows a silver table."""

import re
from pathlib import Path

import pytest

from lakehouse_tests.commands.test_table import copy, make, rows

__all__ = ["copy"]

SECRET = "nao-mostre"


def test_a_postgresql_table_ends_in_a_silver_table(postgres: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg2

    connection = psycopg2.connect(postgres.replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA loja")
        cursor.execute(
            "CREATE TABLE loja.contas (id bigint PRIMARY KEY, nome text, cpf varchar(14), saldo numeric(14,2), ativo boolean, "
            "desde date NOT NULL, visto timestamptz, updated_at timestamptz DEFAULT now(), extra jsonb)"
        )
        cursor.execute(
            """INSERT INTO loja.contas (id, nome, cpf, saldo, ativo, desde, visto, extra)
            SELECT n, CASE WHEN n % 5 = 0 THEN '' WHEN n % 7 > 0 THEN 'Ana, "a" ' || n END, '529.982.247-25', n * 1.25, n % 2 = 0,
                DATE '2024-01-01' + n::int, TIMESTAMPTZ '2024-03-10 12:00-03' + n * INTERVAL '1 hour', '{"uf": "SP"}'
            FROM generate_series(1, 500) AS n"""
        )
    connection.close()
    done = make(copy, f"{postgres}#loja.contas", "--yes", "1")
    assert done.returncode == 0, done.stderr
    assert rows(copy, "silver", "contas") == 500 and rows(copy, "quarantine", "contas") == 0
    module = (copy / "lakehouse" / "tables" / "contas.py").read_text()
    assert 'Column("saldo", "decimal(14,2)")' in module and 'Column("extra_uf", "string", path="extra.uf")' in module
    types = {"id": "bigint", "ativo": "boolean", "desde": "date", "visto": "timestamp", "cpf": "string"}
    assert all(re.search(rf'Column\("{name}", "{kind}"', module) for name, kind in types.items())
    assert 'Table("contas", cursor="updated_at", schema="loja")' in module and 'not_null("desde")' in module
    assert 'key=("id",)' in module and "529.982" not in done.stdout + module
    password = re.search(r"://[^:/]*:([^@]+)@", postgres)
    assert password is None or password[1] not in done.stdout + done.stderr + module


def test_a_database_that_refuses_is_one_sentence_without_the_password(postgres: str, copy: Path) -> None:
    wrong = re.sub(r"://([^:@/]+)(:[^@]*)?@", rf"://\1:{SECRET}@", postgres)
    for url in (f"{wrong}#nenhuma", f"{postgres}#nenhuma"):
        done = make(copy, url, "--yes", "1")
        assert done.returncode == 2 and done.stderr.startswith("error: The table nenhuma could not be read")
        assert len(done.stderr.splitlines()) == 1 and SECRET not in done.stdout + done.stderr
