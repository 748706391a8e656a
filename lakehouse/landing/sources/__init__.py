"""Sources: what asks somebody else for records and lands the answer; each a pure module, without Dagster."""
