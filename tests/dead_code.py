"""Vulture, for which the fields of answers are used: clients read them, and mypy knows who sets them."""

import ast
import sys

from vulture.config import make_config
from vulture.core import Vulture


class Finder(Vulture):
    def visit_ClassDef(self, node):  # noqa: N802 - the name is ast's
        super().visit_ClassDef(node)
        if any(isinstance(base, ast.Name) and base.id == "TypedDict" for base in node.bases):
            self.used_names.update(each.target.id for each in node.body if isinstance(each, ast.AnnAssign))


def main():
    config = make_config()
    finder = Finder(ignore_names=config["ignore_names"], ignore_decorators=config["ignore_decorators"])
    finder.scavenge(config["paths"], exclude=config["exclude"])
    return finder.report(min_confidence=config["min_confidence"])


if __name__ == "__main__":
    sys.exit(main())
