"""Reports: self-contained pages for people who open a file.

Here: one asset per report and the page that it renders.
Comes from: gold, ml, and the ledger and checks of the layers before it. Goes to: `<root>/reports/<name>/<date>/index.html`.
Never: computes a figure that a mart should hold; loads anything from the network.
Rerun: the same figures on the same day are the same bytes, and the file is left untouched.
"""
