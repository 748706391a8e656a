"""The performance suite: `make bench`, or `python -m benchmarks [--rows N] [--only NAME] [--json FILE]`.

Here are generated data, bare scripts that do the same work without the lakehouse, and the cases that measure both side by
side. What is not here: assertions on behaviour (lakehouse_tests/) and any figure that was not measured by the run itself.
"""
