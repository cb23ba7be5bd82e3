"""Tests that accept a rack: `python -m pytest --pyargs bms.rig.acceptance --rack URL`.

They ask for nothing that only one kind of rack has: times come from the fault table of its configuration, and what a
rack cannot do is skipped with the reason. The rack is connected, loaded and tripped: read docs/bench_rig.md.
"""
