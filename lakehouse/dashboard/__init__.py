"""Dashboard: pages for people, in Portuguese, over gold and ops. Run it: `make dashboard`.

    gold/*, ml/*, ops/* ─▶ reading.py (DuckDB) ─▶ one query module per subject ─▶ pages/ (Streamlit)
                                                                        └─▶ ops/routing/routing.json, the one thing it writes

Here: what pages ask and say. `pages/` is all that imports Streamlit; everything else can be tested and used without it.
Comes from: gold, ml, ops and the commits of bronze and silver. Goes to: a browser of this machine (127.0.0.1).
Never: measures or starts anything; computes a figure that a mart has; shows a delivered record.
"""
