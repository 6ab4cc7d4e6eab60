"""The HTTP server: sockets, connections and worker processes. The only package that touches uvicorn."""
