"""JSON paths: where in a delivered document a column's value is. The subset that names one value: members and positions.

`endereco.cidade`, `$.itens[0].sku`, `$["a.b"]`: a member by its name, or quoted when a dot, a bracket or a blank is in it.
"""

import re

from lakehouse.core.errors import DeclarationError

Step = str | int

_STEP = re.compile(
    r"""\.?(?P<name>[^.\[\]"'\s$][^.\[\]"']*)|\[(?P<index>[0-9]{1,9})\]|\.?\[?(?P<quote>["'])(?P<quoted>.+?)(?P=quote)\]?"""
)


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path; the first is the delivered field.

    Raises:
        DeclarationError: it is not a path of this form, or does not begin with a member.
    """
    rest = text.removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(rest):
        found = _STEP.match(rest, position)
        if found is None:
            break
        index = found["index"]
        steps.append(int(index) if index is not None else found["name"] or found["quoted"])
        position = found.end()
    if position < len(rest) or not steps or isinstance(steps[0], int):
        raise DeclarationError(
            f"{text[:80]!r} is not the path of a value in a document.",
            remedy='Write endereco.cidade, $.itens[0].sku, or $["a.b"] for a name with a dot.',
        )
    return tuple(steps)


def pointer(steps: tuple[Step, ...]) -> str:
    """The steps as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)
