"""Plots that a registered version carries, as SVG. Drawn by Vega, as the reports' charts are."""

from collections.abc import Mapping, Sequence
from typing import Any


def folds(rows: Sequence[Mapping[str, Any]], horizon: int) -> str:
    """WAPE of each reported fold, a line for each model."""
    import altair as alt

    values = [
        {"origem": row["origem"].isoformat(), "modelo": row["modelo"], "wape": row["wape"]}
        for row in rows
        if row["horizonte"] == horizon and row["uso"] == "relato"
    ]
    chart = alt.Chart(alt.InlineData(values=values)).mark_line(point=True)
    return _svg(chart.encode(x="origem:T", y="wape:Q", color="modelo:N"), f"WAPE, {horizon} dias")


def importance(shares: Mapping[str, float], *, most: int = 12) -> str:
    """The features whose shuffling costs most."""
    import altair as alt

    values = [{"feature": name, "share": share} for name, share in list(shares.items())[:most]]
    chart = alt.Chart(alt.InlineData(values=values)).mark_bar()
    return _svg(chart.encode(x="share:Q", y=alt.Y("feature:N", sort=None)), "Aumento do erro sem a variável")


def _svg(chart: Any, title: str) -> str:
    import altair as alt
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    drawn = chart.properties(width=640, height=280, title=title).to_dict(validate=False)
    return str(vl_convert.vegalite_to_svg(drawn, vl_version=version, allowed_base_urls=[]))
