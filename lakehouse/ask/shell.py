"""The shell: statements that end with `;`, dot commands, completion, history. Without a terminal it answers what stdin has.

GNU readline, by Python's own module: it edits lines, completes and searches the history, starts in a millisecond, and needs no
package.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

from lakehouse.ask.connection import LakeConnection
from lakehouse.ask.output import Format, check_format, write
from lakehouse.ask.statement import split
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import DELTA_LAYERS
from lakehouse.settings.light import derived_folder

PROMPT, MORE = "lake> ", "  ... "
_HISTORY_LINES = 1000
_WORDS = (
    "SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT JOIN LEFT JOIN USING ON WITH AS DISTINCT COUNT(*) SUM( AVG( MIN( MAX( "
    "DESCRIBE SUMMARIZE EXPLAIN SHOW ALL TABLES CASE WHEN THEN ELSE END BETWEEN LIKE ILIKE IS NOT NULL QUALIFY UNION ALL BY NAME"
)
_HELP = """\
A statement ends with ; and may go over lines. Tables are named by layer: silver.vendas, gold.vendas_diarias.

  .tables [text]   the tables of the lake, or those with this text in their names
  .at              the instant whose versions are read
  .refresh         read the tables as they are now
  .format csv      how answers are shown: table, csv, json
  .help  .quit

Tab completes tables, columns and words; Ctrl-R searches the history. DESCRIBE silver.vendas lists columns."""


class Shell:
    """One session at a terminal, or the statements of stdin."""

    def __init__(self, lake: LakeConnection, *, form: Format = "table", at: str = "") -> None:
        self.lake, self.form, self.at = lake, form, at
        self._names: list[str] = []
        self._candidates: list[str] = []

    def run(self) -> int:
        """Answer until the end of the input; the exit code."""
        if not sys.stdin.isatty():
            for statement in split(self.lake.cursor(), sys.stdin.read()):
                write(self.lake, self.lake.sql(statement), self.form, sys.stdout.buffer)
            return 0
        print(f"{len(self.names())} tables, for reading, as of {self._instant()}. .help lists the commands.")
        with self._readline():
            for text in self._inputs():
                self._answer(text)
        return 0

    def names(self) -> list[str]:
        """The tables, as a statement names them; listed once, and again after `.refresh`."""
        if not self._names:
            self._names = [f"{ref.layer}.{ref.table}" for ref in self.lake.tables()]
        return self._names

    def _instant(self) -> str:
        return self.at or f"{self.lake.at:%Y-%m-%d %H:%M:%S} UTC"

    def _inputs(self) -> Iterator[str]:
        """Each dot command, and each text with whole statements, until the input ends or `.quit`."""
        text = ""
        while True:
            try:
                line = input(MORE if text else PROMPT)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:  # what was begun is dropped
                print()
                text = ""
                continue
            if not text and line.strip() in (".quit", ".exit"):
                return
            text = f"{text}\n{line}" if text else line
            if text.lstrip().startswith(".") or text.rstrip().endswith(";"):
                yield text.strip()
                text = ""
            elif not text.strip():
                text = ""

    def _answer(self, text: str) -> None:
        """Print what a text asks for; what is wrong with it, too."""
        try:
            if text.startswith("."):
                self._command(*text[1:].split(maxsplit=1))
                return
            for statement in split(self.lake.cursor(), text):
                write(self.lake, self.lake.sql(statement), self.form, sys.stdout.buffer)
        except LakehouseError as error:
            print(f"error: {error}")
        except KeyboardInterrupt:
            print("Interrupted.")

    def _command(self, name: str = "", argument: str = "") -> None:
        known: dict[str, Callable[[], None]] = {
            "tables": lambda: print("\n".join(table for table in self.names() if argument in table) or "There is none."),
            "at": lambda: print(self._instant()),
            "refresh": self._refresh,
            "format": lambda: self._format(argument),
            "help": lambda: print(_HELP),
        }
        known.get(name, lambda: print(f"error: There is no command .{name}. .help lists them."))()

    def _refresh(self) -> None:
        self.lake.refresh()
        self._names = []
        print(f"{len(self.names())} tables as of {self._instant()}.")

    def _format(self, name: str) -> None:
        self.form = check_format(name or "table")

    # --- readline ------------------------------------------------------------------------------------------------------

    def complete(self, word: str, number: int) -> str | None:
        """The n-th word that begins with what was typed: a table, a column of one that was opened, a word of SQL."""
        if number == 0:
            columns = [] if "." in word else self.lake.columns()
            words = [*self.names(), *(f"{layer}." for layer in DELTA_LAYERS if word and "." not in word), *columns]
            words += [name if word.isupper() else name.lower() for name in dict.fromkeys(_WORDS.split())]
            words += [".tables", ".at", ".refresh", ".format", ".help", ".quit"] if word.startswith(".") else []
            self._candidates = sorted({found for found in words if found.lower().startswith(word.lower())})
        return self._candidates[number] if number < len(self._candidates) else None

    @contextlib.contextmanager
    def _readline(self) -> Iterator[None]:
        """Completion, and a history that this user alone can read: statements may have personal data in them."""
        try:
            import readline
        except ImportError:  # a Python without it: lines are typed as they are
            yield
            return
        file = derived_folder() / "sql_history"
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.read_history_file(file)
        readline.set_history_length(_HISTORY_LINES)
        readline.set_completer(self.complete)
        readline.set_completer_delims(" \t\n,()=<>+-*/;")
        readline.parse_and_bind("tab: complete")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                readline.write_history_file(file)
