"""The command `drift`, which compares live observations with those of a version's final evaluation."""
