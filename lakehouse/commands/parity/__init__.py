"""Parity: does another flow's table have the rows of ours, and another lake the tables? Figures out, nothing printed.

`rows.py` compares two tables, `lake.py` pairs the tables of two lakes, `report.py` is the text and the document of both.
"""
