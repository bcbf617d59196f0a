"""The findings of ``configs/findings/``: claims of the papers held against our own sweeps, drawn and written down.

``python -m tests.bench.findings STORE`` reads the tables of a store that these configs filled and writes the tables and
figures of ``docs/findings.md``.
"""
