"""Thin HTTP: what a route does stands in the modules beside this package."""
