"""The cards that the device model knows, and those that a user describes."""

from spu_ir.targets.figures import Figure
from spu_ir.targets.target import FIELDS, NAMES, Target

__all__ = ["FIELDS", "Figure", "NAMES", "Target"]
