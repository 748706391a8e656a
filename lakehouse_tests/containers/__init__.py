"""deploy/compose.yaml on real containers: `make image`, then `make test-containers` (ten minutes and more)."""
