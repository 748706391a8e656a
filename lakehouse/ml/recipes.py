"""Recipes: how a model is made, as records. A version carries its recipe, so that it can be fitted again on other folds.

A recipe is a level and a learner. The level is the mean of recent days, freed of the weekday; the learner says how far from
level and weekday a day will be. A new recipe is one more record here; the next run tries it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.ml.features import LEVELS

LEARNERS = ("nivel", "linear", "arvores")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made.

    Args:
        learner: `nivel` adds nothing to level and weekday; `linear` is ridge regression, `arvores` gradient-boosted trees.
        level: days of the level.
        strength: of the regularisation: ridge's alpha per row; rows per leaf of a tree.
    """

    name: str
    learner: str
    level: int
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "recipe name")
        if self.learner not in LEARNERS or self.level not in LEVELS or not 0 <= self.strength < float("inf"):
            raise DeclarationError(
                f"The recipe {self.name} cannot be made: learner {self.learner!r}, level {self.level}, strength {self.strength}.",
                remedy=f"Use a learner of {', '.join(LEARNERS)}, a level of {LEVELS} and a strength of 0 or more.",
            )

    @property
    def made(self) -> tuple[str, int, float]:
        """What decides the model; the name does not."""
        return (self.learner, self.level, self.strength)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """A stored recipe.

        Raises:
            DeclarationError: this code does not know how to make it.
        """
        try:
            given: Mapping[str, Any] = json.loads(text)
            return cls(**given)
        except (ValueError, TypeError) as error:
            raise DeclarationError(f"{text[:80]!r} is no recipe.", remedy="Use the code that registered it.") from error


#: Tried by every run; the first of equals wins.
RECIPES = (
    Recipe(name="nivel_28", learner="nivel", level=28),
    Recipe(name="nivel_56", learner="nivel", level=56),
    Recipe(name="linear_28", learner="linear", level=28, strength=3.0),
    Recipe(name="arvores_28", learner="arvores", level=28, strength=100),
)


def recipe_named(name: str) -> Recipe:
    """A declared recipe.

    Raises:
        DeclarationError: there is none of that name.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = ", ".join(recipe.name for recipe in RECIPES)
    raise DeclarationError(f"There is no recipe {name[:80]!r}.", remedy=f"Use one of {known}, or none to have one chosen.")
