"""``overnight init --from``: a target.toml for an existing project."""
