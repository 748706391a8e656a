"""Examples: steps that people bring from other flows, each as an asset of this lake. docs/extending.md shows them.

Here: a module for each kind of step, of at most 25 lines; definitions load them when LAKEHOUSE_EXAMPLES=1.
Never: anything that another room imports.
"""
