"""HTTP handling shared by all endpoints: middleware, bodies, compression, headers, responses."""
