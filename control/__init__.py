"""The use cases behind the façade: design, deploy, start, stop, delete, clean up.

`context` holds what they share and the checks that come first; `targets` turns records into what hosts
should have. Nothing here prints, and nothing here knows a tool's words.
"""
