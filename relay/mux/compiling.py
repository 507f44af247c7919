"""What the compiled build is told of a class: that one which is not compiled, as those of tests, may extend it.

Without that build it is nothing. Never compiled itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_told: bool) -> Callable[[type], type]:
        """Leaves the class as it is."""
        return lambda made: made
