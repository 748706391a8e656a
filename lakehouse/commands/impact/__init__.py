"""Impact: what a change of the code does to the graph, and what it breaks, without running anything over data.

    make impact                          the working tree against main
    make impact BASE=v1 HEAD=my-branch   two git refs

`describe.py` tells in a process of its own what one checkout declares, and tries its marts and dbt tests over empty tables;
`changes.py` compares two such descriptions and knows neither git nor Dagster; `text.py` writes the outcome. What does not
belong here: reading tables, changing anything.
"""
