"""Feast is the interface, Reel is the engine: a repository made from the declarations, and plug-ins to answer it."""
