"""HTTP routes, one file per resource; the work is done by the packages below."""
