"""Programs that measure tide beside a reference that runs in the same program."""
