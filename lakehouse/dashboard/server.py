"""`lakehouse dashboard`: check the settings, then serve the pages on 127.0.0.1 until the process ends.

The dashboard has no login, and whoever sees it can silence alerts, so it listens on this machine only unless --host
names another address, as in a container.
"""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.core.errors import DeclarationError, LakehouseError, install
from lakehouse.core.processes import long_lived, why_taken

app = typer.Typer()
ADDRESS, PORT = "127.0.0.1", 8501


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535)] = PORT,
    host: Annotated[str, typer.Option(help="where to listen; another address needs a login before it")] = ADDRESS,
) -> None:
    """Serve pages for people: what ran, quality, tables, sales, buses, models, alerts."""
    long_lived()
    serve(port, host=host)


def options(port: int, *, host: str = ADDRESS) -> dict[str, object]:
    """Streamlit's options: where it listens, no browser opened, nothing sent to anybody, the colours of the reports."""
    from lakehouse.reports.page import PALETTE

    colours = {
        f"theme_{theme}_{option}": PALETTE[name][variant]
        for variant, theme in enumerate(("light", "dark"))
        for option, name in (
            ("primaryColor", "accent"),
            ("backgroundColor", "paper"),
            ("secondaryBackgroundColor", "panel"),
            ("textColor", "ink"),
        )
    }
    return {
        "server_address": host,
        "server_port": port,
        "server_headless": True,
        "server_fileWatcherType": "none",
        "browser_gatherUsageStats": False,
        "client_toolbarMode": "viewer",
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,
        **colours,
    }


def serve(port: int = PORT, *, host: str = ADDRESS) -> None:
    """Serve the pages until the process ends.

    Raises:
        DeclarationError: a setting is wrong, Streamlit is not installed, or the port is taken.
    """
    from lakehouse.settings import load_settings

    load_settings()
    try:
        from streamlit.web import bootstrap
    except ModuleNotFoundError:
        raise DeclarationError("Streamlit is not installed.", remedy=f"{install('dashboard')}.") from None
    if host == ADDRESS and (why := why_taken(port)):
        raise DeclarationError(
            f"Nothing can listen on port {port} of {ADDRESS} ({why}).",
            remedy=f"End what listens there, or use another: make dashboard PORT={PORT + 1}.",
        )
    given = options(port, host=host)
    threading.Thread(target=_warm).start()
    bootstrap.load_config_options(given)
    bootstrap.run(str(Path(__file__).parent / "pages" / "app.py"), False, [], given)


def _warm() -> None:
    """Import what pages need and draw the charts, so that the first who looks does not wait for it."""
    import altair
    import pandas  # noqa: F401 - Streamlit imports it for its first chart

    from lakehouse.dashboard import alerts, business, overview, reading

    altair.Chart(altair.InlineData(values=[])).mark_point().to_dict()  # altair reads its schema at the first

    with suppress(LakehouseError):  # the page says it
        for query in (overview.read, alerts.read, business.sales, business.fleet, business.model):
            reading.reader().ask(query)
