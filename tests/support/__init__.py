"""What the tests stand on: a fault proxy, raw HTTP on both ends, a virtual clock, processes, local services.

Nothing is imported here: each room is started on its own, some as a process (`python -m tests.support.faults`).
"""
