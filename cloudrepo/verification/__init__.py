"""Proof on the wire of who hears whom. What should be heard follows from the records, nothing from deploy's builders.

`matrix.py` says what is sent and who must hear it, `frames.py` makes the bytes, `verdicts.py` reads what was heard.
"""
