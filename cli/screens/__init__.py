"""The menu's screens, a module for each group."""
