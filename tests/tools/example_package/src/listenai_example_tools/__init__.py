"""Two tools: one as it is, and one that is made when it is loaded."""

from __future__ import annotations

import random
from typing import Annotated, Literal

from listenai.errors import ToolError
from listenai.tools.functions import FunctionTool, tool

RECIPES = {"pancakes": ["flour", "milk", "eggs"], "porridge": ["oats", "water"]}


@tool(timeout_seconds=5)
async def find_recipe(dish: str, diet: Literal["any", "vegan"] = "any") -> list[str]:
    """Find out what goes into a dish.

    Args:
        dish: Name of the dish.
        diet: Whom it should suit.
    """
    ingredients = RECIPES.get(dish.lower())
    if ingredients is None:
        raise ToolError(f"I know no recipe for {dish}; I know {', '.join(RECIPES)}")
    if diet == "vegan" and {"milk", "eggs"} & set(ingredients):
        raise ToolError(f"{dish} are not vegan")
    return ingredients


def make_tools() -> list[FunctionTool]:
    """Tools that share a state have it made here."""
    chance = random.Random()

    @tool
    def roll_dice(count: Annotated[int, "how many dice"] = 1) -> list[int]:
        """Roll dice."""
        if not 1 <= count <= 20:
            raise ToolError(f"the count must be from 1 to 20, not {count}")
        return [chance.randint(1, 6) for _ in range(count)]

    return [roll_dice]
