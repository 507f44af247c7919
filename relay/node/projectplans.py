"""Which limits a project has: the plans of the settings, and what the registry says of who has which. In memory.

A project without a plan of its own has the operator's default plan; so has one whose plan the settings know no more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from relay.keys.scopes import Scope

UNLIMITED = Scope()
_LOGGER = logging.getLogger("relay.plans")


class ProjectPlans:
    """One per node. `default` is one of `known`, or None: no limits."""

    def __init__(self, known: Mapping[str, Scope], default: str | None) -> None:
        self.known = known
        self.default = default
        self.given: dict[str, str] = {}
        """The plan of each project that was given one, by the project's id."""
        self.on_changed: list[Callable[[str, Scope], None]] = []
        """Called with a project's id and its limits when these may have changed, before `changed` returns."""
        self._missed: set[str] = set()

    def limits_of(self, plan: str | None) -> Scope:
        """What a project may use that was given this plan; None: that was given none."""
        scope = None if plan is None else self.known.get(plan)
        if scope is not None:
            return scope
        return UNLIMITED if self.default is None else self.known[self.default]

    def limits_of_project(self, project_id: str) -> Scope:
        """What the project may use."""
        return self.limits_of(self.given.get(project_id))

    def changed(self, project_id: str, plan: str | None) -> None:
        """The project has this plan from now on."""
        if plan is None:
            self.given.pop(project_id, None)
        else:
            self.given[project_id] = plan
            if plan not in self.known and plan not in self._missed:
                self._missed.add(plan)
                instead = "no limits" if self.default is None else f"those of the plan {self.default}"
                _LOGGER.warning(
                    "projects have the plan %s, which the settings do not know, so their limits are %s: write a table "
                    "[plans.%s], or give them another plan", plan, instead, plan
                )  # fmt: skip
        limits = self.limits_of(plan)
        for tell in self.on_changed:
            tell(project_id, limits)
