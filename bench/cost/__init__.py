"""A guard against slow growth that is no timed test: calls and bytecodes per request on fixed scripts, with a record.

One process, one virtual clock, no sockets: the visitor, the carrier between relay and agent, and the local service are
objects in memory, so that the same code gives the same count on every machine. `python -m bench.cost [--record]`.
"""
