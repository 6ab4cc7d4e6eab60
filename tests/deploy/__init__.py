"""Files of deploy/ and .github/: against the service, and against the schemas of the programs that read them."""
