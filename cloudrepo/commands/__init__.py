"""Builders and parsers, one module a tool: the builder of a question stands beside the parser of its answer.

Building runs nothing. Options that take a value from outside are written so that the value can never be
read as an option.
"""
