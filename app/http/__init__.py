"""What every HTTP request passes: middleware, bodies, compression, headers, responses."""
