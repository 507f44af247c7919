"""Why a figure is what it is: sentences with gaps that are filled with the figures of the same run.

Nothing here judges; a sentence is said where `judge` finds a target missed or only met.
"""

from __future__ import annotations

from bench.judge import Why
from bench.results import Results

GIB = 2**30


def told(text: str) -> Why:
    """A reason that needs no figure."""
    return lambda _results: text


def shown(results: Results, workload: str, system: str, key: str, factor: float = 1.0, form: str = ",.0f") -> str:
    """A median in the unit that `factor` makes of it; a dash where it was not measured."""
    value = results.median(workload, system, key)
    return "–" if value is None else format(value * factor, form)


def of_requests(workload: str, more: str = "", unit: str = "request") -> Why:
    """Where the cores go while small requests, or messages, are answered as fast as they are."""

    def why(results: Results) -> str:
        def spent(system: str, key: str) -> str:
            return shown(results, workload, system, key, 1e3)

        text = (
            f"each {unit} is read, framed and answered by interpreters in two processes, and by nginx in one, in C: "
            f"it costs {spent('relay', 'relay_cpu')} µs of a processor in the relay and "
            f"{spent('relay', 'agent_cpu')} in the agent, {spent('nginx', 'relay_cpu')} in nginx"
        )
        return text + (f"; {more}" if more else "")

    return why


def of_bytes(workload: str, more: str = "") -> Why:
    """Where the cores go while large bodies move."""

    def why(results: Results) -> str:
        def spent(system: str, key: str) -> str:
            return shown(results, workload, system, key, 1.0, ".2f")

        text = (
            "each byte is read and written by two processes where nginx needs one: "
            f"a GiB costs {spent('relay', 'relay_cpu')} s of a processor in the relay and "
            f"{spent('relay', 'agent_cpu')} in the agent, {spent('nginx', 'relay_cpu')} in nginx"
        )
        return text + (f"; {more}" if more else "")

    return why


def of_time(workload: str, key: str, text: str) -> Why:
    """What the systems need, in ms, and a sentence."""

    def why(results: Results) -> str:
        names = [name for name in ("direct", "nginx", "relay") if results.median(workload, name, key) is not None]
        times = ", ".join(f"{name} {shown(results, workload, name, key, 1e3, '.2f')} ms" for name in names)
        return f"{text} ({times})"

    return why


def of_memory(workload: str, text: str, per: float, unit: str) -> Why:
    """What each system holds on the visitors' side and beside the local service, and a sentence."""

    def why(results: Results) -> str:
        said = []
        for name in results.measured(workload):
            sides = [shown(results, workload, name, f"{side}_memory", 1 / per, ",.1f") for side in ("relay", "agent")]
            said.append(f"{name} {' + '.join(side for side in sides if side != '–')}")
        return f"{text} (in {unit}: {', '.join(said)})"

    return why
