"""The command `ope`, and the options of `promote` that use it."""
