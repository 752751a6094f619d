"""Chooses the settings that the user does not give: from a shipped file, or by the environment's spaces and horizon."""
