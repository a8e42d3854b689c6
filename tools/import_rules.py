"""An import-linter contract: what a package may import of this project, and nothing else of it.

import-linter's own kinds name what is forbidden, so each new package would need a line in each of
them; this one names what is allowed. pyproject.toml holds the contracts, `make lint` checks them.
"""

from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class MayImportContract(Contract):
    """Modules of `source` import, of the project's packages, only modules within `allowed`.

    Both are dotted names; each stands for the module and everything below it. `source` itself is
    always allowed. Indirect imports are each package's own matter.
    """

    type_name = "may_import"

    source = fields.StringField()
    allowed = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 (given)
        """Collect every direct import that leaves the allowed packages."""
        source = str(self.source)
        fields_value: Any = self.allowed  # import-linter puts the list where the field was declared
        allowed = [source, *(fields_value or [])]
        broken = [
            f"{importer} imports {imported}"
            for importer in sorted(graph.modules)
            if _is_within(importer, source)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not any(_is_within(imported, package) for package in allowed)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import."""
        for line in check.metadata["broken"]:
            output.print_error(line)


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")
