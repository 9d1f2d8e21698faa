"""Stands in for the package http-parser, which pymesos needs and which does not compile since Python 3.11."""
